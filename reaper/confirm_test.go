package reaper_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// sharedIn is a shared request with a key of its own, in a repository.
func sharedIn(repo, label string) func(*store.Request) {
	return func(q *store.Request) {
		q.Mode, q.Labels, q.Repository.ID, q.Repository.Name = store.Shared, []string{label}, repo, "octo/app"+repo
	}
}

// alive has machines say that they live.
func (w *world) alive(runners ...store.Runner) {
	w.t.Helper()
	for _, run := range runners {
		w.hear(run.ID, store.Event{Kind: store.EventHeartbeat})
	}
}

// livingMinutes makes a run every minute, with machines that say that they live.
func (w *world) livingMinutes(n int, runners ...store.Runner) {
	w.t.Helper()
	for range n {
		time.Sleep(time.Minute)
		w.fleet.settle()
		w.alive(runners...)
		w.run()
	}
}

func TestIdleSharedRunnersAreConfirmedByOneListARepository(t *testing.T) {
	inWorld(t, func(w *world) {
		var idle []store.Runner
		for i := range 8 {
			name := fmt.Sprintf("idle%c", 'a'+i)
			idle = append(idle, w.online(name, sharedIn([]string{"42", "43"}[i%2], name)))
		}
		busy := w.online("busy", sharedIn("44", "busy"))
		w.hear(busy.ID, store.Event{Kind: store.EventJobStarted})
		ephemeral := w.online("ephemeral", func(q *store.Request) { q.Repository.ID, q.Repository.Name = "45", "octo/app45" })
		w.run0()
		time.Sleep(40*time.Second - 1)
		w.run()
		if n := w.hub.count("list") + w.hub.count("get"); n != 0 {
			t.Errorf("%d calls while GitHub's word is fresh, want none", n)
		}
		time.Sleep(time.Nanosecond)
		r := w.run()
		if lists, gets := w.hub.count("list"), w.hub.count("get"); lists != 2 || gets != 0 {
			t.Errorf("%d lists and %d gets for 8 idle runners of 2 repositories, want 2 and none\n%s", lists, gets, r)
		}
		for _, run := range idle {
			if got := w.lock(run.Lock).ConfirmedAt; !got.Equal(time.Now()) || w.runner(run.ID).Version != run.Version {
				t.Errorf("runner %s is confirmed at %s, want now, and itself not written", run.ID, got)
			}
		}
		for _, run := range []store.Runner{busy, ephemeral} {
			if got := w.lock(run.Lock).ConfirmedAt; got.Equal(time.Now()) {
				t.Errorf("runner %s is confirmed, and nobody can share it", run.ID)
			}
		}
		if got := lines(r, reaper.Confirm); len(got) != 8 {
			t.Errorf("confirms = %v, want the 8\n%s", got, r)
		}
		w.wantAlarms()
	})
}

// Three of the four calls are lists at most, so that what a list leaves out is asked for.
func TestConfirmationsOfAnAccountTakeFourCallsARun(t *testing.T) {
	inWorld(t, func(w *world) {
		const other = "222222222222"
		w.accounts[other] = store.Account{ID: other, Regions: map[string]store.Region{region: {}}}
		var all []store.Runner
		for i := range 12 {
			name, repo := fmt.Sprintf("r%c", 'a'+i), fmt.Sprint(50+i)
			run := w.online(name, sharedIn(repo, name))
			if i%3 == 0 {
				w.hub.rename(repo, run.Config.RunnerID)
			}
			all = append(all, run)
		}
		others := w.online("other", sharedIn("42", "other"), func(q *store.Request) { q.Account = other })
		for n := 1; n <= 4; n++ {
			w.run0()
			w.put(&store.Sweep{Key: fleet.Place{Account: other, Region: region}.String(), Meta: store.Meta{Version: w.sweepOf(other).Version, DueAt: time.Now().Add(time.Hour)}})
			time.Sleep(time.Minute)
			w.alive(append(all, others)...)
			lists, gets := w.hub.count("list"), w.hub.count("get")
			w.run()
			if lists, gets = w.hub.count("list")-lists, w.hub.count("get")-gets; lists != 3+1 || gets != 1 {
				t.Errorf("run %d made %d lists and %d gets, want 3 and 1 for one account, and a list for the other", n, lists, gets)
			}
		}
		for _, run := range all {
			if age := time.Since(w.lock(run.Lock).ConfirmedAt); age > 3*time.Minute {
				t.Errorf("runner %s was confirmed %s ago, want each of them in turn", run.ID, age)
			}
		}
	})
}

