package simfleet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/fleettest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var here = fleet.Place{Account: "111111111111", Region: "eu-west-2"}

// clock is a time that moves on demand.
type clock struct{ t time.Time }

func newClock() *clock { return &clock{time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)} }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

// counting is a random source that repeats itself from one run to the next. It
// counts down: the first id is the last one in order.
type counting struct{ n byte }

func (c *counting) Read(b []byte) (int, error) {
	for i := range b {
		c.n--
		b[i] = c.n
	}
	return len(b), nil
}

func openWorld(t *testing.T, cfg simfleet.WorldConfig) *simfleet.World {
	t.Helper()
	if cfg.Random == nil {
		cfg.Random = &counting{}
	}
	w, err := simfleet.OpenWorld(cfg)
	if err != nil {
		t.Fatalf("OpenWorld: %v", err)
	}
	return w
}

func launchOf(token string) fleet.Launch {
	return fleet.Launch{
		ClientToken:    token,
		Market:         store.Spot,
		InstanceType:   "c7g.large",
		Subnet:         "subnet-a",
		Image:          "ami-0123456789abcdef0",
		SecurityGroups: []string{"sg-1"},
		Tags:           map[string]string{fleet.TagControlPlane: "test", fleet.TagRunner: "r-" + token},
		UserData:       []byte("nothing to do"),
	}
}

func mustLaunch(t *testing.T, f fleet.Fleet, l fleet.Launch) fleet.Instance {
	t.Helper()
	i, err := f.Launch(t.Context(), here, l)
	if err != nil {
		t.Fatalf("Launch %s: %v", l.ClientToken, err)
	}
	return i
}

// stateOf returns what EC2 shows of an instance; empty: nothing.
func stateOf(t *testing.T, f fleet.Fleet, id string) fleet.State {
	t.Helper()
	got, err := f.Get(t.Context(), here, id)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	return got[id].State
}

func listed(t *testing.T, f fleet.Fleet) (ids []string) {
	t.Helper()
	for i, err := range f.List(t.Context(), here, "test") {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		ids = append(ids, i.ID)
	}
	return ids
}

func TestWorldIsAFleet(t *testing.T) {
	fleettest.Run(t, func(t *testing.T) fleettest.Subject {
		c := newClock()
		w := openWorld(t, simfleet.WorldConfig{
			Now:      c.now,
			Pending:  5 * time.Second,
			Stopping: 10 * time.Second,
			Lag:      20 * time.Second,
			PageSize: 3,

			Architecture: func(string) string { return "arm64" },

			Zones: map[string]string{"subnet-a": "eu-west-2a", "subnet-b": "eu-west-2b", "subnet-c": "eu-west-2a"},
		})
		return subject(t, w, w, func() { c.advance(time.Minute) })
	})
}

func subject(t *testing.T, f fleet.Fleet, w *simfleet.World, settle func()) fleettest.Subject {
	l := launchOf("")
	return fleettest.Subject{
		Fleet:        f,
		Inspector:    simfleet.Inspected{World: w},
		At:           here,
		Launch:       l,
		Settle:       settle,
		Elsewhere:    fleet.Place{Account: here.Account, Region: "eu-west-1"},
		OtherZone:    "subnet-b",
		SameZone:     "subnet-c",
		PageSize:     3,
		OtherImage:   "ami-00000000000000000",
		OtherProfile: "builder",
		OtherType:    "m7i.large",
		Protect: func(id string) {
			if err := w.Protect(id, true); err != nil {
				t.Error(err)
			}
		},
		Die: func(id, code, message string) {
			if err := w.Die(id, message); err != nil || !strings.HasPrefix(message, code+": ") {
				t.Errorf("Die = %v with %s and %q", err, code, message)
			}
		},
		SetCapacity: func(has bool) {
			w.SetCapacity(simfleet.Placement{Market: store.OnDemand, InstanceType: l.InstanceType, Subnet: l.Subnet}, has)
		},
	}
}

