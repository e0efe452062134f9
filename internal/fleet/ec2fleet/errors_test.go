package ec2fleet_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/ec2fleet"
)

// blob is what EC2 appends to a refusal, as an example of
// https://docs.aws.amazon.com/STS/latest/APIReference/API_DecodeAuthorizationMessage.html begins.
var blob = "4GOYlGnSO2hwMXQ6SDEzLF8kdnRxVHdm" + strings.Repeat("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo_-", 12)

func TestWhatEC2AnswersToALaunch(t *testing.T) {
	for _, c := range []struct {
		status        int
		code, message string
		kind          error
		says          string // in the text
	}{
		// Captured answers, with the statuses that they came with.
		{500, "InsufficientInstanceCapacity", "We currently do not have sufficient c4.4xlarge capacity in the Availability Zone you requested (us-east-1c). Our system will be working on provisioning additional capacity. You can currently get c4.4xlarge capacity by not specifying an Availability Zone in your request or choosing us-east-1d, us-east-1e.", fleet.ErrCapacity, "us-east-1c"},
		{500, "InsufficientInstanceCapacity", "There is no Spot capacity available that matches your request.", fleet.ErrCapacity, "no Spot capacity"},
		{400, "InsufficientFreeAddressesInSubnet", "There are not enough free addresses in subnet 'subnet-1' to satisfy the requested number of instances.", fleet.ErrCapacity, "larger subnet"},
		{400, "Unsupported", "Your requested instance type (c7g.large) is not supported in your requested Availability Zone (eu-west-2c). Please retry your request by not specifying an Availability Zone or choosing eu-west-2a, eu-west-2b.", fleet.ErrCapacity, "eu-west-2c"},
		{400, "UnfulfillableCapacity", "Unable to fulfill capacity due to your request configuration. Please adjust your request and try again.", fleet.ErrCapacity, ""},
		{400, "MaxSpotInstanceCountExceeded", "Max spot instance count exceeded", fleet.ErrCapacity, "spot quota"},
		{400, "VcpuLimitExceeded", "You have requested more vCPU capacity than your current vCPU limit of 32 allows for the instance bucket that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.", fleet.ErrCapacity, "limit of 32"},
		{400, "InstanceLimitExceeded", "You have requested more instances (1) than your current instance limit of 0 allows for the specified instance type.", fleet.ErrCapacity, "quota"},
		{400, "SpotMaxPriceTooLow", "Your Spot request price of 0.1 is lower than the minimum required Spot request fulfillment price of 0.2.", fleet.ErrCapacity, "0.2"},
		{500, "InsufficientHostCapacity", "", fleet.ErrCapacity, "no more"},
		{500, "InsufficientAddressCapacity", "Insufficient address capacity.", fleet.ErrCapacity, ""},
		{500, "InsufficientVolumeCapacity", "", fleet.ErrCapacity, ""},
		{400, "NetworkInterfaceLimitExceeded", "", fleet.ErrCapacity, "quota"},

		{503, "RequestLimitExceeded", "Request limit exceeded.", fleet.ErrThrottled, ""},
		{400, "Throttling", "Rate exceeded", fleet.ErrThrottled, ""},
		{400, "ThrottlingException", "Rate exceeded", fleet.ErrThrottled, ""},
		{503, "EC2ThrottledException", "", fleet.ErrThrottled, ""},

		{500, "InternalError", "An internal error has occurred", fleet.ErrUnknown, "internal error"},
		{500, "InternalFailure", "", fleet.ErrUnknown, ""},
		{503, "Unavailable", "The service is unavailable. Please try again shortly.", fleet.ErrUnknown, ""},
		{503, "ServiceUnavailable", "", fleet.ErrUnknown, ""},
		{500, "SomethingNewIn2031", "It broke.", fleet.ErrUnfamiliar, "It broke."},
		{503, "SomethingNew.InTwoParts", "", fleet.ErrUnfamiliar, ""},
		{400, "RequestExpired", "Request has expired.", fleet.ErrUnknown, ""},
		{400, "IncorrectState", "", fleet.ErrUnknown, ""},

		{400, "IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).", fleet.ErrMismatch, "inconsistent"},
		{400, "IdempotentInstanceTerminated", "The request to launch an instance uses the same client token as a terminated instance.", fleet.ErrGone, ""},

		{403, "UnauthorizedOperation", "You are not authorized to perform this operation. User: arn:aws:sts::111111111111:assumed-role/GitHubRunnerAssumeRole/garo-prod-worker is not authorized to perform: ec2:RunInstances on resource: arn:aws:ec2:eu-west-2:111111111111:subnet/subnet-1 because no identity-based policy allows the ec2:RunInstances action. Encoded authorization failure message: " + blob, fleet.ErrRefused, "subnet/subnet-1"},
		{403, "AccessDenied", "", fleet.ErrRefused, "policies"},
		{401, "AuthFailure", "Not authorized for images: [ami-1]", fleet.ErrImage, "shared with the account"},
		{401, "AuthFailure", "AWS was not able to validate the provided access credentials", fleet.ErrRefused, "validate"},
		{403, "AuthFailure.ServiceLinkedRoleCreationNotPermitted", "The provided credentials do not have permission to create the service-linked role for EC2 Spot Instances.", fleet.ErrRefused, "AWSServiceRoleForEC2Spot"},
		{401, "OptInRequired", "In order to use this AWS Marketplace product you need to accept terms and subscribe.", fleet.ErrRefused, "Marketplace"},
		{400, "PendingVerification", "Your account is currently being verified.", fleet.ErrRefused, "hours"},
		{400, "Blocked", "This account is currently blocked and not recognized as a valid account.", fleet.ErrRefused, "Support"},
		// Codes that no table of ours has: what EC2 says with a 400-series status stays so.
		{400, "SomethingNewIn2031", "The frobnicator is missing.", fleet.ErrRefused, "frobnicator is missing. Look the code up"},
		{400, "SomethingNew.InTwoParts", "", fleet.ErrRefused, "Look the code up"},
		{403, "ExplicitDenyBySomethingNew", "No. Encoded authorization failure message: " + blob, fleet.ErrRefused, "No."},
		{400, "InvalidNetworkInterfaceID.NotFound", "The networkInterface ID 'eni-1' does not exist", fleet.ErrRefused, "eni-1"},
		{400, "InvalidCapacityReservationId.NotFound", "", fleet.ErrRefused, ""},
		{400, "InvalidLaunchTemplateId.Malformed", "", fleet.ErrRefused, ""},
		{400, "SignatureDoesNotMatch", "The request signature we calculated does not match", fleet.ErrRefused, ""},
		{400, "InvalidSecurityGroupId.Malformed", "Invalid id: &quot;sgx&quot;", fleet.ErrRefused, "security groups"},
		{400, "InvalidSecurityGroupID.NotFound", "", fleet.ErrRefused, "security groups"},
		{400, "InvalidKeyPair.NotFound", "The key pair 'k' does not exist", fleet.ErrRefused, "key pair"},
		{400, "InvalidKeyPair.Format", "", fleet.ErrRefused, "key pair"},
		{403, "RegionDisabledException", "", fleet.ErrRefused, "Enable the region"},
		{400, "TagLimitExceeded", "", fleet.ErrRefused, ""},
		{400, "SecurityGroupsPerInterfaceLimitExceeded", "", fleet.ErrRefused, "fewer"},
		// Too little, or too much of something, in this placement.
		{400, "VolumeTypeNotAvailableInZone", "", fleet.ErrCapacity, "volume type"},
		{400, "HostLimitExceeded", "", fleet.ErrCapacity, "hosts"},
		{400, "PrivateIpAddressLimitExceeded", "", fleet.ErrCapacity, "subnet"},
		{400, "AddressLimitExceeded", "", fleet.ErrCapacity, "quota"},
		{400, "FrobnicatorLimitExceeded", "10 of 10", fleet.ErrCapacity, "10 of 10"},
		{500, "InsufficientFrobnicators", "", fleet.ErrCapacity, "quota"},
		{429, "TooMuchOfSomethingNew", "", fleet.ErrThrottled, ""},
		{408, "SlowSomethingNew", "", fleet.ErrUnfamiliar, ""},
		// A placement that will be refused again, where another one may do.
		{400, "InvalidParameterValue", "The architecture 'x86_64' of the specified instance type does not match the architecture 'arm64' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.", fleet.ErrUnsuited, "'arm64'"},
		{400, "InvalidParameterValue", "The requested instance type's architecture (x86_64) does not match the architecture in the manifest for ami-1 (arm64)", fleet.ErrUnsuited, "architecture"},
		{400, "InvalidParameterCombination", "The architecture 'arm64' of the specified instance type does not match the architecture 'x86_64' of the specified AMI.", fleet.ErrUnsuited, "arm64"},
		{400, "InvalidSubnetID.NotFound", "The subnet ID 'subnet-1' does not exist", fleet.ErrUnsuited, "subnet-1"},
		{400, "InvalidInstanceType", "Invalid value 'm99.large' for InstanceType.", fleet.ErrUnsuited, "m99.large"},

		{400, "InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist", fleet.ErrImage, "registration's images"},
		{400, "InvalidAMIID.Unavailable", "The image ID 'ami-1' is no longer available", fleet.ErrImage, "no longer available"},
		{400, "InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist", fleet.ErrRefused, "registration's images"},
		{400, "InvalidAMIID.Malformed", "Invalid id: &quot;ami-x&quot; (expecting &quot;ami-...&quot;)", fleet.ErrRefused, `"ami-x"`},
		{400, "InvalidAMIID.Unavailable", "The image ID 'ami-1' is not available.", fleet.ErrRefused, ""},
		{400, "InvalidSubnetID.NotFound", "The subnet ID 'subnet-1' does not exist", fleet.ErrRefused, "subnet-1"},
		{400, "InvalidGroup.NotFound", "The security group 'sg-1' does not exist in VPC 'vpc-1'", fleet.ErrRefused, "sg-1"},
		{400, "InvalidParameterValue", "Value (builder) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name", fleet.ErrRefused, "builder"},
		{400, "InvalidParameterCombination", "The architecture 'arm64' of the specified instance type does not match the architecture 'x86_64' of the specified AMI.", fleet.ErrRefused, "arm64"},
		{400, "InvalidParameter", "Security group sg-1 and subnet subnet-1 belong to different networks.", fleet.ErrRefused, "different networks"},
		{400, "InvalidSnapshot.NotFound", "The snapshot 'snap-1' does not exist.", fleet.ErrRefused, "snap-1"},
		{400, "UnsupportedOperation", "", fleet.ErrRefused, "no more"},
		{400, "TagPolicyViolation", "The tag policy does not allow the specified value", fleet.ErrRefused, "tag policy"},
	} {
		t.Run(c.code, func(t *testing.T) {
			w := &wire{answers: []reply{ec2Error(c.status, c.code, c.message)}}
			_, err := w.fleet().Launch(t.Context(), here, launch())
			e := wantError(t, "Launch", err, c.kind, c.code)
			if !strings.Contains(e.Text, c.says) {
				t.Errorf("the text is %q, want %q in it", e.Text, c.says)
			}
			for _, shown := range []string{err.Error(), w.log.String()} {
				if strings.Contains(shown, blob[:20]) || strings.Contains(strings.ToLower(shown), "encoded authorization") {
					t.Errorf("the encoded message is shown: %s", shown)
				}
			}
			for _, want := range []string{here.String(), c.code} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Launch = %v, want an error that names %s", err, want)
				}
			}
			want := 1 // EC2 is not asked twice
			if c.code == "AuthFailure" || c.code == "RequestExpired" {
				want = 2 // but for a session that may be over
			}
			if len(w.calls) != want {
				t.Errorf("%d calls of EC2, want %d", len(w.calls), want)
			}
		})
	}
}

