package store_test

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestAdopt(t *testing.T) {
	now := at(time.Minute)
	for _, c := range []struct {
		name  string
		stage stage
		want  store.RunnerState
		out   outcome
	}{
		{"NewIsLaunchedAndGoesOn", launching(t, store.Shared), store.RunnerLaunched, outcome{changes: "put runner", sends: "runner x1 due 1m0s"}},
		{"DrainingLearnsTheIDAlone", launching(t, store.Shared).drained(at(time.Second), store.EndStopped), store.RunnerDraining, outcome{changes: "put runner"}},
		{"EndedIsOver", launching(t, store.Shared).ended(at(time.Second)), store.RunnerEnded, outcome{}},
		{"ConfiguredHasNothingToDo", launched(t, store.Shared), store.RunnerLaunched, outcome{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := c.stage.c().Adopt(now, "i-1")
			if got := outcomeOf(d); got != c.out || d.Runner.State != c.want {
				t.Errorf("Adopt = %s and %+v; want %s and %+v", d.Runner.State, got, c.want, c.out)
			}
		})
	}
}

func TestReviewRunner(t *testing.T) {
	now := at(time.Minute)
	quiet := func(s *stage) { // as nobody wrote it for a while
		s.take(s.c().Release(t0))
		s.run.UpdatedAt = now.Add(-lim.Resend)
	}
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		edit  func(*stage)
		end   string
		out   outcome
	}{
		{"LaunchIsForgotten", launching, quiet, "", outcome{sends: "runner x1 due 1m0s"}},
		{"MintIsForgotten", launched, func(s *stage) { quiet(s); s.run.Config = store.Config{} }, "", outcome{sends: "runner x1 due 1m0s"}},
		{"ConfirmIsTheReapersToo", listening, func(s *stage) { quiet(s); s.pulse.Seen = now }, "", outcome{}},
		{"NothingIsOpen", launched, quiet, "", outcome{}},
		{"AWorkerIsAtIt", launching, func(s *stage) { quiet(s); s.run.Claim = store.Claim{By: "worker-1", Until: now.Add(1)} }, "", outcome{}},
		{"ItWaits", launching, func(s *stage) { quiet(s); s.run.WaitUntil = now.Add(-lim.Resend + 1) }, "", outcome{}},
		{"ItHasWaited", launching, func(s *stage) { quiet(s); s.run.WaitUntil = now.Add(-lim.Resend) }, "", outcome{sends: "runner x1 due 1m0s"}},
		{"SomebodyWroteIt", launching, func(s *stage) { quiet(s); s.run.UpdatedAt = now.Add(-lim.Resend + 1) }, "", outcome{}},

		{"ItHasToDrain", launching, func(s *stage) { s.lock.BootBy = now }, store.EndNoLaunch, outcome{changes: "put runner, put lock"}},
		{"ItsLockNamesAnother", launching, func(s *stage) { s.lock.Runner = "x2" }, store.EndHandover, outcome{changes: "put runner"}},
		{"ItIsLostUnlessItsPulseMoves", busy, func(s *stage) {
			s.pulse.Seen, s.run.OnlineAt, s.run.Boot.At = at(-time.Hour), at(-time.Hour), at(-time.Hour)
		},
			store.EndLost, outcome{changes: "put runner, put lock, check pulse"}},
		{"AnotherMachineBooted", launched, func(s *stage) { s.run.Boot = store.Boot{NonceHash: "hash-1", InstanceID: "i-2"} },
			store.EndCompromised, outcome{changes: "put runner, put lock", alarm: store.AlarmCompromised}},
		{"ItDrainsAlready", launching, func(s *stage) { *s = s.drained(t0, store.EndStopped); s.lock.BootBy = now }, "", outcome{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			c.edit(&s)
			d := s.c().ReviewRunner(now, lim, "")
			if c.end != "" {
				s = s.drained(now, c.end)
			}
			s.decides(t, d, c.out)
		})
	}
}

func TestRemindAsksAboutARunnerThatNobodyHasAskedAbout(t *testing.T) {
	now := at(2 * time.Minute)
	missed := listening(t, store.Shared)
	missed.run.MissedAt = at(90 * time.Second)
	for _, c := range []struct {
		name  string
		stage stage
		want  outcome
	}{
		{"Listening", listening(t, store.Shared), outcome{sends: "runner x1 due 2m0s"}},
		{"Missed", missed, outcome{}},
		{"Online", online(t, store.Shared), outcome{}},
	} {
		t.Run(c.name, func(t *testing.T) { c.stage.decides(t, c.stage.c().Remind(now), c.want) })
	}
}
