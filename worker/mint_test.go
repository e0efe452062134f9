package worker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestNamesAreNeverUsedTwice(t *testing.T) {
	for name, answer := range map[string]func(n int, name string) (bool, error){
		"taken": func(n int, _ string) (bool, error) {
			return n > 1, map[bool]error{true: &github.Error{Kind: github.ErrNameTaken, Status: 409}}[n == 1]
		},
		"answer lost": func(n int, _ string) (bool, error) {
			return true, map[bool]error{true: &github.Error{Kind: github.ErrUnknown}}[n == 1]
		},
		"not made": func(n int, _ string) (bool, error) {
			return n > 1, map[bool]error{true: &github.Error{Kind: github.ErrUnknown, Status: 502}}[n == 1]
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.github.answer = answer
				r := w.request()
				w.start(r)
				w.follow(2)
				run := w.runnerOf(r.ID)
				if run.Config.N != 2 || len(w.github.calls) != 2 || w.github.calls[0] == w.github.calls[1] {
					t.Errorf("config %d after %v, want the second name", run.Config.N, w.github.calls)
				}
				if got := run.Unused(); len(got) != 1 || got[0].N != 1 {
					t.Errorf("unused names %v, want the first, for the reaper", got)
				}
				if len(w.fleet.byToken) != 1 {
					t.Errorf("%d machines, want 1", len(w.fleet.byToken))
				}
			})
		})
	}
}

func TestGitHubLimitIsWaitedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		until := time.Now().Add(3 * time.Minute)
		w.github.answer = func(n int, _ string) (bool, error) {
			if time.Now().Before(until) {
				return false, &github.Error{Kind: github.ErrLimited, Status: 403, RetryAt: until}
			}
			return true, nil
		}
		r := w.request()
		if failed := w.start(r); failed != 0 {
			t.Errorf("%d messages failed, want none: waiting is not failing", failed)
		}
		run := w.runnerOf(r.ID)
		if run.Wait != store.WaitGitHub || run.Claim.By != "" || len(w.sent) != 1 || w.sent[0].delay < 3*time.Minute-time.Second {
			t.Errorf("runner waits for %q, claim %v, sent %v; want github_limited, no claim and a delayed resume", run.Wait, run.Claim, w.sent)
		}
		w.follow(1)
		if run := w.runnerOf(r.ID); run.Config.N != 1 || len(w.github.calls) != 2 {
			t.Errorf("config %d after %d mints, want config 1: a refused name was never used", run.Config.N, len(w.github.calls))
		}
	})
}

func TestRefusedRegistrationDrainsAndFails(t *testing.T) {
	inWorld(t, func(w *world) {
		w.github.answer = func(int, string) (bool, error) { return false, &github.Error{Kind: github.ErrDenied, Status: 401} }
		r := w.request()
		w.start(r)
		w.state(r, store.Failed)
		got := w.requestNow(r.ID)
		if run := w.runnerOf(r.ID); run.State != store.RunnerDraining || w.lockOf(r).State != store.LockDraining || !w.alarmed(store.AlarmGitHub) {
			t.Errorf("runner %s, lock %s, want both draining, and an alarm", run.State, w.lockOf(r).State)
		}
		if got.Error.Code != store.EndMintDenied || !strings.Contains(got.Error.Text, "credential") {
			t.Errorf("error %v, want registration_refused", got.Error)
		}
	})
}

func TestSharedRunnerRegistersItsLabels(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request(shared, func(r *store.Request) { r.Labels = []string{"gpu", "test1"} })
		w.start(r)
		if want := []string{r.OwnLabel, "spot", "gpu", "test1"}; !slices.Equal(w.github.labels, want) {
			t.Errorf("labels = %v, want %v", w.github.labels, want)
		}
	})
}

func TestNextMintsAFreshConfig(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request(shared)
		w.start(r)
		w.online(r)
		run := w.runnerOf(r.ID)
		m := w.next(r)
		w.handle(m, m)
		w.handle(m)
		got := w.runnerOf(r.ID)
		if got.Config.N != 2 || len(w.github.calls) != 2 || w.github.calls[1] != "garo-test-"+run.ID+"-2" {
			t.Errorf("config %d after mints %v, want config 2 by one more mint", got.Config.N, w.github.calls)
		}
	})
}