func TestCodeIsOneBoundedWord(t *testing.T) {
	w := &wire{answers: []reply{ec2Error(400, "Some\n new "+strings.Repeat("Code", 50), "")}}
	_, err := w.fleet().Launch(t.Context(), here, launch())
	e, ok := errors.AsType[*fleet.Error](err)
	if !ok || len(e.Code) > 100 || !strings.HasPrefix(e.Code, "Somenew") || strings.ContainsAny(e.Code, " \n") {
		t.Errorf("Launch = %v, want one word of at most 100 characters as its code", err)
	}
}

func TestTextIsOneBoundedLine(t *testing.T) {
	w := &wire{answers: []reply{ec2Error(400, "InternalError", "one\n\ttwo\x7f  three "+strings.Repeat("word ", 1000)+blob)}}
	_, err := w.fleet().Launch(t.Context(), here, launch())
	e := wantError(t, "Launch", err, fleet.ErrUnknown, "InternalError")
	if len(e.Text) > 410 || !strings.HasPrefix(e.Text, "one two three word word") || !strings.HasSuffix(e.Text, "…") {
		t.Errorf("the text is %q, want one line of about 400 bytes", e.Text)
	}
}

func TestWhatIsEncodedIsLeftOutWhereverItStands(t *testing.T) {
	w := &wire{answers: []reply{ec2Error(403, "UnauthorizedOperation", "Not allowed: "+blob+" is why.")}}
	_, err := w.fleet().Launch(t.Context(), here, launch())
	e := wantError(t, "Launch", err, fleet.ErrRefused, "UnauthorizedOperation")
	if !strings.HasPrefix(e.Text, "Not allowed: is why. ") {
		t.Errorf("the text is %q, want it without the encoded word", e.Text)
	}
}

