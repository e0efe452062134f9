package dynamostore

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// maxItem is the most bytes that DynamoDB lets an item have.
// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
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

// The encoder and the decoder take names from the tags for JSON, so that there is
// one form of an item. In attributevalue v1.21.19 those tags mean less than to
// encoding/json: trim takes out what JSON leaves out, and fit refuses what JSON
// refuses.
var (
	encoder = attributevalue.NewEncoder(func(o *attributevalue.EncoderOptions) {
		o.TagKey = "json"
		o.EncodeTime = func(t time.Time) (types.AttributeValue, error) {
			b, err := t.MarshalText()
			return text(string(b)), err
		}
	})
	decoder = attributevalue.NewDecoder(func(o *attributevalue.DecoderOptions) {
		o.TagKey = "json"
		o.DecodeTime.S = func(s string) (t time.Time, err error) {
			err = t.UnmarshalText([]byte(s))
			return t, err
		}
	})
)

// encode returns what is to be stored: the next version of i.
func encode(i store.Item) (attributes, error) {
	base := i.Base()
	base.Version++
	v, err := encoder.Encode(i)
	base.Version--
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", i.Ref(), err)
	}
	trim(reflect.ValueOf(i), v)
	out := v.(*types.AttributeValueMemberM).Value
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
	case *store.Usage:
		list(out, kind, i.Repository, store.Cursor(i))
	}
	if part := store.OpenIn(i); part != "" {
		out[attrOpen] = text(part)
	}
	if word := store.FoundBy(i); word != "" {
		out[attrFound] = text(kindOf(kind, word))
	}
	if n := size(&types.AttributeValueMemberM{Value: out}); n > maxItem {
		return nil, fmt.Errorf("%s has %d bytes, want at most %d", i.Ref(), n, maxItem)
	}
	return out, nil
}

// list puts an item into the indexes that List reads.
func list(out attributes, kind string, r store.Repository, cursor string) {
	out[attrList], out[attrListedAt] = text(kind), text(cursor)
	out[attrRepository] = text(kindOf(kind, r.ID))
}

// kindOf is the partition of an index that has one kind alone of what a word means: of a
// repository's id, without its server, as a store.Filter is; or of what store.FoundBy says.
func kindOf(kind, word string) string { return kind + "#" + word }

// size returns how many bytes v has as DynamoDB counts them, or a few more: a number
// counts with every digit, where DynamoDB packs two into a byte.
// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
func size(v types.AttributeValue) int {
	const inner, each = 3, 1 // what a list or map costs, and every element of it
	n := 0
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		n = len(v.Value)
	case *types.AttributeValueMemberN:
		n = len(v.Value) + 1
	case *types.AttributeValueMemberL:
		n = inner
		for _, e := range v.Value {
			n += each + size(e)
		}
	case *types.AttributeValueMemberM:
		n = inner
		for name, e := range v.Value {
			n += each + len(name) + size(e)
		}
	default: // true, false, or null
		n = 1
	}
	return n
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
	own := make(attributes, len(in))
	for name, v := range in {
		if _, null := v.(*types.AttributeValueMemberNULL); !null && !slices.Contains(ours, name) {
			own[name] = v
		}
	}
	m := &types.AttributeValueMemberM{Value: own}
	i, err := store.New(ref)
	if err == nil {
		err = fit(m, reflect.TypeOf(i))
	}
	if err == nil {
		err = decoder.Decode(m, i)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("decode %s: %w", ref, err)
	case i.Ref() != ref:
		return nil, fmt.Errorf("decode %s: the item says that it is %s", ref, i.Ref())
	case i.Base().Version < 1:
		return nil, fmt.Errorf("decode %s: it has no version: GARO did not write it, so delete it from the table", ref)
	}
	return i, nil
}
