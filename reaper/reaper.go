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
// overlap with each other, with workers and with the API: who loses leaves the
// item to the next run. A run that stops at any line is continued by the next one.
package reaper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Fleet is what the reaper needs of fleet.Fleet: to see machines, and to end them.
type Fleet interface {
	ByToken(ctx context.Context, at fleet.Place, runner, token string) (fleet.Instance, error)
	Get(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Instance, error)
	List(ctx context.Context, at fleet.Place, controlPlane string) iter.Seq2[fleet.Instance, error]
	Terminate(ctx context.Context, at fleet.Place, id string) error
}

// GitHub is what the reaper needs of github.API: to see registrations, to remove
// them, and to learn when the version of their programs ends.
type GitHub interface {
	Get(ctx context.Context, repo github.Repository, id int64) (github.Runner, error)
	Delete(ctx context.Context, repo github.Repository, id int64) error
	Find(ctx context.Context, repo github.Repository, name string) (github.Runner, error)
	List(ctx context.Context, repo github.Repository, prefix string) iter.Seq2[github.Runner, error]
	Deprecation(ctx context.Context, repo github.Repository, version string) (github.Deprecation, error)
}

// Config is what a Reaper is made of. All fields are needed but the last four.
type Config struct {
	Store    store.Store
	Queue    queue.Sender
	Accounts store.Accounts
	Fleet    Fleet
	GitHub   GitHub
	Limits   store.Limits
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

const (
	// margin is how long before its deadline a run starts nothing new: what is
	// under way then can still be answered and recorded.
	margin = 5 * time.Second
	// recording is what a call leaves of the run, to record what it answered.
	recording = 2 * time.Second
	// batch is how many due items are read at once. A runner has three items
	// around it, and one DynamoDB read takes 100
	// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html).
	batch = 25
)

// pass is one run of a Reaper.
type pass struct {
	*Reaper
	store  *store.Writer
	gate   gate
	report Report
	errs   []error
	// alarmed has the alarms that were raised, so that each thing raises one.
	alarmed map[string]bool
	// canList tells whether a credential can list the registrations of a
	// repository; nil: it can.
	canList map[github.Repository]error
	// finished has the runners that this run ended: a dry run meets them again.
	finished map[string]bool
	// recent has the repositories with a runner in the last day, by account and id.
	recent map[string]map[string]github.Repository
	// inUse has the live runners by instance id, once they were read; nil: not yet.
	inUse map[string]store.Runner
	late  atomic.Bool
}

// Run makes one run. It starts nothing new in the last five seconds before ctx's
// deadline; what is left then stays due. The error joins what failed, all of
// which was logged; the report is valid with it, and no failure keeps the run
// from the rest.
func (r *Reaper) Run(ctx context.Context) (Report, error) {
	id, err := keys.NewID(r.cfg.Random)
	if err != nil {
		return Report{}, fmt.Errorf("name the run: %w", err)
	}
	p := &pass{
		Reaper:  r,
		store:   store.NewWriter(r.cfg.Store, "reaper-"+id, r.cfg.Now),
		gate:    gate{silent: map[string]int{}, shut: map[string]error{}},
		report:  Report{StartedAt: r.cfg.Now().UTC(), DryRun: r.cfg.DryRun, Counts: map[Action]int{}, Lines: []Line{}},
		alarmed: map[string]bool{}, finished: map[string]bool{},
		canList: map[github.Repository]error{},
	}
	due := p.due(ctx)
	var ending, naming []*store.Runner
	var parked []*store.Request
	var asked []store.Case
	for _, phase := range []struct {
		name string
		do   func()
	}{
		{"runners", func() { ending, naming, asked = p.runners(ctx, due[store.KindRunner]) }},
		{"requests", func() { parked = p.requests(ctx, due[store.KindRequest]) }},
		{"end", func() { p.end(ctx, ending) }},
		{"quota", func() { p.wake(ctx, parked) }},
		{"confirm", func() { atGitHub{p}.confirm(ctx, asked) }},
		{"names", func() { atGitHub{p}.names(ctx, naming) }},
		{"sweeps", func() { atEC2{p}.sweeps(ctx, atEC2{p}.dueSweeps(ctx, due[store.KindSweep])) }},
	} {
		p.guard("phase", phase.name, phase.do)
	}
	p.report.Late = p.late.Load()
	p.report.EndedAt = p.cfg.Now().UTC()
	return p.report, errors.Join(p.errs...)
}

// due returns what the index lists, by kind, oldest first. After an error it is
// what came before it.
func (p *pass) due(ctx context.Context) map[store.Kind][]store.Ref {
	refs, seen := map[store.Kind][]store.Ref{}, map[store.Ref]bool{}
	for ref, err := range p.store.Due(ctx, p.cfg.Now()) {
		if err != nil {
			p.fail("index", "", fmt.Errorf("read the due index: %w", err))
			break
		}
		if !seen[ref] {
			seen[ref] = true
			refs[ref.Kind] = append(refs[ref.Kind], ref)
		}
	}
	return refs
}

// isDue reports whether the item itself says that it is due: the index may lag.
func isDue(m *store.Meta, now time.Time) bool {
	return m.Version != 0 && !m.DueAt.IsZero() && !m.DueAt.After(now)
}

// read gets items of one type; false when that failed, which is then reported
// under what.
func read[T store.Item](ctx context.Context, r *pass, what string, refs ...store.Ref) ([]T, bool) {
	var out []T
	for part := range slices.Chunk(refs, 4*batch) {
		items, err := r.store.Get(ctx, part...)
		if err != nil {
			r.fail(what, part[0].ID, fmt.Errorf("read %d items from %s on: %w", len(part), part[0], err))
			return nil, false
		}
		for _, it := range items {
			out = append(out, it.(T))
		}
	}
	return out, true
}

// apply commits a decision about an item and sends its messages, or in a dry run does
// nothing, and reports whether the run may go on from it. It may not when somebody was
// faster, or when the outcome is not known: the next run looks again.
func (p *pass) apply(ctx context.Context, it store.Item, d store.Decision) bool {
	if p.cfg.DryRun {
		return true
	}
	var err error
	if len(d.Changes) > 0 {
		err = p.store.Commit(ctx, d.Changes...)
	}
	switch {
	case err == nil:
		p.sendAll(ctx, d)
		return true
	case errors.Is(err, store.ErrConflict):
		p.note(it, Skip, "somebody was faster: "+err.Error())
	default:
		p.fail(string(it.Ref().Kind), it.Ref().ID, fmt.Errorf("commit %s: %w", it.Ref(), err))
	}
	return false
}

// sendAll puts the messages of a decision into the queue. A failure is reported, and the
// next run sends the message again.
func (p *pass) sendAll(ctx context.Context, d store.Decision) {
	for _, s := range d.Sends {
		if p.cfg.DryRun {
			return
		}
		m := queue.Of(s)
		if err := p.cfg.Queue.Send(ctx, m, min(max(s.Due.Sub(p.cfg.Now()), 0), queue.MaxDelay)); err != nil {
			kind := s.Item.Ref().Kind
			p.fail(string(kind), m.ID, fmt.Errorf("send %s of %s %s: %w", m.Kind, kind, m.ID, err))
		}
	}
}

// isLate reports whether the run may start nothing new any more.
func (p *pass) isLate(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	if ctx.Err() != nil || ok && time.Until(end) < margin {
		p.late.Store(true)
	}
	return p.late.Load()
}
