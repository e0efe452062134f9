// Package fleettest holds every implementation of fleet.Fleet to the contract.
package fleettest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Subject is a fleet under test, and what the suite must know of it. A check that
// needs a field which is not set checks nothing, and logs it.
type Subject struct {
	Fleet fleet.Fleet
	At    fleet.Place
	// Launch is a launch that succeeds, on demand. The suite sets its ClientToken,
	// Tags and UserData, and varies the rest.
	Launch fleet.Launch
	// Settle returns once all that was done is to be seen, and each machine whose
	// end was asked for is terminated. nil: that takes no time.
	Settle func()

	Elsewhere    fleet.Place // another account or region
	OtherZone    string      // a subnet in another zone than that of Launch
	SameZone     string      // another subnet in that zone
	PageSize     int         // of List, small enough to launch more
	OtherImage   string      // an AMI id that can be launched too
	OtherProfile string      // an instance profile
	// SetCapacity takes or gives back the capacity for launches like Launch.
	SetCapacity func(has bool)
	// Die makes EC2 end an instance, with the code and the message of its reason.
	Die func(id, code, message string)
	// OtherType is an instance type that the image of Launch does not run on.
	OtherType string
}

// The names that the suite uses. The control plane is one that nothing else has.
const (
	controlPlane = "fleettest"
	runner       = "runner-1"
)

// Run tests the fleet that open returns. Each check gets a fresh one.
func Run(t *testing.T, open func(*testing.T) Subject) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.check(t, begin(t, open)) })
	}
}

// RunBubbled is Run for a fleet that needs no network: each check runs in a
// testing/synctest bubble of its own, where waiting takes no time.
func RunBubbled(t *testing.T, open func(*testing.T) Subject) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.check(t, begin(t, open)) })
		})
	}
}

func begin(t *testing.T, open func(*testing.T) Subject) Subject {
	t.Helper()
	s := open(t)
	if s.Settle == nil {
		s.Settle = func() {}
	}
	return s
}

var checks = []struct {
	name  string
	check func(*testing.T, Subject)
}{
	{"LaunchShowsWhatWasAskedFor", launchShows},
	{"SameTokenAndBytesAreOneInstance", sameToken},
	{"SameTokenAtOnceIsOneInstance", sameTokenAtOnce},
	{"SameTokenWithOtherBytesIsRefused", otherBytes},
	{"TokenOfAnotherPlaceIsAnotherToken", otherPlace},
	{"TokenOfAnotherZoneIsAnotherToken", otherZone},
	{"NoCapacityLaunchesNothing", noCapacity},
	{"FailedLaunchBindsItsToken", failedLaunchBinds},
	{"TokenOfATerminatedInstanceIsGone", gone},
	{"MachineThatEC2EndsSaysWhy", dies},
	{"OtherArchitectureIsUnsuited", otherArchitecture},
	{"TerminateTwiceIsFine", terminateTwice},
	{"TerminateOfAnUnknownInstanceIsNotFound", terminateUnknown},
	{"GetLeavesOutWhatIsUnknown", get},
	{"ByTokenFindsInAnyState", byToken},
	{"ListHasOneControlPlaneOnEveryPage", list},
	{"ListStopsWhenItIsTold", listStops},
	{"EndedContextHasNoEffect", endedContext},
	{"ImageIDIsItsOwnAnswer", image},
}

// launch returns a launch with a token of its own.
func (s Subject) launch(token string) fleet.Launch {
	l := s.Launch
	l.Market = store.OnDemand
	l.ClientToken = token
	l.Tags = map[string]string{fleet.TagControlPlane: controlPlane, fleet.TagRunner: runner, fleet.TagRequest: "request-1"}
	l.UserData = []byte("#!/bin/sh\n# not for any machine\n")
	return l
}

func (s Subject) must(t *testing.T, l fleet.Launch) fleet.Instance {
	t.Helper()
	i, err := s.Fleet.Launch(t.Context(), s.At, l)
	if err != nil {
		t.Fatalf("Launch with token %s: %v", l.ClientToken, err)
	}
	return i
}

