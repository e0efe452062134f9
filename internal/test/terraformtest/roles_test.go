package terraformtest

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
)

func policyAt(t *testing.T, r rendered, address, attribute string) policy {
	t.Helper()
	b, err := json.Marshal(r.at(t, address, attribute))
	if err != nil {
		t.Fatal(err)
	}
	p, err := parsePolicy(b)
	if err != nil {
		t.Fatalf("%s: %v", address, err)
	}
	return p
}

const (
	table      = "arn:aws:dynamodb:eu-west-2:111111111111:table/garo"
	queue      = "arn:aws:sqs:eu-west-2:111111111111:garo-requests"
	logs       = "arn:aws:logs:eu-west-2:111111111111:log-group:/aws/lambda/garo:log-stream:x"
	parameter  = "arn:aws:ssm:eu-west-2:111111111111:parameter/garo"
	key        = "arn:aws:kms:eu-west-2:111111111111:key/1"
	borrowed   = "arn:aws:iam::222222222222:role/GitHubRunnerAssumeRole"
	functionOf = "arn:aws:lambda:eu-west-2:111111111111:function:garo-"
)

// What each function may do in the control plane's own account. A call that is in
// no row's allowed list is denied, since every role is asked every row.
func TestFunctionsMayDoTheirOwnWorkAlone(t *testing.T) {
	const all, none = "api worker reaper", ""
	at := func(action, resource string) call { return call{action: action, resource: resource} }
	rows := []struct {
		call call
		may  string
	}{
		{at("dynamodb:GetItem", table), all},
		{at("dynamodb:BatchGetItem", table), all},
		{at("dynamodb:PutItem", table), all},
		{at("dynamodb:ConditionCheckItem", table), all},
		{at("dynamodb:Query", table+"/index/due"), "reaper"},
		{at("dynamodb:Query", table+"/index/list"), all},
		{at("dynamodb:Query", table+"/index/repository"), all},
		{at("dynamodb:Query", table+"/index/find"), "api"},
		{at("dynamodb:Query", table), none},
		{at("dynamodb:Scan", table), none},
		{at("dynamodb:DeleteItem", table), none},
		{at("dynamodb:UpdateItem", table), none},
		{at("dynamodb:DeleteTable", table), none},
		{at("dynamodb:GetItem", table+"-2"), none},

		{at("sqs:SendMessage", queue), all},
		{at("sqs:ReceiveMessage", queue), "worker"},
		{at("sqs:DeleteMessage", queue), "worker"},
		{at("sqs:GetQueueAttributes", queue), "worker"},
		{at("sqs:PurgeQueue", queue), none},
		{at("sqs:SendMessage", queue+"-dead"), none},
		{at("sqs:ReceiveMessage", queue+"-dead"), none},

		{at("ssm:GetParameter", parameter+"/keys"), all},
		{at("ssm:GetParameter", parameter+"/operators"), "api"},
		{at("ssm:GetParameter", parameter+"/webhook"), "api"},
		{at("ssm:PutParameter", parameter+"/webhook"), none},
		{at("ssm:GetParameter", parameter+"/accounts/222222222222"), all},
		{at("ssm:GetParametersByPath", parameter+"/accounts"), all},
		{at("ssm:GetParametersByPath", parameter+"/setup/build"), "api"},
		{at("ssm:GetParametersByPath", parameter+"/setup"), none},
		{at("ssm:GetParameter", parameter+"/setup/build/0"), none},
		{at("ssm:GetParametersByPath", parameter), none},
		{at("ssm:GetParameter", "arn:aws:ssm:eu-west-2:111111111111:parameter/github/runner/pat"), none},
		{at("ssm:PutParameter", parameter+"/operators"), none},

		{at("kms:Decrypt", key).with("kms:ViaService", "ssm.eu-west-2.amazonaws.com"), all},
		{at("kms:Decrypt", key).with("kms:ViaService", "dynamodb.eu-west-2.amazonaws.com"), all},
		{at("kms:GenerateDataKey", key).with("kms:ViaService", "sqs.eu-west-2.amazonaws.com"), all},
		{at("kms:DescribeKey", key).with("kms:ViaService", "dynamodb.eu-west-2.amazonaws.com"), all},
		{at("kms:Encrypt", key).with("kms:ViaService", "dynamodb.eu-west-2.amazonaws.com"), all},
		{at("kms:ReEncryptFrom", key).with("kms:ViaService", "dynamodb.eu-west-2.amazonaws.com"), all},
		{at("kms:ReEncryptTo", key).with("kms:ViaService", "dynamodb.eu-west-2.amazonaws.com"), all},
		{at("kms:Encrypt", key).with("kms:ViaService", "ec2.eu-west-2.amazonaws.com"), none},
		{at("kms:CreateGrant", key).with("kms:ViaService", "dynamodb.eu-west-2.amazonaws.com"), none},
		{at("kms:Decrypt", key), none},
		{at("kms:Decrypt", key+"2").with("kms:ViaService", "ssm.eu-west-2.amazonaws.com"), none},
		{at("kms:ScheduleKeyDeletion", key), none},

		{at("sts:AssumeRole", borrowed), "worker reaper"},
		{at("sts:SetSourceIdentity", borrowed), "worker reaper"},
		{at("sts:AssumeRole", "arn:aws:iam::333333333333:role/garo"), "worker reaper"},
		{at("sts:AssumeRole", "arn:aws:iam::333333333333:role/GitHubRunnerAssumeRole"), none}, // registered with another role
		{at("sts:AssumeRole", "arn:aws:iam::444444444444:role/GitHubRunnerAssumeRole"), none}, // not registered
		{at("sts:AssumeRole", "arn:aws:iam::111111111111:role/Admin"), none},

		{at("logs:PutLogEvents", logs), all},
		{at("logs:CreateLogStream", logs), all},
		{at("logs:PutLogEvents", "arn:aws:logs:eu-west-2:111111111111:log-group:/aws/lambda/other:log-stream:x"), none},
		{at("logs:DeleteLogGroup", logs), none},
		{at("xray:PutTraceSegments", "*"), all},

		// Lambda's own interfaces in a VPC, which no code of ours may make.
		{at("ec2:CreateNetworkInterface", "*"), all},
		{at("ec2:DescribeNetworkInterfaces", "*"), all},
		{at("ec2:DeleteNetworkInterface", "*"), all},
		{at("ec2:CreateNetworkInterface", "*").with("lambda:SourceFunctionArn", functionOf+"api"), none},
		{at("ec2:DeleteNetworkInterface", "*").with("lambda:SourceFunctionArn", functionOf+"worker"), none},

		{at("ec2:RunInstances", "arn:aws:ec2:eu-west-2:111111111111:instance/*"), none},
		{at("ec2:TerminateInstances", "arn:aws:ec2:eu-west-2:111111111111:instance/i-1"), none},
		{at("ec2:DescribeInstances", "*"), none},
		{at("iam:PassRole", "arn:aws:iam::111111111111:role/garo-worker"), none},
		{at("iam:CreateRole", "arn:aws:iam::111111111111:role/x"), none},
		{at("lambda:InvokeFunction", functionOf+"reaper"), none},
		{at("secretsmanager:GetSecretValue", "*"), none},
	}
	r := controlPlane(t)
	for _, part := range []string{"api", "worker", "reaper"} {
		p := policyAt(t, r, `aws_iam_role_policy.function["`+part+`"]`, "policy")
		for _, row := range rows {
			want := slices.Contains(strings.Fields(row.may), part)
			if got := p.allows(row.call); got != want {
				t.Errorf("%s %s on %s: allowed = %t, want %t", part, row.call.action, row.call.resource, got, want)
			}
		}
	}
}

