package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var commitTests = []test{
	{"EveryPutRaisesTheVersionByOne", func(t *testing.T, s store.Store) {
		r := request("r")
		for want := int64(1); want <= 3; want++ {
			r.Tries = int(want)
			commit(t, s, store.Put(r))
			if r.Version != want {
				t.Errorf("Version after put %d = %d, want %d", want, r.Version, want)
			}
			equal(t, "stored item", reread(t, s, r), r)
		}
	}},
	{"StaleVersionConflicts", func(t *testing.T, s store.Store) {
		r := request("r")
		create(t, s, r)
		stale := *r
		r.Tries = 1
		commit(t, s, store.Put(r))
		stale.Tries = 2
		before := stale
		err := s.Commit(t.Context(), store.Put(&stale))
		equal(t, "Current", conflict(t, err, r.Ref())[0], r)
		equal(t, "the caller's item", &stale, &before)
		equal(t, "stored item", reread(t, s, r), r)
	}},
	{"VersionOfTheFutureConflicts", func(t *testing.T, s store.Store) {
		r := request("r")
		create(t, s, r)
		ahead := *r
		ahead.Version = 2
		conflict(t, s.Commit(t.Context(), store.Put(&ahead)), r.Ref())
		version(t, s, r.Ref(), 1)
	}},
	{"CreateOfAnExistingItemConflicts", func(t *testing.T, s store.Store) {
		r := request("r")
		create(t, s, r)
		again := request("r")
		equal(t, "Current", conflict(t, s.Commit(t.Context(), store.Put(again)), r.Ref())[0], r)
		if again.Version != 0 {
			t.Errorf("Version of the item that lost = %d, want 0", again.Version)
		}
		version(t, s, r.Ref(), 1)
	}},
	{"UpdateOfAnAbsentItemConflicts", func(t *testing.T, s store.Store) {
		r := request("r")
		r.Version = 1
		current := conflict(t, s.Commit(t.Context(), store.Put(r)), r.Ref())[0]
		equal(t, "Current", current, &store.Request{ID: "r"})
		version(t, s, r.Ref(), 0)
	}},
	{"OneLostMemberUndoesAll", func(t *testing.T, s store.Store) {
		won, lost, checked, free := request("won"), lock("lost"), runner("checked"), &store.Quota{Account: "free"}
		create(t, s, won, lost, checked)
		stale := *lost
		lost.Runner = "x"
		commit(t, s, store.Put(lost))
		won.Tries = 1
		err := s.Commit(t.Context(), store.Put(won), store.Check(checked), store.Put(free), store.Put(&stale))
		equal(t, "Current", conflict(t, err, lost.Ref())[0], lost)
		if won.Version != 1 || free.Version != 0 || stale.Version != 1 {
			t.Errorf("versions of the caller's items = %d, %d, %d; want 1, 0, 1 as before", won.Version, free.Version, stale.Version)
		}
		if got := reread(t, s, won); got.Tries != 0 || got.Version != 1 {
			t.Errorf("a member of the commit that lost was written: %+v", got)
		}
		version(t, s, free.Ref(), 0)
		version(t, s, lost.Ref(), 2)
	}},
	{"EveryLostMemberIsShown", func(t *testing.T, s store.Store) {
		here, gone, held := request("here"), lock("gone"), runner("held")
		create(t, s, here, held)
		staleHere := request("here")
		gone.Version = 4
		err := s.Commit(t.Context(), store.Put(staleHere), store.Put(held), store.Check(gone))
		current := conflict(t, err, here.Ref(), gone.Ref())
		equal(t, "Current", current[0], here)
		equal(t, "Current", current[1], &store.Lock{Key: "gone"})
		version(t, s, held.Ref(), 1)
	}},
	{"AllMembersCommitTogether", func(t *testing.T, s store.Store) {
		r, l, run, q := request("r"), lock("k"), runner("x"), &store.Quota{Account: "1", Live: 1}
		commit(t, s, store.Put(r), store.Put(l), store.Put(run), store.Put(q))
		for _, i := range []store.Item{r, l, run, q} {
			if i.Base().Version != 1 {
				t.Errorf("Version of %s = %d, want 1", i.Ref(), i.Base().Version)
			}
			equal(t, "stored item", stored(t, s, i.Ref()), i)
		}
	}},
	{"CheckOfAChangedItemConflicts", func(t *testing.T, s store.Store) {
		l, r := lock("k"), request("r")
		create(t, s, l)
		stale := *l
		l.Runner = "x"
		commit(t, s, store.Put(l))
		equal(t, "Current", conflict(t, s.Commit(t.Context(), store.Put(r), store.Check(&stale)), l.Ref())[0], l)
		version(t, s, r.Ref(), 0)
	}},
	{"CheckOfAnAbsentItemHoldsUntilItIsThere", func(t *testing.T, s store.Store) {
		r := request("r")
		commit(t, s, store.Put(r), store.Check(&store.Lock{Key: "k"}))
		create(t, s, lock("k"))
		conflict(t, s.Commit(t.Context(), store.Put(r), store.Check(&store.Lock{Key: "k"})), lock("k").Ref())
		version(t, s, r.Ref(), 1)
	}},
	{"CheckWritesNothing", func(t *testing.T, s store.Store) {
		l, r := lock("k"), request("r")
		create(t, s, l)
		seen := *l
		seen.Runner = "never written"
		commit(t, s, store.Put(r), store.Check(&seen))
		if seen.Version != 1 {
			t.Errorf("Version of the checked item = %d, want 1 as before", seen.Version)
		}
		equal(t, "checked item", reread(t, s, l), l)
	}},
	{"CheckAloneIsACommit", func(t *testing.T, s store.Store) {
		l := lock("k")
		create(t, s, l)
		commit(t, s, store.Check(l))
		version(t, s, l.Ref(), 1)
		conflict(t, s.Commit(t.Context(), store.Check(lock("k"))), l.Ref())
	}},
	{"CallersKeepWhatTheyPut", func(t *testing.T, s store.Store) {
		r, run := request("r"), runner("x")
		commit(t, s, store.Put(r), store.Put(run))
		r.Labels[0], run.Launch.Tags["a"] = "changed", "changed"
		if got := reread(t, s, r).Labels[0]; got != "a" {
			t.Errorf("a slice of the stored request is the caller's: %q", got)
		}
		if got := reread(t, s, run).Launch.Tags["a"]; got != "b" {
			t.Errorf("a map of the stored runner is the caller's: %q", got)
		}
	}},
	{"CallersOwnWhatAConflictShows", func(t *testing.T, s store.Store) {
		run := runner("x")
		create(t, s, run)
		current := conflict(t, s.Commit(t.Context(), store.Put(runner("x"))), run.Ref())[0].(*store.Runner)
		current.Launch.Tags["a"] = "changed"
		equal(t, "stored item", reread(t, s, run), run)
	}},
	{"MaxChangesCommitTogether", func(t *testing.T, s store.Store) {
		l := lock("k")
		create(t, s, l)
		changes := []store.Change{store.Check(l)}
		for n := 1; n < store.MaxChanges; n++ {
			changes = append(changes, store.Put(request(fmt.Sprintf("r%d", n))))
		}
		commit(t, s, changes...)
		for _, c := range changes[1:] {
			equal(t, "stored item", stored(t, s, c.Item.Ref()), c.Item)
		}
		l.Runner = "x"
		commit(t, s, store.Put(l))
		changes[0] = store.Check(lock("k"))
		conflict(t, s.Commit(t.Context(), changes...), l.Ref())
		for _, c := range changes[1:] {
			version(t, s, c.Item.Ref(), 1)
		}
	}},
	{"MisuseIsRefused", func(t *testing.T, s store.Store) {
		r := request("r")
		tooMany := []store.Change{store.Put(r)}
		for n := range store.MaxChanges {
			tooMany = append(tooMany, store.Put(request(fmt.Sprintf("r%d", n))))
		}
		for _, c := range []struct {
			name    string
			changes []store.Change
		}{
			{"no change", nil},
			{"too many changes", tooMany},
			{"an item put twice", []store.Change{store.Put(r), store.Put(request("r"))}},
			{"an item put and checked", []store.Change{store.Put(r), store.Check(request("r"))}},
			{"an item without an id", []store.Change{store.Put(r), store.Put(request(""))}},
			{"a change without an item", []store.Change{store.Put(r), {}}},
		} {
			refused(t, "Commit of "+c.name, s.Commit(t.Context(), c.changes...))
			if r.Version != 0 {
				t.Errorf("Commit of %s: the caller's item has version %d, want 0 as before", c.name, r.Version)
			}
			version(t, s, r.Ref(), 0)
		}
	}},
	{"CancelledContextChangesNothing", func(t *testing.T, s store.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r := request("r")
		if err := s.Commit(ctx, store.Put(r)); !errors.Is(err, context.Canceled) {
			t.Errorf("Commit after cancel = %v, want context.Canceled", err)
		}
		if r.Version != 0 {
			t.Errorf("Version after cancel = %d, want 0", r.Version)
		}
		version(t, s, r.Ref(), 0)
	}},
}

