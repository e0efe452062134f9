package github_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// parameters are SSM's, behind a cache that only a fresh read renews.
type parameters struct {
	mu     sync.Mutex
	values map[string]string // by account and name
	cached map[string]string
	reads  []string // as "account name", with " fresh" behind it
	err    error
}

func (p *parameters) get(_ context.Context, account, name string, fresh bool) (secret.Text, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := account + " " + name
	read := key
	if fresh {
		read += " fresh"
	}
	p.reads = append(p.reads, read)
	if p.err != nil {
		return secret.Text{}, p.err
	}
	value, ok := p.cached[key]
	if fresh || !ok {
		if value, ok = p.values[key]; !ok {
			return secret.Text{}, fmt.Errorf("parameter %s: %w", name, github.ErrNoParameter)
		}
		if p.cached == nil {
			p.cached = map[string]string{}
		}
		p.cached[key] = value
	}
	return secret.New(value), nil
}

func (p *parameters) set(account, name, value string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.values == nil {
		p.values = map[string]string{}
	}
	p.values[account+" "+name] = value
}

// fresh returns how many reads went past the cache.
func (p *parameters) fresh() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.reads {
		if strings.HasSuffix(r, " fresh") {
			n++
		}
	}
	return n
}

const account = "111122223333"

// registered says that every account has the same credential.
func registered(from ...store.GitHubCredential) func(context.Context, string) (store.Account, error) {
	return func(_ context.Context, id string) (store.Account, error) {
		if id != account && id != "999988887777" {
			return store.Account{}, store.ErrNoAccount
		}
		return store.Account{ID: id, GitHub: from}, nil
	}
}

// holding returns credentials that are asked for at h, and a client with them.
func holding(t *testing.T, h http.Handler, from store.GitHubCredential, p *parameters) (*github.Credentials, *github.Client) {
	t.Helper()
	creds, err := github.NewCredentials(github.CredentialsConfig{
		BaseURL: "https://github.test", HTTP: memhttp.Client(h), Account: registered(from), Parameter: p.get,
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := github.New(github.Config{BaseURL: "https://github.test", HTTP: memhttp.Client(h), Token: creds.Token, Renew: creds.Renew})
	if err != nil {
		t.Fatal(err)
	}
	return creds, c
}

func TestTokenComesFromTheParameterThatTheRegistrationNames(t *testing.T) {
	for name, c := range map[string]struct{ named, want string }{
		"ByDefault": {"", "/github/runner/pat"},
		"Named":     {"/team/github", "/team/github"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &parameters{}
			p.set(account, c.want, token)
			p.set("999988887777", c.want, "another")
			creds, client := holding(t, open(t, simgithub.Config{}).Handler(), store.GitHubCredential{Parameter: c.named}, p)
			if _, err := client.Mint(t.Context(), repo, "r", []string{"x"}); err != nil {
				t.Errorf("Mint: %v", err)
			}
			elsewhere := repo
			elsewhere.Account = "999988887777"
			if got, err := creds.Token(t.Context(), elsewhere.Access()); err != nil || !got.Equal("another") {
				t.Errorf("Token for another account: %v, want that account's own", err)
			}
			if want := account + " " + c.want; p.reads[0] != want || p.fresh() != 0 {
				t.Errorf("reads = %q, want %q first and none fresh", p.reads, want)
			}
		})
	}
}

func TestCredentialThatCannotBeHadIsNeverNotFound(t *testing.T) {
	strange := errors.New("network is down")
	for name, c := range map[string]struct {
		account string
		err     error
		want    error
	}{
		"NoAccount":   {"000000000000", nil, github.ErrDenied},
		"NoParameter": {account, nil, github.ErrDenied},
		"Outage":      {account, strange, github.ErrUnknown},
		"OutOfTime":   {account, context.DeadlineExceeded, github.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, simgithub.Config{})
			_, client := holding(t, s.Handler(), store.GitHubCredential{}, &parameters{err: c.err})
			r := repo
			r.Account = c.account
			err := client.Delete(t.Context(), r, 1)
			e := failed(t, "Delete", err, c.want)
			if errors.Is(err, github.ErrNotFound) || e.Status != 0 || c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("Delete = %v, want %v with its cause", err, c.want)
			}
			if len(s.Calls()) != 0 {
				t.Errorf("calls = %v, want none", s.Calls())
			}
		})
	}
}

