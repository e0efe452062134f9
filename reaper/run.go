package reaper

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Shard is the part of all items that one run looks at: those whose id falls to Index
// among Of. Every id falls to one shard, and each sweep, by its key, too. The zero
// value is the whole.
type Shard struct {
	Index int `json:"shard"` // from 0
	Of    int `json:"of"`    // 0 and 1: there is no other
}

// Valid reports whether there is such a shard.
func (s Shard) Valid() bool { return s == Shard{} || s.Of > 0 && s.Index >= 0 && s.Index < s.Of }

// has reports whether an id falls to the shard: by FNV-1a, which spreads ids evenly.
func (s Shard) has(id string) bool {
	if s.Of < 2 {
		return true
	}
	h := fnv.New32a()
	h.Write([]byte(id)) // never fails
	return int(h.Sum32()%uint32(s.Of)) == s.Index
}

// pass is a run of a Reaper, or a part of one: what runs side by side has a pass
// each, and their reports are joined in order.
type pass struct {
	*Reaper
	*whole
	report Report
	errs   []error
	// sends are messages of what was committed, until flush.
	sends []store.Send
	// overs are runners whose machine is over, until finishAll.
	overs []*over
}

// whole is what the parts of a run share.
type whole struct {
	store *store.Writer
	gate  gate
	shard Shard
	// phase is what the run is at. It changes only when nothing runs side by side.
	phase string
	// What is still to be done, by phase. Each takes from its own.
	todo todo
	// recent has the scopes with a runner in the last day, by account and key. It
	// is read before sweeps run side by side.
	recent map[string]map[string]github.Scope
	// inUse has the live runners by instance id, once they were read; nil: not yet. It
	// is read when nothing runs side by side.
	inUse map[string]store.Runner
	// finished has the runners that this run ended: a dry run meets them again.
	finished map[string]bool

	lock sync.Mutex // guards what follows
	// alarmed has what alarms were raised for, so that each thing raises one, and raised has
	// these alarms, in any order.
	alarmed map[string]bool
	raised  []store.Raised
	// canList tells whether a credential can list the registrations of a scope; nil: it
	// can.
	canList map[github.Scope]error
	// refusing has the accounts that refuse us, or are registered no longer, and why.
	refusing map[string]error
}

// Run makes one run over all items. It starts nothing new in the last five seconds
// before ctx's deadline; what is left then stays due, and Report.Left counts it. The
// error joins what failed, all of which was logged; the report is valid with it, and no
// failure keeps the run from the rest.
func (r *Reaper) Run(ctx context.Context) (Report, error) { return r.RunShard(ctx, Shard{}) }

// RunShard is Run over the items of one shard. Runs of different shards may overlap.
func (r *Reaper) RunShard(ctx context.Context, s Shard) (Report, error) {
	if !s.Valid() {
		return Report{}, fmt.Errorf("shard %d of %d: want one from 0 to below the number of shards", s.Index, s.Of)
	}
	id, err := keys.NewID(r.cfg.Random)
	if err != nil {
		return Report{}, fmt.Errorf("name the run: %w", err)
	}
	p := &pass{
		Reaper: r,
		whole: &whole{
			store: store.NewWriter(r.cfg.Store, "reaper-"+id, r.cfg.Now),
			gate:  gate{silent: map[string]int{}, shut: map[string]error{}},
			shard: s, phase: "index",
			alarmed: map[string]bool{}, finished: map[string]bool{}, canList: map[github.Scope]error{},
			refusing: map[string]error{},
		},
		report: newReport(),
	}
	p.report.StartedAt, p.report.DryRun = r.cfg.Now().UTC(), r.cfg.DryRun
	p.due(ctx)
	p.phases(ctx)
	p.guard("phase", "accounts", func() { p.refusals(ctx) })
	p.guard("phase", "budgets", func() { atEC2{p}.budgets(ctx) })
	p.guard("phase", "prices", func() { atEC2{p}.prices(ctx) })
	p.report.Late = len(p.report.Left) > 0
	p.report.EndedAt = r.cfg.Now().UTC()
	p.guard("phase", "record", func() { r.record(ctx, p) })
	return p.report, errors.Join(p.errs...)
}

// due reads what the index lists, by kind, oldest first. After an error it is what came
// before it.
func (p *pass) due(ctx context.Context) {
	seen := map[store.Ref]bool{}
	for ref, err := range p.store.Due(ctx, p.cfg.Now()) {
		if err != nil {
			p.fail("index", "", fmt.Errorf("read the due index: %w", err))
			break
		}
		if seen[ref] || !p.shard.has(ref.ID) {
			continue
		}
		seen[ref] = true
		switch ref.Kind {
		case store.KindRunner:
			p.todo.runners = append(p.todo.runners, ref)
		case store.KindRequest:
			p.todo.requests = append(p.todo.requests, ref)
		case store.KindSweep:
			p.todo.listed = append(p.todo.listed, ref)
		}
	}
	p.todo.runners = rotated(p.todo.runners, p.cfg.Now(), p.cfg.Limits.ReaperPeriod)
}

// rotated lets runs begin at different places of a list that one round of ends does not
// cover. A runner that nothing is written of keeps its place in the index, so that runs
// which do not get through all of it would never come to its end. The steps are the
// golden ratio of the list: of all, they leave the smallest gaps, so that runs which get
// through one part in n come to every place within two times n runs, whatever process
// makes them.
func rotated(refs []store.Ref, now time.Time, period time.Duration) []store.Ref {
	if len(refs) <= round {
		return refs
	}
	const golden = 0.6180339887498949
	turn := float64(now.UnixNano()/int64(period)) * golden
	at := int((turn - float64(int64(turn))) * float64(len(refs)))
	return append(refs[at:len(refs):len(refs)], refs[:at]...)
}

// isDue reports whether the item itself says that it is due: the index may lag.
func isDue(m *store.Meta, now time.Time) bool {
	return m.Version != 0 && !m.DueAt.IsZero() && !m.DueAt.After(now)
}
