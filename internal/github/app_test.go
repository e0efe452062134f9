package github_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub/contract"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const keyName = "/github/app"

var appCredential = store.GitHubCredential{Parameter: keyName, AppID: 7, InstallationID: 9}

// withApp returns a GitHub with the App, and parameters with its key.
func withApp(t *testing.T, cfg simgithub.Config) (world, *parameters) {
	t.Helper()
	cfg.Rules.App = simgithub.App{ID: 7, Installation: 9, Key: &firstKey.PublicKey}
	cfg.Rules.Token = secret.New("of nobody")
	p := &parameters{}
	p.set(account, keyName, pkcs1(firstKey))
	p.set("999988887777", keyName, pkcs1(firstKey))
	return open(t, cfg), p
}

func TestAppsTokenIsForOneRepositoryAndKeptUntilFiveMinutesBeforeItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := withApp(t, simgithub.Config{})
		creds, client := holding(t, s.Handler(), appCredential, p)
		tokens := func() int { return s.Calls()[simgithub.OpToken] }
		first, err := creds.Token(t.Context(), repo.Access())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			if _, err := client.Mint(t.Context(), repo, fmt.Sprintf("r%d", i), []string{"x"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Minute)
		}
		if tokens() != 1 {
			t.Errorf("%d tokens in 50 minutes, want 1", tokens())
		}
		time.Sleep(5*time.Minute - time.Second)
		if again, err := creds.Token(t.Context(), repo.Access()); err != nil || !again.Equal(first.Reveal()) {
			t.Errorf("Token a second before 5 minutes before its end: %v, want the same", err)
		}
		time.Sleep(time.Second)
		if again, err := creds.Token(t.Context(), repo.Access()); err != nil || again.Equal(first.Reveal()) || tokens() != 2 {
			t.Errorf("Token 5 minutes before its end: %v, want another", err)
		}
		// Another repository and another account have tokens of their own, which the
		// fake lets into that repository alone.
		if _, err := client.Mint(t.Context(), other, "r", []string{"x"}); err != nil || tokens() != 3 {
			t.Errorf("Mint in another repository: %v with %d tokens, want a third", err, tokens())
		}
		elsewhere := repo
		elsewhere.Account = "999988887777"
		if _, err := client.Get(t.Context(), elsewhere, s.Registrations()[0].ID); err != nil || tokens() != 4 {
			t.Errorf("Get for another account: %v with %d tokens, want a fourth", err, tokens())
		}
		if p.fresh() != 0 {
			t.Errorf("%d fresh reads, want none", p.fresh())
		}
	})
}

func TestOneTokenIsFetchedForAllWhoAskAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := withApp(t, simgithub.Config{Fault: func(op string, _ *http.Request) (f simgithub.Fault) {
			if op == simgithub.OpToken {
				f.Delay = 2 * time.Second
			}
			return f
		}})
		_, client := holding(t, s.Handler(), appCredential, p)
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if _, err := client.Mint(t.Context(), repo, fmt.Sprintf("r%d", i), []string{"x"}); err != nil {
					t.Errorf("Mint %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if n := s.Calls()[simgithub.OpToken]; n != 1 || len(p.reads) != 1 {
			t.Errorf("%d tokens and %d reads, want 1 each", n, len(p.reads))
		}
	})
}

func TestWhoWaitsForATokenOutlivesWhoFetchesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := withApp(t, simgithub.Config{Fault: func(string, *http.Request) simgithub.Fault { return simgithub.Fault{Delay: 4 * time.Second} }})
		creds, _ := holding(t, s.Handler(), appCredential, p)
		ask := func(limit time.Duration) <-chan error {
			out := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				_, err := creds.Token(ctx, repo.Access())
				out <- err
			}()
			synctest.Wait()
			return out
		}
		begin := time.Now()
		leader, hasty, patient := ask(3*time.Second), ask(time.Second), ask(time.Minute)
		if err := <-hasty; !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, github.ErrUnknown) || time.Since(begin) != time.Second {
			t.Errorf("who waits a second got %v after %v, want the end of its own time", err, time.Since(begin))
		}
		if err := <-leader; !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 3*time.Second {
			t.Errorf("who fetches got %v after %v, want the end of its own time", err, time.Since(begin))
		}
		if err := <-patient; err != nil || time.Since(begin) != 7*time.Second {
			t.Errorf("who has time got %v after %v, want a token of its own fetching", err, time.Since(begin))
		}
	})
}

func TestFailedFetchIsSharedByWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := withApp(t, simgithub.Config{Fault: func(string, *http.Request) simgithub.Fault {
			return simgithub.Fault{Delay: time.Second, Instead: status(502)}
		}})
		creds, _ := holding(t, s.Handler(), appCredential, p)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, err := creds.Token(t.Context(), repo.Access())
				failed(t, "Token", err, github.ErrUnknown)
			})
		}
		wg.Wait()
		if n := s.Calls()[simgithub.OpToken]; n != 1 {
			t.Errorf("%d calls for 10 who asked at once, want 1", n)
		}
		_, err := creds.Token(t.Context(), repo.Access())
		failed(t, "Token", err, github.ErrUnknown)
		if n := s.Calls()[simgithub.OpToken]; n != 2 {
			t.Errorf("%d calls, want a second for who asks later", n)
		}
	})
}

func TestPanicWhileFetchingLeavesNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panics := true
		creds, err := github.NewCredentials(github.CredentialsConfig{
			BaseURL: "https://github.test", HTTP: memhttp.Client(http.NotFoundHandler()), Account: registered(appCredential),
			Parameter: func(context.Context, string, string, bool) (secret.Text, error) {
				time.Sleep(time.Second)
				if panics {
					panic("no parameter today")
				}
				return secret.Text{}, github.ErrNoParameter
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic of a parameter was swallowed")
				}
			}()
			_, _ = creds.Token(t.Context(), repo.Access())
		})
		synctest.Wait()
		if _, err := creds.Token(t.Context(), repo.Access()); err == nil {
			t.Error("who waited got no error")
		}
		wg.Wait()
		panics = false
		_, err = creds.Token(t.Context(), repo.Access())
		failed(t, "Token afterwards", err, github.ErrDenied)
	})
}

func TestRevokedInstallationTokenIsReplacedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := withApp(t, simgithub.Config{})
		creds, client := holding(t, s.Handler(), appCredential, p)
		if _, err := creds.Token(t.Context(), repo.Access()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		s.RevokeTokens()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if _, err := client.Mint(t.Context(), repo, fmt.Sprintf("r%d", i), []string{"x"}); err != nil {
					t.Errorf("Mint %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if n := s.Calls()[simgithub.OpToken]; n != 2 || p.fresh() != 1 || len(s.Registrations()) != 20 {
			t.Errorf("%d tokens, %d fresh reads, %d registrations; want 2, 1 and 20", n, p.fresh(), len(s.Registrations()))
		}
	})
}

func TestTokenThatGitHubDoesNotKnowYetIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lag := true
		s, p := withApp(t, simgithub.Config{Fault: func(op string, _ *http.Request) (f simgithub.Fault) {
			if lag && op == simgithub.OpMint {
				f.Instead = status(401)
			}
			return f
		}})
		_, client := holding(t, s.Handler(), appCredential, p)
		_, err := client.Mint(t.Context(), repo, "r", []string{"x"})
		e := failed(t, "Mint with a token of this moment", err, github.ErrLimited)
		if wait := time.Until(e.RetryAt); wait != 5*time.Second {
			t.Errorf("RetryAt is %v ahead, want 5s", wait)
		}
		time.Sleep(time.Until(e.RetryAt))
		lag = false
		if _, err := client.Mint(t.Context(), repo, "r", []string{"x"}); err != nil || s.Calls()[simgithub.OpToken] != 1 {
			t.Errorf("Mint then: %v with %d tokens, want the first to serve", err, s.Calls()[simgithub.OpToken])
		}
		lag = true
		_, err = client.Mint(t.Context(), repo, "r2", []string{"x"})
		failed(t, "Mint with a token that is refused for good", err, github.ErrDenied)
		if n := s.Calls()[simgithub.OpToken]; n != 2 {
			t.Errorf("%d tokens, want the refused one replaced once", n)
		}
	})
}

func TestChangedKeyIsReadAnewOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := withApp(t, simgithub.Config{})
		p.set(account, keyName, pkcs1(secondKey))
		_, client := holding(t, s.Handler(), appCredential, p)
		_, err := client.Mint(t.Context(), repo, "r", []string{"x"})
		if e := failed(t, "Mint with a key that GitHub does not know", err, github.ErrDenied); e.Status != http.StatusUnauthorized {
			t.Errorf("Mint = %v, want GitHub's 401", e)
		}
		if n := s.Calls()[simgithub.OpToken]; n != 1 || p.fresh() != 1 {
			t.Errorf("%d calls with %d fresh reads, want one each: the same key is not tried twice", n, p.fresh())
		}
		_, err = client.Mint(t.Context(), repo, "r", []string{"x"})
		failed(t, "Mint at once", err, github.ErrDenied)
		if n := s.Calls()[simgithub.OpToken]; n != 1 {
			t.Errorf("%d calls, want none more: a refusal stands 10s", n)
		}
		p.set(account, keyName, pkcs8(firstKey))
		time.Sleep(10 * time.Second)
		if _, err := client.Mint(t.Context(), repo, "r", []string{"x"}); err != nil {
			t.Errorf("Mint with the new key: %v", err)
		}
		if n := s.Calls()[simgithub.OpToken]; n != 3 || p.fresh() != 2 {
			t.Errorf("%d calls with %d fresh reads, want 3 and 2: the old key from the cache, then the new one", n, p.fresh())
		}
	})
}

func TestKeyThatCannotBeReadAnewIsTheError(t *testing.T) {
	s, p := withApp(t, simgithub.Config{})
	p.cached = map[string]string{account + " " + keyName: pkcs1(secondKey)}
	delete(p.values, account+" "+keyName)
	creds, _ := holding(t, s.Handler(), appCredential, p)
	_, err := creds.Token(t.Context(), repo.Access())
	if e := failed(t, "Token", err, github.ErrDenied); e.Status != 0 || !errors.Is(err, github.ErrNoParameter) {
		t.Errorf("Token = %v, want that the parameter is gone", err)
	}
}

func TestRefusedAppIsDeniedAndNeverNotFound(t *testing.T) {
	for code, want := range map[int]error{
		301: github.ErrDenied,
		400: github.ErrDenied,
		403: github.ErrDenied, // suspended
		404: github.ErrDenied, // not installed any more
		409: github.ErrDenied,
		422: github.ErrDenied, // not in this repository
		429: github.ErrLimited,
		200: github.ErrUnknown,
		500: github.ErrUnknown,
		503: github.ErrUnknown,
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				answer := status(code)
				if want == github.ErrLimited {
					answer = status(code, "Retry-After", "90")
				}
				p := &parameters{}
				p.set(account, keyName, pkcs1(firstKey))
				_, client := holding(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n++
					answer.ServeHTTP(w, r)
				}), appCredential, p)
				for range 2 {
					err := client.Delete(t.Context(), repo, 1)
					e := failed(t, "Delete", err, want)
					if errors.Is(err, github.ErrNotFound) || errors.Is(err, github.ErrBusy) || e.Status != code || e.RequestID != "REQ:1" {
						t.Errorf("Delete = %v, want status %d and that the runner may be there", err, code)
					}
					if want == github.ErrLimited && time.Until(e.RetryAt) != 90*time.Second {
						t.Errorf("RetryAt is %v ahead, want 90s", time.Until(e.RetryAt))
					}
				}
				if asks := map[bool]int{true: 2, false: 1}[want == github.ErrUnknown]; n != asks {
					t.Errorf("%d calls for two deletes, want %d: a refusal or a limit stands", n, asks)
				}
				time.Sleep(90 * time.Second)
				failed(t, "Delete later", client.Delete(t.Context(), repo, 1), want)
				if asks := map[bool]int{true: 3, false: 2}[want == github.ErrUnknown]; n != asks {
					t.Errorf("%d calls, want another when the refusal or the limit is over", n)
				}
			})
		})
	}
}

func TestWithoutARepositorysIDNoTokenIsAskedFor(t *testing.T) {
	s, p := withApp(t, simgithub.Config{})
	creds, _ := holding(t, s.Handler(), appCredential, p)
	for _, id := range []string{"", "0", "-1", "1.5", "shop", "99999999999999999999"} {
		_, err := creds.Token(t.Context(), github.Scope{ID: id, Name: "acme/shop", Account: account}.Access())
		failed(t, "Token for repository "+id, err, github.ErrDenied)
	}
	if len(s.Calls()) != 0 {
		t.Errorf("calls = %v, want none: such a token would open every repository", s.Calls())
	}
}

