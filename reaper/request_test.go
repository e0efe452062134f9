package reaper_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestForgottenStartIsSentAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		q := w.accept("lost")
		time.Sleep(59 * time.Second)
		w.run()
		if got := w.queue.take(); len(got) != 0 {
			t.Errorf("59 s after its due_at, sent %v, want nothing", got)
		}
		time.Sleep(time.Second)
		w.run()
		want := sent{queue.Message{Kind: queue.Start, ID: q.ID, Account: account, Lock: q.LockKey(), Trace: q.Trace}, 0}
		if got := w.queue.take(); len(got) != 1 || got[0] != want {
			t.Errorf("60 s after its due_at, sent %v, want %v", got, want)
		}
		time.Sleep(10 * time.Second)
		w.run()
		if got := w.queue.take(); len(got) != 0 {
			t.Errorf("10 s after it was sent again, sent %v, want nothing", got)
		}
		for minutes, want := range []int{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0} { // after 2 minutes more, and after 4: what is behind a backlog is not made more
			time.Sleep(50 * time.Second)
			w.run()
			time.Sleep(10 * time.Second)
			if got := w.queue.take(); len(got) != want {
				t.Errorf("in minute %d after it was sent again, sent %v, want %d", minutes, got, want)
			}
		}
		if got := w.request(q.ID); got.Sends != 4 {
			t.Errorf("sends = %d, want 4: the first, and three again", got.Sends)
		}
	})
}

func TestRequestThatWaitsForItsNextTryIsLeftAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		q := w.accept("quota")
		w.hold(q, store.WaitQuota, time.Now().Add(10*time.Minute))
		w.minutes(9)
		if got := w.queue.take(); len(got) != 0 {
			t.Errorf("before its next try, sent %v, want nothing", got)
		}
		w.minutes(1)
		if got := w.queue.take(); len(got) != 1 {
			t.Errorf("when its next try was due, sent %v, want one start", got)
		}
	})
}

// TestFreePlacesAreGivenInTurn has three places for seven requests that wait for one: of
// each repository the oldest comes first, and the others get no message.
func TestFreePlacesAreGivenInTurn(t *testing.T) {
	inWorld(t, func(w *world) {
		var names []string
		names = append(names, "a1", "a2", "a3", "a4", "a5", "b1", "b2")
		for _, name := range names {
			w.hold(w.accept(name, func(q *store.Request) { q.Repository.ID = name[:1] }), store.WaitQuota, time.Now().Add(30*time.Second))
			time.Sleep(time.Second)
		}
		sentFor := func(live int) (ids []string) {
			q := store.Quota{Account: account, Live: live, Limit: 10}
			if now, err := store.Read[store.Quota](t.Context(), w.store, account); err == nil {
				q.Meta = now.Meta
			}
			w.put(&q)
			w.minutes(1)
			for _, s := range w.queue.take() {
				ids = append(ids, s.ID)
			}
			return ids
		}
		if got, want := sentFor(7), []string{id("a1"), id("b1"), id("a2")}; !slices.Equal(got, want) {
			t.Errorf("for three places, sent %v, want %v", got, want)
		}
		if got := sentFor(10); len(got) != 1 {
			t.Errorf("for no place, sent %v, want one, which finds out whether the limit was raised", got)
		}
		if got := sentFor(0); len(got) != 7 {
			t.Errorf("for ten places, sent %d messages, want one for each of the seven", len(got))
		}
	})
}

func TestOtherWaitsAreTheWorkersUntilTheyAreForgotten(t *testing.T) {
	inWorld(t, func(w *world) {
		q := w.accept("paced")
		w.hold(q, store.WaitPaced, time.Now().Add(time.Minute))
		w.minutes(1)
		if got := w.queue.take(); len(got) != 0 {
			t.Errorf("when its slot came, sent %v, want nothing: its message is in the queue", got)
		}
		w.minutes(1)
		if got := w.queue.take(); len(got) != 1 {
			t.Errorf("a minute after its slot, sent %v, want one start", got)
		}
	})
}

func TestFailedSendIsMendedByTheNextRun(t *testing.T) {
	inWorld(t, func(w *world) {
		w.accept("lost")
		w.accept("lose")
		w.queue.err = errors.New("queue is down")
		time.Sleep(time.Minute)
		r, err := w.try()
		if !errors.Is(err, w.queue.err) || len(lines(r, reaper.Fail)) != 2 {
			t.Errorf("Run = %v, want the queue's error for both requests; %s", err, r)
		}
		w.queue.err = nil
		w.minutes(2)
		if got := w.queue.take(); len(got) != 2 {
			t.Errorf("the next run sent %v, want both starts", got)
		}
	})
}