// wantKind checks that err is a *fleet.Error of a kind, for programs and people.
func wantKind(t *testing.T, what string, err, kind error) {
	t.Helper()
	e, ok := errors.AsType[*fleet.Error](err)
	if !ok || !errors.Is(err, kind) {
		t.Errorf("%s = %v, want a *fleet.Error: %v", what, err, kind)
		return
	}
	if e.Code == "" || e.Text == "" {
		t.Errorf("%s = %+v, want a code and a text", what, *e)
	}
}

// listed returns the ids that List yields, in order.
func (s Subject) listed(t *testing.T, at fleet.Place) []string {
	t.Helper()
	var ids []string
	for i, err := range s.Fleet.List(t.Context(), at, controlPlane) {
		if err != nil {
			t.Fatalf("List %s: %v", at, err)
		}
		ids = append(ids, i.ID)
	}
	slices.Sort(ids)
	return ids
}

func sorted(ids ...string) []string { return slices.Sorted(slices.Values(ids)) }

// wantListed checks which instances there are at all.
func (s Subject) wantListed(t *testing.T, at fleet.Place, ids ...string) {
	t.Helper()
	s.Settle()
	if got, want := s.listed(t, at), sorted(ids...); !slices.Equal(got, want) {
		t.Errorf("List %s = %v, want %v", at, got, want)
	}
}

func launchShows(t *testing.T, s Subject) {
	l := s.launch("t1")
	i := s.must(t, l)
	check := func(what string, i fleet.Instance) {
		t.Helper()
		if i.ID == "" || i.ClientToken != l.ClientToken || i.Market != l.Market || i.InstanceType != l.InstanceType || i.Subnet != l.Subnet {
			t.Errorf("%s = %+v, want the instance of %+v", what, i, l)
		}
		if !maps.Equal(i.Tags, l.Tags) {
			t.Errorf("%s has tags %v, want %v", what, i.Tags, l.Tags)
		}
		if i.State != fleet.Pending && i.State != fleet.Running {
			t.Errorf("%s has state %s, want pending or running", what, i.State)
		}
		if i.LaunchedAt.IsZero() || i.Reason != "" {
			t.Errorf("%s has LaunchedAt %v and reason %q, want a time and none", what, i.LaunchedAt, i.Reason)
		}
	}
	check("Launch", i)
	s.Settle()
	got, err := s.Fleet.Get(t.Context(), s.At, i.ID)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	check("Get", got[i.ID])
	got[i.ID].Tags[fleet.TagRunner] = "changed by the caller"
	again, err := s.Fleet.Get(t.Context(), s.At, i.ID)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	check("Get after the caller changed what it got", again[i.ID])
}

func sameToken(t *testing.T, s Subject) {
	l := s.launch("t1")
	first := s.must(t, l)
	if again := s.must(t, l); again.ID != first.ID {
		t.Errorf("the same launch again = %s, want %s", again.ID, first.ID)
	}
	s.Settle()
	if again := s.must(t, l); again.ID != first.ID {
		t.Errorf("the same launch much later = %s, want %s", again.ID, first.ID)
	}
	other := s.must(t, s.launch("t2"))
	if other.ID == first.ID {
		t.Errorf("launches with two tokens are one instance")
	}
	s.wantListed(t, s.At, first.ID, other.ID)
}

func sameTokenAtOnce(t *testing.T, s Subject) {
	const callers = 8
	var wg sync.WaitGroup
	ids := make([]string, callers)
	errs := make([]error, callers)
	for n := range callers {
		wg.Go(func() {
			i, err := s.Fleet.Launch(t.Context(), s.At, s.launch("t1"))
			ids[n], errs[n] = i.ID, err
		})
	}
	wg.Wait()
	for n := range callers {
		if errs[n] != nil || ids[n] != ids[0] {
			t.Errorf("caller %d: Launch = %s, %v; want %s", n, ids[n], errs[n], ids[0])
		}
	}
	s.wantListed(t, s.At, ids[0])
}

