package worker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestNamesAreNeverUsedTwice(t *testing.T) {
	for name, answer := range map[string]func(n int, name string) (bool, error){
		"taken": func(n int, _ string) (bool, error) {
			return n > 1, map[bool]error{true: &github.Error{Kind: github.ErrNameTaken, Status: 409}}[n == 1]
		},
		"answer lost": func(n int, _ string) (bool, error) {
			return true, map[bool]error{true: &github.Error{Kind: github.ErrUnknown}}[n == 1]
		},
		"not made": func(n int, _ string) (bool, error) {
			return n > 1, map[bool]error{true: &github.Error{Kind: github.ErrUnknown, Status: 502}}[n == 1]
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.github.answer = answer
				r := w.request()
				w.start(r)
				w.follow(2)
				run := w.runnerOf(r.ID)
				if run.Config.N != 2 || len(w.github.calls) != 2 || w.github.calls[0] == w.github.calls[1] {
					t.Errorf("config %d after %v, want the second name", run.Config.N, w.github.calls)
				}
				if got := run.Unused(); len(got) != 1 || got[0].N != 1 {
					t.Errorf("unused names %v, want the first, for the reaper", got)
				}
				if len(w.fleet.byToken) != 1 {
					t.Errorf("%d machines, want 1", len(w.fleet.byToken))
				}
			})
		})
	}
}

func TestGitHubLimitIsWaitedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		until := time.Now().Add(3 * time.Minute)
		w.github.answer = func(n int, _ string) (bool, error) {
			if time.Now().Before(until) {
				return false, &github.Error{Kind: github.ErrLimited, Status: 403, RetryAt: until}
			}
			return true, nil
		}
		r := w.request()
		if failed := w.start(r); failed != 0 {
			t.Errorf("%d messages failed, want none: waiting is not failing", failed)
		}
		run := w.runnerOf(r.ID)
		if run.Wait != store.WaitGitHub || run.Claim.By != "" || len(w.sent) != 1 || w.sent[0].delay < 3*time.Minute-time.Second {
			t.Errorf("runner waits for %q, claim %v, sent %v; want github_limited, no claim and a delayed resume", run.Wait, run.Claim, w.sent)
		}
		w.follow(1)
		if run := w.runnerOf(r.ID); run.Config.N != 1 || len(w.github.calls) != 2 {
			t.Errorf("config %d after %d mints, want config 1: a refused name was never used", run.Config.N, len(w.github.calls))
		}
	})
}

func TestRefusedRegistrationDrainsAndFails(t *testing.T) {
	inWorld(t, func(w *world) {
		w.github.answer = func(int, string) (bool, error) { return false, &github.Error{Kind: github.ErrDenied, Status: 401} }
		r := w.request()
		w.start(r)
		w.state(r, store.Failed)
		got := w.requestNow(r.ID)
		if run := w.runnerOf(r.ID); run.State != store.RunnerDraining || w.lockOf(r).State != store.LockDraining || !w.alarmed(store.AlarmGitHub) {
			t.Errorf("runner %s, lock %s, want both draining, and an alarm", run.State, w.lockOf(r).State)
		}
		if got.Error.Code != store.EndMintDenied || !strings.Contains(got.Error.Text, "credential") {
			t.Errorf("error %v, want registration_refused", got.Error)
		}
	})
}

func TestSharedRunnerRegistersItsLabels(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request(shared, func(r *store.Request) { r.Labels = []string{"gpu", "test1"} })
		w.start(r)
		if want := []string{r.OwnLabel, "spot", "gpu", "test1"}; !slices.Equal(w.github.labels, want) {
			t.Errorf("labels = %v, want %v", w.github.labels, want)
		}
	})
}

func TestNextMintsAFreshConfig(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request(shared)
		w.start(r)
		w.online(r)
		run := w.runnerOf(r.ID)
		m := w.next(r)
		w.handle(m, m)
		w.handle(m)
		got := w.runnerOf(r.ID)
		if got.Config.N != 2 || len(w.github.calls) != 2 || w.github.calls[1] != "garo-test-"+run.ID+"-2" {
			t.Errorf("config %d after mints %v, want config 2 by one more mint", got.Config.N, w.github.calls)
		}
	})
}