// A star in an action is never needed; one as the whole resource only where AWS
// knows no other.
func TestNothingIsAllowedWithAStarThatCanBeNarrowed(t *testing.T) {
	without := []string{
		"ec2:DescribeImages", "ec2:DescribeInstances", "ec2:DescribeInstanceTypes", "ec2:DescribeRouteTables", "ec2:DescribeSpotPriceHistory", "xray:PutTelemetryRecords", "xray:PutTraceSegments",
		// Lambda's, for a function in a VPC: it asks for them on everything.
		"ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces",
		"ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
	}
	for name, r := range map[string]rendered{"control plane": controlPlane(t), "account": account(t, "rendered")} {
		for _, address := range r.ofType("aws_iam_role_policy") {
			for _, s := range policyAt(t, r, address, "policy").Statement {
				for _, a := range s.Action {
					if strings.Contains(a, "*") {
						t.Errorf("%s: %s, statement %s allows %s: name the actions", name, address, s.Sid, a)
					}
					if slices.Contains(s.Resource, "*") && !slices.Contains(without, a) {
						t.Errorf("%s: %s, statement %s allows %s on everything: name the resources", name, address, s.Sid, a)
					}
				}
			}
		}
	}
}

func TestSchedulerRunsTheReaperAlone(t *testing.T) {
	r := controlPlane(t)
	p := policyAt(t, r, "aws_iam_role_policy.scheduler", "policy")
	for part, want := range map[string]bool{"reaper": true, "worker": false, "api": false} {
		if got := p.allows(call{action: "lambda:InvokeFunction", resource: functionOf + part}); got != want {
			t.Errorf("scheduler invokes %s: allowed = %t, want %t", part, got, want)
		}
	}
	trust := policyAt(t, r, "aws_iam_role.scheduler", "assume_role_policy")
	by := call{action: "sts:AssumeRole", principal: "scheduler.amazonaws.com"}
	if !trust.allows(by.with("aws:SourceAccount", "111111111111")) || trust.allows(by.with("aws:SourceAccount", "222222222222")) {
		t.Error("the scheduler's role is not for schedules of this account alone")
	}
}

