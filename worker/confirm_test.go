package worker_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

func TestConfirmedRunnerAndItsRequestAreReadyInOneCommit(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.start(r)
		m := w.listening(r)
		w.state(r, store.Waiting)
		if run, lock := w.runnerOf(r.ID), w.lockOf(r); run.State != store.RunnerBooting || !run.OnlineAt.IsZero() || lock.State != store.LockLaunching {
			t.Fatalf("on the machine's word alone, the runner is %s, online at %v, and the lock %s; want booting, never and launching", run.State, run.OnlineAt, lock.State)
		}
		time.Sleep(time.Second)
		w.github.shown[w.runnerOf(r.ID).Config.RunnerID] = true
		// The runner and what is around it are two reads.
		if got, want := w.calls(func() { w.handle(m) }), "2 gets, 1 commits, 1 looks"; got != want {
			t.Errorf("a confirmation took %s, want %s", got, want)
		}
		w.state(r, store.Ready)
		run, lock, req := w.runnerOf(r.ID), w.lockOf(r), w.requestNow(r.ID)
		if run.State != store.RunnerOnline || !run.OnlineAt.Equal(time.Now()) || !run.ListeningAt.Equal(time.Now().Add(-time.Second)) {
			t.Errorf("runner is %s, listening at %v, online at %v; want online now, listening a second ago", run.State, run.ListeningAt, run.OnlineAt)
		}
		if lock.State != store.LockLive || !lock.ConfirmedAt.Equal(run.OnlineAt) || !req.ReadyAt.Equal(run.OnlineAt) {
			t.Errorf("lock is %s, confirmed at %v, request ready at %v; want all of it now", lock.State, lock.ConfirmedAt, req.ReadyAt)
		}
		if len(w.sent) != 0 || run.Writer != lock.Writer || run.Writer != req.Writer {
			t.Errorf("sent %v; written by %s, %s and %s; want nothing, and one commit", w.sent, run.Writer, lock.Writer, req.Writer)
		}
		if got, want := w.calls(func() { w.handle(m, m) }), "4 gets, 0 commits, 0 looks"; got != want {
			t.Errorf("the same message twice more took %s, want %s", got, want)
		}
	})
}

func TestRunnerThatGitHubShowsLateIsAskedAboutLessAndLess(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.start(r)
		m, begin := w.listening(r), time.Now()
		w.handle(m)
		w.state(r, store.Waiting)
		for time.Since(begin) < time.Minute {
			w.follow(1)
		}
		w.github.shown[w.runnerOf(r.ID).Config.RunnerID] = true
		commits := w.store.commits
		w.follow(1)
		w.state(r, store.Ready)
		if got := w.requestNow(r.ID); !got.ReadyAt.Equal(w.runnerOf(r.ID).OnlineAt) || w.store.commits-commits != 1 || len(w.sent) != 0 {
			t.Errorf("ready at %v by %d commits, sent %v; want it when online, by one, and nothing", got.ReadyAt, w.store.commits-commits, w.sent)
		}
		if !w.runnerOf(r.ID).MissedAt.IsZero() {
			t.Error("a runner that GitHub shows is still missed")
		}
		var pauses []time.Duration
		for i := 1; i < len(w.github.looks); i++ {
			pauses = append(pauses, w.github.looks[i].Sub(w.github.looks[i-1]))
			if last := len(pauses) - 1; pauses[last] < w.limits.ConfirmAgain || pauses[last] > w.limits.Heartbeat || last > 0 && pauses[last] < pauses[last-1] {
				t.Errorf("pauses %v, want them from 2 s to 20 s, each no shorter than the last", pauses)
			}
		}
		if len(w.github.looks) > 12 {
			t.Errorf("%d questions in little more than a minute, want at most 12", len(w.github.looks))
		}
	})
}

func TestGitHubThatIsAwayIsAskedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		wait time.Duration // the least
	}{
		"silent":  {errLost, 2 * time.Second},
		"broken":  {&github.Error{Kind: github.ErrUnknown, Status: 502}, 2 * time.Second},
		"limited": {&github.Error{Kind: github.ErrLimited, Status: 403, RetryAt: time.Date(2000, 1, 1, 0, 5, 0, 0, time.UTC)}, 3 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				r := w.request()
				w.start(r)
				m := w.listening(r)
				w.github.down = c.err
				if failed := w.handle(m); failed != 0 {
					t.Errorf("%d messages failed, want none: waiting is not failing", failed)
				}
				if len(w.sent) != 1 || w.sent[0].Message != m || w.sent[0].delay < c.wait {
					t.Fatalf("sent %v, want the message again, in %v or later", w.sent, c.wait)
				}
				if run := w.runnerOf(r.ID); !run.MissedAt.IsZero() || run.State != store.RunnerBooting {
					t.Errorf("runner is %s, missed at %v; want nothing learnt", run.State, run.MissedAt)
				}
				w.github.down, w.github.shown[1] = nil, true
				w.follow(1)
				w.state(r, store.Ready)
			})
		})
	}
}