func otherBytes(t *testing.T, s Subject) {
	l := s.launch("t1")
	first := s.must(t, l)
	for _, c := range []struct {
		name   string
		change func(*fleet.Launch)
		able   bool
	}{
		{"type", func(l *fleet.Launch) { l.InstanceType += "x" }, true},
		{"market", func(l *fleet.Launch) { l.Market = store.Spot }, true},
		{"user data", func(l *fleet.Launch) { l.UserData = append(slices.Clone(l.UserData), '\n') }, true},
		{"a tag's value", func(l *fleet.Launch) { l.Tags[fleet.TagRequest] += "x" }, true},
		{"one tag more", func(l *fleet.Launch) { l.Tags["more"] = "1" }, true},
		{"no security group", func(l *fleet.Launch) { l.SecurityGroups = nil }, len(l.SecurityGroups) > 0},
		{"image", func(l *fleet.Launch) { l.Image = s.OtherImage }, s.OtherImage != ""},
		{"profile", func(l *fleet.Launch) { l.InstanceProfile = s.OtherProfile }, s.OtherProfile != ""},
		{"subnet of the same zone", func(l *fleet.Launch) { l.Subnet = s.SameZone }, s.SameZone != ""},
	} {
		if !c.able {
			t.Logf("not checked: %s", c.name)
			continue
		}
		l := s.launch("t1")
		c.change(&l)
		_, err := s.Fleet.Launch(t.Context(), s.At, l)
		wantKind(t, "Launch with another "+c.name, err, fleet.ErrMismatch)
	}
	s.wantListed(t, s.At, first.ID)
}

func otherPlace(t *testing.T, s Subject) {
	if s.Elsewhere == (fleet.Place{}) {
		t.Log("not checked: there is no other place")
		return
	}
	here := s.must(t, s.launch("t1"))
	there, err := s.Fleet.Launch(t.Context(), s.Elsewhere, s.launch("t1"))
	if err != nil || there.ID == here.ID {
		t.Fatalf("Launch in %s = %s, %v; want another instance than %s", s.Elsewhere, there.ID, err, here.ID)
	}
	s.wantListed(t, s.At, here.ID)
	s.wantListed(t, s.Elsewhere, there.ID)
	if got, err := s.Fleet.Get(t.Context(), s.At, there.ID); err != nil || len(got) != 0 {
		t.Errorf("Get in %s of an instance in %s = %v, %v; want nothing", s.At, s.Elsewhere, got, err)
	}
	wantKind(t, "Terminate in the wrong place", s.Fleet.Terminate(t.Context(), s.At, there.ID), fleet.ErrNotFound)
}

func otherZone(t *testing.T, s Subject) {
	if s.OtherZone == "" {
		t.Log("not checked: there is no other zone")
		return
	}
	here := s.must(t, s.launch("t1"))
	l := s.launch("t1")
	l.Subnet = s.OtherZone
	there := s.must(t, l)
	if there.ID == here.ID || there.Subnet != s.OtherZone {
		t.Errorf("Launch into %s = %s in %s, want another instance than %s", s.OtherZone, there.ID, there.Subnet, here.ID)
	}
	s.wantListed(t, s.At, here.ID, there.ID)
}

func noCapacity(t *testing.T, s Subject) {
	if s.SetCapacity == nil {
		t.Log("not checked: capacity cannot be taken away")
		return
	}
	l := s.launch("t1")
	s.SetCapacity(false)
	for range 2 {
		_, err := s.Fleet.Launch(t.Context(), s.At, l)
		wantKind(t, "Launch without capacity", err, fleet.ErrCapacity)
	}
	s.wantListed(t, s.At)
	s.SetCapacity(true)
	i := s.must(t, l)
	s.SetCapacity(false)
	if again := s.must(t, l); again.ID != i.ID {
		t.Errorf("the same launch when capacity has gone = %s, want %s", again.ID, i.ID)
	}
	s.wantListed(t, s.At, i.ID)
}

func failedLaunchBinds(t *testing.T, s Subject) {
	if s.SetCapacity == nil {
		t.Log("not checked: capacity cannot be taken away")
		return
	}
	s.SetCapacity(false)
	_, err := s.Fleet.Launch(t.Context(), s.At, s.launch("t1"))
	wantKind(t, "Launch without capacity", err, fleet.ErrCapacity)
	s.SetCapacity(true)
	other := s.launch("t1")
	other.UserData = []byte("#!/bin/sh\n# another\n")
	_, err = s.Fleet.Launch(t.Context(), s.At, other)
	wantKind(t, "another Launch with the token of a failed one", err, fleet.ErrMismatch)
	s.wantListed(t, s.At, s.must(t, s.launch("t1")).ID)
}

