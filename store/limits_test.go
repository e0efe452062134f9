package store_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestDividedDividesEveryNumberButThree(t *testing.T) {
	before, after := reflect.ValueOf(lim), reflect.ValueOf(lim.Divided(60))
	for f, field := range before.Fields() {
		want := field.Interface()
		switch was := want.(type) {
		case time.Duration:
			if was <= 0 {
				t.Errorf("%s = %v by default, want more than nothing", f.Name, was)
			}
			if f.Name != "StatusToken" && f.Name != "Keep" && f.Name != "LeaseAhead" { // what people see afterwards, and GitHub's minute
				want = was / 60
			}
		case []time.Duration:
			divided := make([]time.Duration, len(was))
			for i, w := range was {
				divided[i] = w / 60
			}
			want = divided
		default:
			t.Errorf("%s is a %T, and nothing says how it is divided", f.Name, was)
		}
		same(t, f.Name, after.FieldByIndex(f.Index).Interface(), want)
	}
	same(t, "the limits that were divided", lim, store.DefaultLimits())
}

// TestLimitsFitTogether holds what the reasons beside the numbers rely on.
func TestLimitsFitTogether(t *testing.T) {
	l := store.DefaultLimits()
	for _, c := range []struct {
		what string
		ok   bool
	}{
		{"a machine is not shared after two missed heartbeats, and lost after a few more", 2*l.Heartbeat < l.Silent && l.Silent < l.Lost},
		{"a share never lands on a runner whose end is under way", l.ShareMargin >= l.Silent && l.ShareStep < l.ShareMargin},
		{"the reaper confirms an idle runner before GitHub's word about it is old", l.Confirmed/3 < l.ReaperPeriod && l.Confirmed >= 2*l.ReaperPeriod},
		{"what a worker remembers of GitHub is one answer, not two", l.PollResend < l.SettleSlack},
		{"a registration is asked about as often as its machine says that it lives", l.ConfirmAgain < l.Heartbeat},
		{"a request outlives a boot", l.BootLimit+l.OnlineGrace < l.GiveUp},
		{"all tries fit before give_up", l.Waits[0]+l.Waits[1]+l.Waits[2] < l.GiveUp},
		{"a job is picked up or requeued within the grace", l.Grace > time.Minute},
		{"a machine is idle for longer than a reaper takes to see it", l.Idle > 2*l.ReaperPeriod},
		{"an orphan is older than the longest launch", l.OrphanAge > l.BootLimit+l.OnlineGrace},
		{"records outlive their names at GitHub", l.Keep > l.NameLife && l.NameLife > l.NameRetry},
		{"hard limits", l.Timeout < l.Hard && l.Hard <= l.HardMax},
	} {
		if !c.ok {
			t.Errorf("the limits do not fit: %s", c.what)
		}
	}
}

func TestSlotsComeInABurstThenOneByOne(t *testing.T) {
	var q store.Quota
	for n, want := range []time.Duration{0, 0, 0, 0, 0, 500 * time.Millisecond, time.Second, 1500 * time.Millisecond} {
		slot := q.Slot(t0, "eu-west-2", store.Pacing{})
		if wait := max(0, slot.Sub(t0)); wait != want {
			t.Errorf("launch %d waits %v, want %v", n, wait, want)
		}
		q = q.Reserve(slot, "eu-west-2", store.Pacing{})
	}
	if slot := q.Slot(t0, "eu-west-1", store.Pacing{}); slot.After(t0) {
		t.Errorf("the first slot of another region is %v, want at once", slot)
	}
	later := at(time.Minute) // the bucket is full again, and no fuller
	for n, want := range []time.Duration{0, 0, 0, 0, 0, 500 * time.Millisecond} {
		slot := q.Slot(later, "eu-west-2", store.Pacing{})
		if wait := max(0, slot.Sub(later)); wait != want {
			t.Errorf("launch %d after a pause waits %v, want %v", n, wait, want)
		}
		q = q.Reserve(slot, "eu-west-2", store.Pacing{})
	}
}

func TestSlotRefillsOneByOne(t *testing.T) {
	var q store.Quota
	for range 5 {
		q = q.Reserve(q.Slot(t0, "r", store.Pacing{}), "r", store.Pacing{})
	}
	for _, c := range []struct{ now, want time.Duration }{
		{499 * time.Millisecond, 500 * time.Millisecond},
		{500 * time.Millisecond, 500 * time.Millisecond},
	} {
		if got := q.Slot(at(c.now), "r", store.Pacing{}); !got.Equal(at(c.want)) {
			t.Errorf("slot at %v = %v, want %v", c.now, got.Sub(t0), c.want)
		}
	}
}

