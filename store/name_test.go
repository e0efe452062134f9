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
			c.run.ID = "x1"
			before := slices.Clone(c.run.Names)
			got := c.run.WriteAhead("test")
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

func TestConfigure(t *testing.T) {
	now := at(4 * time.Second)
	ready := launching(t, store.Shared)
	ready.run.State, ready.run.InstanceID = store.RunnerLaunched, "i-1"
	ready.run = ready.run.WriteAhead("test").Pause(t0, now, store.WaitGitHub)
	t.Run("TakesTheLastName", func(t *testing.T) {
		want := ready.run
		want.Names = names(1, 2)
		want.Names[1].RunnerID = 77
		want.Config = store.Config{N: 2, Sealed: "sealed", RunnerID: 77}
		want.Wait, want.WaitUntil = "", time.Time{}
		want.History = append(slices.Clone(want.History), store.Entry{At: now, State: "launched", Reason: "registered at GitHub: config 2"})
		got, ok := ready.run.Configure(now, "sealed", 77)
		if !ok {
			t.Error("ok = false, want true")
		}
		same(t, "runner", got, want)
		if ready.run.Names[1].RunnerID != 0 {
			t.Error("Configure changed the names that it was given")
		}
	})
	for _, c := range []struct {
		name string
		edit func(*store.Runner)
	}{
		{"WithoutANameThereIsNoConfig", func(r *store.Runner) { r.Config.N = 2 }},
		{"DrainingTakesNone", func(r *store.Runner) { r.State = store.RunnerDraining }},
		{"EndingTakesNone", func(r *store.Runner) { r.State = store.RunnerEnding }},
		{"EndedTakesNone", func(r *store.Runner) { r.State = store.RunnerEnded }},
		{"FailedTakesNone", func(r *store.Runner) { r.State = store.RunnerFailed }},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := ready.run
			c.edit(&run)
			got, ok := run.Configure(now, "sealed", 77)
			if ok {
				t.Error("ok = true, want false")
			}
			same(t, "runner", got, run)
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
	run := launching(t, store.Shared).run
	token := run.ClientToken()
	if token != "garo-x1-0" {
		t.Errorf("ClientToken = %s, want garo-x1-0", token)
	}
	taken := run.Take(at(time.Minute), store.Claim{By: "worker-2", Until: at(2 * time.Minute)}, "test")
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
