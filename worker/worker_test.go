package worker_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

func TestStartIsLaunchedAndConfiguredInSixCalls(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		if failed := w.start(r); failed != 0 {
			t.Fatalf("Handle failed %d messages", failed)
		}
		w.state(r, store.Waiting)
		run, lock := w.runnerOf(r.ID), w.lockOf(r)
		if run.State != store.RunnerLaunched || run.InstanceID != "i-1" || run.Config.N != 1 || run.Config.RunnerID != 1 {
			t.Errorf("runner = %s %s config %+v, want launched i-1 with config 1", run.State, run.InstanceID, run.Config)
		}
		if lock.State != store.LockLaunching || lock.Runner != run.ID {
			t.Errorf("lock = %s of %s, want launching of %s", lock.State, lock.Runner, run.ID)
		}
		config, err := w.keys.Open("k1", run.ID, 1, run.Config.Sealed)
		if err != nil || config.Reveal() != "jit-garo-test-"+run.ID+"-1" {
			t.Errorf("sealed config opens to %q, %v", config.Reveal(), err)
		}
		if run.Claim.By != "" {
			t.Errorf("claim = %+v, want it given back", run.Claim)
		}
		// One after another: get, lease, intent, launch; then instance and mint together, and the config.
		if w.store.gets != 1 || w.store.commits != 4 || len(w.fleet.calls) != 1 || len(w.github.calls) != 1 || len(w.sent) != 0 {
			t.Errorf("calls: %d gets, %d commits, %d launches, %d mints, %d sends; want 1, 4, 1, 1, 0",
				w.store.gets, w.store.commits, len(w.fleet.calls), len(w.github.calls), len(w.sent))
		}
		l := w.fleet.calls[0]
		if l.ClientToken != "garo-"+run.ID+"-0" || l.Tags[fleet.TagControlPlane] != "test" || l.Tags[fleet.TagRunner] != run.ID {
			t.Errorf("launch token %s tags %v", l.ClientToken, l.Tags)
		}
		if !slices.Equal(w.github.labels, []string{r.OwnLabel}) {
			t.Errorf("an ephemeral runner registers %v, want its own label alone", w.github.labels)
		}
	})
}

func TestRepeatedMessagesLaunchOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.start(r, r, r)
		for range 10 {
			w.start(r)
		}
		if len(w.fleet.byToken) != 1 || len(w.fleet.calls) != 1 || len(w.github.calls) != 1 {
			t.Errorf("%d machines by %d launches and %d mints, want 1 each", len(w.fleet.byToken), len(w.fleet.calls), len(w.github.calls))
		}
	})
}

func TestTenMessagesAtOnceLaunchOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		for range 10 {
			go w.start(r)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		if len(w.fleet.byToken) != 1 || w.live() != 1 {
			t.Errorf("%d machines, quota %d; want 1 and 1", len(w.fleet.byToken), w.live())
		}
	})
}

func TestMessagesThatNeedNoWork(t *testing.T) {
	inWorld(t, func(w *world) {
		held := func(c store.Case, d time.Duration) store.Decision {
			return c.Hold(time.Now(), store.Wait{For: store.WaitBackoff, Until: time.Now().Add(d)})
		}
		for name, edit := range map[string]func(store.Case) store.Decision{
			"cancelled": func(c store.Case) store.Decision { return c.Stop(time.Now(), w.limits, "x", false) },
			"due later": func(c store.Case) store.Decision { return held(c, 3*time.Second) },
		} {
			r := w.request()
			w.apply(edit(store.Case{Request: r}))
			if failed := w.start(r); failed != 0 || len(w.fleet.calls) != 0 {
				t.Errorf("%s request: %d failed, %d launches; want nothing done", name, failed, len(w.fleet.calls))
			}
		}
		r := w.request()
		w.apply(held(store.Case{Request: r}, 2*time.Second))
		w.start(r)
		if len(w.fleet.calls) != 1 {
			t.Error("a request due within two seconds was not taken up")
		}
	})
}

func TestOverdueRequestExpires(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		time.Sleep(time.Hour)
		w.start(r)
		w.state(r, store.Expired)
		if len(w.fleet.calls) != 0 {
			t.Error("an overdue request was launched")
		}
	})
}

func TestUnknownRequestFailsItsMessageAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.request()
		ghost := good
		ghost.ID = w.keys.RequestID("ghost", "", "", "", "")
		if failed := w.start(ghost, good); failed != 1 {
			t.Errorf("%d messages failed, want the unknown one", failed)
		}
		w.state(good, store.Waiting)
		if !w.alarmed(store.AlarmUnknown) {
			t.Error("no alarm for a message of a request that is not recorded")
		}
	})
}

// A message of a version that is newer is unreadable, too: it comes again, for a worker of
// that version.
func TestUnreadableMessageLeavesTheOthersUnharmed(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		body, err := queue.Encode(queue.StartOf(r))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(w.Context(), worker.Timeout)
		defer cancel()
		failed := worker.New(w.config).Handle(ctx, []queue.Delivery{
			{ID: "bad", Body: []byte("{")},
			{ID: "a kind of later", Body: []byte(`{"v":1,"kind":"later","id":"` + r.ID + `"}`)},
			{ID: "good", Body: body},
			{ID: "a field of later", Body: []byte(`{"v":1,"kind":"resume","id":"` + r.ID + `","later":true}`)},
		})
		if !slices.Equal(failed, []string{"bad", "a kind of later", "a field of later"}) {
			t.Errorf("failed = %v, want those that cannot be read", failed)
		}
		w.state(r, store.Waiting)
	})
}

func TestPanicFailsOneMessage(t *testing.T) {
	inWorld(t, func(w *world) {
		bad, good := w.request(), w.request()
		w.fleet.answer = func(_ int, l fleet.Launch, _ func()) error {
			if l.Tags[fleet.TagRequest] == bad.ID {
				panic("boom")
			}
			return nil
		}
		if failed := w.start(bad, good); failed != 1 {
			t.Errorf("%d messages failed, want 1", failed)
		}
		if w.runnerOf(good.ID).Config.N != 1 || !w.alarmed(store.AlarmPanic) {
			t.Error("the other message suffered, or no alarm was raised")
		}
	})
}

func TestStoreOutageFailsTheMessages(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.store.before = func(string) error { return errLost }
		if failed := w.start(r); failed != 1 {
			t.Errorf("%d messages failed, want 1", failed)
		}
	})
}

func TestQuotaIsNeverPassed(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.accounts[account]
		a.MaxRunners = 10
		w.accounts[account] = a
		var all []store.Request
		for range 50 {
			r := w.request()
			all = append(all, r)
			go w.start(r)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		w.follow(200)
		waiting, held := 0, 0
		for _, r := range all {
			switch got := w.requestNow(r.ID); {
			case got.State == store.Waiting:
				waiting++
			case got.State == store.Accepted && got.Wait == store.WaitQuota:
				held++
			}
		}
		if len(w.fleet.byToken) != 10 || waiting != 10 || held != 40 || w.live() != 10 {
			t.Errorf("%d machines, %d waiting, %d held, quota %d; want 10, 10, 40, 10", len(w.fleet.byToken), waiting, held, w.live())
		}
	})
}

