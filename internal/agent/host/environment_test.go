//go:build linux

package host

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// shows is a job that shows its environment.
const shows = "connected; listening\njob build 77 'env >\"$GITHUB_WORKSPACE/env\"'\n"

// environ runs a job that shows its environment, and returns it.
func (b *box) environ(registered map[string]string) map[string]string {
	b.Helper()
	m := b.open()
	p, err := m.Start(b.Context(), secret.New(canary), registered, false)
	if err != nil {
		b.Fatalf("Start: %v", err)
	}
	if got, want := listen(b.T, p), (told{"connected, job_started 77, job_done", false}); got != want {
		b.Errorf("the program did %+v, want %+v", got, want)
	}
	m.Close()
	out := map[string]string{}
	for line := range strings.Lines(b.read("runner/_work/shop/env")) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		out[name] = value
	}
	return out
}

func TestEnvironmentOfTheImageReachesTheJob(t *testing.T) {
	const closed = "169.254.169.254,fd00:ec2::254"
	for name, c := range map[string]struct {
		files      map[string]string // of the image
		login      string            // what /etc/profile does
		process    map[string]string // the agent's own environment
		registered map[string]string
		api        string            // where the API is; empty: not known
		want       map[string]string // empty: not set
	}{
		"OfAnImageThatSaysNothing": {
			want: map[string]string{"PATH": usualPath, "LANG": "C.UTF-8", "http_proxy": "", "no_proxy": "", "ACTIONS_RUNNER_INPUT_JITCONFIG": ""},
		},
		"EtcEnvironment": {
			files: map[string]string{"etc/environment": "# a comment\nPATH=\"/opt/tool/bin:/usr/bin:/snap/bin\"\nexport TOOL='a b' \nEMPTY=\nnot a variable\nLANG=en_GB.UTF-8 # British\nHTTPS_PROXY=http://proxy.test:3128\n"},
			want: map[string]string{
				"PATH": "/usr/sbin:/opt/tool/bin:/usr/bin:/snap/bin:/usr/local/sbin:/usr/local/bin:/sbin:/bin", "TOOL": "a b", "EMPTY": "", "LANG": "en_GB.UTF-8",
				"HTTPS_PROXY": "http://proxy.test:3128", "no_proxy": closed, "NO_PROXY": closed,
			},
			login: "PATH=/usr/sbin",
		},
		"Profile": {
			login: "echo Welcome; export PATH=$PATH:/snap/bin:relative:. http_proxy=http://proxy.test:80 no_proxy=.internal JAVA_HOME=/java PS1=x",
			want: map[string]string{
				"PATH": usualPath + ":/snap/bin", "http_proxy": "http://proxy.test:80", "no_proxy": ".internal," + closed, "NO_PROXY": ".internal," + closed,
				"JAVA_HOME": "/java", "PS1": "",
			},
		},
		"ProfileThatKnowsEtcEnvironment": {
			files: map[string]string{"etc/environment": "TOOL=/opt/tool\n"},
			login: "export PATH=$TOOL/bin:$PATH",
			want:  map[string]string{"PATH": "/opt/tool/bin:" + usualPath},
		},
		"ProfileThatFails": {
			files: map[string]string{"etc/environment": "TOOL=x\n"},
			login: "exit 1",
			want:  map[string]string{"TOOL": "x", "PATH": usualPath},
		},
		"DotPath": {
			files: map[string]string{"runner/.path": "/opt/path/bin:/bin\n"},
			want:  map[string]string{"PATH": "/opt/path/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin"},
		},
		"DotEnvOverAll": {
			files: map[string]string{"runner/.env": "TOOL=env\nhttp_proxy=http://env.test:80\nLANG=\nPATH=/opt/env/bin:/usr/bin:/bin", "etc/environment": "TOOL=etc\n"},
			want:  map[string]string{"TOOL": "env", "http_proxy": "http://env.test:80", "LANG": "", "PATH": "/opt/env/bin:/usr/bin:/bin"},
		},
		"DotEnvWithAProxy": {
			files: map[string]string{"runner/.env": "https_proxy=http://env.test:80\nno_proxy=env\n", "etc/environment": "NO_PROXY=etc\n"},
			want:  map[string]string{"https_proxy": "http://env.test:80", "no_proxy": "env," + closed, "NO_PROXY": "env," + closed},
		},
		"DotEnvWithoutAProxy": {
			files: map[string]string{"runner/.env": "https_proxy=\nno_proxy=env\n", "etc/environment": "https_proxy=http://etc.test\n"},
			want:  map[string]string{"https_proxy": "", "no_proxy": "env", "NO_PROXY": ""},
		},
		"DotEnvWithAHome": {
			files: map[string]string{"runner/.env": "HOME=/data\nACTIONS_RUNNER_HOOK_JOB_STARTED=\n", "etc/environment": "HOME=/etc\n"},
			want:  map[string]string{"HOME": "/data"},
		},
		"Systemd": {
			process: map[string]string{"https_proxy": "http://systemd.test:80", "SECRET": "x"},
			want:    map[string]string{"https_proxy": "http://systemd.test:80", "no_proxy": closed, "SECRET": ""},
		},
		"Registration": {
			files:      map[string]string{"etc/environment": "TOOL=etc\nHTTP_PROXY=http://etc.test:80\nno_proxy=etc\n", "runner/.env": "TOOL=env\nOTHER=env\nhttp_proxy=http://env.test:80\n"},
			registered: map[string]string{"TOOL": "registered", "HTTP_PROXY": "http://registered.test:80"},
			want: map[string]string{
				"TOOL": "registered", "OTHER": "env", "HTTP_PROXY": "http://registered.test:80", "http_proxy": "",
				"no_proxy": "etc," + closed,
			},
		},
		"RegistrationWithTheAPIDirect": {
			api: "https://garo.test:443/x", registered: map[string]string{"https_proxy": "http://registered.test:80"},
			want: map[string]string{"no_proxy": closed + ",garo.test", "NO_PROXY": closed + ",garo.test"},
		},
		"ImageWithTheAPIBehindItsProxy": {
			api: "https://garo.test", files: map[string]string{"etc/environment": "https_proxy=http://etc.test:80\n"},
			want: map[string]string{"no_proxy": closed},
		},
		"NothingOfOurs": {
			files: map[string]string{"etc/environment": "HOME=/root\nUSER=root\nACTIONS_RUNNER_INPUT_NAME=x\nACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=0\n"},
			want:  map[string]string{"ACTIONS_RUNNER_INPUT_NAME": "", "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE": "1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.install(shows)
			for file, text := range c.files {
				b.write(file, text, 0o644)
			}
			b.login(c.login)
			b.env, b.cfg.API = c.process, c.api
			got := b.environ(c.registered)
			for name, want := range c.want {
				if got[name] != want {
					t.Errorf("%s = %q, want %q", name, got[name], want)
				}
			}
			who, err := lookup(b.cfg.User)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range who.variables() {
				if _, other := c.want[name]; !other && got[name] != want {
					t.Errorf("%s = %q, want %q", name, got[name], want)
				}
			}
		})
	}
}

