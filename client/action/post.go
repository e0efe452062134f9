package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// record is what a step leaves for the end of its job, in GitHub's file for the
// state of a step.
type record struct {
	URL  string `json:"url"`
	Asks []ask  `json:"asks"`
	Open bool   `json:"open"` // the job has neither got its runners nor cancelled them
}

// ask is one request.
type ask struct {
	Body   apitype.Start `json:"body"`
	ID     string        `json:"id,omitempty"` // empty: no answer has come
	Token  string        `json:"token,omitempty"`
	RunsOn []string      `json:"runs_on,omitempty"`
}

// stateName is what the record is saved under. The last one that was saved counts.
const stateName = "garo"

func (s *step) save(r record) error {
	b, err := json.Marshal(r) // on one line
	if err != nil {
		return err
	}
	return s.appendTo("GITHUB_STATE", stateName+"="+string(b)+"\n")
}

// postTime is how long the end of a job may take: GitHub gives all that is left
// to do after a cancellation five minutes.
const postTime = 2 * time.Minute

// Post is run at the end of the job, however it ended. It cancels what Main left
// open, because it was killed or could not reach the API, and what a job without
// waiting asked for and then did not get as far as to use.
func Post(ctx context.Context, env Env) error {
	s := &step{env: env}
	saved := env.Getenv("STATE_" + stateName)
	if saved == "" {
		s.say("No runner was asked for: there is nothing to cancel.")
		return nil
	}
	var r record
	if err := json.Unmarshal([]byte(saved), &r); err != nil {
		return s.fail(problem{"not_recorded", "The state of the step is not as it was saved, so nothing can be cancelled."})
	}
	// GitHub evaluates the default of an input anew for this step, so that it tells
	// how the job ended.
	in := reader{getenv: env.Getenv}
	if ended := in.text("job-status"); !in.boolean("wait", true) && (ended == "cancelled" || ended == "failure") {
		r.Open = true
	}
	if !r.Open {
		s.say("The job has what it asked for: there is nothing to cancel.")
		return nil
	}
	s.in.count = len(r.Asks)
	ctx, cancel := context.WithTimeout(ctx, postTime)
	defer cancel()
	api := s.connect(r.URL)
	errs := each(len(r.Asks), atOnce, func(i int) error {
		a := r.Asks[i]
		if a.ID == "" {
			// The same call finds what the first one recorded. If it recorded nothing,
			// it is cancelled at once: the record tells the next reader that, too.
			started, err := api.Start(ctx, a.Body)
			if e, ok := errors.AsType[*client.Error](err); ok && !e.Retryable() {
				return nil // refused: there is nothing
			}
			if err != nil {
				return err
			}
			a.ID, a.Token = started.ID, started.StatusToken
			s.mask(client.NewToken(a.Token))
		}
		if err := s.end(ctx, api, a); err != nil {
			return fmt.Errorf("request %s: %w", a.ID, err)
		}
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		return s.fail(problem{problemOf(first(errs)).code, "Not everything could be cancelled; machines end by themselves at the idle limit. " + err.Error()})
	}
	return s.appendTo("GITHUB_STEP_SUMMARY", "GARO: the job ended before it had its runner; what it asked for is cancelled.\n")
}
