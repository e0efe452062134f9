//go:build linux

package host

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestEachPackageIsKnownInEachDistribution(t *testing.T) {
	if got, want := slices.Sorted(maps.Keys(known)), slices.Sorted(slices.Values(store.Packages)); !slices.Equal(got, want) {
		t.Fatalf("known are %v, want those of a registration, %v", got, want)
	}
	for name, n := range known {
		if len(n.commands) == 0 || len(n.names("ubuntu")) == 0 || len(n.names("debian")) == 0 || len(n.names("amzn")) == 0 || n.names("gentoo") != nil {
			t.Errorf("%s: %+v, want its commands, and its names in the distributions that were looked at alone", name, n)
		}
	}
}

// outfit does what o wants on a machine that has its runner program.
func (b *box) outfit(o apitype.Outfit) (string, error) {
	b.Helper()
	m := b.open()
	defer m.Close()
	b.write("runner/run.sh", "#!/bin/sh\n", 0o755)
	return m.Install(b.Context(), apitype.RunnerProgram{}, o)
}

func setup(script string) apitype.Outfit {
	return apitype.Outfit{Setup: &apitype.Setup{Script: []byte(script), SHA256: sum([]byte(script)), LimitS: 60}}
}

func TestMissingPackagesAreInstalled(t *testing.T) {
	for name, c := range map[string]struct {
		distribution string
		wanted       []string
		calls, says  string // what is called, or what the error says
	}{
		"Ubuntu":            {"NAME=\"Ubuntu\"\nID=ubuntu\n", []string{"git", "docker", "jq"}, "apt-get -q update\napt-get -q -y --no-install-recommends install git docker.io\nsystemctl start docker\n", ""},
		"AmazonLinux":       {"ID=\"amzn\"\nVERSION_ID=\"2023\"\n", []string{"git", "docker"}, "dnf -q -y --setopt=install_weak_deps=False install git docker\nsystemctl start docker\n", ""},
		"AnotherWithAll":    {"ID=gentoo\n", []string{"jq"}, "", ""},
		"AnotherWithout":    {"ID=gentoo\n", []string{"jq", "git"}, "", `git: what it is called in "gentoo" is not known: install it in the image`},
		"OneThatIsNotKnown": {"ID=ubuntu\n", []string{"emacs"}, "", "emacs: this agent does not know it"},
		"OneThatIsNotThere": {"ID=debian\n", []string{"zstd"}, "", "zstd: it was installed, and is not on the PATH"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.command("jq", "exit 0") // the image has it
			for _, manager := range []string{"apt-get", "dnf"} {
				b.command(manager, `for p; do case $p in git | docker | docker.io) printf '#!/bin/sh\n' >'`+b.dir+`/bin/'"${p%.io}"; chmod 755 '`+b.dir+`/bin/'"${p%.io}" ;; esac; done`)
			}
			b.write("etc/os-release", c.distribution, 0o644)
			did, err := b.outfit(apitype.Outfit{Packages: c.wanted})
			if c.says != "" {
				if !errors.Is(err, agent.ErrSetup) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("Install = %v, want %q", err, c.says)
				}
				return
			}
			if err != nil || b.read("calls") != c.calls {
				t.Errorf("Install = %v, and called:\n%s\nwant:\n%s", err, b.read("calls"), c.calls)
			}
			if strings.Contains(did, "packages git, docker installed") != strings.Contains(c.calls, "install") {
				t.Errorf("it says that it did %q", did)
			}
		})
	}
}

func TestPackageManagerThatFailsIsHeard(t *testing.T) {
	b := newBox(t)
	b.command("apt-get", "echo E: no network >&2; exit 100")
	b.write("etc/os-release", "ID=debian\n", 0o644)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // else it would be tried again
	m := b.open()
	f := outfitter{m: m, o: apitype.Outfit{}}
	if err := f.packages(ctx, "git"); err == nil || !strings.Contains(err.Error(), "apt-get -q update: context canceled") {
		t.Errorf("packages = %v, want the command and why it ended", err)
	}
	if err := f.run(t.Context(), "log", "apt-get", "-q", "update"); err == nil || !strings.Contains(err.Error(), "exit status 100; it printed: E: no network") {
		t.Errorf("run = %v, want its exit status and its words", err)
	}
}

