package worker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// liveShared is a world with a shared runner that GitHub confirmed just now.
func liveShared(t *testing.T, f func(w *world, first store.Request)) {
	t.Helper()
	inWorld(t, func(w *world) {
		first := w.request(shared)
		w.start(first)
		w.online(first)
		f(w, first)
	})
}

// alive lets time pass on a machine that keeps saying that it lives.
func (w *world) alive(r store.Request, d time.Duration) {
	w.Helper()
	time.Sleep(d)
	w.says(r, store.EventHeartbeat)
}

func TestShareWithinTwoMinutesAsksNobody(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		w.alive(first, 2*time.Minute)
		late := w.request(shared)
		if got, want := w.calls(func() { w.start(late) }), "1 gets, 1 commits, 0 looks"; got != want {
			t.Errorf("a share took %s, want %s", got, want)
		}
		w.state(late, store.Ready)
	})
}

func TestStaleShareAsksOnceAndIsReadyInThatCommit(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		w.alive(first, 2*time.Minute+1)
		was := w.runnerOf(first.ID)
		var late []store.Request
		for range 10 {
			late = append(late, w.request(shared))
		}
		if got, want := w.calls(func() { w.start(late...) }), "2 gets, 1 commits, 1 looks"; got != want {
			t.Errorf("ten shares took %s, want %s", got, want)
		}
		for _, r := range late {
			w.state(r, store.Ready)
		}
		lock := w.lockOf(first)
		if !lock.ConfirmedAt.Equal(time.Now()) || lock.Writer != w.requestNow(late[9].ID).Writer || w.runnerOf(first.ID).Version != was.Version {
			t.Errorf("confirmed at %v; want now, in the commit of the share, and the runner as it was", lock.ConfirmedAt)
		}
		again := w.request(shared)
		if got, want := w.calls(func() { w.start(again) }), "1 gets, 1 commits, 0 looks"; got != want {
			t.Errorf("the next share took %s, want %s", got, want)
		}
	})
}

func TestShareThatLosesItsCommitAsksNoSecondTime(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		w.alive(first, 3*time.Minute)
		late := w.request(shared)
		w.store.before = func(op string) error {
			if op == "commit" {
				w.store.before = nil
				lock := w.lockOf(first)
				w.commit(&lock) // somebody else wrote it
			}
			return nil
		}
		w.start(late)
		w.state(late, store.Ready)
		if got := len(w.github.looks); got != 2 { // one when it went online
			t.Errorf("%d questions, want one for the share", got-1)
		}
	})
}

func TestRegistrationThatGitHubForgotIsSharedByNobodyAndReplaced(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		w.github.forgotten[1] = true
		w.alive(first, 2*time.Minute+1)
		late := w.request(shared)
		w.start(late)
		if got := w.requestNow(late.ID); got.State != store.Accepted || got.Wait != store.WaitRunner {
			t.Fatalf("request is %s waiting for %q, want accepted, waiting for its runner", got.State, got.Wait)
		}
		for missed := time.Now(); time.Since(missed) < w.limits.Silent; {
			if run := w.runnerOf(first.ID); run.State != store.RunnerOnline {
				t.Fatalf("runner is %s %v after it was missed: its machine may be about to say that its job is done", run.State, time.Since(missed))
			}
			w.says(first, store.EventHeartbeat)
			w.follow(1)
		}
		run := w.runnerOf(first.ID)
		if run.State != store.RunnerDraining || run.End.Code != store.EndUnlisted {
			t.Errorf("runner is %s %v, want draining, registration_lost", run.State, run.End)
		}
		w.state(late, store.Waiting)
		if next := w.runnerOf(late.ID); next.ID == run.ID || len(w.fleet.byToken) != 2 {
			t.Errorf("request has runner %s of %d machines, want a second one", next.ID, len(w.fleet.byToken))
		}
	})
}

func TestRunnerThatGitHubShowsOfflineIsSharedByNobody(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		w.github.shown[1] = false
		w.alive(first, 2*time.Minute+1)
		late := w.request(shared)
		w.start(late)
		for begin := time.Now(); time.Since(begin) < w.limits.Lost-w.limits.SettleSlack-w.limits.PollResend; {
			if got := w.requestNow(late.ID); got.State != store.Accepted || w.runnerOf(first.ID).State != store.RunnerOnline {
				t.Fatalf("after %v the request is %s and the runner %s; want accepted and online", time.Since(begin), got.State, w.runnerOf(first.ID).State)
			}
			w.says(first, store.EventHeartbeat)
			w.follow(1)
		}
		w.says(first, store.EventHeartbeat)
		w.follow(2)
		if run := w.runnerOf(first.ID); run.State != store.RunnerDraining || run.End.Code != store.EndOffline {
			t.Errorf("runner is %s %v, want draining, offline_at_github", run.State, run.End)
		}
		w.state(late, store.Waiting)
	})
}

func TestRunnerThatIsBackOnlineIsShared(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		w.github.shown[1] = false
		w.alive(first, 2*time.Minute+1)
		late := w.request(shared)
		w.start(late)
		w.github.shown[1] = true
		w.follow(1)
		w.state(late, store.Ready)
		if run := w.runnerOf(first.ID); !run.MissedAt.IsZero() {
			t.Errorf("missed at %v, want no more", run.MissedAt)
		}
	})
}

func TestNobodySharesWhileGitHubIsAway(t *testing.T) {
	for name, err := range map[string]error{
		"silent": errLost, "broken": &github.Error{Kind: github.ErrUnknown, Status: 502}, "refusing": &github.Error{Kind: github.ErrDenied, Status: 401},
	} {
		t.Run(name, func(t *testing.T) {
			liveShared(t, func(w *world, first store.Request) {
				w.alive(first, 2*time.Minute+1)
				w.github.down = err
				late := w.request(shared)
				if failed := w.start(late); failed != 0 {
					t.Errorf("%d messages failed, want none: waiting is not failing", failed)
				}
				got := w.requestNow(late.ID)
				if got.State != store.Accepted || got.Wait != store.WaitGitHubDown || time.Until(got.DueAt) < 30*time.Second || len(w.sent) != 1 {
					t.Errorf("request is %s waiting for %q in %v, sent %v; want accepted, waiting for GitHub for half a minute", got.State, got.Wait, time.Until(got.DueAt), w.sent)
				}
				if run := w.runnerOf(first.ID); run.State != store.RunnerOnline || !run.MissedAt.IsZero() {
					t.Errorf("runner is %s, missed at %v; want it left alone", run.State, run.MissedAt)
				}
				w.github.down = nil
				w.alive(first, 0)
				w.follow(1)
				w.state(late, store.Ready)
			})
		})
	}
}

// A limit may last for hours: the reaper may learn meanwhile whether the runner is online.
func TestLimitOfGitHubIsWaitedForAMinuteAtMostBeforeAShare(t *testing.T) {
	for name, c := range map[string]struct{ limit, wait time.Duration }{
		"AsLongAsAnyWait": {30 * time.Second, 30 * time.Second},
		"Longer":          {30*time.Second + 1, time.Minute},
		"MuchLonger":      {4 * time.Hour, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			liveShared(t, func(w *world, first store.Request) {
				w.alive(first, 2*time.Minute+1)
				w.github.down = &github.Error{Kind: github.ErrLimited, Status: 403, RetryAt: time.Now().Add(c.limit)}
				late := w.request(shared)
				w.start(late)
				// Those who wait for one thing come within five seconds of each other.
				got := w.requestNow(late.ID)
				if wait := time.Until(got.DueAt); got.Wait != store.WaitGitHub || wait < c.wait || wait > c.wait+w.limits.PollResend {
					t.Errorf("request waits for %q for %v, want GitHub for %v", got.Wait, wait, c.wait)
				}
				d, _ := w.caseOf(first).Confirm(time.Now(), w.limits, store.Registration{Online: true})
				w.apply(d) // the reaper's word
				for time.Now().Before(got.DueAt) {
					w.alive(first, w.limits.Heartbeat)
				}
				w.handle(queue.StartOf(late))
				w.state(late, store.Ready)
			})
		})
	}
}

// GitHub may show a runner online that gets no job: its one job went to another.
func TestRunnerToWhichNoJobComesIsSharedForTenMinutes(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		share := func() store.Request {
			late := w.request(shared)
			w.start(late)
			return late
		}
		w.state(share(), store.Ready)
		if lock := w.lockOf(first); lock.Busy || !lock.CountedOn.Equal(time.Now()) {
			t.Fatalf("busy %v, counted on since %v; want it counted on since now", lock.Busy, lock.CountedOn)
		}
		for range 20 {
			w.alive(first, 30*time.Second)
		}
		late := share()
		w.state(late, store.Ready)
		if run := w.runnerOf(first.ID); run.State != store.RunnerOnline || w.requestNow(late.ID).Runner != run.ID {
			t.Errorf("after ten minutes the runner is %s, want it shared", run.State)
		}
		w.alive(first, 1)
		late = share()
		w.state(late, store.Waiting)
		if run := w.runnerOf(first.ID); run.State != store.RunnerDraining || run.End.Code != store.EndHandover || w.requestNow(late.ID).Runner == run.ID {
			t.Errorf("after more than that the runner is %s %v, want it replaced", run.State, run.End)
		}
	})
}

func TestRunnerThatHasAJobIsSharedForAsLongAsItHasIt(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		w.state(first, store.Ready)
		late := w.request(shared)
		w.start(late)
		w.says(first, store.EventJobStarted)
		for range 60 {
			w.alive(first, 30*time.Second)
		}
		late = w.request(shared)
		w.start(late)
		w.state(late, store.Ready)
		if lock := w.lockOf(first); !lock.Busy || !lock.CountedOn.IsZero() {
			t.Errorf("busy %v, counted on since %v; want busy, and that nobody counts", lock.Busy, lock.CountedOn)
		}
	})
}