func TestHundredSharersGetOneRunner(t *testing.T) {
	inWorld(t, func(w *world) {
		var all []store.Request
		for range 100 {
			r := w.request(shared)
			all = append(all, r)
			go w.start(r)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		w.follow(200)
		if len(w.fleet.byToken) != 1 {
			t.Fatalf("%d machines, want 1", len(w.fleet.byToken))
		}
		runner := w.requestNow(all[0].ID).Runner
		for _, r := range all {
			if got := w.requestNow(r.ID); got.State != store.Waiting || got.Runner != runner {
				t.Errorf("request is %s with runner %q, want waiting for %s", got.State, got.Runner, runner)
			}
		}
		if l := w.lockOf(all[0]); l.Joined == "" {
			t.Error("the lock does not say that somebody joined")
		}
	})
}

func TestBatchWithOneKeyCostsOneFindOrLaunch(t *testing.T) {
	inWorld(t, func(w *world) {
		var batch []store.Request
		for range 10 {
			batch = append(batch, w.request(shared))
		}
		w.start(batch...)
		if len(w.fleet.calls) != 1 || w.store.gets != 1 || w.store.commits != 4 {
			t.Errorf("%d launches, %d gets, %d commits; want 1, 1 and 4 (a lease, one for all ten, instance, config)", len(w.fleet.calls), w.store.gets, w.store.commits)
		}
		w.online(batch[0])
		gets, commits := w.store.gets, w.store.commits
		late := w.request(shared)
		w.start(late)
		w.state(late, store.Ready)
		if w.store.gets-gets != 1 || w.store.commits-commits != 1 {
			t.Errorf("a shared hit took %d gets and %d commits, want 1 and 1", w.store.gets-gets, w.store.commits-commits)
		}
	})
}

func TestIntentsOfABatchShareOneCommit(t *testing.T) {
	inWorld(t, func(w *world) {
		var batch []store.Request
		for range 5 {
			batch = append(batch, w.request())
		}
		w.start(batch...)
		if len(w.fleet.byToken) != 3 || w.live() != 3 || len(w.sent) != 2 {
			t.Errorf("%d machines, quota %d, sent %v; want 3 and 3, and two to come at their slots", len(w.fleet.byToken), w.live(), w.sent)
		}
		if w.store.commits != 1+1+2*3 {
			t.Errorf("%d commits, want one for the three leases, one for the three intents and the two that wait, and two a runner", w.store.commits)
		}
	})
}

func TestSilentRunnerIsWaitedForThenReplaced(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.request(shared)
		w.start(first)
		w.online(first)
		time.Sleep(time.Minute) // no heartbeat
		second := w.request(shared)
		w.start(second)
		if got := w.requestNow(second.ID); got.State != store.Accepted || got.Wait != store.WaitRunner {
			t.Fatalf("request is %s waiting for %q, want accepted, runner_silent", got.State, got.Wait)
		}
		w.follow(1)
		w.state(second, store.Waiting)
		if w.runnerOf(first.ID).State != store.RunnerDraining || w.runnerOf(second.ID).ID == w.runnerOf(first.ID).ID {
			t.Errorf("first runner %s; want it draining, with a successor", w.runnerOf(first.ID).State)
		}
	})
}

func TestRunnerWithTooLittleTimeLeftHandsOver(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.request(shared)
		w.start(first)
		w.online(first)
		time.Sleep(5*time.Hour + 30*time.Minute)
		// It is well, and its requests still count on it; but half an hour is left of its six.
		run, lock, pulse := w.runnerOf(first.ID), w.lockOf(first), get[store.Pulse](w, first.LockKey())
		pulse.Seen = time.Now()
		lock.Exp = lock.Hard
		w.commit(&pulse, &lock)
		second := w.request(shared)
		w.start(second)
		w.state(second, store.Waiting)
		if got := w.runnerOf(first.ID); got.State != store.RunnerDraining || got.End.Code != store.EndHandover {
			t.Errorf("old runner %s %v, want it draining for a handover", got.State, got.End)
		}
		if w.runnerOf(second.ID).ID == run.ID {
			t.Error("the request shares a runner that ends before its timeout")
		}
	})
}

// Of one batch, the first request still shares the runner that hands over for the second.
func TestShareOfABatchIsCommittedBeforeTheHandover(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.request(shared)
		w.start(first)
		w.online(first)
		time.Sleep(5*time.Hour + 30*time.Minute) // half an hour is left of its six
		pulse, lock := get[store.Pulse](w, first.LockKey()), w.lockOf(first)
		pulse.Seen, lock.Exp = time.Now(), time.Now().Add(10*time.Minute)
		w.commit(&pulse, &lock)
		short, long := w.request(shared, func(r *store.Request) { r.TimeoutS = 1200 }), w.request(shared)
		w.start(short, long)
		w.state(short, store.Ready)
		w.state(long, store.Waiting)
		if got := w.runnerOf(first.ID); got.State != store.RunnerDraining || got.End.Code != store.EndHandover || w.requestNow(short.ID).Runner != got.ID {
			t.Errorf("the runner is %s %v, want it draining for a handover, and shared by the short request", got.State, got.End)
		}
	})
}

func TestOwnIntentWhoseAnswerWasLostIsDriven(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		first := true
		w.store.before = func(op string) error { return nil }
		w.config.Store = loseFirst{w.store, &first}
		w.start(r)
		if run := w.runnerOf(r.ID); run.Config.N != 1 || len(w.fleet.calls) != 1 || w.live() != 1 {
			t.Errorf("runner %s with config %d after %d calls, quota %d; want it launched once, at once", run.State, run.Config.N, len(w.fleet.calls), w.live())
		}
	})
}

// loseFirst applies the first commit and loses its answer.
type loseFirst struct {
	store.Store
	first *bool
}

func (l loseFirst) Commit(ctx context.Context, c ...store.Change) error {
	err := l.Store.Commit(ctx, c...)
	if *l.first && err == nil {
		*l.first = false
		return errors.New("answer lost")
	}
	return err
}

