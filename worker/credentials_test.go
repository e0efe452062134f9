package worker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// The credentials of an account that has two.
const (
	firstApp  = "/app/7/71"
	secondApp = "/app/8/81"
)

// withTwo gives the account two credentials, and GitHub an answer to registrations by each.
func (w *world) withTwo(answer func(by string) error) {
	a := w.accounts[account]
	a.GitHub = store.GitHubCredentials{{Parameter: "/app/one", AppID: 7, InstallationID: 71}, {Parameter: "/app/two", AppID: 8, InstallationID: 81}}
	w.accounts[account] = a
	w.github.answer = func(int, string) (bool, error) {
		err := answer(w.github.scopes[len(w.github.scopes)-1].Credential)
		return err == nil, err
	}
}

// registeredBy returns the credentials of all calls so far.
func (w *world) registeredBy() (all []string) {
	for _, s := range w.github.scopes {
		all = append(all, s.Credential)
	}
	return all
}

func works(string) error { return nil }

func TestStartsAreRegisteredWithBothCredentials(t *testing.T) {
	inWorld(t, func(w *world) {
		w.withTwo(works)
		for range 6 {
			r := w.request()
			w.start(r)
			run := w.runnerOf(r.ID)
			if by := w.github.scopes[len(w.github.scopes)-1].Credential; run.Config.N != 1 || run.RegisteredBy() != by {
				t.Errorf("config %d, recorded as of %q, registered by %q", run.Config.N, run.RegisteredBy(), by)
			}
		}
		by := w.registeredBy()
		slices.Sort(by)
		if want := []string{firstApp, firstApp, firstApp, secondApp, secondApp, secondApp}; !slices.Equal(by, want) {
			t.Errorf("registered by %q, want %q", by, want)
		}
		scope, err := store.Read[store.Points](w.Context(), w.store.Store, store.ScopePoints("7"))
		if err != nil || scope.Leased != 6 {
			t.Errorf("%d leases of the scope, %v; want 6", scope.Leased, err)
		}
	})
}

// TestRefusedCredentialIsPassedOver has GitHub refuse one credential, in each way that it may:
// the other one registers, and those that come within ten minutes do not try the first.
// The answer to a registration comes when its runner drains already, and has no use for it.
func TestRefusalIsRememberedThoughItsRunnerDrains(t *testing.T) {
	inWorld(t, func(w *world) {
		w.withTwo(func(by string) error {
			if by == firstApp {
				return &github.Error{Kind: github.ErrDenied, Status: 401, Said: "Bad credentials"}
			}
			return nil
		})
		first := w.request()
		w.fleet.answer = func(n int, _ fleet.Launch, launch func()) error {
			if launch(); n == 1 {
				time.Sleep(time.Second) // by then its lease is usable
				w.apply(w.caseOf(first).Drain(time.Now(), store.NewEnd(store.EndStopped)))
			}
			return nil
		}
		process := worker.New(w.config)
		w.handleBy(process, queue.StartOf(first))
		if run := w.runnerOf(first.ID); run.State != store.RunnerDraining || !slices.Equal(w.registeredBy(), []string{firstApp}) {
			t.Fatalf("the first runner is %s and was registered by %q, want it draining, and one try", run.State, w.registeredBy())
		}
		for range 3 {
			w.handleBy(process, queue.StartOf(w.request()))
		}
		if by := w.registeredBy(); !slices.Equal(by, []string{firstApp, secondApp, secondApp, secondApp}) {
			t.Errorf("registered by %q, want the refused one once, and then the other one", by)
		}
	})
}