func gone(t *testing.T, s Subject) {
	l := s.launch("t1")
	i := s.must(t, l)
	s.Settle()
	if err := s.Fleet.Terminate(t.Context(), s.At, i.ID); err != nil {
		t.Fatalf("Terminate: %v", err)
	}
	s.Settle()
	_, err := s.Fleet.Launch(t.Context(), s.At, l)
	wantKind(t, "Launch with the token of a terminated instance", err, fleet.ErrGone)
	l.UserData = []byte("#!/bin/sh\n# another\n")
	_, err = s.Fleet.Launch(t.Context(), s.At, l)
	wantKind(t, "another Launch with that token", err, fleet.ErrMismatch)
}

func dies(t *testing.T, s Subject) {
	if s.Die == nil {
		t.Log("not checked: EC2 ends no machine by itself")
		return
	}
	l := s.launch("t1")
	i := s.must(t, l)
	s.Settle()
	s.Die(i.ID, "Client.InternalError", "Client.InternalError: Client error on launch")
	s.Settle()
	got, err := s.Fleet.Get(t.Context(), s.At, i.ID)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	if g := got[i.ID]; !g.State.Over() || g.ReasonCode != "Client.InternalError" || !strings.Contains(g.Reason, "Client error on launch") {
		t.Errorf("the instance is %+v, want it terminated by Client.InternalError, in EC2's words", g)
	}
	found, err := s.Fleet.ByToken(t.Context(), s.At, runner, "t1")
	if err != nil || found.ReasonCode != "Client.InternalError" {
		t.Errorf("ByToken = %+v, %v; want the same reason", found, err)
	}
	_, err = s.Fleet.Launch(t.Context(), s.At, l)
	wantKind(t, "Launch with the token of a dead instance", err, fleet.ErrGone)
}

func otherArchitecture(t *testing.T, s Subject) {
	if s.OtherType == "" {
		t.Log("not checked: the image runs on every type")
		return
	}
	l := s.launch("t1")
	l.InstanceType = s.OtherType
	_, err := s.Fleet.Launch(t.Context(), s.At, l)
	wantKind(t, "Launch of a type of another architecture", err, fleet.ErrUnsuited)
	wantKind(t, "Launch of a type of another architecture", err, fleet.ErrRefused)
	s.wantListed(t, s.At, s.must(t, s.launch("t2")).ID)
}

func terminateTwice(t *testing.T, s Subject) {
	i := s.must(t, s.launch("t1"))
	other := s.must(t, s.launch("t2"))
	s.Settle()
	for n := range 3 {
		if err := s.Fleet.Terminate(t.Context(), s.At, i.ID); err != nil {
			t.Fatalf("Terminate, call %d: %v", n+1, err)
		}
		if n == 1 {
			s.Settle() // the third call meets a terminated instance
		}
	}
	got, err := s.Fleet.Get(t.Context(), s.At, i.ID, other.ID)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	if g := got[i.ID]; g.State != fleet.Terminated || !g.State.Over() || g.Reason == "" || g.ReasonCode != "Client.UserInitiatedShutdown" {
		t.Errorf("terminated instance = %+v, want terminated with the reason Client.UserInitiatedShutdown", g)
	}
	if g := got[other.ID]; g.State.Over() || g.Reason != "" || g.ReasonCode != "" {
		t.Errorf("the other instance = %+v, want it alive", g)
	}
	s.wantListed(t, s.At, i.ID, other.ID)
}

func terminateUnknown(t *testing.T, s Subject) {
	wantKind(t, "Terminate", s.Fleet.Terminate(t.Context(), s.At, "i-0123456789abcdef0"), fleet.ErrNotFound)
}

func get(t *testing.T, s Subject) {
	a, b := s.must(t, s.launch("t1")), s.must(t, s.launch("t2"))
	// Right after the launch the view may have it or not, but must answer.
	if _, err := s.Fleet.Get(t.Context(), s.At, a.ID, b.ID); err != nil {
		t.Errorf("Get right after the launch: %v", err)
	}
	s.Settle()
	got, err := s.Fleet.Get(t.Context(), s.At, a.ID, "i-0123456789abcdef0", b.ID)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	if ids := slices.Sorted(maps.Keys(got)); !slices.Equal(ids, sorted(a.ID, b.ID)) || got[a.ID].ID != a.ID {
		t.Errorf("Get = %v, want %s and %s alone", got, a.ID, b.ID)
	}
	if got, err := s.Fleet.Get(t.Context(), s.At); err != nil || len(got) != 0 {
		t.Errorf("Get of nothing = %v, %v; want nothing", got, err)
	}
}

