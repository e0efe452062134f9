package action_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/action"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// The largest matrix keeps within what GitHub, Windows and the API take.
func TestLargestMatrixKeepsWithinAllLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, map[string]string{"count": "256", "instance-types": strings.Repeat("m7i-flex.8xlarge,", 300)})
		s.api.takes = 20 * time.Second
		s.api.attempts = 60
		s.api.idPrefix = "0123456789abcdef0123456789abcdef"
		if err := action.Main(t.Context(), s.env()); err != nil {
			t.Fatalf("Main = %v\n%.1000s", err, &s.log)
		}
		for line := range strings.Lines(s.file("GITHUB_STATE")) {
			if len(line) > 32_767 {
				t.Errorf("the state has %d bytes, want what a variable can have on Windows", len(line))
			}
		}
		if n := len(s.file("GITHUB_STEP_SUMMARY")); n > 1<<20 {
			t.Errorf("the summary has %d bytes, want at most 1 MiB", n)
		}
		if !strings.Contains(s.file("GITHUB_STEP_SUMMARY"), "The first 100 of 15360.") {
			t.Error("the summary does not say that it leaves placements out")
		}
		busiest := 0
		for i, at := range s.api.polls {
			n := i
			for n < len(s.api.polls) && s.api.polls[n].Sub(at) < time.Second {
				n++
			}
			busiest = max(busiest, n-i)
		}
		if busiest > 20 {
			t.Errorf("%d status calls within a second, want some 16", busiest)
		}
	})
}

func TestRecordThatIsTooLargeStopsBeforeAnythingIsAsked(t *testing.T) {
	s := newStep(t, map[string]string{"labels": strings.Repeat("x", 40_000)})
	if err := action.Main(t.Context(), s.env()); !errors.Is(err, action.ErrTold) || len(s.api.asked) != 0 || s.file("GITHUB_STATE") != "" {
		t.Errorf("Main = %v after %d requests, want %v before any", err, len(s.api.asked), action.ErrTold)
	}
	s.said("::error title=GARO%3A not_recorded::the inputs make a record of 40", "shorten the lists")
}

// What is not asked for when the job is cancelled, or one is refused, never is.
func TestNothingMoreIsAskedForOnceItIsOver(t *testing.T) {
	for name, cancelled := range map[string]bool{"cancelled": true, "refused": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStep(t, map[string]string{"count": "40"})
				s.api.slow = time.Second
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				want := action.ErrTold
				if cancelled {
					want = action.ErrCancelled
					time.AfterFunc(500*time.Millisecond, cancel)
				} else {
					s.api.refuse["garo/3"] = true
				}
				if err := action.Main(ctx, s.env()); !errors.Is(err, want) {
					t.Errorf("Main = %v, want %v", err, want)
				}
				s.vars["INPUT_JOB-STATUS"] = map[bool]string{true: "cancelled", false: "failure"}[cancelled]
				if err := s.post(t.Context()); err != nil {
					t.Errorf("Post = %v", err)
				}
				s.said("What was asked for is cancelled: there is nothing to cancel.")
				// Eight are asked for at a time; a refusal lets some of the next eight slip in.
				if n := len(s.api.asked); n == 0 || n > 16 || cancelled && n > 8 || len(s.api.stopped) != n {
					t.Errorf("%d were asked for and %d stopped, want what was under way alone, and all of it stopped", n, len(s.api.stopped))
				}
			})
		})
	}
}

func TestJobCancelledBeforeItAskedAsksForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := action.Main(ctx, s.env()); !errors.Is(err, action.ErrCancelled) {
			t.Errorf("Main = %v, want %v", err, action.ErrCancelled)
		}
		if err := s.post(t.Context()); err != nil || len(s.api.asked) != 0 {
			t.Errorf("Post = %v, %d requests; want none", err, len(s.api.asked))
		}
	})
}

// Jobs that follow run after one that failed, if they say so, and may use the
// runner; none runs after one that was cancelled.
func TestJobCancelledAfterItHadItsRunnerEndsIt(t *testing.T) {
	for ended, want := range map[string]int{"success": 0, "failure": 0, "cancelled": 2} {
		t.Run(ended, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStep(t, map[string]string{"count": "2"})
				if err := action.Main(t.Context(), s.env()); err != nil {
					t.Fatal(err)
				}
				s.vars["INPUT_JOB-STATUS"] = ended
				if err := s.post(t.Context()); err != nil || len(s.api.stopped) != want {
					t.Errorf("Post = %v, stopped %q; want %d", err, s.api.stopped, want)
				}
			})
		})
	}
}

func TestStopIsMadeEvenIfItsJobIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, map[string]string{"command": "stop", "id": "a"})
		s.api.asked["a"], s.api.slow = time.Now(), time.Second
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(500*time.Millisecond, cancel)
		if err := action.Main(ctx, s.env()); err != nil || len(s.api.stopped) != 1 {
			t.Errorf("Main = %v, stopped %q; want it stopped", err, s.api.stopped)
		}
	})
}

func TestWaitingThatEndsInAnOutageSaysWhatWasSeenLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, map[string]string{"wait-timeout": "5m"})
		s.api.takes = time.Hour
		time.AfterFunc(time.Minute, func() {
			s.api.mu.Lock()
			defer s.api.mu.Unlock()
			s.api.away = time.Now().Add(time.Hour)
		})
		if err := action.Main(t.Context(), s.env()); !errors.Is(err, action.ErrTold) {
			t.Errorf("Main = %v, want %v", err, action.ErrTold)
		}
		s.said("::error title=GARO%3A wait_timeout::Request garo-1 is still waiting after 5m0s.")
		if got := fmt.Sprint(s.outputs()["state"], " ", s.outputs()["instance-id"]); got != "waiting i-1" {
			t.Errorf("outputs say %q, want what was seen last", got)
		}
	})
}

// attemptsOf returns n tries of a launch.
func attemptsOf(at time.Time, n int) []apitype.Attempt {
	out := make([]apitype.Attempt, n)
	for i := range out {
		out[i] = apitype.Attempt{At: at.Add(time.Second), Market: "spot", InstanceType: "m7i-flex.8xlarge", Subnet: "subnet-0123456789abcdef0", Code: "InsufficientInstanceCapacity"}
	}
	return out
}
