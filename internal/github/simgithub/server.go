// Package simgithub is a GitHub for tests, simulations and local use: the calls
// that concern runners, the tokens of an App that makes them, and the side that
// runner programs talk to. It promises to be as strict as GitHub or stricter:
// what GitHub might refuse it refuses, and a request that no client of ours
// should make is reported.
//
// A Server starts no goroutine and waits for nothing but its Disk. Time moves it
// on whenever it is called, and while a runner program waits for a job. The same
// calls at the same times, with the same Random, have the same answers. Under
// testing/synctest, make it inside the bubble.
package simgithub

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// Config is what a Server is made of. The zero value lets nobody in.
type Config struct {
	// Repositories are all that exist, for the credential; their Account plays no
	// part. nil: whatever id or name is asked for exists, but not for an App, and
	// nobody knows which name belongs to which id.
	Repositories []github.Repository
	// Organizations are all that exist, for the credential.
	Organizations []Organization
	Rules         Rules
	// Disk keeps registrations and open jobs; nil: they are gone with the
	// process. The Server does not close it.
	Disk Disk

	// PickUp is how long a job stays assigned to a runner that does not take it;
	// 0: 60 s, as at GitHub.
	PickUp time.Duration
	// Lost is how long a job is waited for whose runner program is gone; 0: ten
	// minutes, about what GitHub takes.
	Lost time.Duration

	// Fault is asked before each request is looked at, without any lock. op is
	// one of the Op constants. nil: nothing goes wrong.
	Fault func(op string, r *http.Request) Fault
	// ReadLag is how old the answers about workflow runs and their jobs are; nil: not at all.
	// A job that is younger is as it was when it was queued.
	ReadLag func() time.Duration
	// Errorf gets requests that a correct client never makes, such as
	// t.Errorf. They are refused as well. nil: they are not reported.
	Errorf func(format string, args ...any)

	Now    func() time.Time // nil: time.Now
	Random io.Reader        // nil: crypto/rand.Reader; read by one call at a time
}

// Disk keeps JSON values by bucket and key; a *diskmap.Map is one.
type Disk interface {
	Put(bucket, key string, v any) error
	Delete(bucket, key string) error
	Load(bucket string, each func(key string, value []byte) error) error
}

// Rules are what can change while a Server runs.
type Rules struct {
	// Token is the only credential that is let in, but for tokens of App.
	Token secret.Text
	// Others are let in as Token is, each with limits of its own.
	Others []secret.Text
	// App may ask for tokens. The zero value may not.
	App App
	// OmitBusy leaves busy runners out of lists, though not out of Get.
	OmitBusy bool
	// BusyLag is how long after taking a job a runner does not look busy yet. A
	// runner that is deleted meanwhile finishes its job all the same.
	BusyLag time.Duration
	// StaysBusy makes a runner whose job was lost look busy for ever, as if the job
	// still ran. Haunt does the same to one runner.
	StaysBusy bool
	// TooOld refuses every runner program for its version: in the answer to its
	// polls, and never when it opens its session.
	TooOld bool
	// LosesJobs gives a job that a runner is about to take to nobody: it is queued
	// again, and the runner's registration is used up, though it stays online.
	LosesJobs bool
	// RefuseMint refuses every registration; nil: none for that reason.
	RefuseMint *Refusal
	// GroupLimit is how many runners a repository or a runner group may have. 0: 10,000, as at GitHub
	// (https://docs.github.com/en/actions/reference/limits).
	GroupLimit int
	// Version is that of runner programs that connect; empty: ProgramVersion.
	Version string
	// Deprecations are the versions with an end that is known. Of others GitHub
	// knows ProgramVersion alone, without an end.
	Deprecations map[string]Deprecation
	// AutoJobs, unless it is zero, queues a job of that length for each runner
	// that goes online with a label that begins with garo-: for just that label.
	AutoJobs time.Duration
	Limit    Limit
}

// Deprecation is when GitHub stops to serve a version. Zero: no date is set.
type Deprecation struct {
	Registration time.Time // after it, runners of the version cannot register
	Runtime      time.Time // after it, they get no jobs
}

// Fault is what goes wrong with a request. The zero value is nothing.
type Fault struct {
	// Delay is waited for first, or until the client has gone.
	Delay time.Duration
	// Instead answers in GitHub's place, and the request has no effect.
	Instead http.Handler
	// Lose lets the request take effect, and cuts the connection.
	Lose bool
}

// NoAnswer is a Fault's Instead that cuts the connection.
var NoAnswer http.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })

// Registration is a runner that was registered for one job.
type Registration struct {
	ID         int64
	Repository string // owner/name, when it was made
	// RepositoryID is whose it is, whatever the repository is called; empty: it is the
	// organization's of that id.
	RepositoryID   string
	OrganizationID string
	Group          int64 // the runner group
	Name           string
	Labels         []string // as given
	// Config is its credential; empty if it was made by an earlier process.
	Config    secret.Text
	CreatedAt time.Time

	Online bool // a runner program has its session open
	Busy   bool // it runs a job, and looks it
	// Opened and Refused count the sessions that runner programs opened with
	// Config in this process, and those that were refused for another open one.
	Opened, Refused int

	RemovedAt time.Time // zero: it is there
	RemovedBy string    // RemovedByCall, RemovedByJob or RemovedByGitHub
}

// How a registration ends.
const (
	RemovedByCall = "delete" // a DELETE of it
	RemovedByJob  = "job"    // its one job was done
	// RemovedByGitHub: GitHub forgot it on its own.
	RemovedByGitHub = "github"
)

// Server is a GitHub. It is safe for concurrent use.
type Server struct {
	cfg Config

	// lock has one slot, and is held while anything below is read or changed,
	// writes to Disk included: memory and Disk change in the same order.
	lock chan struct{}
	pool
	limiter limiter                // of Token and App
	others  map[string]*limiter    // of Others
	arrived map[string][]time.Time // registrations of the last five minutes, by scope
	rules   Rules
	names   names
	orgs    []Organization
	// workflows are the runs and their jobs, by their numbers; delivered is the App's log.
	workflows map[string]Workflow
	delivered []Delivery
	calls     map[string]int
	total     int               // of calls
	grants    map[string]*grant // by token
}

// New returns a server that continues from what its Disk has. All runners are
// offline then, until their runner programs connect again.
func New(cfg Config) (*Server, error) {
	if cfg.PickUp == 0 {
		cfg.PickUp = time.Minute
	}
	if cfg.Lost == 0 {
		cfg.Lost = 10 * time.Minute
	}
	if cfg.Errorf == nil {
		cfg.Errorf = func(string, ...any) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	s := &Server{
		cfg:    cfg,
		lock:   make(chan struct{}, 1),
		rules:  cfg.Rules,
		calls:  map[string]int{},
		grants: map[string]*grant{}, workflows: map[string]Workflow{},
		names: newNames(cfg.Repositories),
		orgs:  slices.Clone(cfg.Organizations),
		pool:  pool{shelf: shelf{disk: cfg.Disk}, pickUp: cfg.PickUp, lost: cfg.Lost},
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("open the GitHub stand-in: %w", err)
	}
	return s, nil
}

// step runs f alone, with what time has brought about done before it and what f
// has made possible after it. An error of the Disk comes after the effect: what
// could not be kept is tried again by the next step.
func (s *Server) step(f func(now time.Time) error) error {
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	now := s.cfg.Now()
	s.settle(now)
	err := f(now)
	s.settle(now)
	if kerr := s.keep(); err == nil {
		err = kerr
	}
	return err
}

// look is step for what cannot fail. What Disk refuses is tried again later.
func (s *Server) look(f func(now time.Time)) {
	_ = s.step(func(now time.Time) error {
		f(now)
		return nil
	})
}

// Change changes the rules from now on. Runner programs that wait for a job poll
// under the new ones at once.
func (s *Server) Change(change func(*Rules)) {
	s.look(func(time.Time) {
		change(&s.rules)
		for _, r := range s.runners {
			r.wake()
		}
		for _, j := range s.jobs { // also on those that are deleted
			if j.by != nil {
				j.by.wake()
			}
		}
	})
}

// Calls returns how many requests there were, by operation.
func (s *Server) Calls() (calls map[string]int) {
	s.look(func(time.Time) { calls = maps.Clone(s.calls) })
	return calls
}

// Registrations returns the runners that are there, in the order of their making.
func (s *Server) Registrations() (out []Registration) {
	s.look(func(now time.Time) {
		for _, r := range s.runners {
			out = append(out, r.fact(now, s.rules.BusyLag))
		}
	})
	return out
}

// Minted returns the runners that are there and those that were, as far as this
// process knows them, in the order of their making.
func (s *Server) Minted() (out []Registration) {
	s.look(func(now time.Time) {
		for _, r := range slices.Concat(s.removed, s.runners) {
			out = append(out, r.fact(now, s.rules.BusyLag))
		}
	})
	slices.SortFunc(out, func(a, b Registration) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
