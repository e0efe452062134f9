package assume

import (
	"encoding/json"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// Part is the part of the control plane that takes on roles.
type Part string

// The parts. Each can do with a role what its own work needs and no more: the
// worker launches and ends nothing, the reaper ends and launches nothing.
const (
	Worker Part = "worker"
	Reaper Part = "reaper"
)

// MaxPolicy is the most characters that a session policy may have
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html).
const MaxPolicy = 2048

// statement and the rest are the parts of an IAM policy that are used here
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html).
type statement struct {
	Effect    string
	Action    []string
	Resource  []string
	Condition map[string]map[string][]string `json:",omitempty"`
}

// Policy returns the session policy that a part takes on a role with: what it may
// do is what this and the role's own policies both allow. It is about one account
// and one control plane. The role's policies narrow it further, to the subnets,
// parameters and instance roles of the account.
func Policy(part Part, controlPlane, partition, account string) string {
	in := func(service, region, owner, resource string) string {
		return "arn:" + partition + ":" + service + ":" + region + ":" + owner + ":" + resource
	}
	ec2 := func(kind string) string { return in("ec2", "*", account, kind+"/*") }
	allow := func(actions []string, resources []string) statement {
		return statement{Effect: "Allow", Action: actions, Resource: resources}
	}
	where := func(s statement, test, key string, values ...string) statement {
		s.Condition = map[string]map[string][]string{test: {key: values}}
		return s
	}
	// Public parameters, such as those of Amazon's images, have no account.
	parameters := allow([]string{"ssm:GetParameter"}, []string{in("ssm", "*", account, "parameter/*"), in("ssm", "*", "", "parameter/aws/service/*")})
	look := allow([]string{"ec2:DescribeInstances"}, []string{"*"}) // it knows no resources
	console := where(allow([]string{"ec2:GetConsoleOutput"}, []string{ec2("instance")}), "StringEquals", "aws:ResourceTag/"+fleet.TagControlPlane, controlPlane)
	anyKey := []string{in("kms", "*", "*", "key/*")}
	// KMS names a service by its region and a suffix, which partitions have of their own.
	const viaSSM, viaEC2 = "ssm.*", "ec2.*"

	statements := []statement{look, console, parameters}
	switch part {
	case Worker:
		statements = append(statements,
			// A machine and its volume are launched with our tag or not at all.
			where(allow([]string{"ec2:RunInstances"}, []string{ec2("instance"), ec2("volume")}),
				"StringEquals", "aws:RequestTag/"+fleet.TagControlPlane, controlPlane),
			// Subnets and groups can be another account's that shares them; images too.
			allow([]string{"ec2:RunInstances"}, []string{
				in("ec2", "*", "*", "subnet/*"), in("ec2", "*", "*", "security-group/*"), ec2("network-interface"), ec2("spot-instances-request"),
				in("ec2", "*", "*", "image/*"), in("ec2", "*", "*", "snapshot/*"),
				in("ec2", "*", "*", "capacity-reservation/*"), in("resource-groups", "*", account, "group/*"),
			}),
			allow([]string{"ec2:DescribeImages", "ec2:DescribeInstanceTypes", "ec2:DescribeRouteTables", "ec2:DescribeSubnets"}, []string{"*"}), // nor do they
			where(allow([]string{"ec2:CreateTags"}, []string{ec2("instance"), ec2("volume"), ec2("network-interface")}),
				"StringEquals", "ec2:CreateAction", "RunInstances"),
			where(allow([]string{"iam:PassRole"}, []string{in("iam", "", account, "role/*")}),
				"StringLike", "iam:PassedToService", "ec2.amazonaws.com*"),
			// EC2 uses the caller's rights on the key of an encrypted volume.
			where(allow([]string{"kms:Decrypt", "kms:DescribeKey", "kms:CreateGrant", "kms:ReEncrypt*", "kms:GenerateDataKeyWithoutPlaintext"}, anyKey),
				"StringLike", "kms:ViaService", viaSSM, viaEC2))
	case Reaper:
		statements = append(statements,
			allow([]string{"ec2:DescribeSpotPriceHistory", "ec2:DescribeSubnets"}, []string{"*"}), // nor do these know any
			where(allow([]string{"ec2:TerminateInstances"}, []string{ec2("instance")}),
				"StringEquals", "aws:ResourceTag/"+fleet.TagControlPlane, controlPlane),
			where(allow([]string{"kms:Decrypt"}, anyKey), "StringLike", "kms:ViaService", viaSSM))
	}
	doc, err := json.Marshal(struct {
		Version   string
		Statement []statement
	}{"2012-10-17", statements})
	if err != nil {
		panic("assume: strings that cannot be JSON: " + err.Error())
	}
	return string(doc)
}
