package fleettest

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

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
		{"root volume", func(l *fleet.Launch) {
			l.Options = store.LaunchOptions{RootDevice: "/dev/xvda", RootVolume: store.Volume{SizeGB: 100}}
		}, true},
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
		t.Log("not checked: EC2 ends no machine on its own")
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
