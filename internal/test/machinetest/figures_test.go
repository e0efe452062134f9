//go:build linux

package machinetest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// maxAgent is the most that the agent may have as a gzip, in bytes: the API's
// program carries one for each architecture, and answers with at most 6 MB.
const maxAgent = 4 << 20

func TestAgentIsSmall(t *testing.T) {
	t.Parallel()
	for _, arch := range []string{"amd64", "arm64"} {
		b, err := compile(filepath.Join(t.TempDir(), "garo-agent"), arch)
		if err != nil {
			t.Fatal(err)
		}
		z, err := zip(b)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f MB, %.1f MB as a gzip", arch, float64(len(b))/1e6, float64(len(z))/1e6)
		if len(z) > maxAgent {
			t.Errorf("the agent for %s has %d bytes as a gzip, want at most %d", arch, len(z), maxAgent)
		}
	}
}

// TestStartIsQuick prints how long each step of a start takes. What it fails for
// is far above that, and still far below what GitHub waits for.
func TestStartIsQuick(t *testing.T) {
	for name, img := range map[string]image{
		"RunnerProgramPresent":         {systemd: true, program: true},
		"RunnerProgramAbsent":          {systemd: true},
		"RunnerProgramAndAgentPresent": {systemd: true, program: true, agent: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{image: img})
			if w == nil {
				return
			}
			w.wantQuickStart()
		})
	}
}

// wantQuickStart prints how long each step of a machine's start takes.
func (w *world) wantQuickStart() {
	w.Helper()
	started := w.ask(store.Ephemeral)
	w.job(started.OwnLabel, "true")
	m := w.machine(1)
	m.wantOff()
	at := func(text string) time.Time {
		for line := range strings.Lines(m.console()) {
			if stamp := logTime.FindStringSubmatch(line); stamp != nil && strings.Contains(line, text) {
				at, err := time.Parse(time.RFC3339, stamp[1])
				if err != nil {
					w.Fatal(err)
				}
				return at
			}
		}
		return time.Time{}
	}
	call := func(name string) time.Time {
		if all := w.answered(name); len(all) > 0 {
			return all[0].at
		}
		return time.Time{}
	}
	last, line := m.began, ""
	for _, step := range []struct {
		name string
		at   time.Time
	}{
		{"timer set, agent asked for", call("GET agent")},
		{"agent verified and started, boot asked for", call("POST boot")},
		{"boot answered", at("msg=booted")},
		{"runner program downloaded and verified", at("runner program downloaded")},
		{"unpacked", at("runner program unpacked")},
		{"metadata closed", at("metadata service closed")},
		{"runner program started", at("runner program started")},
	} {
		if step.at.IsZero() {
			continue
		}
		line += fmt.Sprintf("; %s +%d ms", step.name, step.at.Sub(last).Milliseconds())
		last = step.at
	}
	took := last.Sub(m.began)
	w.Logf("%d ms from power on%s", took.Milliseconds(), line)
	if took <= 0 {
		w.Errorf("the runner program was started %v after power on, want a time to print", took)
	}
}

var logTime = regexp.MustCompile(`^time=(\S+)`)

// TestIdleMachineCostsLittle watches a machine without a job for a quarter of an
// hour whose heartbeats pass sixty times as fast, which is 15 s. What the agent does by
// its own clock meanwhile is multiplied for the hour: all figures are above what
// an hour takes.
func TestIdleMachineCostsLittle(t *testing.T) {
	t.Parallel()
	const watched = 15 * time.Second
	w := newWorld(t, options{image: baked, limits: func(l *store.Limits) {
		l.Idle, l.Heartbeat = 10*time.Minute, store.DefaultLimits().Heartbeat/60
	}})
	if w == nil {
		return
	}
	w.ask(store.Shared)
	m := w.machine(1)
	eventually(t, "the machine is online", func() bool { return strings.HasSuffix(w.heard(), "online") })
	pid, before := m.running(agentCommand), len(w.answered("POST"))
	if pid == 0 {
		t.Fatal("there is no agent")
	}
	spent := cpu(t, pid)
	time.Sleep(watched)
	spent = cpu(t, pid) - spent
	calls := len(w.answered("POST")) - before
	resident := memory(t, pid)
	const quarters = 4 // in an hour
	t.Logf("an idle hour: %d calls of the API", calls*quarters)
	t.Logf("an idle hour: at most %.1f s of CPU", spent.Seconds()*float64(time.Hour/watched))
	t.Logf("resident: %.1f MB", float64(resident)/1e6)
	if calls*quarters > 300 {
		t.Errorf("%d calls in an idle hour, want about 180: one each 20 s", calls*quarters)
	}
	if calls == 0 {
		t.Error("the agent made no call")
	}
	if resident > 64e6 {
		t.Errorf("the agent has %d bytes of memory", resident)
	}
}

// cpu returns what a process has used of the processors.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(after)
	var ticks int
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// memory returns the resident memory of a process, in bytes.
func memory(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kb, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no memory in the status")
	return 0
}
