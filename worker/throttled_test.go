package worker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// TestThrottledLaunchesAreAnAlarmWithThePacing has EC2 refuse launches, one in so many.
func TestThrottledLaunchesAreAnAlarmWithThePacing(t *testing.T) {
	for _, c := range []struct {
		name  string
		oneIn int // call is refused
		calls int
		apart time.Duration
		want  bool
	}{
		{"OneInFour", 4, 40, 3 * time.Second, true},
		{"OneInTen", 10, 200, 2 * time.Second, false},
		{"AFewOfFew", 2, 8, 3 * time.Second, false},
		{"OverAnHour", 2, 40, 2 * time.Minute, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				account := w.accounts[account]
				account.Pacing, account.MaxRunners = store.Pacing{Burst: 20, IntervalMS: 200}, 1000
				w.accounts[account.ID] = account
				w.fleet.answer = func(n int, _ fleet.Launch, _ func()) error {
					if n%c.oneIn == 0 {
						return &fleet.Error{Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded", Text: "Request limit exceeded."}
					}
					return nil
				}
				wk := worker.New(w.config)
				for range c.calls {
					w.handleBy(wk, queue.StartOf(w.request()))
					time.Sleep(c.apart)
				}
				if got := w.alarmed(store.AlarmThrottled); got != c.want {
					t.Fatalf("alarm: %v, want %v", got, c.want)
				}
				log := w.log.String()
				if n := strings.Count(log, "alarm=launch_throttled"); c.want && n != 1 {
					t.Errorf("%d alarms, want one in six hours", n)
				}
				for _, word := range []string{"region=" + region, "pacing_burst=20", "pacing_per_second=5", "refused=5", "of=20"} {
					if c.want && !strings.Contains(log, word) {
						t.Errorf("the alarm does not say %s", word)
					}
				}
			})
		})
	}
}
