package action

import (
	"context"
	"errors"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// cancelled cancels what the job asked for, since nobody waits for it any longer.
func (s *step) cancelled(ctx context.Context, api *client.Client, asks []ask, errs []error) error {
	s.say("The job was cancelled.")
	s.abandon(ctx, api, asks, errs)
	return ErrCancelled
}

// abandon stops all requests, so that no machine is launched for them, and a
// runner that no other request uses ends. What it cannot stop is left to Post. errs
// are those of the calls that started them.
func (s *step) abandon(ctx context.Context, api *client.Client, asks []ask, errs []error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCall/2)
	defer cancel()
	left := each(len(asks), atOnce, func(i int) error {
		if asks[i].ID == "" {
			if refused(errs[i]) {
				return nil
			}
			return errs[i]
		}
		return s.end(ctx, api.WithToken(asks[i].token), asks[i])
	})
	var open []ask
	for i, err := range left {
		if err != nil {
			open = append(open, asks[i])
		}
	}
	if err := s.save(s.record(open, len(open) > 0)); err != nil {
		s.say("%v", err) // the record of before says more is open than is: a stop too many does no harm
	}
	if len(open) > 0 {
		s.say("Not everything is cancelled yet: the end of the job does the rest.")
	}
}

// errUnasked says that a request was not made.
var errUnasked = errors.New("not asked for")

// refused reports whether a call that failed so recorded nothing: the API said no,
// or was not asked. An API that did not answer may have recorded the request.
func refused(err error) bool {
	e, answered := errors.AsType[*client.Error](err)
	return answered && !e.Retryable() || errors.Is(err, client.ErrNoIDToken) || errors.Is(err, errUnasked)
}

// end stops one request, and says what becomes of it.
func (s *step) end(ctx context.Context, api *client.Client, a ask) error {
	stopped, err := api.Stop(ctx, a.ID, false)
	if err != nil {
		return err
	}
	s.say("request %s is %s; %s", stopped.ID, stopped.State, whatOfRunner(stopped))
	return nil
}

func whatOfRunner(st apitype.Stopped) string {
	if st.Draining {
		return "its runner ends"
	}
	return "no runner ends for it"
}