func TestSetupScriptRunsOnceAsRoot(t *testing.T) {
	b := newBox(t)
	b.env = map[string]string{"https_proxy": "http://proxy.test:3128", "SECRET": "canary"}
	script := "#!/bin/sh\nexec >>'" + b.dir + "/did'\numask\necho $# $HOME $https_proxy $SECRET\ncat\nls '" + b.dir + "/runner/run.sh' >/dev/null && echo there\nsleep 5 &\n"
	did, err := b.outfit(setup(script))
	if err != nil || !strings.Contains(did, "set up in ") || !strings.Contains(did, "script run in ") {
		t.Fatalf("Install = %q, %v; want that the script was run", did, err)
	}
	const want = "0022\n0 /root http://proxy.test:3128\nthere\n"
	if got := b.read("did"); got != want {
		t.Errorf("the script saw %q, want %q", got, want)
	}
	if did, err = b.outfit(setup(script)); err != nil || did != "" || b.read("did") != want {
		t.Errorf("a second Install = %q, %v, and the script did %q; want nothing", did, err, b.read("did"))
	}
	if left, err := filepath.Glob(b.cfg.Runner + ".*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSetupScriptThatFailsIsHeard(t *testing.T) {
	wrong := setup("#!/bin/sh\n")
	wrong.Setup.Script = nil
	slow := setup("#!/bin/sh\necho waiting\nsleep 300\n")
	slow.Setup.LimitS = 0.2
	long := "#!/bin/sh\nyes 'a long line' | head -1000\necho the end\nexit 3\n"
	for name, c := range map[string]struct {
		o    apitype.Outfit
		says string
	}{
		"ItExits":            {setup("#!/bin/sh\necho one\necho two >&2\nexit 3\n"), "set-up: script: exit status 3; it printed: one | two"},
		"ItPrintsMuch":       {setup(long), "a long line | a long line | the end"},
		"ItHangs":            {slow, "set-up: script: it did not end within 200ms; it printed: waiting"},
		"ItIsAnother":        {wrong, "its 0 bytes have the SHA-256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, want " + wrong.Setup.SHA256},
		"ItHasNoInterpreter": {setup("#!/no/such/shell\n"), "set-up: script: exit status 127"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			did, err := b.outfit(c.o)
			if !errors.Is(err, agent.ErrSetup) || !strings.Contains(err.Error(), c.says) || did != "" {
				t.Errorf("Install = %q, %v; want %q", did, err, c.says)
			}
			if err != nil && len(err.Error()) > 4<<10-512 {
				t.Errorf("the error has %d bytes, want that it fits into an event", len(err.Error()))
			}
			if !strings.HasPrefix(name, "ItIs") {
				if _, err = b.outfit(c.o); err == nil || !strings.Contains(err.Error(), "does not run it twice") {
					t.Errorf("Install by the next process of the agent = %v, want that the script is not run twice", err)
				}
			}
		})
	}
}

func TestUserOfJobsGetsItsRights(t *testing.T) {
	const file = "etc/sudoers.d/garo-job-user"
	for name, c := range map[string]struct {
		user        *apitype.JobUser
		sudo        string // what sudo does; empty: there is none
		calls, says string
	}{
		"Nothing": {},
		"Groups":  {user: &apitype.JobUser{Groups: []string{"docker", "kvm"}}, calls: "usermod --append --groups docker USER\nusermod --append --groups kvm USER\n"},
		"NoGroup": {user: &apitype.JobUser{Groups: []string{"none"}}, says: "set-up: job_user: group none: exit status 6; it printed: usermod: no none: have the image"},
		"Sudo":    {user: &apitype.JobUser{Sudo: true}, sudo: "exit 0", calls: "sudo --non-interactive --user USER sudo --non-interactive true\n"},
		"NoSudo":  {user: &apitype.JobUser{Sudo: true}, says: "set-up: job_user: sudo: the machine has none: name it in packages"},
		"SudoThatRefuses": {user: &apitype.JobUser{Sudo: true}, sudo: "echo a password is required; exit 1",
			says: "set-up: job_user: sudo: exit status 1; it printed: a password is required"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.command("usermod", `[ "$3" != none ] || { echo usermod: no none; exit 6; }`)
			if c.sudo != "" {
				b.command("sudo", c.sudo)
			}
			if err := os.Mkdir(filepath.Join(b.dir, "etc/sudoers.d"), 0o755); err != nil {
				t.Fatal(err)
			}
			b.write(file, "left by another machine", 0o440)
			_, err := b.outfit(apitype.Outfit{JobUser: c.user})
			if c.says != "" {
				if !errors.Is(err, agent.ErrSetup) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("Install = %v, want %q", err, c.says)
				}
				return
			}
			if want := strings.ReplaceAll(c.calls, "USER", b.cfg.User); err != nil || b.read("calls") != want {
				t.Errorf("Install = %v, and called:\n%s\nwant:\n%s", err, b.read("calls"), want)
			}
			want := ""
			if c.sudo != "" {
				want = b.cfg.User + " ALL=(ALL) NOPASSWD:ALL\n"
			}
			if got := b.read(file); got != want {
				t.Errorf("sudoers = %q, want %q", got, want)
			}
		})
	}
}
