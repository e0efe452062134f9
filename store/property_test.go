package store_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// TestRulesKeepTheirPromises lets anything happen in any order, and checks every
// promise after every commit.
func TestRulesKeepTheirPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		newWorld(t).live(1000) // half of which happen; a runner's life takes ten when nothing goes wrong
	})
}

// known is what is stored, as it was checked last.
type known struct {
	requests map[string]store.Request
	runners  map[string]store.Runner
	locks    map[string]store.Lock
	names    map[string]bool // every name that was ever written ahead
	slots    []time.Time     // of all RunInstances calls, in their order
}

func newKnown() known {
	return known{map[string]store.Request{}, map[string]store.Runner{}, map[string]store.Lock{}, map[string]bool{}, nil}
}

// check holds what a commit wrote, and how it came from what was before, against
// the promises.
func (w *world) check(c commit) {
	is := func(ok bool, format string, args ...any) {
		w.Helper()
		if !ok {
			w.Fatalf("after %s: %s", c.what, fmt.Sprintf(format, args...))
		}
	}
	before := known{map[string]store.Request{}, map[string]store.Runner{}, map[string]store.Lock{}, nil, nil}
	for _, ch := range c.changes {
		id := ch.Item.Ref().ID
		switch ch.Item.(type) {
		case *store.Request:
			before.requests[id] = w.known.requests[id]
			w.known.requests[id] = get[store.Request](w, id)
		case *store.Runner:
			before.runners[id] = w.known.runners[id]
			w.known.runners[id] = get[store.Runner](w, id)
		case *store.Lock:
			before.locks[id] = w.known.locks[id]
			w.known.locks[id] = get[store.Lock](w, id)
		}
	}
	for id, was := range before.runners {
		w.checkRunner(w.known.runners[id], is)
		w.checkRunnerSince(was, w.known.runners[id], is)
	}
	for id, was := range before.requests {
		w.checkRequest(was, w.known.requests[id], is)
	}
	for id, was := range before.locks {
		w.checkLock(w.known.locks[id], is)
		index := w.known.runners[w.known.locks[id].Runner].Index
		if run, changed := before.runners[was.Runner]; changed {
			index = run.Index
		}
		w.checkLockSince(was, w.known.locks[id], index, is)
		if was.Runner != "" {
			w.checkRunner(w.known.runners[was.Runner], is)
		}
	}
	live := 0
	for _, run := range w.known.runners {
		if !run.State.Final() && run.Version > 0 {
			live++
		}
	}
	q := w.quota()
	is(q.Live == live, "quota says %d live runners, there are %d", q.Live, live)
	is(live <= worldRunners, "%d runners live, %d may", live, worldRunners)
}

// checkRunner holds a runner against its lock.
func (w *world) checkRunner(run store.Runner, is func(bool, string, ...any)) {
	l := w.known.locks[run.Lock]

	// At most one runner of a key is usable: the lock names it, and only one.
	if run.State.Usable() {
		is(l.Names(run.ID) && !l.Free(), "%s is %s, and its lock is %s and names %q", run.ID, run.State, l.State, l.Runner)
	}
	if run.State == store.RunnerOnline || run.State == store.RunnerBusy {
		is(l.State == store.LockLive && !run.OnlineAt.IsZero() && !run.Boot.At.IsZero(), "%s is %s on a lock that is %s", run.ID, run.State, l.State)
	}
	if !run.OnlineAt.IsZero() {
		is(!run.Boot.At.IsZero() && run.Config.N > 0 && run.InstanceID != "", "%s was online without a boot, a config or an instance", run.ID)
	}
	if run.State == store.RunnerFailed {
		is(run.InstanceID == "" && run.Config.N == 0 && run.Boot.At.IsZero() && !run.Unclear, "%s failed though a machine may exist", run.ID)
	}
	if run.State == store.RunnerEnding {
		is(run.Boot.At.IsZero() || w.off[run.ID] || !run.DeletedAt.IsZero() && !run.EndingAt.Before(run.DeletedAt) || !run.EndingAt.Before(run.Hard), "%s ends before GitHub was asked", run.ID)
	}
	is(run.State.Usable() || run.Config.Sealed == "", "%s is %s and keeps a config that it may no longer answer", run.ID, run.State)
	is(run.DueAt.IsZero() == (run.State == store.RunnerFailed) || run.State == store.RunnerEnded, "%s is %s and due at %v", run.ID, run.State, run.DueAt)
	if !run.OnlineAt.IsZero() || run.State != store.RunnerBooting {
		return
	}
	is(l.State == store.LockLaunching, "%s boots on a lock that is %s", run.ID, l.State)
}

