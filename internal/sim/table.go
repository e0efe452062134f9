package sim

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

// table is what really keeps the records, and its due index, which may be behind.
type table struct {
	real atomic.Pointer[storetest.Memory]
	lag  atomic.Int64 // by how much the index is behind

	mu    sync.Mutex
	moves []move // of the index, in order
}

// move is a change of the due index; due is zero when an item leaves it.
type move struct {
	at, due time.Time
	ref     store.Ref
}

func newTable(lag time.Duration) *table {
	t := &table{}
	t.lag.Store(int64(lag))
	t.empty()
	return t
}

// empty loses all records.
func (t *table) empty() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.real.Store(storetest.NewMemory())
	t.moves = nil
}

// behind is by how much the index is behind.
func (t *table) behind() time.Duration { return time.Duration(t.lag.Load()) }

// commit makes a commit.
func (t *table) commit(ctx context.Context, changes []store.Change) error {
	if err := t.real.Load().Commit(ctx, changes...); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range changes {
		if !c.CheckOnly {
			t.moves = append(t.moves, move{time.Now(), c.Item.Base().DueAt, c.Item.Ref()})
		}
	}
	return nil
}

// due yields what the due index shows: what it held so long ago as it is behind.
func (t *table) due(ctx context.Context, before time.Time) iter.Seq2[store.Ref, error] {
	lag := t.behind()
	if lag == 0 {
		return t.real.Load().Due(ctx, before)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	seen, at := time.Now().Add(-lag), map[store.Ref]time.Time{}
	for _, e := range t.moves {
		if !e.at.After(seen) {
			at[e.ref] = e.due
		}
	}
	var found []store.Ref
	for ref, due := range at {
		if !due.IsZero() && !due.After(before) {
			found = append(found, ref)
		}
	}
	slices.SortFunc(found, func(a, b store.Ref) int {
		return cmp.Or(at[a].Compare(at[b]), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	})
	return func(yield func(store.Ref, error) bool) {
		for _, ref := range found {
			if !yield(ref, nil) {
				return
			}
		}
	}
}

// clone copies what a commit is to write.
func clone(changes []store.Change) []store.Change {
	out := slices.Clone(changes)
	for i, c := range changes {
		b, err := store.Encode(c.Item)
		if err == nil {
			out[i].Item, err = store.Decode(c.Item.Ref(), b)
		}
		if err != nil {
			panic(err) // every item can be kept
		}
	}
	return out
}
