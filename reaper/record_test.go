package reaper_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestRunIsRecorded(t *testing.T) {
	inWorld(t, func(w *world) {
		left, known := 0.0, false
		w.config.GitHubLeft = func() (float64, bool) { return left, known }
		w.run()
		began := time.Now().UTC()
		want := store.ReaperRun{ID: "0", StartedAt: began, EndedAt: began, LookedAt: began}
		check := func(what string) {
			w.t.Helper()
			got := get[store.ReaperRun](w, "0")
			if got.TTL != got.EndedAt.Add(w.lim.Keep).Unix() || !got.DueAt.IsZero() {
				w.t.Errorf("record of %s has %+v, want it to be kept for the time of records, and never due", what, got.Meta)
			}
			want.Meta = got.Meta
			if d := cmp.Diff(want, got); d != "" {
				w.t.Errorf("record of %s (-want +got):\n%s", what, d)
			}
		}
		check("a run with nothing to do")

		w.ghosts(store.BrakeAbove + 2)
		sweep := w.sweep()
		ends := time.Now().Add(30 * 24 * time.Hour).UTC()
		sweep.Versions = map[string]store.ProgramVersion{"2.330.0": {SeenAt: time.Now(), AskedAt: time.Now(), EndsAt: ends}}
		w.put(&sweep)
		w.minutes(30)
		want.Alarms = slices.Clone(get[store.ReaperRun](w, "0").Alarms)
		if len(want.Alarms) != 1 || want.Alarms[0].Code != store.AlarmBrake || want.Alarms[0].Text == "" || want.Alarms[0].At.Before(began) {
			w.t.Fatalf("alarms = %+v, want the brake's", want.Alarms)
		}
		w.accept("old")
		left, known = 0.427, true
		time.Sleep(90 * time.Second)
		w.run()
		now := time.Now().UTC()
		want.StartedAt, want.EndedAt, want.LookedAt, want.LateMS = now, now, now, 30_000
		want.OldestMS, want.GitHubLeft, want.Braked = 90_000, new(42), []string{here.String()}
		want.Program, want.ProgramEndsAt = "2.330.0", ends
		if latest := get[store.ReaperRun](w, "0").Alarms; len(latest) == 1 {
			want.Alarms = latest
		}
		check("a run with trouble")

		want.Meta = store.Meta{}
		dry := w.config
		dry.DryRun = true
		time.Sleep(time.Minute)
		if _, err := reaper.New(dry).Run(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		check("a run before a dry one")
	})
}

// Shards write records of their own.
func TestEachShardIsRecorded(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 2 {
			if _, err := reaper.New(w.config).RunShard(w.t.Context(), reaper.Shard{Index: i, Of: 2}); err != nil {
				w.t.Fatal(err)
			}
		}
		for _, ref := range store.ReaperRunRefs(2) {
			if got := get[store.ReaperRun](w, ref.ID); got.Version != 1 || got.Of != 2 {
				w.t.Errorf("record of shard %s = %+v, want it written once, of two", ref.ID, got)
			}
		}
	})
}

// deaf is a store that neither reads nor writes the records of runs.
type deaf struct {
	store.Store
	read, write error
}

func isRun(ref store.Ref) bool { return ref.Kind == store.KindReaperRun }

func (s deaf) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	if slices.ContainsFunc(refs, isRun) && s.read != nil {
		return nil, s.read
	}
	return s.Store.Get(ctx, refs...)
}

func (s deaf) Commit(ctx context.Context, changes ...store.Change) error {
	if slices.ContainsFunc(changes, func(c store.Change) bool { return isRun(c.Item.Ref()) }) && s.write != nil {
		return s.write
	}
	return s.Store.Commit(ctx, changes...)
}

// A record that cannot be read or written blocks no run, fails none, and delays none.
func TestRunThatCannotBeRecordedIsAsGood(t *testing.T) {
	for name, s := range map[string]deaf{
		"Read": {read: errors.New("no table")}, "Write": {write: errors.New("no table")}, "Conflict": {write: &store.ConflictError{}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				s.Store = w.store
				w.config.Store = s
				w.accept("waits")
				w.minutes(20) // it expires
				w.wantRequest(id("waits"), store.Expired)
				if report := w.run(); report.Late || report.Counts[reaper.Fail] != 0 || report.EndedAt.IsZero() {
					t.Errorf("report = %+v, want a good run", report)
				}
				w.wantAlarms()
				if n := strings.Count(w.log.String(), "is not recorded"); n != 21 {
					t.Errorf("the log says %d times that a run is not recorded, want once a run", n)
				}
			})
		})
	}
}
