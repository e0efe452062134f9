package api_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

// launchedFor brings a request to a launched runner with a config.
func (w *world) launchedFor(body apitype.Start) store.Runner {
	w.Helper()
	run := w.intent(w.start(workflowToken, body).ID)
	w.launched(run.ID, instanceID)
	return w.configured(run.ID)
}

func TestBootExchangesTheTokenForTheConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		run := w.launchedFor(apitype.Start{})
		a := w.boot(run, nonce, instanceID)
		var got apitype.Booted
		if err := json.Unmarshal(a.body, &got); err != nil || a.status != http.StatusOK {
			t.Fatalf("boot = %d %s", a.status, a.body)
		}
		lock := w.lock(run.Lock)
		want := apitype.Booted{
			Session: got.Session, Config: configCanary + "-1", N: 1, Mode: "shared", HeartbeatS: 20, IdleS: 600, Lock: run.Lock,
			Programs: map[string]apitype.RunnerProgram{"amd64": runnerProgram},
			Orders:   apitype.Orders{Order: "go", Exp: got.Exp, HardS: 6 * 3600},
		}
		if !reflect.DeepEqual(got, want) || !got.Exp.Equal(lock.Exp) || !strings.HasPrefix(got.Session, "garo_s_") {
			t.Errorf("boot = %+v, want %+v", got, want)
		}
		if run = w.runner(run.ID); run.State != store.RunnerBooting || run.Boot.At.IsZero() || run.Boot.InstanceID != instanceID {
			t.Errorf("runner = %s %+v, want it booting", run.State, run.Boot)
		}
	})
}

func TestBootAnswersTheEnvironmentOfTheRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.accounts.byID[accountID]
		a.Environment = map[string]string{"https_proxy": "http://proxy.test:3128"}
		w.accounts.byID[accountID] = a
		run := w.launchedFor(apitype.Start{})
		boot := func() (apitype.Booted, answer) {
			t.Helper()
			ans := w.boot(run, nonce, instanceID)
			var got apitype.Booted
			if err := json.Unmarshal(ans.body, &got); err != nil {
				t.Fatal(err)
			}
			return got, ans
		}
		if got, ans := boot(); ans.status != http.StatusOK || !reflect.DeepEqual(got.Environment, a.Environment) {
			t.Errorf("boot = %d %s, want the environment %v", ans.status, ans.body, a.Environment)
		}
		w.accounts.err = errDown
		if _, ans := boot(); ans.status != http.StatusServiceUnavailable {
			t.Errorf("boot while no registration can be read = %d %s, want 503: the machine asks again", ans.status, ans.body)
		}
		w.accounts.err = nil
		delete(w.accounts.byID, accountID)
		if _, ans := boot(); ans.status != http.StatusTooEarly {
			t.Errorf("boot of a machine whose account was removed = %d %s, want 425: nothing says what it is to be", ans.status, ans.body)
		}
		w.accounts.byID[accountID] = a
		if got, ans := boot(); ans.status != http.StatusOK || !reflect.DeepEqual(got.Environment, a.Environment) {
			t.Errorf("boot once the account is registered again = %d %s, want the environment", ans.status, ans.body)
		}
	})
}

func TestLostBootAnswersAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		run := w.launchedFor(apitype.Start{})
		first := w.boot(run, nonce, instanceID)
		for range 3 {
			if a := w.boot(run, nonce, instanceID); a.status != http.StatusOK || string(a.body) != string(first.body) {
				t.Errorf("repeated boot = %d %s\nwant %s", a.status, a.body, first.body)
			}
		}
		if got := w.runner(run.ID); len(got.Names) != 1 {
			t.Errorf("names = %+v, want one registration", got.Names)
		}
	})
}

func TestBootWaitsUntilAllIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		run := w.intent(w.start(workflowToken, apitype.Start{}).ID)
		early := func(what string) {
			t.Helper()
			if a := w.boot(run, nonce, instanceID); a.status != http.StatusTooEarly || a.header.Get("Retry-After") != "2" {
				t.Errorf("boot %s = %d %s, want 425 with Retry-After", what, a.status, a.body)
			}
		}
		early("before the instance is recorded")
		w.launched(run.ID, instanceID)
		early("before the config is recorded")
		w.configured(run.ID)
		if a := w.boot(run, nonce, instanceID); a.status != http.StatusOK {
			t.Errorf("boot = %d %s, want 200", a.status, a.body)
		}
	})
}

