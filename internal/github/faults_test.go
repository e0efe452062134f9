package github_test

// What can go wrong at GitHub, each fault with what a caller sees of it and can
// do about it. What GARO then does is tested where it decides.

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
)

// online registers a runner and opens its session.
func online(t *testing.T, s world, c *github.Client, name string, labels ...string) (github.Minted, *simgithub.Session) {
	t.Helper()
	m, err := c.Mint(t.Context(), repo, name, labels)
	if err != nil {
		t.Fatalf("Mint %s: %v", name, err)
	}
	x, err := s.Connect(t.Context(), m.Config.Reveal())
	if err != nil {
		t.Fatalf("Connect %s: %v", name, err)
	}
	t.Cleanup(x.Close)
	return m, x
}

// queue queues a job of a workflow run in the shop.
func queue(t *testing.T, s world, run string, labels ...string) {
	t.Helper()
	if _, err := s.Queue(repo.Name, simgithub.Job{RunID: run, Labels: labels, Duration: time.Minute}); err != nil {
		t.Fatal(err)
	}
}

// wait returns the job that a session gets within two minutes.
func wait(t *testing.T, x *simgithub.Session) (simgithub.Job, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	return x.Wait(ctx)
}

func TestRegistrationWhoseAnswerWasLostIsFoundByNameAndReplaced(t *testing.T) {
	lose := true
	s := open(t, simgithub.Config{Fault: func(op string, _ *http.Request) simgithub.Fault {
		return simgithub.Fault{Lose: lose && op == simgithub.OpMint}
	}})
	c := client(t, s.Handler())
	_, err := c.Mint(t.Context(), repo, "garo-1", []string{"x"})
	if e := failed(t, "Mint", err, github.ErrUnknown); e.Status != 0 {
		t.Errorf("Mint = %v, want no status", e)
	}
	lose = false
	_, err = c.Mint(t.Context(), repo, "garo-1", []string{"x"})
	failed(t, "Mint under the same name", err, github.ErrNameTaken)
	m, err := c.Mint(t.Context(), repo, "garo-2", []string{"x"})
	if err != nil {
		t.Fatalf("Mint under the next name: %v", err)
	}
	old, err := c.Find(t.Context(), repo, "garo-1")
	if err != nil || old.ID == m.RunnerID {
		t.Fatalf("Find of the lost one = %+v, %v; want it", old, err)
	}
	if err := c.Delete(t.Context(), repo, old.ID); err != nil {
		t.Errorf("Delete of the lost one: %v", err)
	}
	if got := s.Registrations(); len(got) != 1 || got[0].ID != m.RunnerID || !got[0].Config.Equal(m.Config.Reveal()) {
		t.Errorf("registrations = %+v, want one that can be used", got)
	}
}

func TestNameThatIsTakenLeavesTheOtherRunnerAlone(t *testing.T) {
	s := open(t, simgithub.Config{})
	c := client(t, s.Handler())
	first, x := online(t, s, c, "garo-1", "x")
	_, err := c.Mint(t.Context(), repo, "garo-1", []string{"x"})
	if e := failed(t, "Mint", err, github.ErrNameTaken); e.Status != http.StatusConflict {
		t.Errorf("Mint = %v, want GitHub's 409", e)
	}
	if _, err := c.Mint(t.Context(), repo, "garo-2", []string{"other"}); err != nil {
		t.Errorf("Mint under another name: %v", err)
	}
	queue(t, s, "7", "x")
	if j, err := wait(t, x); err != nil || j.RunnerID != first.RunnerID {
		t.Errorf("the first runner's job = %+v, %v; want it unharmed", j, err)
	}
}

