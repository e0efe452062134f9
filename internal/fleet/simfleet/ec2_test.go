package simfleet_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestTokenIsBoundForADayAfterTheEnd(t *testing.T) {
	c := newClock()
	w := openWorld(t, simfleet.WorldConfig{Now: c.now, Stopping: 10 * time.Second})
	first := mustLaunch(t, w, launchOf("t1"))
	c.advance(30 * 24 * time.Hour)
	if again := mustLaunch(t, w, launchOf("t1")); again.ID != first.ID {
		t.Errorf("Launch a month later = %s, want %s", again.ID, first.ID)
	}
	if err := w.Terminate(t.Context(), here, first.ID); err != nil {
		t.Fatalf("Terminate: %v", err)
	}
	if again := mustLaunch(t, w, launchOf("t1")); again.ID != first.ID || again.State != fleet.ShuttingDown {
		t.Errorf("Launch while shutting down = %s %s, want %s shutting down", again.ID, again.State, first.ID)
	}
	c.advance(10*time.Second + 24*time.Hour - 1)
	if _, err := w.Launch(t.Context(), here, launchOf("t1")); !errors.Is(err, fleet.ErrGone) {
		t.Errorf("Launch within the day = %v, want gone", err)
	}
	c.advance(1)
	if again := mustLaunch(t, w, launchOf("t1")); again.ID == first.ID {
		t.Errorf("Launch after the day = the old instance, want a new one")
	}
	c.advance(time.Minute)
	mustLaunch(t, w, launchOf("t2"))
	if facts := w.Instances(); len(facts) != 2 || facts[0].ID == first.ID {
		t.Errorf("Instances = %d, want the old one forgotten", len(facts))
	}
}

func TestTokenOfAFailedLaunchIsBoundForADay(t *testing.T) {
	c := newClock()
	w := openWorld(t, simfleet.WorldConfig{Now: c.now})
	w.SetCapacity(simfleet.Placement{}, false)
	if _, err := w.Launch(t.Context(), here, launchOf("t1")); !errors.Is(err, fleet.ErrCapacity) {
		t.Fatalf("Launch = %v, want no capacity", err)
	}
	w.SetCapacity(simfleet.Placement{}, true)
	other := launchOf("t1")
	other.InstanceType = "c7g.xlarge"
	c.advance(24*time.Hour - 1)
	if _, err := w.Launch(t.Context(), here, other); !errors.Is(err, fleet.ErrMismatch) {
		t.Errorf("another Launch within a day = %v, want mismatch", err)
	}
	c.advance(1)
	mustLaunch(t, w, other)
}

func TestCapacityIsTakenByPlacement(t *testing.T) {
	spot := launchOf("t")
	for _, c := range []struct {
		name    string
		without simfleet.Placement
		change  func(*fleet.Launch)
		fits    bool
	}{
		{"everything", simfleet.Placement{}, nil, true},
		{"the market", simfleet.Placement{Market: store.Spot}, nil, true},
		{"another market", simfleet.Placement{Market: store.OnDemand}, nil, false},
		{"the type", simfleet.Placement{InstanceType: spot.InstanceType}, nil, true},
		{"another type", simfleet.Placement{InstanceType: "m7g.large"}, nil, false},
		{"the subnet", simfleet.Placement{Subnet: spot.Subnet}, nil, true},
		{"another subnet", simfleet.Placement{Subnet: "subnet-b"}, nil, false},
		{"all three", simfleet.Placement{Market: store.Spot, InstanceType: spot.InstanceType, Subnet: spot.Subnet}, nil, true},
		{"two of three", simfleet.Placement{Market: store.Spot, InstanceType: spot.InstanceType, Subnet: "subnet-b"}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := openWorld(t, simfleet.WorldConfig{})
			w.SetCapacity(c.without, false)
			_, err := w.Launch(t.Context(), here, spot)
			if got := errors.Is(err, fleet.ErrCapacity); got != c.fits {
				t.Errorf("Launch without %+v = %v, want no capacity: %v", c.without, err, c.fits)
			}
			w.SetCapacity(c.without, true)
			mustLaunch(t, w, spot)
		})
	}
}