func TestPacingOfAnAccount(t *testing.T) {
	var q store.Quota
	p := store.Pacing{Burst: 1, IntervalMS: 2000}
	for n, want := range []time.Duration{0, 2 * time.Second, 4 * time.Second} {
		slot := q.Slot(t0, "r", p)
		if got := slot.Sub(t0); got != want {
			t.Errorf("slot %d = %v, want %v", n, got, want)
		}
		q = q.Reserve(slot, "r", p)
	}
}

func TestReserveLeavesTheGivenQuotaAlone(t *testing.T) {
	q := store.Quota{Account: "1", Live: 3, Next: map[string]time.Time{"r": t0, "other": t0}}
	got := q.Reserve(at(time.Second), "r", store.Pacing{})
	same(t, "quota", got, store.Quota{Account: "1", Live: 3, Next: map[string]time.Time{"r": at(1500 * time.Millisecond), "other": t0}})
	same(t, "the given quota", q.Next, map[string]time.Time{"r": t0, "other": t0})
}

func TestSighted(t *testing.T) {
	known := map[string]time.Time{"i-1": at(-time.Hour), "i-2": at(-time.Minute)}
	s := store.Sweep{Key: "1/eu-west-2", Instances: known}
	seen := func(s store.Sweep, instances map[string]time.Time) store.Sweep {
		s.Instances = instances
		return s
	}
	same(t, "sweep", s.Observe(t0, []string{"i-2", "i-3"}), seen(s, map[string]time.Time{"i-2": at(-time.Minute), "i-3": t0}))
	same(t, "the given sightings", known, map[string]time.Time{"i-1": at(-time.Hour), "i-2": at(-time.Minute)})
	same(t, "sweep that sees nothing", s.Observe(t0, nil), seen(s, map[string]time.Time{}))
	same(t, "first sweep", store.Sweep{Key: "1"}.Observe(t0, []string{"i-1"}), store.Sweep{Key: "1", Instances: map[string]time.Time{"i-1": t0}})
}

func TestSightedAt(t *testing.T) {
	known := map[string]time.Time{"42/1": at(-time.Hour), "42/2": at(-time.Minute), "7/3": at(-time.Hour), "421/1": at(-time.Second)}
	s := store.Sweep{Key: "1/eu-west-2", Runners: known}
	if !s.Knows("42", 1) || s.Knows("42", 3) || s.Knows("4", 21) {
		t.Error("it knows 42/1 alone of 42/1, 42/3 and 4/21")
	}
	got, since := s.ObserveRunners(t0, "42", []int64{2, 4})
	same(t, "since when each is seen", since, map[int64]time.Time{2: at(-time.Minute), 4: t0})
	same(t, "sightings, with those of other repositories", got.Runners, map[string]time.Time{"42/2": at(-time.Minute), "42/4": t0, "7/3": at(-time.Hour), "421/1": at(-time.Second)})
	same(t, "the given sightings", s.Runners, map[string]time.Time{"42/1": at(-time.Hour), "42/2": at(-time.Minute), "7/3": at(-time.Hour), "421/1": at(-time.Second)})
	none, since := s.ObserveRunners(t0, "42", nil)
	same(t, "sightings after a look that showed none", none.Runners, map[string]time.Time{"7/3": at(-time.Hour), "421/1": at(-time.Second)})
	if len(since) != 0 {
		t.Errorf("none is seen, and yet since %v", since)
	}
	first, _ := store.Sweep{}.ObserveRunners(t0, "42", []int64{1})
	same(t, "first sightings", first.Runners, map[string]time.Time{"42/1": t0})
}

func TestListedRepositoriesAreKeptWhileTheyAreUsed(t *testing.T) {
	first := store.Sweep{Key: "1/eu-west-2"}.Listed(t0, "42")
	s := first.Listed(at(time.Minute), "7")
	same(t, "lists", s.Checked, map[string]time.Time{"42": t0, "7": at(time.Minute)})
	same(t, "the given lists", first.Checked, map[string]time.Time{"42": t0})
	s.Runners = map[string]time.Time{"42/1": t0, "7/1": t0, "421/1": t0}
	kept := s.Keep([]string{"42", "99"})
	same(t, "lists that are kept", kept.Checked, map[string]time.Time{"42": t0})
	same(t, "sightings that are kept", kept.Runners, map[string]time.Time{"42/1": t0})
	same(t, "the given sightings", s.Runners, map[string]time.Time{"42/1": t0, "7/1": t0, "421/1": t0})
}

