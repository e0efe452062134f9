package assume_test

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/ec2proxy"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// TestCredentialIsReadInTheRunnersAccount needs an AWS with several accounts.
func TestCredentialIsReadInTheRunnersAccount(t *testing.T) {
	const other = "222222222222"
	cloud := ec2proxy.Start(t, ec2proxy.Config{Roles: map[string]ec2proxy.Role{
		"arn:aws:iam::" + account + ":role/GitHubRunnerAssumeRole": {ExternalID: externalID, SourceIdentity: "garo-*"},
		"arn:aws:iam::" + other + ":role/ci/garo":                  {ExternalID: "another", SourceIdentity: "garo-prod"},
	}})
	accounts := &registered{accounts: map[string]store.Account{}}
	accounts.set(store.Account{ID: account, ExternalID: secret.New(externalID), DefaultRegion: "eu-west-2"})
	accounts.set(store.Account{ID: other, ExternalID: secret.New("another"), DefaultRegion: "us-east-1", RoleARN: "arn:aws:iam::" + other + ":role/ci/garo"})
	for id, region := range map[string]string{account: "eu-west-2", other: "us-east-1"} {
		_, err := ssm.NewFromConfig(cloud.Config(t, region, id)).PutParameter(t.Context(), &ssm.PutParameterInput{
			Name: new("/github/runner/pat"), Value: new("pat of " + id), Type: types.ParameterTypeSecureString,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range []assume.Part{assume.Worker, assume.Reaper} {
		s := assume.New(assume.Config{AWS: cloud.Config(t, "eu-west-2", "999999999999"), Accounts: accounts, ControlPlane: "prod", Part: part})
		for _, id := range []string{account, other} {
			if got, err := s.Credential(t.Context(), id, "/github/runner/pat", false); err != nil || !got.Equal("pat of "+id) {
				t.Errorf("the %s reads %q, %v; want the PAT of %s", part, got.Reveal(), err, id)
			}
			if _, err := s.Credential(t.Context(), id, "/github/runner/app", false); !errors.Is(err, github.ErrNoParameter) {
				t.Errorf("the %s reads a parameter that is not there: %v, want github.ErrNoParameter", part, err)
			}
		}
	}
	if n := len(cloud.Calls("AssumeRole")); n != 4 {
		t.Errorf("%d calls of AssumeRole, want one for each part and account", n)
	}
	for _, c := range cloud.Calls("GetParameter") {
		if c.Account == "999999999999" {
			t.Errorf("a parameter of the control plane's own account was read: %+v", c)
		}
	}
	a, _ := accounts.Account(t.Context(), account)
	a.ExternalID = secret.New("wrong")
	accounts.set(a)
	s := assume.New(assume.Config{AWS: cloud.Config(t, "eu-west-2", "999999999999"), Accounts: accounts, ControlPlane: "prod", Part: assume.Worker})
	if _, err := s.Credential(t.Context(), account, "/github/runner/pat", false); !errors.Is(err, github.ErrNoParameter) {
		t.Errorf("Credential with a wrong external id = %v, want github.ErrNoParameter", err)
	}
}