func TestChangedTokenIsReadAnewAndTheCallMadeOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, simgithub.Config{Fault: func(string, *http.Request) simgithub.Fault { return simgithub.Fault{Delay: time.Second} }})
		p := &parameters{}
		p.set(account, "/github/runner/pat", "canary-old")
		creds, client := holding(t, s.Handler(), store.GitHubCredential{}, p)
		if _, err := creds.Token(t.Context(), repo.Access()); err != nil { // it is in the cache now
			t.Fatal(err)
		}
		p.set(account, "/github/runner/pat", token)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				in := []github.Scope{repo, other}[i%2]
				if _, err := client.Mint(t.Context(), in, fmt.Sprintf("r%d", i), []string{"x"}); err != nil {
					t.Errorf("Mint %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if n := p.fresh(); n != 1 {
			t.Errorf("%d fresh reads for 20 calls at once, want 1", n)
		}
		if n, m := len(s.Registrations()), s.Calls()[simgithub.OpMint]; n != 20 || m > 40 {
			t.Errorf("%d registrations in %d calls, want 20 in at most twice as many", n, m)
		}
	})
}

func TestRefusedTokenIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, simgithub.Config{})
		p := &parameters{}
		p.set(account, "/github/runner/pat", "canary-revoked")
		_, client := holding(t, s.Handler(), store.GitHubCredential{}, p)
		mint := func() error {
			_, err := client.Mint(t.Context(), repo, "r", []string{"x"})
			return err
		}
		for i := range 5 {
			if e := failed(t, "Mint", mint(), github.ErrDenied); e.Status != http.StatusUnauthorized {
				t.Errorf("Mint = %v, want GitHub's 401", e)
			}
			if n := s.Calls()[simgithub.OpMint]; n != i+1 || p.fresh() != 1 {
				t.Errorf("after %d calls GitHub saw %d, with %d fresh reads; want one each, and one read", i+1, n, p.fresh())
			}
		}
		time.Sleep(10 * time.Second)
		failed(t, "Mint 10s later", mint(), github.ErrDenied)
		if p.fresh() != 2 {
			t.Errorf("%d fresh reads, want a second one after 10s", p.fresh())
		}
		p.set(account, "/github/runner/pat", "canary-also-revoked")
		time.Sleep(10 * time.Second)
		failed(t, "Mint with another one that is refused", mint(), github.ErrDenied)
		if n := s.Calls()[simgithub.OpMint]; n != 8 {
			t.Errorf("GitHub saw %d calls, want 8: the other token was tried once", n)
		}
		p.set(account, "/github/runner/pat", token)
		time.Sleep(10 * time.Second)
		if err := mint(); err != nil {
			t.Errorf("Mint with the right one: %v", err)
		}
	})
}

func TestNewTokenThatCannotBeReadIsTheError(t *testing.T) {
	s := open(t, simgithub.Config{})
	p := &parameters{}
	p.set(account, "/github/runner/pat", "canary-old")
	creds, client := holding(t, s.Handler(), store.GitHubCredential{}, p)
	if _, err := creds.Token(t.Context(), repo.Access()); err != nil {
		t.Fatal(err)
	}
	delete(p.values, account+" /github/runner/pat")
	err := client.Delete(t.Context(), repo, 1)
	if failed(t, "Delete", err, github.ErrDenied); !errors.Is(err, github.ErrNoParameter) || errors.Is(err, github.ErrNotFound) {
		t.Errorf("Delete = %v, want that the parameter is gone", err)
	}
}

func TestNewCredentialsRefusesABadConfig(t *testing.T) {
	p := &parameters{}
	good := github.CredentialsConfig{BaseURL: "https://api.github.com", Account: registered(store.GitHubCredential{}), Parameter: p.get}
	if _, err := github.NewCredentials(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*github.CredentialsConfig){
		"NoAccount":   func(c *github.CredentialsConfig) { c.Account = nil },
		"NoParameter": func(c *github.CredentialsConfig) { c.Parameter = nil },
		"NoTLS":       func(c *github.CredentialsConfig) { c.BaseURL = "http://api.github.com" },
	} {
		bad := good
		spoil(&bad)
		if _, err := github.NewCredentials(bad); err == nil {
			t.Errorf("NewCredentials with %s: no error", name)
		}
	}
}