func TestQueuesAndTopicWantTLS(t *testing.T) {
	r := controlPlane(t)
	for address, c := range map[string]call{
		`aws_sqs_queue_policy.tls["requests"]`: {action: "sqs:SendMessage", resource: queue, principal: "x"},
		`aws_sqs_queue_policy.tls["dead"]`:     {action: "sqs:SendMessage", resource: queue + "-dead", principal: "x"},
	} {
		s := policyAt(t, r, address, "policy").Statement[0]
		if !s.applies(c.with("aws:SecureTransport", "false")) || s.Effect != "Deny" {
			t.Errorf("%s does not deny a call without TLS", address)
		}
		if s.applies(c.with("aws:SecureTransport", "true")) {
			t.Errorf("%s denies a call with TLS", address)
		}
	}
	topic := policyAt(t, r, "aws_sns_topic_policy.alarms", "policy")
	tell := call{action: "sns:Publish", resource: "arn:aws:sns:eu-west-2:111111111111:mock", principal: "cloudwatch.amazonaws.com"}
	tell = tell.with("aws:SecureTransport", "true")
	if !topic.allows(tell.with("aws:SourceAccount", "111111111111")) || topic.allows(tell.with("aws:SourceAccount", "222222222222")) {
		t.Error("the topic does not take alarms of this account alone")
	}
}

const (
	workerRole = "arn:aws:iam::999999999999:role/garo-worker"
	reaperRole = "arn:aws:iam::999999999999:role/garo-reaper"
)

// The account's role lets in the two functions, each under its own name and with
// the external id, and nobody else.
func TestAccountTrustsWorkerAndReaperAlone(t *testing.T) {
	trust := policyAt(t, account(t, "rendered"), "aws_iam_role.this", "assume_role_policy")
	worker := call{action: "sts:AssumeRole", principal: workerRole, keys: map[string][]string{
		"sts:ExternalId": {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}, "sts:SourceIdentity": {"garo-garo"}, "sts:RoleSessionName": {"garo-garo-worker"},
	}}
	reaper := worker.with("sts:RoleSessionName", "garo-garo-reaper")
	reaper.principal = reaperRole
	as := func(c call, principal string) call { c.principal = principal; return c }
	for _, c := range []struct {
		name string
		call call
		want bool
	}{
		{"Worker", worker, true},
		{"Reaper", reaper, true},
		{"WorkerSetsItsIdentity", call{action: "sts:SetSourceIdentity", principal: workerRole, keys: map[string][]string{"sts:SourceIdentity": {"garo-garo"}}}, true},
		{"AnotherIdentity", call{action: "sts:SetSourceIdentity", principal: workerRole, keys: map[string][]string{"sts:SourceIdentity": {"garo-other"}}}, false},
		{"WithoutExternalID", worker.with("sts:ExternalId"), false},
		{"WrongExternalID", worker.with("sts:ExternalId", "b"), false},
		{"WithoutIdentity", worker.with("sts:SourceIdentity"), false},
		{"OtherControlPlane", worker.with("sts:SourceIdentity", "garo-other"), false},
		{"WorkerUnderTheReapersName", worker.with("sts:RoleSessionName", "garo-garo-reaper"), false},
		{"ReaperUnderTheWorkersName", reaper.with("sts:RoleSessionName", "garo-garo-worker"), false},
		{"API", as(worker, "arn:aws:iam::999999999999:role/garo-api"), false},
		{"SomebodyOfThatAccount", as(worker, "arn:aws:iam::999999999999:root"), false},
		{"SomebodyOfThisAccount", as(worker, "arn:aws:iam::111111111111:root"), false},
		{"TagSession", worker.to("sts:TagSession"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := trust.allows(c.call); got != c.want {
				t.Errorf("allowed = %t, want %t", got, c.want)
			}
		})
	}
}

