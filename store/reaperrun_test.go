package store_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestRunOfTheReaperTakesThePlaceOfTheLastOne(t *testing.T) {
	lim := store.DefaultLimits()
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	raised := func(code store.Alarm, ago time.Duration, text string) store.Raised {
		return store.Raised{Code: code, Count: 1, Since: at.Add(-ago), At: at.Add(-ago), Text: text}
	}
	last := store.ReaperRun{
		Meta: store.Meta{Version: 7}, ID: "0", StartedAt: at.Add(-65 * time.Second), EndedAt: at.Add(-60 * time.Second), Left: map[string]int{"sweeps": 1}, Failures: 3,
		LookedAt: at.Add(-time.Hour), Braked: []string{"1/eu-west-2"}, Program: "2.330.0", ProgramEndsAt: at.Add(time.Hour),
		Alarms: []store.Raised{raised(store.AlarmAccess, 2*time.Hour, "before"), raised(store.AlarmBusy, 24*time.Hour-time.Second, "nearly a day"), raised(store.AlarmTags, 24*time.Hour, "a day")},
	}
	next := store.ReaperRun{ID: "0", StartedAt: at.Add(-time.Second), EndedAt: at, Alarms: []store.Raised{
		raised(store.AlarmAccess, 0, "b\nb"), raised(store.AlarmAccess, 0, "a"), raised(store.AlarmBrake, 0, strings.Repeat("x", 400)),
	}}
	record := func(next, last store.ReaperRun) *store.ReaperRun {
		t.Helper()
		d := next.Record(lim, last)
		if len(d.Changes) == 0 {
			return nil
		}
		if len(d.Changes) != 1 || len(d.Sends) != 0 || d.Alarm != "" {
			t.Fatalf("decision = %+v, want one change alone", d)
		}
		return d.Changes[0].Item.(*store.ReaperRun)
	}
	got := record(next, last)
	want := next
	want.Program, want.Meta = "2.330.0", store.Meta{Version: 7, TTL: at.Add(lim.Keep).Unix()}
	want.LateMS = 4000 // 64 seconds after the last one
	want.LookedAt, want.Braked, want.ProgramEndsAt = last.LookedAt, last.Braked, last.ProgramEndsAt
	want.Alarms = []store.Raised{
		{Code: store.AlarmAccess, Count: 3, Since: at.Add(-2 * time.Hour), At: at, Text: "b b"},
		{Code: store.AlarmBrake, Count: 1, Since: at, At: at, Text: strings.Repeat("x", 299) + "…"},
		last.Alarms[1],
	}
	if d := cmp.Diff(&want, got); d != "" {
		t.Errorf("record (-want +got):\n%s", d)
	}
	next.LookedAt, next.StartedAt = at, last.StartedAt.Add(lim.ReaperPeriod)
	if got := record(next, last); got.LateMS != 0 || got.Braked != nil || got.Program != "" || !got.ProgramEndsAt.IsZero() || got.Left != nil || got.Failures != 0 {
		t.Errorf("record of a run in time that looked at the sweeps = %+v, want nothing of the last one", got)
	}
	if got := record(next, store.ReaperRun{ID: "0"}); got.LateMS != 0 || len(got.Alarms) != 2 {
		t.Errorf("record of the first run = %+v, want its alarms, and that it is not late", got)
	}
	next.StartedAt = last.StartedAt.Add(-time.Nanosecond)
	if got := record(next, last); got != nil {
		t.Errorf("a run that began before the last one writes %+v, want nothing", got)
	}
}

func TestFirstEndIsOfTheVersionThatEndsFirst(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	s := store.Sweep{Versions: map[string]store.ProgramVersion{"1": {}, "2": {EndsAt: at.Add(1)}, "3": {EndsAt: at}, "4": {EndsAt: at}}}
	if v, ends, ok := s.FirstEnd(); v != "3" || !ends.Equal(at) || !ok {
		t.Errorf("FirstEnd = %q, %v, %t; want 3", v, ends, ok)
	}
	if v, ends, ok := (store.Sweep{Versions: map[string]store.ProgramVersion{"1": {}}}).FirstEnd(); v != "" || !ends.IsZero() || ok {
		t.Errorf("FirstEnd without a date = %q, %v, %t; want none", v, ends, ok)
	}
}

// The records of all shards have names of their own, and the whole has that of the first.
func TestRunsOfTheReaperAreFoundByTheirShards(t *testing.T) {
	for shards, want := range map[int]string{0: `[{"Kind":"reaperrun","ID":"0"}]`, 1: `[{"Kind":"reaperrun","ID":"0"}]`, 2: `[{"Kind":"reaperrun","ID":"0"},{"Kind":"reaperrun","ID":"1"}]`} {
		if got, err := json.Marshal(store.ReaperRunRefs(shards)); err != nil || string(got) != want {
			t.Errorf("refs of %d shards = %s, %v; want %s", shards, got, err, want)
		}
	}
}
