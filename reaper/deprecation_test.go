package reaper_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// versioned gives all registrations of a repository a version of the program.
func (h *hub) versioned(repo, version string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, g := range h.repos[repo] {
		g.Version = version
		h.repos[repo][id] = g
	}
}

func TestVersionThatEndsWithinAWeekIsAlarmedOnceADay(t *testing.T) {
	inWorld(t, func(w *world) {
		// The third day is the first within seven days of the end.
		ends := time.Now().Add(8*24*time.Hour + 12*time.Hour)
		w.hub.ends = map[string]github.Deprecation{"2.330.0": {Runtime: ends}}
		day := func(name string) {
			tomorrow := time.Now().Add(24 * time.Hour)
			run := w.online(name, shared)
			w.hub.versioned("42", "2.330.0")
			for range 61 { // two looks at the list
				w.hear(run.ID, store.Event{Kind: store.EventHeartbeat})
				w.minutes(1)
			}
			w.minutes(30) // silent, it ends
			time.Sleep(time.Until(tomorrow))
		}
		for i, name := range []string{"one", "two", "three", "four"} {
			day(name)
			if n := w.hub.count("deprecation"); n != i+1 {
				t.Errorf("GitHub was asked %d times in %d days, want once a day", n, i+1)
			}
			w.wantAlarms([]store.Alarm{store.AlarmVersionEnds, store.AlarmVersionEnds}[:max(0, i-1)]...)
		}
		if s := w.log.String(); !strings.Contains(s, `"version":"2.330.0"`) || !strings.Contains(s, ends.UTC().Format(time.RFC3339)) {
			t.Error("the alarm does not name the version and the day")
		}
		if got := w.sweep().Versions["2.330.0"]; !got.EndsAt.Equal(ends) {
			t.Errorf("the sweep knows %+v, want the end", got)
		}
		// A version that nobody has any more is forgotten.
		w.minutes(26 * 60)
		if got := w.sweep().Versions; len(got) != 0 {
			t.Errorf("the sweep still knows %v", got)
		}
	})
}

func TestVersionOfWhichGitHubTellsNothingIsNoAlarm(t *testing.T) {
	for name, c := range map[string]struct {
		fail  error
		asked int // while the runner lives: with two lists
	}{
		"EnterpriseServer": {nil, 1},
		"Down":             {refusal(github.ErrUnknown, 502), 2},
		"NoPermission":     {refusal(github.ErrDenied, 403), 2},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				run := w.online("live", shared)
				w.hub.versioned("42", "2.330.0")
				w.hub.fail = func(op string, _ github.Scope, _ int64) error {
					if op == "deprecation" {
						return c.fail
					}
					return nil
				}
				w.run()
				for range 61 {
					w.hear(run.ID, store.Event{Kind: store.EventHeartbeat})
					w.minutes(1)
				}
				if n := w.hub.count("deprecation"); n != c.asked {
					t.Errorf("GitHub was asked %d times, want %d", n, c.asked)
				}
				w.wantAlarms()
			})
		})
	}
}

func TestVersionsOfOthersAreNotAskedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		w.online("live", shared)
		w.hub.register("42", "garo-other-"+id("theirs")+"-1")
		w.hub.versioned("42", "2.330.0")
		w.hub.mu.Lock()
		for n, g := range w.hub.repos["42"] {
			if !strings.HasPrefix(g.Name, "garo-other-") {
				g.Version = "" // ours has not connected
				w.hub.repos["42"][n] = g
			}
		}
		w.hub.mu.Unlock()
		w.run()
		if n := w.hub.count("deprecation"); n != 0 {
			t.Errorf("GitHub was asked %d times about versions that are not ours", n)
		}
	})
}

func TestSweepsWithAndWithoutVersionsAreReadByBoth(t *testing.T) {
	now := time.Now().UTC()
	b, err := json.Marshal(store.Sweep{Key: "k", Versions: map[string]store.ProgramVersion{"2.330.0": {SeenAt: now}}})
	if err != nil {
		t.Fatal(err)
	}
	var old struct { // as the version before reads it
		Key string `json:"key"`
	}
	if err := json.Unmarshal(b, &old); err != nil || old.Key != "k" {
		t.Errorf("the version before reads %+v, %v", old, err)
	}
	var s store.Sweep
	if err := json.Unmarshal([]byte(`{"key":"k"}`), &s); err != nil || s.Key != "k" || s.Versions != nil {
		t.Errorf("a sweep of the version before is read as %+v, %v", s, err)
	}
	if b, err := json.Marshal(s); err != nil || strings.Contains(string(b), "versions") {
		t.Errorf("a sweep without versions is written as %s, %v", b, err)
	}
}
