package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/action"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// wide is a list as people have it.
func wide() table {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return requestTable([]apitype.Status{
		{
			ID: strings.Repeat("a", 26), State: "waiting", Type: "spot", Mode: "shared", Repository: "alphagov/a-repository", Labels: []string{"large", "linux"}, CreatedAt: now.Add(-90 * time.Minute),
			Runner: &apitype.Runner{ID: strings.Repeat("b", 26), InstanceID: "i-0123456789abcdef0", Market: "spot", InstanceType: "m7i.large", Subnet: "subnet-0123456789abcdef0", Wait: "github_limited"},
		},
		{ID: strings.Repeat("c", 26), State: "failed", Type: "ondemand", Mode: "ephemeral", Repository: "alphagov/b", CreatedAt: now.Add(-28 * 24 * time.Hour), Error: &apitype.Error{Code: "no_capacity"}},
	}, now)
}

func TestTablesFitTheTerminal(t *testing.T) {
	for width, want := range map[int]string{
		60: "ID                          STATE    AGE  WHY\n" +
			"aaaaaaaaaaaaaaaaaaaaaaaaaa  waiting  90m  github_limited\n" +
			"cccccccccccccccccccccccccc  failed   28d  no_capacity\n",
		80: "ID                          STATE    REPOSITORY             AGE  WHY\n" +
			"aaaaaaaaaaaaaaaaaaaaaaaaaa  waiting  alphagov/a-repository  90m  github_limited\n" +
			"cccccccccccccccccccccccccc  failed   alphagov/b             28d  no_capacity\n",
		30: "ID                          S…\n" +
			"aaaaaaaaaaaaaaaaaaaaaaaaaa  w…\n" +
			"cccccccccccccccccccccccccc  f…\n",
	} {
		tab := wide()
		if got := tab.text(width, false); got != want {
			t.Errorf("in %d columns:\n%swant\n%s", width, got, want)
		}
	}
	for _, width := range []int{1, 40, 60, 80, 100, 120, 200} {
		for _, p := range []paint{false, true} {
			tab := wide()
			for line := range strings.Lines(strings.NewReplacer("\x1b[31m", "", "\x1b[36m", "", "\x1b[0m", "").Replace(tab.text(width, p))) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
					t.Errorf("in %d columns, coloured %t, a line has %d: %q", width, p, n, line)
				}
			}
		}
	}
	tab := wide()
	all := tab.text(0, false)
	if lines := strings.Split(all, "\n"); len(strings.Fields(lines[0])) != 11 || len(strings.Fields(lines[1])) != 11 || len(strings.Fields(lines[2])) != 11 {
		t.Errorf("what is no terminal gets\n%swant eleven words in every line", all)
	}
	if coloured := tab.text(200, true); strings.Count(coloured, "\x1b[36mwaiting\x1b[0m") != 1 || strings.Count(coloured, "\x1b[31mfailed\x1b[0m") != 1 {
		t.Errorf("on a terminal of 200 columns the states have no colours: %q", coloured)
	}
}

func TestAgesHaveOneUnit(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 90 * time.Minute: "90m",
		2 * time.Hour: "2h", 47*time.Hour + 59*time.Minute: "47h", 48 * time.Hour: "2d", 28*24*time.Hour + time.Hour: "28d",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestSinceIsAnAgeOrATime(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"1d": now.Add(-24 * time.Hour), "2w": now.Add(-14 * 24 * time.Hour), "90m": now.Add(-90 * time.Minute), "0s": now,
		"2026-02-28T00:00:00Z": time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC), "2026-02-28": time.Date(2026, 2, 28, 0, 0, 0, 0, time.Local),
	} {
		if got, err := sinceTime(s, now); err != nil || !got.Equal(want) {
			t.Errorf("sinceTime(%s) = %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "d", "-1d", "1.5d", "-5m", "99999d", "yesterday", "2026-13-01"} {
		if got, err := sinceTime(s, now); !errors.Is(err, errUsage) {
			t.Errorf("sinceTime(%q) = %v, %v; want an error of usage", s, got, err)
		}
	}
}

func TestPeopleAreToldOnceThatTheAPIIsAway(t *testing.T) {
	var b strings.Builder
	again := away(&b)
	again(client.ErrNoAnswer)
	again(client.ErrNoAnswer)
	if got, want := b.String(), "garo: the API does not answer, and is asked again: no answer\n"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestEachKindOfErrorHasItsExitStatus(t *testing.T) {
	problem := func(code string, status int) error {
		return fmt.Errorf("call: %w", &client.Error{Problem: apitype.Problem{Code: code, Status: status}})
	}
	for _, c := range []struct {
		err  error
		want int
	}{
		{errors.New("any"), 1},
		{usage("--x: want %s", "y"), 2},
		{problem("invalid_field", 422), 2},
		{problem("unauthenticated", 401), 3},
		{problem("forbidden", 403), 3},
		{noToken("nowhere"), 3},
		{problem("not_found", 404), 4},
		{fmt.Errorf("status: %w", client.ErrNoAnswer), 5},
		{problem("unavailable", 503), 5},
		{problem("internal", 500), 5},
		{problem("idempotency_mismatch", 409), 1},
		{&client.NotReadyError{Status: apitype.Status{ID: "x", State: "failed"}}, 6},
		{fmt.Errorf("%w: request x is cancelled", errInterrupted), 130},
		{action.ErrCancelled, 130},
	} {
		if got := exitOf(c.err); got != c.want {
			t.Errorf("exit status of %q = %d, want %d", c.err, got, c.want)
		}
	}
}