func TestLimitThatEndsInTwentyMinutesIsToldAndEnds(t *testing.T) {
	for name, secondary := range map[string]bool{"403WithAReset": false, "429WithRetryAfter": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, simgithub.Config{})
				c := client(t, s.Handler())
				s.Change(func(r *simgithub.Rules) {
					r.Limit = simgithub.Limit{Calls: 1, Window: 20 * time.Minute, Secondary: secondary}
				})
				if _, err := c.Mint(t.Context(), repo, "garo-1", []string{"x"}); err != nil {
					t.Fatal(err)
				}
				_, err := c.Mint(t.Context(), repo, "garo-2", []string{"x"})
				e := failed(t, "Mint", err, github.ErrLimited)
				if wait := time.Until(e.RetryAt); wait != 20*time.Minute {
					t.Errorf("RetryAt is %v ahead, want 20m", wait)
				}
				if n := len(s.Registrations()); n != 1 {
					t.Errorf("%d registrations, want 1: a limited call has no effect, and its name is not spent", n)
				}
				time.Sleep(time.Until(e.RetryAt))
				if _, err := c.Mint(t.Context(), repo, "garo-2", []string{"x"}); err != nil {
					t.Errorf("Mint at that time: %v", err)
				}
			})
		})
	}
}

func TestGitHubThatIsDownForAnHourLeavesTheOutcomeUnknown(t *testing.T) {
	for name, answer := range map[string]http.Handler{"503": status(503), "NoAnswer": simgithub.NoAnswer} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := time.Now().Add(time.Hour)
				s := open(t, simgithub.Config{Fault: func(string, *http.Request) (f simgithub.Fault) {
					if time.Now().Before(up) {
						f.Instead = answer
					}
					return f
				}})
				c := client(t, s.Handler())
				for range 6 {
					for call, err := range calls(t, c) {
						if failed(t, call, err, github.ErrUnknown); errors.Is(err, github.ErrNotFound) || errors.Is(err, github.ErrDenied) {
							t.Errorf("%s = %v: an outage says nothing of a runner or a credential", call, err)
						}
					}
					time.Sleep(10 * time.Minute)
				}
				if n := len(s.Registrations()); n != 0 {
					t.Errorf("%d registrations, want none", n)
				}
				if _, err := c.Mint(t.Context(), repo, "garo-1", []string{"x"}); err != nil {
					t.Errorf("Mint after the outage: %v", err)
				}
			})
		})
	}
}

func TestBusyRunnerThatTheListOmitsIsThereByID(t *testing.T) {
	s := open(t, simgithub.Config{Rules: simgithub.Rules{OmitBusy: true}})
	c := client(t, s.Handler())
	m, x := online(t, s, c, "garo-1", "x")
	queue(t, s, "7", "x")
	if _, err := wait(t, x); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, c, repo, ""); len(got) != 0 {
		t.Fatalf("List = %+v, want the fault: the busy runner left out", got)
	}
	_, err := c.Find(t.Context(), repo, "garo-1")
	if e := failed(t, "Find", err, github.ErrNotFound); e.Status != http.StatusOK {
		t.Errorf("Find = %v, want status 200: a list, which proves nothing", e)
	}
	if r, err := c.Get(t.Context(), repo, m.RunnerID); err != nil || !r.Busy {
		t.Errorf("Get = %+v, %v; want it, busy", r, err)
	}
}

func TestDeleteOfABusyRunnerIsRefusedUntilItsJobEnds(t *testing.T) {
	s := open(t, simgithub.Config{})
	c := client(t, s.Handler())
	m, x := online(t, s, c, "garo-1", "x")
	queue(t, s, "7", "x")
	j, err := wait(t, x)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if e := failed(t, "Delete", c.Delete(t.Context(), repo, m.RunnerID), github.ErrBusy); e.Status != http.StatusUnprocessableEntity {
			t.Errorf("Delete = %v, want GitHub's 422", e)
		}
	}
	if err := x.Done(t.Context(), j); err != nil {
		t.Errorf("the job did not finish: %v", err)
	}
	failed(t, "Delete after the job", c.Delete(t.Context(), repo, m.RunnerID), github.ErrNotFound)
}