func TestInstanceLivesThroughItsStates(t *testing.T) {
	c := newClock()
	w := openWorld(t, simfleet.WorldConfig{Now: c.now, Pending: 5 * time.Second, Stopping: 10 * time.Second})
	id := mustLaunch(t, w, launchOf("t1")).ID
	var states []fleet.State
	look := func(after time.Duration) {
		c.advance(after)
		states = append(states, stateOf(t, w, id))
	}
	look(0)
	look(5*time.Second - 1)
	look(1)
	look(24 * time.Hour)
	if err := w.Terminate(t.Context(), here, id); err != nil {
		t.Fatalf("Terminate: %v", err)
	}
	look(0)
	look(10 * time.Second)
	look(time.Hour - 1)
	look(1)
	want := []fleet.State{fleet.Pending, fleet.Pending, fleet.Running, fleet.Running, fleet.ShuttingDown, fleet.Terminated, fleet.Terminated, ""}
	if !slices.Equal(states, want) {
		t.Errorf("states = %q, want %q", states, want)
	}
	if err := w.Terminate(t.Context(), here, id); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("Terminate of one that vanished = %v, want not found", err)
	}
	if ids := listed(t, w); len(ids) != 0 {
		t.Errorf("List = %v, want the vanished one gone", ids)
	}
}

func TestViewLagsBehind(t *testing.T) {
	c := newClock()
	w := openWorld(t, simfleet.WorldConfig{Now: c.now, Lag: time.Minute, Stopping: time.Second})
	id := mustLaunch(t, w, launchOf("t1")).ID
	c.advance(time.Minute - 1)
	if s := stateOf(t, w, id); s != "" {
		t.Errorf("Get before the view has it = %s, want nothing", s)
	}
	if ids := listed(t, w); len(ids) != 0 {
		t.Errorf("List before the view has it = %v, want nothing", ids)
	}
	if _, err := w.ByToken(t.Context(), here, "r-t1", "t1"); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("ByToken before the view has it = %v, want not found", err)
	}
	if err := w.Terminate(t.Context(), here, id); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("Terminate before the view has it = %v, want not found", err)
	}
	if again := mustLaunch(t, w, launchOf("t1")); again.ID != id {
		t.Errorf("Launch before the view has it = %s, want %s: tokens do not lag", again.ID, id)
	}
	c.advance(1)
	if s := stateOf(t, w, id); s != fleet.Running {
		t.Errorf("Get = %s, want running", s)
	}
	if err := w.Terminate(t.Context(), here, id); err != nil {
		t.Fatalf("Terminate: %v", err)
	}
	c.advance(30 * time.Second)
	got, err := w.Get(t.Context(), here, id)
	if i := got[id]; err != nil || i.State != fleet.Running || i.Reason != "" {
		t.Errorf("Get half a minute after the end = %+v, %v; want it running", i, err)
	}
	w.SetLag(0)
	if s := stateOf(t, w, id); s != fleet.Terminated {
		t.Errorf("Get without lag = %s, want terminated", s)
	}
	if f, _ := w.Instance(id); f.State != fleet.Terminated {
		t.Errorf("Instance = %s, want the truth: terminated", f.State)
	}
}

func TestSpotInterruptionComesTwoMinutesAfterItsNotice(t *testing.T) {
	c := newClock()
	w := openWorld(t, simfleet.WorldConfig{Now: c.now, Stopping: time.Second})
	id := mustLaunch(t, w, launchOf("t1")).ID
	c.advance(time.Minute)
	told := c.t
	if err := w.Interrupt(id, simfleet.SpotNotice); err != nil {
		t.Fatalf("Interrupt: %v", err)
	}
	c.advance(2*time.Minute - 1)
	if f, _ := w.Instance(id); f.State != fleet.Running || !f.NoticeAt.Equal(told) || !f.EndsAt.Equal(told.Add(2*time.Minute)) || f.Reason != "" {
		t.Errorf("before the end = %+v, want it running and told at %v", f, told)
	}
	c.advance(1 + time.Second)
	f, _ := w.Instance(id)
	if f.State != fleet.Terminated || f.Reason != "Server.SpotInstanceTermination: Spot instance termination" || !f.EndedAt.Equal(c.t) {
		t.Errorf("after the end = %+v, want it reclaimed", f)
	}
	if err := w.Interrupt(id, 0); err == nil {
		t.Error("Interrupt of one that ended = nil, want an error")
	}
}

func TestInterruptNeedsASpotInstance(t *testing.T) {
	w := openWorld(t, simfleet.WorldConfig{})
	l := launchOf("t1")
	l.Market = store.OnDemand
	id := mustLaunch(t, w, l).ID
	if err := w.Interrupt(id, 0); err == nil {
		t.Error("Interrupt of an on-demand instance = nil, want an error")
	}
	if err := w.Interrupt("i-unknown", 0); err == nil {
		t.Error("Interrupt of an unknown instance = nil, want an error")
	}
	if s := stateOf(t, w, id); s != fleet.Running {
		t.Errorf("state = %s, want running", s)
	}
}

