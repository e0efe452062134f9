package main

import (
	"reflect"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

func TestStartHasAFlagForEveryField(t *testing.T) {
	flags := startCommand().Flags()
	for _, f := range reflect.VisibleFields(reflect.TypeFor[apitype.Start]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		flag := strings.ReplaceAll(name, "_", "-")
		if f.Type.Kind() == reflect.Slice || f.Type.Kind() == reflect.Map {
			flag = strings.TrimSuffix(flag, "s") // one value each time
		}
		if flags.Lookup(flag) == nil {
			t.Errorf("garo start has no flag --%s for the field %s of POST /start", flag, name)
		}
	}
}
