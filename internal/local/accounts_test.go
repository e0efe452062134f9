package local_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const second = `{
	"id": "123456789012", "external_id": "a-made-up-one",
	"repositories": [{"id": "2002", "name": "octo/cat"}],
	"regions": {"us-east-1": {"subnets": ["subnet-x"], "security_groups": ["sg-x"], "images": ["ami-x"]}},
	"instance_types": ["c7g.large"], "default_instance_types": ["c7g.large"],
	"markets": ["ondemand"], "modes": ["ephemeral"], "max_runners": 3, "github": {}
}`

// write puts a file into the accounts of a data directory, and returns its path.
func write(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, local.AccountsDir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSecondAccountLaunchesItsOwnMachines(t *testing.T) {
	dir := t.TempDir()
	s := run(t, local.Config{Dir: dir})
	body := apitype.Start{Repo: "octo/cat"}
	if _, err := s.Start(t.Context(), body); !errors.Is(err, client.ErrForbidden) {
		t.Errorf("a start before the registration = %v, want %v", err, client.ErrForbidden)
	}
	write(t, dir, "123456789012.json", second)
	started, err := s.Start(t.Context(), body)
	if err != nil {
		t.Fatal(err)
	}
	q := s.ready(t, []apitype.Started{started})[0]
	if q.Account != "123456789012" || q.Region != "us-east-1" || q.Mode != store.Ephemeral || q.Runner.InstanceType != "c7g.large" || q.Runner.Market != store.OnDemand {
		t.Errorf("request in %s %s, %s on %s %s; want what the registration says", q.Account, q.Region, q.Mode, q.Runner.Market, q.Runner.InstanceType)
	}
	for account, want := range map[string]int{"123456789012": 1, local.BuiltIn: 0} {
		if quota, err := store.Read[store.Quota](t.Context(), s.Store, account); err != nil || quota.Live != want {
			t.Errorf("the quota of %s counts %d, %v; want %d", account, quota.Live, err, want)
		}
	}
}

func TestRunnerOfAnOrganizationServesItsRepository(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "123456789012.json", strings.Replace(second, `"github": {}`,
		`"scope": {"kind": "organization", "id": "7", "name": "octo", "runner_group": "garo"}, "github": {}`, 1))
	s := run(t, local.Config{Dir: dir, Jobs: 50 * time.Millisecond})
	started, err := s.Start(t.Context(), apitype.Start{Repo: "octo/cat"})
	if err != nil {
		t.Fatal(err)
	}
	s.ready(t, []apitype.Started{started})
	eventually(t, "the runner to end with its job", func() bool {
		q, err := store.Read[store.Request](t.Context(), s.Store, started.ID)
		if err != nil {
			t.Fatal(err)
		}
		r, err := store.Read[store.Runner](t.Context(), s.Store, q.Runner)
		return err == nil && r.State == store.RunnerEnded
	})
	if jobs := s.GitHub.Jobs(); len(jobs) != 1 || jobs[0].RepositoryID != "2002" || jobs[0].State != simgithub.Done {
		t.Errorf("jobs = %+v, want one of octo/cat, done", jobs)
	}
	if got := s.GitHub.Minted(); len(got) != 1 || got[0].OrganizationID != "7" || got[0].Group != 2 {
		t.Errorf("registrations = %+v, want one in the group of the organization", got)
	}
}

func TestFileReplacesTheBuiltInAccount(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, local.BuiltIn+".json", strings.Replace(second, "123456789012", local.BuiltIn, 1))
	s := run(t, local.Config{Dir: dir})
	if _, err := s.Start(t.Context(), apitype.Start{Repo: repository}); !errors.Is(err, client.ErrForbidden) {
		t.Errorf("a start for %s = %v, want %v", repository, err, client.ErrForbidden)
	}
	if _, err := s.Start(t.Context(), apitype.Start{Repo: "octo/cat"}); err != nil {
		t.Errorf("a start for octo/cat: %v", err)
	}
}

func TestBrokenRegistrationIsNamedAtTheStart(t *testing.T) {
	for name, c := range map[string]struct{ file, content, want string }{
		"NoJSON":       {"123456789012.json", "{", "registration of account 123456789012: unexpected EOF"},
		"UnknownField": {"123456789012.json", strings.Replace(second, `"modes"`, `"colour"`, 1), `unknown field "colour"`},
		"AnotherID":    {"210987654321.json", second, `id "123456789012": want the account's twelve digits, 210987654321`},
		"TwoFaults": {"123456789012.json", strings.NewReplacer(`"max_runners": 3`, `"max_runners": 0`, `["ondemand"]`, `["reserved"]`).Replace(second),
			"markets: \"reserved\": want spot or ondemand\nmax_runners: want at least 1"},
		"NameOfNoAccount": {"shop.json", second, "want a name of twelve digits, the account's id, and .json"},
		"NoJSONFile":      {"123456789012", second, "want a name of twelve digits, the account's id, and .json"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := write(t, dir, c.file, c.content)
			s, err := local.Open(t.Context(), local.Config{Dir: dir, URL: "http://test.localhost", Limits: quick()})
			if err == nil {
				t.Fatalf("Open succeeds with a broken registration; Close: %v", s.Close())
			}
			if !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Open = %v, want it to name %s and say %q", err, path, c.want)
			}
		})
	}
}

func TestFilesOfAnEditorAreNoRegistrations(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, ".123456789012.json.swp", "b0VIM")
	run(t, local.Config{Dir: dir})
}

// log is a log that can be read while it is written.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A registration that is broken while the system runs is an outage for anyone who
// may be meant by it, and for nobody who names another account.
func TestRegistrationBrokenLaterIsNamedInTheLog(t *testing.T) {
	dir, told := t.TempDir(), &log{}
	s := run(t, local.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(told, nil))})
	path := write(t, dir, "123456789012.json", strings.Replace(second, `"ephemeral"`, `"exclusive"`, 1))
	if _, err := s.Start(t.Context(), apitype.Start{Repo: repository, AccountID: local.BuiltIn}); err != nil {
		t.Errorf("a start that names the built-in account: %v", err)
	}
	// Not by way of the client, which would call again for half a minute.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://test.localhost/start", strings.NewReader(`{"repo": "octo/cat"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.Token.Reveal())
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.System.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a start for octo/cat = %s (%s, %v), want 503", resp.Status, answer, err)
	}
	if bytes.Contains(answer, []byte("exclusive")) {
		t.Errorf("the answer shows the registration: %s", answer)
	}
	if got := told.String(); !strings.Contains(got, path) || !strings.Contains(got, `modes: \"exclusive\": want shared or ephemeral`) &&
		!strings.Contains(got, `modes: \\\"exclusive\\\": want shared or ephemeral`) {
		t.Errorf("the log does not name %s and its modes:\n%s", path, got)
	}
}