func TestTwoHundredHeldRequestsCostAQuestionInFiveSeconds(t *testing.T) {
	for name, down := range map[string]error{"offline": nil, "away": errLost} {
		t.Run(name, func(t *testing.T) {
			liveShared(t, func(w *world, first store.Request) {
				w.config.Limits.Lost = time.Hour // it neither drains nor is lost meanwhile
				w.config.Limits.Silent = time.Hour
				w.alive(first, 2*time.Minute+1)
				w.github.shown[1], w.github.down = false, down
				wk, begin, before := worker.New(w.config), time.Now(), len(w.github.looks)
				var all []store.Request
				for range 200 {
					r := w.request(shared)
					all = append(all, r)
					w.handleBy(wk, queue.StartOf(r))
				}
				for time.Since(begin) < time.Minute {
					w.followBy(wk, 1)
				}
				asked := len(w.github.looks) - before
				if most := 1 + int(time.Since(begin)/w.limits.PollResend); asked < 2 || asked > most {
					t.Errorf("%d questions in %v, want 2 to %d", asked, time.Since(begin), most)
				}
				for _, r := range all {
					w.state(r, store.Accepted)
				}
			})
		})
	}
}

func TestRunnerBetweenTwoConfigsIsSharedByNobody(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		w.job(first)
		late := w.request(shared)
		hold := func(when string) {
			t.Helper()
			looks := len(w.github.looks)
			if got := w.requestNow(late.ID); got.State != store.Accepted || got.Wait != store.WaitRunner || len(w.github.looks) != looks {
				t.Fatalf("%s the request is %s waiting for %q after %d questions; want accepted, waiting for its runner, and none", when, got.State, got.Wait, len(w.github.looks)-looks)
			}
		}
		w.start(late)
		hold("after the job")

		next := w.next(first)
		w.github.answer = func(int, string) (bool, error) { return false, &github.Error{Kind: github.ErrUnknown, Status: 502} }
		w.handle(next)
		for range 20 { // minting is down
			w.follow(1)
			w.says(first, store.EventHeartbeat)
			hold("while minting is down,")
		}

		w.github.answer = nil
		for w.runnerOf(first.ID).Config.N == 1 {
			w.follow(1)
			w.says(first, store.EventHeartbeat)
		}
		w.says(first, store.EventOnline)
		w.github.shown[w.runnerOf(first.ID).Config.RunnerID] = true
		w.handle(resumeOf(w.runnerOf(first.ID)))
		for w.requestNow(late.ID).State == store.Accepted {
			w.says(first, store.EventHeartbeat)
			w.follow(1)
		}
		w.state(late, store.Ready)
		if got := w.requestNow(late.ID); got.Runner != w.runnerOf(first.ID).ID {
			t.Errorf("request has runner %s, want the first one", got.Runner)
		}
	})
}

// A deploy happens under live runners: what the version before this one wrote.
func TestRunnerThatTheOldVersionTookIntoUseIsSharedAfterOneQuestion(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		run, lock := w.runnerOf(first.ID), w.lockOf(first)
		run.ListeningAt, lock.ConfirmedAt = time.Time{}, time.Time{}
		w.commit(&run, &lock)
		if got, want := w.calls(func() { w.handle(resumeOf(run)) }), "2 gets, 0 commits, 0 looks"; got != want {
			t.Errorf("a resume took %s, want %s: there is nothing to do", got, want)
		}
		late := w.request(shared)
		if got, want := w.calls(func() { w.start(late) }), "2 gets, 1 commits, 1 looks"; got != want {
			t.Errorf("a share took %s, want %s", got, want)
		}
		w.state(late, store.Ready)
	})
}

// Who waits for a machine that does not boot reads why from its console.
func TestMachineThatDoesNotBootDrainsWithItsConsole(t *testing.T) {
	for name, c := range map[string]struct {
		console func(string) (string, error)
		want    string
	}{
		"Printed": {func(id string) (string, error) { return id + " panics\n", nil }, "Its console ends with: i-1 panics"},
		"Refused": {func(string) (string, error) {
			return "", &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "You are not authorized."}
		}, "Its console could not be read: UnauthorizedOperation: You are not authorized."},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				first := w.request(shared)
				w.start(first)
				w.fleet.console = c.console
				time.Sleep(time.Until(w.lockOf(first).BootBy))
				w.start(w.request(shared))
				if why := w.runnerOf(first.ID).End; why == nil || why.Code != store.EndNoBoot || !strings.HasSuffix(why.Text, " "+c.want) {
					t.Errorf("the runner drains for %+v, want %s with %q", why, store.EndNoBoot, c.want)
				}
			})
		})
	}
}
