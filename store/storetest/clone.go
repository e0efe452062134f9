package storetest

import (
	"reflect"
	"sync"
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

// pointing has the fields of each type of struct that may point to memory:
// to copy an item, only those are looked at. A run of the simulation copies
// items more often than it does anything else.
var pointing sync.Map // of reflect.Type to []int

func pointingFields(t reflect.Type) []int {
	if fields, ok := pointing.Load(t); ok {
		return fields.([]int)
	}
	fields := []int{}
	for i := range t.NumField() {
		if points(t.Field(i).Type) {
			fields = append(fields, i)
		}
	}
	pointing.Store(t, fields)
	return fields
}

// points says whether a value of type t may point to memory that changes.
func points(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return true
	case reflect.Struct:
		// Nothing ever changes what a time points to.
		return t != reflect.TypeFor[time.Time]() && len(pointingFields(t)) > 0
	default:
		return false
	}
}

// unshare replaces everything that v, a copy, points to by a copy of it.
func unshare(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for _, i := range pointingFields(v.Type()) {
			unshare(v.Field(i))
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
			if points(v.Type().Elem()) {
				for i := range c.Len() {
					unshare(c.Index(i))
				}
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
