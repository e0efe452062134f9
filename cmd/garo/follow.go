package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

// follow prints each step of a request and of its runner as it comes, until both are over.
// A request that ended without a runner is a *client.NotReadyError.
func follow(ctx context.Context, w io.Writer, cl *client.Client, id string) error {
	var story client.Story
	for {
		s, err := cl.Status(ctx, id)
		switch {
		case ctx.Err() != nil:
			return errInterrupted
		case errors.Is(err, client.ErrNoAnswer), errors.Is(err, client.ErrUnavailable):
			return fmt.Errorf("%w: when the API is back, continue with garo status %s --follow", err, id)
		case err != nil:
			return toldOf(err)
		}
		for _, step := range story.Next(s) {
			if _, err := fmt.Fprintln(w, stepLine(step)); err != nil {
				return err
			}
		}
		switch {
		case client.Final(s.State) && s.State != apitype.Ready:
			return &client.NotReadyError{Status: s}
		case s.State == apitype.Ready && (s.Runner == nil || over(*s.Runner)):
			return nil
		}
		if sleep.For(ctx, watchEvery) != nil {
			return errInterrupted
		}
	}
}

func over(r apitype.Runner) bool {
	return r.State == apitype.RunnerEnded || r.State == apitype.RunnerFailed
}

// stepLine is a step of a request, as wait and follow print it.
func stepLine(step client.Step) string {
	return strings.TrimRight(fmt.Sprintf("%7.1fs  %-8s %-10s %s", step.Since.Seconds(), step.Who, step.State, step.Reason), " ")
}
