package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var kinds = []store.Kind{
	store.KindRequest, store.KindRunner, store.KindLock, store.KindPulse, store.KindQuota, store.KindSweep, store.KindSpares, store.KindPoints, store.KindPrices, store.KindCheck, store.KindUsage, store.KindReaperRun, store.KindOverflow,
}

var getTests = []test{
	{"ItemsComeInTheOrderOfTheirRefs", func(t *testing.T, s store.Store) {
		b, a, k := request("b"), runner("a"), lock("k")
		create(t, s, b, a, k)
		want := []store.Item{a, &store.Lock{Key: "absent"}, b, k, a}
		refs := make([]store.Ref, len(want))
		for n, i := range want {
			refs[n] = i.Ref()
		}
		got, err := s.Get(t.Context(), refs...)
		if err != nil || len(got) != len(want) {
			t.Fatalf("Get(%v) = %d items, %v; want %d", refs, len(got), err, len(want))
		}
		for n := range want {
			equal(t, fmt.Sprintf("item %d", n), got[n], want[n])
		}
	}},
	{"NoRefsGiveNoItems", func(t *testing.T, s store.Store) {
		if got, err := s.Get(t.Context()); err != nil || len(got) != 0 {
			t.Errorf("Get() = %v, %v; want no item", got, err)
		}
	}},
	{"AHundredItemsComeInOneCall", func(t *testing.T, s store.Store) {
		var changes []store.Change
		var refs []store.Ref
		for n := range store.MaxChanges {
			r := request(fmt.Sprintf("r%d", n))
			changes, refs = append(changes, store.Put(r)), append(refs, r.Ref())
		}
		commit(t, s, changes...)
		slices.Reverse(refs)
		got, err := s.Get(t.Context(), refs...)
		if err != nil || len(got) != len(refs) {
			t.Fatalf("Get of %d refs = %d items, %v", len(refs), len(got), err)
		}
		for n, i := range got {
			if i.Ref() != refs[n] || i.Base().Version != 1 {
				t.Errorf("item %d = %s version %d, want %s version 1", n, i.Ref(), i.Base().Version, refs[n])
			}
		}
	}},
	{"CallersOwnWhatTheyGet", func(t *testing.T, s store.Store) {
		run := runner("x")
		create(t, s, run)
		got, err := s.Get(t.Context(), run.Ref(), run.Ref())
		if err != nil {
			t.Fatal(err)
		}
		got[0].(*store.Runner).Launch.Tags["a"] = "changed"
		equal(t, "the other copy", got[1], run)
		equal(t, "stored item", reread(t, s, run), run)
	}},
	{"EqualIDsOfTwoKindsAreTwoItems", func(t *testing.T, s store.Store) {
		create(t, s, request("same"), runner("same"), lock("same"))
		for _, i := range []store.Item{request("same"), runner("same"), lock("same")} {
			version(t, s, i.Ref(), 1)
		}
		version(t, s, store.Ref{Kind: store.KindPulse, ID: "same"}, 0)
	}},
	{"IDsAreKeptToTheByte", func(t *testing.T, s store.Store) {
		for _, id := range []string{"a/b/c,d", "a#b", "A", "a", " a", "a%", "ä", "日本", `a"b\c'd`, "a_b", "axb"} {
			create(t, s, &store.Lock{Key: id, Runner: id})
		}
		for _, id := range []string{"a/b/c,d", "a#b", "A", "a", " a", "a%", "ä", "日本", `a"b\c'd`, "a_b", "axb"} {
			if got := reread(t, s, &store.Lock{Key: id}); got.Runner != id {
				t.Errorf("lock %q names %q, want the same", id, got.Runner)
			}
		}
	}},
	{"EveryFieldOfEveryKindComesBack", func(t *testing.T, s store.Store) {
		for _, kind := range kinds {
			full := filled(t, kind)
			full.Base().Version = 0
			commit(t, s, store.Put(full))
			equal(t, string(kind), stored(t, s, full.Ref()), full)
		}
	}},
	{"EmptiedFieldsComeBackEmpty", func(t *testing.T, s store.Store) {
		for _, kind := range kinds {
			full := filled(t, kind)
			full.Base().Version = 0
			commit(t, s, store.Put(full))
			blank, err := store.New(full.Ref())
			if err != nil {
				t.Fatal(err)
			}
			blank.Base().Version = 1
			commit(t, s, store.Put(blank))
			equal(t, string(kind), stored(t, s, full.Ref()), blank)
		}
	}},
	{"MisuseIsRefused", func(t *testing.T, s store.Store) {
		for _, ref := range []store.Ref{{Kind: store.KindRequest}, {Kind: "machine", ID: "x"}, {}} {
			_, err := s.Get(t.Context(), request("r").Ref(), ref)
			refused(t, fmt.Sprintf("Get(%+v)", ref), err)
		}
	}},
	{"CancelledContextIsAnError", func(t *testing.T, s store.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Get(ctx, request("r").Ref()); !errors.Is(err, context.Canceled) {
			t.Errorf("Get after cancel = %v, want context.Canceled", err)
		}
	}},
}