func TestJobAssignedJustBeforeTheDeleteFinishesOrIsQueuedAgain(t *testing.T) {
	t.Run("TakenAndFinishes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, simgithub.Config{Rules: simgithub.Rules{BusyLag: 5 * time.Second}})
			c := client(t, s.Handler())
			m, x := online(t, s, c, "garo-1", "x")
			queue(t, s, "7", "x")
			j, err := wait(t, x)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Delete(t.Context(), repo, m.RunnerID); err != nil {
				t.Fatalf("Delete while GitHub does not know yet that it is busy: %v, want 204", err)
			}
			time.Sleep(80 * time.Second)
			if err := x.Done(t.Context(), j); err != nil {
				t.Errorf("the job, 80s after the DELETE: %v, want it finished", err)
			}
		})
	})
	t.Run("NotTakenAndQueuedAgain", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, simgithub.Config{})
			c := client(t, s.Handler())
			m, x := online(t, s, c, "garo-1", "x")
			queue(t, s, "7", "x")
			if err := c.Delete(t.Context(), repo, m.RunnerID); err != nil {
				t.Fatalf("Delete: %v", err)
			}
			if j, err := wait(t, x); !errors.Is(err, simgithub.ErrDeleted) {
				t.Errorf("the deleted runner got %+v, %v; want no job", j, err)
			}
			_, other := online(t, s, c, "garo-2", "x")
			begin := time.Now()
			if j, err := wait(t, other); err != nil || j.RunID != "7" || time.Since(begin) > time.Minute {
				t.Errorf("another runner got %+v, %v after %v; want the job within a minute", j, err, time.Since(begin))
			}
		})
	})
}

func TestDeregisteredRunnerWhoseProcessLivesGetsNoJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, simgithub.Config{})
		c := client(t, s.Handler())
		m, x := online(t, s, c, "garo-1", "x")
		if err := c.Delete(t.Context(), repo, m.RunnerID); err != nil {
			t.Fatal(err)
		}
		queue(t, s, "7", "x")
		if j, err := wait(t, x); !errors.Is(err, simgithub.ErrDeleted) {
			t.Errorf("its session got %+v, %v; want the end of the registration", j, err)
		}
		if _, err := s.Connect(t.Context(), m.Config.Reveal()); !errors.Is(err, simgithub.ErrDeleted) {
			t.Errorf("Connect with its config = %v, want the end of the registration", err)
		}
		_, err := c.Get(t.Context(), repo, m.RunnerID)
		failed(t, "Get", err, github.ErrNotFound)
		if j := s.Jobs(); len(j) != 1 || j[0].State != simgithub.Queued {
			t.Errorf("jobs = %+v, want the job waiting for a runner that lives", j)
		}
	})
}

func TestJobThatNamesASubsetOfTheLabelsTakesTheRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, simgithub.Config{})
		c := client(t, s.Handler())
		_, shared := online(t, s, c, "garo-shared", "garo-unguessable", "big")
		_, own := online(t, s, c, "garo-ephemeral", "garo-another")
		queue(t, s, "thief", "BIG")
		queue(t, s, "ours", "garo-unguessable")
		j, err := wait(t, shared)
		if err != nil || j.RunID != "thief" {
			t.Errorf("the shared runner got %+v, %v; want the thief's job, known by its run", j, err)
		}
		queue(t, s, "thief", "self-hosted")
		if j, err := wait(t, own); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the runner with a label of its own alone got %+v, %v; want none", j, err)
		}
		queue(t, s, "mine", "garo-another")
		if j, err := wait(t, own); err != nil || j.RunID != "mine" {
			t.Errorf("the runner with a label of its own got %+v, %v; want the job that names it", j, err)
		}
	})
}

func TestDeprecatedVersionIsRefusedAndTheOneToTakeIsKnown(t *testing.T) {
	s := open(t, simgithub.Config{Rules: simgithub.Rules{TooOld: true}})
	c := client(t, s.Handler())
	m, err := c.Mint(t.Context(), repo, "garo-1", []string{"x"})
	if err != nil {
		t.Fatal(err)
	}
	x, err := s.Connect(t.Context(), m.Config.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Wait(t.Context()); !errors.Is(err, simgithub.ErrTooOld) {
		t.Errorf("the first poll = %v, want that the program is too old", err)
	}
	x.Close()
	if r, err := c.Get(t.Context(), repo, m.RunnerID); err != nil || r.Online {
		t.Errorf("Get = %+v, %v; want it registered, and offline", r, err)
	}
	if d, err := c.Downloads(t.Context(), repo); err != nil || len(d) == 0 || d[0].Version == "" {
		t.Errorf("Downloads = %+v, %v; want the version that GitHub offers", d, err)
	}
	if err := c.Delete(t.Context(), repo, m.RunnerID); err != nil {
		t.Errorf("Delete: %v", err)
	}
}
