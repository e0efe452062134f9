//go:build linux

package machinetest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// boot makes the boot call of a machine, as a thief of its token would who has a word of
// AWS, such as a copy of the machine's.
func (w *world) boot(m *machine, word string) int {
	w.Helper()
	body, err := json.Marshal(apitype.Boot{Token: m.token(), Nonce: strings.Repeat("thief", 8), InstanceID: m.id, Identity: word})
	if err != nil {
		w.Fatal(err)
	}
	req := httptest.NewRequest(http.MethodPost, "/runners/"+m.document().Runner+"/boot", strings.NewReader(string(body)))
	req.Header.Set("Content-Type", "application/json")
	res := httptest.NewRecorder()
	w.api.ServeHTTP(res, req)
	return res.Code
}

func TestStolenTokenEndsTheMachine(t *testing.T) {
	t.Parallel()
	t.Run("UsedSecond", func(t *testing.T) {
		w := newWorld(t, options{image: baked})
		if w == nil {
			return
		}
		started := w.ask(store.Ephemeral)
		w.job(started.OwnLabel, waits)
		w.told("started")
		eventually(t, "the start of the job is reported", func() bool { return strings.Contains(w.heard(), "job_started") })
		m := w.machine(1)
		if got := w.boot(m, ""); got != http.StatusUnauthorized || m.over() {
			t.Errorf("boot with a stolen token = %d, want 401, and the machine untouched", got)
		}
		if got := w.boot(m, m.word()); got != http.StatusConflict {
			t.Errorf("boot with a stolen token and a copied word = %d, want 409", got)
		}
		w.wantEnd(started.ID, store.EndCompromised)
		if !m.over() {
			t.Error("the machine is still on")
		}
		if !strings.Contains(w.logs.String(), "alarm="+string(store.AlarmCompromised)) {
			t.Error("no alarm")
		}
	})
	t.Run("UsedFirst", func(t *testing.T) {
		var w *world
		stolen := make(chan struct{})
		w = newWorld(t, options{image: baked, api: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
				if strings.HasSuffix(req.URL.Path, "/boot") {
					<-stolen
				}
				next.ServeHTTP(res, req)
			})
		}})
		if w == nil {
			return
		}
		started := w.ask(store.Ephemeral)
		m := w.machine(1)
		eventually(t, "the thief boots", func() bool { return w.boot(m, m.word()) == http.StatusOK })
		close(stolen)
		m.wantOff()
		eventually(t, "the request is launched again", func() bool {
			w.status(started.ID) // anyone who waits for it polls, and that settles it
			return len(w.fleet.all()) == 2
		})
		run := w.job(started.OwnLabel, `curl -s --data-binary done "$BROKER/said/done"`)
		w.told("done")
		w.machine(2).wantOff() // launched in its place
		w.wantHeard("booting, online, job_started " + run + ", job_done")
		m.see("the boot was refused with status 409")
	})
}

func TestWrongAgentIsNotStarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{image: baked, agentHash: strings.Repeat("a", 64)})
	if w == nil {
		return
	}
	w.ask(store.Ephemeral)
	m := w.machine(1)
	m.wantOff()
	m.see("garo: powering off: the agent is not the one that was promised")
	if got := w.answered("POST"); len(got) != 0 {
		t.Errorf("the machine called the API: %v", got)
	}
}

func TestWrongRunnerProgramIsNotStarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{image: image{systemd: true}, programHash: strings.Repeat("a", 64)})
	if w == nil {
		return
	}
	w.ask(store.Ephemeral)
	m := w.machine(1)
	m.wantOff()
	if heard := w.heard(); !strings.HasPrefix(heard, "booting, draining agent_ended") {
		t.Errorf("the API heard: %s\nwant: booting, draining agent_ended", heard)
	}
	runner := m.runner()
	story, err := json.Marshal(runner.History)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(story), "not the one that was promised") {
		t.Errorf("the story does not say why: %s", story)
	}
	if got := w.broker.opened(); got != 0 {
		t.Errorf("the runner program was started %d times", got)
	}
}

// looks is a job that collects all that its user may see.
const looks = `
exec 2>/dev/null
{
	echo "== environment"; env
	echo "== processes"; ps axeww; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\0' '\n'
	echo "== files"; find /run /var/lib/cloud /opt/garo /opt/actions-runner /home /root /tmp /machine /etc/systemd -type f -readable -size -256k -exec cat {} +
	echo "== directories"; ls -la /run/garo /opt/garo
	echo "== metadata"
	token=$(curl -s --max-time 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
	echo "token: $token"
	curl -s --max-time 5 -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/user-data
	echo "curl: $?"
} >look
curl -s --data-binary @look "$BROKER/said/look"`

func TestJobSeesNoSecret(t *testing.T) {
	t.Parallel()
	hide := func(tools ...string) string {
		var text strings.Builder
		for _, tool := range tools {
			for _, dir := range []string{"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"} {
				text.WriteString("rm -f " + dir + tool + "\n")
			}
		}
		return text.String()
	}
	for _, c := range []struct {
		closed string // by what the metadata service is closed; empty: by nothing
		before string
	}{
		{"nft", hide("ip")},
		{"iptables", hide("nft", "ip")},
		{"ip", hide("nft", "iptables")},
		{"", hide("nft", "iptables", "ip")},
	} {
		name := "MetadataClosedBy-" + c.closed
		if c.closed == "" {
			name = "MetadataOpen"
		}
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(c.closed); c.closed != "" && err != nil {
				t.Logf("NOT TESTED: %s is not installed", c.closed)
				return
			}
			img := baked
			img.before = c.before
			w := newWorld(t, options{image: img})
			if w == nil {
				return
			}
			started := w.ask(store.Ephemeral)
			w.job(started.OwnLabel, looks+"\n"+waits)
			look := w.told("look")
			m := w.machine(1)
			w.told("started")
			for _, want := range []string{"GITHUB_RUN_ID=", "Runner.Listener", agentCommand, "== metadata"} {
				if !strings.Contains(look, want) {
					t.Errorf("the job did not see %q, so it looked at nothing", want)
				}
			}
			before, metadata, _ := strings.Cut(look, "== metadata")
			nonce := regexp.MustCompile(`"nonce":"([^"]+)"`).FindStringSubmatch(m.state(t))
			if len(nonce) != 2 {
				t.Fatal("the agent's state has no nonce")
			}
			word := string(m.userData[strings.LastIndexByte(string(m.userData), ' ')+1:])
			for what, hidden := range map[string]string{
				"T": m.token(), "T, encoded": word, "S": w.session(m), "the nonce": nonce[1], "the credential": pat, "the operator's token": operator,
			} {
				if strings.Contains(before, hidden) {
					t.Errorf("the job sees %s", what)
				}
			}
			open := strings.Contains(metadata, word)
			switch {
			case open && c.closed != "":
				t.Errorf("the job reads the user data")
			case !open && c.closed == "":
				t.Errorf("the job does not read the user data of an open service, so it looked at nothing: %s", metadata)
			case c.closed != "":
				m.see("metadata service closed to the runner's user")
				m.see("by=" + c.closed)
			default:
				m.see("the metadata service is open to the runner's user")
			}
			if got := w.boot(m, ""); got != http.StatusUnauthorized {
				t.Errorf("boot with the token that was used = %d, want 401", got)
			}
		})
	}
}

// state is what the agent keeps.
func (m *machine) state(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(m.init.Process.Pid) + "/root/run/garo/state")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