func TestJobMakesItsRequestReadyThoughGitHubIsAway(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.start(r)
		m := w.listening(r)
		time.Sleep(time.Second)
		if heard := w.says(r, store.EventJobStarted); !heard.Confirm {
			t.Fatal("the job sends no message")
		}
		w.github.down = errLost
		w.handle(m)
		w.state(r, store.Ready)
		if run, lock := w.runnerOf(r.ID), w.lockOf(r); run.State != store.RunnerBusy || lock.State != store.LockLive || !lock.ConfirmedAt.IsZero() {
			t.Errorf("runner %s, lock %s, confirmed at %v; want busy, live and not confirmed", run.State, lock.State, lock.ConfirmedAt)
		}
		w.github.down, w.github.shown[1] = nil, true
		w.follow(10)
		if lock := w.lockOf(r); lock.ConfirmedAt.IsZero() || len(w.sent) != 0 {
			t.Errorf("confirmed at %v, sent %v; want it confirmed, and nothing", lock.ConfirmedAt, w.sent)
		}
	})
}

func TestRegistrationThatGitHubDoesNotHaveTwiceDrainsItsRunner(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.start(r)
		m := w.listening(r)
		w.github.forgotten[1] = true
		w.handle(m)
		if run := w.runnerOf(r.ID); run.State != store.RunnerBooting || !run.MissedAt.Equal(time.Now()) {
			t.Fatalf("after one 404 the runner is %s, missed at %v; want booting, now", run.State, run.MissedAt)
		}
		w.follow(100)
		run := w.runnerOf(r.ID)
		if run.State != store.RunnerDraining || run.End.Code != store.EndUnlisted || w.lockOf(r).State != store.LockDraining {
			t.Fatalf("runner %s %v, lock %s; want both draining, registration_lost", run.State, run.End, w.lockOf(r).State)
		}
		if waited := run.DrainingAt.Sub(run.MissedAt); waited < w.limits.Silent || waited > w.limits.Silent+w.limits.Heartbeat {
			t.Errorf("it drains %v after it was missed, want three quarters of a minute and a little", waited)
		}
		// The reaper's DELETE says 404 too.
		got, _, again := store.Settle(time.Now(), w.limits, w.requestNow(r.ID), run.Deregistered(time.Now()))
		if got.State != store.Accepted || !again || got.Tries != 1 {
			t.Errorf("request is %s after %d tries, want accepted again after one", got.State, got.Tries)
		}
	})
}

// A decision that lost its commit counts for nothing: here, somebody else finds the
// runner online between the second 404 and the commit of the drain.
func TestDecisionToDrainThatLosesItsCommitIsForgotten(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.start(r)
		m := w.listening(r)
		w.github.forgotten[1] = true
		w.handle(m)
		time.Sleep(time.Minute)
		w.store.before = func(op string) error {
			if op == "commit" {
				w.store.before = nil
				run, lock, _ := store.Confirm(time.Now(), w.limits, w.runnerOf(r.ID), w.lockOf(r), store.Registration{Online: true})
				w.commit(&run, &lock)
			}
			return nil
		}
		if failed := w.handle(m); failed != 0 || w.alarmed(store.AlarmPanic) {
			t.Errorf("%d messages failed, want none", failed)
		}
		w.state(r, store.Ready)
		if run := w.runnerOf(r.ID); run.State != store.RunnerOnline {
			t.Errorf("runner is %s, want online", run.State)
		}
	})
}

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
				run, lock, _ := store.Confirm(time.Now(), w.limits, w.runnerOf(first.ID), w.lockOf(first), store.Registration{Online: true})
				w.commit(&run, &lock) // the reaper's word
				for time.Now().Before(got.DueAt) {
					w.alive(first, w.limits.Heartbeat)
				}
				w.handle(queue.StartOf(late))
				w.state(late, store.Ready)
			})
		})
	}
}

