package storetest

import (
	"reflect"
	"testing"
	"time"
)

func TestFilledLeavesNoFieldOut(t *testing.T) {
	for _, kind := range kinds {
		blank(t, string(kind), reflect.ValueOf(filled(t, kind)).Elem())
	}
}

// blank reports every field in v that has its zero value.
func blank(t *testing.T, path string, v reflect.Value) {
	if v.IsZero() {
		t.Errorf("%s is not filled", path)
	}
	switch v.Kind() {
	case reflect.Pointer:
		blank(t, path, v.Elem())
	case reflect.Slice:
		for i := range v.Len() {
			blank(t, path+"[]", v.Index(i))
		}
	case reflect.Map:
		if v.Len() < 2 {
			t.Errorf("%s has %d entries, want two", path, v.Len())
		}
		for _, k := range v.MapKeys() {
			blank(t, path+"{}", v.MapIndex(k))
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for f, field := range v.Fields() {
			blank(t, path+"."+f.Name, field)
		}
	}
}

func TestFillRefusesWhatNoBackendCanStore(t *testing.T) {
	for _, v := range []any{
		&struct{ hidden int }{},
		&struct{ C chan int }{},
		&struct{ F []func() }{},
		&struct{ I any }{},
	} {
		n := 0
		if err := fill(reflect.ValueOf(v).Elem(), &n); err == nil {
			t.Errorf("fill(%T) = nil, want an error", v)
		}
	}
}
