//go:build linux

package machinetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// imageHooks makes an image whose runner program has hooks of its own, in the file
// .env beside it, and notes each of their runs.
const imageHooks = `
mkdir -p /opt/image
for hook in started completed; do
	printf 'echo "%s $GITHUB_RUN_ID $PWD $IMAGE" >>/opt/image/hooked\n' $hook >/opt/image/$hook.sh
done
>/opt/image/hooked
chmod 666 /opt/image/hooked
printf 'IMAGE=of-the-image\nACTIONS_RUNNER_HOOK_JOB_STARTED=/opt/image/started.sh\nACTIONS_RUNNER_HOOK_JOB_COMPLETED=/opt/image/completed.sh' >/opt/actions-runner/.env
chown runner: /opt/actions-runner/.env
`

// Each job of a shared runner has both hooks, though the one before it took the
// image's away, and tried to change ours.
func TestImageWithHooksOfItsOwn(t *testing.T) {
	t.Parallel()
	img := baked
	img.after = imageHooks
	w := newWorld(t, options{image: img})
	if w == nil {
		return
	}
	started := w.ask(store.Shared)
	const job = `curl -s --data-binary @/opt/image/hooked "$BROKER/said/hooked$GITHUB_RUN_ID"; rm -f /opt/actions-runner/.env; mkdir /opt/actions-runner/.env
for hook in "$ACTIONS_RUNNER_HOOK_JOB_STARTED" "$ACTIONS_RUNNER_HOOK_JOB_COMPLETED"; do rm -f "$hook"; echo 'exit 1' >"$hook"; done`
	var hooked, heard strings.Builder
	heard.WriteString("booting")
	var runs []string
	for range 2 {
		runs = append(runs, w.job(started.OwnLabel, job))
	}
	for _, run := range runs {
		fmt.Fprintf(&hooked, "started %s /opt/actions-runner/_work/shop of-the-image\n", run)
		if got := w.told("hooked" + run); got != hooked.String() {
			t.Errorf("before the job of run %s, the image's hooks did:\n%s\nwant:\n%s", run, got, hooked.String())
		}
		fmt.Fprintf(&hooked, "completed %s /opt/actions-runner/_work/shop of-the-image\n", run)
		fmt.Fprintf(&heard, ", online, job_started %s, job_done", run)
	}
	eventually(t, "the end of the second job is reported", func() bool { return strings.Count(w.heard(), "job_done") == 2 })
	if got := w.heard(); !strings.HasPrefix(got, heard.String()) {
		t.Errorf("the API heard: %s\nwant: %s", got, heard.String())
	}
	s := w.status(started.ID)
	for _, e := range s.Runner.History {
		if strings.Contains(e.Reason, "before the job's last step") {
			t.Errorf("a whole job counts as cut: %+v", s.Runner.History)
		}
	}
}

// What an image sets for logins reaches the job, and what the registration sets.
func TestEnvironmentOfTheImageReachesItsJobs(t *testing.T) {
	t.Parallel()
	img := baked
	img.after = `
printf 'PATH="/opt/tool/bin:/usr/bin:/bin:/snap/bin"\nTOOL=etc\nOTHER=etc\n' >/etc/environment
printf 'export JAVA_HOME=/opt/java NO_PROXY=.internal HTTPS_PROXY=http://proxy.internal:3128\n' >/etc/profile.d/image.sh
`
	w := newWorld(t, options{image: img, environment: map[string]string{"TOOL": "registered"}})
	if w == nil {
		return
	}
	started := w.ask(store.Ephemeral)
	w.job(started.OwnLabel, `env >env; curl -s --data-binary @env "$BROKER/said/env"`)
	env := w.told("env")
	for _, want := range []string{
		"TOOL=registered", "OTHER=etc", "JAVA_HOME=/opt/java", "HTTPS_PROXY=http://proxy.internal:3128",
		"NO_PROXY=.internal,169.254.169.254,fd00:ec2::254", "HOME=/home/runner",
	} {
		if !strings.Contains("\n"+env, "\n"+want+"\n") {
			t.Errorf("the job's environment has no %s:\n%s", want, env)
		}
	}
	for line := range strings.Lines(env) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "PATH="); ok {
			for _, dir := range []string{"/opt/tool/bin", "/snap/bin", "/usr/local/bin", "/usr/sbin"} {
				if !strings.Contains(":"+path+":", ":"+dir+":") {
					t.Errorf("the job's PATH is %s, want %s in it", path, dir)
				}
			}
		}
	}
	w.machine(1).wantOff()
}

