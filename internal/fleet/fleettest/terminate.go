package fleettest

import (
	"fmt"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// group launches n instances, and returns their ids.
func (s Subject) group(t *testing.T, n int) []string {
	t.Helper()
	ids := make([]string, n)
	for k := range ids {
		ids[k] = s.must(t, s.launch(fmt.Sprintf("t%d", k))).ID
	}
	s.Settle()
	return ids
}

// wantOver checks which of the instances are terminated.
func (s Subject) wantOver(t *testing.T, when string, over map[string]bool) {
	t.Helper()
	s.Settle()
	for id, want := range over {
		got, err := s.Fleet.Get(t.Context(), s.At, id)
		if err != nil || got[id].State.Over() != want {
			t.Errorf("%s: instance %s is %s, %v; want terminated %v", when, id, got[id].State, err, want)
		}
	}
}

func terminateGroup(t *testing.T, s Subject) {
	ids := s.group(t, 4)
	for range 2 { // the second time, some are ended already
		if err := s.Fleet.Terminate(t.Context(), s.At, ids[:3]...); err != nil {
			t.Fatalf("Terminate of three: %v", err)
		}
	}
	s.wantOver(t, "after Terminate of three", map[string]bool{ids[0]: true, ids[1]: true, ids[2]: true, ids[3]: false})
	if err := s.Fleet.Terminate(t.Context(), s.At); err == nil {
		t.Error("Terminate of nothing: no error")
	}
	if err := s.Fleet.Terminate(t.Context(), s.At, make([]string, fleet.MaxTerminate+1)...); err == nil {
		t.Error("Terminate of more than MaxTerminate: no error")
	}
}

func terminateGroupWithUnknown(t *testing.T, s Subject) {
	ids := s.group(t, 2)
	err := s.Fleet.Terminate(t.Context(), s.At, ids[0], "i-0123456789abcdef0", ids[1])
	wantKind(t, "Terminate of a group with an unknown instance", err, fleet.ErrNotFound)
	s.wantOver(t, "after that", map[string]bool{ids[0]: false, ids[1]: false})
	for _, id := range ids {
		if err := s.Fleet.Terminate(t.Context(), s.At, id); err != nil {
			t.Errorf("Terminate of %s alone: %v", id, err)
		}
	}
	s.wantOver(t, "after each alone", map[string]bool{ids[0]: true, ids[1]: true})
}

func terminateGroupWithProtected(t *testing.T, s Subject) {
	if s.Protect == nil {
		t.Log("not checked: nothing can be protected")
		return
	}
	ids := s.group(t, 2)
	s.Protect(ids[1])
	err := s.Fleet.Terminate(t.Context(), s.At, ids...)
	wantKind(t, "Terminate of a group with a protected instance", err, fleet.ErrRefused)
	s.wantOver(t, "after that, in one zone", map[string]bool{ids[0]: false, ids[1]: false})
	if err := s.Fleet.Terminate(t.Context(), s.At, ids[0]); err != nil {
		t.Errorf("Terminate of the other alone: %v", err)
	}
	wantKind(t, "Terminate of the protected one alone", s.Fleet.Terminate(t.Context(), s.At, ids[1]), fleet.ErrRefused)
	s.wantOver(t, "after each alone", map[string]bool{ids[0]: true, ids[1]: false})
}
