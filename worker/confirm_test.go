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
		if d := w.says(r, store.EventJobStarted); len(d.Sends) != 1 {
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
		w.apply(w.caseOf(r).Deregistered(time.Now()))
		d := w.caseOf(r).Settle(time.Now(), w.limits)
		if got := d.Request; got.State != store.Accepted || len(d.Sends) != 1 || got.Tries != 1 {
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
				d, _ := store.Case{Runner: w.runnerOf(r.ID), Lock: w.lockOf(r)}.Confirm(time.Now(), w.limits, store.Registration{Online: true})
				w.apply(d)
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

func TestEachConfigOfASharedRunnerIsConfirmed(t *testing.T) {
	liveShared(t, func(w *world, first store.Request) {
		online := w.runnerOf(first.ID).OnlineAt
		for n := 2; n <= 4; n++ {
			time.Sleep(time.Minute)
			w.job(first)
			w.handle(w.next(first))
			d := w.says(first, store.EventOnline)
			w.github.shown[w.runnerOf(first.ID).Config.RunnerID] = true
			if got, want := w.calls(func() { w.handle(resumeOf(w.runnerOf(first.ID))) }), "2 gets, 1 commits, 1 looks"; len(d.Sends) != 1 || got != want {
				t.Errorf("config %d: sent %d by %s, want %s", n, len(d.Sends), got, want)
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
		quota := get[store.Quota](w, account)
		quota.TooOld = []store.TooOldImage{{Image: "ami-1", Program: "key-1", Runner: w.runnerOf(first.ID).ID, At: time.Now()}}
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

func TestResumeOfTheOldVersionSettlesARequestWhoseRunnerIsOnline(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.start(r)
		c := w.caseOf(r)
		d, _ := c.Boot(time.Now(), w.limits, "nonce", c.Runner.InstanceID)
		run, lock := d.Runner, d.Lock
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