// 404 is also what GitHub says to a credential that may not see the repository.
func TestAbsentRegistrationEndsItsRunnerOnlyIfTheRepositoryIsSeen(t *testing.T) {
	for name, blind := range map[string]error{
		"Hidden": &github.Error{Kind: github.ErrNotFound, Op: "list", Status: 404}, "Denied": &github.Error{Kind: github.ErrDenied, Op: "list", Status: 403}, "Away": errLost,
	} {
		t.Run("Listening/"+name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				r := w.request()
				w.start(r)
				m := w.listening(r)
				w.github.forgotten[1], w.github.blind = true, blind
				w.handle(m)
				if run := w.runnerOf(r.ID); w.github.lists != 0 || run.MissedAt.IsZero() {
					t.Fatalf("%d lists after the first 404, missed at %v; want none, and missed: it ends nothing", w.github.lists, run.MissedAt)
				}
				for missed := time.Now(); time.Since(missed) < 2*w.limits.Silent && len(w.sent) > 0; {
					w.follow(1)
				}
				if run := w.runnerOf(r.ID); run.State != store.RunnerBooting || w.github.lists == 0 || len(w.sent) != 1 || w.sent[0].Message != m {
					t.Errorf("runner is %s after %d lists, sent %v; want it kept, and asked about again", run.State, w.github.lists, w.sent)
				}
				w.github.blind = nil
				w.follow(1)
				if run := w.runnerOf(r.ID); run.State != store.RunnerDraining || run.End.Code != store.EndUnlisted {
					t.Errorf("runner is %s %v once the repository is seen, want draining, registration_lost", run.State, run.End)
				}
			})
		})
		t.Run("Shared/"+name, func(t *testing.T) {
			liveShared(t, func(w *world, first store.Request) {
				w.github.forgotten[1], w.github.blind = true, blind
				w.alive(first, 2*time.Minute+1)
				late := w.request(shared)
				w.start(late)
				for missed := time.Now(); time.Since(missed) < 2*w.limits.Silent && len(w.sent) > 0; {
					w.says(first, store.EventHeartbeat)
					w.follow(1)
				}
				if run, got := w.runnerOf(first.ID), w.requestNow(late.ID); run.State != store.RunnerOnline || got.State != store.Accepted || got.Wait != store.WaitGitHubDown || w.github.lists == 0 {
					t.Errorf("runner is %s, request %s for %q after %d lists; want both kept, waiting for GitHub", run.State, got.State, got.Wait, w.github.lists)
				}
				w.github.blind = nil
				w.says(first, store.EventHeartbeat)
				w.follow(1)
				if run := w.runnerOf(first.ID); run.State != store.RunnerDraining || run.End.Code != store.EndUnlisted {
					t.Errorf("runner is %s %v once the repository is seen, want draining, registration_lost", run.State, run.End)
				}
			})
		})
	}
}

// GitHub.com and an Enterprise Server count their registrations each from 1.
func TestAnswerAboutARunnerIsNoAnswerAboutAnotherOfTheSameID(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		labelled := func(r *store.Request) { shared(r); r.Labels = []string{"other"} }
		second := w.request(labelled)
		w.start(second)
		w.online(second)
		run := w.runnerOf(second.ID)
		run.Config.RunnerID = w.runnerOf(first.ID).Config.RunnerID
		w.commit(&run)
		w.alive(first, 2*time.Minute+1)
		w.says(second, store.EventHeartbeat)
		wk, before := worker.New(w.config), len(w.github.looks)
		w.handleBy(wk, queue.StartOf(w.request(shared)))
		w.handleBy(wk, queue.StartOf(w.request(labelled)))
		if asked := len(w.github.looks) - before; asked != 2 {
			t.Errorf("%d questions about two runners, want 2", asked)
		}
		for _, r := range []store.Request{first, second} {
			if lock := w.lockOf(r); !lock.ConfirmedAt.Equal(time.Now()) {
				t.Errorf("runner of %s was confirmed at %v, want now", r.ID, lock.ConfirmedAt)
			}
		}
	})
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

func TestEachConfigOfASharedRunnerIsConfirmed(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		online := w.runnerOf(first.ID).OnlineAt
		for n := 2; n <= 4; n++ {
			time.Sleep(time.Minute)
			w.job(first)
			w.handle(w.next(first))
			heard := w.says(first, store.EventOnline)
			w.github.shown[w.runnerOf(first.ID).Config.RunnerID] = true
			if got, want := w.calls(func() { w.handle(resumeOf(w.runnerOf(first.ID))) }), "2 gets, 1 commits, 1 looks"; !heard.Confirm || got != want {
				t.Errorf("config %d: confirm %v by %s, want %s", n, heard.Confirm, got, want)
			}
			if run, lock := w.runnerOf(first.ID), w.lockOf(first); run.Config.N != n || !lock.ConfirmedAt.Equal(time.Now()) || !run.OnlineAt.Equal(online) {
				t.Errorf("config %d, confirmed at %v, online at %v; want %d, now and %v", run.Config.N, lock.ConfirmedAt, run.OnlineAt, n, online)
			}
		}
	})
}