// What worker and reaper may do in a runner account: what both the role's policy
// and their session policy allow.
func TestBorrowedRoleMayLaunchOrEndWhatIsOurs(t *testing.T) {
	const (
		ec2  = "arn:aws:ec2:eu-west-2:111111111111:"
		west = "arn:aws:ec2:eu-west-1:111111111111:"
		ssm  = "arn:aws:ssm:eu-west-2:111111111111:parameter"
	)
	at := func(action, resource string) call { return call{action: action, resource: resource} }
	tag := "aws:RequestTag/garo:control-plane"
	machine := at("ec2:RunInstances", ec2+"instance/*").with(tag, "garo").with("ec2:InstanceType", "m7i.large").
		with("ec2:MetadataHttpTokens", "required").with("ec2:MetadataHttpPutResponseHopLimit", "1").
		with("ec2:InstanceProfile", "arn:aws:iam::111111111111:instance-profile/jobs")
	image := at("ec2:RunInstances", "arn:aws:ec2:eu-west-2::image/ami-0a").with("ec2:Owner", "amazon")
	tags := at("ec2:CreateTags", ec2+"instance/*").with(tag, "garo").with("ec2:CreateAction", "RunInstances").with("aws:TagKeys", "Name", "garo:runner")
	end := at("ec2:TerminateInstances", ec2+"instance/i-1").with("aws:ResourceTag/garo:control-plane", "garo")
	decrypt := at("kms:Decrypt", "arn:aws:kms:eu-west-2:111111111111:key/any").with("kms:ViaService", "ssm.eu-west-2.amazonaws.com").
		with("kms:EncryptionContext:PARAMETER_ARN", ssm+"/github/runner/pat")
	volume := at("kms:CreateGrant", "arn:aws:kms:eu-west-2:111111111111:key/volumes").with("kms:ViaService", "ec2.eu-west-2.amazonaws.com").with("kms:GrantIsForAWSResource", "true")

	const both, none = "worker reaper", ""
	rows := []struct {
		name string
		call call
		may  string
	}{
		{"Machine", machine, "worker"},
		{"MachineInTheOtherRegion", machine.on(west + "instance/*"), "worker"},
		{"MachineUntagged", machine.with(tag), none},
		{"MachineOfAnotherControlPlane", machine.with(tag, "other"), none},
		{"MachineByRequirement", machine.with("ec2:InstanceType", "c8g.2xlarge"), "worker"},
		{"MachineOfAnExcludedType", machine.with("ec2:InstanceType", "t3.micro"), none},
		{"MachineByRequirementWithOldMetadata", machine.with("ec2:InstanceType", "c8g.2xlarge").with("ec2:MetadataHttpTokens", "optional"), none},
		{"MachineByRequirementWithAnotherProfile", machine.with("ec2:InstanceType", "c8g.2xlarge").with("ec2:InstanceProfile", "arn:aws:iam::111111111111:instance-profile/admin"), none},
		{"MetalByRequirement", machine.with("ec2:InstanceType", "m7i.metal-24xl"), none},
		{"MachineWithOldMetadata", machine.with("ec2:MetadataHttpTokens", "optional"), none},
		{"MachineWithTwoHops", machine.with("ec2:MetadataHttpPutResponseHopLimit", "2"), none},
		{"MachineWithAnotherProfile", machine.with("ec2:InstanceProfile", "arn:aws:iam::111111111111:instance-profile/admin"), none},
		{"MachineInAForeignRegion", machine.on("arn:aws:ec2:us-east-1:111111111111:instance/*"), none},
		{"Volume", at("ec2:RunInstances", ec2+"volume/*").with(tag, "garo"), "worker"},
		{"VolumeOfTheLargestSize", at("ec2:RunInstances", ec2+"volume/*").with(tag, "garo").with("ec2:VolumeSize", "200"), "worker"},
		{"VolumeTooLarge", at("ec2:RunInstances", ec2+"volume/*").with(tag, "garo").with("ec2:VolumeSize", "201"), none},
		{"Reservation", at("ec2:RunInstances", "arn:aws:ec2:eu-west-1:444444444444:capacity-reservation/cr-0a"), "worker"},
		{"ReservationInAnotherRegion", at("ec2:RunInstances", ec2+"capacity-reservation/cr-0a"), none},
		{"AnotherReservation", at("ec2:RunInstances", west+"capacity-reservation/cr-0b"), none},
		{"VolumeUntagged", at("ec2:RunInstances", ec2+"volume/*"), none},
		{"Subnet", at("ec2:RunInstances", ec2+"subnet/subnet-0a"), "worker"},
		{"SubnetOfTheOtherRegion", at("ec2:RunInstances", west+"subnet/subnet-0c"), "worker"},
		{"SubnetThatAnotherAccountShares", at("ec2:RunInstances", "arn:aws:ec2:eu-west-2:444444444444:subnet/subnet-0a"), "worker"},
		{"ForeignSubnet", at("ec2:RunInstances", ec2+"subnet/subnet-0f"), none},
		{"ForeignSubnetOfAnotherAccount", at("ec2:RunInstances", "arn:aws:ec2:eu-west-2:444444444444:subnet/subnet-0f"), none},
		{"SubnetInTheWrongRegion", at("ec2:RunInstances", west+"subnet/subnet-0a"), none},
		{"Group", at("ec2:RunInstances", ec2+"security-group/sg-0000000000000000f"), "worker"},
		{"GroupThatAnotherAccountShares", at("ec2:RunInstances", "arn:aws:ec2:eu-west-1:444444444444:security-group/sg-0c"), "worker"},
		{"ForeignGroup", at("ec2:RunInstances", ec2+"security-group/sg-0f"), none},
		{"SpotRequest", at("ec2:RunInstances", ec2+"spot-instances-request/*"), "worker"},
		{"SpotRequestInAForeignRegion", at("ec2:RunInstances", "arn:aws:ec2:us-east-1:111111111111:spot-instances-request/*"), none},
		{"Interface", at("ec2:RunInstances", ec2+"network-interface/*"), "worker"},
		{"KeyPair", at("ec2:RunInstances", ec2+"key-pair/mine"), none},
		{"LaunchTemplate", at("ec2:RunInstances", ec2+"launch-template/lt-1"), none},
		{"Image", image, "worker"},
		{"ImageOfALicensedAccount", image.with("ec2:Owner", "444444444444"), "worker"},
		{"ImageOfAStranger", image.with("ec2:Owner", "555555555555"), none},
		{"ImageOfTheMarketplace", image.with("ec2:Owner", "aws-marketplace"), none},
		// EC2 says the alias where an image has one: a verified provider's comes as
		// amazon, like Amazon's own. What comes as a number has to be named by it.
		{"ImageOfAVerifiedProvider", image.on("arn:aws:ec2:eu-west-2::image/ami-0canonical"), "worker"},
		{"ImageByAVerifiedProvidersNumber", image.with("ec2:Owner", "099720109477"), none},

		{"TagsAtLaunch", tags, "worker"},
		{"TagsLater", tags.with("ec2:CreateAction"), none},
		{"TagsOfAnotherControlPlane", tags.with(tag, "other"), none},
		{"TagsOfTheAccountAndRequests", tags.with("aws:TagKeys", "Name", "team", "cost centre"), "worker"},
		{"TagsOnTheInterface", tags.on(ec2 + "network-interface/*"), "worker"},
		{"TagsOnTheInterfaceLater", tags.on(ec2 + "network-interface/*").with("ec2:CreateAction"), none},
		{"TagsOfOthers", tags.with("aws:TagKeys", "Name", "Owner"), none},
		{"TagsOnASubnet", tags.on(ec2 + "subnet/subnet-0a"), none},
		{"TagsRemoved", tags.to("ec2:DeleteTags"), none},

		{"See", at("ec2:DescribeInstances", "*").with("aws:RequestedRegion", "eu-west-2"), both},
		{"SeeAForeignRegion", at("ec2:DescribeInstances", "*").with("aws:RequestedRegion", "us-east-1"), none},
		{"LookAtImages", at("ec2:DescribeImages", "*").with("aws:RequestedRegion", "eu-west-2"), "worker"},
		{"LookAtTypes", at("ec2:DescribeInstanceTypes", "*").with("aws:RequestedRegion", "eu-west-2"), "worker"},
		{"LookAtTypesInAForeignRegion", at("ec2:DescribeInstanceTypes", "*").with("aws:RequestedRegion", "us-east-1"), none},
		{"LookAtOfferings", at("ec2:DescribeInstanceTypeOfferings", "*").with("aws:RequestedRegion", "eu-west-2"), none},
		{"LookAtImagesInAForeignRegion", at("ec2:DescribeImages", "*").with("aws:RequestedRegion", "us-east-1"), none},
		{"LookAtRouteTables", at("ec2:DescribeRouteTables", "*").with("aws:RequestedRegion", "eu-west-1"), "worker"},
		{"LookAtRouteTablesInAForeignRegion", at("ec2:DescribeRouteTables", "*").with("aws:RequestedRegion", "us-east-1"), none},
		{"LookAtVPCs", at("ec2:DescribeVpcs", "*").with("aws:RequestedRegion", "eu-west-2"), none},
		{"Prices", at("ec2:DescribeSpotPriceHistory", "*").with("aws:RequestedRegion", "eu-west-2"), "reaper"},
		{"PricesInAForeignRegion", at("ec2:DescribeSpotPriceHistory", "*").with("aws:RequestedRegion", "us-east-1"), none},
		{"ZonesOfSubnets", at("ec2:DescribeSubnets", "*").with("aws:RequestedRegion", "eu-west-2"), both},
		{"ZonesInAForeignRegion", at("ec2:DescribeSubnets", "*").with("aws:RequestedRegion", "us-east-1"), none},
		{"End", end, "reaper"},
		{"EndUntagged", end.with("aws:ResourceTag/garo:control-plane"), none},
		{"EndAnotherControlPlanes", end.with("aws:ResourceTag/garo:control-plane", "other"), none},
		{"Stop", end.to("ec2:StopInstances"), none},
		{"ReadUserData", end.to("ec2:DescribeInstanceAttribute"), none},
		{"Console", end.to("ec2:GetConsoleOutput"), both},
		{"ConsoleOfAnUntaggedMachine", end.to("ec2:GetConsoleOutput").with("aws:ResourceTag/garo:control-plane"), none},
		{"ConsoleOfAnotherControlPlanesMachine", end.to("ec2:GetConsoleOutput").with("aws:ResourceTag/garo:control-plane", "other"), none},
		{"ConsoleInAForeignRegion", end.to("ec2:GetConsoleOutput").on("arn:aws:ec2:us-east-1:111111111111:instance/i-1"), none},
		{"Screenshot", end.to("ec2:GetConsoleScreenshot"), none},
		{"SerialConsole", end.to("ec2-instance-connect:SendSerialConsoleSSHPublicKey"), none},

		{"PassRole", at("iam:PassRole", "arn:aws:iam::111111111111:role/jobs").with("iam:PassedToService", "ec2.amazonaws.com"), "worker"},
		{"PassAnotherRole", at("iam:PassRole", "arn:aws:iam::111111111111:role/admin").with("iam:PassedToService", "ec2.amazonaws.com"), none},
		{"PassRoleToAFunction", at("iam:PassRole", "arn:aws:iam::111111111111:role/jobs").with("iam:PassedToService", "lambda.amazonaws.com"), none},
		{"PassTheBorrowedRole", at("iam:PassRole", "arn:aws:iam::111111111111:role/GitHubRunnerAssumeRole").with("iam:PassedToService", "ec2.amazonaws.com"), none},

		{"Credential", at("ssm:GetParameter", ssm+"/github/runner/pat"), both},
		{"FurtherCredential", at("ssm:GetParameter", ssm+"/github/runner/app"), both},
		{"ParameterThatIsNoCredential", at("ssm:GetParameter", ssm+"/github/runner/another"), none},
		{"FurtherCredentialsKey", decrypt.with("kms:EncryptionContext:PARAMETER_ARN", ssm+"/github/runner/app"), both},
		{"CredentialElsewhere", at("ssm:GetParameter", "arn:aws:ssm:eu-west-1:111111111111:parameter/github/runner/pat"), none},
		{"CredentialWritten", at("ssm:PutParameter", ssm+"/github/runner/pat"), none},
		{"OtherParameter", at("ssm:GetParameter", ssm+"/database/password"), none},
		{"PublicImagePath", at("ssm:GetParameter", "arn:aws:ssm:eu-west-2::parameter/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"), "worker"},
		{"OwnImagePath", at("ssm:GetParameter", ssm+"/images/runner"), "worker"},
		{"CredentialsKey", decrypt, both},
		{"KeyOfAnotherParameter", decrypt.with("kms:EncryptionContext:PARAMETER_ARN", ssm+"/database/password"), none},
		{"KeyWithoutSSM", decrypt.with("kms:ViaService"), none},
		{"VolumesKey", volume, "worker"},
		{"VolumesKeyForPeople", volume.with("kms:GrantIsForAWSResource", "false"), none},
		{"OtherKeyForAVolume", volume.on("arn:aws:kms:eu-west-2:111111111111:key/other"), none},

		{"Chain", at("sts:AssumeRole", "arn:aws:iam::111111111111:role/admin"), none},
		{"Spot", at("ec2:RequestSpotInstances", "*"), none},
	}
	role := policyAt(t, account(t, "rendered"), "aws_iam_role_policy.this", "policy")
	for _, part := range []assume.Part{assume.Worker, assume.Reaper} {
		text := assume.Policy(part, "garo", "aws", "111111111111")
		if len(text) > assume.MaxPolicy {
			t.Errorf("session policy of the %s has %d characters, want at most %d", part, len(text), assume.MaxPolicy)
		}
		session, err := parsePolicy([]byte(text))
		if err != nil {
			t.Fatalf("session policy of the %s: %v", part, err)
		}
		for _, row := range rows {
			c := row.call.with("aws:userid", "AROAEXAMPLE:garo-garo-"+string(part))
			want := slices.Contains(strings.Fields(row.may), string(part))
			if got := role.allows(c) && session.allows(c); got != want {
				t.Errorf("%s, %s: allowed = %t (role %t, session %t), want %t", row.name, part, got, role.allows(c), session.allows(c), want)
			}
			// The role's policy alone keeps the two apart: a session policy is what
			// the borrower asks for, and one that was taken over would ask for none.
			if role.allows(c) != want {
				t.Errorf("%s, %s: the role alone allows it = %t, want %t", row.name, part, !want, want)
			}
		}
	}
}

