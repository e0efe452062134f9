package reaper

import (
	"context"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// margin is how long before its deadline a run starts nothing new: what is
	// under way then can still be answered and recorded.
	margin = 5 * time.Second
	// recording is what a call leaves of the run, to record what it answered.
	recording = 2 * time.Second
	// laps is how often each phase gets a turn: in the first one it has its share and
	// what those before it left over, and in the second one what all of them did.
	laps = 2
)

// todo is what a run has still to do. Each phase takes from it what it has begun.
type todo struct {
	runners []store.Ref
	sweeps  bool        // that they were looked for
	listed  []store.Ref // sweeps that the index lists
	due     []*sweep
	swept   []fleet.Place // of registered accounts

	asked    []store.Case    // of which GitHub is to be asked whether they are online
	requests []store.Ref     // not read yet
	reviews  []store.Case    // read, and in the order in which they are reviewed
	naming   []*store.Runner // with names at GitHub that nothing needs any more
}

// phase is a part of a run that has time of its own.
type phase struct {
	name string
	// share is how many hundredths of a run's time those before it leave to it. It need
	// not take them.
	share int
	left  func() int // how many things it has still to do
	do    func(context.Context)
}

// phases does all phases in their order. Those that end machines come first: what lives
// on costs money, and may be somebody else's by now. A request that waits a minute
// longer is late, and no more.
func (p *pass) phases(ctx context.Context) {
	t := &p.todo
	all := []phase{
		// Half of a run of 45 s ends 10,000 idle runners of one account, of which GitHub
		// lets us deregister 180 a minute: see docs/performance.md.
		{"ends", 45, func() int { return len(t.runners) }, p.runners},
		// Four calls for each account, side by side.
		{"confirm", 10, func() int { return len(t.asked) }, atGitHub{p}.confirm},
		// A list of 20 s would be cut, and that of 5,000 machines takes two.
		{"sweeps", 15, func() int { return len(t.due) + one(!t.sweeps) }, atEC2{p}.sweeps},
		// What 3,400 requests take: 10,000 are sent again in three runs.
		{"requests", 20, func() int { return len(t.requests) + len(t.reviews) }, p.requests},
		// Nothing waits for it.
		{"names", 10, func() int { return len(t.naming) }, atGitHub{p}.names},
	}
	began := time.Now()
	for range laps {
		reserved := 0
		for _, ph := range all {
			if ph.left() > 0 {
				reserved += ph.share
			}
		}
		for _, ph := range all {
			if ph.left() == 0 {
				continue
			}
			reserved -= min(reserved, ph.share)
			p.phase = ph.name
			inner, cancel := within(ctx, began, reserved)
			p.guard("phase", ph.name, func() { ph.do(inner) })
			cancel()
		}
	}
	for _, ph := range all {
		p.phase = ph.name
		p.leave(ph.left())
	}
}

// within returns ctx with a deadline that leaves so many hundredths of the run's time to
// what comes after.
func within(ctx context.Context, began time.Time, hundredths int) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	usable := max(0, end.Add(-margin).Sub(began))
	return context.WithDeadline(ctx, end.Add(-usable*time.Duration(hundredths)/100))
}

// isLate reports whether a phase may start nothing new any more.
func isLate(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && time.Until(end) < margin
}

// leave counts things that the run's time was too short for.
func (p *pass) leave(n int) {
	if n > 0 {
		p.report.Left[p.phase] += n
	}
}

// take takes up to n things from the front of a list.
func take[T any](from *[]T, n int) []T {
	n = min(n, len(*from))
	taken := (*from)[:n:n]
	*from = (*from)[n:]
	return taken
}

// one is 1 if there is something to do.
func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
