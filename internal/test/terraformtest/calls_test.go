package terraformtest

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rights are what each call of the SDK in the adapters has to be allowed, as AWS's
// tables of actions say
// (https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html).
var rights = map[string][]string{
	"dynamodb.BatchGetItem": {"dynamodb:BatchGetItem"},
	"dynamodb.GetItem":      {"dynamodb:GetItem"},
	"dynamodb.PutItem":      {"dynamodb:PutItem"},
	"dynamodb.Query":        {"dynamodb:Query"},
	// A transaction is allowed by what it is made of: ours puts and checks.
	"dynamodb.TransactWriteItems": {"dynamodb:ConditionCheckItem", "dynamodb:PutItem"},

	"ec2.DescribeInstances":        {"ec2:DescribeInstances"},
	"ec2.RunInstances":             {"ec2:CreateTags", "ec2:RunInstances", "iam:PassRole"},
	"ec2.DescribeImages":           {"ec2:DescribeImages"},
	"ec2.DescribeInstanceTypes":    {"ec2:DescribeInstanceTypes"},
	"ec2.DescribeRouteTables":      {"ec2:DescribeRouteTables"},
	"ec2.DescribeSubnets":          {"ec2:DescribeSubnets"},
	"ec2.DescribeSpotPriceHistory": {"ec2:DescribeSpotPriceHistory"},
	"ec2.GetConsoleOutput":         {"ec2:GetConsoleOutput"},
	"ec2.TerminateInstances":       {"ec2:TerminateInstances"},

	"sqs.SendMessage": {"sqs:SendMessage"},
	// A batch is allowed by what it is made of
	// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html).
	"sqs.SendMessageBatch": {"sqs:SendMessage"},
	// The worker's messages come by Lambda's event source, which takes them with the
	// worker's role; no function changes a message's visibility itself.
	"sqs.ChangeMessageVisibility": nil,
	"sqs.DeleteMessage":           {"sqs:DeleteMessage"},
	"sqs.ReceiveMessage":          {"sqs:ReceiveMessage"},

	"ssm.GetParameter":        {"kms:Decrypt", "ssm:GetParameter"},
	"ssm.GetParametersByPath": {"ssm:GetParametersByPath"},

	"sts.AssumeRole": {"sts:AssumeRole", "sts:SetSourceIdentity"},
}

// granted are rights that no call of ours needs: AWS uses them on our behalf.
var granted = []string{
	// Lambda's event source, log and traces.
	"sqs:GetQueueAttributes", "logs:CreateLogStream", "logs:PutLogEvents", "xray:PutTelemetryRecords", "xray:PutTraceSegments",
	// Lambda's interfaces in a VPC.
	"ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces",
	"ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
	// Tables, queues and volumes under a key of the user's.
	"kms:CreateGrant", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo",
}

// Every call that the code makes is allowed by a role, and no role allows anything else.
func TestRolesAllowTheCallsOfTheCode(t *testing.T) {
	called := map[string]bool{}
	for _, dir := range []string{"store/dynamostore", "internal/queue/sqsqueue", "internal/aws/ssmparam", "internal/aws/assume", "internal/fleet/ec2fleet", "internal/lambda/startup", "internal/lambda/accounts"} {
		names, err := filepath.Glob(filepath.Join("../../..", dir, "*.go"))
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(names), err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			for _, m := range regexp.MustCompile(`\b(dynamodb|ec2|sqs|ssm|sts)\.([A-Z]\w+)Input\b`).FindAllStringSubmatch(text(t, name), -1) {
				called[m[1]+"."+m[2]] = true
			}
		}
	}
	needed := map[string]bool{}
	for c := range called {
		actions, known := rights[c]
		if !known {
			t.Errorf("the code calls %s: say in this test what it has to be allowed, and allow it", c)
		}
		for _, a := range actions {
			needed[a] = true
		}
	}
	for c := range rights {
		if !called[c] {
			t.Errorf("the code does not call %s any more: take its rights away", c)
		}
	}
	for _, a := range granted {
		needed[a] = true
	}

	allowed := map[string]bool{}
	cp := controlPlane(t)
	policies := []policy{policyAt(t, account(t, "rendered"), "aws_iam_role_policy.this", "policy")}
	for _, f := range functions {
		policies = append(policies, policyAt(t, cp, `aws_iam_role_policy.function["`+string(f)+`"]`, "policy"))
	}
	for _, p := range policies {
		for _, s := range p.Statement {
			for _, a := range s.Action {
				allowed[a] = s.Effect == "Allow"
			}
		}
	}
	for _, a := range slices.Sorted(maps.Keys(needed)) {
		if !allowed[a] {
			t.Errorf("no role allows %s, which the code needs", a)
		}
	}
	for _, a := range slices.Sorted(maps.Keys(allowed)) {
		if !needed[a] {
			t.Errorf("a role allows %s, which nothing needs", a)
		}
	}
	if strings.Contains(text(t, "../../../internal/lambda/startup/startup.go"), "sqsqueue.New(") {
		t.Error("the functions receive messages themselves: they have to change their visibility, too")
	}
}