func byToken(t *testing.T, s Subject) {
	i := s.must(t, s.launch("t1"))
	s.must(t, s.launch("t2"))
	s.Settle()
	for range 2 {
		got, err := s.Fleet.ByToken(t.Context(), s.At, runner, "t1")
		if err != nil || got.ID != i.ID {
			t.Errorf("ByToken = %s, %v; want %s", got.ID, err, i.ID)
		}
		if err := s.Fleet.Terminate(t.Context(), s.At, i.ID); err != nil {
			t.Fatalf("Terminate: %v", err)
		}
		s.Settle()
	}
	_, err := s.Fleet.ByToken(t.Context(), s.At, runner, "t3")
	wantKind(t, "ByToken of an unknown token", err, fleet.ErrNotFound)
	_, err = s.Fleet.ByToken(t.Context(), s.At, "runner-2", "t1")
	wantKind(t, "ByToken for another runner", err, fleet.ErrNotFound)
}

func list(t *testing.T, s Subject) {
	if s.PageSize == 0 {
		t.Log("not checked: pages are too large")
		return
	}
	other := s.launch("other")
	other.Tags[fleet.TagControlPlane] = controlPlane + "-2"
	s.must(t, other)
	var ids []string
	for n := range 2*s.PageSize + 1 {
		ids = append(ids, s.must(t, s.launch(fmt.Sprintf("t%d", n))).ID)
	}
	for i, err := range s.Fleet.List(t.Context(), s.At, controlPlane) {
		// Right after the launches the view may have any of them.
		if err != nil || !slices.Contains(ids, i.ID) {
			t.Errorf("List right after the launches yields %s, %v; want one of %v", i.ID, err, ids)
		}
	}
	s.wantListed(t, s.At, ids...)
	if err := s.Fleet.Terminate(t.Context(), s.At, ids[0]); err != nil {
		t.Fatalf("Terminate: %v", err)
	}
	s.wantListed(t, s.At, ids...) // those in any state
	if s.Elsewhere != (fleet.Place{}) {
		s.wantListed(t, s.Elsewhere)
	}
}

func listStops(t *testing.T, s Subject) {
	s.must(t, s.launch("t1"))
	s.must(t, s.launch("t2"))
	s.Settle()
	n := 0
	for _, err := range s.Fleet.List(t.Context(), s.At, controlPlane) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		n++
		break
	}
	if n != 1 {
		t.Errorf("List yielded %d instances until told to stop, want 1", n)
	}
}

func endedContext(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(t.Context())
	i := s.must(t, s.launch("t1"))
	s.Settle()
	cancel()
	if _, err := s.Fleet.Launch(ctx, s.At, s.launch("t2")); err == nil {
		t.Error("Launch = nil error, want one")
	}
	if err := s.Fleet.Terminate(ctx, s.At, i.ID); err == nil {
		t.Error("Terminate = nil error, want one")
	}
	if _, err := s.Fleet.Get(ctx, s.At, i.ID); err == nil {
		t.Error("Get = nil error, want one")
	}
	if _, err := s.Fleet.ByToken(ctx, s.At, runner, "t1"); err == nil {
		t.Error("ByToken = nil error, want one")
	}
	failed := false
	for _, err := range s.Fleet.List(ctx, s.At, controlPlane) {
		failed = failed || err != nil
	}
	if !failed {
		t.Error("List = no error, want one")
	}
	s.wantListed(t, s.At, i.ID)
	got, err := s.Fleet.Get(t.Context(), s.At, i.ID)
	if err != nil || got[i.ID].State.Over() {
		t.Errorf("Get = %v, %v; want the instance alive", got, err)
	}
}

func image(t *testing.T, s Subject) {
	if got, err := s.Fleet.Image(t.Context(), s.At, s.Launch.Image); err != nil || got != s.Launch.Image {
		t.Errorf("Image(%s) = %s, %v; want itself", s.Launch.Image, got, err)
	}
}
