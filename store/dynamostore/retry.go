package dynamostore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

const (
	// firstWait is the longest wait before the second try: about what a
	// transaction takes, so that the one in the way is over by then.
	firstWait = 20 * time.Millisecond
	// lastWait is the longest wait before any try: what throttling needs to ease,
	// and enough for a hundred transactions on one item, of some 10 ms each, to come
	// one after another.
	lastWait = time.Second
	// tries bounds the calls that fail for a fault of DynamoDB or of the way there:
	// with the waits between them three seconds on average. What lasts longer is an
	// outage, and the caller's to tell.
	tries = 12
	// patience bounds, where ctx does not, how long a transaction makes way for
	// others: each time, another one got through, so that it is no outage.
	patience = 20 * time.Second
)

// errMet and errBusy say that nothing was done, and that another try may do
// better: a transaction met others, or DynamoDB had no capacity.
var (
	errMet  = errors.New("other transactions are in the way")
	errBusy = errors.New("DynamoDB is busy")
)

// outcome is what an error tells of a call.
type outcome int

const (
	over    outcome = iota // the answer stands
	met                    // it had no effect, since another transaction was under way
	busy                   // it had no effect
	unknown                // nobody knows
)

// judge tells what another try of a failed call is good for.
func judge(err error) outcome {
	switch {
	case errors.Is(err, errBusy):
		return busy
	case errors.Is(err, errMet):
		return met
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		code := api.ErrorCode()
		if _, throttled := retry.DefaultThrottleErrorCodes[code]; throttled {
			return busy
		}
		if code == "TransactionConflictException" {
			return met
		}
	}
	if retryable.IsErrorRetryable(err) == aws.TrueTernary {
		return unknown
	}
	if _, ok := errors.AsType[*smithy.DeserializationError](err); ok {
		return unknown // the answer broke off
	}
	return over
}

// retryable knows connection errors and server errors.
var retryable = retry.IsErrorRetryables(retry.DefaultRetryables)

// try calls call until its answer stands. repeatable says that a call whose
// outcome is unknown may be made again.
func (s *Store) try(ctx context.Context, repeatable bool, call func() error) error {
	began, failures := time.Now(), 0
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := call()
		if err == nil {
			return nil
		}
		switch o := judge(err); o {
		case over:
			return err
		case met:
			if time.Since(began) > patience {
				return fmt.Errorf("after %s: %w", patience, err)
			}
		case busy, unknown:
			if o == unknown && !repeatable {
				return err
			}
			if failures++; failures == tries {
				return fmt.Errorf("after %d failures: %w", tries, err)
			}
		}
		if sleep.For(ctx, s.jitter(min(lastWait, firstWait<<min(n, 10)))) != nil { // 10: no overflow
			return fmt.Errorf("%w after %d tries: %w", ctx.Err(), n+1, err)
		}
	}
}

// jitter returns a duration below d, which is positive.
func (s *Store) jitter(d time.Duration) time.Duration {
	var b [8]byte
	if _, err := io.ReadFull(s.random, b[:]); err != nil {
		return d
	}
	return time.Duration(binary.LittleEndian.Uint64(b[:]) % uint64(d))
}

// advice is what an operator can do about an error, by its code.
var advice = map[string]string{
	"ResourceNotFoundException":   "the table or one of its indexes is not there: compare GARO_TABLE, the region and Terraform's output, and apply Terraform",
	"AccessDeniedException":       "the role may not do this: compare its policy with the one that Terraform makes",
	"ValidationException":         "if the key or an index is meant, the table is not as Terraform makes it: apply Terraform",
	"UnrecognizedClientException": "AWS does not know these credentials: check the role or profile that this process runs with",
	"ExpiredTokenException":       "the credentials of this process have expired: get new ones",
}

// explain adds the table, and what to do if that is known.
func (s *Store) explain(err error) error {
	where := fmt.Sprintf("table %s in %s", s.table, s.region)
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		if what, ok := advice[api.ErrorCode()]; ok {
			return fmt.Errorf("%s: %s: %w", where, what, err)
		}
	}
	return fmt.Errorf("%s: %w", where, err)
}
