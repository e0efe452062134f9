package dynamostore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// lookBack is among how many of the newest records List looks for what FoundBy does not
// find: a record that a version without that index wrote is in it from its next change
// on, and those of requests that have ended have none. Two hundred are two reads: what is
// not there at all costs no more.
const lookBack = 200

// List implements store.Store. The index finds, and each item is then read as it
// stands: one that has changed so that it does not match any more is left out.
func (s *Store) List(ctx context.Context, f store.Filter) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		f := f // the iteration may begin again
		var err error
		if f.Kind, err = f.Lists(); err != nil {
			yield(nil, err)
			return
		}
		if f.After != "" && f.After <= f.From() {
			return
		}
		switch {
		case f.FoundBy != "":
			s.find(ctx, f, yield)
		case f.Live() && f.After == "":
			s.live(ctx, f, yield)
		default:
			s.list(ctx, f, f.Look, yield)
		}
	}
}

// find is List of what has f.FoundBy.
func (s *Store) find(ctx context.Context, f store.Filter, yield func(store.Item, error) bool) {
	found := false
	s.list(ctx, f, 0, func(i store.Item, err error) bool {
		found = true
		return yield(i, err)
	})
	if found || f.After != "" {
		return
	}
	back := f
	back.FoundBy = "" // for the query; what it finds is held against f
	s.list(ctx, back, lookBack, func(i store.Item, err error) bool {
		if _, more := errors.AsType[*store.MoreError](err); more || err == nil && !f.Matches(i) {
			return true
		}
		return yield(i, err)
	})
}

// live is the first page of the runners that are not over. Those that a version wrote
// which did not put them into the index are found as that version found them, among the
// newest of all, until a change puts them in.
func (s *Store) live(ctx context.Context, f store.Filter, yield func(store.Item, error) bool) {
	var items []store.Item
	var more *store.MoreError
	seen := map[store.Ref]bool{}
	for _, index := range []string{indexOpen, indexList} {
		var failed error
		s.listIn(ctx, index, f, f.Look, func(i store.Item, err error) bool {
			behind, ok := errors.AsType[*store.MoreError](err)
			switch {
			case ok && index == indexOpen:
				more = behind
			case !ok && err != nil:
				failed = err
			case err == nil && !seen[i.Ref()]:
				seen[i.Ref()] = true
				items = append(items, i)
			}
			return failed == nil
		})
		if failed != nil {
			yield(nil, failed)
			return
		}
	}
	if more != nil { // what is behind it comes with the next page
		items = slices.DeleteFunc(items, func(i store.Item) bool { return store.Cursor(i) < more.After })
	}
	slices.SortFunc(items, func(a, b store.Item) int { return cmp.Compare(store.Cursor(b), store.Cursor(a)) })
	for n, i := range items {
		if !yield(i, nil) || n+1 == f.Limit {
			return
		}
	}
	if more != nil {
		yield(nil, more)
	}
}

// list is List by the index that f asks for, of which it looks at so many entries at
// most; zero: as many as it takes.
func (s *Store) list(ctx context.Context, f store.Filter, look int, yield func(store.Item, error) bool) {
	index := indexList
	switch {
	case f.FoundBy != "":
		index = indexFind
	case f.Live():
		index = indexOpen
	case f.Repository != "":
		index = indexRepository
	}
	s.listIn(ctx, index, f, look, yield)
}

// listIn is list by an index.
func (s *Store) listIn(ctx context.Context, index string, f store.Filter, look int, yield func(store.Item, error) bool) {
	if look > 0 && f.After != "" && f.From() != "" {
		look++ // the entry of f.After, which is read again
	}
	yielded, left, in := 0, look, listQuery(index, f, look)
	for found, err := range s.pages(ctx, in) {
		if err != nil {
			yield(nil, fmt.Errorf("list: %w", s.explain(err)))
			return
		}
		for part := range slices.Chunk(found.names, maxKeys) {
			items, err := s.listed(ctx, part, f)
			if err != nil {
				yield(nil, fmt.Errorf("list: %w", err))
				return
			}
			for _, i := range items {
				yielded++
				if !yield(i, nil) || yielded == f.Limit {
					return
				}
			}
		}
		if look == 0 || found.after == "" {
			continue
		}
		if left -= found.looked; left <= 0 {
			yield(nil, &store.MoreError{After: found.after})
			return
		}
		*in.Limit = min(*in.Limit, int32(left))
	}
}

// listQuery asks an index for what f may mean.
func listQuery(index string, f store.Filter, look int) *dynamodb.QueryInput {
	kind, hash, value := string(f.Kind), attrList, string(f.Kind)
	states := f.States
	switch index {
	case indexFind:
		hash, value, states = attrFound, kindOf(kind, f.FoundBy), nil // the index has no states
	case indexOpen:
		hash, value, states = attrOpen, store.LiveRunners, nil
	case indexRepository:
		hash, value = attrRepository, kindOf(kind, f.Repository)
	}
	in := &dynamodb.QueryInput{
		IndexName:                 &index,
		KeyConditionExpression:    new("#hash = :hash"),
		ExpressionAttributeNames:  map[string]string{"#item": attrItem, "#hash": hash},
		ExpressionAttributeValues: attributes{":hash": text(value)},
		ScanIndexForward:          new(false), // the newest first
	}
	bound := func(condition string, values ...string) {
		*in.KeyConditionExpression += " AND #at " + condition
		in.ExpressionAttributeNames["#at"] = attrListedAt
		for n := 0; n < len(values); n += 2 {
			in.ExpressionAttributeValues[values[n]] = text(values[n+1])
		}
	}
	switch from := f.From(); {
	case f.After != "" && from != "": // DynamoDB takes one condition of the range, and BETWEEN has both ends: listed drops the later one
		bound("BETWEEN :from AND :after", ":from", from, ":after", f.After)
	case f.After != "":
		bound("< :after", ":after", f.After)
	case from != "":
		bound(">= :from", ":from", from)
	}
	if len(states) > 0 {
		names := make([]string, len(states))
		for n, state := range states {
			names[n] = fmt.Sprint(":state", n)
			in.ExpressionAttributeValues[names[n]] = text(state)
		}
		in.FilterExpression = new("#state IN (" + strings.Join(names, ", ") + ")")
		in.ExpressionAttributeNames["#state"] = attrState
	}
	// A page's limit counts what it looks at: where few items match, a small page
	// could find nothing for long.
	limit := look
	if len(states) == 0 {
		limit = least(maxKeys, look)
		if !f.Whole() && index != indexOpen {
			limit = least(limit, f.Limit)
		}
	}
	if limit > 0 {
		in.Limit = new(int32(limit))
	}
	return in
}

// least returns the least of the bounds; zero is none.
func least(bounds ...int) (n int) {
	for _, b := range bounds {
		if n == 0 || b > 0 && b < n {
			n = b
		}
	}
	return n
}

// listed reads the items of those names, and leaves out what f does not mean.
func (s *Store) listed(ctx context.Context, names []string, f store.Filter) ([]store.Item, error) {
	refs := make([]store.Ref, len(names))
	for n, name := range names {
		var err error
		if refs[n], err = store.ParseRef(name); err != nil {
			return nil, fmt.Errorf("GARO did not write this, so delete it from the table: %w", err)
		}
	}
	items, err := s.Get(ctx, refs...)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(items, func(i store.Item) bool {
		return i.Base().Version == 0 || !f.Matches(i) || f.After != "" && store.Cursor(i) >= f.After
	}), nil
}