// Without an instance profile no machine gets one.
func TestWithoutAProfileNoMachineGetsOne(t *testing.T) {
	role := policyAt(t, account(t, "rendered_without_profile"), "aws_iam_role_policy.this", "policy")
	machine := call{action: "ec2:RunInstances", resource: "arn:aws:ec2:eu-west-2:111111111111:instance/*", keys: map[string][]string{
		"aws:userid": {"AROAEXAMPLE:garo-garo-worker"}, "aws:RequestTag/garo:control-plane": {"garo"}, "ec2:InstanceType": {"m7i.large"},
		"ec2:MetadataHttpTokens": {"required"}, "ec2:MetadataHttpPutResponseHopLimit": {"1"},
	}}
	if !role.allows(machine) {
		t.Error("a machine without a profile is refused")
	}
	if role.allows(machine.with("ec2:InstanceType", "c8g.2xlarge")) {
		t.Error("a machine of a type that nobody named is allowed without instance_requirements")
	}
	if role.allows(machine.with("ec2:InstanceProfile", "arn:aws:iam::111111111111:instance-profile/any")) {
		t.Error("a machine with a profile is allowed")
	}
}

// Containers reach the metadata service only where the operator says so.
func TestTwoHopsAreAllowedForContainersAlone(t *testing.T) {
	role := policyAt(t, account(t, "rendered_for_containers"), "aws_iam_role_policy.this", "policy")
	machine := call{action: "ec2:RunInstances", resource: "arn:aws:ec2:eu-west-2:111111111111:instance/*", keys: map[string][]string{
		"aws:userid": {"AROAEXAMPLE:garo-garo-worker"}, "aws:RequestTag/garo:control-plane": {"garo"}, "ec2:InstanceType": {"m7i.large"},
		"ec2:MetadataHttpTokens": {"required"}, "ec2:InstanceProfile": {"arn:aws:iam::111111111111:instance-profile/jobs"},
	}}
	for hops, want := range map[string]bool{"1": true, "2": true, "3": false} {
		if got := role.allows(machine.with("ec2:MetadataHttpPutResponseHopLimit", hops)); got != want {
			t.Errorf("%s hops: allowed = %t, want %t", hops, got, want)
		}
	}
}

