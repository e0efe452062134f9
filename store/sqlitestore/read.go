package sqlitestore

import (
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
// a connection is in use, so that anyone who iterates can call the store.
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
