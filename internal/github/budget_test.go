package github_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// hourly returns a GitHub that lets a credential make so many calls an hour.
func hourly(t *testing.T, calls int) world {
	return open(t, simgithub.Config{Rules: simgithub.Rules{Token: secret.New(token), Limit: simgithub.Limit{Calls: calls}}})
}

// mostlySpent has GitHub say that little more than a seventh of the hour is left at most.
func mostlySpent(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(spentWriter{w}, r) })
}

type spentWriter struct{ http.ResponseWriter }

func (w spentWriter) WriteHeader(status int) {
	limit, _ := strconv.Atoi(w.Header().Get("X-RateLimit-Limit"))
	if left, err := strconv.Atoi(w.Header().Get("X-RateLimit-Remaining")); err == nil {
		w.Header().Set("X-RateLimit-Remaining", strconv.Itoa(min(left, limit*3/20)))
	}
	w.ResponseWriter.WriteHeader(status)
}

func TestBurstIsConfirmedAtOnceWhileAFifthOfTheHourIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := hourly(t, 100)
		c := sharing(t, s.Handler(), github.DefaultShare)
		made := 0
		for range 100 {
			if _, err := c.Get(t.Context(), repo, 999); errors.Is(err, github.ErrNotFound) {
				made++
			}
			time.Sleep(10 * time.Second)
		}
		// The first one tells how much is left; 79 more are above a fifth, and one is a worker's part.
		if n := s.Calls()[simgithub.OpGet]; made != n || n < 80 || n > 82 {
			t.Errorf("%d calls confirm, of which GitHub saw %d; want four fifths of the hundred and the part of a worker", made, n)
		}
		if _, err := c.Mint(t.Context(), repo, "r", []string{"x"}); err != nil {
			t.Errorf("a registration after that: %v; want it made", err)
		}
	})
}

func TestEndsOfBusyRunnersLeaveTheHourToRegistrations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := hourly(t, 5000)
		c := sharing(t, s.Handler(), 1)
		busy, err := c.Mint(t.Context(), repo, "busy", []string{"x"})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Haunt(busy.RunnerID); err != nil {
			t.Fatal(err)
		}
		const runners, hours = 84, 5 // one DELETE a minute for each is 5,040 an hour
		refused := 0
		for minute := range hours * 60 {
			for range runners {
				if err := c.Delete(t.Context(), repo, busy.RunnerID); errors.Is(err, github.ErrLimited) {
					if e := failed(t, "Delete", err, github.ErrLimited); e.Status != 0 {
						t.Fatalf("after %d minutes GitHub limits us: %v", minute, err)
					}
					refused++
				}
				time.Sleep(600 * time.Millisecond) // within the points of a minute
			}
			if _, err := c.Mint(t.Context(), repo, fmt.Sprintf("r%d", minute), []string{"x"}); err != nil {
				t.Fatalf("a registration after %d minutes: %v", minute, err)
			}
			time.Sleep(time.Minute - runners*600*time.Millisecond)
		}
		// A third of a tenth of 5,000 at once, and two thirds every hour.
		if n := s.Calls()[simgithub.OpDelete]; n > 167+hours*334 || n < 160+hours*330 || n+refused != runners*hours*60 {
			t.Errorf("%d calls ended runners in %d hours, want two thirds of a tenth in each, and a third more", n, hours)
		}
	})
}