func TestRefusedCredentialIsPassedOver(t *testing.T) {
	for name, refusal := range map[string]*github.Error{
		"Revoked":   {Kind: github.ErrDenied, Status: 401, Said: "Bad credentials"},
		"Suspended": {Kind: github.ErrDenied, Status: 403, Said: "This installation has been suspended"},
		"NoKey":     {Kind: github.ErrDenied},
		"SeesNot":   {Kind: github.ErrNotFound, Status: 404},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.withTwo(func(by string) error {
					if by == firstApp {
						return refusal
					}
					return nil
				})
				process := worker.New(w.config)
				ready := func() {
					t.Helper()
					r := w.request()
					if failed := w.handleBy(process, queue.StartOf(r)); failed != 0 {
						t.Errorf("%d messages failed, want none", failed)
					}
					if run := w.runnerOf(r.ID); run.Config.N == 0 || run.RegisteredBy() != secondApp {
						t.Errorf("config %d by %q, want one by %s", run.Config.N, run.RegisteredBy(), secondApp)
					}
				}
				for range 4 {
					ready()
				}
				tried := func() int {
					return len(slices.DeleteFunc(w.registeredBy(), func(by string) bool { return by != firstApp }))
				}
				if tried() != 1 {
					t.Errorf("the refused credential was tried %d times, want once", tried())
				}
				time.Sleep(11 * time.Minute)
				ready()
				ready()
				if tried() != 2 {
					t.Errorf("it was tried %d times 11 minutes later, want once more", tried())
				}
			})
		})
	}
}

func TestMachineEndsWhenAllCredentialsAreRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		w.withTwo(func(string) error { return &github.Error{Kind: github.ErrDenied, Status: 401} })
		process := worker.New(w.config)
		for _, calls := range []int{2, 3} { // the second machine tries one of them
			r := w.request()
			w.handleBy(process, queue.StartOf(r))
			w.state(r, store.Failed)
			if got := w.requestNow(r.ID); got.Error.Code != store.EndMintDenied || !strings.Contains(got.Error.Text, "credential") {
				t.Errorf("the request ended with %+v, want mint_denied", got.Error)
			}
			if len(w.github.calls) != calls {
				t.Errorf("%d registrations were tried, want %d", len(w.github.calls), calls)
			}
		}
		if !w.alarmed(store.AlarmGitHub) {
			t.Error("nobody was alarmed")
		}
	})
}

// TestOtherCredentialRegistersWhileOneIsLimited has GitHub ask to leave one alone.
func TestOtherCredentialRegistersWhileOneIsLimited(t *testing.T) {
	inWorld(t, func(w *world) {
		until := time.Now().Add(20 * time.Minute)
		w.withTwo(func(by string) error {
			if by == firstApp && time.Now().Before(until) {
				return &github.Error{Kind: github.ErrLimited, Status: 403, RetryAt: until}
			}
			return nil
		})
		began := time.Now()
		r := w.request()
		w.start(r)
		w.follow(1)
		if run := w.runnerOf(r.ID); run.Config.N != 1 || run.RegisteredBy() != secondApp || time.Since(began) > 5*time.Second {
			t.Errorf("config %d by %q after %s, want one by %s at once", run.Config.N, run.RegisteredBy(), time.Since(began), secondApp)
		}
		if rests := w.points(); !rests.RestsUntil.Equal(until) {
			t.Errorf("the first rests until %s, want %s", rests.RestsUntil, until)
		}
		w.start(w.request())
		if by := w.registeredBy(); !slices.Equal(by, []string{firstApp, secondApp, secondApp}) {
			t.Errorf("registered by %q, want the first left alone", by)
		}
	})
}

// TestLeaseOfACredentialThatIsRegisteredNoMoreIsReplaced has the registration name another
// credential while a machine waits for its registration.
func TestLeaseOfACredentialThatIsRegisteredNoMoreIsReplaced(t *testing.T) {
	inWorld(t, func(w *world) {
		w.leasedUntil(time.Now().Add(30 * time.Second))
		r := w.request()
		w.start(r)
		if l := w.runnerOf(r.ID).Lease; l.Credential != account+store.DefaultParameter {
			t.Fatalf("leased %+v, want a lease of the token", l)
		}
		w.withTwo(works)
		w.follow(1)
		if run := w.runnerOf(r.ID); run.Config.N != 1 || run.RegisteredBy() != firstApp {
			t.Errorf("config %d by %q, want one by %s", run.Config.N, run.RegisteredBy(), firstApp)
		}
	})
}