func TestHookOfTheMachinesEnvironmentRunsBesideOurs(t *testing.T) {
	for name, set := range map[string]func(b *box, started, completed string){
		"OfEtcEnvironment": func(b *box, s, c string) {
			b.write("etc/environment", "WORD=kept\nACTIONS_RUNNER_HOOK_JOB_STARTED="+s+"\nACTIONS_RUNNER_HOOK_JOB_COMPLETED="+c+"\n", 0o644)
		},
		"OfTheProfile": func(b *box, s, c string) {
			b.write("etc/environment", "WORD=kept\n", 0o644)
			b.login("export ACTIONS_RUNNER_HOOK_JOB_STARTED=" + s + " ACTIONS_RUNNER_HOOK_JOB_COMPLETED=" + c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.install("connected; listening\njob build 77 true\n")
			b.write("runner/hooked", "", 0o666)
			if err := os.Chmod(b.cfg.Runner+"/hooked", 0o666); err != nil {
				t.Fatal(err)
			}
			set(b, b.imageHook("started.sh", ""), b.imageHook("completed.sh", ""))
			if got, want := listen(t, start(t, b.open())), (told{"connected, job_started 77, job_done", false}); got != want {
				t.Errorf("the program did %+v, want %+v", got, want)
			}
			if got, want := b.read("runner/hooked"), strings.Repeat("77 "+b.cfg.Runner+"/_work/shop 0 kept\n", 2); got != want {
				t.Errorf("the hooks did:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// What a job leaves of .env, of a profile, or in their place, the next one does not
// get.
func TestJobDoesNotChangeTheEnvironmentOfTheNext(t *testing.T) {
	for name, image := range map[string]string{"OfAnImageWithAnEnv": "WORD=kept\nACTIONS_RUNNER_HOOK_JOB_STARTED=\n", "OfOneWithout": ""} {
		for how, leave := range map[string]func(b *box, file string) error{
			"AFile":      func(_ *box, file string) error { return os.WriteFile(file, []byte("WORD=job\n"), 0o644) },
			"ALongFile":  func(_ *box, file string) error { return os.WriteFile(file, []byte(dotEnvMark+"\nWORD=job\n"), 0o644) },
			"ALink":      func(b *box, file string) error { return os.Symlink(filepath.Join(b.dir, "victim"), file) },
			"ADirectory": func(_ *box, file string) error { return os.MkdirAll(filepath.Join(file, "a"), 0o755) },
			"APipe":      func(_ *box, file string) error { return syscall.Mkfifo(file, 0o644) },
		} {
			if image == "" && how != "AFile" && how != "ADirectory" {
				continue // there, all of them are just removed
			}
			t.Run(name+how, func(t *testing.T) {
				b := newBox(t)
				b.install(shows)
				b.write("victim", "untouched", 0o644)
				if image != "" {
					b.write("runner/.env", image, 0o644)
				}
				first := b.environ(nil)
				file := filepath.Join(b.cfg.Runner, dotEnv)
				if err := os.RemoveAll(file); err != nil {
					t.Fatal(err)
				}
				if err := leave(b, file); err != nil {
					t.Fatal(err)
				}
				b.write("runner/.path", "/job\n", 0o644)
				b.write("etc/environment", "WORD=job\n", 0o644)
				b.login("export LANG=job")
				if second := b.environ(nil); !maps.Equal(first, second) {
					t.Errorf("the first job has %v, the second %v", first, second)
				}
				if got := b.read("victim"); got != "untouched" {
					t.Errorf("the file that the link leads to has %q", got)
				}
			})
		}
	}
}

// An image that is made of a machine that was in use has all of its .env again.
func TestWholeEnvIsKeptBesideOurs(t *testing.T) {
	b := newBox(t)
	b.install(shows)
	const whole = "WORD=kept\nACTIONS_RUNNER_HOOK_JOB_COMPLETED=/opt/hook.sh\n"
	b.write("runner/.env", whole, 0o644)
	for range 2 {
		if got := b.environ(nil)["WORD"]; got != "kept" {
			t.Errorf("WORD = %q, want kept", got)
		}
		if got, want := b.read("runner/.env"), dotEnvMark+"\nWORD=kept\n"; got != want {
			t.Errorf(".env = %q, want %q", got, want)
		}
		if got := b.read("runner/.env.image"); got != whole {
			t.Errorf(".env.image = %q, want %q", got, whole)
		}
		if err := os.RemoveAll(b.cfg.Dir); err != nil { // as a reboot does
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(b.cfg.Runner + "/.env"); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode of .env = %v, %v; want 0640", info.Mode(), err)
	}
}

func TestEnvThatCannotBeChangedIsAnError(t *testing.T) {
	b := newBox(t)
	m := b.open()
	m.cfg.Runner = filepath.Join(b.dir, "none")
	who, err := lookup(b.cfg.User)
	if err != nil {
		t.Fatal(err)
	}
	i := image{DotEnv: []byte("ACTIONS_RUNNER_HOOK_JOB_STARTED=\n")}
	if err := m.setDotEnv(who, i, map[string]string{startedVariable: "x"}, nil); err == nil {
		t.Error("setDotEnv without a directory succeeded, want an error")
	}
}

func TestHookIsRunAsItsKindIs(t *testing.T) {
	b := newBox(t)
	m := b.open()
	for _, dir := range []string{"node16", "node20", "node24", "node20_alpine"} {
		if err := os.MkdirAll(filepath.Join(b.cfg.Runner, "externals", dir, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		b.write("runner/externals/"+dir+"/bin/node", "#!/bin/sh\necho "+dir+" \"$@\"\n", 0o755)
	}
	for script, want := range map[string]string{
		"":                              "",
		"/a b/it's.sh":                  "command -v bash >/dev/null && exec bash -e '/a b/it'\\''s.sh'\nexec sh -e '/a b/it'\\''s.sh'\n",
		"/a.ps1":                        "command -v pwsh >/dev/null && exec pwsh -command '. '\\''/a.ps1'\\'''\nexec powershell -command '. '\\''/a.ps1'\\'''\n",
		"/a.js":                         "exec '" + strings.ReplaceAll(b.cfg.Runner, "'", `'\''`) + "/externals/node20/bin/node' '/a.js'\n",
		"/a.py":                         "echo '/a.py is no script: GitHub'\\''s runner program wants .sh, .ps1 or .js' >&2\nexit 1\n",
		b.cfg.Hooks + "/job-started.sh": "",
	} {
		if got := m.after(script); got != want {
			t.Errorf("after(%q) = %q, want %q", script, got, want)
		}
	}
	for _, c := range []struct{ gone, want string }{{"node16", "node20"}, {"node20", "node24"}, {"node24", "node20"}} {
		if err := os.RemoveAll(filepath.Join(b.cfg.Runner, "externals", c.gone)); err != nil {
			t.Fatal(err)
		}
		if got, want := m.node(), filepath.Join(b.cfg.Runner, "externals", c.want, "bin", "node"); got != want {
			t.Errorf("without %s: node = %s, want %s", c.gone, got, want)
		}
	}
}

// A login that waits for somebody, or leaves something running, holds nothing up.
func TestLoginIsNotWaitedForForEver(t *testing.T) {
	b := newBox(t)
	who, err := lookup(b.cfg.User)
	if err != nil {
		t.Fatal(err)
	}
	b.login("sleep 300 & export WORD=x")
	m := b.open()
	if got, err := m.login(t.Context(), who, nil); err != nil || got["WORD"] != "x" {
		t.Errorf("login = %v, %v; want WORD", got, err)
	}
	b.write("login", "#!/bin/sh\n>'"+b.cfg.Runner+"/waits'\nsleep 300\n", 0o755)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		eventually(t, "the login", func() bool { _, err := os.Stat(b.cfg.Runner + "/waits"); return err == nil })
	}()
	if got, err := m.login(ctx, who, nil); err == nil || got != nil {
		t.Errorf("login = %v, %v; want an error", got, err)
	}
}

func TestProxiesOfTheImage(t *testing.T) {
	const closed = "169.254.169.254,fd00:ec2::254"
	b := newBox(t)
	if got, err := b.open().Proxies(); err != nil || len(got) != 0 {
		t.Errorf("Proxies of an image without any = %v, %v", got, err)
	}
	b.write("runner/.env", "https_proxy=http://env.test:80\nhttp_proxy=http://env.test:80\nNO_PROXY=env, 169.254.169.254\n", 0o644)
	b.write("etc/environment", "http_proxy=http://etc.test:80\nTOOL=x\n", 0o644)
	b.login("export HTTPS_PROXY=http://profile.test:80")
	want := map[string]string{
		"https_proxy": "http://env.test:80", "http_proxy": "http://etc.test:80", "HTTPS_PROXY": "http://profile.test:80",
		"no_proxy": "env, " + closed, "NO_PROXY": "env, " + closed,
	}
	if got, err := b.open().Proxies(); err != nil || !maps.Equal(got, want) {
		t.Errorf("Proxies = %v, %v; want %v", got, err, want)
	}
	b.cfg.User = "root"
	if got, err := b.open().Proxies(); err == nil {
		t.Errorf("Proxies = %v for root, want an error", got)
	}
	if _, err := os.Stat(filepath.Join(b.cfg.Dir, "image")); !os.IsNotExist(err) {
		t.Errorf("the image is kept before a program was started: %v, want %v", err, fs.ErrNotExist)
	}
}