func TestPurposeBeyondItsPartMakesNoCall(t *testing.T) {
	for name, c := range map[string]struct {
		op    string
		share float64
		limit int
		part  int           // of the calls of an hour
		wait  time.Duration // until the next, at the rate of two thirds of them
		call  func(*github.Client, github.Scope) error
	}{
		"Confirmations": {simgithub.OpGet, 1, 5000, 250, 21600 * time.Millisecond, func(c *github.Client, r github.Scope) error {
			_, err := c.Get(t.Context(), r, 999)
			return err
		}},
		"Lists": {simgithub.OpList, 1, 5000, 250, 21600 * time.Millisecond, func(c *github.Client, r github.Scope) (err error) {
			for _, err = range c.List(t.Context(), r, "") {
				break
			}
			return err
		}},
		"Ends":                  {simgithub.OpDelete, 1, 5000, 500, 10800 * time.Millisecond, func(c *github.Client, r github.Scope) error { return c.Delete(t.Context(), r, 999) }},
		"OfALargeApp":           {simgithub.OpGet, 1, 12_500, 625, 8640 * time.Millisecond, func(c *github.Client, r github.Scope) error { _, err := c.Get(t.Context(), r, 999); return err }},
		"OfAWorker":             {simgithub.OpGet, github.DefaultShare, 5000, 25, 216 * time.Second, func(c *github.Client, r github.Scope) error { _, err := c.Get(t.Context(), r, 999); return err }},
		"OfAWorkerForALargeApp": {simgithub.OpGet, github.DefaultShare, 12_500, 62, 86400 * time.Millisecond, func(c *github.Client, r github.Scope) error { _, err := c.Get(t.Context(), r, 999); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := hourly(t, c.limit)
				// A first call tells how much the hour has; in the time after it the burst is full again.
				client := sharing(t, mostlySpent(s.Handler()), c.share)
				if err := c.call(client, repo); err != nil && !errors.Is(err, github.ErrNotFound) {
					t.Fatal(err)
				}
				time.Sleep(59 * time.Minute)
				var err error
				n := 0
				burst := c.part / 3
				for ; n < c.part; n++ {
					if err = c.call(client, repo); errors.Is(err, github.ErrLimited) && time.Until(asError(t, err).RetryAt) > c.wait {
						t.Fatalf("call %d = %v until %v ahead, want at most %v", n, err, time.Until(asError(t, err).RetryAt), c.wait)
					} else if errors.Is(err, github.ErrLimited) {
						break
					}
					time.Sleep(time.Second / 2) // within the points of a minute
				}
				regained := int(float64(n) / 2 / c.wait.Seconds())
				if n < burst || n > burst+regained+1 {
					t.Errorf("%d calls were made at once, want %d and the %d that came meanwhile", n, burst, regained)
				}
				if made := s.Calls()[c.op]; made != n+1 {
					t.Errorf("GitHub saw %d calls, want the %d that were allowed", made, n+1)
				}
				if err := c.call(client, repo); !errors.Is(err, github.ErrLimited) || asError(t, err).Status != 0 {
					t.Errorf("another call at once = %v, want our own limit", err)
				}
				time.Sleep(time.Second)
				if _, err := client.Mint(t.Context(), repo, "r", []string{"x"}); err != nil {
					t.Errorf("a registration: %v; want it made", err)
				}
				elsewhere := repo
				elsewhere.Account = "999988887777"
				if err := c.call(client, elsewhere); err != nil && !errors.Is(err, github.ErrNotFound) {
					t.Errorf("a call for another account: %v; want it made", err)
				}
				time.Sleep(time.Until(asError(t, err).RetryAt))
				if err := c.call(client, repo); err != nil && !errors.Is(err, github.ErrNotFound) {
					t.Errorf("a call at that time: %v; want it made", err)
				}
			})
		})
	}
}

// The ten workers and the reaper, all of which ask for ever.
func TestConfirmationsTakeATenthOfAnyHourThatIsMostlySpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := hourly(t, 5000)
		clients := []*github.Client{sharing(t, mostlySpent(s.Handler()), 1)}
		for range 10 {
			clients = append(clients, sharing(t, mostlySpent(s.Handler()), github.DefaultShare))
		}
		const step = 5 * time.Second // within the points of a minute
		made := []int{0}             // by each step
		for range 3 * time.Hour / step {
			for n, c := range clients {
				_, err := c.Get(t.Context(), repo, 999)
				if errors.Is(err, github.ErrLimited) && asError(t, err).Status == 0 {
					continue
				}
				failed(t, fmt.Sprintf("Get of process %d", n), err, github.ErrNotFound)
			}
			made = append(made, s.Calls()[simgithub.OpGet])
			time.Sleep(step)
		}
		const hour = int(time.Hour / step)
		for i := hour; i < len(made); i++ {
			if n := made[i] - made[i-hour]; n > 500 {
				t.Fatalf("%d calls in the hour before %v, want a tenth of 5,000 at most", n, time.Duration(i)*step)
			}
		}
		if made[hour] < 480 {
			t.Errorf("%d calls in the first hour, want most of a tenth of 5,000", made[hour])
		}
		for n, c := range clients {
			if _, err := c.Mint(t.Context(), repo, fmt.Sprintf("r%d", n), []string{"x"}); err != nil {
				t.Errorf("a registration by process %d, which has confirmed its part: %v; want it made", n, err)
			}
		}
	})
}

// A credential of few calls is enough for one now and then.
func TestPartOfFewCallsIsOneAtLeast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := hourly(t, 60) // of which a process among five may make a fifth of a twentieth: 0.6
		c := sharing(t, mostlySpent(s.Handler()), fifth)
		_, err := c.Downloads(t.Context(), repo) // which tells how much the hour has
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, err := c.Get(t.Context(), repo, 999)
			failed(t, "Get", err, github.ErrNotFound)
			_, err = c.Get(t.Context(), repo, 999)
			e := failed(t, "Get beyond the part", err, github.ErrLimited)
			if wait := time.Until(e.RetryAt); e.Status != 0 || wait < 149*time.Minute || wait > 150*time.Minute {
				t.Errorf("Get beyond the part = %v, %v ahead; want our own limit, and the two and a half hours in which one call gathers", e, wait)
			}
			time.Sleep(time.Until(e.RetryAt))
		}
	})
}

func asError(t *testing.T, err error) *github.Error {
	t.Helper()
	e, ok := errors.AsType[*github.Error](err)
	if !ok {
		t.Fatalf("%v, want a *github.Error", err)
	}
	return e
}

