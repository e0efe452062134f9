package store_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// TestCredentialsOfBothVersions has a registration with one credential read and written as
// ever, and one with several as a list.
func TestCredentialsOfBothVersions(t *testing.T) {
	for name, c := range map[string]struct {
		json  string
		want  []string // what the credentials are named
		again string   // how it is written
	}{
		"None":      {`null`, []string{"1/github/runner/pat"}, `{}`},
		"Default":   {`{}`, []string{"1/github/runner/pat"}, `{}`},
		"Token":     {`{"parameter":"/ci/pat"}`, []string{"1/ci/pat"}, `{"parameter":"/ci/pat"}`},
		"App":       {` {"app_id":7,"installation_id":9}`, []string{"/app/7/9"}, `{"app_id":7,"installation_id":9}`},
		"ListOfOne": {`[{"app_id":7,"installation_id":9}]`, []string{"/app/7/9"}, `{"app_id":7,"installation_id":9}`},
		"Several":   {`[{"app_id":7,"installation_id":9}, {"parameter":"/ci/pat"}]`, []string{"/app/7/9", "1/ci/pat"}, `[{"app_id":7,"installation_id":9},{"parameter":"/ci/pat"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			a := store.Account{ID: "1"}
			if err := json.Unmarshal([]byte(c.json), &a.GitHub); err != nil {
				t.Fatal(err)
			}
			if got := a.CredentialNames(); !slices.Equal(got, c.want) {
				t.Errorf("credentials %q, want %q", got, c.want)
			}
			if b, err := json.Marshal(a.GitHub); err != nil || string(b) != c.again {
				t.Errorf("written as %s, %v; want %s", b, err, c.again)
			}
		})
	}
}

func TestCredentialsThatCannotBeMeantAreRefused(t *testing.T) {
	many := strings.Repeat(`{"parameter":"/%d"},`, 6)
	var numbers []any
	for n := range 6 {
		numbers = append(numbers, n)
	}
	for name, c := range map[string]struct{ json, want string }{
		"HalfAnApp":          {`{"app_id":7}`, "github: app_id and installation_id go together"},
		"HalfOfTwo":          {`[{"parameter":"/a"},{"parameter":"/b","installation_id":7}]`, "github[1]: app_id and installation_id go together"},
		"Negative":           {`{"app_id":-7,"installation_id":-1}`, "github: app_id"},
		"NoneInTheList":      {`[]`, "github: want at least one credential"},
		"TooMany":            {"[" + strings.TrimSuffix(fmt.Sprintf(many, numbers...), ",") + "]", "github: 6 credentials: want at most 5"},
		"OneTwice":           {`[{"parameter":"/a"},{"parameter":"/b"},{"parameter":"/a"}]`, "github[2].parameter: it is that of github[0]"},
		"DefaultTwice":       {`[{},{"parameter":"/github/runner/pat"}]`, "github[1].parameter: it is that of github[0]"},
		"AppTwice":           {`[{"parameter":"/a","app_id":7,"installation_id":1},{"parameter":"/b","app_id":7,"installation_id":2}]`, "github[1].app_id: 7 is that of github[0]"},
		"UnknownField":       {`{"app":7}`, `github: json: unknown field "app"`},
		"UnknownInAList":     {`[{},{"app":7}]`, `github: json: unknown field "app"`},
		"TextForACredential": {`"/github/pat"`, "github: json"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := store.ParseAccount("123456789012", registration(t, func(m map[string]any) { m["github"] = json.RawMessage(c.json) }))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("ParseAccount: %v, want %q", err, c.want)
			}
		})
	}
}

// TestRunnerKnowsWhatRegisteredIt reads records of both versions: that before knows no
// credential of a name, and ignores it.
func TestRunnerKnowsWhatRegisteredIt(t *testing.T) {
	s := launching(t, store.Shared)
	s.take(s.c().Configure(t0, 1, "sealed", 77, "/app/7/9"))
	if got := s.run.RegisteredBy(); got != "/app/7/9" {
		t.Errorf("registered by %q, want /app/7/9", got)
	}
	b, err := json.Marshal(s.run)
	if err != nil {
		t.Fatal(err)
	}
	var before struct {
		Names []struct {
			N        int   `json:"n"`
			RunnerID int64 `json:"runner_id"`
		} `json:"names"`
	}
	if err := json.Unmarshal(b, &before); err != nil || len(before.Names) != 1 || before.Names[0].RunnerID != 77 {
		t.Errorf("the version before reads %+v, %v; want the name with its id", before, err)
	}
	old := strings.Replace(string(b), `,"credential":"/app/7/9"`, "", 1)
	var run store.Runner
	if err := json.Unmarshal([]byte(old), &run); err != nil || len(old) == len(b) || run.RegisteredBy() != "" || run.Config.RunnerID != 77 {
		t.Errorf("the record of the version before: registered by %q, %v; want that it is not known", run.RegisteredBy(), err)
	}
}

// lendAll has two credentials lease for one scope as often as they may, for so long.
func lendAll(from time.Time, long time.Duration, credentials []store.Points, scope *store.Points, w store.LeaseWish) (all []granted) {
	for now := from; now.Before(from.Add(long)); now = now.Add(50 * time.Millisecond) {
		d, l := store.LeaseOf(now, lim, credentials, scope, w)
		for _, c := range d.Changes {
			p := *c.Item.(*store.Points)
			if i := slices.IndexFunc(credentials, func(c store.Points) bool { return c.Credential == p.Credential }); i >= 0 {
				credentials[i] = p
			} else {
				*scope = p
			}
		}
		if l != (store.Lease{}) {
			all = append(all, granted{l, now})
		}
		w.Runs = len(all)%3 == 0
	}
	return all
}

// TestScopeTakesNoMoreThanGitHubLetsIt has two credentials lease as often as they may: GitHub
// takes 1,500 registrations in a scope in any five minutes, and each credential makes 180 a
// minute at most.
func TestScopeTakesNoMoreThanGitHubLetsIt(t *testing.T) {
	credentials, scope := []store.Points{{Credential: "a"}, {Credential: "b"}}, &store.Points{Credential: store.ScopePoints("7")}
	var all []granted
	for round := range 2 { // with a pause, in which points gather
		all = append(all, lendAll(at(time.Duration(round)*20*time.Minute), 12*time.Minute, credentials, scope, store.LeaseWish{Scope: "7", Waited: true})...)
	}
	slices.SortFunc(all, func(a, b granted) int { return a.At.Compare(b.At) })
	per := map[string]int{}
	most, end := 0, 0
	for i, first := range all {
		per[first.Credential]++
		// At the worst the first is used late, and the last early.
		for end < len(all) && all[end].At.Add(-time.Second).Before(first.At.Add(3*time.Second+5*time.Minute)) {
			end++
		}
		most = max(most, end-i)
	}
	if most > 1500 || most < 1450 {
		t.Errorf("%d registrations in the worst five minutes, want most of the 1,500 that GitHub takes, and no more", most)
	}
	if a, b := per["a"], per["b"]; a == 0 || b == 0 || max(a, b) > min(a, b)*5/4 {
		t.Errorf("%d and %d leases, want both credentials used alike", a, b)
	}
}

func TestLeaseIsOfTheCredentialThatHasMostLeft(t *testing.T) {
	busy, idle := store.Points{Credential: "busy", Next: at(20 * time.Second)}, store.Points{Credential: "idle"}
	rests := store.Points{Credential: "rests", RestsUntil: at(10 * time.Minute)}
	scope := func() *store.Points { return &store.Points{Credential: store.ScopePoints("7")} }
	w := store.LeaseWish{Scope: "7"}
	if d, l := store.LeaseOf(t0, lim, []store.Points{busy, rests, idle}, scope(), w); l.Credential != "idle" || !l.At.Equal(t0) || d.Wait.For != "" || len(d.Changes) != 2 {
		t.Errorf("lease %+v, wait %+v, %d changes; want one of idle now, counted in the scope too", l, d.Wait, len(d.Changes))
	}
	if _, l := store.LeaseOf(t0, lim, []store.Points{rests, busy}, scope(), w); l.Credential != "busy" {
		t.Errorf("lease of %q, want busy while GitHub asks to leave the other alone", l.Credential)
	}
	if d, l := store.LeaseOf(t0, lim, []store.Points{rests}, scope(), w); l != (store.Lease{}) || d.Wait.For != store.WaitGitHub || d.Wait.Until.Before(at(9*time.Minute)) || len(d.Changes) != 1 {
		t.Errorf("lease %+v, wait %+v; want to wait for GitHub", l, d.Wait)
	}
	full := &store.Points{Credential: store.ScopePoints("7"), Next: at(30 * time.Second)}
	if _, l := store.LeaseOf(t0, lim, []store.Points{idle, busy}, full, w); !l.At.Equal(at(30 * time.Second)) {
		t.Errorf("lease at %s, want it when the scope has room", l.At)
	}
	full.Next = at(5 * time.Minute)
	if d, l := store.LeaseOf(t0, lim, []store.Points{idle, busy}, full, w); l != (store.Lease{}) || !d.Wait.Until.Equal(at(4*time.Minute)) || len(d.Changes) != 0 {
		t.Errorf("lease %+v, wait %+v, %d changes; want none, until a minute before the scope has room", l, d.Wait, len(d.Changes))
	}
}

// TestLineExpectsWhatSeveralCredentialsRegister has turns come at the pace of all credentials,
// and not faster than one scope takes runners.
func TestLineExpectsWhatSeveralCredentialsRegister(t *testing.T) {
	last := func(n int) time.Duration {
		a := store.Account{Pacing: store.Pacing{Burst: 100, IntervalMS: 10}}
		for i := range n {
			a.GitHub = append(a.GitHub, store.GitHubCredential{Parameter: fmt.Sprint("/", i)})
		}
		s := lined(store.Ephemeral, 0, -time.Hour, 0)
		s.quota.Lines = nil
		var turn store.Turn
		for range 1000 {
			turn, s.quota = s.quota.Turn(t0, s.req, a.Pace(lim))
		}
		return turn.At.Sub(t0)
	}
	one, two, three := last(1), last(2), last(3)
	if two > one*6/10 || three > two+time.Second || three < two-time.Second {
		t.Errorf("the last of 1,000 has its turn after %s, with two credentials after %s, with three after %s; want 1.8 times the pace with two, and with three the same", one, two, three)
	}
}