// What the registration does not set is not allowed.
func TestWithoutOptionsTheRoleAllowsNoneOfThem(t *testing.T) {
	role := policyAt(t, account(t, "rendered_without_profile"), "aws_iam_role_policy.this", "policy")
	const ec2 = "arn:aws:ec2:eu-west-2:111111111111:"
	keys := map[string][]string{
		"aws:userid": {"AROAEXAMPLE:garo-garo-worker"}, "aws:RequestTag/garo:control-plane": {"garo"}, "ec2:CreateAction": {"RunInstances"}, "aws:RequestedRegion": {"eu-west-2"},
	}
	for what, c := range map[string]call{
		"a tag of its own":      call{action: "ec2:CreateTags", resource: ec2 + "instance/*", keys: keys}.with("aws:TagKeys", "team"),
		"tags on the interface": call{action: "ec2:CreateTags", resource: ec2 + "network-interface/*", keys: keys}.with("aws:TagKeys", "Name"),
		"a reservation":         {action: "ec2:RunInstances", resource: ec2 + "capacity-reservation/cr-0a", keys: keys},
		"a look at types":       {action: "ec2:DescribeInstanceTypes", resource: "*", keys: keys},
	} {
		if role.allows(c) {
			t.Errorf("%s is allowed", what)
		}
	}
}