func TestTheEarliestEndWins(t *testing.T) {
	const second = time.Second
	for _, c := range []struct {
		name     string
		do       func(w *simfleet.World, id string, now time.Time) error
		after    time.Duration
		reason   string
		powerOff string
	}{
		{"timer", func(w *simfleet.World, id string, now time.Time) error {
			return w.SetTimer(id, now.Add(9*second))
		}, 9 * second, "Client.InstanceInitiatedShutdown: Instance initiated shutdown", "timer"},
		{"a later timer changes nothing", func(w *simfleet.World, id string, now time.Time) error {
			return errors.Join(w.SetTimer(id, now.Add(9*second)), w.SetTimer(id, now.Add(20*second)))
		}, 9 * second, "Client.InstanceInitiatedShutdown: Instance initiated shutdown", "timer"},
		{"an earlier timer", func(w *simfleet.World, id string, now time.Time) error {
			return errors.Join(w.SetTimer(id, now.Add(9*second)), w.SetTimer(id, now.Add(3*second)))
		}, 3 * second, "Client.InstanceInitiatedShutdown: Instance initiated shutdown", "timer"},
		{"a timer that has passed", func(w *simfleet.World, id string, now time.Time) error {
			return w.SetTimer(id, now.Add(-time.Hour))
		}, 0, "Client.InstanceInitiatedShutdown: Instance initiated shutdown", "timer"},
		{"interruption before the timer", func(w *simfleet.World, id string, now time.Time) error {
			return errors.Join(w.SetTimer(id, now.Add(9*second)), w.Interrupt(id, 4*second))
		}, 4 * second, "Server.SpotInstanceTermination: Spot instance termination", ""},
		{"power off before the interruption", func(w *simfleet.World, id string, now time.Time) error {
			return errors.Join(w.Interrupt(id, 4*second), w.PowerOff(id, "idle"))
		}, 0, "Client.InstanceInitiatedShutdown: Instance initiated shutdown", "idle"},
		{"terminate before the timer", func(w *simfleet.World, id string, now time.Time) error {
			return errors.Join(w.SetTimer(id, now.Add(9*second)), w.Terminate(context.Background(), here, id))
		}, 0, "Client.UserInitiatedShutdown: User initiated shutdown", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := newClock()
			w := openWorld(t, simfleet.WorldConfig{Now: clock.now})
			id := mustLaunch(t, w, launchOf("t1")).ID
			if err := c.do(w, id, clock.t); err != nil {
				t.Fatal(err)
			}
			if c.after > 0 {
				clock.advance(c.after - 1)
				if f, _ := w.Instance(id); f.State != fleet.Running || f.Reason != "" || f.PowerOff != "" {
					t.Errorf("before its end = %+v, want it running", f)
				}
				clock.advance(1)
			}
			f, _ := w.Instance(id)
			if f.State != fleet.Terminated || f.Reason != c.reason || f.PowerOff != c.powerOff {
				t.Errorf("at its end = %s, %q, %q; want terminated, %q, %q", f.State, f.Reason, f.PowerOff, c.reason, c.powerOff)
			}
			if err := errors.Join(w.PowerOff(id, "x"), w.SetTimer(id, clock.t)); err == nil {
				t.Error("a machine that ended could change its end")
			}
			if err := w.SaveDisk(id, []byte("x")); err == nil || w.Disk(id) != nil {
				t.Errorf("SaveDisk of a machine that ended = %v, want an error", err)
			}
		})
	}
}

func TestPlantedInstanceIsListedAndBelongsToNobody(t *testing.T) {
	w := openWorld(t, simfleet.WorldConfig{})
	id, err := w.Plant(here, map[string]string{fleet.TagControlPlane: "test"})
	if err != nil {
		t.Fatalf("Plant: %v", err)
	}
	if ids := listed(t, w); !slices.Equal(ids, []string{id}) {
		t.Errorf("List = %v, want %s", ids, id)
	}
	f, ok := w.Instance(id)
	if !ok || !f.Planted || !f.NeverBoots || f.ClientToken != "" || f.At != here {
		t.Errorf("Instance = %+v, %v; want a planted one", f, ok)
	}
	if err := w.Terminate(t.Context(), here, id); err != nil || stateOf(t, w, id) != fleet.Terminated {
		t.Errorf("Terminate = %v, state %s; want terminated", err, stateOf(t, w, id))
	}
}

