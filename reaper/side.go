package reaper

import (
	"context"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

const (
	// ec2AtOnce is how many calls of EC2 a run makes at once for one account, each for
	// up to a hundred machines: EC2 grants 20 terminations at once for an account and
	// region, and half of that leaves room for people
	// (https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html).
	ec2AtOnce = 8
	// gitHubAtOnce is the same for GitHub, which allows a credential 100 at once, and
	// wants far fewer: 60 deletions, which is what it takes of a credential at once, are
	// three rounds of 0.3 s
	// (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api).
	gitHubAtOnce = 25
	// readsAtOnce is how many reads of a hundred items go out at once. Each answer is
	// up to a megabyte, and several times that while it is decoded.
	readsAtOnce = 16
	// commitsAtOnce is how many commits and batches of messages go out at once: with
	// connections for them kept by package awshttp, a hundred runners take two rounds.
	commitsAtOnce = 64
	// round is how many runners or requests are taken up together: five reads of a
	// hundred, and what is around them fifteen more.
	round = 500
)

// lanes says what may run at once: so many things in each lane.
type lanes struct {
	of    func(i int) string
	width int
}

// accounts are the lanes of calls that account bounds, which are made for an account.
func accounts(width int, of func(i int) string) lanes { return lanes{of, width} }

// common is the one lane of what no account bounds.
func common(width int) lanes { return lanes{func(int) string { return "" }, width} }

// each calls f for every i below n and returns when all calls have: side by side as the
// lanes allow, each lane in order. Once the phase is late no more start, and they are
// counted as left. f reports to the pass that it is given, and these reports are joined
// in order.
func (p *pass) each(ctx context.Context, n int, l lanes, f func(q *pass, i int)) {
	p.leave(p.spread(n, l, func() bool { return isLate(ctx) }, f))
}

// record is each for what has to be written down or sent because something was done:
// it is late for nothing.
func (p *pass) record(n int, f func(q *pass, i int)) {
	p.spread(n, common(commitsAtOnce), func() bool { return false }, f)
}

// spread is each, and returns how many it did not start.
func (p *pass) spread(n int, l lanes, late func() bool, f func(q *pass, i int)) int {
	parts := make([]*pass, n)
	guarded := func(i int) {
		q := &pass{Reaper: p.Reaper, whole: p.whole, report: newReport()}
		parts[i] = q
		defer func() {
			if thrown := recover(); thrown != nil {
				q.panicked("lane", l.of(i), thrown, debug.Stack())
			}
		}()
		f(q, i)
	}
	byLane := map[string][]int{}
	for i := range n {
		byLane[l.of(i)] = append(byLane[l.of(i)], i)
	}
	var wg sync.WaitGroup
	for _, mine := range byLane {
		var next atomic.Int64
		for range min(l.width, len(mine)) {
			wg.Go(func() {
				for !late() {
					i := int(next.Add(1)) - 1
					if i >= len(mine) {
						return
					}
					guarded(mine[i])
				}
			})
		}
	}
	wg.Wait()
	left := 0
	for _, q := range parts {
		if q == nil {
			left++
			continue
		}
		p.join(q)
	}
	return left
}

// join takes over what a part has to tell.
func (p *pass) join(q *pass) {
	p.report.join(q.report)
	p.errs = append(p.errs, q.errs...)
	p.sends = append(p.sends, q.sends...)
	p.overs = append(p.overs, q.overs...)
}