// A network whose only way out is the proxy that the image names: in a stock image
// too, all is fetched by it.
func TestMachineBehindAProxy(t *testing.T) {
	t.Parallel()
	const proxy = controlAddress + ":3128"
	for name, set := range map[string]string{
		"OfEtcEnvironment": "echo http_proxy=http://" + proxy + " >>/etc/environment",
		"OfAProfile":       "echo export http_proxy=http://" + proxy + " >/etc/profile.d/proxy.sh",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{image: image{systemd: true, after: set}, proxy: proxy})
			if w == nil {
				return
			}
			started := w.ask(store.Ephemeral)
			run := w.job(started.OwnLabel, `curl -s --data-binary "$http_proxy $no_proxy" "$BROKER/said/proxy"`)
			if got, want := w.told("proxy"), "http://"+proxy+" 169.254.169.254,fd00:ec2::254"; got != want {
				t.Errorf("the job has the proxy %q, want %q", got, want)
			}
			w.machine(1).wantOff()
			w.wantHeard("booting, online, job_started " + run + ", job_done")
			if got := len(w.answered("GET agent")); got != 1 {
				t.Errorf("the agent was fetched %d times by the proxy, want once", got)
			}
		})
	}
}

// networkd drops the routing rules that are not its own, as systemd-networkd does
// when it starts (systemd, src/network/networkd-routing-policy-rule.c at commit
// 735726898f82, manager_drop_routing_policy_rules_internal): all but the kernel's.
const networkd = `
for family in -4 -6; do
	ip -d $family rule show | grep -v 'proto kernel' | while read -r pref rest; do ip $family rule del pref "${pref%:}"; done
done
ip rule >/machine/rules
`

func TestMetadataStaysClosedWhenTheNetworkIsRestarted(t *testing.T) {
	t.Parallel()
	img := baked
	img.before = "cp /usr/bin/setpriv /usr/local/bin/become-root; chmod 4755 /usr/local/bin/become-root\n" +
		"cat >/usr/local/bin/networkd <<'END'\n#!/bin/sh" + networkd + "END\nchmod 755 /usr/local/bin/networkd\n" +
		"ip rule add pref 77 to 192.0.2.0/24 prohibit; for d in /usr/sbin /usr/bin /sbin /bin; do rm -f $d/nft $d/iptables; done"
	w := newWorld(t, options{image: img})
	if w == nil {
		return
	}
	started := w.ask(store.Ephemeral)
	w.job(started.OwnLabel, `/usr/local/bin/become-root --reuid 0 --regid 0 --clear-groups /usr/local/bin/networkd >out 2>&1
curl -s --max-time 5 http://169.254.169.254/latest/user-data >>out 2>&1; echo "curl: $?" >>out
curl -s --data-binary @out "$BROKER/said/out"`)
	if got, want := w.told("out"), "curl: 7\n"; got != want {
		t.Errorf("after networkd's start the job reads the metadata service: %q, want %q", got, want)
	}
	m := w.machine(1)
	m.wantOff()
	if rules := m.read("rules"); strings.Contains(rules, "192.0.2.0/24") || !strings.Contains(rules, metadataAddress) {
		t.Errorf("networkd left these rules, want that of another program gone:\n%s", rules)
	}
}
