package storetest

import (
	"reflect"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// clone returns a copy of i that shares no memory with it. Items are made of
// exported fields alone, which is what JSON keeps of them.
func clone(i store.Item) store.Item {
	v := reflect.ValueOf(i)
	c := reflect.New(v.Type().Elem())
	c.Elem().Set(v.Elem())
	unshare(c.Elem())
	return c.Interface().(store.Item)
}

var timeType = reflect.TypeFor[time.Time]()

// unshare replaces everything that v, a copy, points to by a copy of it.
func unshare(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == timeType {
			return // nothing ever changes what it points to
		}
		for _, f := range v.Fields() {
			unshare(f)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			c := reflect.New(v.Type().Elem())
			c.Elem().Set(v.Elem())
			unshare(c.Elem())
			v.Set(c)
		}
	case reflect.Slice:
		if !v.IsNil() {
			c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			reflect.Copy(c, v)
			for i := range c.Len() {
				unshare(c.Index(i))
			}
			v.Set(c)
		}
	case reflect.Map:
		if !v.IsNil() {
			c := reflect.MakeMapWithSize(v.Type(), v.Len())
			for it := v.MapRange(); it.Next(); {
				e := reflect.New(v.Type().Elem()).Elem()
				e.Set(it.Value())
				unshare(e)
				c.SetMapIndex(it.Key(), e)
			}
			v.Set(c)
		}
	}
}
