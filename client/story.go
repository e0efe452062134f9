package client

import (
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// Step is one line of what happened to a request and its runner.
type Step struct {
	At     time.Time
	Since  time.Duration // since the request was made
	Who    string        // "request" or "runner"
	State  string
	Reason string // empty: the state says it all
}

// Story tells each step of one request once. The zero value has told nothing.
// It is not safe for concurrent use.
type Story struct {
	told map[Step]bool
}

// Next returns the steps that s tells of and none before it did, in the order of
// time: the histories of request and runner run side by side.
func (t *Story) Next(s apitype.Status) []Step {
	var out []Step
	add := func(who string, e apitype.Entry) {
		step := Step{e.At, e.At.Sub(s.CreatedAt), who, e.State, e.Reason}
		if t.told == nil {
			t.told = map[Step]bool{}
		}
		if !t.told[step] {
			t.told[step] = true
			out = append(out, step)
		}
	}
	req, run := s.History, []apitype.Entry(nil)
	if s.Runner != nil {
		run = s.Runner.History
	}
	for len(req) > 0 || len(run) > 0 {
		if len(run) == 0 || len(req) > 0 && !run[0].At.Before(req[0].At) {
			add("request", req[0])
			req = req[1:]
			continue
		}
		add("runner", run[0])
		run = run[1:]
	}
	return out
}
