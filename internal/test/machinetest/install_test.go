//go:build linux

package machinetest

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// installer makes images; it is what people run.
const installer = "../../../terraform/modules/image/install.sh"

// inRoot runs a shell script in a root directory, with mounts of its own and this
// computer's network.
func inRoot(ctx context.Context, root, script string) ([]byte, error) {
	const mounts = "mount -t proc proc $0/proc && mount --rbind /dev $0/dev && cp /etc/resolv.conf $0/etc/ && exec chroot $0 /bin/sh -c \"$1\""
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", mounts, root, script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return cmd.CombinedOutput()
}

// release is GitHub's answer about the newest release of the runner program, with the notes as
// releaseNote.md of actions/runner makes them.
func release(url, sha256 string) []byte {
	var notes strings.Builder
	var assets []map[string]string
	for _, arch := range []string{"x64", "arm64", "arm"} {
		hash := sha256
		if arch == "arm" {
			hash = strings.Repeat("0", 64)
		}
		fmt.Fprintf(&notes, "- actions-runner-linux-%[1]s-2.999.0.tar.gz <!-- BEGIN SHA linux-%[1]s -->%[2]s<!-- END SHA linux-%[1]s -->\n", arch, hash)
		assets = append(assets, map[string]string{"name": "actions-runner-linux-" + arch + "-2.999.0.tar.gz", "browser_download_url": url})
	}
	b, err := json.Marshal(map[string]any{"tag_name": "v2.999.0", "body": notes.String(), "assets": assets})
	if err != nil {
		panic(err) // strings always marshal
	}
	return b
}

var withUbuntu = flag.Bool("ubuntu", false, "make an image of Ubuntu 24.04, too")

// makeDebian makes a bare Debian in a directory.
func makeDebian(ctx context.Context, root string) ([]byte, error) {
	return exec.CommandContext(ctx, "debootstrap", "--variant=minbase", "bookworm", root).CombinedOutput()
}

// makeUbuntu makes a bare Ubuntu in a directory. Debian has no key of Ubuntu's archive: it is
// in a package of that, whose hash is known; what it signs may come by plain HTTP, as stock
// images have it. debootstrap of Debian does not know this suite by
// name either; all since 7.10 are made alike.
func makeUbuntu(ctx context.Context, root string) ([]byte, error) {
	const script = `set -eu
mirror=http://archive.ubuntu.com/ubuntu
curl --fail --silent --show-error --location --retry 5 --output "$1.deb" "$mirror/pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
echo "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8  $1.deb" | sha256sum --check --quiet
dpkg-deb --extract "$1.deb" "$1.keys"
debootstrap --variant=minbase --components=main,universe --keyring="$1.keys/usr/share/keyrings/ubuntu-archive-keyring.gpg" \
	noble "$1" "$mirror" /usr/share/debootstrap/scripts/gutsy`
	return exec.CommandContext(ctx, "/bin/sh", "-c", script, "sh", root).CombinedOutput()
}

func TestImageIsInstalledAndBoots(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("debootstrap"); err != nil || !able(t) {
		t.Logf("NOT TESTED: no bare system can be made: %v", err)
		return
	}
	t.Run("Debian", func(t *testing.T) { wantImage(t, makeDebian) })
	if *withUbuntu {
		t.Run("Ubuntu", func(t *testing.T) { wantImage(t, makeUbuntu) })
	}
}

// wantImage makes an image of a bare system by install.sh, twice, the second time with the
// newest release, and boots a machine from it: time per step, with and without the image, is
// in the log. The runner program is a stand-in, and a kernel and systemd are not started.
func wantImage(t *testing.T, bare func(ctx context.Context, root string) ([]byte, error)) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute) // most of it is the mirror's
	defer cancel()
	base := t.TempDir()
	root := filepath.Join(base, "root")
	if out, err := bare(ctx, root); err != nil {
		t.Logf("NOT TESTED: the mirror is not reached: %v\n%s", err, out[max(0, len(out)-500):])
		return
	}
	agent := agentProgram(t)
	program, err := tarball(brokerURL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
		_, _ = res.Write(map[string][]byte{"/runner": program, "/agent": agent.gzip, "/latest": release("http://"+l.Addr().String()+"/runner", sum(program))}[req.URL.Path])
	})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	script, err := os.ReadFile(installer)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "install.sh"), script, 0o755); err != nil {
		t.Fatal(err)
	}
	// Services of packages are not to start here.
	run := fmt.Sprintf("printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; "+
		"if test \"$1\" = 1; then export RUNNER_URL=http://%[1]s/runner RUNNER_SHA256=%[2]s; else export RUNNER_RELEASE=http://%[1]s/latest; fi; AGENT_URL=http://%[1]s/agent AGENT_SHA256=%[3]s bash /install.sh", l.Addr(), sum(program), agent.sha256)
	for n := 1; n <= 2; n++ {
		began := time.Now()
		out, err := inRoot(ctx, root, fmt.Sprintf("set -- %d; %s", n, run))
		if err != nil {
			t.Fatalf("install.sh, time %d: %v\n%s", n, err, out[max(0, len(out)-3000):])
		}
		t.Logf("install.sh, time %d, took %v: %s", n, time.Since(began).Round(time.Second), out[strings.LastIndex(strings.TrimSpace(string(out)), "\n")+1:])
		if there := strings.Contains(string(out), "runner program is there"); there != (n == 2) {
			t.Errorf("install.sh, time %d: the runner program was there = %t", n, there)
		}
	}
	const check = `for c in git docker gcc make jq sudo nft ip curl; do command -v $c >/dev/null || echo $c is missing; done
id -un runner; stat -c '%U %a' /opt/actions-runner /opt/garo /opt/garo/agent; ls -A /var/lib/apt/lists /opt/actions-runner/_work /etc/ssh 2>/dev/null | grep -v config; find /var/log -type f -size +0`
	out, err := inRoot(ctx, root, check)
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "is missing") || strings.HasPrefix(line, "/var/log") {
			t.Errorf("in the image: %s", line)
		}
	}
	for _, want := range []string{"runner\n", "runner 755\n", "root 700\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("in the image: %s\nwant %q", out, want)
		}
	}
	for name, img := range map[string]image{"WithTheImage": {systemd: true, root: root}, "WithoutIt": {systemd: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{image: img})
			w.wantQuickStart()
			if got := len(w.answered("GET agent")); (got == 0) != (img.root != "") {
				t.Errorf("the agent was fetched %d times", got)
			}
		})
	}
}