// signed returns i with a mark of the commit that writes it.
func signed[I store.Item](i I, writer string) I {
	i.Base().Writer = writer
	return i
}

var ownWriteTests = []test{
	{"LostAnswerOfACreateIsRecognised", func(t *testing.T, s store.Store) {
		r := signed(request("r"), "a/1")
		repeat := *r
		commit(t, s, store.Put(r))
		commit(t, s, store.Put(&repeat))
		if repeat.Version != 1 {
			t.Errorf("Version after the repeated commit = %d, want 1", repeat.Version)
		}
		version(t, s, r.Ref(), 1)
	}},
	{"LostAnswerOfAnUpdateIsRecognised", func(t *testing.T, s store.Store) {
		q := signed(&store.Quota{Account: "1"}, "a/1")
		create(t, s, q)
		q = signed(q, "a/2")
		q.Live++
		repeat := *q
		commit(t, s, store.Put(q))
		commit(t, s, store.Put(&repeat))
		if got := reread(t, s, q); got.Live != 1 || got.Version != 2 || repeat.Version != 2 {
			t.Errorf("after the repeated commit: live %d, version %d, the caller's %d; want 1, 2, 2", got.Live, got.Version, repeat.Version)
		}
	}},
	{"LostAnswerOfATransactionIsRecognised", func(t *testing.T, s store.Store) {
		l := signed(lock("k"), "a/1")
		create(t, s, l)
		r, run := signed(request("r"), "b/1"), signed(runner("x"), "b/1")
		again := []store.Change{store.Put(signed(request("r"), "b/1")), store.Put(signed(runner("x"), "b/1")), store.Check(&store.Lock{Meta: l.Meta, Key: "k"})}
		commit(t, s, store.Put(r), store.Put(run), store.Check(l))
		l = signed(l, "c/1")
		commit(t, s, store.Put(l)) // what was checked may have changed since
		commit(t, s, again...)
		for i, want := range []int64{1, 1, 1} {
			if got := again[i].Item.Base().Version; got != want {
				t.Errorf("version of %s after the repeated commit = %d, want %d", again[i].Item.Ref(), got, want)
			}
		}
		version(t, s, r.Ref(), 1)
		version(t, s, run.Ref(), 1)
	}},
	{"OneRecognisedMemberShowsThatAllWereWritten", func(t *testing.T, s store.Store) {
		r, run := signed(request("r"), "a/1"), signed(runner("x"), "a/1")
		again := []store.Change{store.Put(signed(request("r"), "a/1")), store.Put(signed(runner("x"), "a/1"))}
		commit(t, s, store.Put(r), store.Put(run))
		r = signed(r, "b/1")
		commit(t, s, store.Put(r)) // hides one of the two members
		commit(t, s, again...)
		version(t, s, r.Ref(), 2)
		version(t, s, run.Ref(), 1)
	}},
	{"HiddenOwnWriteConflictsAndIsShown", func(t *testing.T, s store.Store) {
		r := signed(request("r"), "a/1")
		repeat := *r
		commit(t, s, store.Put(r))
		r = signed(r, "b/1")
		r.Runner = "x"
		commit(t, s, store.Put(r))
		current := conflict(t, s.Commit(t.Context(), store.Put(&repeat)), r.Ref())
		equal(t, "Current", current[0], r)
	}},
	{"AnotherWritersVersionConflicts", func(t *testing.T, s store.Store) {
		commit(t, s, store.Put(signed(request("r"), "a/1")))
		conflict(t, s.Commit(t.Context(), store.Put(signed(request("r"), "a/2"))), request("r").Ref())
	}},
	{"UnsignedWriteIsNobodys", func(t *testing.T, s store.Store) {
		commit(t, s, store.Put(request("r")))
		conflict(t, s.Commit(t.Context(), store.Put(request("r"))), request("r").Ref())
	}},
	{"OldMarkOfTheSameWriterConflicts", func(t *testing.T, s store.Store) {
		r := signed(request("r"), "a/1")
		commit(t, s, store.Put(r))
		commit(t, s, store.Put(r)) // version 2 has the mark of version 1
		conflict(t, s.Commit(t.Context(), store.Put(signed(request("r"), "a/1"))), r.Ref())
		version(t, s, r.Ref(), 2)
	}},
	{"CheckIsNeverTakenForAWrite", func(t *testing.T, s store.Store) {
		commit(t, s, store.Put(signed(lock("k"), "a/1")))
		err := s.Commit(t.Context(), store.Put(signed(request("r"), "a/1")), store.Check(signed(lock("k"), "a/1")))
		conflict(t, err, lock("k").Ref())
		version(t, s, request("r").Ref(), 0)
	}},
}
