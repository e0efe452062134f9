package local_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc/oidctest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for began := time.Now(); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// A job without any secret asks for a runner, and the record tells whose job it was.
func TestWorkflowIsLetInByItsIDToken(t *testing.T) {
	server := httptest.NewServer(nil)
	defer server.Close()
	issuer, err := oidctest.New(oidctest.Config{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = issuer
	issuer.Set("run_id", "4711")
	issuer.Set("actor", "octocat")
	dir := t.TempDir()
	register(t, dir, "acme/shop", "1001", "")
	s := run(t, local.Config{Dir: dir, OIDCIssuer: server.URL, OIDCAudience: "https://garo.test"})

	as := func(audience string) *client.Client {
		return client.Must(client.New(client.Config{URL: "http://test.localhost", HTTP: s.System.Client(), Token: func(context.Context) (client.Token, error) {
			token, err := issuer.Token(audience)
			return client.NewToken(token), err
		}}))
	}
	if _, err := as("https://elsewhere.test").Start(t.Context(), apitype.Start{}); err == nil {
		t.Error("a token for another API was taken")
	}
	// The ids are of the issuer's server, and the registration's of github.com.
	if _, err := as("https://garo.test").Start(t.Context(), apitype.Start{AccountID: "111122223333"}); !errors.Is(err, client.ErrForbidden) {
		t.Errorf("a token of another GitHub server than github.com: %v, want %v", err, client.ErrForbidden)
	}
	if _, err := as("https://garo.test").Start(t.Context(), apitype.Start{AccountID: local.BuiltIn}); err != nil {
		t.Errorf("start in the built-in account = %v, want it to serve the issuer's server", err)
	}
}

func TestWorkflowOfARegisteredServerGetsARunner(t *testing.T) {
	server := httptest.NewServer(nil)
	defer server.Close()
	issuer, err := oidctest.New(oidctest.Config{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = issuer
	issuer.Set("run_id", "4711")
	issuer.Set("actor", "octocat")
	dir := t.TempDir()
	register(t, dir, "acme/shop", "1001", server.Listener.Addr().String())
	told := &log{}
	s := run(t, local.Config{Dir: dir, OIDCIssuer: server.URL, Jobs: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(told, nil))})
	c := client.Must(client.New(client.Config{URL: "http://test.localhost", HTTP: s.System.Client(), Token: func(context.Context) (client.Token, error) {
		token, err := issuer.Token("http://test.localhost")
		return client.NewToken(token), err
	}}))
	started, err := c.Start(t.Context(), apitype.Start{AccountID: "111122223333", IdempotencyKey: "a"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Start(t.Context(), apitype.Start{AccountID: "111122223333", IdempotencyKey: "a"})
	if err != nil || again.ID != started.ID {
		t.Errorf("Start again = %s, %v; want %s: another token of the same job", again.ID, err, started.ID)
	}
	status, err := c.Wait(t.Context(), started.ID, nil)
	if err != nil || status.State != string(store.Ready) {
		t.Fatalf("Wait = %s %v, %v; want ready", status.State, status.Error, err)
	}
	r, err := store.Read[store.Request](t.Context(), s.Store, started.ID)
	if err != nil || r.Origin.RunID != "4711" || r.Origin.Actor != "octocat" || r.Caller != "github octocat" || r.Repository.Server == "" {
		t.Errorf("record = %+v by %q, %v; want the job that asked", r.Origin, r.Caller, err)
	}
	// The pretended job is one of the run that asked.
	eventually(t, "the runner to end", func() bool {
		run, err := store.Read[store.Runner](t.Context(), s.Store, r.Runner)
		return err == nil && run.State == store.RunnerEnded
	})
	if jobs := s.GitHub.Jobs(); len(jobs) != 1 || jobs[0].RunID != "4711" || jobs[0].State != simgithub.Done {
		t.Errorf("jobs = %+v, want one of run 4711, done", jobs)
	}
	if strings.Contains(told.String(), "alarm=") {
		t.Errorf("there is an alarm in the log:\n%s", told)
	}
}

// One person with a token sees a real registration, and its removal.
func TestRealGitHubGetsTheRegistrationAndLosesItAgain(t *testing.T) {
	gh, err := simgithub.New(simgithub.Config{
		Rules:        simgithub.Rules{Token: secret.New("ghp_canary")},
		Repositories: []github.Repository{{ID: "77", Name: "octo/real"}},
		Errorf:       t.Errorf,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gh.Handler())
	defer server.Close()
	dir := t.TempDir()
	register(t, dir, "octo/real", "77", "")
	token := filepath.Join(dir, "pat")
	if err := os.WriteFile(token, []byte("ghp_canary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := run(t, local.Config{Dir: dir, GitHubURL: server.URL + "/api/v3", GitHubTokenFile: token})
	started, err := s.Start(t.Context(), apitype.Start{Repo: "octo/real", Mode: store.Ephemeral})
	if err != nil {
		t.Fatal(err)
	}
	if status, err := s.Wait(t.Context(), started.ID, nil); err != nil || status.State != string(store.Ready) {
		t.Fatalf("Wait = %s %v, %v; want ready", status.State, status.Error, err)
	}
	if got := gh.Registrations(); len(got) != 1 || got[0].Labels[0] != started.OwnLabel {
		t.Fatalf("GitHub has %+v, want one registration with the label %s", got, started.OwnLabel)
	}
	if _, err := s.Stop(t.Context(), started.ID, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the registration to be deleted", func() bool { return len(gh.Registrations()) == 0 })
}

// register writes the registration of an account for one repository.
func register(t *testing.T, dir, repository, id, server string) {
	t.Helper()
	accounts := filepath.Join(dir, local.AccountsDir)
	if err := os.MkdirAll(accounts, 0o700); err != nil {
		t.Fatal(err)
	}
	text := `{"id": "111122223333", "external_id": "x", "server": "` + server + `",
		"repositories": [{"id": "` + id + `", "name": "` + repository + `"}],
		"regions": {"eu-west-2": {"subnets": ["subnet-1"], "security_groups": ["sg-1"], "images": ["ami-1"]}},
		"instance_types": ["t3a.micro"], "default_instance_types": ["t3a.micro"],
		"markets": ["spot"], "modes": ["ephemeral"], "max_runners": 3, "github": {}}`
	if err := os.WriteFile(filepath.Join(accounts, "111122223333.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
