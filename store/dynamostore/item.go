package dynamostore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// maxItem is the most bytes of an item's JSON, which is longer than the item as
// DynamoDB counts it: that one may have 400 KB
// (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html).
const maxItem = 400 << 10

// attributes are an item of the table.
type attributes = map[string]types.AttributeValue

// dueAtForm has a fixed width, so that texts sort as their times do.
const dueAtForm = "2006-01-02T15:04:05.000000000Z"

func stamp(t time.Time) string { return t.UTC().Format(dueAtForm) }

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: fmt.Sprint(n)}
}

// key is what names an item in the table.
func key(ref store.Ref) attributes { return attributes{attrItem: text(ref.String())} }

// encode returns what is to be stored: the next version of i. It goes by way of
// store.Encode, and not by the SDK's attributevalue, so that there is one form of
// an item, with one set of rules for what is left out.
func encode(i store.Item) (attributes, error) {
	base := i.Base()
	base.Version++
	b, err := store.Encode(i)
	base.Version--
	if err != nil {
		return nil, err
	}
	if len(b) > maxItem {
		return nil, fmt.Errorf("%s has %d bytes as JSON, want at most %d", i.Ref(), len(b), maxItem)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // a float64 would round versions and ids
	var members map[string]any
	if err := d.Decode(&members); err != nil {
		return nil, fmt.Errorf("encode %s: %w", i.Ref(), err)
	}
	out := values(members)
	maps.Copy(out, key(i.Ref()))
	if !base.DueAt.IsZero() {
		out[attrDue], out[attrDueAt] = text(dueHash), text(stamp(base.DueAt))
	}
	kind := string(i.Ref().Kind)
	switch i := i.(type) {
	case *store.Request:
		list(out, kind, i.Repository, store.Cursor(i))
	case *store.Runner:
		list(out, kind, i.Repository, store.Cursor(i))
	}
	return out, nil
}

// list puts an item into the indexes that List reads.
func list(out attributes, kind string, r store.Repository, cursor string) {
	out[attrList], out[attrListedAt] = text(kind), text(cursor)
	out[attrRepository] = text(repositoryList(kind, r.ID))
}

// repositoryList is without the repository's server, as a store.Filter is.
func repositoryList(kind, repository string) string { return kind + "#" + repository }

// values turns the members of a JSON object into attributes. One that is null is
// left out, since to the store it is the same.
func values(members map[string]any) attributes {
	out := make(attributes, len(members))
	for name, v := range members {
		if v != nil {
			out[name] = value(v)
		}
	}
	return out
}

// value turns a JSON value into an attribute. Lists stay lists: a DynamoDB set can
// be neither empty nor in order.
func value(v any) types.AttributeValue {
	switch v := v.(type) {
	case string:
		return text(v)
	case json.Number:
		return &types.AttributeValueMemberN{Value: v.String()}
	case bool:
		return &types.AttributeValueMemberBOOL{Value: v}
	case []any:
		out := make([]types.AttributeValue, len(v))
		for n, e := range v {
			out[n] = value(e)
		}
		return &types.AttributeValueMemberL{Value: out}
	case map[string]any:
		return &types.AttributeValueMemberM{Value: values(v)}
	}
	return &types.AttributeValueMemberNULL{Value: true}
}

// decode returns the item that ref names from what the table holds under its key;
// nothing is an absent item.
func decode(ref store.Ref, in attributes) (store.Item, error) {
	if len(in) == 0 {
		return store.New(ref)
	}
	if got, ok := in[attrItem].(*types.AttributeValueMemberS); !ok || got.Value != ref.String() {
		return nil, fmt.Errorf("decode %s: the answer is about another item", ref)
	}
	in = maps.Clone(in)
	for _, name := range ours {
		delete(in, name)
	}
	members, err := object(in)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", ref, err)
	}
	b, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", ref, err)
	}
	i, err := store.Decode(ref, b)
	if err == nil && i.Base().Version < 1 {
		err = fmt.Errorf("decode %s: it has no version: GARO did not write it, so delete it from the table", ref)
	}
	return i, err
}

// object is the inverse of values.
func object(in attributes) (map[string]any, error) {
	out := make(map[string]any, len(in))
	for name, v := range in {
		var err error
		if out[name], err = plain(v); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, nil
}

// plain is the inverse of value.
func plain(v types.AttributeValue) (any, error) {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return v.Value, nil
	case *types.AttributeValueMemberN:
		return json.Number(v.Value), nil
	case *types.AttributeValueMemberBOOL:
		return v.Value, nil
	case *types.AttributeValueMemberNULL:
		return nil, nil
	case *types.AttributeValueMemberL:
		out := make([]any, len(v.Value))
		for n, e := range v.Value {
			var err error
			if out[n], err = plain(e); err != nil {
				return nil, err
			}
		}
		return out, nil
	case *types.AttributeValueMemberM:
		return object(v.Value)
	}
	return nil, errors.New("a binary value or a set, which GARO never writes")
}
