package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestBusyRegistrationCosts27DeletesInSixHours(t *testing.T) {
	run := online(t, store.Shared).drained(t0, store.EndIdle).run
	var pauses []time.Duration
	deletes, lastly := 0, t0
	for now := t0; now.Before(run.Hard); now = now.Add(lim.ReaperPeriod) { // by a reaper that runs every minute
		if store.NextEndStep(now, lim, run, false) != store.EndDelete {
			continue
		}
		if deletes++; deletes > 1 {
			pauses = append(pauses, now.Sub(lastly))
		}
		lastly = now
		run = of(run).Deleting(now).Refused(now, lim).Runner
	}
	if want := []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 15 * time.Minute, 15 * time.Minute}; !slices.Equal(pauses[:6], want) {
		t.Errorf("the first pauses are %v, want %v", pauses[:6], want)
	}
	if deletes != 27 || run.Refusals != 27 {
		t.Errorf("%d DELETEs in six hours, %d refusals; want 27, as at Limits.DeleteAgain", deletes, run.Refusals)
	}
}

func TestRefusedDoesNotOverflow(t *testing.T) {
	s := busy(t, store.Shared)
	s.run.Refusals = 1000
	d := s.c().Refused(t0, lim)
	s.run.Refusals, s.run.DeleteAfter = 1001, t0.Add(15*time.Minute-15*time.Second)
	s.decides(t, d, outcome{changes: "put runner"})
}

func TestSilentMachineWhoseJobIsKnownIsSuspect(t *testing.T) {
	const drainedAt = 10 * time.Minute
	now := at(drainedAt + 15*time.Minute)
	for _, c := range []struct {
		name   string
		stage  func(*testing.T, string) stage
		runner string // whose pulse it is
		silent time.Duration
		now    time.Time
		want   bool
	}{
		{"HeardOf120sAgo", busy, "x1", 2 * time.Minute, now, false},
		{"SilentForLonger", busy, "x1", 2*time.Minute + 1, now, true},
		{"SilentForLongerButDrainsForLess", busy, "x1", 2*time.Minute + 1, now.Add(-1), false},
		{"PulseOfAnotherRunner", busy, "x2", time.Hour, now, false},
		{"NoPulse", busy, "", 0, now, false},
		{"WithoutAJob", online, "x1", time.Hour, now, false},
		{"AfterItsJob", idleAgain, "x1", time.Hour, now, false},
	} {
		s := c.stage(t, store.Shared).drained(at(drainedAt), store.EndExpired)
		s.pulse = store.Pulse{Key: s.lock.Key, Runner: c.runner, Seen: c.now.Add(-c.silent)}
		want := outcome{}
		if c.want {
			want = outcome{changes: "put runner", alarm: store.AlarmBusy}
		}
		if d := s.c().Suspect(c.now, lim); outcomeOf(d) != want || d.Runner.SuspectAt.Equal(c.now) != c.want {
			t.Errorf("%s: the decision is %+v, suspected at %v; want %+v", c.name, outcomeOf(d), d.Runner.SuspectAt, want)
		}
	}
}

func TestSuspect(t *testing.T) {
	const drainedAt = 10 * time.Minute
	refused := func(r *store.Runner) { *r = of(*r).Deleting(at(drainedAt)).Refused(at(drainedAt), lim).Runner }
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		code  string
		after time.Duration // since the drain
		edit  func(*store.Runner)
		want  bool
	}{
		{"GitHubAloneSpeaksOfAJob", online, store.EndIdle, 15 * time.Minute, refused, true},
		{"GitHubAloneSpeaksOfAJobForLess", online, store.EndIdle, 15*time.Minute - 1, refused, false},
		{"GitHubAloneSpeaksOfAJobAfterTheOneThatEnded", idleAgain, store.EndIdle, 15 * time.Minute, refused, true},
		{"AJobThatRunsIsNoSuspect", busy, store.EndExpired, 5 * time.Hour, refused, false},
		{"AJobOnALostMachineIs", busy, store.EndLost, 15 * time.Minute, refused, true},
		{"AJobOnALostMachineForLess", busy, store.EndLost, 15*time.Minute - 1, refused, false},
		{"AJobOnALostMachineThatGitHubForgotIs", busy, store.EndLost, 15 * time.Minute, func(r *store.Runner) { *r = of(*r).Deregistered(at(drainedAt)).Runner }, true},
		{"ALongJobThatJustEnded", busy, store.EndExpired, time.Hour, func(r *store.Runner) { refused(r); r.Job.EndedAt = at(drainedAt + 46*time.Minute) }, false},
		{"ALongJobThatEndedLongAgo", busy, store.EndExpired, time.Hour, func(r *store.Runner) { refused(r); r.Job.EndedAt = at(drainedAt + 45*time.Minute) }, true},
		{"GoneAtGitHubWaitsForItsGraceAlone", online, store.EndIdle, time.Hour, func(r *store.Runner) { refused(r); *r = of(*r).Deregistered(at(drainedAt + time.Hour)).Runner }, false},
		{"NotAskedYetSinceTheReaperWasAway", online, store.EndIdle, time.Hour, func(*store.Runner) {}, false},
		{"OnceIsEnough", online, store.EndIdle, time.Hour, func(r *store.Runner) { refused(r); r.SuspectAt = at(drainedAt + 15*time.Minute) }, false},
		{"WithoutAReason", busy, store.EndLost, time.Hour, func(r *store.Runner) { refused(r); r.End = nil }, false},
		{"EndingIsOver", online, store.EndIdle, time.Hour, func(r *store.Runner) { refused(r); *r = of(*r).Ending(at(drainedAt), "").Runner }, false},
		{"UsableIsNotEnded", online, "", time.Hour, refused, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			if c.code != "" {
				s = s.drained(at(drainedAt), c.code)
			}
			c.edit(&s.run)
			s.pulse = store.Pulse{Key: s.lock.Key}
			now := at(drainedAt + c.after)
			want, follows := s, outcome{}
			if c.want {
				want.run.SuspectAt = now
				want.run.History = noted(s.run.History, now, "draining", "waits for a job that nobody knows of, or whose machine is silent")
				follows = outcome{changes: "put runner", alarm: store.AlarmBusy}
			}
			d := s.c().Suspect(now, lim)
			want.decides(t, d, follows)
			if c.want {
				want.decides(t, d.Suspect(now.Add(time.Hour), lim), outcome{}) // a person is alarmed once
			}
		})
	}
}

func TestSuspectNeedsThePulseOfARunnerThatDrainsForLong(t *testing.T) {
	const drainedAt = 10 * time.Minute
	for _, c := range []struct {
		name  string
		after time.Duration
		edit  func(*stage)
		need  string
	}{
		{"ForLong", 15 * time.Minute, func(*stage) {}, "pulse#123456789012/eu-west-2/42/spot/default/large,linux"},
		{"ForLess", 15*time.Minute - 1, func(*stage) {}, ""},
		{"APersonKnows", 15 * time.Minute, func(s *stage) { s.run.SuspectAt = at(drainedAt) }, ""},
		{"ItEnds", 15 * time.Minute, func(s *stage) { *s = s.ending(at(drainedAt)) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := busy(t, store.Shared).drained(at(drainedAt), store.EndLost)
			s.pulse = store.Pulse{}
			c.edit(&s)
			s.decides(t, s.c().Suspect(at(drainedAt+c.after), lim), outcome{need: c.need})
		})
	}
}
