// Package reaper keeps what GARO promises about time: nothing that was accepted
// is forgotten, and nothing outlives its time.
//
// One run looks at every item that is due. It sends again what a worker ought to
// have picked up, settles and expires requests, drains runners whose time is up,
// and takes draining ones to their end in the one order that protects a job. It
// asks EC2 for machines that boot, and GitHub whether idle runners are still
// online, so that both are known while nobody wants them. Every few minutes it
// compares EC2 and GitHub with the records, and ends what no record names: slowly,
// and never many at once.
//
// It never launches and never registers anything. Whatever it decides is
// committed against the versions that it read, so that any number of runs may
// overlap with each other, with workers and with the API: who loses reads, decides
// and tries again a few times, and then leaves the item to the next run. A run that
// stops at any line is continued by the next one.
//
// A run has phases, each with time of its own, so that none can starve another: ends
// first, then sweeps, and what is sent again later. Inside of a phase calls go out
// side by side, and what they come to is reported in the order of the records. When
// one run cannot do it all, several shards can: see Shard.
package reaper

import (
	"context"
	"crypto/rand"
	"io"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Fleet is what the reaper needs of fleet.Fleet: to see machines, to end them, and to learn
// what they cost.
type Fleet interface {
	ByToken(ctx context.Context, at fleet.Place, runner, token string) (fleet.Instance, error)
	Get(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Instance, error)
	List(ctx context.Context, at fleet.Place, controlPlane string) iter.Seq2[fleet.Instance, error]
	Console(ctx context.Context, at fleet.Place, id string) (string, error)
	Terminate(ctx context.Context, at fleet.Place, ids ...string) error
	SpotPrices(ctx context.Context, at fleet.Place, types, subnets []string) (map[string]store.MicroUSD, map[string]string, error)
}

// GitHub is what the reaper needs of github.API: to see registrations, to remove
// them, and to learn when the version of their programs ends.
type GitHub interface {
	Get(ctx context.Context, scope github.Scope, id int64) (github.Runner, error)
	Delete(ctx context.Context, scope github.Scope, id int64) error
	Find(ctx context.Context, scope github.Scope, name string) (github.Runner, error)
	List(ctx context.Context, scope github.Scope, prefix string) iter.Seq2[github.Runner, error]
	Deprecation(ctx context.Context, scope github.Scope, version string) (github.Deprecation, error)
}

// Workflows is what the reaper needs of a github.Jobs: to see which jobs are queued, and
// which webhooks did not reach us.
type Workflows interface {
	Runs(ctx context.Context, repo github.Repository, status string) iter.Seq2[github.Run, error]
	RunJobs(ctx context.Context, repo github.Repository, run int64) ([]github.Job, error)
	Deliveries(ctx context.Context, account, cursor string) (page []github.Delivery, next string, err error)
}

// Config is what a Reaper is made of. All fields are needed but the last four, and those
// that say so.
type Config struct {
	Store    store.Store
	Queue    queue.BatchSender
	Accounts store.Accounts
	Fleet    Fleet
	GitHub   GitHub
	// Workflows tells of workflow jobs, whose requests are named by Keys. nil: nobody does,
	// and jobs whose webhook was lost are not looked for.
	Workflows Workflows
	Keys      func(context.Context) (*keys.Ring, error)
	// Prices has on-demand prices. nil: no prices are read, spot ones neither.
	Prices PriceList
	// GitHubLeft returns which part of its calls of the hour the credential has left that has
	// least, as github.Client.HourLeft does. nil: nobody knows.
	GitHubLeft func() (left float64, known bool)
	Limits     store.Limits
	// ControlPlane is the name in our tags and in the names of our registrations.
	ControlPlane string

	// DryRun decides as ever, and changes nothing: the report says what a run
	// would do.
	DryRun bool
	Now    func() time.Time // nil: time.Now
	Random io.Reader        // nil: crypto/rand.Reader; it names the run
	Log    *slog.Logger     // nil: none
}

// Reaper makes runs. It is safe for concurrent use.
type Reaper struct {
	cfg Config

	mu sync.Mutex
	// limited is until when GitHub asked to wait, by account. It only saves
	// calls: a new process learns it again with its first one.
	limited map[string]time.Time
}

// New returns a Reaper.
func New(c Config) *Reaper {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Reaper{cfg: c, limited: map[string]time.Time{}}
}
