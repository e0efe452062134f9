package api_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// vouched is a world in which a launch is vouched, and the runner of that launch, which
// has its config.
func vouched(t *testing.T) (*world, store.Runner) {
	t.Helper()
	w := newWorld(t)
	w.trust = simidentity.Own().Trust()
	w.handler = api.New(w.config())
	run := w.intent(w.start(workflowToken, apitype.Start{}).ID)
	run.Launch.Vouched = true
	w.put(&run)
	return w, run
}

// ready brings the runner of a vouched launch to its config.
func (w *world) ready(run store.Runner) store.Runner {
	w.Helper()
	w.launched(run.ID, instanceID)
	return w.configured(run.ID)
}

// machineOf is what AWS says of the machine of a runner.
func machineOf(run store.Runner) identity.Document {
	return identity.Document{AccountID: run.Account, Region: run.Region, InstanceID: instanceID, ImageID: run.Launch.Image, InstanceType: run.Placement().InstanceType}
}

// boots boots with a word of AWS.
func (w *world) boots(run store.Runner, nonce, instance, word string) answer {
	w.Helper()
	return w.raw("POST", "/runners/"+run.ID+"/boot", "", apitype.Boot{Token: w.bootToken(run), Nonce: nonce, InstanceID: instance, Identity: word})
}

var thiefsNonce = strings.Repeat("t", 26)

// words are what a thief of a boot token may have as AWS's word for its machine, but for a
// copy of it.
func words(run store.Runner) map[string]string {
	said, s, thief := machineOf(run), simidentity.Own(), simidentity.New()
	other := func(change func(*identity.Document)) string {
		d := said
		change(&d)
		return s.Sign(d)
	}
	content := simidentity.Content(said)
	return map[string]string{
		"None":                  "",
		"NotSigned":             string(content),
		"Siblings":              other(func(d *identity.Document) { d.InstanceID = "i-0fedcba9876543210" }),
		"AnotherAccounts":       other(func(d *identity.Document) { d.AccountID = "999988887777" }),
		"AnotherRegions":        other(func(d *identity.Document) { d.Region = "eu-central-1" }),
		"AnotherSigners":        thief.Sign(said),
		"WithItsOwnCertificate": simidentity.Encode(simidentity.Signed(content, thief.Certificate, thief.SignerInfo(content))),
		"Nonsense":              "AAAA",
		"TooLong":               strings.Repeat("A", identity.MaxSize+1),
	}
}

func TestThiefWithoutAWSsWordChangesNothing(t *testing.T) {
	for _, when := range []string{"before the launch is recorded", "before the config", "before the machine", "after the machine"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, run := vouched(t)
				switch when {
				case "before the config":
					run = w.launched(run.ID, instanceID)
				case "before the machine":
					run = w.ready(run)
				case "after the machine":
					run = w.ready(run)
					w.boots(run, nonce, instanceID, simidentity.Own().Sign(machineOf(run)))
				}
				trace := []string{"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
				wrong := w.raw("POST", "/runners/"+run.ID+"/boot", "", apitype.Boot{Token: "x", Nonce: nonce, InstanceID: instanceID}, trace...)
				before, n := w.runner(run.ID), 0
				for name, word := range words(run) {
					n++
					call := apitype.Boot{Token: w.bootToken(run), Nonce: thiefsNonce, InstanceID: instanceID, Identity: word}
					if a := w.raw("POST", "/runners/"+run.ID+"/boot", "", call, trace...); a.status != http.StatusUnauthorized || string(a.body) != string(wrong.body) {
						t.Errorf("%s: boot = %d %s, want the same 401 as of a wrong token", name, a.status, a.body)
					}
				}
				if got := w.runner(run.ID); got.Version != before.Version {
					t.Errorf("runner = %s %+v, want it as it was", got.State, got.Boot)
				}
				if got := w.alarms(); len(got) != n || slices.ContainsFunc(got, func(a string) bool { return a != string(store.AlarmIdentity) }) {
					t.Errorf("alarms = %q, want %d of %s", got, n, store.AlarmIdentity)
				}
			})
		})
	}
}

func TestMachineWithAWSsWordBoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, run := vouched(t)
		word := simidentity.Own().Sign(machineOf(run))
		if a := w.boots(run, nonce, instanceID, word); a.status != http.StatusTooEarly || w.runner(run.ID).Boot != (store.Boot{}) {
			t.Errorf("boot before the launch is recorded = %d %s, want 425 and nothing bound", a.status, a.body)
		}
		run = w.ready(run)
		if a := w.boots(run, nonce, instanceID, word); a.status != http.StatusOK {
			t.Errorf("boot = %d %s, want 200", a.status, a.body)
		}
		if got := w.alarms(); len(got) != 0 {
			t.Errorf("alarms = %q, want none", got)
		}
	})
}

