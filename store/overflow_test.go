package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestAnOverflowHasEachRepositoryOnce(t *testing.T) {
	now := at(90 * time.Second)
	o := store.OverflowOf("111111111111", now)
	if later := store.OverflowOf("111111111111", now.Add(30*time.Second)); o.Key == later.Key || o.Version != 0 {
		t.Errorf("the overflow of 90 s is %s, and that of 120 s is %s; want another, and both absent", o.Key, later.Key)
	}
	if later := store.OverflowOf("111111111111", now.Add(29*time.Second)); o.Key != later.Key {
		t.Errorf("the overflow of 90 s is %s, and that of 119 s is %s; want the same", o.Key, later.Key)
	}
	for _, id := range []string{"42", "43"} {
		d := o.Full(now, id)
		if len(d.Changes) != 1 || d.Changes[0].CheckOnly {
			t.Fatalf("repository %s changes %+v, want it written", id, d.Changes)
		}
		o = *d.Changes[0].Item.(*store.Overflow)
	}
	if d := o.Full(now, "42"); len(d.Changes) != 0 {
		t.Errorf("a repository that is in it changes %+v, want nothing", d.Changes)
	}
	if !slices.Equal(o.Repositories, []string{"42", "43"}) || time.Unix(o.TTL, 0).Sub(now) != 48*time.Hour {
		t.Errorf("%q until %s, want 42 and 43 until two days are over", o.Repositories, time.Unix(o.TTL, 0))
	}
	for n := range 3000 {
		if d := o.Full(now, fmt.Sprint("r", n)); len(d.Changes) != 0 {
			o = *d.Changes[0].Item.(*store.Overflow)
		}
	}
	if n := len(o.Repositories); n != 2000 {
		t.Errorf("an overflow has %d repositories, want 2,000 at most", n)
	}
}

// A minute is read once, and not before what happened in it can be seen at GitHub.
func TestEachOverflowIsReadOnce(t *testing.T) {
	const account = "111111111111"
	now := at(100 * 24 * time.Hour).Truncate(time.Minute).Add(30 * time.Second)
	minute := func(at time.Time) string {
		o := store.OverflowOf(account, at)
		return o.Ref().String()
	}
	key := func(ago time.Duration) string { return minute(now.Add(-ago)) }
	minutes := func(o store.Overflows, now time.Time) ([]string, store.Overflows) {
		refs, next := o.Unread(account, now)
		var out []string
		for _, r := range refs {
			out = append(out, r.String())
		}
		return out, next
	}

	got, o := minutes(store.Overflows{}, now)
	if len(got) != 100 || got[99] != key(2*time.Minute) {
		t.Fatalf("the first sweep reads %d, the last %s; want 100, the last the minute that ended a minute ago, %s", len(got), got[len(got)-1], key(2*time.Minute))
	}
	if got, _ := minutes(o, now.Add(29*time.Second)); len(got) != 0 {
		t.Errorf("29 s later %q are read, want none", got)
	}
	if got, _ := minutes(o, now.Add(5*time.Minute)); len(got) != 5 || got[0] != key(time.Minute) || got[4] != key(-3*time.Minute) {
		t.Errorf("five minutes later %q are read, want the five from %s on", got, key(time.Minute))
	}

	late := now.Add(24 * time.Hour)
	seen := map[string]bool{}
	for runs := 1; ; runs++ {
		got, next := minutes(o, late)
		for _, k := range got {
			if seen[k] {
				t.Fatalf("%s is read twice", k)
			}
			seen[k] = true
		}
		if o = next; !o.Behind(late) && len(got) < 100 {
			if len(seen) != 24*60 || runs != 15 {
				t.Errorf("after a day %d minutes are read in %d runs, want all 1,440 in 15", len(seen), runs)
			}
			break
		}
	}
	if got, _ := minutes(o, late.Add(30*24*time.Hour)); got[0] != minute(late.Add(28*24*time.Hour-time.Minute)) {
		t.Errorf("after a month the first is %s, want that of two days ago: what is older is over", got[0])
	}
}

func TestRepositoriesThatOverflowedWaitUntilTheyAreListed(t *testing.T) {
	o := store.Overflows{Waiting: []string{"41"}}
	was := o
	o = o.With(store.Overflow{Repositories: []string{"42", "41"}}).With(store.Overflow{}).With(store.Overflow{Repositories: []string{"43"}})
	if got := strings.Join(o.Waiting, " "); got != "41 42 43" {
		t.Errorf("%s wait, want 41 42 43", got)
	}
	if o = o.Listed("42"); strings.Join(o.Waiting, " ") != "41 43" || len(was.Waiting) != 1 {
		t.Errorf("%q wait once 42 is listed, want 41 and 43", o.Waiting)
	}
	for n := range 3000 {
		o = o.With(store.Overflow{Repositories: []string{fmt.Sprint("r", n)}})
	}
	if n := len(o.Waiting); n != 2000 {
		t.Errorf("%d repositories wait, want 2,000 at most", n)
	}
}

func TestASweepThatIsBehindWithOverflowsIsDueAtOnce(t *testing.T) {
	now, lim := at(24*time.Hour), store.DefaultLimits()
	for _, c := range []struct {
		ago  time.Duration
		want time.Time
	}{{time.Hour, now.Add(lim.SweepPeriod)}, {102 * time.Minute, now}} {
		s := store.Sweep{Key: "111111111111/eu-west-2", Overflows: store.Overflows{ReadTo: now.Add(-c.ago)}}
		if s.Swept(now, lim, false); !s.DueAt.Equal(c.want) {
			t.Errorf("read up to %s ago, the next sweep is due at %s, want %s", c.ago, s.DueAt, c.want)
		}
	}
}
