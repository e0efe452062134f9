package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var allParts = strings.Join(apitype.OutfitParts, ",")

// knowing makes the boot call of an agent that knows some parts of an outfit.
func (w *world) knowing(run store.Runner, parts string) (apitype.Booted, answer) {
	w.Helper()
	ans := w.raw("POST", "/runners/"+run.ID+"/boot", "", apitype.Boot{Token: w.bootToken(run), Nonce: nonce, InstanceID: instanceID}, apitype.OptionsHeader, parts)
	var got apitype.Booted
	if err := json.Unmarshal(ans.body, &got); err != nil {
		w.Fatal(err)
	}
	return got, ans
}

// scripts has the API read set-up scripts by read.
func (w *world) scripts(read func(path string) ([]byte, error)) {
	cfg := w.config()
	cfg.Script = func(_ context.Context, path string) ([]byte, error) { return read(path) }
	w.handler = api.New(cfg)
}

// wants sets what the account wants of its machines.
func (w *world) wants(o store.Outfit) {
	a := w.accounts.byID[accountID]
	a.Outfit = o
	w.accounts.byID[accountID] = a
}

func TestBootAnswersTheOutfitOfTheRegistration(t *testing.T) {
	const script, path = "#!/bin/sh\necho <inline> & done\n", "/garo/setup/build"
	long := []byte("#!/bin/sh\n" + strings.Repeat("# <&>\n", 9000))
	sum := func(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
	atPath := store.Setup{Path: path, SHA256: sum(long), LimitS: 30}
	for name, c := range map[string]struct {
		wants store.Outfit
		want  apitype.Outfit
		there []byte // at the path
	}{
		"Nothing": {},
		"AScript": {
			wants: store.Outfit{Setup: store.Setup{Script: script}},
			want:  apitype.Outfit{Setup: &apitype.Setup{Script: []byte(script), SHA256: sum([]byte(script)), LimitS: store.DefaultSetupS}},
		},
		"AScriptInSSM":      {store.Outfit{Setup: atPath}, apitype.Outfit{Setup: &apitype.Setup{Script: long, SHA256: sum(long), LimitS: 30}}, long},
		"AScriptThatIsGone": {store.Outfit{Setup: atPath}, apitype.Outfit{Setup: &apitype.Setup{SHA256: sum(long), LimitS: 30}}, nil},
		"TheRest": {
			wants: store.Outfit{JobUser: store.JobUser{Sudo: true, Groups: []string{"docker"}}, Packages: []string{"git"}, Hooks: store.Hooks{Started: "/opt/s.sh"}, InstanceStore: store.Mount, JobsRole: true},
			want:  apitype.Outfit{JobUser: &apitype.JobUser{Sudo: true, Groups: []string{"docker"}}, Packages: []string{"git"}, Hooks: &apitype.Hooks{Started: "/opt/s.sh"}, InstanceStore: "mount", JobsRole: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.scripts(func(at string) ([]byte, error) {
					if at != path {
						t.Errorf("a script at %s is asked for, want %s", at, path)
					}
					return c.there, nil
				})
				w.wants(c.wants)
				run := w.launchedFor(apitype.Start{})
				got, ans := w.knowing(run, allParts)
				if ans.status != http.StatusOK || !reflect.DeepEqual(got.Outfit, c.want) {
					t.Errorf("boot = %d with %+v, want 200 with %+v", ans.status, got.Outfit, c.want)
				}
				if most := 256 << 10; len(ans.body) > most {
					t.Errorf("the answer has %d bytes, and agents read %d", len(ans.body), most)
				}
			})
		})
	}
}

func TestBootWaitsForAScriptThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down error
		w := newWorld(t)
		w.scripts(func(string) ([]byte, error) { return []byte("#!/bin/sh\n"), down })
		w.wants(store.Outfit{Setup: store.Setup{Path: "/garo/setup/build", SHA256: strings.Repeat("a", 64)}})
		run := w.launchedFor(apitype.Start{})
		down = errDown
		if _, ans := w.knowing(run, allParts); ans.status != http.StatusServiceUnavailable {
			t.Errorf("boot while SSM is away = %d, want 503: the machine asks again", ans.status)
		}
		down = nil
		if _, ans := w.knowing(run, allParts); ans.status != http.StatusOK {
			t.Errorf("boot afterwards = %d, want 200", ans.status)
		}
	})
}

// An agent of a version before would leave out what it does not know, and the job would
// run on a machine that is not what the account wants. It is refused, and nothing of it
// is recorded: its machine ends, and another is launched.
func TestAgentThatDoesNotKnowTheOutfitIsNotBooted(t *testing.T) {
	for known, status := range map[string]int{
		"": http.StatusGone, "packages,job_user": http.StatusGone, "setup": http.StatusGone,
		allParts: http.StatusOK, allParts + ",more": http.StatusOK,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.wants(store.Outfit{Setup: store.Setup{Script: "#!/bin/sh\n"}, JobUser: store.JobUser{Sudo: true}})
			run := w.launchedFor(apitype.Start{})
			_, ans := w.knowing(run, known)
			if ans.status != status {
				t.Errorf("boot of an agent that knows %q = %d, want %d", known, ans.status, status)
			}
			if after := w.runner(run.ID); status == http.StatusGone && !reflect.DeepEqual(after, run) {
				t.Errorf("an agent that knows %q changed its runner: %+v", known, after)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // which is as before for accounts that want nothing
		w := newWorld(t)
		run := w.launchedFor(apitype.Start{})
		if ans := w.boot(run, nonce, instanceID); ans.status != http.StatusOK || strings.Contains(string(ans.body), "outfit") {
			t.Errorf("boot of an old agent = %d %s, want 200 without an outfit", ans.status, ans.body)
		}
	})
}

// Whatever a request says, root runs what the operator wrote and nothing else.
func TestNothingOfARequestReachesTheScript(t *testing.T) {
	for _, field := range []string{"setup", "script", "job_user", "sudo", "packages", "hooks", "instance_store", "jobs_role", "outfit", "environment"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			ans := w.raw("POST", "/start", operatorToken, map[string]any{"account_id": accountID, "repo": "acme/shop", field: "#!/bin/sh"})
			if ans.status != http.StatusUnprocessableEntity || !strings.Contains(string(ans.body), field) {
				t.Errorf("start with %s = %d %s, want 422 that names it", field, ans.status, ans.body)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		const canary = "canary-of-the-request"
		w := newWorld(t)
		o := store.Outfit{Setup: store.Setup{Script: "#!/bin/sh\n"}, JobUser: store.JobUser{Sudo: true, Groups: []string{"docker"}}, Packages: []string{"git"}}
		w.wants(o)
		plain, _ := w.knowing(w.launchedFor(apitype.Start{}), allParts)
		got, ans := w.knowing(w.launchedFor(apitype.Start{Labels: []string{canary}, IdempotencyKey: canary, Mode: store.Shared}), allParts)
		if ans.status != http.StatusOK || !reflect.DeepEqual(got.Outfit, plain.Outfit) {
			t.Errorf("boot = %d with %+v, want what every machine of the account gets: %+v", ans.status, got.Outfit, plain.Outfit)
		}
	})
}
