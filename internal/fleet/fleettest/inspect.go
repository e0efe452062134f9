package fleettest

import (
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// inspected is a check of a fleet that is inspected.
func inspected(check func(*testing.T, Subject)) func(*testing.T, Subject) {
	return func(t *testing.T, s Subject) {
		if s.Inspector == nil {
			t.Log("not checked: the fleet has no inspector")
			return
		}
		check(t, s)
	}
}

// vet asks about a launch, and about one that EC2 refuses. Nothing is launched.
func vet(t *testing.T, s Subject) {
	if err := s.Inspector.Vet(t.Context(), s.At, s.launch("")); err != nil {
		t.Errorf("Vet = %v, want no error", err)
	}
	if s.OtherType != "" {
		l := s.launch("")
		l.InstanceType = s.OtherType
		wantKind(t, "Vet of a type that the image does not run on", s.Inspector.Vet(t.Context(), s.At, l), fleet.ErrUnsuited)
	}
	s.wantListed(t, s.At)
}

func describedAMI(t *testing.T, s Subject) {
	ami, err := s.Inspector.AMI(t.Context(), s.At, s.Launch.Image)
	if err != nil || ami.State != "available" || ami.RootDevice == "" {
		t.Errorf("AMI(%s) = %+v, %v; want it available, with a root device", s.Launch.Image, ami, err)
	}
}

func describedSubnets(t *testing.T, s Subject) {
	got, err := s.Inspector.Subnets(t.Context(), s.At, s.Launch.Subnet)
	if sub := got[s.Launch.Subnet]; err != nil || len(got) != 1 || sub.Free == 0 || sub.Zone == "" {
		t.Errorf("Subnets(%s) = %+v, %v; want it alone, with a zone and free addresses", s.Launch.Subnet, got, err)
	}
	if got, err := s.Inspector.Subnets(t.Context(), s.At); err != nil || len(got) != 0 {
		t.Errorf("Subnets of none = %v, %v; want none", got, err)
	}
}

// guarded: the one who knows the external id gets the role, and nobody else.
func guarded(t *testing.T, s Subject) {
	if err := s.Inspector.TakeOn(t.Context(), s.At.Account); err != nil {
		t.Errorf("TakeOn = %v, want no error", err)
	}
	let, err := s.Inspector.Strangers(t.Context(), s.At.Account)
	if err != nil || len(let) > 0 {
		t.Errorf("Strangers = %q, %v; want none to get it", let, err)
	}
}