// A runner that GitHub does not show has its answer too: it does not stand in the way of
// those that nobody asked about.
func TestThoseWhoWaitedLongestForAnAnswerAreConfirmedFirst(t *testing.T) {
	inWorld(t, func(w *world) {
		var all []store.Runner
		for i := range 5 {
			name, repo := fmt.Sprintf("r%c", 'a'+i), fmt.Sprint(50+i)
			run := w.online(name, sharedIn(repo, name))
			w.hub.online(repo, run.Config.RunnerID, i == 4)
			all = append(all, run)
		}
		w.run0()
		w.livingMinutes(1, all...)
		for _, run := range all[:3] {
			if got := w.runner(run.ID); !got.MissedAt.Equal(time.Now()) {
				t.Fatalf("runner %s was missed at %s, want now", run.ID, got.MissedAt)
			}
		}
		w.livingMinutes(1, all...)
		if got := w.lock(all[4].Lock).ConfirmedAt; !got.Equal(time.Now()) {
			t.Errorf("the fifth was confirmed %s ago, want now", time.Since(got))
		}
	})
}

// A message that a worker has in hand comes again on its own.
func TestOnlyARunnerThatNobodyAskedAboutIsRemindedOf(t *testing.T) {
	for name, missed := range map[string]bool{"NobodyAsked": false, "AWorkerAsked": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				for i := range 4 {
					name := fmt.Sprintf("r%c", 'a'+i)
					run := w.listening(name, sharedIn(fmt.Sprint(50+i), name))
					if missed {
						run.MissedAt = time.Now()
						w.put(&run)
					}
				}
				w.run0()
				time.Sleep(20 * time.Second)
				r := w.run()
				if n := w.hub.count("list"); n != 3 {
					t.Errorf("%d lists, want 3: the fourth repository is left to a worker", n)
				}
				want := []queue.Message{}
				if !missed {
					run := w.runner(id("rd"))
					want = append(want, queue.Message{Kind: queue.Resume, ID: run.ID, Trace: run.Trace})
				}
				got := []queue.Message{}
				for _, s := range w.queue.take() {
					got = append(got, s.Message)
				}
				if !slices.Equal(got, want) || len(lines(r, reaper.Resend)) != len(want) {
					t.Errorf("sent %v, want %v\n%s", got, want, r)
				}
			})
		})
	}
}

// What our own budget does not allow closes nothing else; what GitHub does not, all.
func TestPartOfOurOwnThatIsSpentLeavesTheOtherCalls(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		ends   bool
	}{"OurOwn": {0, true}, "GitHubs": {429, false}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				run := w.online("r", sharedIn("42", "r"))
				w.hub.fail = func(op string, _ github.Scope, _ int64) error {
					if op == "list" {
						return &github.Error{Kind: github.ErrLimited, Op: op, Status: c.status, RetryAt: time.Now().Add(time.Hour)}
					}
					return nil
				}
				w.run0()
				p := reaper.New(w.config)
				for range 2 {
					time.Sleep(time.Minute)
					w.alive(run)
					if r, err := p.Run(w.t.Context()); err != nil || len(lines(r, reaper.Skip)) == 0 {
						t.Errorf("Run = %v, want no error, and that it was left to the next run\n%s", err, r)
					}
				}
				if n := w.hub.count("list"); (n == 2) != c.ends {
					t.Errorf("%d lists in two runs, want one in each: %v", n, c.ends)
				}
				w.hear(run.ID, store.Event{Kind: store.EventDraining, Reason: store.EndIdle})
				if _, err := p.Run(w.t.Context()); err != nil {
					t.Errorf("Run = %v, want no error: a limit is a wait", err)
				}
				if n := w.hub.count("delete"); (n == 1) != c.ends || w.runner(run.ID).DeregisteredAt.IsZero() == c.ends {
					t.Errorf("%d DELETEs, deregistered at %s; want it: %v", n, w.runner(run.ID).DeregisteredAt, c.ends)
				}
			})
		})
	}
}

