package ec2fleet

import (
	"cmp"
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// verdict is what a code of EC2 means to us.
type verdict struct {
	kind   error
	advice string // what a person can do about it, if EC2's own words do not say
}

// verdicts has the codes whose meaning is known, of what we call. A code that has
// parts, X.Y, is looked up whole and then as X. Any other, and so whatever EC2
// comes to answer next year, leaves the outcome unknown. It is the code that
// decides, never the status: EC2 calls a lack of capacity a server error
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html).
var verdicts = map[string]verdict{
	// Nothing was launched, and another placement may have room.
	"InsufficientInstanceCapacity":      {kind: fleet.ErrCapacity},
	"InsufficientCapacity":              {kind: fleet.ErrCapacity},
	"InsufficientHostCapacity":          {kind: fleet.ErrCapacity},
	"InsufficientVolumeCapacity":        {kind: fleet.ErrCapacity},
	"InsufficientAddressCapacity":       {kind: fleet.ErrCapacity},
	"InsufficientFreeAddressesInSubnet": {fleet.ErrCapacity, "Use a larger subnet, or more of them."},
	"ReservationCapacityExceeded":       {kind: fleet.ErrCapacity},
	"UnfulfillableCapacity":             {kind: fleet.ErrCapacity},
	"Unsupported":                       {fleet.ErrCapacity, "The zone of that subnet does not have the instance type, or not for this image."},
	"VcpuLimitExceeded":                 {fleet.ErrCapacity, "Have the account's vCPU quota raised."},
	"InstanceLimitExceeded":             {fleet.ErrCapacity, "Have the account's quota of that instance type raised."},
	"NetworkInterfaceLimitExceeded":     {fleet.ErrCapacity, "Have the region's quota of network interfaces raised."},
	"VolumeLimitExceeded":               {fleet.ErrCapacity, "Have the region's quota of volume storage raised."},
	"MaxIOPSLimitExceeded":              {fleet.ErrCapacity, "Have the region's quota of volume IOPS raised."},
	"MaxSpotInstanceCountExceeded":      {fleet.ErrCapacity, "Have the account's spot quota raised."},
	// We name no price, so that nobody could name a better one: another placement
	// may be below its on-demand price.
	"SpotMaxPriceTooLow": {kind: fleet.ErrCapacity},

	// What the client token is bound to.
	"IdempotentParameterMismatch":  {kind: fleet.ErrMismatch},
	"IdempotentInstanceTerminated": {kind: fleet.ErrGone},

	// There is no such instance. A malformed id is none of EC2's.
	"InvalidInstanceID": {kind: fleet.ErrNotFound},

	// A person has to change something: rights,
	"UnauthorizedOperation": {fleet.ErrRefused, "Compare the policies of the account's role, and the organisation's, with what GARO needs."},
	"AccessDenied":          {fleet.ErrRefused, "Compare the policies of the account's role, and the organisation's, with what GARO needs."},
	"AuthFailure":           {fleet.ErrRefused, "Check that the region is enabled in the account, and that the account may use the image, subnet and security groups."},
	"AuthFailure.ServiceLinkedRoleCreationNotPermitted": {fleet.ErrRefused, "Create the service-linked role AWSServiceRoleForEC2Spot in the account, once."},
	"InvalidClientTokenId":                              {fleet.ErrRefused, "Check that the region is enabled in the account."},
	"OperationNotPermitted":                             {fleet.ErrRefused, "Check the instance's protection from termination."},
	"TagPolicyViolation":                                {fleet.ErrRefused, "Compare the organisation's tag policy with the tags that GARO sets."},
	// the account itself,
	"OptInRequired":       {fleet.ErrRefused, "Subscribe the account to EC2, and to the image if the AWS Marketplace sells it."},
	"PendingVerification": {fleet.ErrRefused, "AWS verifies the account still; that takes hours."},
	"Blocked":             {fleet.ErrRefused, "The account is blocked: ask AWS Support."},
	// the registration.
	"InvalidAMIID":                            {fleet.ErrRefused, "Change the registration's images: an AMI is of one region, and shared with the account or public."},
	"InvalidAMIName":                          {fleet.ErrRefused, "Change the registration's images."},
	"InvalidSnapshot":                         {fleet.ErrRefused, "A snapshot of the image is gone: make the image anew."},
	"InvalidBlockDeviceMapping":               {fleet.ErrRefused, "Make the image anew."},
	"EncryptedVolumesNotSupported":            {fleet.ErrRefused, "Allow only instance types that take encrypted volumes."},
	"InvalidSubnet":                           {fleet.ErrRefused, "Change the registration's subnets."},
	"InvalidSubnetID":                         {fleet.ErrRefused, "Change the registration's subnets: a subnet is of one region."},
	"InvalidSubnetId":                         {fleet.ErrRefused, "Change the registration's subnets."},
	"InvalidGroup":                            {fleet.ErrRefused, "Change the registration's security groups: they are of the subnet's VPC."},
	"InvalidGroupId":                          {fleet.ErrRefused, "Change the registration's security groups."},
	"InvalidSecurityGroupID":                  {fleet.ErrRefused, "Change the registration's security groups."},
	"SecurityGroupsPerInstanceLimitExceeded":  {fleet.ErrRefused, "Register fewer security groups."},
	"SecurityGroupsPerInterfaceLimitExceeded": {fleet.ErrRefused, "Register fewer security groups."},
	"InvalidIamInstanceProfileArn":            {fleet.ErrRefused, "Change the registration's instance_profile."},
	"InvalidInstanceType":                     {fleet.ErrRefused, "Change the registration's instance_types."},
	"InvalidUserData":                         {kind: fleet.ErrRefused},
	"InvalidTagKey":                           {kind: fleet.ErrRefused},
	"InvalidParameter":                        {kind: fleet.ErrRefused},
	"InvalidParameterValue":                   {kind: fleet.ErrRefused},
	"InvalidParameterCombination":             {kind: fleet.ErrRefused},
	"InvalidParameterDependency":              {kind: fleet.ErrRefused},
	"MissingParameter":                        {kind: fleet.ErrRefused},
	"UnknownParameter":                        {kind: fleet.ErrRefused},
	"ValidationError":                         {kind: fleet.ErrRefused},
	"UnsupportedOperation":                    {kind: fleet.ErrRefused},
	"UnsupportedInstanceAttribute":            {kind: fleet.ErrRefused},
	"UnsupportedHibernationConfiguration":     {kind: fleet.ErrRefused},
}

