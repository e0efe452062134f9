package ec2fleet

import (
	"cmp"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// verdict is what a code of EC2 means to us.
type verdict struct {
	kind   error  // a kind of package fleet's, or a case of one
	advice string // what a person can do about it, if EC2's own words do not say
}

// verdicts has the codes whose meaning is known, of what we call. A code that has
// parts, X.Y, is looked up whole and then as X. Of a known one it is the code that
// decides, never the status: EC2 calls a lack of capacity a server error. What is
// not here is judged by unlisted
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
	"VolumeIOPSLimit":                   {fleet.ErrCapacity, "Have the region's quota of volume IOPS raised."},
	"VolumeTypeNotAvailableInZone":      {fleet.ErrCapacity, "The zone of that subnet does not have the image's volume type."},
	"HostLimitExceeded":                 {fleet.ErrCapacity, "Have the region's quota of dedicated hosts raised."},
	"PrivateIpAddressLimitExceeded":     {fleet.ErrCapacity, "Use a larger subnet, or more of them."},
	// Another placement may be below the price that the registration names, or else
	// below its on-demand price.
	"SpotMaxPriceTooLow": {fleet.ErrCapacity, "If the registration has spot_max_price, raise it."},

	// What the client token is bound to.
	"IdempotentParameterMismatch":  {kind: fleet.ErrMismatch},
	"IdempotentInstanceTerminated": {kind: fleet.ErrGone},

	// Nothing was done, and the same call may succeed later on its own.
	"RequestExpired":         {kind: fleet.ErrUnknown},
	"ExpiredToken":           {kind: fleet.ErrUnknown},
	"ExpiredTokenException":  {kind: fleet.ErrUnknown},
	"ConcurrentTagAccess":    {kind: fleet.ErrUnknown},
	"IncorrectState":         {kind: fleet.ErrUnknown},
	"IncorrectInstanceState": {kind: fleet.ErrUnknown},
	// The server errors of EC2's documentation.
	"InternalError":      {kind: fleet.ErrUnknown},
	"InternalFailure":    {kind: fleet.ErrUnknown},
	"ServiceUnavailable": {kind: fleet.ErrUnknown},
	"Unavailable":        {kind: fleet.ErrUnknown},

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
	"RegionDisabledException": {fleet.ErrRefused, "Enable the region in the account."},
	"OptInRequired":           {fleet.ErrRefused, "Subscribe the account to EC2, and to the image if the AWS Marketplace sells it."},
	"PendingVerification":     {fleet.ErrRefused, "AWS verifies the account still; that takes hours."},
	"Blocked":                 {fleet.ErrRefused, "The account is blocked: ask AWS Support."},
	// the registration.
	"InvalidAMIID":                            {fleet.ErrImage, "Change the registration's images: an AMI is of one region, and shared with the account or public."},
	"InvalidAMIName":                          {fleet.ErrRefused, "Change the registration's images."},
	"InvalidSnapshot":                         {fleet.ErrRefused, "A snapshot of the image is gone: build the image again."},
	"InvalidBlockDeviceMapping":               {fleet.ErrRefused, "Change the registration's root_volume, or build the image again."},
	"EncryptedVolumesNotSupported":            {fleet.ErrUnsuited, "Allow only instance types that take encrypted volumes."},
	"InvalidSubnet":                           {fleet.ErrUnsuited, "Change the registration's subnets."},
	"InvalidSubnetID":                         {fleet.ErrUnsuited, "Change the registration's subnets: a subnet is of one region."},
	"InvalidSubnetId":                         {fleet.ErrUnsuited, "Change the registration's subnets."},
	"InvalidGroup":                            {fleet.ErrRefused, "Change the registration's security groups: they are of the subnet's VPC."},
	"InvalidGroupId":                          {fleet.ErrRefused, "Change the registration's security groups."},
	"InvalidSecurityGroupID":                  {fleet.ErrRefused, "Change the registration's security groups."},
	"InvalidSecurityGroupId":                  {fleet.ErrRefused, "Change the registration's security groups."},
	"InvalidKeyPair":                          {fleet.ErrRefused, "GARO names no key pair: look for a policy or a proxy that adds one."},
	"InvalidVPCID":                            {fleet.ErrRefused, "Change the registration's subnets."},
	"InvalidKMSKey":                           {fleet.ErrRefused, "Allow the account's role, and for spot the role AWSServiceRoleForEC2Spot, the key of the image and of the account's EBS encryption."},
	"TagLimitExceeded":                        {kind: fleet.ErrRefused},
	"FilterLimitExceeded":                     {kind: fleet.ErrRefused},
	"SecurityGroupsPerInstanceLimitExceeded":  {fleet.ErrRefused, "Register fewer security groups."},
	"SecurityGroupsPerInterfaceLimitExceeded": {fleet.ErrRefused, "Register fewer security groups."},
	"InvalidIamInstanceProfileArn":            {fleet.ErrRefused, "Change the registration's instance_profile."},
	"InvalidInstanceType":                     {fleet.ErrUnsuited, "Change the registration's instance_types."},
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

// mismatched is what EC2 says of an image that does not run on an instance type.
// It has no code of its own: the words come with InvalidParameterValue and with
// InvalidParameterCombination, and older ones call the image's side a manifest
// (https://github.com/skypilot-org/skypilot/issues/6315,
// https://github.com/terraform-aws-modules/terraform-aws-ec2-instance/issues/157).
var mismatched = lazily(`(?i)architecture.* does not match the architecture|instance type.* (does not support|not supported|incompatible).*(boot mode|virtualization|image|AMI)`)

// unshared is what EC2 says, with the code AuthFailure, of an image that another
// account has and does not share, or no longer: it names an AMI without permission
// as an example of that code
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html).
var unshared = lazily(`(?i)not authorized for images`)

