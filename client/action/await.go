package action

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

// errWaited ends the waiting for a runner.
var errWaited = errors.New("waited long enough")

// await shows what happens until all runners are ready, or one never will be.
func (s *step) await(ctx context.Context, api *client.Client, asks []ask) error {
	waiting, cancel := context.WithTimeoutCause(ctx, s.in.give+slack, errWaited)
	defer cancel()
	results := make([]result, len(asks))
	pause := time.Duration(len(asks)) * time.Second / pollsASecond
	errs := each(len(asks), len(asks), func(i int) error {
		// They take turns, all within one pause.
		if err := sleep.For(waiting, pause*time.Duration(i)/time.Duration(len(asks))); err != nil {
			return err
		}
		err := s.follow(waiting, api.WithToken(asks[i].token).WithPause(pause), asks[i].ID, i, &results[i])
		if err == nil && results[i].status.State != ready {
			cancel() // nobody can use the others
		}
		return err
	})
	if err := errors.Join(s.finished(results), s.summarise(results)); err != nil {
		s.say("not all could be written: %v", err) // the outputs of the start are there
	}
	var failed *problem
	for i, r := range results {
		if client.Final(r.status.State) && r.status.State != ready {
			p := notReady(r.status)
			failed = &p
			break
		}
		if err := errs[i]; err != nil && failed == nil && !errors.Is(err, context.Canceled) {
			p := problemOf(err)
			if errors.Is(err, errWaited) {
				p = problem{"wait_timeout", fmt.Sprintf("Request %s is still %s after %s.", asks[i].ID, cmp.Or(r.status.State, "not known"), s.in.give)}
			}
			failed = &p
		}
	}
	switch {
	case ctx.Err() != nil:
		return s.cancelled(ctx, api, asks, nil)
	case failed != nil:
		s.abandon(ctx, api, asks, nil)
		return s.fail(*failed)
	}
	for i, r := range results {
		s.say("%s is ready after %s: %s", s.name(i, "request "+r.status.ID), took(r.status), machine(r.status))
	}
	return s.done(asks)
}

// ready is the state of a request that has its runner.
const ready = "ready"

// follow waits for one request, and rides out an API that is away. r has what was
// seen last, however it ends.
func (s *step) follow(ctx context.Context, api *client.Client, id string, i int, r *result) error {
	var story client.Story
	for {
		st, err := api.Wait(ctx, id, func(st apitype.Status) {
			for _, step := range story.Next(st) {
				r.steps = append(r.steps, step)
				s.say("%s", s.name(i, stepLine(step)))
			}
		})
		if st.ID != "" {
			r.status = st
		}
		e, answered := errors.AsType[*client.Error](err)
		away := errors.Is(err, client.ErrNoAnswer) || answered && e.Retryable()
		_, ended := errors.AsType[*client.NotReadyError](err) // its status says why
		switch {
		case err == nil || ended:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !away:
			return err
		}
		s.say("          the API does not answer, and is asked again: %v", err)
		if err := sleep.For(ctx, askAgain); err != nil {
			return err
		}
	}
}