// at returns i with a time at which it is due.
func at[I store.Item](i I, due time.Time) I {
	i.Base().DueAt = due
	return i
}

var dueTests = []test{
	{"OldestComesFirst", func(t *testing.T, s store.Store) {
		half := epoch.Add(500 * time.Millisecond)
		third := at(request("third"), epoch.Add(time.Second))
		first, second := at(runner("first"), epoch), at(&store.Sweep{Key: "second"}, half)
		create(t, s, third, first, second)
		due(t, s, epoch.Add(time.Hour), first.Ref(), second.Ref(), third.Ref())
	}},
	{"BeforeIsInclusive", func(t *testing.T, s store.Store) {
		early, late := at(request("early"), epoch), at(request("late"), epoch.Add(time.Millisecond))
		create(t, s, early, late)
		due(t, s, epoch.Add(-time.Millisecond))
		due(t, s, epoch, early.Ref())
		due(t, s, epoch.Add(time.Millisecond), early.Ref(), late.Ref())
	}},
	{"TheZoneOfATimeDoesNotMatter", func(t *testing.T, s store.Store) {
		east := time.FixedZone("east", 5*3600)
		a, b := at(request("a"), epoch.In(east)), at(request("b"), epoch.Add(time.Minute))
		create(t, s, a, b)
		due(t, s, epoch.Add(time.Second).In(east), a.Ref())
	}},
	{"ItemsWithoutDueAtAreNotInTheIndex", func(t *testing.T, s store.Store) {
		create(t, s, request("r"), lock("k"))
		in := at(request("in"), epoch)
		create(t, s, in)
		due(t, s, epoch.Add(24*365*time.Hour), in.Ref())
	}},
	{"UpdatesMoveAndRemoveTheEntry", func(t *testing.T, s store.Store) {
		r, still := at(request("r"), epoch), at(request("still"), epoch.Add(time.Minute))
		create(t, s, r, still)
		due(t, s, epoch.Add(time.Hour), r.Ref(), still.Ref())
		commit(t, s, store.Put(at(r, epoch.Add(2*time.Minute))))
		due(t, s, epoch.Add(time.Hour), still.Ref(), r.Ref())
		due(t, s, epoch.Add(time.Minute), still.Ref())
		commit(t, s, store.Put(at(r, time.Time{})))
		due(t, s, epoch.Add(time.Hour), still.Ref())
	}},
	{"ALostCommitMovesNothing", func(t *testing.T, s store.Store) {
		r := at(request("r"), epoch)
		create(t, s, r)
		stale := at(request("r"), epoch.Add(time.Hour))
		conflict(t, s.Commit(t.Context(), store.Put(stale), store.Put(at(request("other"), epoch))), r.Ref())
		due(t, s, epoch.Add(2*time.Hour), r.Ref())
	}},
	{"ManyAreAllFoundAndCanBeChangedMeanwhile", func(t *testing.T, s store.Store) {
		var want []store.Ref
		for page := range 6 { // more than one page of any backend's default
			var changes []store.Change
			for n := range store.MaxChanges {
				n += page * store.MaxChanges
				r := at(request(fmt.Sprintf("r%03d", n)), epoch.Add(time.Duration(n)*time.Second))
				changes, want = append(changes, store.Put(r)), append(want, r.Ref())
			}
			commit(t, s, changes...)
		}
		due(t, s, epoch.Add(time.Hour), want...)
		found := 0
		for ref, err := range s.Due(t.Context(), epoch.Add(time.Hour)) {
			if err != nil {
				t.Fatalf("Due: %v", err)
			}
			found++
			if found%50 == 0 {
				commit(t, s, store.Put(at(stored(t, s, ref), time.Time{})))
			}
		}
		if found != len(want) {
			t.Errorf("Due yielded %d items, want %d", found, len(want))
		}
	}},
	{"IterationCanStopAndStartAgain", func(t *testing.T, s store.Store) {
		a, b := at(request("a"), epoch), at(request("b"), epoch.Add(time.Second))
		create(t, s, a, b)
		due(t, s, epoch.Add(time.Hour), a.Ref(), b.Ref())
		seq := s.Due(t.Context(), epoch.Add(time.Hour))
		for range 2 {
			for ref, err := range seq {
				if err != nil || ref != a.Ref() {
					t.Errorf("first of Due = %v, %v; want %v", ref, err, a.Ref())
				}
				break
			}
		}
	}},
	{"CancelledContextIsAnError", func(t *testing.T, s store.Store) {
		create(t, s, at(request("r"), epoch))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var last error
		for _, err := range s.Due(ctx, epoch.Add(time.Hour)) {
			last = err
		}
		if !errors.Is(last, context.Canceled) {
			t.Errorf("last error of Due after cancel = %v, want context.Canceled", last)
		}
	}},
}

