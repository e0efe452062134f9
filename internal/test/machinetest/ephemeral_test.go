//go:build linux

package machinetest

import (
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// baked is an image with a systemd and the runner program.
var baked = image{systemd: true, program: true}

// waits is a job that continues until the test says so, with w.release.
const waits = `curl -s --data-binary started "$BROKER/said/started"
until [ "$(curl -s --max-time 5 "$BROKER/go")" = go ]; do sleep 0.2; done
curl -s --retry 20 --retry-all-errors --retry-delay 1 --data-binary finished "$BROKER/said/finished"`

func TestEphemeralMachineRunsItsJobAndEnds(t *testing.T) {
	t.Parallel()
	for name, img := range map[string]image{
		"WithSystemd":    {systemd: true, program: true, agent: true},
		"WithoutSystemd": {program: true},
		"OnAStockImage":  {systemd: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{image: img})
			if w == nil {
				return
			}
			started := w.ask(store.Ephemeral)
			run := w.job(started.OwnLabel, `{ echo built; id -un; echo $HOME; umask; } >artifact; curl -s --data-binary @artifact "$BROKER/said/built"`)
			if got, want := w.told("built"), "built\nrunner\n/home/runner\n0022\n"; got != want {
				t.Errorf("the job told %q, want %q", got, want)
			}
			m := w.machine(1)
			m.wantOff()
			w.wantHeard("booting, online, job_started " + run + ", job_done")
			if first, _, _ := strings.Cut(m.calls(), "\n"); !strings.Contains(first, "--on-active=600") && first != "shutdown -P +10" {
				t.Errorf("the machine called %q first, want its timer", first)
			}
			if got := len(w.answered("GET agent")); got != 1 && !img.agent || got != 0 && img.agent {
				t.Errorf("the agent was fetched %d times", got)
			}
			if s := w.wantEnd(started.ID, store.EndDone); s.State != "ready" || s.Runner.Jobs != 1 {
				t.Errorf("request %s after %d jobs, want ready after 1", s.State, s.Runner.Jobs)
			}
		})
	}
}

func TestJobGoesOnWhenTheAgentIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{image: baked})
	if w == nil {
		return
	}
	started := w.ask(store.Ephemeral)
	run := w.job(started.OwnLabel, waits)
	w.told("started")
	m := w.machine(1)
	eventually(t, "the start of the job is reported", func() bool { return strings.Contains(w.heard(), "job_started") })
	for range 2 {
		m.killAgent()
	}
	w.release()
	w.told("finished")
	m.wantOff()
	w.wantHeard("booting, online, job_started " + run + ", job_done")
	if got := strings.Count(m.calls(), "garo-agent.service failed\n"); got != 2 {
		t.Errorf("the agent failed %d times, want 2:\n%s", got, m.calls())
	}
	w.wantEnd(started.ID, store.EndDone)
}

// An outage of three minutes, as long for the limits here as that is for
// production's: longer than a machine may be silent, and shorter than its life.
func TestJobSurvivesAnOutage(t *testing.T) {
	t.Parallel()
	const outage = 9 * time.Second
	for name, cut := range map[string]func(w *world, m *machine, away bool){
		"OfTheAPI":     func(w *world, _ *machine, away bool) { w.setAway(away) },
		"OfTheNetwork": func(_ *world, m *machine, away bool) { m.network(!away) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{image: baked, limits: func(l *store.Limits) { l.Silent, l.Lost = 2250*time.Millisecond, 6*time.Second }})
			if w == nil {
				return
			}
			started := w.ask(store.Ephemeral)
			run := w.job(started.OwnLabel, waits)
			w.told("started")
			m := w.machine(1)
			eventually(t, "the start of the job is reported", func() bool { return strings.Contains(w.heard(), "job_started") })
			cut(w, m, true)
			time.Sleep(outage)
			if m.over() {
				t.Fatalf("the machine ended in the outage")
			}
			cut(w, m, false)
			w.release()
			w.told("finished")
			m.wantOff()
			w.wantHeard("booting, online, job_started " + run + ", job_done")
			if s := w.wantEnd(started.ID, store.EndLost); s.Runner.Jobs != 1 {
				t.Errorf("%d jobs recorded, want 1", s.Runner.Jobs)
			}
		})
	}
}

