package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func names(numbers ...int) []store.GitHubName {
	var out []store.GitHubName
	for _, n := range numbers {
		out = append(out, store.GitHubName{N: n, Name: store.GitHubNameFor("test", "x1", n)})
	}
	return out
}

func TestWriteAheadTakesANumberThatNothingHad(t *testing.T) {
	for _, c := range []struct {
		name   string
		run    store.Runner
		number int
	}{
		{"First", store.Runner{Wanted: 1}, 1},
		{"AfterTheConfig", store.Runner{Config: store.Config{N: 3}, Wanted: 1}, 4},
		{"AsTheMachineWants", store.Runner{Config: store.Config{N: 3}, Wanted: 7}, 7},
		{"AfterANameThatMayBeUsed", store.Runner{Config: store.Config{N: 1}, Wanted: 2, Names: names(1, 2)}, 3},
		{"AfterSeveral", store.Runner{Wanted: 1, Names: names(1, 2, 3)}, 4},
		{"OldNamesDoNotMatter", store.Runner{Config: store.Config{N: 5}, Wanted: 6, Names: names(4, 5)}, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run.ID, c.run.State = "x1", store.RunnerLaunched
			before := slices.Clone(c.run.Names)
			d := of(c.run).SpendName(t0, 9, "x", "x", "test") // whatever its number, it is the last one
			if changes := told(d.Changes); changes != "put runner" {
				t.Errorf("changes %q, want the runner put", changes)
			}
			got := d.Runner
			same(t, "names", got.Names, append(slices.Clone(before), names(c.number)...))
			same(t, "the given runner's names", c.run.Names, before)
			next, ok := got.NextName()
			if !ok || next.N != c.number || next.Name != store.GitHubNameFor("test", "x1", c.number) {
				t.Errorf("NextName = %+v, %v; want number %d", next, ok, c.number)
			}
		})
	}
}

func TestNextNameIsNoneUntilWrittenAhead(t *testing.T) {
	for _, run := range []store.Runner{
		{},
		{Config: store.Config{N: 1}, Names: names(1)},
		{Config: store.Config{N: 2}, Names: names(1)},
	} {
		if name, ok := run.NextName(); ok {
			t.Errorf("NextName with config %d and names %v = %v, want none", run.Config.N, run.Names, name)
		}
	}
}

func TestNamesFitGitHub(t *testing.T) {
	if got := store.GitHubNameFor(strings.Repeat("c", 16), strings.Repeat("r", 26), 999_999_999); len(got) > 64 {
		t.Errorf("%s has %d characters, GitHub takes 64", got, len(got))
	}
}

func TestSpendName(t *testing.T) {
	now := at(4 * time.Second)
	s := launched(t, store.Shared)
	s.run.Config, s.run.Names = store.Config{}, names(1)
	t.Run("WritesTheNextOneAhead", func(t *testing.T) {
		want := s
		want.run.Names = names(1, 2)
		want.run.Unminted = &store.Unminted{Code: store.EndMintDenied, Text: "It is taken.", Tries: 1}
		want.run.History = noted(s.run.History, now, "launched", "not registered at GitHub: It is taken.")
		want.decides(t, s.c().SpendName(now, 1, store.EndMintDenied, "It is taken.", "test"), outcome{changes: "put runner"})
	})
	for _, c := range []struct {
		name string
		edit func(*store.Runner)
	}{
		{"OneThatWasSpentBeforeIsNotSpentTwice", func(r *store.Runner) { r.Names = names(1, 2) }},
		{"ADrainingRunnerNeedsNoName", func(r *store.Runner) { r.State = store.RunnerDraining }},
		{"AnEndedOneNeitherDoes", func(r *store.Runner) { r.State = store.RunnerEnded }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s
			c.edit(&s.run)
			s.decides(t, s.c().SpendName(now, 1, store.EndMintDenied, "It is taken.", "test"), outcome{})
		})
	}
}

func TestConfigure(t *testing.T) {
	now := at(4 * time.Second)
	s := launching(t, store.Shared)
	s.run.State, s.run.InstanceID = store.RunnerLaunched, "i-1"
	s.take(s.c().SpendName(t0, 1, store.EndGitHubDown, "x", "test"))
	s.run.Wait, s.run.WaitUntil = store.WaitGitHub, now
	t.Run("TakesTheLastName", func(t *testing.T) {
		want := s
		want.run.Names = names(1, 2)
		want.run.Names[1].RunnerID = 77
		want.run.Config = store.Config{N: 2, Sealed: "sealed", RunnerID: 77}
		want.run.Wait, want.run.WaitUntil, want.run.Unminted = "", time.Time{}, nil
		want.run.Claim = store.Claim{Until: now}
		want.run.History = noted(s.run.History, now, "launched", "registered at GitHub: config 2")
		want.decides(t, s.c().Configure(now, 2, "sealed", 77, ""), outcome{changes: "put runner"})
		if s.run.Names[1].RunnerID != 0 {
			t.Error("Configure changed the names that it was given")
		}
	})
	for _, c := range []struct {
		name string
		edit func(*store.Runner)
	}{
		{"WithoutANameThereIsNoConfig", func(r *store.Runner) { r.Config.N = 2 }},
		{"AnEarlierNameIsSpent", func(r *store.Runner) { r.Names = names(1, 2, 3) }},
		{"AnotherNameIsAhead", func(r *store.Runner) { r.Names = names(1) }},
		{"DrainingTakesNone", func(r *store.Runner) { r.State = store.RunnerDraining }},
		{"EndingTakesNone", func(r *store.Runner) { r.State = store.RunnerEnding }},
		{"EndedTakesNone", func(r *store.Runner) { r.State = store.RunnerEnded }},
		{"FailedTakesNone", func(r *store.Runner) { r.State = store.RunnerFailed }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s
			c.edit(&s.run)
			s.decides(t, s.c().Configure(now, 2, "sealed", 77, ""), outcome{})
		})
	}
}

