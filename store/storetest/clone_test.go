package storetest

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestCloneIsEqualAndSharesNothing(t *testing.T) {
	for _, kind := range []store.Kind{store.KindRequest, store.KindRunner, store.KindLock, store.KindPulse, store.KindQuota, store.KindSweep, store.KindPoints, store.KindPrices, store.KindCheck, store.KindUsage, store.KindReaperRun, store.KindOverflow} {
		item, want := filled(t, kind), filled(t, kind)
		got := clone(item)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("clone of a %s differs (-want +got):\n%s", kind, d)
		}
		spoil(reflect.ValueOf(got).Elem())
		if d := cmp.Diff(want, item); d != "" {
			t.Errorf("a %s changes with its clone (-want +got):\n%s", kind, d)
		}
	}
}

// spoil sets all that v reaches through pointers, slices and maps to zero.
func spoil(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() != reflect.TypeFor[time.Time]() {
			for _, f := range v.Fields() {
				spoil(f)
			}
		}
	case reflect.Pointer:
		spoil(v.Elem())
		v.Elem().SetZero()
	case reflect.Slice:
		for i := range v.Len() {
			spoil(v.Index(i))
			v.Index(i).SetZero()
		}
	case reflect.Map:
		v.Clear()
	}
}
