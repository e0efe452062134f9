package fleettest

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

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

func console(t *testing.T, s Subject) {
	i, other := s.must(t, s.launch("t1")), s.must(t, s.launch("t2"))
	s.Settle()
	_, err := s.Fleet.Console(t.Context(), s.At, "i-0123456789abcdef0")
	wantKind(t, "Console of an unknown instance", err, fleet.ErrNotFound)
	if got, err := s.Fleet.Console(t.Context(), s.At, i.ID); err != nil || got != fleet.Printed(got) {
		t.Errorf("Console = %q, %v; want plain lines", got, err)
	}
	if s.Print == nil {
		t.Log("not checked: nothing can be printed")
		return
	}
	s.Print(i.ID, "booting\r\n\x1b[31mKernel panic\x1b[0m\n")
	s.Print(other.ID, "login:")
	if got, err := s.Fleet.Console(t.Context(), s.At, i.ID); err != nil || got != "booting\nKernel panic\n" {
		t.Errorf("Console = %q, %v; want the two lines that it printed, as plain text", got, err)
	}
	if err := s.Fleet.Terminate(t.Context(), s.At, i.ID); err != nil {
		t.Fatalf("Terminate: %v", err)
	}
	s.Settle()
	if got, err := s.Fleet.Console(t.Context(), s.At, i.ID); err != nil || got == "" {
		t.Errorf("Console of a terminated instance = %q, %v; want what it printed", got, err)
	}
}
