package bootstrap

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/syntax"
)

func TestScriptsArePOSIX(t *testing.T) {
	for n := 1; n < len(scripts); n++ {
		b, err := Render(n, largest())
		if err != nil {
			t.Fatal(err)
		}
		file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(bytes.NewReader(b), "user-data")
		if err != nil {
			t.Fatalf("script %d: %v", n, err)
		}
		// The document is one argument of the last command, and made of one literal.
		call, ok := file.Stmts[len(file.Stmts)-1].Cmd.(*syntax.CallExpr)
		if !ok || len(call.Args) != 2 || call.Args[1].Lit() == "" {
			t.Errorf("script %d does not end with a command and one plain word", n)
		}
	}
}

func TestScriptsPassShellcheck(t *testing.T) {
	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Log("no shellcheck on the PATH")
		return
	}
	for n := 1; n < len(scripts); n++ {
		b, err := Render(n, document())
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), shellcheck, "--shell=sh", "-")
		cmd.Stdin = bytes.NewReader(b)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("script %d: %v\n%s", n, err, out)
		}
	}
}

// machine is a directory that stands for the root of a machine, with commands
// that only note that they were called.
type machine struct {
	t    *testing.T
	root string
}

const realPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, root: t.TempDir()}
	for _, dir := range []string{"bin", "run/systemd/system", "opt", "etc/systemd/system"} {
		if err := os.MkdirAll(filepath.Join(m.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range []string{"base64", "cat", "chmod", "cut", "gzip", "mkdir", "mv", "rm", "sed", "sha256sum", "tr"} {
		real, err := exec.LookPath(tool)
		if err != nil {
			t.Fatalf("the script's tool %s is not installed here: %v", tool, err)
		}
		if err := os.Symlink(real, filepath.Join(m.root, "bin", tool)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range []string{"shutdown", "poweroff", "systemctl", "systemd-run", "sleep"} {
		m.command(tool, "exit 0")
	}
	m.command("uname", "echo x86_64")
	m.answers("0 404 none")
	return m
}

// command makes a command that notes its call and then does as body says.
func (m *machine) command(name, body string) {
	text := fmt.Sprintf("#!/bin/sh\necho \"%s $*\" >>%s/log\n%s\n", name, m.root, body)
	m.write("bin/"+name, text, 0o755)
}

// answers sets what curl does, call by call: its exit code, the HTTP status that
// it prints and the file that it downloads. The last answer is repeated.
func (m *machine) answers(lines ...string) {
	m.write("answers", strings.Join(lines, "\n")+"\n", 0o644)
	m.command("curl", strings.ReplaceAll(`
n=$(sed -n '$=' ROOT/calls 2>/dev/null)
echo >>ROOT/calls
set -- "$@" --end
while [ "$1" != --end ]; do
	[ "$1" != --output ] || out=$2
	shift
done
line=$(sed -n "$((${n:-0} + 1))p" ROOT/answers)
[ -n "$line" ] || line=$(sed -n '$p' ROOT/answers)
set -- $line
[ ! -f "ROOT/$3" ] || cat "ROOT/$3" >"$out"
printf %s "$2"
exit "$1"`, "ROOT", m.root))
}

func (m *machine) write(name, text string, mode os.FileMode) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.root, name), []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(name string) string {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.root, name))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

// agent writes a program and its gzip, and returns the program's SHA-256.
func (m *machine) agent(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		m.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.write("agent.gz", b.String(), 0o644)
	return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
}

// start runs user data on the machine, and returns what it called and said.
func (m *machine) start(userData []byte) (log, said string, err error) {
	m.t.Helper()
	text := string(userData)
	if strings.Count(text, realPath) != 1 {
		m.t.Fatal("the script does not set its PATH in the line that this test replaces")
	}
	text = strings.Replace(text, realPath, "PATH="+m.root+"/bin\n", 1)
	for _, dir := range []string{"/run/", "/opt/", "/etc/"} {
		text = strings.ReplaceAll(text, dir, m.root+dir)
	}
	cmd := exec.CommandContext(m.t.Context(), "/bin/sh")
	cmd.Stdin, cmd.Env = strings.NewReader(text), []string{}
	out, err := cmd.CombinedOutput()
	b, _ := os.ReadFile(filepath.Join(m.root, "log"))
	return string(b), string(out), err
}

func render(t *testing.T, change func(*Document)) []byte {
	t.Helper()
	d := document()
	change(&d)
	b, err := Render(Current, d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// calls checks that log has the lines that begin with these words, in this order,
// and none beside them.
func calls(t *testing.T, log string, want ...string) {
	t.Helper()
	got := strings.Split(strings.TrimSpace(log), "\n")
	ok := len(got) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.HasPrefix(got[i], want[i])
	}
	if !ok {
		t.Errorf("called:\n%s\nwant:\n%s", log, strings.Join(want, "\n"))
	}
}

const timer = "systemd-run --quiet --unit=garo-hard-limit --on-active=21600 --timer-property=AccuracySec=1s systemctl poweroff"

func TestScriptStartsTheAgent(t *testing.T) {
	m := newMachine(t)
	hash := m.agent("the agent")
	m.answers("0 200 agent.gz")
	data := render(t, func(d *Document) { d.Agent["amd64"] = hash })
	log, said, err := m.start(data)
	if err != nil {
		t.Fatalf("script: %v\n%s", err, said)
	}
	calls(t, log, timer, "uname", "curl ", "systemctl daemon-reload", "systemctl --quiet enable garo-agent.service", "systemctl start garo-agent.service")
	if url := document().API + "/agent/linux/amd64/" + hash; !strings.Contains(log, " "+url+"\n") {
		t.Errorf("called:\n%s\nwant a download of %s", log, url)
	}
	if got := m.read("opt/garo/agent"); got != "the agent" {
		t.Errorf("installed %q, want the agent", got)
	}
	if got, want := m.read("run/garo/document"), string(data[len(scripts[Current]):]); got != want {
		t.Errorf("document = %q, want %q", got, want)
	}
	if unit := m.read("etc/systemd/system/garo-agent.service"); !strings.Contains(unit, "/opt/garo/agent -document ") || !strings.Contains(unit, "\nRestart=on-failure\n") {
		t.Errorf("unit:\n%s\nwant the agent, restarted", unit)
	}
	for name, want := range map[string]os.FileMode{
		"opt/garo": 0o700 | os.ModeDir, "run/garo": 0o700 | os.ModeDir, "opt/garo/agent": 0o700, "run/garo/document": 0o600,
	} {
		info, err := os.Stat(filepath.Join(m.root, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("mode of %s = %v, want %v", name, info.Mode(), want)
		}
	}
	if _, err := os.Stat(filepath.Join(m.root, "opt/garo/agent.gz")); err == nil {
		t.Error("the download is still there")
	}
}

func TestScriptTakesTheAgentOfTheImage(t *testing.T) {
	m := newMachine(t)
	m.command("uname", "echo aarch64")
	hash := m.agent("the agent of the image")
	if err := os.Mkdir(filepath.Join(m.root, "opt/garo"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.write("opt/garo/agent", "the agent of the image", 0o755)
	log, said, err := m.start(render(t, func(d *Document) { d.Agent["arm64"] = hash }))
	if err != nil {
		t.Fatalf("script: %v\n%s", err, said)
	}
	calls(t, log, timer, "uname", "systemctl daemon-reload", "systemctl --quiet enable", "systemctl start garo-agent.service")
}

func TestScriptReplacesAnotherAgentOfTheImage(t *testing.T) {
	m := newMachine(t)
	hash := m.agent("the new agent")
	m.answers("0 200 agent.gz")
	if err := os.Mkdir(filepath.Join(m.root, "opt/garo"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.write("opt/garo/agent", "the old agent", 0o755)
	if _, said, err := m.start(render(t, func(d *Document) { d.Agent["amd64"] = hash })); err != nil {
		t.Fatalf("script: %v\n%s", err, said)
	}
	if got := m.read("opt/garo/agent"); got != "the new agent" {
		t.Errorf("installed %q, want the new agent", got)
	}
}

func TestScriptWithoutSystemdRestartsTheAgentItself(t *testing.T) {
	m := newMachine(t)
	if err := os.RemoveAll(filepath.Join(m.root, "run/systemd")); err != nil {
		t.Fatal(err)
	}
	hash := m.agent(fmt.Sprintf("#!/bin/sh\necho \"agent $*\" >>%[1]s/log\n[ -f %[1]s/again ] || { echo >%[1]s/again; exit 1; }\n", m.root))
	m.answers("0 200 agent.gz")
	log, said, err := m.start(render(t, func(d *Document) { d.Agent["amd64"], d.HardS = hash, 3601 }))
	if err == nil {
		t.Errorf("the script succeeded, want it to power off\n%s", said)
	}
	agent := "agent -document " + m.root + "/run/garo/document"
	calls(t, log, "shutdown -P +61", "uname", "curl ", agent, "sleep 2", agent, "shutdown -P now")
}

func TestScriptRetriesUntilTheAPIAnswers(t *testing.T) {
	m := newMachine(t)
	hash := m.agent("the agent")
	m.answers("7 000 none", "28 200 none", "0 503 none", "0 429 none", "0 302 none", "0 200 agent.gz")
	log, said, err := m.start(render(t, func(d *Document) { d.Agent["amd64"] = hash }))
	if err != nil {
		t.Fatalf("script: %v\n%s", err, said)
	}
	if got := strings.Count(log, "curl "); got != 6 {
		t.Errorf("%d downloads, want 6:\n%s", got, log)
	}
	if got := strings.Count(log, "sleep 3\n"); got != 5 {
		t.Errorf("%d pauses, want 5:\n%s", got, log)
	}
}

func TestScriptPowersOff(t *testing.T) {
	agent := func(m *machine) func(*Document) {
		hash := m.agent("the agent")
		return func(d *Document) { d.Agent["amd64"] = hash }
	}
	for name, c := range map[string]struct {
		set  func(m *machine) func(*Document)
		want []string // calls
		says string
	}{
		"OnAWrongHash": {
			func(m *machine) func(*Document) {
				m.agent("something else")
				m.answers("0 200 agent.gz")
				return func(*Document) {}
			},
			[]string{timer, "uname", "curl ", "shutdown -P now"}, "not the one that was promised",
		},
		"OnAnUnknownHash": {
			func(m *machine) func(*Document) { m.answers("0 404 none"); return agent(m) },
			[]string{timer, "uname", "curl ", "shutdown -P now"}, "status 404 after 1 tries",
		},
		"WithoutNetwork": {
			func(m *machine) func(*Document) { m.answers("6 000 none"); return agent(m) },
			[]string{timer, "uname", "curl ", "sleep", "curl ", "sleep", "curl ", "sleep", "curl ", "sleep", "curl ",
				"sleep", "curl ", "sleep", "curl ", "sleep", "curl ", "shutdown -P now"}, "status 000 after",
		},
		"OnWhatIsNoGzip": {
			func(m *machine) func(*Document) {
				f := agent(m)
				m.write("html", "<html>", 0o644)
				m.answers("0 200 html")
				return f
			},
			[]string{timer, "uname", "curl ", "shutdown -P now"}, "not a gzip",
		},
		"OnAnUnknownArchitecture": {
			func(m *machine) func(*Document) { m.command("uname", "echo riscv64"); return agent(m) },
			[]string{timer, "uname", "shutdown -P now"}, "no agent runs on riscv64",
		},
		"WithoutAnAgentForItsArchitecture": {
			func(m *machine) func(*Document) { return func(d *Document) { delete(d.Agent, "amd64") } },
			[]string{timer, "uname", "shutdown -P now"}, "there is no agent for amd64",
		},
		"WithoutATimer": {
			func(m *machine) func(*Document) {
				m.command("systemd-run", "exit 1")
				m.command("shutdown", `[ "$2" = now ]`)
				return agent(m)
			},
			[]string{"systemd-run", "shutdown -P +360", "shutdown -P now"}, "no power-off timer can be set",
		},
		"WhenTheAgentDoesNotStart": {
			func(m *machine) func(*Document) {
				m.answers("0 200 agent.gz")
				m.command("systemctl", `[ "$1" != start ]`)
				return agent(m)
			},
			[]string{timer, "uname", "curl ", "systemctl daemon-reload", "systemctl --quiet enable", "systemctl start", "shutdown -P now"}, "does not start",
		},
		"OnAnythingUnforeseen": {
			func(m *machine) func(*Document) {
				m.answers("0 200 agent.gz")
				m.command("systemctl", `[ "$1" != daemon-reload ]`)
				return agent(m)
			},
			[]string{timer, "uname", "curl ", "systemctl daemon-reload", "shutdown -P now"}, "ended early",
		},
		"BySystemctlIfShutdownFails": {
			func(m *machine) func(*Document) { m.command("shutdown", "exit 1"); return agent(m) },
			[]string{timer, "uname", "curl ", "shutdown -P now", "systemctl poweroff"}, "cannot be fetched",
		},
		"ByPoweroffIfAllElseFails": {
			func(m *machine) func(*Document) {
				m.command("shutdown", "exit 1")
				m.command("systemctl", "exit 1")
				return agent(m)
			},
			[]string{timer, "uname", "curl ", "shutdown -P now", "systemctl poweroff", "poweroff -f"}, "cannot be fetched",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			data := render(t, c.set(m))
			log, said, err := m.start(data)
			if err == nil {
				t.Errorf("the script succeeded, want it to power off\n%s", said)
			}
			calls(t, log, c.want...)
			if !strings.Contains(said, c.says) {
				t.Errorf("it said %q, want %q in it", said, c.says)
			}
			if strings.Contains(said, document().Token.Reveal()) {
				t.Errorf("it said the token: %s", said)
			}
		})
	}
}

// The agent comes by the proxies that the image names, in any of the places where
// images do.
func TestScriptTakesTheProxiesOfTheImage(t *testing.T) {
	for name, c := range map[string]struct {
		dotEnv, environment, profile string
		want                         string // what curl gets, sorted
	}{
		"None":             {"A=1\n", "PATH=/x\n", "echo B=1", ""},
		"Environment":      {"", "# http_proxy=http://comment.test\n export http_proxy=\"http://a.test:80\" # so\nNO_PROXY='b, c' \n", "", "NO_PROXY=b, c;http_proxy=http://a.test:80"},
		"Profile":          {"", "https_proxy=http://a.test\n", "echo HTTPS_PROXY=http://b.test; echo https_proxy=http://c.test; echo ALL_PROXY=http://d.test", "ALL_PROXY=http://d.test;HTTPS_PROXY=http://b.test;https_proxy=http://c.test"},
		"DotEnv":           {"HTTP_PROXY=http://a.test\r\nno_proxy=b\r\n", "no_proxy=c", "", "http_proxy=http://a.test;no_proxy=c"},
		"NoCommand":        {"", "http_proxy=$(reboot)`reboot`;reboot\nhttps_proxy=\nxx_proxy=1\nPROXIES\nreboot\n", "", "http_proxy=$(reboot)`reboot`;reboot"},
		"ProfileThatFails": {"", "http_proxy=http://a.test", "exit 1", "http_proxy=http://a.test"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.command("reboot", "exit 0")
			m.command("timeout", c.profile)
			for file, text := range map[string]string{"opt/actions-runner/.env": c.dotEnv, "etc/environment": c.environment} {
				if text == "" {
					continue
				}
				if err := os.MkdirAll(filepath.Dir(filepath.Join(m.root, file)), 0o755); err != nil {
					t.Fatal(err)
				}
				m.write(file, text, 0o644)
			}
			hash := m.agent("the agent")
			m.answers("0 200 agent.gz")
			curl := m.read("bin/curl")
			m.write("bin/curl", strings.Replace(curl, "\n", "\n/usr/bin/env | /usr/bin/grep -i '_proxy=' | LC_ALL=C /usr/bin/sort >"+m.root+"/proxies\n", 1), 0o755)
			log, said, err := m.start(render(t, func(d *Document) { d.Agent["amd64"] = hash }))
			if err != nil {
				t.Fatalf("script: %v\n%s", err, said)
			}
			if got := strings.ReplaceAll(strings.TrimSpace(m.read("proxies")), "\n", ";"); got != c.want {
				t.Errorf("curl has %q, want %q", got, c.want)
			}
			if !strings.Contains(log, "timeout 5 sh -l -c env\n") || strings.Contains(log, "reboot \n") {
				t.Errorf("called:\n%s\nwant a login, and no reboot", log)
			}
		})
	}
}

// Whatever stands for the document, nothing of it is run, and a machine that
// does not understand it ends.
func TestScriptRunsNothingOfTheDocument(t *testing.T) {
	plain := func(json string) string { return scripts[Current] + encodeWord(json) }
	good := string(render(t, func(*Document) {}))
	for name, data := range map[string]string{
		"NoDocument":        scripts[Current],
		"CutShort":          good[:len(good)-20],
		"NotJSON":           plain("$(reboot)"),
		"CommandInURL":      plain(`{"v":1,"api":"https://$(reboot)","runner":"r","index":0,"key_id":"k","token":"t","hard_s":60,"amd64":"","arm64":""}`),
		"CommandInSeconds":  plain(`{"v":1,"api":"https://x","runner":"r","index":0,"key_id":"k","token":"t","hard_s":60;reboot,"amd64":"","arm64":""}`),
		"SixDigitSeconds":   plain(`{"v":1,"api":"https://x","runner":"r","index":0,"key_id":"k","token":"t","hard_s":100000,"amd64":"","arm64":""}`),
		"OtherVersion":      plain(`{"v":2,"api":"https://x","runner":"r","index":0,"key_id":"k","token":"t","hard_s":60,"amd64":"","arm64":""}`),
		"MoreThanADocument": plain(`{"v":1,"api":"https://x","runner":"r","index":0,"key_id":"k","token":"t","hard_s":60,"amd64":"","arm64":""}x`),
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.command("reboot", "exit 0")
			log, said, err := m.start([]byte(data))
			if err == nil {
				t.Errorf("the script succeeded, want it to power off\n%s", said)
			}
			calls(t, log, "shutdown -P now")
		})
	}
}

func encodeWord(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }
