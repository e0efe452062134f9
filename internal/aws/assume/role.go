package assume

import (
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// role is what a session depends on. A registration that changes has another.
type role struct {
	account, arn string
	partition    string
	externalID   secret.Text
}

// roleOf returns the role that a registration names.
func roleOf(a store.Account) (role, error) {
	named := a.RoleARN
	if named == "" {
		named = "arn:" + partition(a) + ":iam::" + a.ID + ":role/" + DefaultRole
	}
	parsed, err := arn.Parse(named)
	if err != nil || parsed.Service != "iam" || parsed.AccountID != a.ID || !strings.HasPrefix(parsed.Resource, "role/") {
		return role{}, &fleet.Error{
			Kind: fleet.ErrRefused, Code: "InvalidRoleARN",
			Text: fmt.Sprintf("The registration of account %s has role_arn %.200q: name a role of that account, arn:%s:iam::%s:role/NAME.", a.ID, named, partition(a), a.ID),
		}
	}
	return role{account: a.ID, arn: named, partition: parsed.Partition, externalID: a.ExternalID}, nil
}

// partitions are those whose regions begin in a way of their own; all other regions
// are of the partition aws (aws-sdk-go-v2 1.47.7,
// internal/endpoints/awsrulesfn/partitions.json).
var partitions = map[string]string{
	"cn": "aws-cn", "eusc": "aws-eusc", "eu-isoe": "aws-iso-e",
	"us-gov": "aws-us-gov", "us-iso": "aws-iso", "us-isob": "aws-iso-b", "us-isof": "aws-iso-f",
}

// partition returns the partition of an account's regions, which are all of one.
func partition(a store.Account) string {
	for region := range a.Regions {
		for begin, partition := range partitions {
			if strings.HasPrefix(region, begin+"-") {
				return partition
			}
		}
	}
	return "aws"
}