func TestHardLimitEndsTheMachineWithoutTheAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{image: baked, limits: func(l *store.Limits) { l.Hard, l.HardMax, l.Timeout = 15*time.Second, 15*time.Second, 5*time.Second }})
	if w == nil {
		return
	}
	started := w.ask(store.Ephemeral)
	w.job(started.OwnLabel, waits)
	w.told("started")
	eventually(t, "the start of the job is reported", func() bool { return strings.Contains(w.heard(), "job_started") })
	w.setAway(true)
	w.fleet.refuse(true) // to terminate: nobody but the machine itself can end it
	m := w.machine(1)
	select {
	case <-m.ended:
	case <-time.After(patience):
		t.Fatal("the machine is on past its hard limit")
	}
	if calls := m.calls(); !strings.HasSuffix(calls, "the timer\n") {
		t.Errorf("the machine called:\n%s\nwant that its timer ended it", calls)
	}
	if age := time.Since(m.began); age > 40*time.Second {
		t.Errorf("the machine lived for %v, want about 15 s", age)
	}
}

func TestSpotNoticeIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{image: baked})
	if w == nil {
		return
	}
	started := w.ask(store.Ephemeral)
	run := w.job(started.OwnLabel, waits)
	w.told("started")
	m := w.machine(1)
	for _, c := range []struct{ item, text, want string }{
		{rebalanceItem, `{"noticeTime":"2026-11-23T12:00:00Z"}`, ", note"},
		{spotItem, `{"action":"terminate","time":"2026-11-23T12:02:00Z"}`, ", draining spot_interruption"},
	} {
		at := time.Now()
		m.announce(c.item, c.text)
		eventually(t, "the API hears"+c.want, func() bool { return strings.HasSuffix(w.heard(), c.want) })
		t.Logf("%s reported after %v", c.item, time.Since(at).Round(10*time.Millisecond))
	}
	w.release()
	m.wantOff()
	w.wantHeard("booting, online, job_started " + run + ", note, draining spot_interruption, job_done")
	s := w.wantEnd(started.ID, store.EndSpot)
	told := false
	for _, e := range s.Runner.History {
		told = told || strings.Contains(e.Reason, "EC2 is likely to reclaim the machine")
	}
	if !told {
		t.Errorf("the story has no recommendation to rebalance: %+v", s.Runner.History)
	}
}

func TestRunnerProgramThatIsTooOldFailsTheRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{image: baked, rules: tooOld})
	if w == nil {
		return
	}
	started := w.ask(store.Ephemeral)
	m := w.machine(1)
	m.wantOff()
	w.wantHeard("booting, draining runner_too_old")
	s := w.wantEnd(started.ID, store.EndTooOld)
	eventually(t, "the request fails", func() bool { s = w.status(started.ID); return s.State == "failed" })
	if s.Error == nil || s.Error.Code != store.EndTooOld {
		t.Errorf("error = %+v, want %s", s.Error, store.EndTooOld)
	}
	var story strings.Builder
	for _, e := range s.Runner.History {
		story.WriteString(e.Reason + "\n")
	}
	if !strings.Contains(story.String(), "v2.300.0 is deprecated") {
		t.Errorf("the story does not have what the runner program printed:\n%s", story.String())
	}
	if got := len(w.fleet.all()); got != 1 {
		t.Errorf("%d launches, want 1", got)
	}
	if !strings.Contains(w.logs.String(), "alarm="+string(store.AlarmRunnerTooOld)) {
		t.Error("no alarm")
	}
}
