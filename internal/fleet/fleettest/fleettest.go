// Package fleettest holds every implementation of fleet.Fleet to the contract.
package fleettest

import (
	"context"
	"errors"
	"slices"
	"strings"
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
	// Settle returns once all that was done is visible, and each machine whose
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
	// Protect protects an instance from termination.
	Protect func(id string)
	// Print makes an instance print on its console.
	Print func(id, raw string)
	// OtherType is an instance type that the image of Launch does not run on.
	OtherType string
	// Inspector is the fleet's, if it has one.
	Inspector fleet.Inspector
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
	{"TerminateEndsAGroup", terminateGroup},
	{"GroupWithAnUnknownInstanceIsLeft", terminateGroupWithUnknown},
	{"GroupWithAProtectedInstanceEndsOneByOne", terminateGroupWithProtected},
	{"GetLeavesOutWhatIsUnknown", get},
	{"ByTokenFindsInAnyState", byToken},
	{"ListHasOneControlPlaneOnEveryPage", list},
	{"ListStopsWhenItIsTold", listStops},
	{"ConsoleHasWhatItsInstancePrinted", console},
	{"EndedContextHasNoEffect", endedContext},
	{"ImageIDIsItsOwnAnswer", image},
	{"RootVolumeOfAnImageIsKnown", rootVolume},
	{"VetLaunchesNothing", inspected(vet)},
	{"ImageIsDescribed", inspected(describedAMI)},
	{"SubnetsAreDescribed", inspected(describedSubnets)},
	{"RoleIsGuarded", inspected(guarded)},
	{"SpotPricesAreOfTheZonesOfSubnets", spotPrices},
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

// rootVolume launches with a volume of the image's least size, which is taken.
func rootVolume(t *testing.T, s Subject) {
	root, err := s.Fleet.RootVolume(t.Context(), s.At, s.Launch.Image)
	if err != nil || root.Device == "" || root.SizeGB <= 0 {
		t.Fatalf("RootVolume(%s) = %+v, %v; want a device and a size", s.Launch.Image, root, err)
	}
	l := s.launch("t1")
	l.Options = store.LaunchOptions{RootVolume: store.Volume{SizeGB: 1, Type: "gp3"}}.On(root)
	s.must(t, l)
}

// spotPrices asks for a price in two zones, of a type that there is and of one that is not.
func spotPrices(t *testing.T, s Subject) {
	subnets := []string{s.Launch.Subnet}
	if s.OtherZone != "" {
		subnets = append(subnets, s.OtherZone, s.SameZone)
	}
	hour, zones, err := s.Fleet.SpotPrices(t.Context(), s.At, []string{s.Launch.InstanceType, "x0.none"}, subnets)
	if err != nil {
		t.Fatalf("SpotPrices = %v", err)
	}
	zone := zones[s.Launch.Subnet]
	if zone == "" || s.OtherZone != "" && (zones[s.OtherZone] == "" || zones[s.OtherZone] == zone || zones[s.SameZone] != zone) {
		t.Errorf("the zones of %v are %v, want those that they are in", subnets, zones)
	}
	if usd := hour[store.SpotKey(s.Launch.InstanceType, zone)]; usd <= 0 {
		t.Errorf("%s in %s costs %v an hour, want something", s.Launch.InstanceType, zone, usd)
	}
	for key, usd := range hour {
		if name, _, _ := strings.Cut(key, " "); name != s.Launch.InstanceType || usd <= 0 {
			t.Errorf("%s costs %v, want prices of %s alone", key, usd, s.Launch.InstanceType)
		}
	}
	if none, _, err := s.Fleet.SpotPrices(t.Context(), s.At, []string{s.Launch.InstanceType}, nil); err != nil || len(none) != 0 {
		t.Errorf("SpotPrices without a subnet = %v, %v; want none", none, err)
	}
}
