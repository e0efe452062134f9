//go:build linux

package host

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMetadataServiceIsClosedInEachWayThatWorks(t *testing.T) {
	const (
		fails = "echo cannot; exit 1"
		rules = "ip rule add pref 1 to 169.254.169.254 uidrange 1234-1234 prohibit protocol kernel"
		six   = "ip -6 rule add pref 1 to fd00:ec2::254 uidrange 1234-1234 prohibit protocol kernel"
		nft   = "nft add table inet garo; flush table inet garo; "
		check = "iptables -w 5 -C OUTPUT -d 169.254.169.254 -m owner --uid-owner 1234 -j REJECT"
	)
	insert, check6 := strings.Replace(check, "-C", "-I", 1), "ip6tables -w 5 -C OUTPUT -d fd00:ec2::254 "
	for name, c := range map[string]struct {
		commands map[string]string
		want     []string // the calls begin with these
		says     string
	}{
		"PacketFilterAndRule": {
			map[string]string{"nft": "exit 0", "iptables": "exit 0", "ip": "exit 0"},
			[]string{nft, rules, six}, "by=nft,ip",
		},
		"OldPacketFilterAndRule": {
			map[string]string{"nft": fails, "iptables": "[ $3 = -I ]", "ip6tables": fails, "ip": "exit 0"},
			[]string{"nft ", check, insert, check6, strings.Replace(check6, "-C", "-I", 1), rules, six}, "by=iptables,ip",
		},
		"OldPacketFilterThatIsThere": {
			map[string]string{"iptables": "exit 0", "ip6tables": "exit 0", "ip": "echo RTNETLINK answers: File exists; exit 2"},
			[]string{check, check6, rules, six}, "by=iptables,ip",
		},
		"PacketFilterAlone": {map[string]string{"nft": "exit 0", "ip": fails}, []string{nft, rules}, "by=nft"},
		"RuleAlone":         {map[string]string{"ip": "exit 0"}, []string{rules, six}, "by=ip"},
		"None":              {map[string]string{"ip": fails}, []string{rules}, "none of them works"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			for tool, body := range c.commands {
				b.command(tool, body)
			}
			m := b.open()
			for range 2 { // before each program
				b.write("calls", "", 0o644)
				if err := m.closeMetadata(1234); err != nil {
					b.logs.WriteString("none of them works")
				}
				calls := strings.Split(strings.TrimSpace(b.read("calls")), "\n")
				ok := len(calls) == len(c.want)
				for i := 0; ok && i < len(c.want); i++ {
					ok = strings.HasPrefix(calls[i], c.want[i])
				}
				if !ok {
					t.Errorf("called %q, want %q", calls, c.want)
				}
			}
			if !strings.Contains(b.logs.String(), c.says) {
				t.Errorf("log:\n%s\nwant %q", b.logs.String(), c.says)
			}
		})
	}
}

// controlGroup is the directory of a group that the kernel would fill.
func controlGroup(t *testing.T, m *Machine) string {
	t.Helper()
	dir := filepath.Join(m.groups, groupName)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cgroup.kill", "cgroup.events"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("populated 1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestGroupIsUsedOnlyIfItCanBeEnded(t *testing.T) {
	m := newBox(t).open()
	if got := m.group(); got != "" {
		t.Errorf("group without control groups = %q, want none", got)
	}
	if err := os.Mkdir(m.groups, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := m.group(); got != "" { // of version 1, or of an old kernel
		t.Errorf("group that cannot be ended = %q, want none", got)
	}
	if entries, err := os.ReadDir(m.groups); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := m.endGroup(); err != nil {
		t.Errorf("endGroup without one: %v", err)
	}
	dir := controlGroup(t, m)
	if got := m.group(); got != dir {
		t.Errorf("group = %q, want %q", got, dir)
	}
}

func TestGroupThatCannotBeEndedIsAnError(t *testing.T) {
	m := newBox(t).open()
	dir := controlGroup(t, m)
	if err := os.Remove(filepath.Join(dir, "cgroup.events")); err != nil {
		t.Fatal(err)
	}
	if err := m.endGroup(); err == nil {
		t.Error("endGroup of one without its events succeeded, want an error")
	}
	if got, err := os.ReadFile(filepath.Join(dir, "cgroup.kill")); err != nil || string(got) != "1" {
		t.Errorf("cgroup.kill = %q, %v; want that it had to end", got, err)
	}
}

func TestJobWithoutItsLastHookIsCut(t *testing.T) {
	for body, want := range map[string]bool{
		printListening + runHook + printRunning: true,
		printListening + runHook + printRunning + "GITHUB_RUN_ID=77 /bin/sh -e \"$ACTIONS_RUNNER_HOOK_JOB_COMPLETED\"\n": false,
	} {
		b := newBox(t)
		b.runner(body)
		p := start(t, b.open())
		for e := range p.Events() {
			if e.Kind == "job_done" && e.Cut != want {
				t.Errorf("%q: cut = %v, want %v", body, e.Cut, want)
			}
		}
	}
}

func TestOutputIsTheLastWholeLines(t *testing.T) {
	b := newBox(t)
	b.runner("echo first; i=0; while [ $i -lt 1100 ]; do echo \"$i " + strings.Repeat("x", 60) + "\"; i=$((i + 1)); done; echo last\n")
	p := start(t, b.open())
	story(t, p)
	got := p.(*program).Output()
	if len(got) > maxOutput || len(got) < maxOutput-100 || strings.Contains(got, "first") || !strings.HasSuffix(got, "\nlast\n") {
		t.Errorf("output of %d bytes ends %q, want the last lines", len(got), got[max(0, len(got)-80):])
	}
	if first, _, _ := strings.Cut(got, "\n"); !strings.HasSuffix(first, " "+strings.Repeat("x", 60)) {
		t.Errorf("output begins %q, want a whole line", first)
	}
}

// A job must not get at the role of a machine, unless it is for jobs.
func TestMachineWithARoleIsClosedOrOfNoUse(t *testing.T) {
	for name, c := range map[string]struct {
		nft   string // what the packet filter does
		role  int    // the status of the role's item
		jobs  bool   // the role is for jobs
		fails bool
		calls bool // something is called to close it
	}{
		"ClosedWithARole":     {nft: "exit 0", role: http.StatusOK, calls: true},
		"NotClosedWithARole":  {nft: "exit 1", role: http.StatusOK, calls: true, fails: true},
		"NotClosedWithout":    {nft: "exit 1", role: http.StatusNotFound, calls: true},
		"OpenSinceItIsForAll": {nft: "exit 0", role: http.StatusOK, jobs: true},
	} {
		t.Run(name, func(t *testing.T) {
			imds := httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
				if strings.HasSuffix(req.URL.Path, "/iam/info") {
					res.WriteHeader(c.role)
				}
			}))
			defer imds.Close()
			b := newBox(t)
			b.cfg.Metadata = imds.URL
			b.command("nft", c.nft)
			m := b.open()
			m.outfit.JobsRole = c.jobs
			if err := guardMetadata(t.Context(), m, 1234); (err != nil) != c.fails || err != nil && !strings.Contains(err.Error(), "the machine has a role") {
				t.Errorf("guardMetadata = %v, want an error = %t", err, c.fails)
			}
			if called := b.read("calls") != ""; called != c.calls {
				t.Errorf("called %q", b.read("calls"))
			}
		})
	}
}
