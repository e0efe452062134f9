//go:build linux

package machinetest

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// without is an image's beginning without some programs of this computer.
func without(programs ...string) string {
	return "for d in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do for p in " + strings.Join(programs, " ") + "; do rm -f $d/$p; done; done\n"
}

// manager is a package manager that ends once the runner program is there: the two have
// to come at the same time. It makes what its arguments name.
const manager = `
printf 'ID=debian\n' >/etc/os-release
cat >/usr/local/bin/apt-get <<'END'
#!/bin/sh
echo "apt-get $*" >>/machine/calls
until [ -x /opt/actions-runner/run.sh ]; do sleep 0.1; done
[ "$2" = update ] || printf '#!/bin/sh\necho large files\n' >/usr/bin/git-lfs
[ "$2" = update ] || chmod 755 /usr/bin/git-lfs
END
chmod 755 /usr/local/bin/apt-get
`

// fit is what a job sees of its machine.
const fit = `{ id -un; id -Gn; git-lfs; cat /etc/made; stat -c '%a %U' /etc/made; sudo -n id -u; } >fit 2>&1; curl -s --data-binary @fit "$BROKER/said/fit"`

func TestMachineIsFittedOut(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("sudo"); err != nil {
		t.Log("NOT TESTED: sudo is not installed")
		return
	}
	const script = "#!/bin/sh -e\ntest -x /opt/actions-runner/run.sh\ngit-lfs >/etc/made\nid -un >>/etc/made\ngroupadd made\n"
	for name, c := range map[string]struct {
		outfit     store.Outfit
		want, note []string
	}{
		"WithAll": {
			outfit: store.Outfit{
				Setup: store.Setup{Script: script}, Packages: []string{"jq", "git-lfs"}, JobUser: store.JobUser{Sudo: true, Groups: []string{"docker", "made"}},
			},
			want: []string{"runner\nrunner docker made\nlarge files\nlarge files\nroot\n644 root\n0\n"},
			note: []string{"set up in ", "packages git-lfs installed in ", "script run in ", "group docker; group made; sudo"},
		},
		"WithNothing": {want: []string{"runner\nrunner\n", "git-lfs: not found", "/etc/made: No such file", "a password is required"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := image{systemd: true, before: without("git-lfs") + "printf '#!/bin/sh\\n' >/usr/bin/jq; chmod 755 /usr/bin/jq\ngetent group docker >/dev/null || groupadd docker\n" + manager}
			w := newWorld(t, options{image: img, outfit: c.outfit})
			if w == nil {
				return
			}
			started := w.ask(store.Ephemeral)
			run := w.job(started.OwnLabel, strings.ReplaceAll(fit, "git-lfs;", "git-lfs || echo git-lfs: not found;"))
			got := w.told("fit")
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("the job saw:\n%s\nwant:\n%s", got, want)
				}
			}
			w.machine(1).wantOff()
			heard := "booting, online, job_started " + run + ", job_done"
			if c.note != nil {
				heard = strings.Replace(heard, "booting", "booting, note", 1)
			}
			w.wantHeard(heard)
			story := w.story(started.ID)
			for _, want := range c.note {
				if !strings.Contains(story, want) {
					t.Errorf("the story has not %q:\n%s", want, story)
				}
			}
		})
	}
}

// story is what became of a request's runner, line by line.
func (w *world) story(id string) string {
	w.Helper()
	var text strings.Builder
	for _, e := range w.status(id).Runner.History {
		text.WriteString(e.Reason + "\n")
	}
	return text.String()
}

// What root could not do to a machine is in the request's error, and no job is lost on it.
func TestMachineThatCannotBeFittedOutFailsItsRequest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		outfit store.Outfit
		says   string
	}{
		"TheScriptFails": {store.Outfit{Setup: store.Setup{Script: "#!/bin/sh\necho no room >&2\necho the end\nexit 3\n"}}, "set-up: script: exit status 3; it printed: no room | the end"},
		"TheScriptHangs": {store.Outfit{Setup: store.Setup{Script: "#!/bin/sh\necho waiting\nsleep 1000\n", LimitS: 1}}, "set-up: script: it did not end within 1s; it printed: waiting"},
		"NoSuchGroup":    {store.Outfit{JobUser: store.JobUser{Groups: []string{"nosuchgroup"}}}, "set-up: job_user: group nosuchgroup: "},
		"NoSuchPackage":  {store.Outfit{Packages: []string{"zstd"}}, "set-up: packages: zstd: what it is called in"},
		"NoSuchScript":   {store.Outfit{Setup: store.Setup{Path: "/garo/setup/x", SHA256: strings.Repeat("a", 64)}}, "its 0 bytes have the SHA-256 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := baked
			img.before = without("zstd") + "echo ID=other >/etc/os-release\n"
			w := newWorld(t, options{image: img, outfit: c.outfit})
			if w == nil {
				return
			}
			started := w.ask(store.Ephemeral)
			m := w.machine(1)
			m.wantOff()
			w.wantHeard("booting, draining setup_failed")
			s := w.status(started.ID)
			eventually(t, "the request fails", func() bool { s = w.status(started.ID); return s.State == "failed" })
			if s.Error == nil || s.Error.Code != store.EndSetup || !strings.Contains(s.Error.Text, c.says) || s.Error.Retryable {
				t.Errorf("error = %+v, want %s with %q", s.Error, store.EndSetup, c.says)
			}
			if got := w.broker.opened(); got != 0 {
				t.Errorf("the runner program was started %d times", got)
			}
			if len(m.processes()) > 0 || len(w.fleet.all()) != 1 {
				t.Errorf("%d processes are left, and %d machines were launched, want none and one", len(m.processes()), len(w.fleet.all()))
			}
		})
	}
}

