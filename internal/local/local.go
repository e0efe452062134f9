// Package local is GARO whole on one machine: the API, the worker and the reaper
// in one process, over SQLite, with a simulated EC2 whose machines run the real
// agent and a simulated GitHub that gives them pretended jobs.
//
// It differs from production only in the constructors that it calls. A process
// that is killed loses nothing: records, messages, instances, what the machines
// had on their disks and what GitHub had registered are all in the data directory.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/pricelist"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/pricelist/simprices"
	"github.com/alphagov/github-actions-runner-orchestration/internal/doctor"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/sqlitequeue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/sqlitestore"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// ControlPlane is the name that local systems give themselves.
const ControlPlane = "local"

// Region is where the built-in account launches.
const Region = "eu-west-2"

// GCPercent is debug.SetGCPercent's for a program that is a System alone: the heap may
// grow to five times what is live before it is collected, as that of the Lambda
// functions. What is live is a few megabytes; collecting it as often as Go does by
// itself was a quarter of the processor time of a start.
const GCPercent = 400

// The files of a data directory that others may read; the accounts are theirs to
// write.
const (
	// TokenFile has the operator's token.
	TokenFile = "token"
	// URLFile has the address of the API, while it is served.
	URLFile = "url"
	// AccountsDir has a registration in each file, whose name is the account's id
	// and .json.
	AccountsDir = "accounts"
	// StoreFile has the records and the queue.
	StoreFile = "garo.db"
	// WorldFile has what the simulated EC2 and GitHub know.
	WorldFile = "fleet.db"
)

// Config is what a System is made of.
type Config struct {
	// Dir keeps everything. It is made if it is not there, and belongs to one
	// System at a time.
	Dir string
	// URL is where clients and machines reach the API.
	URL    string
	Limits store.Limits
	// BootTime is how long a machine takes from its launch until its agent runs.
	BootTime time.Duration
	// Jobs gives every runner, when it first goes online, one pretended job of
	// that length; zero: none comes.
	Jobs time.Duration
	// GitHubLost is how long GitHub keeps a job busy whose machine is gone; zero: ten minutes.
	GitHubLost time.Duration
	// OIDCIssuer lets workflows in by the ID tokens of that issuer, for
	// OIDCAudience (empty: URL). The built-in account then serves a repository of
	// that issuer's server. Empty: operators alone.
	OIDCIssuer, OIDCAudience string
	// GitHubURL registers runners at a real GitHub, https://api.github.com or
	// https://HOST/api/v3 of an Enterprise Server, with the token, or the App's
	// private key, in GitHubTokenFile. No job comes, since simulated machines cannot
	// connect there; what is registered counts as online. Empty: a simulated GitHub.
	GitHubURL, GitHubTokenFile string
	// EC2Pacing paces launches, and throttles them, as EC2 does; else it is 100 a second.
	EC2Pacing bool
	// Empty are placements without capacity.
	Empty []simfleet.Placement
	// NeverBoots plants machines that run and do nothing, by the number of their launch.
	NeverBoots func(n int) bool
	Log        *slog.Logger // nil: none
}

// System is a GARO. It works while Run or Serve does. Make it with Open, and
// Close it.
type System struct {
	Store  *sqlitestore.Store
	Queue  *sqlitequeue.Queue
	Fleet  *simfleet.Fleet
	GitHub *simgithub.Server
	// Token is the operator's.
	Token secret.Text

	cfg      Config
	exporter *exporter
	hour     func() (left float64, known bool) // of GitHub's calls
	api      http.Handler
	worker   *worker.Worker
	reaper   reaper.Config
	teller   *teller
	reaping  chan struct{} // holds one token: one run at a time in this process
	close    []func() error
}