// made returns a request of that id which was made so many seconds after epoch.
func made(id string, after int) *store.Request {
	r := request(id)
	r.CreatedAt = epoch.Add(time.Duration(after) * time.Second)
	return r
}

// followed lists all that f means, and returns its ids and how many lists that took.
func followed(t *testing.T, s store.Store, f store.Filter) (ids []string, lists int) {
	t.Helper()
	for {
		lists++
		found, more := 0, false
		for i, err := range s.List(t.Context(), f) {
			if m, ok := errors.AsType[*store.MoreError](err); ok {
				if m.After == "" || f.After != "" && m.After >= f.After {
					t.Fatalf("List(%+v) continues after %s, which is no progress", f, m.After)
				}
				f.After, more = m.After, true
				break
			}
			if err != nil {
				t.Fatalf("List(%+v): %v", f, err)
			}
			ids, found = append(ids, i.Ref().ID), found+1
			if found == f.Limit {
				f.After, more = store.Cursor(i), true
			}
		}
		if !more {
			return ids, lists
		}
	}
}

var listTests = []test{
	{"NewestComesFirst", func(t *testing.T, s store.Store) {
		half := made("half", 0)
		half.CreatedAt = epoch.Add(500 * time.Millisecond)
		create(t, s, made("old", 0), made("new", 60), made("middle", 30), half, made("same-a", 10), made("same-b", 10))
		listed(t, s, store.Filter{}, "new", "middle", "same-b", "same-a", "half", "old")
	}},
	{"KindsAreListedApart", func(t *testing.T, s store.Store) {
		create(t, s, made("r", 0), runner("x"), lock("k"), &store.Quota{Account: "1"})
		listed(t, s, store.Filter{}, "r")
		listed(t, s, store.Filter{Kind: store.KindRequest}, "r")
		listed(t, s, store.Filter{Kind: store.KindRunner}, "x")
		for _, kind := range []store.Kind{store.KindLock, store.KindQuota, "machine"} {
			var got error
			for _, err := range s.List(t.Context(), store.Filter{Kind: kind}) {
				got = err
			}
			refused(t, "List of "+string(kind), got)
		}
	}},
	{"UsageIsListedByDay", func(t *testing.T, s store.Store) {
		of := func(day int, repo string) *store.Usage {
			r := store.Repository{ID: repo, Name: "alphagov/" + repo}
			return &store.Usage{ID: store.UsageRef(epoch.AddDate(0, 0, day), r).ID, Repository: r, Rows: []store.UsageRow{{Runners: 1}}}
		}
		a, b, c, d := of(0, "1"), of(1, "1"), of(1, "2"), of(3, "1")
		create(t, s, made("r", 0), d, b, a, c)
		usage := func(f store.Filter, want ...*store.Usage) {
			t.Helper()
			var ids []string
			for _, u := range want {
				ids = append(ids, u.ID)
			}
			f.Kind = store.KindUsage
			listed(t, s, f, ids...)
		}
		usage(store.Filter{}, d, c, b, a)
		usage(store.Filter{Repository: "1"}, d, b, a)
		usage(store.Filter{Since: epoch.AddDate(0, 0, 1).Truncate(24 * time.Hour)}, d, c, b)
		usage(store.Filter{Limit: 1}, d)
	}},
	{"AllFieldsOfTheFilterMustMatch", func(t *testing.T, s store.Store) {
		mine, theirs, done := made("mine", 1), made("theirs", 2), made("done", 3)
		theirs.Repository.ID = "43"
		done.State = store.Ready
		busy, idle := runner("busy"), runner("idle")
		busy.State, idle.Repository.ID = store.RunnerBusy, "43"
		create(t, s, mine, theirs, done, busy, idle)
		listed(t, s, store.Filter{Repository: "42"}, "done", "mine")
		listed(t, s, store.Filter{States: []string{"accepted"}}, "theirs", "mine")
		listed(t, s, store.Filter{Repository: "42", States: []string{"accepted"}}, "mine")
		listed(t, s, store.Filter{Repository: "44"})
		listed(t, s, store.Filter{Kind: store.KindRunner, States: []string{"busy"}}, "busy")
		listed(t, s, store.Filter{Kind: store.KindRunner, Repository: "43"}, "idle")
	}},
	{"EveryFieldOfTheFilterNarrows", func(t *testing.T, s store.Store) {
		for n, id := range []string{"a", "b", "c", "d"} {
			r, run := made(id, n*10), runner(id)
			run.CreatedAt = r.CreatedAt
			r.State, run.State = []store.RequestState{store.Ready, store.Failed, store.Expired, store.Waiting}[n], store.RunnerOnline
			r.Account, run.Account = fmt.Sprint("1", n%2), fmt.Sprint("1", n%2)
			r.Region, run.Region = fmt.Sprint("eu-", n/2), fmt.Sprint("eu-", n/2)
			if n == 2 {
				r.Repository.Name = "alphagov/Other"
			}
			create(t, s, r, run)
		}
		listed(t, s, store.Filter{States: []string{"failed", "expired"}}, "c", "b")
		listed(t, s, store.Filter{States: []string{"failed", "expired"}, Name: "AlphaGov/other"}, "c")
		listed(t, s, store.Filter{Name: "alphagov/x", Limit: 2}, "d", "b")
		listed(t, s, store.Filter{Kind: store.KindRunner, Account: "11"}, "d", "b")
		listed(t, s, store.Filter{Kind: store.KindRunner, Account: "11", Region: "eu-0"}, "b")
		listed(t, s, store.Filter{Region: "eu-1", Limit: 1}, "d")
		listed(t, s, store.Filter{Account: "1"})
	}},
	{"WhatLivesIsListedBehindAnyNumberOfOthers", func(t *testing.T, s store.Store) {
		for n, state := range slices.Concat(store.RunnerStates, store.RunnerStates) {
			run := runner(fmt.Sprintf("%c-%s", 'a'+n, state))
			run.State, run.CreatedAt, run.Account = state, epoch.Add(time.Duration(n)*time.Second), fmt.Sprint("1", n%2)
			create(t, s, run)
		}
		gone := runner("gone")
		gone.State = store.RunnerOnline
		create(t, s, gone)
		gone.State = store.RunnerEnded
		commit(t, s, store.Put(gone))
		live := []string{"new", "launched", "booting", "online", "busy", "draining", "ending"}
		f := store.Filter{Kind: store.KindRunner, States: live}
		want := []string{"p-ending", "o-draining", "n-busy", "m-online", "l-booting", "k-launched", "j-new", "g-ending", "f-draining", "e-busy", "d-online", "c-booting", "b-launched", "a-new"}
		listed(t, s, f, want...)
		listed(t, s, store.Filter{Kind: store.KindRunner, States: []string{"busy"}}, "n-busy", "e-busy")
		listed(t, s, store.Filter{Kind: store.KindRunner, States: live, Account: "11", Limit: 3}, "p-ending", "n-busy", "l-booting")
		listed(t, s, store.Filter{Kind: store.KindRunner, States: live, Since: epoch.Add(14 * time.Second)}, "p-ending", "o-draining")
		for _, look := range []int{2, 5} {
			f.Look, f.Limit = look, 3
			if got, _ := followed(t, s, f); !slices.Equal(got, want) {
				t.Errorf("List(%+v) = %v, want %v", f, got, want)
			}
		}
	}},
	{"SinceIsTheFirstOfAList", func(t *testing.T, s store.Store) {
		for n := range 9 {
			create(t, s, made(fmt.Sprint("r", n), n*10))
		}
		since := epoch.Add(40 * time.Second)
		listed(t, s, store.Filter{Since: since}, "r8", "r7", "r6", "r5", "r4")
		listed(t, s, store.Filter{Since: since.Add(time.Nanosecond)}, "r8", "r7", "r6", "r5")
		listed(t, s, store.Filter{Since: since, Repository: "42", Limit: 2}, "r8", "r7")
		listed(t, s, store.Filter{Since: since, After: store.Cursor(made("r6", 60))}, "r5", "r4")
		listed(t, s, store.Filter{Since: since, After: store.Cursor(made("r2", 20))})
		listed(t, s, store.Filter{Since: epoch.Add(time.Hour)})
		for _, f := range []store.Filter{{}, {Limit: 2}, {States: []string{"accepted"}}, {Name: "alphagov/x"}} {
			f.Since, f.Look = since, 2
			if got, lists := followed(t, s, f); !slices.Equal(got, []string{"r8", "r7", "r6", "r5", "r4"}) || lists > 5 {
				t.Errorf("List(%+v) = %v in %d lists, want r8 to r4 in at most 5", f, got, lists)
			}
		}
	}},
	{"ItemsAreFoundByInstanceAndRun", func(t *testing.T, s store.Store) {
		run, other := runner("x"), runner("y")
		create(t, s, run, other)
		listed(t, s, store.Filter{Kind: store.KindRunner, FoundBy: "i-1"})
		run.InstanceID, other.InstanceID = "i-1", "i-2"
		commit(t, s, store.Put(run), store.Put(other))
		one, two, old := made("one", 1), made("two", 2), made("old", 0)
		one.Origin.RunID, two.Origin.RunID, old.Origin.RunID = "7001", "7001", "700"
		two.State, two.Repository.ID = store.Failed, "43"
		create(t, s, one, two, old)
		listed(t, s, store.Filter{Kind: store.KindRunner, FoundBy: "i-1"}, "x")
		listed(t, s, store.Filter{FoundBy: "7001"}, "two", "one")
		listed(t, s, store.Filter{FoundBy: "7001", Look: 1}, "two", "one")
		listed(t, s, store.Filter{FoundBy: "7001", States: []string{"failed"}}, "two")
		listed(t, s, store.Filter{FoundBy: "7001", Repository: "42"}, "one")
		listed(t, s, store.Filter{FoundBy: "7001", After: store.Cursor(two)}, "one")
		listed(t, s, store.Filter{FoundBy: "i-1"})
		listed(t, s, store.Filter{Kind: store.KindRunner, FoundBy: "7001"})
		listed(t, s, store.Filter{FoundBy: "70"})
	}},
	{"WholeItemsAreYieldedAsTheyStand", func(t *testing.T, s store.Store) {
		r := made("r", 0)
		create(t, s, r)
		r.State, r.Tries = store.Waiting, 2
		commit(t, s, store.Put(r))
		want := encoded(t, r)
		eventually(t, func() error {
			for i, err := range s.List(t.Context(), store.Filter{States: []string{"waiting"}}) {
				if err != nil {
					return err
				}
				if got := encoded(t, i); !bytes.Equal(got, want) {
					return fmt.Errorf("List yields %s\nwant %s", got, want)
				}
				return nil
			}
			return errors.New("List yields nothing")
		})
		listed(t, s, store.Filter{States: []string{"accepted"}})
	}},
	{"PagesJoinWithoutGapOrRepeat", func(t *testing.T, s store.Store) {
		var want []string
		for n := range 7 {
			create(t, s, made(fmt.Sprintf("r%d", n), n/2)) // pairs were made at the same time
			want = append(want, fmt.Sprintf("r%d", n))
		}
		slices.Reverse(want)
		listed(t, s, store.Filter{}, want...)
		for limit := 1; limit <= 8; limit++ {
			var got []string
			f := store.Filter{Limit: limit}
			for page := 0; ; page++ {
				n := 0
				for i, err := range s.List(t.Context(), f) {
					if err != nil {
						t.Fatalf("List: %v", err)
					}
					got, f.After = append(got, i.Ref().ID), store.Cursor(i)
					n++
				}
				if n > limit {
					t.Fatalf("a page of limit %d has %d items", limit, n)
				}
				if n < limit {
					break
				}
				create(t, s, made(fmt.Sprintf("later-%d-%d", limit, page), 1000)) // newer ones disturb nobody
			}
			got = slices.DeleteFunc(got, func(id string) bool { return id[0] == 'l' }) // those of earlier rounds
			if !slices.Equal(got, want) {
				t.Errorf("pages of %d = %v, want %v", limit, got, want)
			}
		}
	}},
	{"LimitCountsWhatMatches", func(t *testing.T, s store.Store) {
		for n := range 6 {
			r := made(fmt.Sprintf("r%d", n), n)
			if n%2 == 0 {
				r.State = store.Ready
			}
			create(t, s, r)
		}
		listed(t, s, store.Filter{States: []string{"ready"}, Limit: 2}, "r4", "r2")
		listed(t, s, store.Filter{States: []string{"ready"}, Limit: 2, After: store.Cursor(made("r4", 4))}, "r2", "r0")
		listed(t, s, store.Filter{States: []string{"ready"}, Limit: 3}, "r4", "r2", "r0")
	}},
	{"LookBoundsWhatOneListReads", func(t *testing.T, s store.Store) {
		const all, look = 30, 7
		for n := range all {
			r := made(fmt.Sprintf("r%02d", n), n)
			if n%10 == 0 {
				r.State = store.Failed
			}
			create(t, s, r)
		}
		listed(t, s, store.Filter{States: []string{"failed"}}, "r20", "r10", "r00")
		for _, c := range []struct {
			f    store.Filter
			want []string
		}{
			{store.Filter{States: []string{"failed"}}, []string{"r20", "r10", "r00"}},
			{store.Filter{States: []string{"failed"}, Repository: "42"}, []string{"r20", "r10", "r00"}},
			{store.Filter{States: []string{"failed"}, Limit: 2}, []string{"r20", "r10", "r00"}},
			{store.Filter{States: []string{"expired"}, Limit: 2}, nil},
			{store.Filter{States: []string{"failed"}, Repository: "43"}, nil},
		} {
			c.f.Look = look
			got, lists := followed(t, s, c.f)
			if most := all/look + 2 + len(c.want); !slices.Equal(got, c.want) || lists > most {
				t.Errorf("List(%+v) = %v in %d lists, want %v in at most %d", c.f, got, lists, c.want, most)
			}
		}
	}},
	{"LookBoundsNothingThatIsFoundBefore", func(t *testing.T, s store.Store) {
		for n := range 5 {
			create(t, s, made(fmt.Sprintf("r%d", n), n))
		}
		listed(t, s, store.Filter{Look: 100}, "r4", "r3", "r2", "r1", "r0")
		listed(t, s, store.Filter{Look: 100, States: []string{"failed"}})
		listed(t, s, store.Filter{Look: 3, Limit: 3}, "r4", "r3", "r2")
		listed(t, s, store.Filter{Look: 3, Limit: 2, States: []string{"accepted"}}, "r4", "r3")
	}},
	{"ManyAreAllListed", func(t *testing.T, s store.Store) {
		var want []string
		for page := range 4 {
			var changes []store.Change
			for n := range store.MaxChanges {
				n += page * store.MaxChanges
				changes = append(changes, store.Put(made(fmt.Sprintf("r%03d", n), n)))
				want = append(want, fmt.Sprintf("r%03d", n))
			}
			commit(t, s, changes...)
		}
		slices.Reverse(want)
		listed(t, s, store.Filter{}, want...)
		listed(t, s, store.Filter{Limit: 350}, want[:350]...)
	}},
	{"IterationCanStopAndItemsBeChangedMeanwhile", func(t *testing.T, s store.Store) {
		create(t, s, made("a", 0), made("b", 1))
		listed(t, s, store.Filter{}, "b", "a")
		for i, err := range s.List(t.Context(), store.Filter{}) {
			if err != nil {
				t.Fatalf("List: %v", err)
			}
			commit(t, s, store.Put(i))
			break
		}
		version(t, s, request("b").Ref(), 2)
	}},
	{"CancelledContextIsAnError", func(t *testing.T, s store.Store) {
		create(t, s, made("r", 0))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var last error
		for _, err := range s.List(ctx, store.Filter{}) {
			last = err
		}
		if !errors.Is(last, context.Canceled) {
			t.Errorf("last error of List after cancel = %v, want context.Canceled", last)
		}
	}},
}
