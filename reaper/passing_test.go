package reaper_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
)

// A throttle of EC2 or a 502 of GitHub fails the run in which it comes, and is over in
// the next one: nobody is called for it.
func TestFaultThatPassesRaisesNoAlarm(t *testing.T) {
	throttled := &fleet.Error{Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded", Text: "slow down"}
	for name, op := range map[string]string{
		"EC2Get": "get", "EC2List": "list", "EC2Terminate": "terminate", "EC2ByToken": "token",
		"GitHubDelete": "delete", "GitHubList": "list", "GitHubFind": "find",
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.everything()
				var met atomic.Bool
				if name[0] == 'E' {
					w.fleet.fail = func(o string, _ fleet.Place, _ string) error {
						if o == op && !met.Swap(true) {
							return throttled
						}
						return nil
					}
				} else {
					w.hub.fail = func(o string, _ github.Scope, _ int64) error {
						if o == op && !met.Swap(true) {
							return refusal(github.ErrUnknown, 502)
						}
						return nil
					}
				}
				failed := 0
				for range 90 { // rogue runners are looked for once an hour
					if _, err := w.try(); err != nil {
						failed++
					}
					time.Sleep(w.lim.ReaperPeriod)
				}
				if !met.Load() || failed > 1 {
					t.Errorf("%s was met: %t, and %d runs failed, want one at most", op, met.Load(), failed)
				}
				w.wantAlarms()
				if r, err := w.try(); err != nil || r.Counts[reaper.Fail] != 0 {
					t.Errorf("a later run = %v, want no failure\n%s", err, r)
				}
			})
		})
	}
}
