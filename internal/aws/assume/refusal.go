package assume

import (
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// refusals are what STS answers when a person has to change something, by code
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html,
// https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html). What it
// says itself is not passed on: it can repeat the external id.
var refusals = map[string]string{
	"AccessDenied": "check that it exists, that its trust policy names the control plane's role and exactly the registered external id, and that it allows sts:SetSourceIdentity",

	"RegionDisabledException": "the account that owns it has switched off STS in the control plane's region: switch it on",
	"ValidationError":         "STS finds the call malformed: check role_arn and external_id in the registration, and that the role allows sessions of one hour",
	"InvalidParameterValue":   "STS finds the call malformed: check role_arn and external_id in the registration",
	"MalformedPolicyDocument": "STS refuses the session policy: this version of GARO is at fault",
	"PackedPolicyTooLarge":    "STS finds the session policy too large: this version of GARO is at fault",
}

// refusal classifies what STS answered. An error that is no answer stays as it is.
func refusal(r role, err error) error {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return err
	}
	e := &fleet.Error{Kind: fleet.ErrUnknown, Code: api.ErrorCode(), Text: fmt.Sprintf("STS does not answer for role %s of account %s now.", r.arn, r.account)}
	if advice, ok := refusals[e.Code]; ok {
		e.Kind, e.Text = fleet.ErrRefused, fmt.Sprintf("Role %s of account %s cannot be assumed: %s.", r.arn, r.account, advice)
	} else if _, ok := retry.DefaultThrottleErrorCodes[e.Code]; ok {
		e.Kind = fleet.ErrThrottled
	} else if !slices.Contains(passingCodes, e.Code) {
		e.Case = fleet.ErrUnfamiliar
	}
	return e
}

// passingCodes are what STS answers when it is away, or when the control plane's
// own credentials have ended, and a function gets new ones on its own.
var passingCodes = []string{
	"InternalFailure", "ServiceUnavailable", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "RequestExpired",
}
