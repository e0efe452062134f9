package reaper_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// A machine that does not boot says on its console why.
func TestErrorOfAMachineThatDoesNotBootHasItsConsole(t *testing.T) {
	refused := &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "You are not authorized to perform this operation."}
	for name, c := range map[string]struct {
		printed string
		err     error
		want    string
	}{
		"Printed":   {"Linux boots\nKernel panic\n", nil, "Its console ends with: Linux boots | Kernel panic"},
		"Silent":    {"", nil, "Its console shows nothing."},
		"Refused":   {"", refused, "Its console could not be read: UnauthorizedOperation: You are not authorized to perform this operation."},
		"Throttled": {"", &fleet.Error{Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded", Text: "Request limit exceeded."}, "Its console could not be read: RequestLimitExceeded: Request limit exceeded."},
		"Unheard":   {"", context.DeadlineExceeded, "Its console could not be read: context deadline exceeded."},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				run := w.launch(w.begin(w.accept("r", func(q *store.Request) { q.Tries = 2 })))
				w.fleet.printed[run.InstanceID] = c.printed
				w.fleet.fail = func(op string, _ fleet.Place, _ string) error {
					if op == "console" {
						return c.err
					}
					return nil
				}
				time.Sleep(5*time.Minute + time.Second)
				w.run() // no error of the run
				if why := w.runner(run.ID).End; why == nil || why.Code != store.EndNoBoot || !strings.HasSuffix(why.Text, " "+c.want) {
					t.Errorf("the runner ended for %+v, want %s and %q", why, store.EndNoBoot, c.want)
				}
				w.minutes(1)
				if got := w.fleet.running(); got != 0 {
					t.Errorf("%d machines run, want none", got)
				}
				if n := w.fleet.count("console"); n != 1 {
					t.Errorf("%d consoles were read, want 1", n)
				}
			})
		})
	}
}

// What EC2 does not say of consoles keeps no machine from its end, and many machines that do
// not boot cost few calls.
func TestConsolesAreFewAndHoldNothingUp(t *testing.T) {
	inWorld(t, func(w *world) {
		var runs []store.Runner
		for n := range 30 {
			runs = append(runs, w.launch(w.begin(w.accept("boot"+string(rune('a'+n/26))+string(rune('a'+n%26))))))
		}
		w.fleet.fail = func(op string, at fleet.Place, _ string) error {
			if op == "console" {
				return fmt.Errorf("no answer from %s", at)
			}
			return nil
		}
		time.Sleep(5*time.Minute + time.Second)
		w.run()
		unread := 0
		for _, run := range runs {
			got := w.runner(run.ID)
			if got.End == nil || got.End.Code != store.EndNoBoot || !strings.Contains(got.End.Text, " Its console ") {
				t.Errorf("runner %s is %s (%+v), want %s and a word of its console", run.ID, got.State, got.End, store.EndNoBoot)
			}
			if strings.HasSuffix(got.End.Text, "Its console was not read.") {
				unread++
			}
		}
		if n := w.fleet.count("console"); n == 0 || n > 10 || unread != 10 {
			t.Errorf("%d consoles were asked for and %d left out; want few of 20, since EC2 does not answer, and 10", n, unread)
		}
		if got := w.fleet.running(); got != 0 {
			t.Errorf("%d machines run, want none: each was terminated in that run", got)
		}
	})
}
