package dynamostore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"pgregory.net/rapid"

	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
)

var kinds = []store.Kind{store.KindRequest, store.KindRunner, store.KindLock, store.KindPulse, store.KindQuota, store.KindSweep, store.KindPoints, store.KindPrices, store.KindCheck, store.KindUsage, store.KindReaperRun, store.KindOverflow}

// draw sets v, and all in it, to what the test draws: often to nothing, and to lists
// and maps that are there and empty.
func draw(t *rapid.T, v reflect.Value) {
	if rapid.IntRange(0, 3).Draw(t, "nothing") == 0 {
		return
	}
	if v.Type() == reflect.TypeFor[time.Time]() {
		zone := rapid.SampledFrom([]*time.Location{time.UTC, time.FixedZone("", 3600), time.FixedZone("", -11*3600-30*60)}).Draw(t, "zone")
		at := time.Unix(rapid.Int64Range(-1<<33, 1<<33).Draw(t, "s"), rapid.SampledFrom([]int64{0, 1, 1000, 120000000, 999999999}).Draw(t, "ns"))
		v.Set(reflect.ValueOf(at.In(zone)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.SampledFrom([]string{"a", "é日🙂", " \"'\\<&>\x00\n\u2028", "2026-03-01T12:00:00Z", "12", "null"}).Draw(t, "text"))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "number"))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		draw(t, v.Elem())
	case reflect.Slice:
		n := rapid.IntRange(0, 2).Draw(t, "elements")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			draw(t, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for n := range rapid.IntRange(0, 2).Draw(t, "elements") {
			e := reflect.New(v.Type().Elem()).Elem()
			draw(t, e)
			v.SetMapIndex(reflect.ValueOf([]string{"k 1", "id"}[n]), e)
		}
	case reflect.Struct:
		for _, f := range v.Fields() {
			draw(t, f)
		}
	default:
		t.Fatalf("an item has a %s, which no test here knows", v.Type())
	}
}

// drawn returns an item of any kind.
func drawn(t *rapid.T) store.Item {
	ref := store.Ref{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), ID: "x"}
	i, err := store.New(ref)
	if err != nil {
		t.Fatal(err)
	}
	draw(t, reflect.ValueOf(i).Elem())
	again, _ := store.New(ref)
	named := reflect.ValueOf(again).Elem()
	for _, name := range []string{"ID", "Key", "Account"} { // what names it, once drawn, must be as it was
		if f := named.FieldByName(name); f.IsValid() && f.String() == ref.ID {
			reflect.ValueOf(i).Elem().FieldByName(name).Set(f)
		}
	}
	i.Base().Version = rapid.Int64Range(0, 1<<62).Draw(t, "version")
	i.Base().DueAt = i.Base().DueAt.UTC() // as the index has it
	return i
}

// viaJSON is the form of an item by its definition: the attributes of its JSON.
func viaJSON(i store.Item) (map[string]types.AttributeValue, error) {
	b, err := store.Encode(i)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var members map[string]any
	if err := d.Decode(&members); err != nil {
		return nil, err
	}
	return values(members), nil
}

// values turns the members of a JSON object into attributes, without what is null.
func values(members map[string]any) map[string]types.AttributeValue {
	out := map[string]types.AttributeValue{}
	for name, v := range members {
		if v != nil {
			out[name] = value(v)
		}
	}
	return out
}

func value(v any) types.AttributeValue {
	switch v := v.(type) {
	case string:
		return &types.AttributeValueMemberS{Value: v}
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

// fromJSON is the inverse of viaJSON. It is as strict as decoding JSON is.
func fromJSON(ref store.Ref, in map[string]types.AttributeValue) (store.Item, error) {
	in = maps.Clone(in)
	for _, name := range tableOnly() {
		if name != "due_at" {
			delete(in, name)
		}
	}
	members, err := plain(&types.AttributeValueMemberM{Value: in})
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	return store.Decode(ref, b)
}

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
		out := map[string]any{}
		for name, e := range v.Value {
			var err error
			if out[name], err = plain(e); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return nil, errors.New("a binary value or a set")
}

func TestItemHasTheFormOfItsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := drawn(t)
		got, err := dynamostore.ItemOf(i)
		if err != nil {
			t.Fatal(err)
		}
		back, err := dynamostore.ItemFrom(i.Ref(), got)
		if err != nil {
			t.Fatal(err)
		}
		i.Base().Version++ // as it is stored
		want, err := viaJSON(i)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range tableOnly() { // other tests hold those
			delete(got, name)
			delete(want, name)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s has the attributes %s\nwant %s", i.Ref(), show(got), show(want))
		}
		b, err := store.Encode(i)
		if err != nil {
			t.Fatal(err)
		}
		same, err := store.Decode(i.Ref(), b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(back, same) {
			t.Errorf("%s comes back as %+v\nwant %+v", b, back, same)
		}
	})
}

