package github_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// two is a GitHub that answers each of two credentials in its own way.
type two struct {
	*github.Client
	calls []string // who called, one after another
	// refuse, if it has the credential, is the status of every answer to it.
	refuse map[string]int
	left   map[string]int // of the hour
	log    bytes.Buffer
}

const anHour = 5000

func (s *two) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	by := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.calls = append(s.calls, by)
	s.left[by]--
	w.Header().Set("X-Ratelimit-Limit", fmt.Sprint(anHour))
	w.Header().Set("X-Ratelimit-Remaining", fmt.Sprint(s.left[by]))
	w.Header().Set("X-Ratelimit-Reset", fmt.Sprint(time.Now().Add(time.Hour).Unix()))
	w.Header().Set("Content-Type", "application/json")
	if status := s.refuse[by]; status != 0 {
		if status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "600")
		}
		w.WriteHeader(status)
		fmt.Fprint(w, `{"message":"no"}`)
		return
	}
	switch {
	case r.Method == http.MethodPost:
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"runner":{"id":5,"name":"r"},"encoded_jit_config":"x"}`)
	case strings.HasSuffix(r.URL.Path, "/runners"):
		fmt.Fprint(w, `{"total_count":0,"runners":[]}`)
	default:
		fmt.Fprint(w, `{"id":5,"name":"r","status":"online"}`)
	}
}

// withTwo runs a test of a client whose accounts have the credentials a and b, in virtual time.
func withTwo(t *testing.T, test func(s *two)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &two{refuse: map[string]int{}, left: map[string]int{"a": anHour, "b": anHour}}
		var err error
		s.Client, err = github.New(github.Config{
			BaseURL: "https://github.test", HTTP: memhttp.Client(s), Share: 1,
			Names: func(context.Context, string) ([]string, error) { return []string{"a", "b"}, nil },
			Token: func(_ context.Context, a github.Access) (secret.Text, error) { return secret.New(a.Credential), nil },
			Log:   slog.New(slog.NewTextHandler(&s.log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		test(s)
	})
}

// made returns who called since it was asked last.
func (s *two) made() string {
	all := strings.Join(s.calls, " ")
	s.calls = nil
	return all
}

// alarms counts the alarms so far.
func (s *two) alarms() int { return strings.Count(s.log.String(), "alarm="+string(store.AlarmGitHub)) }

// get asks for a runner that a credential registered.
func (s *two) get(t *testing.T, by string) error {
	t.Helper()
	_, err := s.Get(t.Context(), repo.With(by), 5)
	return err
}

func TestCallIsMadeWithTheCredentialThatHasMostLeft(t *testing.T) {
	withTwo(t, func(s *two) {
		s.left["a"] = 4000
		for range 3 {
			if err := s.get(t, ""); err != nil {
				t.Error(err)
			}
		}
		if got := s.made(); got != "a b b" {
			t.Errorf("calls by %s, want a to be left alone once it is known to have less", got)
		}
		if err := s.get(t, "a"); err != nil || s.made() != "a" {
			t.Errorf("Get of what a registered: %v, want it by a", err)
		}
	})
}

func TestRefusedCredentialIsAskedLastForAWhile(t *testing.T) {
	for name, status := range map[string]int{"Revoked": http.StatusUnauthorized, "Suspended": http.StatusForbidden} {
		t.Run(name, func(t *testing.T) {
			withTwo(t, func(s *two) {
				s.refuse["a"] = status
				for range 3 {
					if err := s.get(t, "a"); err != nil {
						t.Error(err)
					}
				}
				if got := s.made(); got != "a b b b" || s.alarms() != 1 {
					t.Errorf("calls by %s and %d alarms, want b to stand in, and one alarm", got, s.alarms())
				}
				if !strings.Contains(s.log.String(), "credential=a") {
					t.Errorf("the alarm is %s, want the credential in it", s.log.String())
				}
				s.refuse["b"] = status
				if err := s.get(t, "a"); !errors.Is(err, github.ErrDenied) || s.made() != "b a" {
					t.Errorf("when both are refused: %v, want that, after a try with each", err)
				}
				time.Sleep(11 * time.Minute)
				clear(s.refuse)
				if err := s.get(t, "a"); err != nil || s.made() != "a" {
					t.Errorf("11 minutes later: %v, want a to be asked first again", err)
				}
			})
		})
	}
}

func TestLimitedCredentialLeavesTheCallToTheOther(t *testing.T) {
	withTwo(t, func(s *two) {
		s.refuse["a"] = http.StatusTooManyRequests
		for range 2 {
			if err := s.get(t, "a"); err != nil {
				t.Error(err)
			}
		}
		if got := s.made(); got != "a b b" || s.alarms() != 0 {
			t.Errorf("calls by %s and %d alarms, want a left alone as long as GitHub asks, and none", got, s.alarms())
		}
		s.refuse["b"] = http.StatusUnauthorized
		err := s.get(t, "a")
		if e, ok := errors.AsType[*github.Error](err); !ok || !errors.Is(err, github.ErrLimited) || time.Until(e.RetryAt) > 10*time.Minute {
			t.Errorf("limited and refused: %v, want to wait for the one that is limited", err)
		}
	})
}

// TestAbsenceIsTheWordOfTheOneThatRegistered has a credential that sees no such runner: it
// counts if that one registered it, or nobody sees it.
func TestAbsenceIsTheWordOfTheOneThatRegistered(t *testing.T) {
	withTwo(t, func(s *two) {
		s.refuse["b"] = http.StatusNotFound
		if err := s.get(t, "b"); !errors.Is(err, github.ErrNotFound) || github.By(err) != "b" || s.made() != "b" {
			t.Errorf("what b registered, says b: %v by %q; want that it is absent", err, github.By(err))
		}
		s.left["a"] = 4000
		if err := s.get(t, "a"); err != nil {
			t.Errorf("what a registered: %v, want its word", err)
		}
		s.made()
		if err := s.get(t, ""); err != nil || s.made() != "b a" {
			t.Errorf("what nobody knows who registered: %v, want a's word after b's", err)
		}
		s.refuse["a"] = http.StatusNotFound
		if err := s.get(t, ""); !errors.Is(err, github.ErrNotFound) {
			t.Errorf("what both do not see: %v, want that it is absent", err)
		}
	})
}

// TestRegistrationIsMadeByItsLeasesCredentialAlone has each other call served by another.
func TestRegistrationIsMadeByItsLeasesCredentialAlone(t *testing.T) {
	withTwo(t, func(s *two) {
		s.refuse["a"] = http.StatusForbidden
		if _, err := s.Mint(t.Context(), repo.With("a"), "r", []string{"x"}); !errors.Is(err, github.ErrDenied) || s.made() != "a" {
			t.Errorf("Mint by a: %v, want it refused, and b not asked", err)
		}
		if _, err := s.Mint(t.Context(), repo.With("b"), "r", []string{"x"}); err != nil || s.made() != "b" {
			t.Errorf("Mint by b: %v, want it made", err)
		}
		if _, err := s.Rates(t.Context(), repo.With("a")); !errors.Is(err, github.ErrDenied) || s.made() != "a" {
			t.Errorf("Rates of a: %v, want a's own", err)
		}
		if _, err := s.Mint(t.Context(), repo.With("c"), "r", []string{"x"}); !errors.Is(err, github.ErrDenied) || s.made() != "" || !strings.Contains(err.Error(), "credential c") {
			t.Errorf("Mint by one that is not registered: %v, want it refused without a call", err)
		}
	})
}

// TestEachCredentialIsReadFromItsOwnParameter has an App and a token of one account.
func TestEachCredentialIsReadFromItsOwnParameter(t *testing.T) {
	p := &parameters{}
	p.set(account, "/ci/one", "canary-one")
	p.set(account, "/ci/two", "canary-two")
	creds, err := github.NewCredentials(github.CredentialsConfig{
		BaseURL: "https://github.test", Parameter: p.get,
		Account: registered(store.GitHubCredential{Parameter: "/ci/one"}, store.GitHubCredential{Parameter: "/ci/two"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	names, err := creds.Names(t.Context(), account)
	if err != nil || len(names) != 2 {
		t.Fatalf("Names: %q, %v; want two", names, err)
	}
	for i, want := range []string{"canary-one", "canary-two"} {
		if got, err := creds.Token(t.Context(), repo.With(names[i]).Access()); err != nil || !got.Equal(want) {
			t.Errorf("Token of %s: %v, want that of its parameter", names[i], err)
		}
	}
	if got, err := creds.Token(t.Context(), repo.Access()); err != nil || !got.Equal("canary-one") {
		t.Errorf("Token of none: %v, want that of the first", err)
	}
	if _, err := creds.Token(t.Context(), repo.With("another").Access()); !errors.Is(err, github.ErrDenied) {
		t.Errorf("Token of one that is not registered: %v, want it refused", err)
	}
	if _, err := creds.Names(t.Context(), "000000000000"); !errors.Is(err, github.ErrDenied) {
		t.Errorf("Names of an account that is not registered: %v, want it refused", err)
	}
}
