// Package storetest holds what shows that a store keeps the contract of
// store.Store: Run, the suite that every backend passes; Memory, the reference
// backend; and Faulty, a store whose calls fail when a test says so.
package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Run holds a backend against the contract of store.Store. open returns an empty
// store of its own for every test, and cleans up with t.Cleanup.
//
// What Due and List yield is polled for a few seconds, so that a backend whose
// index lags behind its items passes too; everything else must hold at once.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"Commit", commitTests},
		{"OwnWrite", ownWriteTests},
		{"Get", getTests},
		{"Due", dueTests},
		{"List", listTests},
		{"CountOpen", openTests},
		{"Race", raceTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.tests {
				t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
			}
		})
	}
}

type test struct {
	name string
	run  func(*testing.T, store.Store)
}

// epoch is when the items of the suite are made.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func request(id string) *store.Request {
	return &store.Request{
		ID: id, State: store.Accepted, CreatedAt: epoch, Labels: []string{"a"},
		Repository: store.Repository{ID: "42", Name: "alphagov/x", OwnerID: "7", Owner: "alphagov"},
	}
}

func runner(id string) *store.Runner {
	return &store.Runner{
		ID: id, State: store.RunnerNew, CreatedAt: epoch, Lock: "k",
		Repository: store.Repository{ID: "42", Name: "alphagov/x", OwnerID: "7", Owner: "alphagov"},
		Launch:     store.Launch{Tags: map[string]string{"a": "b"}},
	}
}

func lock(key string) *store.Lock { return &store.Lock{Key: key, State: store.LockEmpty} }

// commit commits what must succeed.
func commit(t *testing.T, s store.Store, changes ...store.Change) {
	t.Helper()
	if err := s.Commit(t.Context(), changes...); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

// create commits absent items.
func create(t *testing.T, s store.Store, items ...store.Item) {
	t.Helper()
	for _, i := range items {
		commit(t, s, store.Put(i))
	}
}

// stored returns the item of that name.
func stored(t *testing.T, s store.Store, ref store.Ref) store.Item {
	t.Helper()
	got, err := s.Get(t.Context(), ref)
	if err != nil {
		t.Fatalf("Get(%s): %v", ref, err)
	}
	if len(got) != 1 || got[0] == nil {
		t.Fatalf("Get(%s) = %v, want one item", ref, got)
	}
	return got[0]
}

// reread reads i as it is stored, in the type of i.
func reread[I store.Item](t *testing.T, s store.Store, i I) I {
	t.Helper()
	got, ok := stored(t, s, i.Ref()).(I)
	if !ok {
		t.Fatalf("Get(%s): not a %T", i.Ref(), i)
	}
	return got
}

// version checks which version of an item is stored; 0 is an absent one.
func version(t *testing.T, s store.Store, ref store.Ref, want int64) {
	t.Helper()
	if got := stored(t, s, ref).Base().Version; got != want {
		t.Errorf("version of %s = %d, want %d", ref, got, want)
	}
}

// encoded returns the encoding that two items share only if they are equal.
func encoded(t *testing.T, i store.Item) []byte {
	t.Helper()
	b, err := store.Encode(i)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// equal checks that two items are the same in every field.
func equal(t *testing.T, what string, got, want store.Item) {
	t.Helper()
	if g, w := encoded(t, got), encoded(t, want); !bytes.Equal(g, w) {
		t.Errorf("%s = %s\nwant %s", what, g, w)
	}
}

// conflict checks that err is a conflict over the items that refs name, no more
// and no less, and returns them as the error shows them, in the order of refs.
func conflict(t *testing.T, err error, refs ...store.Ref) []store.Item {
	t.Helper()
	if !errors.Is(err, store.ErrConflict) {
		t.Fatalf("Commit = %v, want ErrConflict", err)
	}
	lost, ok := errors.AsType[*store.ConflictError](err)
	if !ok {
		t.Fatalf("Commit = %T, want a *ConflictError", err)
	}
	current := make([]store.Item, len(refs))
	for _, i := range lost.Current {
		at := slices.Index(refs, i.Ref())
		if at < 0 || current[at] != nil {
			t.Fatalf("Commit: %v; want conflicts over %v", err, refs)
		}
		current[at] = i
	}
	if at := slices.Index(current, nil); at >= 0 {
		t.Fatalf("Commit: %v; want %s among the current items", err, refs[at])
	}
	return current
}

// refused checks that err says no for another reason than a conflict.
func refused(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil || errors.Is(err, store.ErrConflict) {
		t.Errorf("%s = %v, want an error that is not ErrConflict", what, err)
	}
}

// eventually waits until check holds. Five seconds is far more than the index
// of any backend lags when nothing else runs.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// due checks what the index yields up to a time.
func due(t *testing.T, s store.Store, before time.Time, want ...store.Ref) {
	t.Helper()
	eventually(t, func() error {
		var got []store.Ref
		for ref, err := range s.Due(t.Context(), before) {
			if err != nil {
				return fmt.Errorf("Due(%s): %w", before, err)
			}
			got = append(got, ref)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("Due(%s) = %v, want %v", before, got, want)
		}
		return nil
	})
}

// listed checks which items, by id, a filter yields.
func listed(t *testing.T, s store.Store, f store.Filter, want ...string) {
	t.Helper()
	eventually(t, func() error {
		var got []string
		for i, err := range s.List(t.Context(), f) {
			if err != nil {
				return fmt.Errorf("List(%+v): %w", f, err)
			}
			got = append(got, i.Ref().ID)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("List(%+v) = %v, want %v", f, got, want)
		}
		return nil
	})
}