// A script that the agent's end cut is not run a second time.
func TestScriptIsNotRunTwice(t *testing.T) {
	t.Parallel()
	img := baked
	w := newWorld(t, options{image: img, outfit: store.Outfit{Setup: store.Setup{Script: "#!/bin/sh\necho once >>/machine/ran\nsleep 1000\n"}}})
	if w == nil {
		return
	}
	started := w.ask(store.Ephemeral)
	m := w.machine(1)
	eventually(t, "the script runs", func() bool { return m.read("ran") != "" })
	m.cutAgent()
	m.wantOff()
	if s := w.wantEnd(started.ID, store.EndSetup); !strings.Contains(s.Runner.End.Text, "does not run it twice") || m.read("ran") != "once\n" {
		t.Errorf("ended with %q, after running %q; want that it ran once", s.Runner.End.Text, m.read("ran"))
	}
}

// asRole is a job that uses the machine's role, as the AWS SDKs do.
const asRole = `token=$(curl -s --max-time 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
curl -s --max-time 5 -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/iam/security-credentials/ci >role 2>&1; echo " curl: $?" >>role
curl -s --data-binary @role "$BROKER/said/role"`

func TestRoleOfTheMachineIsForJobsOrNot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		outfit store.Outfit
		want   string
	}{
		"ForJobs": {store.Outfit{JobsRole: true}, roleCredentials + " curl: 0\n"},
		"Closed":  {store.Outfit{}, " curl: 7\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{image: baked, outfit: c.outfit, role: true})
			if w == nil {
				return
			}
			started := w.ask(store.Ephemeral)
			w.job(started.OwnLabel, asRole)
			if got := w.told("role"); got != c.want {
				t.Errorf("the job got %q, want %q", got, c.want)
			}
			w.machine(1).wantOff()
		})
	}
	t.Run("NotClosable", func(t *testing.T) {
		t.Parallel()
		img := baked
		img.before = without("nft", "iptables", "ip6tables") + // what closes the service; links are up by then
			"printf '#!/bin/sh\\nexit 1\\n' >/usr/local/bin/ip; chmod 755 /usr/local/bin/ip\n"
		w := newWorld(t, options{image: img, role: true})
		if w == nil {
			return
		}
		started := w.ask(store.Ephemeral)
		w.machine(1).wantOff()
		if s := w.wantEnd(started.ID, store.EndAgent); w.broker.opened() != 0 {
			t.Errorf("the runner program was started, and a job can get at the role: %+v", s.Runner.History)
		}
		if !strings.Contains(w.story(started.ID), "the metadata service cannot be closed to jobs") {
			t.Errorf("the story does not say why:\n%s", w.story(started.ID))
		}
	})
}

// ownDisk gives a machine a disk of its own, as udev names it: a loop device.
const ownDisk = `
mkdir /d && mount --bind /dev /d && mount -t tmpfs -o mode=755 none /dev && cp -a /d/null /d/zero /d/random /d/urandom /d/tty /d/loop* /dev/ && ln -s /proc/self/fd /dev/fd
truncate -s 64M /disk && loop=$(losetup --find --show /disk) && echo $loop >/machine/loop
mkdir -p /dev/disk/by-id && ln -s $loop /dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_AWS0123
`

func TestWorkIsOnTheMachinesOwnDisk(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("losetup", "--find").CombinedOutput(); err != nil {
		t.Logf("NOT TESTED: there are no loop devices: %v: %s", err, out)
		return
	}
	img := baked
	img.before = ownDisk
	w := newWorld(t, options{image: img, outfit: store.Outfit{InstanceStore: store.Mount}})
	if w == nil {
		return
	}
	started := w.ask(store.Shared)
	const job = `{ df --output=target . | tail -1; df --output=target /var/lib/docker | tail -1; ls | wc -l; id -un; } >../df 2>&1; touch left; curl -s --data-binary @../df "$BROKER/said/df$GITHUB_RUN_ID"`
	for range 2 {
		run := w.job(started.OwnLabel, job)
		if got, want := w.told("df"+run), "/mnt/ephemeral\n/var/lib/docker\n0\nrunner\n"; got != want {
			t.Errorf("the job of run %s saw %q, want %q", run, got, want)
		}
	}
	m := w.machine(1)
	loop := strings.TrimSpace(m.read("loop"))
	m.kill()
	if loop != "" {
		if out, err := exec.Command("losetup", "--detach", loop).CombinedOutput(); err != nil {
			t.Logf("detach %s: %v: %s", loop, err, out)
		}
	}
}