func TestSecondNonceEndsTheMachine(t *testing.T) {
	for name, before := range map[string]int{"before the machine's answer": 0, "after it": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				started := w.start(workflowToken, apitype.Start{})
				run := w.intent(started.ID)
				if before == 0 {
					w.boot(run, nonce, instanceID) // bound, and told to come again
				}
				w.launched(run.ID, instanceID)
				w.configured(run.ID)
				for range before {
					w.boot(run, nonce, instanceID)
				}
				thief := strings.Repeat("t", 26)
				a := w.boot(run, thief, instanceID)
				if p := a.problem(t); a.status != http.StatusConflict || p.Code != apitype.CodeCompromised {
					t.Errorf("boot with another nonce = %d %+v, want 409", a.status, p)
				}
				if got := w.runner(run.ID); got.State != store.RunnerDraining || got.End.Code != store.EndCompromised || w.lock(run.Lock).State != store.LockDraining {
					t.Errorf("runner = %s %+v, lock %s; want both draining", got.State, got.End, w.lock(run.Lock).State)
				}
				if got := w.alarms(); !slices.Equal(got, []string{string(store.AlarmCompromised)}) {
					t.Errorf("alarms = %q, want one of %s", got, store.AlarmCompromised)
				}
				for _, n := range []string{nonce, thief} {
					if a := w.boot(run, n, instanceID); a.status != http.StatusGone {
						t.Errorf("boot afterwards = %d %s, want 410", a.status, a.body)
					}
				}
			})
		})
	}
}

func TestBootOfAnotherInstanceIsACompromise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		run := w.launchedFor(apitype.Start{})
		if a := w.boot(run, nonce, "i-0stolen"); a.status != http.StatusConflict {
			t.Errorf("boot of another instance = %d %s, want 409", a.status, a.body)
		}
		if got := w.alarms(); len(got) != 1 {
			t.Errorf("alarms = %q, want one", got)
		}
	})
}

func TestThievesAtTheSameTimeNeverBothBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		run := w.launchedFor(apitype.Start{})
		w.fate = func(op string, _ int) storetest.Fate {
			if op == "commit" { // the thief comes between the machine's read and its commit
				w.fate = nil
				if a := w.boot(run, strings.Repeat("t", 26), instanceID); a.status != http.StatusOK {
					t.Errorf("first boot = %d, want 200", a.status)
				}
			}
			return storetest.Pass
		}
		if a := w.boot(run, nonce, instanceID); a.status != http.StatusConflict {
			t.Errorf("second boot = %d %s, want 409", a.status, a.body)
		}
		if got := w.runner(run.ID).State; got != store.RunnerDraining {
			t.Errorf("runner is %s, want draining", got)
		}
	})
}

func TestBootAfterTheLimitIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		run := w.launchedFor(apitype.Start{})
		time.Sleep(time.Until(w.lock(run.Lock).BootBy))
		if a := w.boot(run, nonce, instanceID); a.status != http.StatusGone {
			t.Errorf("boot = %d %s, want 410", a.status, a.body)
		}
	})
}

func TestBootOfARunnerThatTheLockNoLongerNamesIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		run := w.launchedFor(apitype.Start{})
		lock := w.lock(run.Lock)
		lock.Runner = strings.Repeat("b", 26)
		w.put(&lock)
		if a := w.boot(run, nonce, instanceID); a.status != http.StatusGone {
			t.Errorf("boot = %d %s, want 410", a.status, a.body)
		}
	})
}

// The lock goes to another runner between the boot's read and its commit.
func TestBootLosesAgainstAChangeOfTheLock(t *testing.T) {
	for _, repeated := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			run := w.launchedFor(apitype.Start{})
			if repeated {
				w.boot(run, nonce, instanceID)
			}
			w.fate = func(op string, _ int) storetest.Fate {
				if op == "commit" {
					w.fate = nil
					lock := w.lock(run.Lock)
					lock.Runner = strings.Repeat("b", 26)
					w.put(&lock)
				}
				return storetest.Pass
			}
			if a := w.boot(run, nonce, instanceID); a.status != http.StatusGone {
				t.Errorf("boot (repeated %t) = %d %s, want 410", repeated, a.status, a.body)
			}
		})
	}
}