// A runner that moves on, or is taken over, while no slot is free waits for its slot,
// whether the answer to that commit came or not.
func TestCallWhoseSlotIsLateWaitsThoughTheAnswerWasLost(t *testing.T) {
	full := func(w *world) {
		quota := get[store.Quota](w, account)
		quota.Next = map[string]time.Time{region: time.Now().Add(time.Minute)}
		w.commit(&quota)
	}
	for name, story := range map[string]func(w *world, r store.Request, lose func()){
		"WhenItMovesOn": func(w *world, r store.Request, lose func()) {
			w.fleet.answer = func(int, fleet.Launch, func()) error {
				full(w)
				lose()
				return capacity("InsufficientInstanceCapacity")
			}
			w.start(r)
		},
		"WhenItIsTakenOver": func(w *world, r store.Request, lose func()) {
			w.fleet.answer = func(int, fleet.Launch, func()) error { return errLost }
			w.start(r)
			time.Sleep(time.Minute) // the claim lapses
			full(w)
			lose()
			w.handle(resumeOf(w.runnerOf(r.ID)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				r, lost := w.request(), false
				w.config.Store = loseFirst{w.store, &lost}
				story(w, r, func() { lost = true })
				run := w.runnerOf(r.ID)
				if len(w.fleet.calls) != 1 || run.Wait != store.WaitPaced || lost {
					t.Errorf("%d launches, waits for %q; want one, and the next to wait for its slot", len(w.fleet.calls), run.Wait)
				}
			})
		})
	}
}

func TestOwnWaitWhoseAnswerWasLostIsSent(t *testing.T) {
	inWorld(t, func(w *world) {
		quota := store.Quota{Account: account, Next: map[string]time.Time{region: time.Now().Add(time.Minute)}}
		w.commit(&quota)
		r := w.request()
		first := true
		w.config.Store = loseFirst{w.store, &first}
		w.start(r)
		if got := w.requestNow(r.ID); got.Wait != store.WaitPaced || len(w.sent) != 1 || w.sent[0].delay < time.Until(got.DueAt) {
			t.Errorf("request waits for %q, and %v was sent; want %s and one message for then", got.Wait, w.sent, store.WaitPaced)
		}
	})
}

// A start that shares a machine costs nothing, and does not wait for the budget.
func TestStartsThatNeedAMachineWaitForTheBudget(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.request()
		w.start(first)
		a := w.accounts[account]
		a.DailyBudget = store.DailyBudget{USD: "5", Wait: true}
		w.accounts[account] = a
		q := get[store.Quota](w, account)
		q.Spent = store.Spent{Day: time.Now().UTC().Format(time.DateOnly), Cost: 5_000_000}
		w.commit(&q)
		calls := len(w.fleet.calls)
		alone := w.request(func(r *store.Request) { r.Mode = store.Ephemeral })
		w.start(alone)
		got := w.requestNow(alone.ID)
		if got.State != store.Accepted || got.Wait != store.WaitBudget || !got.WaitsUntil().IsZero() || len(w.fleet.calls) != calls {
			t.Errorf("the request is %s and waits for %q, with %d launches; want that it waits for %s", got.State, got.Wait, len(w.fleet.calls)-calls, store.WaitBudget)
		}
		a.DailyBudget.USD = "6"
		w.accounts[account] = a
		time.Sleep(time.Until(got.DueAt))
		w.start(got)
		if got := w.requestNow(alone.ID); got.State != store.Waiting || len(w.fleet.calls) != calls+1 {
			t.Errorf("with a larger budget the request is %s, want that its machine is launched", got.State)
		}
	})
}

// Its message would bounce through the queue every half minute, for as long as the
// account is full.
func TestWaitForTheQuotaIsLeftToTheReaper(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.accounts[account]
		a.MaxRunners = 0
		w.accounts[account] = a
		r := w.request()
		w.start(r)
		got := w.requestNow(r.ID)
		if in := time.Until(got.DueAt); got.Wait != store.WaitQuota || in < w.config.Limits.Waits[0] || in > w.config.Limits.Waits[0]+w.config.Limits.PollResend {
			t.Errorf("request waits for %q, due in %s; want %s, half a minute", got.Wait, in, store.WaitQuota)
		}
		if len(w.sent) != 0 {
			t.Errorf("sent %v, want nothing: the reaper sends it once it is due", w.sent)
		}
	})
}
