package ssmparam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/flight"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

const (
	// keepFor is how long a parameter is used before it is read again: SSM gives 40
	// reads a second to all callers of an account and region
	// (https://docs.aws.amazon.com/general/latest/gr/ssm.html), and an edit should
	// count within minutes.
	keepFor = 5 * time.Minute
	// staleFor is how long after it was read a parameter is still used while SSM
	// does not answer: as long as a session of an assumed role lasts, so that
	// nothing that was withdrawn serves for longer than it could anyway.
	staleFor = time.Hour
	// againIn is how long a stale parameter, or a refusal, stands before SSM is
	// asked again: no flood of callers may use up what SSM gives.
	againIn = 10 * time.Second
)

// Errors that callers branch on. Anything else is an outage.
var (
	// ErrNoParameter says that there is no such parameter.
	ErrNoParameter = errors.New("no such parameter")
	// ErrDenied says that the caller may not read the parameter, or not decrypt it.
	ErrDenied = errors.New("parameter may not be read")
)

// GetFunc reads one parameter, as the method of an *ssm.Client does. It answers
// ErrDenied if it has no credentials to ask with, and only people can fix that.
type GetFunc func(ctx context.Context, in *ssm.GetParameterInput, opts ...func(*ssm.Options)) (*ssm.GetParameterOutput, error)

// Reader reads the parameters of one account and region, decrypted, and keeps
// each for five minutes. Many who want one at the same time cause one read. While
// SSM does not answer, what was read within the last hour is still served;
// that a parameter is gone, or may not be read, counts at once. It is safe for
// concurrent use.
type Reader struct {
	get   GetFunc
	now   func() time.Time
	log   *slog.Logger
	cache flight.Cache[string, parameter]
}

// parameter is one as it was read.
type parameter struct {
	text    secret.Text
	version int64
	readAt  time.Time
}

// NewReader returns a Reader that reads by get. now and log are needed.
func NewReader(get GetFunc, now func() time.Time, log *slog.Logger) *Reader {
	return &Reader{get: get, now: now, log: log, cache: flight.Cache[string, parameter]{Now: now, Keep: staleFor}}
}

// Get returns a parameter by its name. fresh reads past what is kept, and serves
// nothing old while SSM does not answer.
func (r *Reader) Get(ctx context.Context, name string, fresh bool) (secret.Text, error) {
	p, err := r.read(ctx, name, fresh)
	return p.text, err
}

func (r *Reader) read(ctx context.Context, name string, fresh bool) (parameter, error) {
	p, err := r.cache.Get(ctx, name, fresh, func(ctx context.Context, last parameter) (parameter, time.Time, error) {
		out, err := r.get(ctx, &ssm.GetParameterInput{Name: &name, WithDecryption: new(true)})
		now := r.now()
		switch final := final(err); {
		case err == nil && (out.Parameter == nil || out.Parameter.Value == nil):
			return parameter{}, time.Time{}, errors.New("the answer has no value")
		case err == nil:
			return parameter{secret.New(*out.Parameter.Value), out.Parameter.Version, now}, now.Add(keepFor), nil
		case final != nil:
			return parameter{}, now.Add(againIn), final
		case !fresh && !last.readAt.IsZero() && now.Before(last.readAt.Add(staleFor)):
			r.log.Warn("parameter cannot be read; the last one that was read is used", "parameter", name, "read_at", last.readAt, "error", err)
			return last, now.Add(againIn), nil
		}
		return parameter{}, time.Time{}, err
	})
	if err != nil {
		return parameter{}, fmt.Errorf("read parameter %s: %w", name, err)
	}
	return p, nil
}

// The codes that only people can fix
// (https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html,
// https://docs.aws.amazon.com/systems-manager/latest/APIReference/CommonErrors.html).
var (
	absentCodes = []string{"ParameterNotFound", "ParameterVersionNotFound"}
	deniedCodes = []string{"AccessDeniedException", "InvalidKeyId", "ValidationException", "OptInRequired"}
)

// final returns err as a case of one of the errors above, or nil if it is none.
func final(err error) error {
	e, ok := errors.AsType[smithy.APIError](err)
	switch {
	case errors.Is(err, ErrDenied):
		return err // GetFunc could not even ask
	case !ok:
	case slices.Contains(absentCodes, e.ErrorCode()):
		return fmt.Errorf("%w: %w", ErrNoParameter, err)
	case slices.Contains(deniedCodes, e.ErrorCode()):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return nil
}
