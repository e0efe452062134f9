//go:build linux

package machinetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// leaves is a job that leaves a file in its work directory and processes behind:
// one of its own, out of its session, and one that it became root for.
const leaves = `
ps axww -o user,args >ps; ls -A . .. >ls
curl -s --data-binary @ps "$BROKER/said/ps$GITHUB_RUN_ID"
curl -s --data-binary @ls "$BROKER/said/ls$GITHUB_RUN_ID"
echo secret >left-behind
setsid nohup sleep 4321 >/dev/null 2>&1 </dev/null &
setsid nohup /usr/local/bin/become-root --reuid 0 --regid 0 --clear-groups sleep 8765 >/dev/null 2>&1 </dev/null &
sleep 0.3`

func TestSharedMachineIsCleanedBetweenJobs(t *testing.T) {
	t.Parallel()
	img := baked
	img.before = "cp /usr/bin/setpriv /usr/local/bin/become-root; chmod 4755 /usr/local/bin/become-root"
	w := newWorld(t, options{image: img, limits: func(l *store.Limits) { l.Idle = 10 * time.Second }})
	if w == nil {
		return
	}
	started := w.ask(store.Shared)
	var want strings.Builder
	want.WriteString("booting")
	var runs []string
	for range 3 {
		runs = append(runs, w.job(started.OwnLabel, leaves))
	}
	m := w.machine(1)
	for i, run := range runs {
		ps, ls := w.told("ps"+run), w.told("ls"+run)
		if !strings.Contains(ps, "Runner.Listener") {
			t.Errorf("job %d sees no runner program:\n%s", i+1, ps)
		}
		if strings.Contains(ls, "left-behind") || strings.Contains(ps, "sleep 4321") {
			t.Errorf("job %d sees what the one before left:\n%s\n%s", i+1, ls, ps)
		}
		if strings.Contains(ps, "sleep 8765") && m.control != "" {
			t.Errorf("job %d sees what the one before left as root:\n%s", i+1, ps)
		}
		fmt.Fprintf(&want, ", online, job_started %s, job_done", run) // each program listens
	}
	if m.control == "" {
		t.Log("no control groups of version 2 here: what a job leaves as root was not looked for")
	}
	s := w.wantEnd(started.ID, store.EndIdle)
	if s.Runner.Jobs != 3 {
		t.Errorf("%d jobs recorded, want 3", s.Runner.Jobs)
	}
	if heard := w.heard(); !strings.HasPrefix(heard, want.String()+", online, idle") {
		t.Errorf("the API heard: %s\nwant: %s, online, idle", heard, want.String())
	}
	if got := len(w.fleet.all()); got != 1 {
		t.Errorf("%d launches, want 1", got)
	}
}

// GitHub has forgotten the registration, and never tells the runner program.
func TestGhostEndsByItsIdleLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{image: baked, limits: func(l *store.Limits) { l.Idle = 4 * time.Second }})
	if w == nil {
		return
	}
	w.broker.setMute()
	started := w.ask(store.Shared)
	m := w.machine(1)
	w.wantEnd(started.ID, store.EndIdle)
	if !m.over() {
		t.Error("the machine is still on")
	}
	if heard := w.heard(); !strings.HasPrefix(heard, "booting, online, idle") {
		t.Errorf("the API heard: %s\nwant: booting, online, idle", heard)
	}
}
