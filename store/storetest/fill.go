package storetest

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// filled returns an item of the kind in which no field has its zero value and no
// two have the same one, whatever fields the kind has.
func filled(t *testing.T, kind store.Kind) store.Item {
	t.Helper()
	i, err := store.New(store.Ref{Kind: kind, ID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := fill(reflect.ValueOf(i).Elem(), &n); err != nil {
		t.Fatalf("fill a %s: %v", kind, err)
	}
	return i
}

// awkward is in every string: what JSON, SQL or a key could trip over.
const awkward = " \"'\\<&>#/,%_\x00\n é日🙂"

// fill sets v and all in it to values made of n, which it counts up.
func fill(v reflect.Value, n *int) error {
	*n++
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(epoch.Add(time.Duration(*n)*time.Second + time.Nanosecond)))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("%s%d", awkward, *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1<<62 + int64(*n)) // a float64 would round it
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			if err := fill(v.Index(i), n); err != nil {
				return err
			}
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			if err := fill(key, n); err != nil {
				return err
			}
			if err := fill(value, n); err != nil {
				return err
			}
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for f := range v.Type().Fields() {
			if !f.IsExported() {
				return fmt.Errorf("%s.%s is not exported, so that nothing can store it", v.Type(), f.Name)
			}
			if err := fill(v.FieldByIndex(f.Index), n); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("a %s cannot be stored", v.Type())
	}
	return nil
}