// Spot machines are launched by a role of EC2's, which has no right on keys of the
// user's: without a grant a machine with an encrypted volume ends as it begins.
func TestSpotRoleMayUseTheKeysOfVolumes(t *testing.T) {
	r := account(t, "rendered")
	grants := r.ofType("aws_kms_grant")
	if len(grants) != 1 {
		t.Fatalf("%d grants, want one for the one key", len(grants))
	}
	g := into[struct {
		Region     string
		Key        string `json:"key_id"`
		Grantee    string `json:"grantee_principal"`
		Operations []string
	}](t, r[grants[0]])
	if g.Key != "arn:aws:kms:eu-west-2:111111111111:key/volumes" || g.Region != "eu-west-2" {
		t.Errorf("grant is on %s in %s, want the key, in its region", g.Key, g.Region)
	}
	if want := "arn:aws:iam::111111111111:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"; g.Grantee != want {
		t.Errorf("grantee = %s, want %s", g.Grantee, want)
	}
	slices.Sort(g.Operations)
	want := []string{"CreateGrant", "Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo"}
	if !slices.Equal(g.Operations, want) {
		t.Errorf("operations = %q, want %q", g.Operations, want)
	}
	if bare := account(t, "rendered_without_profile").ofType("aws_kms_grant"); len(bare) != 0 {
		t.Errorf("grants without keys = %q, want none", bare)
	}
}

