package dynamostore

import (
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
// follow if the caller continues.
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