// checkRunnerSince holds one change of a runner.
func (w *world) checkRunnerSince(was, run store.Runner, is func(bool, string, ...any)) {
	if !run.CalledAt.Equal(was.CalledAt) {
		w.known.slots = append(w.known.slots, run.CalledAt)
		slices.SortFunc(w.known.slots, time.Time.Compare)
		for i, first := range w.known.slots {
			for j := i + 5; j < len(w.known.slots); j++ {
				least := time.Duration(j-i-4) * 500 * time.Millisecond
				is(w.known.slots[j].Sub(first) >= least, "%d launches within %v", j-i+1, w.known.slots[j].Sub(first))
			}
		}
	}
	for _, name := range run.Names {
		if !slices.ContainsFunc(was.Names, func(o store.GitHubName) bool { return o.N == name.N }) {
			is(!w.known.names[name.Name], "%s has the name %s a second time", run.ID, name.Name)
			w.known.names[name.Name] = true
		}
	}
	if was.Version == 0 {
		is(run.State == store.RunnerNew, "%s begins as %s", run.ID, run.State)
		return
	}
	is(run.Hard.Equal(was.Hard), "hard of %s moved from %v to %v", run.ID, was.Hard, run.Hard)
	is(run.Index >= was.Index, "index of %s fell from %d to %d", run.ID, was.Index, run.Index)
	is(run.Config.N >= was.Config.N && run.Wanted >= was.Wanted, "the config of %s fell", run.ID)
	is(was.InstanceID == "" || run.InstanceID == was.InstanceID, "instance of %s changed", run.ID)
	is(was.Boot.NonceHash == "" || run.Boot.NonceHash == was.Boot.NonceHash, "nonce of %s changed", run.ID)
	l := w.known.locks[run.Lock]
	is(!was.Boot.At.IsZero() || run.Boot.At.IsZero() || run.Boot.At.Before(l.BootBy), "%s boots at %v, and had to by %v", run.ID, run.Boot.At, l.BootBy)
	is(run.Wanted == was.Wanted || run.State == store.RunnerOnline && l.State == store.LockLive && run.Mode == store.Shared, "%s is %s on a lock that is %s, and wants another config", run.ID, run.State, l.State)
	is(was.Boot.At.IsZero() || run.Boot.At.Equal(was.Boot.At), "boot of %s moved", run.ID)
	is(was.OnlineAt.IsZero() || run.OnlineAt.Equal(was.OnlineAt), "online_at of %s moved", run.ID)
	is(was.State == run.State || slices.Contains(runnerMoves[was.State], run.State), "%s went from %s to %s", run.ID, was.State, run.State)
	if was.State == store.RunnerDraining && run.State == store.RunnerEnding && was.IdleAt.IsZero() { // a job that starts takes it back
		runs := !was.Job.StartedAt.IsZero() && was.Job.EndedAt.IsZero()
		is(!runs || w.off[run.ID] || run.End.Code == store.EndCompromised || !run.EndingAt.Before(run.Hard), "%s ends under a job that began at %v", run.ID, was.Job.StartedAt)
	}
	if was.InstanceID == "" && run.InstanceID != "" && was.State != store.RunnerDraining && was.State != store.RunnerEnding {
		is(l.Names(run.ID), "%s was launched without a lock", run.ID)
	}
}