// AWS says other things of a machine that was restarted; its metadata service may be away.
func TestBoundMachineIsAnsweredWhateverAWSSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, run := vouched(t)
		run = w.ready(run)
		first := w.boots(run, nonce, instanceID, simidentity.Own().Sign(machineOf(run)))
		for name, word := range words(run) {
			if a := w.boots(run, nonce, instanceID, word); a.status != http.StatusOK || string(a.body) != string(first.body) {
				t.Errorf("%s: boot of the bound machine = %d %s, want the first answer again", name, a.status, a.body)
			}
		}
		if got := w.alarms(); len(got) != 0 {
			t.Errorf("alarms = %q, want none", got)
		}
	})
}

func TestSecondNonceWithACopiedWordEndsTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, run := vouched(t)
		run = w.ready(run)
		copied := simidentity.Own().Sign(machineOf(run))
		w.boots(run, nonce, instanceID, copied)
		if a := w.boots(run, thiefsNonce, instanceID, copied); a.status != http.StatusConflict {
			t.Errorf("boot with another nonce and a copied word = %d %s, want 409", a.status, a.body)
		}
		if got := w.runner(run.ID); got.State != store.RunnerDraining || got.End.Code != store.EndCompromised {
			t.Errorf("runner is %s for %+v, want it draining as compromised", got.State, got.End)
		}
		if got := w.alarms(); !slices.Equal(got, []string{string(store.AlarmCompromised)}) {
			t.Errorf("alarms = %q, want %s", got, store.AlarmCompromised)
		}
	})
}

// A copied word opens nothing without the token, and the token of another placement is none.
func TestCopiedWordOpensNothingWithoutTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, run := vouched(t)
		run = w.ready(run)
		copied := simidentity.Own().Sign(machineOf(run))
		next := run
		next.Index++
		for name, token := range map[string]string{"none": "x", "of another index": w.bootToken(next)} {
			a := w.raw("POST", "/runners/"+run.ID+"/boot", "", apitype.Boot{Token: token, Nonce: thiefsNonce, InstanceID: instanceID, Identity: copied})
			if a.status != http.StatusUnauthorized {
				t.Errorf("boot with the token %s and a copied word = %d %s, want 401", name, a.status, a.body)
			}
		}
		if got := w.runner(run.ID); got.Boot != (store.Boot{}) || len(w.alarms()) != 0 {
			t.Errorf("boot = %+v, alarms %q; want nothing of either: anybody can send that", got.Boot, w.alarms())
		}
	})
}

// A launch that took effect twice has two machines with the token, for both of which AWS
// vouches.
func TestAnotherMachineWithTheTokenIsRefusedAndEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, run := vouched(t)
		twin := machineOf(run)
		twin.InstanceID = "i-0fedcba9876543210"
		word := simidentity.Own().Sign(twin)
		if a := w.boots(run, thiefsNonce, twin.InstanceID, word); a.status != http.StatusTooEarly {
			t.Errorf("boot before the launch is recorded = %d %s, want 425", a.status, a.body)
		}
		run = w.ready(run)
		if a := w.boots(run, thiefsNonce, twin.InstanceID, word); a.status != http.StatusUnauthorized {
			t.Errorf("boot of the other machine = %d %s, want 401", a.status, a.body)
		}
		if a := w.boots(run, nonce, instanceID, simidentity.Own().Sign(machineOf(run))); a.status != http.StatusOK {
			t.Errorf("boot of the machine = %d %s, want 200", a.status, a.body)
		}
		if got := w.alarms(); !slices.Equal(got, []string{string(store.AlarmIdentity)}) {
			t.Errorf("alarms = %q, want %s", got, store.AlarmIdentity)
		}
	})
}

func TestMachineThatIsNotAsItWasLaunchedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, run := vouched(t)
		run = w.ready(run)
		said := machineOf(run)
		said.ImageID, said.InstanceType = "ami-9", "x2.large"
		if a := w.boots(run, nonce, instanceID, simidentity.Own().Sign(said)); a.status != http.StatusOK {
			t.Errorf("boot = %d %s, want 200: the id decides", a.status, a.body)
		}
		if got := w.logged("a machine is not as it was launched"); len(got) != 1 || got[0]["image"] != "ami-9" || got[0]["type"] != "x2.large" {
			t.Errorf("told %v, want one line with the image and the type", got)
		}
	})
}

// A runner that was launched by the version before has an agent that sends no word of AWS.
// An agent of this version, which it can have from its image, sends one.
func TestLaunchOfTheVersionBeforeBootsWithoutAWSsWord(t *testing.T) {
	for name, word := range map[string]string{"agent of the version before": "", "agent of this version": "AAAA"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, run := vouched(t)
				run = w.ready(run)
				run.Launch.Vouched = false
				w.put(&run)
				if a := w.boots(run, nonce, instanceID, word); a.status != http.StatusOK || len(w.alarms()) != 0 {
					t.Errorf("boot = %d %s, alarms %q; want 200 and none", a.status, a.body, w.alarms())
				}
			})
		})
	}
}

// The token is checked before anything of the message is read, and that before anything
// but the runner is.
func TestBootWithoutAWSsWordCostsOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, run := vouched(t)
		run = w.ready(run)
		if got := w.counted(func() { w.boots(run, thiefsNonce, instanceID, "") }); got != "get 1" {
			t.Errorf("the store was called: %s, want get 1", got)
		}
	})
}