// Open returns a System that continues from what its data directory has. It fails
// for a registration that cannot be read, rather than serve without it. Machines
// continue from now; workers and the reaper do with Run.
func Open(ctx context.Context, cfg Config) (_ *System, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &System{cfg: cfg, exporter: newExporter(), reaping: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open %s: %w", cfg.Dir, advised(cfg.Dir, err)), s.Close())
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	unlock, err := lockDir(ctx, cfg.Dir)
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, unlock)
	registered := accounts{dir: filepath.Join(cfg.Dir, AccountsDir), builtIn: builtIn(api.ServerOf(cfg.OIDCIssuer), cfg.EC2Pacing)}
	if err := registered.check(ctx); err != nil {
		return nil, err
	}
	ring, token, err := secrets(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s.Token = token
	if s.Store, err = sqlitestore.Open(ctx, filepath.Join(cfg.Dir, StoreFile)); err != nil {
		return nil, err
	}
	s.close = append(s.close, s.Store.Close)
	if s.Queue, err = sqlitequeue.New(ctx, s.Store.DB(), s.Store.Exec, visibility, time.Now); err != nil {
		return nil, err
	}
	return s, s.assemble(ctx, ring, registered)
}

// assemble makes the three parts, as the Lambda functions do, and the world
// between them: its machines call the API from the moment that they are there.
func (s *System) assemble(ctx context.Context, ring *keys.Ring, registered store.Accounts) error {
	cfg := s.cfg
	url := strings.TrimSuffix(cfg.URL, "/")
	auth, err := s.authenticator(ctx, url)
	if err != nil {
		return err
	}
	s.teller = newTeller(s, ring, registered)
	records := metrics.Counted(s.Store, s.exporter.counted)
	s.api = api.New(api.Config{
		Store: records, Queue: s.Queue, Accounts: registered, Keys: ring, Identity: simidentity.Own().Trust(),
		Limits: cfg.Limits, URL: url, Auth: auth, AppSecrets: s.teller.secrets, Log: cfg.Log,
	})
	if err := s.world(); err != nil {
		return err
	}
	gh, err := s.registrar(registered)
	if err != nil {
		return err
	}
	read := func(context.Context) (*keys.Ring, error) { return ring, nil }
	examiner := doctor.New(doctor.Config{
		Accounts: registered, Fleet: simfleet.Inspected{World: s.Fleet.World}, GitHub: gh, Records: s.Store, Keys: read, Vouches: simidentity.Own().Trust().Has, ControlPlane: ControlPlane, APIURL: url,
	})
	s.worker = worker.New(worker.Config{
		Store: records, Queue: s.Queue, Accounts: registered, Fleet: s.Fleet, GitHub: gh, Workflows: gh, Doctor: examiner, Keys: ring,
		Identity: simidentity.Own().Trust(), Limits: cfg.Limits, ControlPlane: ControlPlane, APIURL: url, Agents: agents, Log: cfg.Log,
	})
	s.hour = gh.HourLeft
	s.reaper = reaper.Config{
		Store: records, Queue: s.Queue, Accounts: registered, Fleet: s.Fleet, GitHub: gh, Workflows: gh, GitHubLeft: gh.HourLeft, Limits: cfg.Limits,
		Keys: read, Prices: pricelist.New(memhttp.Client(simprices.Handler()), pricelist.AWS), ControlPlane: ControlPlane, Log: cfg.Log,
	}
	return nil
}

// agents is what user data says of the agent's programs. A simulated machine has
// the agent built in, and looks at no hash.
var agents = map[string]string{"amd64": strings.Repeat("0", 64), "arm64": strings.Repeat("0", 64)}

// Client returns an HTTP client for the API, without a socket.
func (s *System) Client() *http.Client { return memhttp.Client(s.api) }

// Close stops the machines where they are, as if the host lost its power, and
// closes the files. Run and Serve must have returned.
func (s *System) Close() error {
	var errs []error
	for i := len(s.close) - 1; i >= 0; i-- {
		errs = append(errs, s.close[i]())
	}
	s.close = nil
	return errors.Join(errs...)
}