func TestLaunchesAreThrottledByPlace(t *testing.T) {
	c := newClock()
	w := openWorld(t, simfleet.WorldConfig{Now: c.now, Launches: simfleet.EC2Rate})
	n := 0
	try := func(at fleet.Place) error {
		n++
		_, err := w.Launch(t.Context(), at, launchOf(fmt.Sprintf("t%d", n)))
		return err
	}
	// through launches until one is throttled.
	through := func(at fleet.Place) (passed int) {
		for {
			err := try(at)
			if err == nil {
				passed++
				continue
			}
			if !errors.Is(err, fleet.ErrThrottled) || !errors.Is(err, fleet.ErrUnknown) {
				t.Fatalf("Launch = %v, want throttled", err)
			}
			if e, ok := errors.AsType[*fleet.Error](err); !ok || e.Code != "RequestLimitExceeded" {
				t.Fatalf("Launch = %v, want RequestLimitExceeded", err)
			}
			return passed
		}
	}
	if got := through(here); got != 5 {
		t.Errorf("a burst let %d through, want 5", got)
	}
	if got := through(fleet.Place{Account: here.Account, Region: "eu-west-1"}); got != 5 {
		t.Errorf("a burst in another region let %d through, want 5", got)
	}
	c.advance(time.Second)
	if got := through(here); got != 2 {
		t.Errorf("a second later %d got through, want 2", got)
	}
	c.advance(time.Hour)
	if got := through(here); got != 5 {
		t.Errorf("an hour later %d got through, want 5", got)
	}
	if got := len(w.Instances()); got != 17 {
		t.Errorf("%d machines were launched, want 17: a throttled call has no effect", got)
	}
}

func TestThrottledLaunchBindsNothing(t *testing.T) {
	c := newClock()
	w := openWorld(t, simfleet.WorldConfig{Now: c.now, Launches: simfleet.Rate{Burst: 1, PerSecond: 1}})
	mustLaunch(t, w, launchOf("t1"))
	if _, err := w.Launch(t.Context(), here, launchOf("t2")); !errors.Is(err, fleet.ErrThrottled) {
		t.Fatalf("Launch = %v, want throttled", err)
	}
	c.advance(time.Second)
	other := launchOf("t2")
	other.InstanceType = "c7g.xlarge"
	mustLaunch(t, w, other)
}

func TestFaultFailsTheCallWithoutEffect(t *testing.T) {
	boom := &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "not allowed"}
	var failing string
	var asked []string
	w := openWorld(t, simfleet.WorldConfig{Fault: func(op string, at fleet.Place, l fleet.Launch) error {
		asked = append(asked, fmt.Sprintf("%s %s %s", op, at.Region, l.ClientToken))
		if op == failing {
			return boom
		}
		return nil
	}})
	id := mustLaunch(t, w, launchOf("t1")).ID
	for op, call := range map[string]func() error{
		simfleet.OpImage: func() error { _, err := w.Image(t.Context(), here, "ami-1"); return err },
		simfleet.OpLaunch: func() error {
			_, err := w.Launch(t.Context(), here, launchOf("t2"))
			return err
		},
		simfleet.OpByToken: func() error { _, err := w.ByToken(t.Context(), here, "r-t1", "t1"); return err },
		simfleet.OpGet:     func() error { _, err := w.Get(t.Context(), here, id); return err },
		simfleet.OpList: func() error {
			for _, err := range w.List(t.Context(), here, "test") {
				return err
			}
			return nil
		},
		simfleet.OpTerminate: func() error { return w.Terminate(t.Context(), here, id) },
	} {
		failing = op
		if err := call(); !errors.Is(err, fleet.ErrRefused) {
			t.Errorf("%s = %v, want the fault", op, err)
		}
	}
	if asked[0] != "launch eu-west-2 t1" {
		t.Errorf("the first fault was asked about %q, want the launch of t1", asked[0])
	}
	failing = ""
	if ids := listed(t, w); !slices.Equal(ids, []string{id}) || stateOf(t, w, id) != fleet.Running {
		t.Errorf("List = %v, want %s alone, and running", ids, id)
	}
}