func TestEachRefusalIsToldInGitHubsWordsWithWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		err  github.Error
		text []string
	}{
		"OwnerForbidsRunners": {github.Error{Kind: github.ErrForbidden, Status: 403, Said: "Forbidden: Repository level self-hosted runners are disabled on this repository"},
			[]string{"acme/shop", "status 403", `GitHub says: "Forbidden: Repository level self-hosted runners are disabled on this repository"`, "Actions settings"}},
		"NoPermission": {github.Error{Kind: github.ErrDenied, Status: 403, Said: "Resource not accessible by personal access token"},
			[]string{"may not register", "status 403", "Resource not accessible by personal access token", "Give it the permission administration: write"}},
		"ForbiddenForAnotherCause": {github.Error{Kind: github.ErrDenied, Status: 403, Said: "Resource protected by organization SAML enforcement. You must grant your token access to this organization."},
			[]string{"refuses the credential", "status 403", "SAML enforcement", "Do as it says", "administration: write"}},
		"ForbiddenWithoutAWord": {github.Error{Kind: github.ErrDenied, Status: 403}, []string{"may not register", "status 403). Give it the permission administration: write"}},
		"Renamed": {github.Error{Kind: github.ErrNotFound, Status: 404, Said: "Not Found"},
			[]string{"acme/shop (id 7)", "status 404", `"Not Found"`, "another name", "access"}},
		"LabelRefused": {github.Error{Kind: github.ErrRefused, Status: 422, Said: "Validation Failed: labels: garo-gpu is not allowed"},
			[]string{"status 422", "garo-gpu is not allowed", "Ask for other labels"}},
		"BadCredential": {github.Error{Kind: github.ErrDenied, Status: 401, Said: "Bad credentials"}, []string{"credential", account, "status 401", "Bad credentials", "Renew"}},
		"NoParameter":   {github.Error{Kind: github.ErrDenied}, []string{"credential", account, "parameter"}},
		"Anything":      {github.Error{Kind: github.ErrRefused, Status: 418, Said: "Short and stout."}, []string{"status 418", `"Short and stout".`}},
		"NothingSaid":   {github.Error{Kind: github.ErrRefused, Status: 418}, []string{"status 418). Check"}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.github.answer = func(int, string) (bool, error) { e := c.err; return false, &e }
				r := w.request()
				w.start(r)
				w.follow(5)
				w.state(r, store.Failed)
				got := w.requestNow(r.ID)
				if got.Error == nil || got.Error.Code != store.EndMintDenied || got.Error.Retryable {
					t.Fatalf("error %v, want registration_refused, not to be tried again", got.Error)
				}
				for _, part := range c.text {
					if !strings.Contains(got.Error.Text, part) {
						t.Errorf("text %q, want %q in it", got.Error.Text, part)
					}
				}
				if len(w.github.calls) != 1 || !w.alarmed(store.AlarmGitHub) {
					t.Errorf("%d registrations, alarm %v; want one, and an alarm", len(w.github.calls), w.alarmed(store.AlarmGitHub))
				}
			})
		})
	}
}

func TestRefusalOfAnOrganizationNamesItAndTheRightThatItTakes(t *testing.T) {
	for name, c := range map[string]struct {
		err  github.Error
		text []string
	}{
		"NoGroup":      {github.Error{Kind: github.ErrNoGroup}, []string{"organization acme", `runner group "garo"`, "Create it", "registration of account " + account}},
		"NoPermission": {github.Error{Kind: github.ErrDenied, Status: 403}, []string{"in acme", "organization_self_hosted_runners: write"}},
		"NotShown":     {github.Error{Kind: github.ErrNotFound, Status: 404}, []string{"organization acme (id 1)", "organization_self_hosted_runners: write"}},
		"Conflict":     {github.Error{Kind: github.ErrConflict, Status: 409}, []string{"Actions settings of the organization"}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.github.answer = func(int, string) (bool, error) { e := c.err; return false, &e }
				r := w.request(inOrganization)
				w.start(r)
				w.follow(100)
				got := w.requestNow(r.ID)
				if got.Error == nil || got.Error.Code != store.EndMintDenied {
					t.Fatalf("error %v, want registration_refused", got.Error)
				}
				for _, part := range c.text {
					if !strings.Contains(got.Error.Text, part) {
						t.Errorf("text %q, want %q in it", got.Error.Text, part)
					}
				}
			})
		})
	}
}

func TestEveryCallForARunnerIsInItsScope(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*store.Request)
		want github.Scope
	}{
		"Repository":   {func(*store.Request) {}, github.Scope{ID: "7", Name: "acme/shop", Account: account, Credential: account + store.DefaultParameter}},
		"Organization": {inOrganization, github.Scope{Organization: true, ID: "1", Name: "acme", Group: "garo", Account: account, Credential: account + store.DefaultParameter}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				r := w.request(c.edit)
				w.start(r)
				w.online(r)
				for _, in := range w.github.scopes {
					if in != c.want {
						t.Errorf("a call was in %+v, want %+v", in, c.want)
					}
				}
				if len(w.github.calls) != 1 || len(w.github.looks) == 0 {
					t.Errorf("%d registrations and %d looks, want one, and some", len(w.github.calls), len(w.github.looks))
				}
			})
		})
	}
}

func TestFullGroupIsWaitedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		until := time.Now().Add(150 * time.Second)
		w.github.answer = func(int, string) (bool, error) {
			if time.Now().Before(until) {
				return false, &github.Error{Kind: github.ErrFull, Status: 422, RetryAt: time.Now().Add(time.Minute), Said: "Invalid Argument - Runner group 1 has reached max limit of 10000 runners."}
			}
			return true, nil
		}
		r := w.request()
		w.start(r)
		run := w.runnerOf(r.ID)
		if run.Wait != store.WaitGitHub || run.Unminted == nil || run.Unminted.Code != store.EndMintDenied || !strings.Contains(run.Unminted.Text, "max limit of 10000 runners") {
			t.Errorf("runner waits for %q because of %+v, want github_limited with GitHub's words", run.Wait, run.Unminted)
		}
		w.follow(3)
		if run := w.runnerOf(r.ID); run.Config.N != 1 || run.Unminted != nil || len(w.github.calls) != 4 {
			t.Errorf("config %d because of %+v after %d registrations, want config 1 by the fourth", run.Config.N, run.Unminted, len(w.github.calls))
		}
	})
}

func TestConflictThatIsNotTheNameIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		err   github.Error
		names int
		text  string
	}{
		"ActionsDisabled": {github.Error{Kind: github.ErrConflict, Status: 409, Said: "Conflict: GitHub Actions is disabled on this repository"}, 5, "GitHub Actions is disabled on this repository"},
		"NameTaken":       {github.Error{Kind: github.ErrNameTaken, Status: 409, Said: "Already exists - A runner with the name r already exists."}, 5, "Already exists"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.github.answer = func(int, string) (bool, error) { e := c.err; return false, &e }
				r := w.request()
				begin := time.Now()
				w.start(r)
				w.follow(100)
				w.state(r, store.Failed)
				got := w.requestNow(r.ID)
				if got.Error == nil || got.Error.Code != store.EndMintDenied || !strings.Contains(got.Error.Text, c.text) || !strings.Contains(got.Error.Text, "status 409") {
					t.Errorf("error %v, want registration_refused in GitHub's words", got.Error)
				}
				if n := len(w.github.calls); n != 5 || len(slices.Compact(slices.Sorted(slices.Values(w.github.calls)))) != c.names {
					t.Errorf("registrations %v, want 5 with %d names", w.github.calls, c.names)
				}
				if took := time.Since(begin); took > 2*time.Minute {
					t.Errorf("it took %v, want two minutes at most", took)
				}
			})
		})
	}
}

func TestGitHubDownIsToldAsSuchAndSpendsFewNames(t *testing.T) {
	inWorld(t, func(w *world) {
		down := true
		w.github.answer = func(int, string) (bool, error) {
			return !down, map[bool]error{true: &github.Error{Kind: github.ErrUnknown, Status: 502}}[down]
		}
		r := w.request()
		w.start(r)
		w.follow(60) // hours, for a runner that nobody drains meanwhile
		run, lock := w.runnerOf(r.ID), w.lockOf(r)
		if len(run.Names) != store.MaxNames || len(w.github.calls) != store.MaxNames-1 || run.Wait != store.WaitGitHubDown {
			t.Errorf("%d names, %d registrations, waits for %q; want %d names with the last one unused, and github_unavailable", len(run.Names), len(w.github.calls), run.Wait, store.MaxNames)
		}
		if got := run.Unused(); len(got) != store.MaxNames-1 {
			t.Errorf("unused names %v, want all but the next, for the reaper", got)
		}
		if !slices.ContainsFunc(run.History, func(e store.Entry) bool { return strings.Contains(e.Reason, "status 502") }) {
			t.Errorf("story %v, want GitHub's last status in it", run.History)
		}
		end := store.DrainReason(lock.BootBy, w.limits, run, lock, store.Pulse{}, r)
		drained := store.Case{Runner: run, Lock: lock}.Drain(lock.BootBy, store.NewEnd(end)).Runner
		if end != store.EndGitHubDown || !strings.Contains(drained.End.Text, "status 502") || strings.Contains(drained.End.Text, "subnet") {
			t.Errorf("at boot_by the runner drains for %q: %v; want github_unavailable with GitHub's last status", end, drained.End)
		}
		// The reaper has found that GitHub has none of them.
		down = false
		for _, g := range run.Unused() {
			run = run.Forget(g.N)
		}
		w.commit(&run)
		w.follow(1)
		if run := w.runnerOf(r.ID); run.Config.N != store.MaxNames || run.Unminted != nil || len(w.github.calls) != store.MaxNames {
			t.Errorf("config %d because of %+v, want that of the name that was left", run.Config.N, run.Unminted)
		}
	})
}
