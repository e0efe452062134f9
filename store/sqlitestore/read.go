package sqlitestore

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// page is how many rows one query of Due or List reads: nothing is yielded while
// a connection is in use, so that whoever iterates can call the store.
const page = 200

// getSQL reads any number of items by one statement; the cross join makes SQLite
// look each name up, in whatever state its statistics are.
const getSQL = `SELECT i.kind, i.id, i.version, i.item
	FROM json_each(?) AS name CROSS JOIN items AS i ON i.kind = name.value ->> 0 AND i.id = name.value ->> 1`

const dueSQL = `SELECT kind, id, due_at FROM items
	WHERE due_at <= ? AND (due_at, kind, id) > (?, ?, ?) ORDER BY due_at, kind, id LIMIT ?`

// openSQL looks at the entries of items_open alone, and at no more than its limit.
const openSQL = `SELECT count(*) FROM (SELECT 1 FROM items INDEXED BY items_open WHERE open = ? LIMIT ?)`

// CountOpen implements store.Store.
func (s *Store) CountOpen(ctx context.Context, repo store.Repository, most int) (n int, err error) {
	if err := s.open.QueryRowContext(ctx, repo.Key(), most).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the open requests of repository %s: %w", repo.Key(), err)
	}
	return n, nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	for _, ref := range refs {
		if ref.ID == "" {
			return nil, fmt.Errorf("get %s: an item has an id", ref)
		}
	}
	rows, err := get(ctx, s.getForRead, refs)
	if err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	items := make([]store.Item, len(refs))
	for i, ref := range refs {
		if items[i], err = decode(ref, rows[ref]); err != nil {
			return nil, fmt.Errorf("get: %w", err)
		}
	}
	return items, nil
}

// get reads the rows that refs name; absent ones are not in the result.
func get(ctx context.Context, stmt *sql.Stmt, refs []store.Ref) (map[store.Ref]row, error) {
	pairs := make([][2]string, len(refs))
	for i, ref := range refs {
		pairs[i] = [2]string{string(ref.Kind), ref.ID}
	}
	arg, err := json.Marshal(pairs)
	if err != nil {
		return nil, err
	}
	rows, err := stmt.QueryContext(ctx, string(arg))
	if err != nil {
		return nil, err
	}
	found := make(map[store.Ref]row, len(refs))
	err = each(rows, func() error {
		var ref store.Ref
		var r row
		if err := rows.Scan(&ref.Kind, &ref.ID, &r.version, &r.item); err != nil {
			return err
		}
		found[ref] = r
		return nil
	})
	return found, err
}

// each calls scan for each of the rows, and closes them.
func each(rows *sql.Rows, scan func() error) (err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := scan(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Due implements store.Store.
func (s *Store) Due(ctx context.Context, before time.Time) iter.Seq2[store.Ref, error] {
	return func(yield func(store.Ref, error) bool) {
		var last store.Ref
		var lastAt string
		for {
			rows, err := s.due.QueryContext(ctx, stamp(before), lastAt, string(last.Kind), last.ID, page)
			if err != nil {
				yield(store.Ref{}, fmt.Errorf("due: %w", err))
				return
			}
			found := make([]store.Ref, 0, page)
			if err := each(rows, func() error {
				err := rows.Scan(&last.Kind, &last.ID, &lastAt)
				found = append(found, last)
				return err
			}); err != nil {
				yield(store.Ref{}, fmt.Errorf("due: %w", err))
				return
			}
			for _, ref := range found {
				if !yield(ref, nil) {
					return
				}
			}
			if len(found) < page {
				return
			}
		}
	}
}

// List implements store.Store. One index has every kind in the order of its
// cursors; what the filter means is looked for in the rows behind it.
func (s *Store) List(ctx context.Context, f store.Filter) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		f := f // the iteration may begin again
		f.Kind = cmp.Or(f.Kind, store.KindRequest)
		if f.Kind != store.KindRequest && f.Kind != store.KindRunner {
			yield(nil, fmt.Errorf("list %s: only requests and runners are listed", f.Kind))
			return
		}
		f.After = cmp.Or(f.After, newest)
		edge, err := s.edgeOf(ctx, f)
		if err != nil {
			yield(nil, fmt.Errorf("list: %w", err))
			return
		}
		for left := f.Limit; f.Limit == 0 || left > 0; left -= page {
			size := page
			if f.Limit > 0 {
				size = min(page, left)
			}
			items, err := s.listed(ctx, f, edge, size)
			if err != nil {
				yield(nil, fmt.Errorf("list: %w", err))
				return
			}
			for _, i := range items {
				if !yield(i, nil) {
					return
				}
			}
			if len(items) < size {
				if edge != "" {
					yield(nil, &store.MoreError{After: edge})
				}
				return
			}
			f.After = store.Cursor(items[len(items)-1])
		}
	}
}

// newest is behind every cursor: they begin with the digits of a year.
const newest = "~"

// listSQL compares the cursor even where there is no bound: SQLite takes an index
// of those that have one only if the condition leaves out those without.
const listSQL = `SELECT id, version, item FROM items
	WHERE kind = ? AND cursor < ? AND cursor >= ? AND ? IN ('', repository) AND ? IN ('', state)
	ORDER BY cursor DESC LIMIT ?`

// edgeSQL reads nothing but the index.
const edgeSQL = `SELECT cursor FROM items WHERE kind = ? AND cursor < ? ORDER BY cursor DESC LIMIT 1 OFFSET ?`

// edgeOf returns the cursor of the last entry that f allows to look at; empty: all of them.
func (s *Store) edgeOf(ctx context.Context, f store.Filter) (edge string, err error) {
	if f.Look == 0 {
		return "", nil
	}
	err = s.edge.QueryRowContext(ctx, string(f.Kind), f.After, f.Look-1).Scan(&edge)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return edge, err
}

// listed reads one page of a List.
func (s *Store) listed(ctx context.Context, f store.Filter, edge string, size int) ([]store.Item, error) {
	rows, err := s.list.QueryContext(ctx, string(f.Kind), f.After, edge, f.Repository, f.State, size)
	if err != nil {
		return nil, err
	}
	var items []store.Item
	err = each(rows, func() error {
		ref := store.Ref{Kind: f.Kind}
		var r row
		if err := rows.Scan(&ref.ID, &r.version, &r.item); err != nil {
			return err
		}
		i, err := decode(ref, r)
		items = append(items, i)
		return err
	})
	return items, err
}