func TestFaultOfCapacityBindsTheToken(t *testing.T) {
	short := error(&fleet.Error{Kind: fleet.ErrCapacity, Code: "MaxSpotInstanceCountExceeded", Text: "the spot quota is used up"})
	fault := short
	w := openWorld(t, simfleet.WorldConfig{Fault: func(string, fleet.Place, fleet.Launch) error { return fault }})
	_, err := w.Launch(t.Context(), here, launchOf("t1"))
	if e, ok := errors.AsType[*fleet.Error](err); !ok || e.Code != "MaxSpotInstanceCountExceeded" {
		t.Fatalf("Launch = %v, want the fault", err)
	}
	fault = nil
	other := launchOf("t1")
	other.Market = store.OnDemand
	if _, err := w.Launch(t.Context(), here, other); !errors.Is(err, fleet.ErrMismatch) {
		t.Errorf("another Launch with the token = %v, want mismatch", err)
	}
	i := mustLaunch(t, w, launchOf("t1"))
	fault = short
	if again := mustLaunch(t, w, launchOf("t1")); again.ID != i.ID {
		t.Errorf("a repeated Launch without capacity = %s, want %s", again.ID, i.ID)
	}
}

func TestSecondPageFails(t *testing.T) {
	pages := 0
	w := openWorld(t, simfleet.WorldConfig{PageSize: 2, Fault: func(op string, _ fleet.Place, _ fleet.Launch) error {
		if op == simfleet.OpList {
			pages++
		}
		if pages == 2 {
			return &fleet.Error{Kind: fleet.ErrUnknown, Code: "InternalError", Text: "try again"}
		}
		return nil
	}})
	for n := range 3 {
		mustLaunch(t, w, launchOf(fmt.Sprintf("t%d", n)))
	}
	var got []string
	for i, err := range w.List(t.Context(), here, "test") {
		got = append(got, fmt.Sprint(i.ClientToken, errors.Is(err, fleet.ErrUnknown)))
	}
	if want := []string{"t0false", "t1false", "true"}; !slices.Equal(got, want) {
		t.Errorf("List = %v, want two instances and an error", got)
	}
}

func TestWhatEC2RefusesIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*fleet.Launch)
	}{
		{"no client token", func(l *fleet.Launch) { l.ClientToken = "" }},
		{"a long client token", func(l *fleet.Launch) { l.ClientToken = string(bytes.Repeat([]byte("x"), 65)) }},
		{"a client token beyond ASCII", func(l *fleet.Launch) { l.ClientToken = "jeton-é" }},
		{"no market", func(l *fleet.Launch) { l.Market = "" }},
		{"no type", func(l *fleet.Launch) { l.InstanceType = "" }},
		{"no subnet", func(l *fleet.Launch) { l.Subnet = "" }},
		{"a path as image", func(l *fleet.Launch) { l.Image = "/aws/service/ami" }},
		{"large user data", func(l *fleet.Launch) { l.UserData = make([]byte, 16<<10+1) }},
		{"many tags", func(l *fleet.Launch) {
			for n := range 50 {
				l.Tags[fmt.Sprint(n)] = "x"
			}
		}},
		{"a reserved tag", func(l *fleet.Launch) { l.Tags["aws:x"] = "x" }},
		{"a long tag", func(l *fleet.Launch) { l.Tags["x"] = string(bytes.Repeat([]byte("x"), 257)) }},
	} {
		w := openWorld(t, simfleet.WorldConfig{})
		l := launchOf("t1")
		c.change(&l)
		if _, err := w.Launch(t.Context(), here, l); !errors.Is(err, fleet.ErrRefused) {
			t.Errorf("Launch with %s = %v, want refused", c.name, err)
		}
		if n := len(w.Instances()); n != 0 {
			t.Errorf("Launch with %s made %d machines", c.name, n)
		}
	}
}

