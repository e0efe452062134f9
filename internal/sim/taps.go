package sim

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// none is the answer of a call that has none.
type none = struct{}

// tappedStore is the store as the parts see it.
type tappedStore struct{ w *World }

var _ store.Store = tappedStore{}

func (s tappedStore) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	kinds, ids := map[string]bool{}, make([]string, len(refs))
	for i, r := range refs {
		kinds[string(r.Kind)], ids[i] = true, r.ID
	}
	e := &kernel.Effect{Op: kernel.Get, To: kernel.ToStore, What: strings.Join(slices.Sorted(maps.Keys(kinds)), " "), On: strings.Join(ids, " ")}
	return kernel.Do(ctx, s.w.Kernel, e, func(ctx context.Context) ([]store.Item, error) { return s.w.Store().Get(ctx, refs...) })
}

// Commit implements store.Store. When the answer is lost, the caller's items are
// as they were, whatever the outcome.
func (s tappedStore) Commit(ctx context.Context, changes ...store.Change) error {
	e := &kernel.Effect{Op: kernel.Commit, To: kernel.ToStore}
	versions := make([]int64, len(changes))
	var what, on []string
	for i, c := range changes {
		versions[i] = c.Item.Base().Version
		if c.CheckOnly {
			continue
		}
		what, on = append(what, word(c.Item)), append(on, c.Item.Ref().ID)
	}
	slices.Sort(what)
	e.What, e.On = strings.Join(slices.Compact(what), ", "), strings.Join(on, " ")
	made := changes
	e.Fated = func() {
		if e.Fate == kernel.Twice || e.Fate == kernel.FailLate { // the caller goes on with its items
			made = clone(changes)
		}
	}
	_, err := kernel.Do(ctx, s.w.Kernel, e, func(ctx context.Context) (none, error) {
		change, err := s.w.Commit(e, made, func() error { return s.w.table.commit(ctx, made) })
		s.w.Changed(e, change)
		if e.Fate == kernel.Twice {
			made = changes // the second time
		}
		return none{}, err
	})
	if err != nil {
		for i, c := range changes {
			c.Item.Base().Version = versions[i]
		}
	}
	return err
}

// word tells what is written, without ids.
func word(i store.Item) string {
	state := ""
	switch i := i.(type) {
	case *store.Request:
		state = string(i.State)
	case *store.Lock:
		state = string(i.State)
	case *store.Runner:
		state = string(i.State)
		if i.Config.N > 0 {
			state += fmt.Sprintf(" config %d", i.Config.N)
		}
	}
	return strings.TrimSpace(string(i.Ref().Kind) + " " + state)
}

func (s tappedStore) Due(ctx context.Context, before time.Time) iter.Seq2[store.Ref, error] {
	return tappedSeq(ctx, s.w, &kernel.Effect{Op: kernel.Due, To: kernel.ToStore}, func(ctx context.Context) iter.Seq2[store.Ref, error] {
		return s.w.table.due(ctx, before)
	})
}

func (s tappedStore) List(ctx context.Context, f store.Filter) iter.Seq2[store.Item, error] {
	return tappedSeq(ctx, s.w, &kernel.Effect{Op: kernel.List, To: kernel.ToStore, What: string(f.Kind)}, func(ctx context.Context) iter.Seq2[store.Item, error] {
		return s.w.Store().List(ctx, f)
	})
}

// tappedSeq yields what list yields, all of which is read when the iteration begins.
func tappedSeq[T any](ctx context.Context, w *World, e *kernel.Effect, list func(context.Context) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		all, err := kernel.Do(ctx, w.Kernel, e, func(ctx context.Context) (all []T, err error) {
			for v, err := range list(ctx) {
				if err != nil {
					return all, err
				}
				all = append(all, v)
			}
			return all, nil
		})
		for _, v := range all {
			if !yield(v, nil) {
				return
			}
		}
		if err != nil {
			yield(zero, err)
		}
	}
}

// tappedQueue is the queue as those who send see it.
type tappedQueue struct{ w *World }

var _ queue.Sender = tappedQueue{}

func (q tappedQueue) Send(ctx context.Context, m queue.Message, delay time.Duration) error {
	e := &kernel.Effect{Op: kernel.Send, To: kernel.ToQueue, What: string(m.Kind), On: m.ID}
	_, err := kernel.Do(ctx, q.w.Kernel, e, func(ctx context.Context) (none, error) {
		q.w.Sends(m)
		if e.Fate == kernel.Hold {
			wait := q.w.Span(e)
			q.w.Go(func() {
				time.Sleep(wait)
				_ = q.w.Queue.Send(ctx, m, delay) // what it refuses now it would have refused then
			})
			return none{}, nil
		}
		return none{}, q.w.Queue.Send(ctx, m, delay)
	})
	return err
}