func (w *world) sweepOf(account string) store.Sweep {
	w.t.Helper()
	return get[store.Sweep](w, fleet.Place{Account: account, Region: region}.String())
}

// What the list leaves out is asked for by its id, within the same four calls.
func TestListThatLeavesARunnerOutProvesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		var all []store.Runner
		for i := range 6 {
			name := fmt.Sprintf("r%c", 'a'+i)
			run := w.online(name, sharedIn("42", name))
			w.hub.rename("42", run.Config.RunnerID)
			all = append(all, run)
		}
		w.run0()
		w.livingMinutes(1, all...)
		if lists, gets := w.hub.count("list"), w.hub.count("get"); lists != 1 || gets != 3 {
			t.Errorf("%d lists and %d gets, want 1 and 3", lists, gets)
		}
		confirmed := 0
		for _, run := range all {
			if w.lock(run.Lock).ConfirmedAt.Equal(time.Now()) {
				confirmed++
			}
			w.wantRunner(run.ID, store.RunnerOnline)
		}
		if confirmed != 3 {
			t.Errorf("%d of 6 are confirmed, want 3", confirmed)
		}
	})
}

func TestRegistrationThatGitHubForgotDrainsWithoutAnyStart(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("ghost", sharedIn("42", "ghost"))
		w.hub.forget("42", run.Config.RunnerID) // and its program listens on
		w.livingMinutes(1, run)
		if got := w.wantRunner(run.ID, store.RunnerOnline); !got.MissedAt.Equal(time.Now()) {
			t.Errorf("missed at %s, want now: one 404 proves nothing", got.MissedAt)
		}
		w.livingMinutes(1, run)
		got := w.wantRunner(run.ID, store.RunnerDraining)
		if got.End == nil || got.End.Code != store.EndUnlisted {
			t.Errorf("end = %v, want registration_lost", got.End)
		}
		w.livingMinutes(4, run)
		w.wantRunner(run.ID, store.RunnerEnded)
		w.wantAlarms()
	})
}

func TestRunnerThatGitHubShowsOfflineDrainsAfterTwoMinutes(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("cut", sharedIn("42", "cut"))
		w.hub.online("42", run.Config.RunnerID, false)
		w.livingMinutes(2, run)
		w.wantRunner(run.ID, store.RunnerOnline)
		w.livingMinutes(1, run)
		if got := w.wantRunner(run.ID, store.RunnerDraining); got.End == nil || got.End.Code != store.EndOffline {
			t.Errorf("end = %v, want offline_at_github", got.End)
		}
	})
}

func TestRunnerThatComesBackIsMissedNoMore(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("cut", sharedIn("42", "cut"))
		w.hub.online("42", run.Config.RunnerID, false)
		w.livingMinutes(2, run)
		w.hub.online("42", run.Config.RunnerID, true)
		w.livingMinutes(5, run)
		if got := w.wantRunner(run.ID, store.RunnerOnline); !got.MissedAt.IsZero() || time.Since(w.lock(run.Lock).ConfirmedAt) != 0 {
			t.Errorf("missed at %s, confirmed at %s; want never, and now", got.MissedAt, w.lock(run.Lock).ConfirmedAt)
		}
	})
}

func TestListeningRunnerWhoseMessageWasLostIsConfirmed(t *testing.T) {
	for name, edit := range map[string]func(*store.Request){"Shared": sharedIn("42", "r"), "Ephemeral": func(*store.Request) {}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				run := w.listening("r", edit)
				w.run0()
				time.Sleep(5 * time.Second)
				w.hub.online("42", run.Config.RunnerID, true)
				time.Sleep(15*time.Second - 1)
				w.run()
				if n := w.hub.count("list"); n != 0 {
					t.Errorf("%d lists while a worker may be at it, want none", n)
				}
				time.Sleep(time.Nanosecond)
				w.run()
				got := w.wantRunner(run.ID, store.RunnerOnline)
				q := w.wantRequest(run.Request, store.Ready)
				if !got.OnlineAt.Equal(time.Now()) || !q.ReadyAt.Equal(got.OnlineAt) || got.Writer != q.Writer {
					t.Errorf("online at %s, ready at %s, written by %s and %s; want both now, in one commit", got.OnlineAt, q.ReadyAt, got.Writer, q.Writer)
				}
			})
		})
	}
}