func TestImageOfAParameter(t *testing.T) {
	w := openWorld(t, simfleet.WorldConfig{})
	a, errA := w.Image(t.Context(), here, "/images/a")
	again, errAgain := w.Image(t.Context(), here, "/images/a")
	b, errB := w.Image(t.Context(), here, "/images/b")
	if err := errors.Join(errA, errAgain, errB); err != nil || a != again || a == b || len(a) != len("ami-0123456789abcdef0") {
		t.Errorf("Image = %s, %s, %s, %v; want one AMI id for each path", a, again, b, err)
	}
	if _, err := w.Image(t.Context(), here, "images/a"); !errors.Is(err, fleet.ErrRefused) {
		t.Errorf("Image of a name = %v, want refused", err)
	}
	missing := &fleet.Error{Kind: fleet.ErrRefused, Code: "ParameterNotFound", Text: "no such parameter"}
	w = openWorld(t, simfleet.WorldConfig{Image: func(at fleet.Place, path string) (string, error) {
		if at == here && path == "/images/a" {
			return "ami-a", nil
		}
		return "", missing
	}})
	if got, err := w.Image(t.Context(), here, "/images/a"); got != "ami-a" || err != nil {
		t.Errorf("Image = %s, %v; want ami-a", got, err)
	}
	if _, err := w.Image(t.Context(), here, "/images/b"); !errors.Is(err, fleet.ErrRefused) {
		t.Errorf("Image of a missing parameter = %v, want refused", err)
	}
}

func TestMachineThatDiesAtOnceNeverRuns(t *testing.T) {
	c := newClock()
	w := openWorld(t, simfleet.WorldConfig{
		Now: c.now, Pending: 5 * time.Second,
		Dies: func(n int, l fleet.Launch) string {
			if n == 1 && l.Market == store.Spot {
				return "Client.InternalError: Client error on launch"
			}
			return ""
		},
	})
	dead, alive := mustLaunch(t, w, launchOf("t1")), mustLaunch(t, w, launchOf("t2"))
	if dead.State != fleet.Pending || dead.ReasonCode != "" {
		t.Errorf("Launch = %+v, want that nobody sees it yet", dead)
	}
	c.advance(5 * time.Second)
	got, err := w.Get(t.Context(), here, dead.ID, alive.ID)
	if d := got[dead.ID]; err != nil || !d.State.Over() || d.ReasonCode != "Client.InternalError" || d.Reason != "Client.InternalError: Client error on launch" {
		t.Errorf("Get = %+v, %v; want it dead of Client.InternalError", d, err)
	}
	if a := got[alive.ID]; a.State != fleet.Running || a.ReasonCode != "" {
		t.Errorf("the other machine is %+v, want it running", a)
	}
}

func TestDeregisteredImageIsRefusedAndBindsItsToken(t *testing.T) {
	w := openWorld(t, simfleet.WorldConfig{})
	running := mustLaunch(t, w, launchOf("t1"))
	w.Deregister(launchOf("").Image)
	if again := mustLaunch(t, w, launchOf("t1")); again.ID != running.ID {
		t.Errorf("the same launch again = %s, want %s: it was launched before", again.ID, running.ID)
	}
	if _, err := w.Launch(t.Context(), here, launchOf("t2")); !errors.Is(err, fleet.ErrImage) || !errors.Is(err, fleet.ErrRefused) {
		t.Errorf("Launch = %v, want that the image is refused", err)
	}
	other := launchOf("t2")
	other.Image = "ami-00000000000000000"
	if _, err := w.Launch(t.Context(), here, other); !errors.Is(err, fleet.ErrMismatch) {
		t.Errorf("Launch of another image with that token = %v, want mismatch", err)
	}
}

func TestEditedTagsAreWhatListGoesBy(t *testing.T) {
	w := openWorld(t, simfleet.WorldConfig{})
	i := mustLaunch(t, w, launchOf("t1"))
	if err := w.Retag(i.ID, map[string]string{fleet.TagControlPlane: "test", fleet.TagRunner: "somebody"}); err != nil {
		t.Fatal(err)
	}
	for got, err := range w.List(t.Context(), here, "test") {
		if err != nil || got.Tags[fleet.TagRunner] != "somebody" {
			t.Errorf("List yields %+v, %v; want the edited tag", got, err)
		}
	}
	if again := mustLaunch(t, w, launchOf("t1")); again.ID != i.ID {
		t.Errorf("the same launch again = %s, want %s: its token is not of its tags", again.ID, i.ID)
	}
	if err := w.Retag(i.ID, nil); err != nil {
		t.Fatal(err)
	}
	if ids := listed(t, w); len(ids) != 0 {
		t.Errorf("List = %v, want nothing: the tag of the control plane is gone", ids)
	}
}