// checkRequest holds a request, and one change of it.
func (w *world) checkRequest(was, r store.Request, is func(bool, string, ...any)) {
	is(!was.State.Final() || was.Version == 0 || was.Version == r.Version, "%s was %s and changed", r.ID, was.State)
	is(was.Version == 0 || was.State == r.State || slices.Contains(requestMoves[was.State], r.State), "%s went from %s to %s", r.ID, was.State, r.State)
	is(r.State.Final() == r.DueAt.IsZero(), "%s is %s and due at %v", r.ID, r.State, r.DueAt)
	is(r.State.Final() == (r.TTL != 0), "%s is %s with a TTL of %d", r.ID, r.State, r.TTL)
	is((r.Error != nil) == (r.State.Final() && r.State != store.Ready), "%s is %s with error %v", r.ID, r.State, r.Error)
	if r.State == store.Ready {
		is(!w.known.runners[r.Runner].OnlineAt.IsZero(), "%s is ready, and %s was never online", r.ID, r.Runner)
		is(!w.known.runners[r.Runner].OnlineAt.After(r.GiveUpAt), "%s is ready, and %s was online at %v, after give_up_at %v", r.ID, r.Runner, w.known.runners[r.Runner].OnlineAt, r.GiveUpAt)
	}
	if was.State == store.Accepted && r.State == store.Ready {
		l := w.known.locks[r.LockKey()]
		is(l.State == store.LockLive && l.Runner == r.Runner && r.ReadyAt.Sub(l.ConfirmedAt) <= lim.Confirmed, "%s shares %s of a lock that is %s, names %s and was confirmed at %v", r.ID, r.Runner, l.State, l.Runner, l.ConfirmedAt)
	}
	if r.State == store.Waiting {
		run := w.known.runners[r.Runner]
		is(run.Version > 0 && run.Lock == r.LockKey(), "%s waits for %s of lock %s", r.ID, r.Runner, run.Lock)
	}
	if r.State == store.Accepted {
		is(r.Runner == "", "%s is accepted and has runner %s", r.ID, r.Runner)
	}
	if was.State == store.Waiting && r.State == store.Accepted {
		run := w.known.runners[was.Runner]
		is(!run.State.Usable() && run.OnlineAt.IsZero() && (run.State.Final() || run.Boot.At.IsZero() || !run.DeregisteredAt.IsZero()),
			"%s gave up %s, which is %s, booted %v, deregistered %v", r.ID, was.Runner, run.State, run.Boot.At, run.DeregisteredAt)
		is(r.Tries == was.Tries+1, "%s gave up a runner and counts %d tries after %d", r.ID, r.Tries, was.Tries)
	}
}

// checkLock holds a lock against the runner that it names.
func (w *world) checkLock(l store.Lock, is func(bool, string, ...any)) {
	is(!l.Exp.After(l.Hard), "exp %v of lock %s is past its hard limit %v", l.Exp, l.Key, l.Hard)
	if !l.Names(l.Runner) {
		is(l.Runner == "" && l.Free(), "lock %s is %s and holds %q", l.Key, l.State, l.Runner)
		return
	}
	run := w.known.runners[l.Runner]
	is(l.TTL == 0, "lock %s names a runner and has a TTL", l.Key)
	is(run.Lock == l.Key && run.Hard.Equal(l.Hard), "lock %s names %s of lock %s, hard %v and %v", l.Key, run.ID, run.Lock, l.Hard, run.Hard)
	switch l.State {
	case store.LockLaunching:
		is(run.State.Usable() && run.OnlineAt.IsZero(), "lock %s is launching, and %s is %s", l.Key, run.ID, run.State)
	case store.LockLive:
		is(run.State.Usable() && !run.OnlineAt.IsZero(), "lock %s is live, and %s is %s", l.Key, run.ID, run.State)
		is(l.ConfirmedAt.IsZero() || run.Registered(), "lock %s is confirmed, and %s has no config that a job can come by", l.Key, run.ID)
	case store.LockDraining:
		is(!run.State.Usable() && !run.State.Final(), "lock %s is draining, and %s is %s", l.Key, run.ID, run.State)
	}
}

