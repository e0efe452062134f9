package assume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// Prove takes on the role of an account, whatever session is kept, and keeps none. Its
// errors are as Do's.
func (s *Sessions) Prove(ctx context.Context, account string) error {
	r, err := s.roleFor(ctx, account)
	if err == nil {
		_, err = s.begin(ctx, r)
	}
	if err != nil {
		return fmt.Errorf("take on the role of account %s: %w", account, err)
	}
	return nil
}

// wrongID is no account's external id: the control plane makes them of 64 hex digits.
const wrongID = "garo-doctor-wrong-external-id"

// Strangers asks for the role of an account without its external id, in each way that there
// is, and returns in which it was given. A session that it gets is given up unused. STS has
// to refuse by AccessDenied: any other answer is an error, since it proves nothing
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html).
func (s *Sessions) Strangers(ctx context.Context, account string) (let []string, err error) {
	r, err := s.roleFor(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("ask for the role of account %s: %w", account, err)
	}
	for _, way := range []struct {
		name string
		id   *string
	}{{fleet.WithoutExternalID, nil}, {fleet.WithAWrongOne, new(wrongID)}} {
		in := s.input(r)
		in.ExternalId, in.DurationSeconds = way.id, new(int32(shortest/time.Second))
		_, err := s.assume(ctx, in)
		api, answered := errors.AsType[smithy.APIError](err)
		switch {
		case err == nil:
			let = append(let, way.name)
		case !answered || api.ErrorCode() != "AccessDenied":
			return let, fmt.Errorf("ask for the role of account %s %s: %w", account, way.name, refusal(r, err))
		}
	}
	return let, nil
}

// shortest is the least time that STS makes a session for
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html).
const shortest = 15 * time.Minute

// roleFor returns the role that an account's registration names.
func (s *Sessions) roleFor(ctx context.Context, account string) (role, error) {
	a, err := s.cfg.Accounts.Account(ctx, account)
	if err != nil {
		return role{}, err
	}
	return roleOf(a)
}

// input is the call for a role as the control plane makes it.
func (s *Sessions) input(r role) *sts.AssumeRoleInput {
	who := "garo-" + s.cfg.ControlPlane
	return &sts.AssumeRoleInput{
		RoleArn:         &r.arn,
		ExternalId:      new(r.externalID.Reveal()),
		RoleSessionName: new(who + "-" + string(s.cfg.Part)),
		SourceIdentity:  &who,
		DurationSeconds: new(int32(life / time.Second)),
		Policy:          new(Policy(s.cfg.Part, s.cfg.ControlPlane, r.partition, r.account)),
	}
}
