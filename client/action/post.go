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
	URL  string        `json:"url"`
	Body apitype.Start `json:"body"` // of all requests, but for the key
	Key  string        `json:"key"`
	Asks []ask         `json:"asks"` // what may be recorded and is not cancelled
	Open bool          `json:"open"` // the job has neither got its runners nor cancelled them
}

// ask is one request.
type ask struct {
	N      int    `json:"n"`            // from 1
	ID     string `json:"id,omitempty"` // empty: no answer has come
	token  client.Token
	runsOn []string
}

// call is the call that makes request n, and that finds it again.
func (r record) call(n int) apitype.Start {
	body := r.Body
	body.IdempotencyKey = fmt.Sprintf("%s/%d", r.Key, n)
	return body
}

const (
	// stateName is what the record is saved under. The last one that was saved counts.
	stateName = "garo"
	// maxRecord is what the end of the job can be given: the record comes back to it
	// in a variable, for which Windows has room for 32,767 characters
	// (https://learn.microsoft.com/en-us/windows/win32/procthread/environment-variables).
	maxRecord = 32_000
)

func (s *step) save(r record) error {
	b, err := json.Marshal(r) // on one line
	if err != nil {
		return err
	}
	if len(b) > maxRecord {
		return fmt.Errorf("the inputs make a record of %d bytes for the end of the job, want at most %d: shorten the lists, or ask for fewer runners", len(b), maxRecord)
	}
	return s.appendTo("GITHUB_STATE", stateName+"="+string(b)+"\n")
}

// postTime is how long the end of a job may take: GitHub gives all that is left
// to do after a cancellation five minutes.
const postTime = 2 * time.Minute

// Post is run at the end of the job, however it ended. It cancels what Main left
// open, because it was killed or could not reach the API; what a job asked for that
// was cancelled later on; and what one without waiting asked for that failed.
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
	if len(r.Asks) == 0 {
		s.say("What was asked for is cancelled: there is nothing to cancel.")
		return nil
	}
	// GitHub evaluates the default of an input again for this step, so that it tells
	// how the job ended.
	in := reader{getenv: env.Getenv}
	switch in.text("job-status") {
	case "cancelled":
		r.Open = true
	case "failure":
		r.Open = r.Open || !in.boolean("wait", true)
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
			started, err := api.Start(ctx, r.call(a.N))
			if refused(err) {
				return nil
			}
			if err != nil {
				return err
			}
			a.ID = started.ID
			s.mask(client.NewToken(started.StatusToken.Reveal()))
		}
		if err := s.end(ctx, api, a); err != nil {
			return fmt.Errorf("request %s: %w", a.ID, err)
		}
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		return s.fail(problem{problemOf(first(errs)).code, "Not everything could be cancelled; machines end by themselves at the idle limit. " + err.Error()})
	}
	return s.appendTo("GITHUB_STEP_SUMMARY", "GARO: the job was cut short, and what it asked for is cancelled.\n")
}