// classify makes a *fleet.Error of what EC2 answered. What is no answer of EC2's
// stays as it is: a call without one may be under way still.
func classify(err error) error {
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok || e.ErrorCode() == "" || e.ErrorCode() == unreadable {
		return err
	}
	code := e.ErrorCode()
	family, _, _ := strings.Cut(code, ".")
	v, known := verdicts[code]
	if !known {
		v, known = verdicts[family]
	}
	if !known {
		v.kind = fleet.ErrUnknown
	}
	if _, throttled := retry.DefaultThrottleErrorCodes[code]; throttled {
		v.kind = fleet.ErrThrottled
	}
	words := e.ErrorMessage()
	if words == unreadable {
		words = ""
	}
	text := strings.TrimSpace(tidy(words) + " " + v.advice)
	return &fleet.Error{Kind: v.kind, Code: code, Text: cmp.Or(text, "EC2 says no more than that.")}
}

// unreadable is what the SDK makes up for a code or a message that it does not
// find, as in the answer of a proxy.
const unreadable = "UnknownError"

// maxText bounds what is kept of EC2's words: they go into records.
const maxText = 400

// encoded is the message that EC2 appends to a refusal: it tells whoever may decode
// it about policies.
var encoded = regexp.MustCompile(`(?i) ?encoded authorization failure message:.*`)

// longest is the most bytes of a word that is for people: an ARN fits.
const longest = 200

// tidy returns what EC2 says as one line of bounded length, without what is
// encoded.
func tidy(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	words := slices.DeleteFunc(strings.Fields(s), func(w string) bool { return len(w) > longest })
	s = encoded.ReplaceAllString(strings.Join(words, " "), "")
	if r := []rune(s); len(r) > maxText {
		s = string(r[:maxText]) + "…"
	}
	return s
}