// The session policies of worker and reaper serve every region of every partition.
func TestSessionPoliciesServeEveryPartition(t *testing.T) {
	for _, p := range awstest.Partitions {
		for _, part := range []assume.Part{assume.Worker, assume.Reaper} {
			session, err := parsePolicy([]byte(assume.Policy(part, "garo", p.Name, "111111111111")))
			if err != nil {
				t.Fatal(err)
			}
			for _, region := range p.Regions {
				arn := func(service, resource string) string {
					return "arn:" + p.Name + ":" + service + ":" + region + ":111111111111:" + resource
				}
				via := func(service, suffix string) call {
					return call{action: "kms:Decrypt", resource: arn("kms", "key/1")}.with("kms:ViaService", service+"."+region+"."+suffix)
				}
				rows := map[string]struct {
					call call
					may  bool
				}{
					"Credential":       {call{action: "ssm:GetParameter", resource: arn("ssm", "parameter/github/runner/pat")}, true},
					"CredentialsKey":   {via("ssm", p.Suffix), true},
					"KeyByItsOldName":  {via("ssm", "amazonaws.com"), true},
					"VolumesKey":       {via("ec2", p.Suffix), part == assume.Worker},
					"KeyOfAnything":    {via("s3", p.Suffix), false},
					"Machine":          {call{action: "ec2:RunInstances", resource: arn("ec2", "instance/*")}.with("aws:RequestTag/garo:control-plane", "garo"), part == assume.Worker},
					"End":              {call{action: "ec2:TerminateInstances", resource: arn("ec2", "instance/i-1")}.with("aws:ResourceTag/garo:control-plane", "garo"), part == assume.Reaper},
					"AnotherPartition": {call{action: "ssm:GetParameter", resource: "arn:aws-other:ssm:" + region + ":111111111111:parameter/x"}, false},
				}
				for name, row := range rows {
					if got := session.allows(row.call); got != row.may {
						t.Errorf("%s, %s, %s: allowed = %t, want %t", name, region, part, got, row.may)
					}
				}
			}
		}
	}
}