func TestAnswerWithoutATokenIsNotTrusted(t *testing.T) {
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for name, body := range map[string]string{
		"Empty":       ``,
		"Null":        `null`,
		"NoToken":     `{"expires_at":"` + later + `"}`,
		"EmptyToken":  `{"token":"","expires_at":"` + later + `"}`,
		"Newline":     `{"token":"canary\n","expires_at":"` + later + `"}`,
		"NoEnd":       `{"token":"canary"}`,
		"Over":        `{"token":"canary","expires_at":"2001-01-01T00:00:00Z"}`,
		"StrangeTime": `{"token":"canary","expires_at":"soon"}`,
		"WrongType":   `{"token":{"canary":1},"expires_at":"` + later + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := &parameters{}
			p.set(account, keyName, pkcs1(firstKey))
			creds, _ := holding(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, body)
			}), appCredential, p)
			got, err := creds.Token(t.Context(), repo.Access())
			failed(t, "Token", err, github.ErrUnknown)
			if !got.Empty() {
				t.Error("Token gave one out all the same")
			}
		})
	}
}

func TestTokenThatEndsWithinFiveMinutesIsUsedButNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := &parameters{}
		p.set(account, keyName, pkcs1(firstKey))
		creds, _ := holding(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n++
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, `{"token":"t%d","expires_at":%q}`, n, time.Now().Add(5*time.Minute).UTC().Format(time.RFC3339))
		}), appCredential, p)
		for i := range 2 {
			if got, err := creds.Token(t.Context(), repo.Access()); err != nil || !got.Equal(fmt.Sprintf("t%d", i+1)) {
				t.Errorf("Token = %v, want a new one each time", err)
			}
		}
	})
}

func TestChangedRegistrationHasAnotherToken(t *testing.T) {
	s, p := withApp(t, simgithub.Config{})
	from := appCredential
	creds, err := github.NewCredentials(github.CredentialsConfig{
		BaseURL: "https://github.test", HTTP: memhttp.Client(s.Handler()), Parameter: p.get,
		Account: func(context.Context, string) (store.Account, error) {
			return store.Account{GitHub: store.GitHubCredentials{from}}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := creds.Token(t.Context(), repo.Access()); err != nil {
		t.Fatal(err)
	}
	from.InstallationID = 10
	_, err = creds.Token(t.Context(), repo.Access())
	failed(t, "Token of another installation", err, github.ErrDenied)
	from = store.GitHubCredential{}
	p.set(account, "/github/runner/pat", "canary-pat")
	if got, err := creds.Token(t.Context(), repo.Access()); err != nil || !got.Equal("canary-pat") {
		t.Errorf("Token when the registration names a token: %v, want that", err)
	}
}

func TestEveryCallIsDescribedByGitHub(t *testing.T) {
	d := contract.Load(t, "simgithub/testdata/github-openapi.json")
	s, p := withApp(t, simgithub.Config{Organizations: []simgithub.Organization{acme}})
	var sent bytes.Buffer
	h := d.Handler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(&sent, r.Method, r.URL)
		s.Server.Handler().ServeHTTP(w, r)
	}))
	_, c := holding(t, h, appCredential, p)
	for _, in := range []github.Scope{repo, group} {
		m, err := c.Mint(t.Context(), in, "r", []string{"x"})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Get(t.Context(), in, m.RunnerID)
		_, _ = c.Find(t.Context(), in, "r")
		collect(t, c, in, "")
		_, _ = c.Downloads(t.Context(), in)
		_, _ = c.Rates(t.Context(), in)
		_, _ = c.Deprecation(t.Context(), in, simgithub.ProgramVersion)
		_ = c.Delete(t.Context(), in, m.RunnerID)
	}
	_, _, _ = c.Admits(t.Context(), group, github.Group{ID: 10, Name: "narrow"})
	s.queue(simgithub.Job{})
	for range c.Runs(t.Context(), shopJobs, github.StatusQueued) {
	}
	jobs, _ := c.RunJobs(t.Context(), shopJobs, 7)
	_, _ = c.Job(t.Context(), shopJobs, jobs[0].ID)
	_, _ = c.Run(t.Context(), shopJobs, 7)
	_ = c.Cancel(t.Context(), shopJobs, 7)
	_, _, _ = c.Deliveries(t.Context(), account, "")
	if got := d.Seen(); !slices.Equal(got, d.Operations()) {
		t.Errorf("the client called %v, want all of %v and no other; it sent\n%s", got, d.Operations(), &sent)
	}
}