func TestStartOfARefusedImageFailsUntilImageOrProgramsChange(t *testing.T) {
	inWorld(t, func(w *world) {
		w.config.ProgramKey = "key-1"
		first := w.request()
		w.start(first)
		quota := get[store.Quota](w, account).Refuse(time.Now(), w.runnerOf(first.ID), "key-1")
		w.commit(&quota)

		second := w.request()
		w.start(second)
		w.state(second, store.Failed)
		if got := w.requestNow(second.ID).Error; got == nil || got.Code != store.EndTooOld || got.Retryable || !strings.Contains(got.Text, "ami-1") {
			t.Errorf("error = %v, want runner_too_old, for good, that names the image", got)
		}
		if len(w.fleet.calls) != 1 || w.live() != 1 || w.alarmed(store.AlarmRunnerTooOld) {
			t.Errorf("%d launches, quota %d; want the first one's alone, and no second alarm", len(w.fleet.calls), w.live())
		}

		a := w.accounts[account]
		a.Regions[region] = store.Region{Subnets: []string{"subnet-a"}, SecurityGroups: []string{"sg-1"}, Images: []string{"ami-1", "ami-2"}}
		other := w.request(func(r *store.Request) { r.Machine.Image = "ami-2" })
		w.start(other)
		w.state(other, store.Waiting)

		w.config.ProgramKey = "key-2"
		third := w.request()
		w.start(third)
		w.state(third, store.Waiting)
		if got := get[store.Quota](w, account); len(got.TooOld) != 1 || got.Live != 3 {
			t.Errorf("quota = %+v, want three runners, and the image remembered", got)
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
			t.Errorf("a resume took %s, want %s: nothing is to be done", got, want)
		}
		late := w.request(shared)
		if got, want := w.calls(func() { w.start(late) }), "2 gets, 1 commits, 1 looks"; got != want {
			t.Errorf("a share took %s, want %s", got, want)
		}
		w.state(late, store.Ready)
	})
}

func TestResumeOfTheOldVersionSettlesARequestWhoseRunnerIsOnline(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.start(r)
		run, lock := w.runnerOf(r.ID), w.lockOf(r)
		run, lock, _, _, _ = store.BootCall(time.Now(), run, lock, "nonce", run.InstanceID)
		run.State, run.OnlineAt, lock.State = store.RunnerOnline, time.Now(), store.LockLive // by the machine's word
		w.commit(&run, &lock)
		time.Sleep(time.Minute)
		if got, want := w.calls(func() { w.handle(resumeOf(run)) }), "2 gets, 1 commits, 0 looks"; got != want {
			t.Errorf("it took %s, want %s", got, want)
		}
		w.state(r, store.Ready)
		if got := w.requestNow(r.ID); !got.ReadyAt.Equal(run.OnlineAt) {
			t.Errorf("ready at %v, want %v", got.ReadyAt, run.OnlineAt)
		}
	})
}

func TestRunnerThatCannotBeReadFailsTheMessage(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		w.alive(first, 3*time.Minute)
		late := w.request(shared)
		n := 0
		w.store.before = func(op string) error {
			if op == "get" {
				if n++; n == 2 {
					return errors.New("throttled")
				}
			}
			return nil
		}
		if failed := w.start(late); failed != 1 || len(w.github.looks) != 1 {
			t.Errorf("%d messages failed after %d questions; want the one, to come again, and none", failed, len(w.github.looks)-1)
		}
		w.state(late, store.Accepted)
	})
}

func TestConfirmIsGivenBackWhenTheCommitsAreLost(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.start(r)
		m := w.listening(r)
		w.github.shown[1] = true
		w.store.before = func(op string) error {
			if op == "commit" {
				return fmt.Errorf("lost: %w", store.ErrConflict)
			}
			return nil
		}
		if failed := w.handle(m); failed != 0 || len(w.sent) != 1 || w.sent[0].Message != m {
			t.Fatalf("%d failed, sent %v; want none, and the message again", failed, w.sent)
		}
		w.store.before = nil
		w.follow(1)
		w.state(r, store.Ready)
	})
}
