package sqlitestore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// List implements store.Store. One index has every kind in the order of its
// cursors; what the filter means is looked for in the rows behind it. What is found by
// an instance or a run, and the runners that are not over, have indexes of their own.
func (s *Store) List(ctx context.Context, f store.Filter) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		f := f // the iteration may begin again
		var err error
		if f.Kind, err = f.Lists(); err != nil {
			yield(nil, err)
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
				if edge > f.From() {
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

// meansSQL is what a filter means beside the index that it is looked for in.
const meansSQL = ` AND cursor < ? AND cursor >= ? AND ? IN ('', repository) AND (? = '' OR instr(?, ',' || state || ','))
	AND ? IN ('', item ->> '$.account') AND ? IN ('', item ->> '$.region') AND ? IN ('', lower(item ->> '$.repository.name'))
	ORDER BY cursor DESC LIMIT ?`

// listSQL compares the cursor even where there is no bound: SQLite takes an index
// of those that have one only if the condition leaves out those without.
const listSQL = `SELECT id, version, item FROM items WHERE kind = ?` + meansSQL

// findSQL is listSQL for what has store.Filter.FoundBy.
const findSQL = `SELECT id, version, item FROM items INDEXED BY items_found WHERE found = ? AND kind = ?` + meansSQL

// liveSQL is listSQL for what is store.Filter.Live.
const liveSQL = `SELECT id, version, item FROM items INDEXED BY items_live WHERE open = '` + store.LiveRunners + `' AND kind = ?` + meansSQL

// edgeSQL reads nothing but the index.
const edgeSQL = `SELECT cursor FROM items WHERE kind = ? AND cursor < ? ORDER BY cursor DESC LIMIT 1 OFFSET ?`

// edgeOf returns the cursor of the last entry that f allows to look at; empty: all of them.
func (s *Store) edgeOf(ctx context.Context, f store.Filter) (edge string, err error) {
	if f.Look == 0 || f.FoundBy != "" || f.Live() {
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
	states := strings.Join(f.States, ",")
	args := []any{string(f.Kind), f.After, max(edge, f.From()), f.Repository, states, "," + states + ",", f.Account, f.Region, strings.ToLower(f.Name), size}
	query := s.list
	switch {
	case f.FoundBy != "":
		query, args = s.find, append([]any{f.FoundBy}, args...)
	case f.Live():
		query = s.live
	}
	rows, err := query.QueryContext(ctx, args...)
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
