package assume_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
)

var update = flag.Bool("update", false, "write the golden files")

func TestPolicyGolden(t *testing.T) {
	for _, part := range []assume.Part{assume.Worker, assume.Reaper} {
		var got bytes.Buffer
		if err := json.Indent(&got, []byte(assume.Policy(part, "prod", "aws", account)), "", "  "); err != nil {
			t.Fatal(err)
		}
		got.WriteByte('\n')
		path := filepath.Join("testdata", string(part)+".golden.json")
		if *update {
			if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("the policy of the %s is\n%s\nand %s is\n%s", part, got.Bytes(), path, want)
		}
	}
}

func TestPolicyFitsInTheWorstCase(t *testing.T) {
	for _, part := range []assume.Part{assume.Worker, assume.Reaper} {
		got := assume.Policy(part, strings.Repeat("w", 16), "aws-us-gov", "999999999999") // the longest name and partition
		if len(got) > assume.MaxPolicy {
			t.Errorf("the policy of the %s has %d characters, want at most %d", part, len(got), assume.MaxPolicy)
		}
		t.Logf("the policy of the %s has at most %d characters", part, len(got))
	}
}

// allowed is what a session policy lets through: the tests evaluate it as IAM does,
// for the few operators that it uses.
type allowed []struct {
	Effect           string
	Action, Resource []string
	Condition        map[string]map[string][]string
}

func (a allowed) allows(action, resource string, has map[string]string) bool {
	matches := func(patterns []string, s string) bool {
		for _, p := range patterns {
			if wild(p, s) {
				return true
			}
		}
		return false
	}
	for _, s := range a {
		ok := s.Effect == "Allow" && matches(s.Action, action) && matches(s.Resource, resource)
		for test, keys := range s.Condition {
			for key, values := range keys {
				v, there := has[key]
				if test == "StringEquals" {
					ok = ok && there && len(values) == 1 && values[0] == v
				} else {
					ok = ok && there && test == "StringLike" && matches(values, v)
				}
			}
		}
		if ok {
			return true
		}
	}
	return false
}

// wild reports whether s is as pattern says, where * is any text.
func wild(pattern, s string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	if !strings.HasPrefix(s, first) {
		return false
	}
	for i := len(first); i <= len(s); i++ {
		if wild(rest, s[i:]) {
			return true
		}
	}
	return false
}

func TestPolicyAllowsAPartItsOwnWorkAlone(t *testing.T) {
	const (
		ec2      = "arn:aws:ec2:eu-west-2:111111111111:"
		machine  = ec2 + "instance/i-0123456789abcdef0"
		volume   = ec2 + "volume/vol-1"
		theirs   = "arn:aws:ec2:eu-west-2:222222222222:instance/i-1"
		pat      = "arn:aws:ssm:eu-west-2:111111111111:parameter/github/runner/pat"
		role     = "arn:aws:iam::111111111111:role/builder"
		key      = "arn:aws:kms:eu-west-2:111111111111:key/1"
		ourTag   = "aws:RequestTag/garo:control-plane"
		hasOurs  = "aws:ResourceTag/garo:control-plane"
		byLaunch = "ec2:CreateAction"
	)
	type has = map[string]string
	for _, c := range []struct {
		action, resource string
		has              has
		worker, reaper   bool
	}{
		{"ec2:RunInstances", machine, has{ourTag: "prod"}, true, false},
		{"ec2:RunInstances", volume, has{ourTag: "prod"}, true, false},
		{"ec2:RunInstances", machine, nil, false, false},
		{"ec2:RunInstances", machine, has{ourTag: "prod-2"}, false, false},
		{"ec2:RunInstances", theirs, has{ourTag: "prod"}, false, false},
		{"ec2:RunInstances", ec2 + "subnet/subnet-1", nil, true, false},
		{"ec2:RunInstances", "arn:aws:ec2:eu-west-2:222222222222:subnet/subnet-1", nil, true, false},
		{"ec2:RunInstances", ec2 + "security-group/sg-1", nil, true, false},
		{"ec2:RunInstances", ec2 + "network-interface/eni-1", nil, true, false},
		{"ec2:RunInstances", "arn:aws:ec2:eu-west-2::image/ami-1", nil, true, false},
		{"ec2:RunInstances", ec2 + "key-pair/x", nil, false, false},
		{"ec2:CreateTags", machine, has{byLaunch: "RunInstances"}, true, false},
		{"ec2:CreateTags", volume, has{byLaunch: "RunInstances"}, true, false},
		{"ec2:CreateTags", machine, nil, false, false},
		{"ec2:CreateTags", ec2 + "subnet/subnet-1", has{byLaunch: "RunInstances"}, false, false},
		{"ec2:DescribeInstances", "*", nil, true, true},
		{"ec2:DescribeImages", "*", nil, true, false},
		{"ec2:DescribeSubnets", "*", nil, true, true},
		{"ec2:DescribeRouteTables", "*", nil, true, false},
		{"ec2:DescribeVpcs", "*", nil, false, false},
		{"ec2:TerminateInstances", machine, has{hasOurs: "prod"}, false, true},
		{"ec2:TerminateInstances", machine, has{hasOurs: "prod-2"}, false, false},
		{"ec2:TerminateInstances", machine, nil, false, false},
		{"ec2:StopInstances", machine, has{hasOurs: "prod"}, false, false},
		{"ssm:GetParameter", pat, nil, true, true},
		{"ssm:GetParameter", "arn:aws:ssm:eu-west-2::parameter/aws/service/ami-amazon-linux-latest/al2023", nil, true, true},
		{"ssm:GetParameter", "arn:aws:ssm:eu-west-2:222222222222:parameter/x", nil, false, false},
		{"ssm:PutParameter", pat, nil, false, false},
		{"ssm:SendCommand", machine, nil, false, false},
		{"iam:PassRole", role, has{"iam:PassedToService": "ec2.amazonaws.com"}, true, false},
		{"iam:PassRole", role, has{"iam:PassedToService": "lambda.amazonaws.com"}, false, false},
		{"iam:PassRole", role, nil, false, false},
		{"iam:PassRole", "arn:aws:iam::222222222222:role/x", has{"iam:PassedToService": "ec2.amazonaws.com"}, false, false},
		{"kms:Decrypt", key, has{"kms:ViaService": "ssm.eu-west-2.amazonaws.com"}, true, true},
		{"kms:Decrypt", key, has{"kms:ViaService": "ec2.eu-west-2.amazonaws.com"}, true, false},
		{"kms:CreateGrant", key, has{"kms:ViaService": "ec2.eu-west-2.amazonaws.com"}, true, false},
		{"kms:Decrypt", key, has{"kms:ViaService": "s3.eu-west-2.amazonaws.com"}, false, false},
		{"kms:Decrypt", key, nil, false, false},
		{"kms:Encrypt", key, has{"kms:ViaService": "ssm.eu-west-2.amazonaws.com"}, false, false},
		{"sts:AssumeRole", role, nil, false, false},
	} {
		for part, want := range map[assume.Part]bool{assume.Worker: c.worker, assume.Reaper: c.reaper} {
			var doc struct {
				Version   string
				Statement allowed
			}
			if err := json.Unmarshal([]byte(assume.Policy(part, "prod", "aws", account)), &doc); err != nil {
				t.Fatal(err)
			}
			if got := doc.Statement.allows(c.action, c.resource, c.has); got != want {
				t.Errorf("the %s may %s on %s with %v: %v, want %v", part, c.action, c.resource, c.has, got, want)
			}
		}
	}
}