func TestForgetDropsOneName(t *testing.T) {
	run := store.Runner{Names: names(1, 2, 3)}
	same(t, "names", run.Forget(2).Names, names(1, 3))
	same(t, "names", run.Forget(9).Names, names(1, 2, 3))
	same(t, "the given runner's names", run.Names, names(1, 2, 3))
}

func TestUnusedSparesWhatTheMachineMayUse(t *testing.T) {
	for state, want := range map[store.RunnerState][]store.GitHubName{
		store.RunnerNew: names(1, 2), store.RunnerLaunched: names(1, 2), store.RunnerBooting: names(1, 2),
		store.RunnerOnline: names(1, 2), store.RunnerBusy: names(1, 2), store.RunnerDraining: names(1, 2),
		store.RunnerEnding: names(1, 2), store.RunnerEnded: names(1, 2, 3, 4), store.RunnerFailed: names(1, 2, 3, 4),
	} {
		run := store.Runner{State: state, Config: store.Config{N: 3}, Names: names(1, 2, 3, 4)}
		same(t, "unused names of a runner that is "+string(state), run.Unused(), want)
	}
}

func TestClientTokenIsOfRunnerAndIndexAlone(t *testing.T) {
	s := launching(t, store.Shared)
	token := s.run.ClientToken()
	if token != "garo-x1-0" {
		t.Errorf("ClientToken = %s, want garo-x1-0", token)
	}
	taken := s.c().Take(at(time.Minute), store.Claim{By: "worker-2", Until: at(2 * time.Minute)}, "test", &store.Pacing{}).Runner
	if taken.Claim.By != "worker-2" {
		t.Fatalf("the claim is %+v, want it taken over", taken.Claim)
	}
	if got := taken.ClientToken(); got != token {
		t.Errorf("ClientToken after a takeover = %s, want %s as before", got, token)
	}
	taken.Index = 1
	if got := taken.ClientToken(); got == token {
		t.Errorf("ClientToken of the next placement = %s, want another one", got)
	}
}

func TestStates(t *testing.T) {
	for _, s := range store.RunnerStates {
		usable := slices.Contains([]store.RunnerState{"new", "launched", "booting", "online", "busy"}, s)
		final := s == "ended" || s == "failed"
		if s.Usable() != usable || s.Final() != final {
			t.Errorf("%s: usable %v, final %v; want %v, %v", s, s.Usable(), s.Final(), usable, final)
		}
	}
	if len(store.RunnerStates) != 9 || store.RunnerState("").Usable() {
		t.Errorf("%d states of a runner, want 9; and the empty one is not usable", len(store.RunnerStates))
	}
	for _, s := range store.RequestStates {
		if want := s != "accepted" && s != "waiting"; s.Final() != want {
			t.Errorf("%s: final %v, want %v", s, s.Final(), want)
		}
	}
	if len(store.RequestStates) != 6 {
		t.Errorf("%d states of a request, want 6", len(store.RequestStates))
	}
	for _, c := range []struct {
		lock        store.Lock
		names, free bool
	}{
		{store.Lock{}, false, true},
		{store.Lock{Runner: "x1"}, false, true},
		{store.Lock{State: store.LockEmpty, Runner: "x1"}, false, true},
		{store.Lock{State: store.LockLaunching, Runner: "x1"}, true, false},
		{store.Lock{State: store.LockLive, Runner: "x1"}, true, false},
		{store.Lock{State: store.LockDraining, Runner: "x1"}, true, true},
		{store.Lock{State: store.LockLive, Runner: "x2"}, false, false},
	} {
		if c.lock.Names("x1") != c.names || c.lock.Free() != c.free {
			t.Errorf("%+v: names x1 %v, free %v; want %v, %v", c.lock, c.lock.Names("x1"), c.lock.Free(), c.names, c.free)
		}
		if c.lock.Names("") {
			t.Errorf("%+v names nobody, and yet Names(\"\")", c.lock)
		}
	}
	if (store.Lock{State: store.LockLive}).Names("") {
		t.Error("a live lock without a runner names one")
	}
}