func show(a map[string]types.AttributeValue) string {
	b, err := attributevalue.MarshalMapJSON(a)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// What is wrong in an item of the table is as wrong as it would be in JSON, and what
// is passed over there is passed over.
func TestItemIsReadAsStrictlyAsJSON(t *testing.T) {
	odd := []types.AttributeValue{
		&types.AttributeValueMemberNULL{Value: true},
		&types.AttributeValueMemberBOOL{Value: true},
		&types.AttributeValueMemberS{Value: ""},
		&types.AttributeValueMemberS{Value: "x"},
		&types.AttributeValueMemberS{Value: "1"},
		&types.AttributeValueMemberS{Value: "2026-03-01T12:00:00.5+01:00"},
		&types.AttributeValueMemberS{Value: "2026-03-01t12:00:00Z"},
		&types.AttributeValueMemberS{Value: "2026-03-01T12:00:00,5Z"},
		&types.AttributeValueMemberS{Value: "2026-03-01T1:00:00Z"},
		&types.AttributeValueMemberN{Value: "1"},
		&types.AttributeValueMemberN{Value: "-0"},
		&types.AttributeValueMemberN{Value: "+1"},
		&types.AttributeValueMemberN{Value: "01"},
		&types.AttributeValueMemberN{Value: "1.0"},
		&types.AttributeValueMemberN{Value: "1e2"},
		&types.AttributeValueMemberN{Value: "1_0"},
		&types.AttributeValueMemberN{Value: "1x"},
		&types.AttributeValueMemberN{Value: "9223372036854775807"},
		&types.AttributeValueMemberN{Value: "9223372036854775808"},
		&types.AttributeValueMemberL{},
		&types.AttributeValueMemberL{Value: []types.AttributeValue{&types.AttributeValueMemberS{Value: "a"}}},
		&types.AttributeValueMemberL{Value: []types.AttributeValue{&types.AttributeValueMemberNULL{Value: true}}},
		&types.AttributeValueMemberM{},
		&types.AttributeValueMemberM{Value: map[string]types.AttributeValue{"x": &types.AttributeValueMemberS{Value: "a"}}},
		&types.AttributeValueMemberM{Value: map[string]types.AttributeValue{"x": &types.AttributeValueMemberNULL{Value: true}}},
		&types.AttributeValueMemberM{Value: map[string]types.AttributeValue{"id": &types.AttributeValueMemberN{Value: "1"}}},
		&types.AttributeValueMemberB{Value: []byte("a")},
		&types.AttributeValueMemberSS{Value: []string{"a"}},
		&types.AttributeValueMemberNS{Value: []string{"1"}},
		&types.AttributeValueMemberBS{Value: [][]byte{[]byte("a")}},
	}
	rapid.Check(t, func(t *rapid.T) {
		i := drawn(t)
		item, err := dynamostore.ItemOf(i)
		if err != nil {
			t.Fatal(err)
		}
		what := spoil(t, item, rapid.SampledFrom(odd).Draw(t, "odd"))
		want, wantErr := fromJSON(i.Ref(), item)
		if wantErr == nil && want.Base().Version < 1 {
			wantErr = errors.New("no version")
		}
		if v, ok := item["item"].(*types.AttributeValueMemberS); !ok || v.Value != i.Ref().String() {
			wantErr = errors.New("another item")
		}
		got, err := dynamostore.ItemFrom(i.Ref(), item)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("with %s: %v, want %v as of JSON", what, err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("with %s: %+v\nwant %+v", what, got, want)
		}
	})
}

// spoil puts an attribute somewhere into an item, and says where.
func spoil(t *rapid.T, m map[string]types.AttributeValue, odd types.AttributeValue) string {
	name := rapid.SampledFrom(append(slices.Sorted(maps.Keys(m)), "new")).Draw(t, "name")
	if rapid.Bool().Draw(t, "deeper") {
		switch v := m[name].(type) {
		case *types.AttributeValueMemberM:
			return name + "." + spoil(t, v.Value, odd)
		case *types.AttributeValueMemberL:
			if len(v.Value) > 0 {
				if e, ok := v.Value[0].(*types.AttributeValueMemberM); ok {
					return name + "[0]." + spoil(t, e.Value, odd)
				}
				v.Value[0] = odd
				return fmt.Sprintf("%s[0] = %T%+[2]v", name, odd)
			}
		}
	}
	m[name] = odd
	return fmt.Sprintf("%s = %T%+[2]v", name, odd)
}