// lazily compiles a pattern when EC2 first says something that it may match.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// unlisted judges a code that verdicts does not have, as EC2 documents its errors:
// a code that speaks of a limit or of too little is of the placement; any other
// error with a 400-series status is the caller's, and stays so; one with a
// 500-series status is EC2's own, and tells nothing.
func unlisted(code string, status int) verdict {
	switch {
	case strings.HasPrefix(code, "Insufficient"), strings.HasSuffix(code, "LimitExceeded"), strings.HasSuffix(code, "LimitExceededException"):
		return verdict{fleet.ErrCapacity, "If that continues, have the quota that EC2 names raised."}
	case status == http.StatusTooManyRequests:
		return verdict{kind: fleet.ErrThrottled}
	case status >= 400 && status < 500 && status != http.StatusRequestTimeout:
		return verdict{fleet.ErrRefused, "Look the code up in EC2's error codes."}
	}
	return verdict{kind: fleet.ErrUnfamiliar}
}

// classify makes a *fleet.Error of what EC2 answered. What is no answer of EC2's
// stays as it is: a call without one may be under way still.
func classify(err error) error { return judged(err, unlisted) }

// judged is classify, with a judge of the codes that verdicts does not have.
func judged(err error, unlisted func(code string, status int) verdict) error {
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok || e.ErrorCode() == "" || e.ErrorCode() == unreadable {
		return err
	}
	code, words := e.ErrorCode(), e.ErrorMessage()
	if words == unreadable {
		words = ""
	}
	family, _, _ := strings.Cut(code, ".")
	v, known := verdicts[code]
	if !known {
		v, known = verdicts[family]
	}
	if _, throttled := retry.DefaultThrottleErrorCodes[code]; throttled {
		v, known = verdict{kind: fleet.ErrThrottled}, true
	}
	if !known {
		status := 0
		if r, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
			status = r.HTTPStatusCode()
		}
		v = unlisted(code, status)
	}
	if v.kind == fleet.ErrRefused && mismatched().MatchString(words) {
		v = verdict{fleet.ErrUnsuited, "Allow instance types of the image's architecture, or name an image of theirs."}
	}
	if v.kind == fleet.ErrRefused && unshared().MatchString(words) {
		v = verdicts["InvalidAMIID"]
	}
	out := &fleet.Error{Kind: v.kind, Code: shortCode(code)}
	switch v.kind {
	case fleet.ErrUnfamiliar:
		out.Kind, out.Case = fleet.ErrUnknown, v.kind
	case fleet.ErrUnsuited, fleet.ErrImage:
		out.Kind, out.Case = fleet.ErrRefused, v.kind
	}
	out.Text = cmp.Or(strings.TrimSpace(sentence(tidy(words))+" "+v.advice), "EC2 says no more than that.")
	return out
}

// sentence ends s with a full stop, so that advice can follow.
func sentence(s string) string {
	if s == "" || strings.HasSuffix(s, ".") || strings.HasSuffix(s, "…") || strings.HasSuffix(s, "!") {
		return s
	}
	return s + "."
}

// maxCode bounds what is kept of a code: EC2's longest has 50 characters.
const maxCode = 100

// shortCode returns a code as a word of bounded length.
func shortCode(code string) string {
	code = strings.ReplaceAll(tidy(code), " ", "")
	return cmp.Or(code[:min(len(code), maxCode)], "Unreadable")
}

// unreadable is what the SDK makes up for a code or a message that it does not
// find, as in the answer of a proxy.
const unreadable = "UnknownError"

// maxText bounds what is kept of EC2's words: they go into records.
const maxText = 400

// encoded is the message that EC2 appends to a refusal: it tells anyone who may decode
// it about policies.
var encoded = lazily(`(?i) ?encoded authorization failure message:.*`)

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
	s = encoded().ReplaceAllString(strings.Join(words, " "), "")
	if r := []rune(s); len(r) > maxText {
		s = string(r[:maxText]) + "…"
	}
	return s
}