func TestReopenedWorldGoesOn(t *testing.T) {
	disk := openDisk(t)
	c := newClock()
	cfg := simfleet.WorldConfig{
		Now: c.now, Disk: disk, Random: &counting{}, Stopping: time.Second,
		NeverBoots: func(n int) bool { return n == 2 },
	}
	w := openWorld(t, cfg)
	ids := map[string]string{}
	for _, token := range []string{"t1", "t2", "t3", "t4"} {
		ids[token] = mustLaunch(t, w, launchOf(token)).ID
		c.advance(time.Second)
	}
	planted, err := w.Plant(here, map[string]string{fleet.TagControlPlane: "test"})
	if err != nil {
		t.Fatalf("Plant: %v", err)
	}
	w.SetCapacity(simfleet.Placement{}, false)
	if _, err := w.Launch(t.Context(), here, launchOf("short")); !errors.Is(err, fleet.ErrCapacity) {
		t.Fatalf("Launch = %v, want no capacity", err)
	}
	if err := errors.Join(
		w.SaveDisk(ids["t1"], []byte("secret")),
		w.SetCredentialed(ids["t1"]),
		w.SetTimer(ids["t1"], c.t.Add(time.Hour)),
		w.Terminate(t.Context(), here, ids["t3"]),
		w.Interrupt(ids["t4"], simfleet.SpotNotice),
	); err != nil {
		t.Fatal(err)
	}
	before := w.Instances()

	w = openWorld(t, cfg)
	if diff := cmp.Diff(before, w.Instances()); diff != "" {
		t.Errorf("Instances after reopening differ:\n%s", diff)
	}
	if got := w.Disk(ids["t1"]); string(got) != "secret" {
		t.Errorf("Disk = %q, want what was saved", got)
	}
	if got := w.UserData(ids["t1"]); !bytes.Equal(got, launchOf("t1").UserData) {
		t.Errorf("UserData = %q, want that of the launch", got)
	}
	if f, _ := w.Instance(ids["t2"]); !f.NeverBoots {
		t.Errorf("the second machine = %+v, want one that never boots", f)
	}
	if again := mustLaunch(t, w, launchOf("t1")); again.ID != ids["t1"] {
		t.Errorf("Launch of t1 = %s, want %s", again.ID, ids["t1"])
	}
	other := launchOf("short")
	other.UserData = nil
	if _, err := w.Launch(t.Context(), here, other); !errors.Is(err, fleet.ErrMismatch) {
		t.Errorf("another Launch with the token of a failed one = %v, want mismatch", err)
	}
	fresh := mustLaunch(t, w, launchOf("short")).ID
	c.advance(time.Second)
	if _, err := w.Launch(t.Context(), here, launchOf("t3")); !errors.Is(err, fleet.ErrGone) {
		t.Errorf("Launch of t3 = %v, want gone", err)
	}
	c.advance(time.Hour)
	if f, _ := w.Instance(ids["t1"]); f.PowerOff != "timer" || !f.State.Over() {
		t.Errorf("t1 after an hour = %+v, want the timer to have ended it", f)
	}

	// A day after the last end everything is forgotten, on the disk too.
	for _, id := range []string{ids["t2"], planted, fresh} {
		if err := w.Terminate(t.Context(), here, id); err != nil {
			t.Fatalf("Terminate: %v", err)
		}
	}
	c.advance(25 * time.Hour)
	last := mustLaunch(t, w, launchOf("last")).ID
	w = openWorld(t, cfg)
	facts := w.Instances()
	if len(facts) != 1 || facts[0].ID != last || w.Disk(ids["t1"]) != nil {
		t.Errorf("Instances = %d, disk %q; want the last one alone", len(facts), w.Disk(ids["t1"]))
	}
	n := 0
	for _, bucket := range []string{"instance", "token", "disk"} {
		err := disk.Load(bucket, func(string, []byte) error { n++; return nil })
		if err != nil {
			t.Fatalf("Load: %v", err)
		}
	}
	if n != 1 {
		t.Errorf("the disk has %d entries, want that of the last machine alone", n)
	}
}

func TestSameCallsHaveSameAnswers(t *testing.T) {
	story := func() []simfleet.Fact {
		c := newClock()
		w := openWorld(t, simfleet.WorldConfig{Now: c.now, Random: &counting{}, Launches: simfleet.EC2Rate})
		for n := range 20 {
			// Throttled ones belong to the story too.
			i, err := w.Launch(t.Context(), here, launchOf(fmt.Sprint("t", n)))
			if err == nil && n%3 == 0 {
				if err := w.Interrupt(i.ID, time.Second); err != nil {
					t.Fatal(err)
				}
			}
			c.advance(300 * time.Millisecond)
		}
		return w.Instances()
	}
	first := story()
	if diff := cmp.Diff(first, story()); diff != "" || len(first) < 10 {
		t.Errorf("the second time, %d machines differ:\n%s", len(first), diff)
	}
}
