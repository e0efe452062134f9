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
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/internal/diskmap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/githubtest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
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

const (
	// workers is how many batches are worked on at once, as many as the cap of the
	// queue's event source in AWS.
	workers = 5
	// batch is how many messages a worker takes at once.
	batch = 10
	// visibility hides a message for longer than a worker may take.
	visibility = worker.Timeout + 15*time.Second
	// reaperTime is what a run of the reaper may take.
	reaperTime = 50 * time.Second
	// expireEvery is how often records past their time to live are deleted.
	expireEvery = time.Hour
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
	// Jobs gives every runner that goes online a pretended job of that length;
	// zero: none comes.
	Jobs time.Duration
	// GitHubLost is how long GitHub keeps a job busy whose machine is gone; zero: ten minutes.
	GitHubLost time.Duration
	// EC2Pacing paces launches, and throttles them, as EC2 does; else it is 100 a second.
	EC2Pacing bool
	// Empty are placements without capacity.
	Empty []simfleet.Placement
	// NeverBoots plants machines that run and do nothing, by the number of their launch.
	NeverBoots func(n int) bool
	Log        *slog.Logger // nil: none
}

// System is a running GARO. Make it with Open.
type System struct {
	Store  *sqlitestore.Store
	Queue  *sqlitequeue.Queue
	Fleet  *simfleet.Fleet
	GitHub *githubtest.Server
	// Token is the operator's.
	Token secret.Text

	cfg     Config
	api     http.Handler
	worker  *worker.Worker
	reaper  reaper.Config
	reaping chan struct{} // holds one token: one run at a time in this process
	close   []func() error
}

// Open returns a System that goes on from what its data directory has. It
// launches and ends nothing until Run.
func Open(ctx context.Context, cfg Config) (_ *System, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &System{cfg: cfg, reaping: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open %s: %w", cfg.Dir, err), s.Close())
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
	ring, token, err := secrets(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s.Token = token
	if s.Store, err = sqlitestore.Open(ctx, filepath.Join(cfg.Dir, "garo.db")); err != nil {
		return nil, err
	}
	s.close = append(s.close, s.Store.Close)
	if s.Queue, err = sqlitequeue.New(ctx, s.Store.DB(), visibility, time.Now); err != nil {
		return nil, err
	}
	if err := s.world(); err != nil {
		return nil, err
	}
	return s, s.assemble(ring)
}

// world opens EC2 and GitHub, as they were left.
func (s *System) world() error {
	disk, err := diskmap.Open(filepath.Join(s.cfg.Dir, "fleet.db"))
	if err != nil {
		return err
	}
	s.close = append(s.close, disk.Close)
	gh, err := githubtest.New(githubtest.Config{
		Rules: githubtest.Rules{Token: githubToken, AutoJobs: s.cfg.Jobs}, Disk: disk, Lost: s.cfg.GitHubLost,
	})
	if err != nil {
		return err
	}
	s.GitHub = gh
	world := simfleet.WorldConfig{Disk: disk, Pending: s.cfg.BootTime / 4, NeverBoots: s.cfg.NeverBoots}
	if s.cfg.EC2Pacing {
		world.Launches = simfleet.EC2Rate
	}
	// The machines call the handler of the API; what they say goes through no
	// socket, so that a thousand of them fit.
	door := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.api.ServeHTTP(w, r) })
	s.Fleet, err = simfleet.Open(simfleet.Config{
		World: world, HTTP: memhttp.Client(door), Broker: broker{gh}, BootTime: s.cfg.BootTime - s.cfg.BootTime/4, Log: s.cfg.Log,
	})
	if err != nil {
		return err
	}
	s.close = append(s.close, func() error { s.Fleet.Close(); return nil })
	for _, p := range s.cfg.Empty {
		s.Fleet.SetCapacity(p, false)
	}
	return nil
}

// githubToken is the credential that the simulated GitHub knows. It opens nothing else.
var githubToken = secret.New("local")

// assemble makes the three parts, as the Lambda functions do.
func (s *System) assemble(ring *keys.Ring) error {
	cfg := s.cfg
	registered := accounts{dir: filepath.Join(cfg.Dir, "accounts"), builtIn: builtIn(cfg.EC2Pacing)}
	gh, err := github.New(github.Config{
		BaseURL: "http://localhost", HTTP: memhttp.Client(s.GitHub.Handler()),
		Token: func(context.Context, github.Repository) (secret.Text, error) { return githubToken, nil },
	})
	if err != nil {
		return err
	}
	s.api = api.New(api.Config{
		Store: s.Store, Queue: s.Queue, Accounts: registered, Keys: ring, Limits: cfg.Limits, URL: strings.TrimSuffix(cfg.URL, "/"),
		Auth: api.ByPrefix{Operators: api.Operators{"local": keys.HashToken(s.Token.Reveal())}}, Log: cfg.Log,
	})
	s.worker = worker.New(worker.Config{
		Store: s.Store, Queue: s.Queue, Accounts: registered, Fleet: s.Fleet, GitHub: gh, Keys: ring, Limits: cfg.Limits,
		ControlPlane: ControlPlane, APIURL: strings.TrimSuffix(cfg.URL, "/"), Agents: agents, Log: cfg.Log,
	})
	s.reaper = reaper.Config{
		Store: s.Store, Queue: s.Queue, Accounts: registered, Fleet: s.Fleet, GitHub: gh, Limits: cfg.Limits,
		ControlPlane: ControlPlane, Log: cfg.Log,
	}
	return nil
}

