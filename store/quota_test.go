package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// refusing is a quota after a machine of an image said that GitHub refuses its runner
// program.
func refusing(t *testing.T, q store.Quota, now time.Time, image, program string) store.Quota {
	t.Helper()
	s := booting(t, store.Shared)
	s.quota, s.run.Launch.Image = q, image
	d, _ := s.c().ApplyEvent(now, lim, store.Event{Kind: store.EventDraining, Counter: 50, Reason: store.EndTooOld}, program)
	if got := told(d.Changes); got != "put request, put runner, put lock, put quota" {
		t.Errorf("changes %q, want the quota put with the rest", got)
	}
	return d.Quota
}

func TestImageWithATooOldRunnerProgramIsRefused(t *testing.T) {
	run := booting(t, store.Shared).run
	q := refusing(t, store.Quota{Meta: store.Meta{Version: 3}, Account: run.Account, Live: 2, Limit: 10}, at(time.Hour), "ami-1", "key-1")
	same(t, "quota", q, store.Quota{Meta: store.Meta{Version: 3}, Account: run.Account, Live: 2, Limit: 10,
		TooOld: []store.TooOldImage{{Image: "ami-1", Program: "key-1", Runner: "x1", At: at(time.Hour)}}})
	why, refused := q.Refuses(at(2*time.Hour), "ami-1", "key-1")
	if !refused || why.Code != store.EndTooOld || why.Retryable {
		t.Errorf("Refuses = %+v, %v; want runner_too_old, not retryable", why, refused)
	}
	for _, word := range []string{"ami-1", "x1", "2026-03-01T13:00:00Z", "runner_programs"} {
		if !strings.Contains(why.Text, word) {
			t.Errorf("text %q, want it to name %s", why.Text, word)
		}
	}
	for _, c := range []struct{ name, image, program string }{
		{"AnotherImage", "ami-2", "key-1"},
		{"AnotherProgram", "ami-1", "key-2"},
		{"NoProgram", "ami-1", ""},
	} {
		if why, refused := q.Refuses(at(2*time.Hour), c.image, c.program); refused {
			t.Errorf("%s is refused: %v", c.name, why)
		}
	}
	for after, want := range map[time.Duration]bool{24*time.Hour - 1: true, 24 * time.Hour: false} { // a mark counts for a day
		if _, refused := q.Refuses(at(time.Hour+after), "ami-1", "key-1"); refused != want {
			t.Errorf("%v after the mark the image is refused: %v, want %v", after, refused, want)
		}
	}
	if _, refused := (store.Quota{}).Refuses(t0, "ami-1", ""); refused {
		t.Error("an account that nothing is known of refuses")
	}
}

func TestFirstRefusalOfAnAccountNamesIt(t *testing.T) {
	run := booting(t, store.Shared).run
	q := refusing(t, store.Quota{Account: run.Account}, t0, "ami-1", "") // as Get returns what is absent
	same(t, "quota", q, store.Quota{Account: run.Account, TooOld: []store.TooOldImage{{Image: "ami-1", Runner: "x1", At: t0}}})
}

func TestImageIsRefusedByItsNewestProgramAlone(t *testing.T) {
	first := refusing(t, store.Quota{Account: "123456789012"}, t0, "ami-1", "key-1")
	q := refusing(t, first, at(time.Minute), "ami-1", "key-2")
	if len(q.TooOld) != 1 || q.TooOld[0].Program != "key-2" || !q.TooOld[0].At.Equal(at(time.Minute)) {
		t.Errorf("remembered are %+v, want the newest alone", q.TooOld)
	}
	if first.TooOld[0].Program != "key-1" {
		t.Error("the quota that was given has changed")
	}
}

func TestTwentyImagesAreRemembered(t *testing.T) {
	q := store.Quota{Account: "123456789012"}
	for n := 1; n <= 21; n++ {
		q = refusing(t, q, at(time.Duration(n)), fmt.Sprintf("ami-%d", n), "")
	}
	if len(q.TooOld) != 20 {
		t.Errorf("%d images are remembered, want 20", len(q.TooOld))
	}
	for image, want := range map[string]bool{"ami-1": false, "ami-2": true, "ami-21": true} {
		if _, refused := q.Refuses(at(time.Minute), image, ""); refused != want {
			t.Errorf("%s is refused: %v, want %v", image, refused, want)
		}
	}
}

func TestProgramKeyNamesTheProgramsAlone(t *testing.T) {
	both := store.ProgramKey(map[string]string{"amd64": "aa", "arm64": "bb"})
	if len(both) != 12 || both != store.ProgramKey(map[string]string{"arm64": "bb", "amd64": "aa"}) {
		t.Errorf("ProgramKey = %q, want the same twelve digits each time", both)
	}
	for name, others := range map[string]map[string]string{
		"another program": {"amd64": "aa", "arm64": "cc"}, "one less": {"amd64": "aa"}, "swapped": {"amd64": "bb", "arm64": "aa"},
	} {
		if got := store.ProgramKey(others); got == both || len(got) != 12 {
			t.Errorf("%s: ProgramKey = %q, want another than %q", name, got, both)
		}
	}
	if got := store.ProgramKey(nil); got != "" {
		t.Errorf("ProgramKey of none = %q, want none", got)
	}
}
