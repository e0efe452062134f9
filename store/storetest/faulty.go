package storetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Fate is what becomes of a call.
type Fate int

// The fates. A read that fails before or after looks the same but for Due and
// List, which fail at once or when they have yielded all.
const (
	Pass       Fate = iota
	FailBefore      // the call has no effect
	FailAfter       // the call takes effect and its answer is lost
)

// ErrFault is the failure that a fate brings. It tells nothing of the outcome.
var ErrFault = errors.New("injected fault")

// Faulty is a store whose calls fail when fate says so. It is as safe for
// concurrent use as fate is.
type Faulty struct {
	inner store.Store
	fate  func(op string, n int) Fate
	calls atomic.Int64
}

// NewFaulty returns s with faults. fate is asked once a call: op is get, commit,
// due, list or count, and n counts all calls from 1.
func NewFaulty(s store.Store, fate func(op string, n int) Fate) *Faulty {
	return &Faulty{inner: s, fate: fate}
}

func (f *Faulty) ask(op string) (Fate, error) {
	n := int(f.calls.Add(1))
	return f.fate(op, n), fmt.Errorf("%s, call %d: %w", op, n, ErrFault)
}

// Get implements store.Store.
func (f *Faulty) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	if fate, fault := f.ask("get"); fate != Pass {
		return nil, fault
	}
	return f.inner.Get(ctx, refs...)
}

// Commit implements store.Store. When the answer is lost, the caller's items
// are as they were, whatever the outcome.
func (f *Faulty) Commit(ctx context.Context, changes ...store.Change) error {
	fate, fault := f.ask("commit")
	if fate == FailBefore {
		return fault
	}
	if fate == Pass {
		return f.inner.Commit(ctx, changes...)
	}
	versions := make([]int64, len(changes))
	for i, c := range changes {
		versions[i] = c.Item.Base().Version
	}
	_ = f.inner.Commit(ctx, changes...) // the answer is lost
	for i, c := range changes {
		c.Item.Base().Version = versions[i]
	}
	return fault
}

// Due implements store.Store.
func (f *Faulty) Due(ctx context.Context, before time.Time) iter.Seq2[store.Ref, error] {
	return failing(f, "due", f.inner.Due(ctx, before))
}

// List implements store.Store.
func (f *Faulty) List(ctx context.Context, filter store.Filter) iter.Seq2[store.Item, error] {
	return failing(f, "list", f.inner.List(ctx, filter))
}

// CountOpen implements store.Store.
func (f *Faulty) CountOpen(ctx context.Context, repo store.Repository, most int) (int, error) {
	if fate, fault := f.ask("count"); fate != Pass {
		return 0, fault
	}
	return f.inner.CountOpen(ctx, repo, most)
}

// failing yields what seq yields; its fate is asked when the iteration begins.
func failing[T any](f *Faulty, op string, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		fate, fault := f.ask(op)
		if fate == FailBefore {
			yield(none, fault)
			return
		}
		for v, err := range seq {
			if !yield(v, err) {
				return
			}
		}
		if fate == FailAfter {
			yield(none, fault)
		}
	}
}
