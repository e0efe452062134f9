package sim_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// in returns the time so long after a world begins.
func in(d time.Duration) time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d) }

func TestLostAnswerOfAMintLeavesOneRegistration(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{Fate: once(kernel.FailAfter, func(e kernel.Effect) bool { return e.Op == kernel.Mint })}, func(w *sim.World) {
		s := w.Start(sim.Shared("a"))
		w.Ready(s, 10*time.Minute)
		if r := w.RunnerOf(s.ID); r.Config.N != 2 {
			w.Errorf("config = %d, want 2: a name is never used twice", r.Config.N)
		}
		if n := len(w.GitHub.Minted()); n != 2 {
			w.Errorf("%d registrations were made, want 2", n)
		}
		w.Until("the unused registration to be deleted", 5*time.Minute, func() bool { return len(w.GitHub.Registrations()) == 1 })
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		machines(w, 1)
	})
}

func TestGitHubLimitOfTwentyMinutesLeaksNoMachine(t *testing.T) {
	t.Parallel()
	until := in(20 * time.Minute)
	limited := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-RateLimit-Limit", "5000")
		w.Header().Set("X-RateLimit-Remaining", "0")
		w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(until.Unix(), 10))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"message":"API rate limit exceeded"}`))
	})
	sim.Run(t, sim.Config{GitHub: func(string) (f simgithub.Fault) {
		if time.Now().Before(until) {
			f.Instead = limited
		}
		return f
	}}, func(w *sim.World) {
		early := w.Start(sim.Ephemeral("a"))
		patient := sim.Ephemeral("b")
		patient.GiveUp = 3600
		late := w.Start(patient)
		if r := w.Final(early, 30*time.Minute); r.State == store.Ready || r.Error == nil {
			w.Errorf("request is %s, want it given up with a reason", r.State)
		}
		w.Final(late, time.Hour)
		stop(w, late)
		w.Quiet(2 * time.Hour)
		w.Check()
		for _, m := range w.Fleet.Instances() {
			if life := m.EndsAt.Sub(m.LaunchedAt); m.CredentialedAt.IsZero() && life > w.Limits.ConfigLimit+3*time.Minute {
				w.Errorf("a machine that never got a config lived %s", life)
			}
		}
	})
}

// TestOtherCredentialStandsInForOneThatIsRefused has GitHub refuse the credential that
// registered a machine, for good: that machine ends, and others begin, with the other one.
func TestOtherCredentialStandsInForOneThatIsRefused(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]simgithub.Refusal{"Revoked": simgithub.BadCredentials, "Suspended": simgithub.Suspended} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := in(5 * time.Minute)
			var refused atomic.Int64 // by its place; -1: none
			refused.Store(-1)
			sim.Run(t, sim.Config{Two: true, Refuses: func(credential int) *simgithub.Refusal {
				if credential != int(refused.Load()) || time.Now().Before(from) {
					return nil
				}
				return &refusal
			}}, func(w *sim.World) {
				before := w.Start(sim.Shared("a"))
				w.Ready(before, 4*time.Minute)
				names := w.Account.CredentialNames()
				first := slices.Index(names, w.RunnerOf(before.ID).RegisteredBy())
				if first < 0 {
					t.Fatalf("registered by %q, want one of %q", w.RunnerOf(before.ID).RegisteredBy(), names)
				}
				refused.Store(int64(first))
				time.Sleep(time.Until(from))
				stop(w, before)
				w.Until("the registration to be deleted", 3*time.Minute, func() bool { return len(w.GitHub.Registrations()) == 0 })
				for i := range 3 {
					s := w.Start(sim.Ephemeral(strconv.Itoa(i)))
					w.Ready(s, 4*time.Minute)
					if by := w.RunnerOf(s.ID).RegisteredBy(); by != names[1-first] {
						t.Errorf("registered by %q, want the other one, %q", by, names[1-first])
					}
					good(w, s, w.Job(s.RunsOn, 30*time.Second))
				}
				if !slices.Contains(w.Alarms(), store.AlarmGitHub) {
					t.Errorf("alarms %q, want one of GitHub", w.Alarms())
				}
			})
		})
	}
}

func TestGitHubThatIsDownForAnHour(t *testing.T) {
	t.Parallel()
	from, until := in(5*time.Minute), in(65*time.Minute)
	sim.Run(t, sim.Config{GitHub: func(string) (f simgithub.Fault) {
		if now := time.Now(); now.After(from) && now.Before(until) {
			f.Instead = simgithub.NoAnswer
		}
		return f
	}}, func(w *sim.World) {
		before := w.Start(sim.Shared("a"))
		w.Ready(before, 4*time.Minute)
		time.Sleep(time.Until(from))
		during := w.Start(sim.Ephemeral("b"))
		if r := w.Final(during, 30*time.Minute); r.State == store.Ready || r.Error == nil {
			w.Errorf("request is %s, want it given up with a reason", r.State)
		}
		time.Sleep(time.Until(until.Add(-time.Minute)))
		for _, m := range w.Fleet.Instances()[1:] {
			if !m.State.Over() {
				w.Errorf("machine %s waits for a config, and is %s", m.ID, m.State)
			}
		}
		time.Sleep(2 * time.Minute)
		after := w.Start(sim.Ephemeral("c"))
		job := w.Job(after.RunsOn, 30*time.Second)
		w.Ready(after, 10*time.Minute)
		good(w, after, job)
	})
}

func TestGitHubThatIsDownIsTheReasonThatIsTold(t *testing.T) {
	t.Parallel()
	until := in(30 * time.Minute)
	down := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write([]byte("<html><body>Unicorn!</body></html>"))
	})
	sim.Run(t, sim.Config{GitHub: func(string) (f simgithub.Fault) {
		if time.Now().Before(until) {
			f.Instead = down
		}
		return f
	}}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		r := w.Final(s, 30*time.Minute)
		if r.Error == nil || r.State != store.Expired || !strings.Contains(r.Error.Text, "GitHub has not registered") || !strings.Contains(r.Error.Text, "status 502") || strings.Contains(r.Error.Text, "subnet") {
			w.Errorf("request is %s because of %+v, want it expired, with GitHub's last status", r.State, r.Error)
		}
		if n := w.GitHub.Calls()[simgithub.OpMint]; n > 4*store.MaxNames {
			w.Errorf("%d registrations were tried, want at most %d for each of four machines", n, store.MaxNames)
		}
		w.Quiet(2 * time.Hour)
		w.Check()
	})
}

func TestBusyRunnerThatIsNotListedIsKept(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		w.GitHub.Change(func(r *simgithub.Rules) { r.OmitBusy = true })
		body := sim.Shared("a")
		body.Timeout = 3 * 3600
		s := w.Start(body)
		job := w.Job(s.RunsOn, 150*time.Minute) // several looks at the list
		w.Ready(s, 10*time.Minute)
		w.Until("the job to be done", 3*time.Hour, func() bool { return w.Done(job) })
		good(w, s, job)
		machines(w, 1)
	})
}

func TestBusyRunnerIsNotEndedBeforeItsJob(t *testing.T) {
	t.Parallel()
	for name, lag := range map[string]time.Duration{
		"GitHubSaysSo":        0,
		"GitHubSaysSoTooLate": time.Minute, // the registration is deleted, and the job continues
	} {
		t.Run(name, func(t *testing.T) {
			sim.Run(t, sim.Config{}, func(w *sim.World) {
				w.GitHub.Change(func(r *simgithub.Rules) { r.BusyLag = lag })
				s := w.Start(sim.Shared("a"))
				w.Ready(s, 10*time.Minute)
				time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(55 * time.Second)))
				job := w.Job(s.RunsOn, 10*time.Minute) // just before the reaper looks
				stop(w, s)
				good(w, s, job)
				machines(w, 1)
			})
		})
	}
}

func TestGhostOfADeletedRegistrationDrains(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{Ghosts: true}, func(w *sim.World) {
		s := w.Start(sim.Shared("a"))
		w.Ready(s, 10*time.Minute)
		if err := w.Forget(w.RunnerOf(s.ID).Config.RunnerID); err != nil {
			w.Fatal(err)
		}
		w.Until("the runner to drain", 2*w.Limits.ReaperPeriod+w.Limits.Confirmed, func() bool { return !w.RunnerOf(s.ID).State.Usable() })
		if r := w.RunnerOf(s.ID); r.End.Code != store.EndUnlisted {
			w.Errorf("the runner drains for %s, want %s", r.End.Code, store.EndUnlisted)
		}
		w.Quiet(10 * time.Minute)
		w.Check()
	})
}

func TestForgottenRegistrationIsReplaced(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		s := w.Start(sim.Shared("a"))
		w.Ready(s, 10*time.Minute)
		if err := w.Forget(w.RunnerOf(s.ID).Config.RunnerID); err != nil {
			w.Fatal(err)
		}
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		machines(w, 1)
	})
}

func TestWaitForGitHubGoesOnByItself(t *testing.T) {
	t.Parallel()
	limited := simgithub.Fault{Instead: answers(http.StatusTooManyRequests, "Retry-After", "20")}
	sim.Run(t, sim.Config{GitHub: failsOnceAtGitHub(simgithub.OpMint, limited)}, func(w *sim.World) {
		w.Pause(kernel.Reaper)
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, time.Minute)
		w.Resume(kernel.Reaper)
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
	})
}

func TestLostResumeIsMadeUpForByTheReaper(t *testing.T) {
	t.Parallel()
	limited := simgithub.Fault{Instead: answers(http.StatusTooManyRequests, "Retry-After", "20")}
	sim.Run(t, sim.Config{
		GitHub: failsOnceAtGitHub(simgithub.OpMint, limited),
		Fate:   once(kernel.FailBefore, func(e kernel.Effect) bool { return e.Op == kernel.Send && e.What == "resume" }),
	}, func(w *sim.World) {
		s := w.Start(sim.Ephemeral("a"))
		w.Ready(s, 3*time.Minute+20*time.Second)
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		machines(w, 1)
	})
}

func TestRunnerThatMayStillBeRegisteredIsNotReplaced(t *testing.T) {
	t.Parallel()
	// The machine gets its config, connects, and is never heard of again; for long
	// nobody can delete its registration.
	deletable := in(20 * time.Minute)
	sim.Run(t, sim.Config{
		Fate: func(e kernel.Effect) kernel.Fate {
			if e.Part == kernel.Machine && e.What != "boot" && e.At.Before(deletable) {
				return kernel.FailBefore
			}
			return kernel.Pass
		},
		GitHub: func(op string) (f simgithub.Fault) {
			if op == simgithub.OpDelete && time.Now().Before(deletable) {
				f.Instead = simgithub.NoAnswer
			}
			return f
		},
	}, func(w *sim.World) {
		body := sim.Ephemeral("a")
		body.GiveUp = 3600
		s := w.Start(body)
		time.Sleep(time.Until(deletable))
		machines(w, 1)
		w.Ready(s, 10*time.Minute)
		good(w, s, w.Job(s.RunsOn, 30*time.Second))
		machines(w, 2)
	})
}
