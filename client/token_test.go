package client_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
)

// idToken is a token like GitHub's that ends then.
func idToken(exp time.Time) string {
	return "e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, exp.Unix())) + ".c2ln"
}

// gives answers with a token that lives as long as GitHub's.
func gives(r *http.Request) (*http.Response, error) {
	return says(200, `{"value":"`+idToken(time.Now().Add(5*time.Minute))+`"}`)(r)
}

func jobEnv(name string) string {
	return map[string]string{
		"ACTIONS_ID_TOKEN_REQUEST_URL": "https://pipelines.example/token?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "canary-request",
	}[name]
}

func tokens(told *[]string, answers ...func(*http.Request) (*http.Response, error)) (client.TokenSource, *script) {
	s := &script{answers: answers}
	cfg := client.IDTokenConfig{Audience: "https://garo.example.org/", Getenv: jobEnv, HTTP: &http.Client{Transport: s}}
	if told != nil {
		cfg.New = func(t client.Token) { *told = append(*told, t.Reveal()) }
	}
	return client.IDTokens(cfg), s
}

func TestIDTokenIsAskedForAsGitHubWantsIt(t *testing.T) {
	source, s := tokens(nil, gives)
	if _, err := source(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := "https://pipelines.example/token?api-version=2.0&audience=https%3A%2F%2Fgaro.example.org"; s.asked[0].url != want {
		t.Errorf("asked %s, want %s", s.asked[0].url, want)
	}
	if got := s.asked[0].header.Get("Authorization"); got != "Bearer canary-request" {
		t.Errorf("Authorization = %q", got)
	}
}

func TestIDTokenIsRenewedBeforeItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		source, s := tokens(&told, gives)
		ask := func() string {
			token, err := source(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return token.Reveal()
		}
		first := ask()
		time.Sleep(4*time.Minute - time.Second)
		if again := ask(); again != first || len(s.asked) != 1 {
			t.Errorf("after four minutes there were %d tokens, want the first one still", len(s.asked))
		}
		time.Sleep(time.Second)
		if second := ask(); second == first || len(s.asked) != 2 {
			t.Errorf("a minute before its end there were %d tokens, want a new one", len(s.asked))
		}
		if len(told) != 2 || told[0] != first {
			t.Errorf("told of %d tokens, want of both, so that they can be masked", len(told))
		}
	})
}

// A machine whose clock is an hour behind still knows how long a token lives.
func TestIDTokenIsRenewedInTimeOnAMachineWhoseClockIsWrong(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"behind": time.Hour, "right": 0, "ahead": -30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source, s := tokens(nil, func(r *http.Request) (*http.Response, error) {
					iat := time.Now().Add(ahead).Unix()
					claims := fmt.Appendf(nil, `{"iat":%d,"exp":%d}`, iat, iat+300)
					return says(200, `{"value":"e30.`+base64.RawURLEncoding.EncodeToString(claims)+`.c2ln"}`)(r)
				})
				for range 3 * 60 / 5 { // three minutes of polling use one token
					if _, err := source(t.Context()); err != nil {
						t.Fatal(err)
					}
					time.Sleep(5 * time.Second)
				}
				if len(s.asked) != 1 {
					t.Errorf("asked %d times in three minutes, want once", len(s.asked))
				}
				time.Sleep(time.Minute)
				if _, err := source(t.Context()); err != nil || len(s.asked) != 2 {
					t.Errorf("source = %v after %d calls, want a new token a minute before the end", err, len(s.asked))
				}
			})
		})
	}
}

func TestManyCallersGetOneIDToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, s := tokens(nil, func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return gives(r)
		})
		errs := make(chan error, 10)
		for range cap(errs) {
			go func() {
				_, err := source(t.Context())
				errs <- err
			}()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if len(s.asked) != 1 {
			t.Errorf("asked GitHub %d times, want once", len(s.asked))
		}
		// Who has to wait for another caller's answer still heeds its own context.
		time.Sleep(time.Hour)
		go func() { _, _ = source(t.Context()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := source(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("source = %v, want the deadline", err)
		}
		time.Sleep(time.Minute)
	})
}

func TestIDTokenOfUnknownEndIsUsedOnce(t *testing.T) {
	for name, token := range map[string]string{
		"opaque": "abc", "no base64": "a.!.c", "no JSON": "a.YWJj.c", "no exp": "a.e30.c", "no number": "a." + base64.RawURLEncoding.EncodeToString([]byte(`{"exp":"x"}`)) + ".c",
	} {
		source, s := tokens(nil, says(200, `{"value":"`+token+`"}`))
		for range 2 {
			if got, err := source(t.Context()); err != nil || got.Reveal() != token {
				t.Errorf("%s: source = %v, %v", name, got, err)
			}
		}
		if len(s.asked) != 2 {
			t.Errorf("%s: asked %d times, want each time", name, len(s.asked))
		}
	}
}

func TestMissingPermissionIsToldWithTheLinesToAdd(t *testing.T) {
	source := client.IDTokens(client.IDTokenConfig{Audience: "https://x", Getenv: func(string) string { return "" }})
	_, err := source(t.Context())
	if !errors.Is(err, client.ErrNoIDToken) || !strings.Contains(err.Error(), "\npermissions:\n  id-token: write") {
		t.Errorf("source = %v, want the two lines", err)
	}
	c := client.Must(client.New(client.Config{URL: "https://x", Token: source}))
	if _, err := c.Status(t.Context(), "x"); !errors.Is(err, client.ErrNoIDToken) {
		t.Errorf("Status = %v, want %v", err, client.ErrNoIDToken)
	}
}

func TestTroubleOfTheIssuerIsRiddenOut(t *testing.T) {
	for name, trouble := range map[string]func(*http.Request) (*http.Response, error){
		"throttled": says(429, "", "Retry-After", "3"), "unavailable": says(503, ""), "no connection": broken, "half an answer": cut,
		"no token": says(200, `{}`), "no JSON": says(200, `<html>`),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source, s := tokens(nil, trouble, trouble, gives)
				if _, err := source(t.Context()); err != nil || len(s.asked) != 3 {
					t.Errorf("source = %v after %d calls, want it to work at the third", err, len(s.asked))
				}
			})
		})
	}
}

func TestRefusalOfTheIssuerIsFinalAndShowsNoSecret(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(*http.Request) (*http.Response, error)
		calls  int
	}{
		"refused": {says(401, "canary-body"), 1}, "redirected": {says(302, "canary-body", "Location", "https://evil.example/canary"), 1}, "away": {broken, 8},
	} {
		synctest.Test(t, func(t *testing.T) {
			source, s := tokens(nil, tc.answer)
			_, err := source(t.Context())
			if err == nil || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "pipelines") || len(s.asked) != tc.calls {
				t.Errorf("%s: source = %v after %d calls, want an error without secrets after %d", name, err, len(s.asked), tc.calls)
			}
		})
	}
	bad := client.IDTokens(client.IDTokenConfig{Audience: "x", Getenv: func(string) string { return "https://x y/canary" }})
	if _, err := bad(t.Context()); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("source = %v, want an error without the address", err)
	}
}

func TestContextEndsTheWaitForAnIDToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, _ := tokens(nil, says(503, "", "Retry-After", "30"))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := source(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("source = %v, want the deadline", err)
		}
	})
}
