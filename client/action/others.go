package action

import (
	"context"
	"errors"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// status shows where requests stand. That one failed is no failure of the step.
func (s *step) status(ctx context.Context) error {
	api := s.connect(s.in.url)
	results := make([]result, len(s.in.ids))
	errs := each(len(results), atOnce, func(i int) (err error) {
		results[i].status, err = api.Status(ctx, s.in.ids[i])
		return err
	})
	if err := first(errs); err != nil {
		return s.fail(problemOf(err))
	}
	for i := range results {
		st := results[i].status
		results[i].steps = new(client.Story).Next(st)
		var lines []string
		for _, step := range results[i].steps {
			lines = append(lines, stepLine(step))
		}
		s.group("request "+st.ID+" is "+st.State, lines)
	}
	if err := errors.Join(s.finished(results), s.summarise(results)); err != nil {
		return s.fail(problem{"not_recorded", err.Error()})
	}
	return nil
}

// stop ends requests, and the runners that no other request uses.
func (s *step) stop(ctx context.Context) error {
	ctx, cancel := outlast(ctx, lastCall) // a job that is cancelled wants its runner ended all the more
	defer cancel()
	api := s.connect(s.in.url)
	stopped := make([]apitype.Stopped, len(s.in.ids))
	errs := each(len(stopped), atOnce, func(i int) (err error) {
		stopped[i], err = api.Stop(ctx, s.in.ids[i], s.in.force)
		return err
	})
	var ids, states []string
	for i, st := range stopped {
		if errs[i] == nil {
			s.say("request %s is %s; %s", st.ID, st.State, whatOfRunner(st))
			ids, states = append(ids, st.ID), append(states, st.State)
		}
	}
	if err := first(errs); err != nil {
		return s.fail(problemOf(err))
	}
	if err := errors.Join(s.output("id", s.joined(ids)), s.output("state", s.joined(states))); err != nil {
		return s.fail(problem{"not_recorded", err.Error()})
	}
	return nil
}