func FuzzTidy(f *testing.F) {
	for _, s := range []string{"", "one\n\ttwo", "x " + blob, "Encoded authorization failure message: x", strings.Repeat("é ", 500), "\xff\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := ec2fleet.Tidy(s)
		if n := utf8.RuneCountInString(got); n > 401 || !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("Tidy(%q) = %q, want one line of at most 401 characters", s, got)
		}
		if strings.Contains(strings.ToLower(got), "encoded authorization failure message:") {
			t.Errorf("Tidy(%q) = %q, with the encoded message", s, got)
		}
		for word := range strings.FieldsSeq(got) {
			if utf8.RuneCountInString(word) > 200 {
				t.Errorf("Tidy(%q) = %q, with a word of %d characters", s, got, len(word))
			}
		}
	})
}

func TestLaunchWithoutAnAnswerIsNoAnswer(t *testing.T) {
	for _, c := range []struct {
		name  string
		reply reply
	}{
		{"ConnectionIsCut", reply{err: io.ErrUnexpectedEOF}},
		{"ProxyAnswers", reply{503, "<html><body>Service Unavailable</body></html>", nil}},
		{"EmptyError", reply{504, "", nil}},
		{"NoXML", reply{200, "<html>", nil}},
		{"Nothing", reply{200, "", nil}},
		{"NoInstance", reply{200, "<RunInstancesResponse><instancesSet/></RunInstancesResponse>", nil}},
		{"InstanceWithoutID", reply{200, "<RunInstancesResponse><instancesSet><item/></instancesSet></RunInstancesResponse>", nil}},
		{"Redirect", reply{301, "", nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &wire{answers: []reply{c.reply}}
			i, err := w.fleet().Launch(t.Context(), here, launch())
			if _, answered := errors.AsType[*fleet.Error](err); err == nil || answered || i.ID != "" {
				t.Errorf("Launch = %+v, %v; want an error that is no answer of EC2", i, err)
			}
			if len(w.calls) != 1 {
				t.Errorf("%d calls of EC2, want 1", len(w.calls))
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := &wire{answers: []reply{{status: 200}}}
	if _, err := w.fleet().Launch(ctx, here, launch()); !errors.Is(err, context.Canceled) {
		t.Errorf("Launch with an ended context = %v, want so", err)
	}
}

func TestSessionThatIsOverIsRenewedForALaunch(t *testing.T) {
	w := &wire{answers: []reply{ec2Error(400, "RequestExpired", "Request has expired."), {200, launched, nil}}}
	i, err := w.fleet().Launch(t.Context(), here, launch())
	if err != nil || i.ID != "i-0abc" || w.roles != 2 || len(w.calls) != 2 {
		t.Errorf("Launch = %s, %v after %d sessions and %d calls; want i-0abc after 2 and 2", i.ID, err, w.roles, len(w.calls))
	}
	if got, want := w.calls[1].Encode(), w.calls[0].Encode(); got != want {
		t.Errorf("the second call is\n%s\nwant the first one:\n%s", got, want)
	}
}

func TestWhatEC2AnswersToATermination(t *testing.T) {
	for _, c := range []struct {
		status        int
		code, message string
		kind          error
	}{
		{400, "InvalidInstanceID.NotFound", "The instance ID 'i-1' does not exist", fleet.ErrNotFound},
		{400, "InvalidInstanceID.Malformed", "Invalid id: &quot;i-1&quot;", fleet.ErrNotFound},
		{400, "OperationNotPermitted", "The instance 'i-1' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.", fleet.ErrRefused},
		{403, "UnauthorizedOperation", "You are not authorized to perform this operation. Encoded authorization failure message: " + blob, fleet.ErrRefused},
		{503, "RequestLimitExceeded", "Request limit exceeded.", fleet.ErrThrottled},
		{500, "InternalError", "", fleet.ErrUnknown},
	} {
		w := &wire{answers: []reply{ec2Error(c.status, c.code, c.message)}}
		err := w.fleet().Terminate(t.Context(), here, "i-1")
		wantError(t, "Terminate", err, c.kind, c.code)
		if strings.Contains(err.Error(), blob[:20]) || !strings.Contains(err.Error(), "i-1") || len(w.calls) != 1 {
			t.Errorf("Terminate = %v after %d calls, want one call and an error that names the instance alone", err, len(w.calls))
		}
	}
}