func TestWhatCanWaitLeavesTheRestOfTheHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := hourly(t, 100)
		c := sharing(t, s.Handler(), 1)
		reset := time.Now().Add(time.Hour)
		made := map[string]int{}
		for i := range 100 { // one registration, and one each of the rest, until GitHub's hour is spent
			for name, call := range map[string]func() error{
				"downloads": func() error { _, err := c.Downloads(t.Context(), repo); return err },
				"version":   func() error { _, err := c.Deprecation(t.Context(), repo, simgithub.ProgramVersion); return err },
			} {
				if err := call(); err == nil {
					made[name]++
				} else if e := failed(t, name, err, github.ErrLimited); e.Status != 0 || !e.RetryAt.Equal(reset) {
					t.Fatalf("%s = %v until %v, want our own limit until GitHub's hour is over", name, err, e.RetryAt)
				}
			}
			if _, err := c.Mint(t.Context(), repo, fmt.Sprintf("r%d", i), []string{"x"}); err == nil {
				made["mint"]++
			} else if e := failed(t, "Mint", err, github.ErrLimited); e.Status == 0 {
				t.Fatalf("Mint = %v, want GitHub's own limit to be the first", err)
			} else {
				break
			}
			time.Sleep(10 * time.Second)
		}
		if made["downloads"]+made["version"] > 35 || made["mint"] < 65 {
			t.Errorf("made %v of 100, want what can wait to stop at half", made)
		}
		time.Sleep(time.Until(reset))
		if _, err := c.Downloads(t.Context(), repo); err != nil {
			t.Errorf("Downloads in a new hour: %v", err)
		}
		// Confirmations leave the last tenth.
		at := time.Now().Add(20 * time.Minute)
		low := 10
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			status(404, "X-RateLimit-Limit", "100", "X-RateLimit-Remaining", strconv.Itoa(low), "X-RateLimit-Reset", strconv.FormatInt(at.Unix(), 10)).ServeHTTP(w, r)
		})
		c = sharing(t, h, 1)
		_, err := c.Get(t.Context(), repo, 1)
		failed(t, "a first Get", err, github.ErrNotFound)
		_, err = c.Get(t.Context(), repo, 1)
		if e := failed(t, "Get with a tenth left", err, github.ErrLimited); e.Status != 0 || e.RetryAt.Unix() != at.Unix() {
			t.Errorf("Get with a tenth left = %v until %v, want our own limit until %v", err, e.RetryAt, at)
		}
		failed(t, "Delete with a tenth left", c.Delete(t.Context(), repo, 1), github.ErrNotFound)
		_, err = c.Mint(t.Context(), repo, "r", []string{"x"})
		failed(t, "Mint with a tenth left", err, github.ErrNotFound)
	})
}

func TestOnlyTheHourOfOrdinaryCallsIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reset := strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
		for name, headers := range map[string][]string{
			"AnotherResource": {"X-RateLimit-Resource", "search", "X-RateLimit-Limit", "10", "X-RateLimit-Remaining", "1", "X-RateLimit-Reset", reset},
			"NoNumber":        {"X-RateLimit-Limit", "ten", "X-RateLimit-Remaining", "1", "X-RateLimit-Reset", reset},
			"NoLimit":         {"X-RateLimit-Limit", "0", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset},
			"Negative":        {"X-RateLimit-Limit", "-1", "X-RateLimit-Remaining", "-1", "X-RateLimit-Reset", reset},
			"NoReset":         {"X-RateLimit-Limit", "10", "X-RateLimit-Remaining", "1"},
			"Over":            {"X-RateLimit-Limit", "10000", "X-RateLimit-Remaining", "1", "X-RateLimit-Reset", "1"},
		} {
			c := sharing(t, status(404, headers...), 1)
			for range 3 {
				_, err := c.Downloads(t.Context(), repo)
				failed(t, name, err, github.ErrNotFound)
			}
		}
	})
}

func TestBudgetInTheDocumentsIsThatOfTheCode(t *testing.T) {
	b, err := os.ReadFile("../../docs/github.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), github.Table()) {
		t.Errorf("docs/github.md does not have the budget:\n%s", github.Table())
	}
}

func TestHourLeftIsThatOfTheAccountThatHasLeast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := hourly(t, 100)
		c := sharing(t, s.Handler(), github.DefaultShare)
		if left, known := c.HourLeft(); known {
			t.Errorf("HourLeft before any answer = %v, want it unknown", left)
		}
		for range 25 {
			if _, err := c.Get(t.Context(), repo, 999); !errors.Is(err, github.ErrNotFound) {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if left, known := c.HourLeft(); !known || left != 0.75 {
			t.Errorf("HourLeft after 25 of 100 calls = %v, %t; want three quarters", left, known)
		}
		other := repo
		other.Account = "222222222222"
		if _, err := c.Get(t.Context(), other, 999); !errors.Is(err, github.ErrNotFound) {
			t.Fatal(err)
		}
		if left, _ := c.HourLeft(); left > 0.75 {
			t.Errorf("HourLeft with an account that has more = %v, want that of the one with least", left)
		}
		time.Sleep(time.Hour)
		if left, known := c.HourLeft(); known {
			t.Errorf("HourLeft once the hour is over = %v, want it unknown", left)
		}
	})
}