func TestWaitingRequestOfADeadRunnerIsAcceptedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		q := w.accept("nobody")
		run := w.launch(w.begin(q)) // the machine never calls in
		time.Sleep(w.lim.BootLimit + w.lim.SettleSlack)
		w.run()
		w.wantRunner(run.ID, store.RunnerEnding)
		got := w.wantRequest(q.ID, store.Accepted)
		if got.Tries != 1 || got.Runner != "" || !got.DueAt.Equal(time.Now().Add(w.lim.Waits[0])) {
			t.Errorf("request has tries %d, runner %q, due in %s; want 1, none, %s",
				got.Tries, got.Runner, time.Until(got.DueAt), w.lim.Waits[0])
		}
		start := sent{queue.Message{Kind: queue.Start, ID: q.ID, Account: account, Lock: q.LockKey(), Trace: q.Trace}, w.lim.Waits[0]}
		if got := w.queue.take(); len(got) != 1 || got[0] != start {
			t.Errorf("sent %v, want %v", got, start)
		}
	})
}

func TestRequestThatSharesALaunchIsReadyOnceItsRunnerHasBeenOnline(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.begin(w.accept("first", shared))
		q := w.apply(store.Case{Request: w.accept("unasked", shared), Lock: w.lock(run.Lock)}.Share(time.Now(), w.lim)).Request
		run = w.boot(w.configure(w.launch(w.runner(run.ID))))
		w.hear(run.ID, store.Event{Kind: store.EventOnline})
		time.Sleep(10 * time.Second)
		w.confirmed(run.ID) // with the request that launched it, and no other
		w.wantRequest(q.ID, store.Waiting)
		online := time.Now()
		time.Sleep(50 * time.Second)
		w.run()
		if got := w.wantRequest(q.ID, store.Ready); !got.ReadyAt.Equal(online) {
			t.Errorf("ready at %s, want when its runner was online, %s", got.ReadyAt, online)
		}
		if got := w.queue.take(); len(got) != 0 {
			t.Errorf("sent %v, want nothing", got)
		}
	})
}

func TestRequestIsNotGivenASecondRunnerWhileTheFirstMayBeRegistered(t *testing.T) {
	inWorld(t, func(w *world) {
		q := w.accept("booted")
		run := w.boot(w.configure(w.launch(w.begin(q)))) // has its config, and is never online
		w.hub.busy("42", run.Config.RunnerID, true)
		time.Sleep(w.lim.BootLimit + w.lim.OnlineGrace)
		w.minutes(2)
		w.wantRunner(run.ID, store.RunnerDraining)
		w.wantRequest(q.ID, store.Waiting)
		w.hub.busy("42", run.Config.RunnerID, false)
		w.minutes(3) // the third DELETE comes two minutes after the second
		w.wantRequest(q.ID, store.Accepted)
	})
}

func TestRequestPastGiveUpExpires(t *testing.T) {
	inWorld(t, func(w *world) {
		accepted := w.accept("accepted")
		accepted = w.hold(accepted, store.WaitQuota, accepted.GiveUpAt)
		waiting := w.accept("waiting")
		run := w.boot(w.configure(w.launch(w.begin(waiting))))
		w.hub.busy("42", run.Config.RunnerID, true)
		w.minutes(16)
		for _, id := range []string{accepted.ID, waiting.ID} {
			if q := w.wantRequest(id, store.Expired); q.Error == nil || q.Error.Code != "expired" || !q.DueAt.IsZero() {
				t.Errorf("request %s has error %v and due_at %s, want expired and none", id, q.Error, q.DueAt)
			}
		}
	})
}

func TestWaitingRequestIsLookedAtEachMinute(t *testing.T) {
	inWorld(t, func(w *world) {
		q := w.accept("shares", shared)
		run := w.boot(w.configure(w.launch(w.begin(q))))
		time.Sleep(w.lim.BootLimit + w.lim.SettleSlack)
		w.hear(run.ID, store.Event{Kind: store.EventHeartbeat})
		r := w.run()
		if got := lines(r, reaper.Remind); len(got) != 1 {
			t.Errorf("reminds = %v, want the request\n%s", got, r)
		}
		if got := time.Until(w.wantRequest(q.ID, store.Waiting).DueAt); got != time.Minute {
			t.Errorf("due in %s, want in a minute", got)
		}
	})
}