// agents is what user data says of the agent's programs. A simulated machine has
// the agent built in, and looks at no hash.
var agents = map[string]string{"amd64": strings.Repeat("0", 64), "arm64": strings.Repeat("0", 64)}

// broker lets simulated machines talk to the simulated GitHub.
type broker struct{ *githubtest.Server }

func (b broker) Connect(ctx context.Context, config string) (simfleet.Session, error) {
	x, err := b.Server.Connect(ctx, config)
	if err != nil {
		return nil, told(err)
	}
	return session{x}, nil
}

type session struct{ *githubtest.Session }

func (x session) Wait(ctx context.Context) (simfleet.Job, error) {
	j, err := x.Session.Wait(ctx)
	return simfleet.Job{ID: j.ID, RunID: j.RunID, Duration: j.Duration}, told(err)
}

func (x session) Done(ctx context.Context, j simfleet.Job) error {
	return told(x.Session.Done(ctx, githubtest.Job{ID: j.ID}))
}

// told gives an answer of GitHub the name that machines know it by.
func told(err error) error {
	switch {
	case errors.Is(err, githubtest.ErrDeleted):
		return simfleet.ErrDeleted
	case errors.Is(err, githubtest.ErrUnknownConfig):
		return simfleet.ErrUnknownConfig
	case errors.Is(err, githubtest.ErrTooOld):
		return simfleet.ErrTooOld
	}
	return err
}

// Client returns an HTTP client for the API, without a socket.
func (s *System) Client() *http.Client { return memhttp.Client(s.api) }

// Run has workers take messages and the reaper make its rounds until ctx ends,
// and returns when all of them have finished what they were at.
func (s *System) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() { s.work(ctx) })
	}
	wg.Go(func() { s.rounds(ctx) })
	wg.Wait()
}

// work is what Lambda's event source does for the worker: it takes batches, and
// deletes what did not fail.
func (s *System) work(ctx context.Context) {
	for ctx.Err() == nil {
		ds, err := s.Queue.Receive(ctx, batch, 20*time.Second) // SQS's longest poll
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("queue", "error", err)
			sleep(ctx, time.Second)
		}
		if len(ds) == 0 {
			continue
		}
		hctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), worker.Timeout)
		failed := map[string]bool{}
		for _, id := range s.worker.Handle(hctx, ds) {
			failed[id] = true
		}
		for _, d := range ds {
			if failed[d.ID] {
				continue
			}
			if err := s.Queue.Delete(hctx, d); err != nil {
				s.cfg.Log.Error("queue", "error", err)
			}
		}
		cancel()
	}
}

// rounds is what the schedule does for the reaper.
func (s *System) rounds(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Limits.ReaperPeriod)
	defer tick.Stop()
	var expired time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if _, err := s.Reap(context.WithoutCancel(ctx), false); err != nil {
				s.cfg.Log.Warn("reaper", "error", err)
			}
			if now.Sub(expired) < expireEvery {
				continue
			}
			expired = now
			if _, err := s.Store.Expire(ctx, now); err != nil && ctx.Err() == nil {
				s.cfg.Log.Warn("expire records", "error", err)
			}
		}
	}
}

// Reap makes one run of the reaper now.
func (s *System) Reap(ctx context.Context, dryRun bool) (reaper.Report, error) {
	select {
	case s.reaping <- struct{}{}:
		defer func() { <-s.reaping }()
	case <-ctx.Done():
		return reaper.Report{}, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, reaperTime)
	defer cancel()
	cfg := s.reaper
	cfg.DryRun = dryRun
	return reaper.New(cfg).Run(ctx)
}

// Close stops the machines where they are, as if the host lost its power, and
// closes the files. Run must have returned.
func (s *System) Close() error {
	var errs []error
	for i := len(s.close) - 1; i >= 0; i-- {
		errs = append(errs, s.close[i]())
	}
	s.close = nil
	return errors.Join(errs...)
}

// Dead returns the messages that no worker could handle.
func (s *System) Dead(ctx context.Context) ([]queue.Dead, error) { return s.Queue.Dead(ctx) }

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// lockDir makes sure that one process at a time uses a data directory: by the
// lock of an SQLite file, which every system has and which goes with the process,
// however that ends.
func lockDir(ctx context.Context, dir string) (unlock func() error, err error) {
	db, err := sql.Open("sqlite", filepath.Join(dir, "lock.db"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		db.Close()
		if strings.Contains(err.Error(), "locked") {
			return nil, errors.New("another garo uses this directory: stop it first, or give --dir")
		}
		return nil, err
	}
	return db.Close, nil
}
