package storetest

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Memory is a store.Store that keeps everything in memory: the reference that
// every backend is compared with, and the store of tests and simulations. It
// keeps items encoded, so that nobody ever shares memory with it. What a caller
// must never do is an error that is not a store.ErrConflict.
//
// Make one with NewMemory.
type Memory struct {
	mu    sync.Mutex
	items map[store.Ref]kept
	due   map[store.Ref]time.Time
}

// kept is a stored item; the zero value is an absent one.
type kept struct {
	version int64
	writer  string
	ttl     int64
	cursor  string // empty: List never yields it
	open    string // store.OpenIn
	// decoded is the item as it was encoded. It is never changed, only copied:
	// reading is what simulations do most.
	decoded func() (store.Item, error)
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{items: map[store.Ref]kept{}, due: map[store.Ref]time.Time{}}
}

// keep returns i in the form in which its next version is kept.
func keep(i store.Item) (kept, error) {
	m := i.Base()
	m.Version++
	encoded, err := store.Encode(i)
	m.Version--
	ref := i.Ref()
	return kept{
		open: store.OpenIn(i), version: m.Version + 1, writer: m.Writer, ttl: m.TTL, cursor: store.Cursor(i),
		decoded: sync.OnceValues(func() (store.Item, error) { return store.Decode(ref, encoded) }),
	}, err
}

// item returns a copy that the caller owns.
func (k kept) item(ref store.Ref) (store.Item, error) {
	if k.version == 0 {
		return store.New(ref)
	}
	i, err := k.decoded()
	if err != nil {
		return nil, err
	}
	return clone(i), nil
}

// Get implements store.Store.
func (m *Memory) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	found := make([]kept, len(refs))
	m.mu.Lock()
	for i, ref := range refs {
		found[i] = m.items[ref]
	}
	m.mu.Unlock()
	items := make([]store.Item, len(refs))
	for i, ref := range refs {
		if ref.ID == "" {
			return nil, fmt.Errorf("get %s: an item has an id", ref)
		}
		var err error
		if items[i], err = found[i].item(ref); err != nil {
			return nil, fmt.Errorf("get: %w", err)
		}
	}
	return items, nil
}

// Commit implements store.Store.
func (m *Memory) Commit(ctx context.Context, changes ...store.Change) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if err := store.Validate(changes); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	next := make([]kept, len(changes))
	for i, c := range changes {
		if c.CheckOnly {
			continue
		}
		var err error
		if next[i], err = keep(c.Item); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
	}
	if lost := m.swap(changes, next); len(lost) > 0 {
		conflict := &store.ConflictError{}
		for _, c := range changes {
			k, ok := lost[c.Item.Ref()]
			if !ok {
				continue
			}
			current, err := k.item(c.Item.Ref())
			if err != nil {
				return fmt.Errorf("commit: %w", err)
			}
			conflict.Current = append(conflict.Current, current)
		}
		return conflict
	}
	for _, c := range changes {
		if !c.CheckOnly {
			c.Item.Base().Version++
		}
	}
	return nil
}

// swap stores next if every member is as it was read, and else returns how
// those that are not stand now. A member that carries the commit's own mark
// shows that all of it was stored before, since a commit is never half done.
func (m *Memory) swap(changes []store.Change, next []kept) (lost map[store.Ref]kept) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		ref, read := c.Item.Ref(), c.Item.Base()
		now := m.items[ref]
		if now.version == read.Version {
			continue
		}
		if c.Wrote(&store.Meta{Version: now.version, Writer: now.writer}) {
			return nil
		}
		if lost == nil {
			lost = map[store.Ref]kept{}
		}
		lost[ref] = now
	}
	if lost != nil {
		return lost
	}
	for i, c := range changes {
		if c.CheckOnly {
			continue
		}
		ref := c.Item.Ref()
		m.items[ref] = next[i]
		if due := c.Item.Base().DueAt; due.IsZero() {
			delete(m.due, ref)
		} else {
			m.due[ref] = due
		}
	}
	return nil
}

// Due implements store.Store. It yields overdue work when the iteration begins.
func (m *Memory) Due(ctx context.Context, before time.Time) iter.Seq2[store.Ref, error] {
	return func(yield func(store.Ref, error) bool) {
		for _, d := range m.dueBy(before) {
			if ctx.Err() != nil {
				break
			}
			if !yield(d.ref, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(store.Ref{}, fmt.Errorf("due: %w", err))
		}
	}
}

type dueItem struct {
	ref store.Ref
	at  time.Time
}

func (m *Memory) dueBy(before time.Time) []dueItem {
	var found []dueItem
	m.mu.Lock()
	for ref, at := range m.due {
		if !at.After(before) {
			found = append(found, dueItem{ref, at})
		}
	}
	m.mu.Unlock()
	slices.SortFunc(found, func(a, b dueItem) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.ref.Kind, b.ref.Kind), cmp.Compare(a.ref.ID, b.ref.ID))
	})
	return found
}

// List implements store.Store. It yields what is there when the iteration begins.
func (m *Memory) List(ctx context.Context, f store.Filter) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		kind, err := f.Lists()
		if err != nil {
			yield(nil, err)
			return
		}
		yielded := 0
		for n, l := range m.listed(kind, f.After) {
			if l.cursor < f.From() {
				break
			}
			if f.Look > 0 && n == f.Look && yielded != f.Limit && f.FoundBy == "" {
				yield(nil, &store.MoreError{After: f.After})
				return
			}
			if f.Limit > 0 && yielded == f.Limit || ctx.Err() != nil {
				break
			}
			item, err := l.item(l.ref)
			if err != nil {
				yield(nil, fmt.Errorf("list: %w", err))
				return
			}
			f.After = l.cursor
			if !f.Matches(item) {
				continue
			}
			yielded++
			if !yield(item, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, fmt.Errorf("list: %w", err))
		}
	}
}

// CountOpen implements store.Store.
func (m *Memory) CountOpen(ctx context.Context, repo store.Repository, most int) (n int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("count open: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.items {
		if k.open != "" && k.open == repo.Key() && n < most {
			n++
		}
	}
	return n, nil
}

type listedItem struct {
	kept
	ref store.Ref
}

// listed returns the items of a kind that come after a cursor, newest first.
func (m *Memory) listed(kind store.Kind, after string) []listedItem {
	var found []listedItem
	m.mu.Lock()
	for ref, k := range m.items {
		if ref.Kind == kind && (after == "" || k.cursor < after) {
			found = append(found, listedItem{k, ref})
		}
	}
	m.mu.Unlock()
	slices.SortFunc(found, func(a, b listedItem) int { return cmp.Compare(b.cursor, a.cursor) })
	return found
}

// Expire deletes the items whose TTL has passed, as a backend does in its own
// time, and returns how many they were.
func (m *Memory) Expire(ctx context.Context, now time.Time) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("expire: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for ref, k := range m.items {
		if k.ttl > 0 && k.ttl < now.Unix() {
			delete(m.items, ref)
			delete(m.due, ref)
			n++
		}
	}
	return n, nil
}
