package dynamostore

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// maxKeys is how many items one BatchGetItem reads
// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html).
const maxKeys = 100

// Get implements store.Store. Up to 100 items are one round trip.
func (s *Store) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	found := make(map[store.Ref]attributes, len(refs))
	var distinct []store.Ref // DynamoDB refuses a key that comes twice
	for _, ref := range refs {
		if ref.ID == "" {
			return nil, fmt.Errorf("get %s: an item has an id", ref)
		}
		if _, err := store.New(ref); err != nil {
			return nil, fmt.Errorf("get: %w", err)
		}
		if _, twice := found[ref]; !twice {
			found[ref] = nil
			distinct = append(distinct, ref)
		}
	}
	for part := range slices.Chunk(distinct, maxKeys) {
		read := s.readMany
		if len(part) == 1 {
			read = s.readOne
		}
		if err := read(ctx, part, found); err != nil {
			return nil, fmt.Errorf("get %s and %d more: %w", part[0], len(part)-1, s.explain(err))
		}
	}
	items := make([]store.Item, len(refs))
	for n, ref := range refs {
		var err error
		if items[n], err = decode(ref, found[ref]); err != nil {
			return nil, fmt.Errorf("get: %w", err)
		}
	}
	return items, nil
}

// readOne reads the one item that refs names into found.
func (s *Store) readOne(ctx context.Context, refs []store.Ref, found map[store.Ref]attributes) error {
	return s.try(ctx, true, func() error {
		out, err := s.api.get(ctx, &dynamodb.GetItemInput{TableName: &s.table, Key: key(refs[0]), ConsistentRead: new(true)})
		if err == nil {
			found[refs[0]] = out.Item
		}
		return err
	})
}

// readMany reads up to maxKeys items into found.
func (s *Store) readMany(ctx context.Context, refs []store.Ref, found map[store.Ref]attributes) error {
	asked := make(map[string]store.Ref, len(refs))
	keys := make([]attributes, len(refs))
	for n, ref := range refs {
		asked[ref.String()], keys[n] = ref, key(ref)
	}
	return s.try(ctx, true, func() error {
		out, err := s.api.getMany(ctx, &dynamodb.BatchGetItemInput{
			RequestItems: map[string]types.KeysAndAttributes{s.table: {Keys: keys, ConsistentRead: new(true)}},
		})
		if err != nil {
			return err
		}
		for _, item := range out.Responses[s.table] {
			name, _ := item[attrItem].(*types.AttributeValueMemberS)
			if name == nil {
				return fmt.Errorf("the answer has an item without a key")
			}
			ref, ok := asked[name.Value]
			if !ok {
				return fmt.Errorf("the answer has %s, which was not asked for", name.Value)
			}
			found[ref] = item
		}
		if keys = out.UnprocessedKeys[s.table].Keys; len(keys) > 0 {
			return fmt.Errorf("%w: %d of %d items were left out", errBusy, len(keys), len(refs))
		}
		return nil
	})
}

// Due implements store.Store. A page of the index is read when the one before it
// has been yielded. An entry that is not GARO's is an error, and those behind it
// follow if the caller goes on.
func (s *Store) Due(ctx context.Context, before time.Time) iter.Seq2[store.Ref, error] {
	return func(yield func(store.Ref, error) bool) {
		in := &dynamodb.QueryInput{
			IndexName:              new(indexDue),
			KeyConditionExpression: new("#due = :due AND #at <= :before"),
			ExpressionAttributeNames: map[string]string{
				"#item": attrItem, "#due": attrDue, "#at": attrDueAt,
			},
			ExpressionAttributeValues: attributes{":due": text(dueHash), ":before": text(stamp(before))},
		}
		for found, err := range s.pages(ctx, in) {
			if err != nil {
				yield(store.Ref{}, fmt.Errorf("due: %w", s.explain(err)))
				return
			}
			for _, name := range found.names {
				ref, err := store.ParseRef(name)
				if err != nil {
					err = fmt.Errorf("due: GARO did not write this, so delete it from the table: %w", err)
				}
				if !yield(ref, err) {
					return
				}
			}
		}
	}
}