func TestJobWhoseMessageWasLostMakesItsRequestReady(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.listening("r")
		w.hub.online("42", run.Config.RunnerID, true)
		online := time.Now()
		w.hear(run.ID, store.Event{Kind: store.EventJobStarted, RunID: "9"})
		w.wantRequest(run.Request, store.Waiting)
		w.livingMinutes(1, run)
		if q := w.wantRequest(run.Request, store.Ready); !q.ReadyAt.Equal(online) {
			t.Errorf("ready at %s, want when its job started, %s", q.ReadyAt, online)
		}
		w.wantRunner(run.ID, store.RunnerBusy)
	})
}

func TestRunnerThatBootsAndIsGoneAtGitHubIsTriedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.listening("r")
		w.hub.forget("42", run.Config.RunnerID)
		w.livingMinutes(2, run)
		w.wantRunner(run.ID, store.RunnerDraining)
		w.livingMinutes(4, run) // it is due when its runner was to have booted
		if q := w.wantRequest(run.Request, store.Accepted); q.History[len(q.History)-1].Reason != store.EndUnlisted {
			t.Errorf("history = %v, want it accepted again for registration_lost", q.History)
		}
	})
}

func TestGitHubThatIsAwayLeavesRunnersAlone(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		fails  bool
		alarms []store.Alarm
	}{
		"Broken":  {refusal(github.ErrUnknown, 502), true, nil},
		"Denied":  {refusal(github.ErrDenied, 401), true, []store.Alarm{store.AlarmGitHub}},
		"Limited": {&github.Error{Kind: github.ErrLimited, Op: "list", Status: 429}, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				run := w.online("r", sharedIn("42", "r"))
				w.run0()
				time.Sleep(time.Minute)
				w.alive(run)
				w.hub.fail = func(string, github.Scope, int64) error { return c.err }
				r, err := w.try()
				if c.fails != errors.Is(err, c.err) {
					t.Errorf("Run = %v, want the error %v: %v\n%s", err, c.err, c.fails, r)
				}
				if got := w.wantRunner(run.ID, store.RunnerOnline); !got.MissedAt.IsZero() || time.Since(w.lock(run.Lock).ConfirmedAt) != time.Minute {
					t.Errorf("missed at %s, confirmed at %s; want nothing learnt", got.MissedAt, w.lock(run.Lock).ConfirmedAt)
				}
				w.wantAlarms(c.alarms...)
			})
		})
	}
}

func TestConfirmationThatIsOutstandingIsSentToNoWorkerAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("r", sharedIn("42", "r"))
		time.Sleep(time.Second)
		w.hear(run.ID, store.Event{Kind: store.EventJobStarted})
		w.hear(run.ID, store.Event{Kind: store.EventJobDone})
		w.next(run.ID)
		w.configure(w.runner(run.ID))
		w.hear(run.ID, store.Event{Kind: store.EventOnline})
		w.hub.fail = func(string, github.Scope, int64) error { return refusal(github.ErrUnknown, 502) }
		for range 15 {
			time.Sleep(time.Minute)
			w.alive(run)
			_, _ = w.try() // GitHub is away
		}
		// The worker's message comes again on its own: one more every minute would be 15 at once by now.
		if got := w.queue.take(); len(got) != 0 {
			t.Errorf("sent %v, want nothing", got)
		}
	})
}

func TestDryRunAsksGitHubAboutNobody(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.online("r", sharedIn("42", "r"))
		w.run0()
		time.Sleep(time.Minute)
		w.alive(run)
		w.config.DryRun = true
		w.run()
		if n := w.hub.count("list") + w.hub.count("get"); n != 0 {
			t.Errorf("%d calls, want none", n)
		}
	})
}