// checkLockSince holds one change of a lock; index is the one that its runner had.
func (w *world) checkLockSince(was, l store.Lock, index int, is func(bool, string, ...any)) {
	if from := cmp.Or(was.State, store.LockEmpty); l.Version > 0 {
		is(from == l.State || slices.Contains(lockMoves[from], l.State), "lock %s went from %s to %s", l.Key, from, l.State)
	}
	if l.Runner == "" {
		return
	}
	if was.Runner != l.Runner {
		is(was.Free(), "lock %s went from %s, which it did not give up, to %s", l.Key, was.Runner, l.Runner)
		is(l.Joined == "", "lock %s begins with %s joined", l.Key, l.Joined)
		return
	}
	is(!l.Exp.Before(was.Exp), "exp of lock %s fell from %v to %v", l.Key, was.Exp, l.Exp)
	is(was.Joined == "" || l.Joined == was.Joined, "joined of lock %s changed from %s to %s", l.Key, was.Joined, l.Joined)
	if run := w.known.runners[l.Runner]; !l.BootBy.Equal(was.BootBy) && run.Index == index {
		is(run.InstanceID != "" && run.Config.N == 0 && !w.raised[l.Runner], "boot_by of lock %s moved and the index did not", l.Key)
		is(!l.BootBy.After(l.Hard) && !l.BootBy.After(w.now.Add(lim.ConfigLimit)), "boot_by of lock %s moved to %v", l.Key, l.BootBy)
		w.raised[l.Runner] = true
	}
	is(!l.BootBy.Before(was.BootBy), "boot_by of lock %s fell", l.Key)
}

// mistake is a rule that is applied where it does not belong; it must refuse.
func (w *world) mistake() {
	run := w.anyRunner()
	r := get[store.Request](w, one(w, worldRequests...))
	if run.Version == 0 || r.Version == 0 {
		return
	}
	c := w.around(run)
	var d store.Decision
	switch w.draw(7) {
	case 0:
		if run.InstanceID != "" {
			d, _ = c.Launched(w.now, "i-another")
		}
	case 1:
		n := run.Config.N + w.draw(3)
		if name, ok := run.NextName(); ok && name.N == n && run.State.Usable() {
			return // it is no mistake, but nobody has minted it
		}
		d = c.Configure(w.now, n, "sealed", 1, "")
	case 2:
		if run.State != store.RunnerDraining {
			d = c.Ending(w.now, "too early")
		}
	case 3:
		if run.State.Final() {
			d, _ = c.Finish(w.now, lim, store.Instance{ID: run.InstanceID}, "again", store.Price{})
		}
	case 4:
		if !run.State.Usable() {
			d = c.Drain(w.now, store.NewEnd(store.EndIdle))
		}
	case 5:
		if r.State != store.Waiting || r.Runner != run.ID {
			d = c.With(&r).Settle(w.now, lim)
		}
	case 6:
		if r.State.Final() {
			only := store.Case{Request: r}
			var all store.Batch
			all.Add(only.Fail(w.now, lim, store.Failure{Code: "x"}))
			all.Add(only.Stop(w.now, lim, "x", true))
			all.Add(only.Expire(w.now.Add(time.Hour), lim))
			d.Changes = all.Changes
		}
	}
	if len(d.Changes) > 0 {
		w.Fatalf("a mistake with %s and %s changes something: %s", run.ID, r.ID, told(d.Changes))
	}
}