func TestKnowing(t *testing.T) {
	known := map[string]store.ProgramVersion{"2.336.0": {SeenAt: t0}}
	s := store.Sweep{}.Knowing(known)
	same(t, "versions", s.Versions, known)
	if got := s.Knowing(map[string]store.ProgramVersion{}); got.Versions != nil {
		t.Errorf("of no version, %v are kept, want nil as in a record that has none", got.Versions)
	}
}

func TestSweepIsTheOnlyItemOfItsCommit(t *testing.T) {
	for _, c := range []struct {
		name string
		rule func(*store.Sweep) store.Decision
		due  time.Time
	}{
		{"Scheduled", func(s *store.Sweep) store.Decision { return s.Schedule(t0) }, t0},
		{"Released", func(s *store.Sweep) store.Decision { return s.Release(t0, "ada") }, t0},
		{"Swept", func(s *store.Sweep) store.Decision { return s.Swept(t0, lim, false) }, t0.Add(lim.SweepPeriod)},
		{"SweptForTheLastTime", func(s *store.Sweep) store.Decision { return s.Swept(t0, lim, true) }, time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := store.Sweep{Key: "1/eu-west-2", Meta: store.Meta{DueAt: at(time.Second)}}
			d := c.rule(&s)
			if got, want := outcomeOf(d), (outcome{changes: "put sweep"}); got != want || d.Changes[0].Item != &s || !s.DueAt.Equal(c.due) {
				t.Errorf("the decision is %+v, due at %v; want %+v of this very sweep, due at %v", got, s.DueAt, want, c.due)
			}
		})
	}
}

func TestBrake(t *testing.T) {
	braked := store.Sweep{Key: "1/eu-west-2"}.Brake(t0, 7)
	same(t, "sweep", braked, store.Sweep{Key: "1/eu-west-2", BrakeAt: t0, History: store.History{{At: t0, State: "braked", Reason: "7 machines without a record"}}})
	same(t, "sweep that was braked again", braked.Brake(at(time.Minute), 9), braked)
	released := braked
	released.Release(at(time.Minute), "ada")
	for _, c := range []struct {
		name string
		s    store.Sweep
		want bool
	}{
		{"NeverBraked", store.Sweep{}, false},
		{"Braked", braked, true},
		{"Released", released, false},
		{"ReleasedBeforeItCameOn", store.Sweep{BrakeAt: t0, ReleasedAt: t0.Add(-1)}, true},
		{"ReleasedWhenItCameOn", store.Sweep{BrakeAt: t0, ReleasedAt: t0}, true},
	} {
		if got := c.s.Braked(); got != c.want {
			t.Errorf("%s: Braked = %v, want %v", c.name, got, c.want)
		}
	}
	off := released
	off.BrakeAt = time.Time{}
	off.History = append(off.History[:2:2], store.Entry{At: at(time.Hour), State: "brake off", Reason: "released by ada"})
	for _, c := range []struct {
		name string
		s    store.Sweep
		left int
		want store.Sweep
	}{
		{"ReleasedAndFewAreLeft", released, store.BrakeAbove, off},
		{"ReleasedAndManyAreLeft", released, store.BrakeAbove + 1, released},
		{"NotReleased", braked, 0, braked},
		{"NeverBraked", store.Sweep{}, 0, store.Sweep{}},
	} {
		same(t, c.name, c.s.Unbrake(at(time.Hour), c.left), c.want)
	}
}

func TestReleaseOfTheBrakeIsDueAtOnce(t *testing.T) {
	s := store.Sweep{Key: store.SweepKey("1", "eu-west-2"), BrakeAt: at(-time.Hour), Instances: map[string]time.Time{"i-1": at(-time.Hour)}}
	s.DueAt = at(time.Minute)
	want := s
	want.DueAt, want.ReleasedAt, want.ReleasedBy = t0, t0, "ada"
	want.History = store.History{{At: t0, State: "released", Reason: "by ada"}}
	s.Release(t0, "ada")
	same(t, "sweep", s, want)
	if s.Key != "1/eu-west-2" {
		t.Errorf("SweepKey = %s, want 1/eu-west-2", s.Key)
	}
}