func TestWrongBootTokenLooksLikeAnAbsentRunner(t *testing.T) {
	w := newWorld(t)
	run := w.launchedFor(apitype.Start{})
	trace := []string{"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	boot := func(id, token string) answer {
		return w.raw("POST", "/runners/"+id+"/boot", "", apitype.Boot{Token: token, Nonce: nonce, InstanceID: instanceID}, trace...)
	}
	next, err := w.keys.Boot("k1", run.ID, run.Index+1)
	if err != nil {
		t.Fatal(err)
	}
	absent := strings.Repeat("a", 26)
	ofAbsent, err := w.keys.Boot("k1", absent, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := boot(absent, w.bootToken(run))
	if want.status != http.StatusUnauthorized {
		t.Fatalf("boot of an absent runner = %d, want 401", want.status)
	}
	for name, got := range map[string]answer{
		"wrong token":        boot(run.ID, "x"),
		"token of an absent": boot(absent, ofAbsent.Reveal()),
		"token of an index":  boot(run.ID, next.Reveal()),
		"cut token":          boot(run.ID, w.bootToken(run)[1:]),
		"no id":              boot("x", w.bootToken(run)),
		"a request's id":     boot(run.Request, w.bootToken(run)),
		"a token of no form": boot(run.ID, strings.Repeat("-", 43)),
	} {
		if got.status != want.status || string(got.body) != string(want.body) {
			t.Errorf("%s = %d %s\nwant %d %s", name, got.status, got.body, want.status, want.body)
		}
	}
	if got := w.runner(run.ID); got.Boot != (store.Boot{}) {
		t.Errorf("boot = %+v, want nothing bound", got.Boot)
	}
}

func TestUnknownKeyOpensNothing(t *testing.T) {
	w := newWorld(t)
	run := w.launchedFor(apitype.Start{})
	token := w.bootToken(run)
	run.Launch.KeyID = "k9"
	w.put(&run)
	a := w.raw("POST", "/runners/"+run.ID+"/boot", "", apitype.Boot{Token: token, Nonce: nonce, InstanceID: instanceID})
	if a.status != http.StatusUnauthorized {
		t.Errorf("boot by an unknown key = %d, want 401", a.status)
	}
}

// TestMachineAsksAgainWhenItsConfigIsToBeThere has GitHub ask to wait: the machine learns
// for how long, within bounds, and not all machines learn the same. A lease is of one machine
// alone, which learns when it is for.
func TestMachineAsksAgainWhenItsConfigIsToBeThere(t *testing.T) {
	const callsAtOnce = 40 // what a process answers one machine at once
	for _, c := range []struct {
		wait, lease time.Duration
		least, most int
	}{{0, 0, 2, 2}, {8 * time.Second, 0, 8, 10}, {time.Minute, 0, 15, 18}, {5 * time.Second, 6600 * time.Millisecond, 7, 7}, {0, time.Second, 2, 2}, {time.Minute, time.Minute, 15, 15}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			run := w.intent(w.start(workflowToken, apitype.Start{}).ID)
			w.launched(run.ID, instanceID)
			p := store.Pause{By: run.Claim.By, Wait: store.Wait{For: store.WaitGitHub, Until: time.Now().Add(c.wait)}}
			if c.lease > 0 {
				p.Lease = store.Lease{Credential: "c", At: time.Now().Add(c.lease)}
			}
			w.apply(w.caseOf(run.ID).Pause(time.Now(), p))
			seen := map[int]bool{}
			for range callsAtOnce {
				a := w.boot(run, nonce, instanceID)
				after, err := strconv.Atoi(a.header.Get("Retry-After"))
				if err != nil || a.status != http.StatusTooEarly || after < c.least || after > c.most {
					t.Fatalf("boot = %d, Retry-After %q; want 425, and %d to %d", a.status, a.header.Get("Retry-After"), c.least, c.most)
				}
				seen[after] = true
			}
			if len(seen) < c.most-c.least+1 {
				t.Errorf("%d machines come again after %v, want each of %d to %d", callsAtOnce, seen, c.least, c.most)
			}
			by, want := w.lock(run.Lock).BootBy, time.Now().Add(w.limits.ConfigLimit)
			if !by.Equal(want) {
				t.Errorf("boot_by is %v, want it raised once to %v", by, want)
			}
		})
	}
}
