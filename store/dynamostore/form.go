package dynamostore

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

var timeType = reflect.TypeFor[time.Time]()

// field is a field of a struct under its name in JSON.
type field struct {
	name                string
	index               []int
	typ                 reflect.Type
	omitEmpty, omitZero bool
}

// fields returns those of the struct type t, with the ones of embedded structs.
func fields(t reflect.Type) map[string]field {
	if known, ok := fieldsOf.Load(t); ok {
		return known.(map[string]field)
	}
	all := map[string]field{}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous {
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		all[name] = field{name, f.Index, f.Type, strings.Contains(options, "omitempty"), strings.Contains(options, "omitzero")}
	}
	fieldsOf.Store(t, all)
	return all
}

// fieldsOf keeps what fields has found, by type.
var fieldsOf sync.Map

// absent reports whether an item's JSON has no such member, or null, which to the
// store is the same.
func (m field) absent(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.IsNil() || m.omitEmpty && v.Len() == 0
	case reflect.Pointer:
		return v.IsNil()
	}
	return m.omitZero && v.IsZero()
}

// trim takes out of a, which v was encoded to, the members that v does not have in
// JSON: attributevalue knows no omitzero, has NULL for a list or map that is nil, and
// takes omitempty to mean nil alone.
func trim(v reflect.Value, a types.AttributeValue) {
	switch v.Kind() {
	case reflect.Pointer:
		trim(v.Elem(), a)
	case reflect.Slice:
		for n, e := range a.(*types.AttributeValueMemberL).Value {
			trim(v.Index(n), e)
		}
	case reflect.Map:
		for name, e := range a.(*types.AttributeValueMemberM).Value {
			trim(v.MapIndex(reflect.ValueOf(name)), e)
		}
	case reflect.Struct:
		in, ok := a.(*types.AttributeValueMemberM)
		if !ok { // a time
			return
		}
		for name, m := range fields(v.Type()) {
			if f := v.FieldByIndex(m.index); m.absent(f) {
				delete(in.Value, name)
			} else if e, ok := in.Value[name]; ok {
				trim(f, e)
			}
		}
	}
}

// fit returns an error if v is not what a value of type t has in JSON. Left to itself
// attributevalue takes a number for a text, a map for a time, a set for a list, and a
// name in other letters for a member's. A nil t may be anything: a later version of
// GARO can have added the member.
func fit(v types.AttributeValue, t reflect.Type) error {
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	fits := func(kinds ...reflect.Kind) error {
		if t == nil || t == timeType && kinds[0] == reflect.String || t != timeType && slices.Contains(kinds, t.Kind()) {
			return nil
		}
		return fmt.Errorf("%T is not the form of a %s", v, t)
	}
	switch v := v.(type) {
	case *types.AttributeValueMemberNULL:
		return nil
	case *types.AttributeValueMemberS:
		return fits(reflect.String)
	case *types.AttributeValueMemberBOOL:
		return fits(reflect.Bool)
	case *types.AttributeValueMemberN:
		if _, err := json.Marshal(json.Number(v.Value)); err != nil {
			return err
		}
		return fits(reflect.Int, reflect.Int64)
	case *types.AttributeValueMemberL:
		if err := fits(reflect.Slice); err != nil {
			return err
		}
		for _, e := range v.Value {
			if err := fit(e, element(t)); err != nil {
				return err
			}
		}
		return nil
	case *types.AttributeValueMemberM:
		if err := fits(reflect.Map, reflect.Struct); err != nil {
			return err
		}
		for name, e := range v.Value {
			of, err := typeOf(t, name)
			if err == nil {
				err = fit(e, of)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
	return errors.New("a binary value or a set, which GARO never writes")
}

// element returns the type of the elements of t, which may be nil.
func element(t reflect.Type) reflect.Type {
	if t == nil {
		return nil
	}
	return t.Elem()
}

// typeOf returns the type of what a struct or map has under a name.
func typeOf(t reflect.Type, name string) (reflect.Type, error) {
	if t == nil || t.Kind() == reflect.Map {
		return element(t), nil
	}
	all := fields(t)
	m, ok := all[name]
	if !ok {
		for other := range all {
			if strings.EqualFold(name, other) {
				return nil, fmt.Errorf("want %s", other)
			}
		}
	}
	return m.typ, nil
}
