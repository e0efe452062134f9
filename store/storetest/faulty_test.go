package storetest

import (
	"errors"
	"slices"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func always(fate Fate) func(string, int) Fate { return func(string, int) Fate { return fate } }

func TestFaultyWithoutFaultsIsTheStore(t *testing.T) {
	Run(t, func(*testing.T) store.Store { return NewFaulty(NewMemory(), always(Pass)) })
}

func TestFaultyFailBeforeHasNoEffect(t *testing.T) {
	m := NewMemory()
	f := NewFaulty(m, always(FailBefore))
	r := request("r")
	if err := f.Commit(t.Context(), store.Put(r)); !errors.Is(err, ErrFault) {
		t.Errorf("Commit = %v, want ErrFault", err)
	}
	version(t, m, r.Ref(), 0)
	create(t, m, at(r, epoch))
	if _, err := f.Get(t.Context(), r.Ref()); !errors.Is(err, ErrFault) {
		t.Errorf("Get = %v, want ErrFault", err)
	}
	for _, c := range yields(t, f) {
		if c.items != 0 || !errors.Is(c.err, ErrFault) {
			t.Errorf("%s yields %d items and %v, want ErrFault alone", c.op, c.items, c.err)
		}
	}
}

func TestFaultyFailAfterTakesEffectAndLosesTheAnswer(t *testing.T) {
	m := NewMemory()
	f := NewFaulty(m, always(FailAfter))
	r := signed(at(request("r"), epoch), "a/1")
	if err := f.Commit(t.Context(), store.Put(r)); !errors.Is(err, ErrFault) || errors.Is(err, store.ErrConflict) {
		t.Errorf("Commit = %v, want ErrFault", err)
	}
	if r.Version != 0 {
		t.Errorf("Version after a lost answer = %d, want 0 as before", r.Version)
	}
	version(t, m, r.Ref(), 1)
	other := signed(request("r"), "b/1")
	if err := f.Commit(t.Context(), store.Put(other)); !errors.Is(err, ErrFault) || errors.Is(err, store.ErrConflict) {
		t.Errorf("Commit that conflicts = %v, want ErrFault: the conflict is lost too", err)
	}
	if _, err := f.Get(t.Context(), r.Ref()); !errors.Is(err, ErrFault) {
		t.Errorf("Get = %v, want ErrFault", err)
	}
	for _, c := range yields(t, f) {
		if c.items != 1 || !errors.Is(c.err, ErrFault) {
			t.Errorf("%s yields %d items and %v, want one item, then ErrFault", c.op, c.items, c.err)
		}
	}
	commit(t, m, store.Put(r)) // the same commit once more is recognised
	version(t, m, r.Ref(), 1)
	r = signed(r, "a/2")
	if err := f.Commit(t.Context(), store.Put(r)); !errors.Is(err, ErrFault) || r.Version != 1 {
		t.Errorf("Commit of an update = %v, version %d; want ErrFault, 1 as before", err, r.Version)
	}
	version(t, m, r.Ref(), 2)
}

type yielded struct {
	op    string
	items int
	err   error
}

// yields runs Due and List to their end.
func yields(t *testing.T, s store.Store) []yielded {
	d, l := yielded{op: "Due"}, yielded{op: "List"}
	for _, err := range s.Due(t.Context(), epoch) {
		if err != nil {
			d.err = err
			continue
		}
		d.items++
	}
	for _, err := range s.List(t.Context(), store.Filter{}) {
		if err != nil {
			l.err = err
			continue
		}
		l.items++
	}
	return []yielded{d, l}
}

func TestFaultyAsksOnceForEachCallInTurn(t *testing.T) {
	type call struct {
		op string
		n  int
	}
	var asked []call
	f := NewFaulty(NewMemory(), func(op string, n int) Fate {
		asked = append(asked, call{op, n})
		return Pass
	})
	create(t, f, request("r"))
	version(t, f, request("r").Ref(), 1)
	yields(t, f)
	if want := []call{{"commit", 1}, {"get", 2}, {"due", 3}, {"list", 4}}; !slices.Equal(asked, want) {
		t.Errorf("fate was asked %v, want %v", asked, want)
	}
}
