// Package explore goes through every course of a small part of a world's life.
package explore

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
)

// Scope is a part of a world's life that is small enough to be gone through in
// every possible order.
type Scope struct {
	Name   string
	Config sim.Config
	// Before brings a world to where the scope begins, once nothing is under way any more;
	// nil: it begins with the world.
	Before func(w *sim.World)
	// Calls are what callers do in the scope, each on its own and at any time.
	Calls []func(w *sim.World)
	// Over reports, when nothing is under way, that what was to be seen has been
	// seen. A scope is over in any case when it has lasted for Limit.
	Over  func(w *sim.World) bool
	Limit time.Duration
	// After brings the world to its end: what it leaves must be nothing.
	After func(w *sim.World)

	// How often it may come, at any point of the scope, to: the death of a worker,
	// a run of the reaper or a call of the API between two of its effects; an answer
	// that is lost; a message that comes once more; a run of the reaper; and time
	// that passes until something else happens, while all that is under way stands still.
	Deaths, Losses, Duplicates, Runs, Pauses int
}

// Explored is what it took to go through a scope.
type Explored struct {
	States     int // that differ
	Executions int
	Ends       int // of the states: those in which the scope was over
	Longest    int // how many choices the longest course had
	Wrong      []string
	Course     []string // the choices after which something was wrong
}

func (e Explored) String() string {
	return fmt.Sprintf("%d states, %d of them ends, in %d executions of up to %d choices", e.States, e.Ends, e.Executions, e.Longest)
}

// Explore goes through all courses of a scope: whatever is under way may be the
// next to continue, and whatever the scope allows may come between. It does so depth
// first, in a new world for each course, and goes no further where a course comes
// to a state that another one was in: the records, the queue, EC2, GitHub, and
// what each part has been answered so far. It stops at the first course in which
// something does not hold.
func Explore(t *testing.T, s Scope) Explored {
	t.Helper()
	x := &explorer{scope: s, seen: map[uint64]bool{}}
	for {
		x.once(t)
		x.out.Executions++
		if len(x.out.Wrong) > 0 {
			for _, c := range x.path {
				x.out.Course = append(x.out.Course, c.options[c.taken])
			}
			return x.out
		}
		if t.Failed() || !x.back() {
			return x.out
		}
	}
}

// explorer is where an exploration stands: at the end of a path of choices, each
// among some options.
type explorer struct {
	scope Scope
	path  []choice
	seen  map[uint64]bool
	out   Explored
}

type choice struct {
	options []string
	taken   int
}

// back goes back to the last choice that has an option left, and reports whether
// there is one.
func (x *explorer) back() bool {
	for len(x.path) > 0 {
		last := &x.path[len(x.path)-1]
		if last.taken++; last.taken < len(last.options) {
			return true
		}
		x.path = x.path[:len(x.path)-1]
	}
	return false
}

// once makes one course, from the start of a new world.
func (x *explorer) once(t *testing.T) {
	var mu sync.Mutex
	left := false // the world was left in the middle: how that ends says nothing
	cfg := x.scope.Config
	cfg.Found = func(what string) {
		mu.Lock()
		defer mu.Unlock()
		if !left {
			x.out.Wrong = append(x.out.Wrong, what)
		}
	}
	gate := kernel.NewGate()
	cfg.Gate = gate
	sim.Run(t, cfg, func(w *sim.World) {
		w.Pause(kernel.Reaper) // its runs are choices
		if x.scope.Before != nil {
			x.scope.Before(w)
		}
		// What begins in this instant would pass the gate or not, as it happens; and what is on
		// its way has passed it.
		for synctest.Wait(); w.UnderWay() > 0; synctest.Wait() {
			time.Sleep(time.Millisecond)
		}
		gate.Close()
		ended := x.course(w, gate)
		mu.Lock()
		left = !ended
		mu.Unlock()
		gate.Open()
		if ended {
			w.Resume(kernel.Reaper)
			x.scope.After(w)
			w.Check()
		}
	})
}

// course makes choices until the scope is over, which it reports, or somebody was
// here before.
func (x *explorer) course(w *sim.World, gate *kernel.Gate) (ended bool) {
	c := &course{x: x, w: w, gate: gate, began: time.Now()}
	c.left = budget{x.scope.Deaths, x.scope.Losses, x.scope.Duplicates, x.scope.Runs, x.scope.Pauses}
	for _, call := range x.scope.Calls {
		w.Go(func() { call(w) })
	}
	for depth := 0; ; {
		synctest.Wait()
		if len(x.out.Wrong) > 0 {
			return false
		}
		options := c.options()
		if len(options) == 1 {
			if options[0].do(); !options[0].ends {
				continue
			}
			if ended = c.first(); ended {
				x.out.Ends++
			}
			return ended
		}
		if depth == len(x.path) {
			if !c.first() {
				return false
			}
			names := make([]string, len(options))
			for i, o := range options {
				names[i] = o.name
			}
			x.path = append(x.path, choice{options: names})
		}
		at := &x.path[depth]
		if at.taken >= len(options) || at.options[at.taken] != options[at.taken].name {
			var has []string
			for _, o := range options {
				has = append(has, o.name)
			}
			w.T.Fatalf("one course differs from itself at choice %d: it has %q, and had %q", depth, has, at.options)
		}
		depth++
		x.out.Longest = max(x.out.Longest, depth)
		o := options[at.taken]
		if o.do(); o.ends {
			x.out.Ends++
			return true
		}
	}
}