// CountOpen implements store.Store. A page counts some thousands of entries.
func (s *Store) CountOpen(ctx context.Context, repo store.Repository, most int) (int, error) {
	in := &dynamodb.QueryInput{
		TableName: &s.table, IndexName: new(indexOpen), Select: types.SelectCount,
		KeyConditionExpression:    new("#open = :open"),
		ExpressionAttributeNames:  map[string]string{"#open": attrOpen},
		ExpressionAttributeValues: attributes{":open": text(repo.Key())},
	}
	for n := 0; n < most; {
		in.Limit = new(int32(most - n))
		var out *dynamodb.QueryOutput
		if err := s.try(ctx, true, func() (err error) {
			out, err = s.api.query(ctx, in)
			return err
		}); err != nil {
			return 0, fmt.Errorf("count the open requests of repository %s: %w", repo.Key(), s.explain(err))
		}
		if n += int(out.Count); len(out.LastEvaluatedKey) == 0 {
			return n, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
	return most, nil
}

// page is what one Query answers.
type page struct {
	names  []string // the keys of the items
	looked int      // how many entries it looked at
	after  string   // where the next page begins: the listed_at of the last of them; empty: there is none
}

// pages yields what an index holds, page by page. The caller may change the limit
// of in between two pages.
func (s *Store) pages(ctx context.Context, in *dynamodb.QueryInput) iter.Seq2[page, error] {
	return func(yield func(page, error) bool) {
		in.TableName, in.ProjectionExpression = &s.table, new("#item")
		for {
			var out *dynamodb.QueryOutput
			if err := s.try(ctx, true, func() (err error) {
				out, err = s.api.query(ctx, in)
				return err
			}); err != nil {
				yield(page{}, err)
				return
			}
			p := page{names: make([]string, 0, len(out.Items)), looked: int(out.ScannedCount)}
			for _, item := range out.Items {
				if name, ok := item[attrItem].(*types.AttributeValueMemberS); ok {
					p.names = append(p.names, name.Value)
				}
			}
			if at, ok := out.LastEvaluatedKey[attrListedAt].(*types.AttributeValueMemberS); ok {
				p.after = at.Value
			}
			if !yield(p, nil) || len(out.LastEvaluatedKey) == 0 {
				return
			}
			in.ExclusiveStartKey = out.LastEvaluatedKey
		}
	}
}

// List implements store.Store. The index finds, and each item is then read as it
// stands: one that has changed so that it does not match any more is left out.
func (s *Store) List(ctx context.Context, f store.Filter) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		kind := cmp.Or(f.Kind, store.KindRequest)
		if kind != store.KindRequest && kind != store.KindRunner {
			yield(nil, fmt.Errorf("list %s: only requests and runners are listed", kind))
			return
		}
		yielded, left, in := 0, f.Look, listQuery(string(kind), f)
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
			if f.Look == 0 || found.after == "" {
				continue
			}
			if left -= found.looked; left <= 0 {
				yield(nil, &store.MoreError{After: found.after})
				return
			}
			*in.Limit = min(*in.Limit, int32(left))
		}
	}
}

// listQuery asks an index for what f may mean.
func listQuery(kind string, f store.Filter) *dynamodb.QueryInput {
	in := &dynamodb.QueryInput{
		IndexName:                 new(indexList),
		KeyConditionExpression:    new("#hash = :hash"),
		ExpressionAttributeNames:  map[string]string{"#item": attrItem, "#hash": attrList},
		ExpressionAttributeValues: attributes{":hash": text(kind)},
		ScanIndexForward:          new(false), // the newest first
	}
	if f.Repository != "" {
		*in.IndexName, in.ExpressionAttributeNames["#hash"] = indexRepository, attrRepository
		in.ExpressionAttributeValues[":hash"] = text(repositoryList(kind, f.Repository))
	}
	if f.After != "" {
		*in.KeyConditionExpression += " AND #at < :after"
		in.ExpressionAttributeNames["#at"] = attrListedAt
		in.ExpressionAttributeValues[":after"] = text(f.After)
	}
	if f.State != "" {
		in.FilterExpression = new("#state = :state")
		in.ExpressionAttributeNames["#state"] = attrState
		in.ExpressionAttributeValues[":state"] = text(f.State)
	}
	// A page's limit counts what it looks at: where few items match, a small page
	// could find nothing for long.
	limit := f.Look
	if f.State == "" {
		limit = least(maxKeys, f.Limit, f.Look)
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
	return slices.DeleteFunc(items, func(i store.Item) bool { return i.Base().Version == 0 || !f.Matches(i) }), nil
}
