package intake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Gauge knows how many requests of each repository are open, as well as one process
// can: as they were counted last, and what it admitted since. It bounds them by the
// number in the account's registration, to within what all processes have under way, and
// records which repositories had no room for a workflow job.
//
// While a repository has room it is counted now and then, beside the commit of a
// request, so that nobody waits for that. Near its bound each commit is counted with,
// and beyond it the count comes first. So one process alone keeps the bound, and of P
// processes at most P × step requests come in beyond it, where step is 8 for a bound of
// 2,000 that nobody has seen near, and 1 once it is.
//
// It is safe for concurrent use. Make it with NewGauge.
type Gauge struct {
	count func(ctx context.Context, repo store.Repository, most int) (int, error)
	now   func() time.Time

	mu   sync.Mutex
	seen map[string]reading // by store.Repository.Key
}

// reading is what is known of a repository.
type reading struct {
	open     int       // when it was counted; zero: it was not
	at       time.Time // when that was
	admitted int       // in all
	told     int       // of these, how many the count is sure to have
	busy     int       // admitted, and their commits are under way
	counting bool      // a count beside a commit is under way: a second one would tell no more
	overflow string    // the last one that this process wrote, or found written; empty: none
}

// since returns how many were admitted that the count may not have.
func (r reading) since() int { return r.admitted - r.told }

const (
	// fullFor is how long a repository that was counted as full counts as full: one
	// query in five seconds is what its further calls cost, however many they are.
	fullFor = 5 * time.Second
	// maxStep is after how many requests a repository that has room is counted again: a
	// workflow with a few jobs never is.
	maxStep = 8
	// steps divides the room that is left: each process takes a part of it before it
	// counts again, and at 50 starts a second of 0.1 s each there are some five.
	steps = 32
	// maxRepositories bounds what is remembered, at a hundred bytes each. One that is
	// forgotten is counted again.
	maxRepositories = 10_000
)

// NewGauge returns a gauge of the requests in s. It has counted nothing.
func NewGauge(s store.Store, now func() time.Time) *Gauge {
	return &Gauge{count: s.CountOpen, now: now, seen: map[string]reading{}}
}

// step is how many requests are admitted between two counts.
func (r reading) step(most int) int { return min(max(1, (most-r.open)/steps), maxStep) }

// full reports whether no request may come in unless a count says otherwise.
func (r reading) full(most int) bool { return r.open+r.since() >= most }

// Admit calls commit for a request to account a, unless the request's repository has as
// many open ones as the registration allows: then the error is a Refusal with Full set,
// and nothing is called. Whether it is counted at all is known by what earlier calls
// told. A count that fails refuses nothing while the repository had room; told hears of it.
func (g *Gauge) Admit(ctx context.Context, a store.Account, repo store.Repository, commit func() error, told func(error)) error {
	most, key := a.OpenRequests(), repo.Key()
	r, ok := g.admit(key, most)
	fresh := false
	if !ok && (r.open < most || g.now().Sub(r.at) >= fullFor) {
		n, err := g.count(ctx, repo, most)
		if err != nil {
			return err // it was full, and nothing says that it is not
		}
		g.counted(key, n, r)
		r, ok = g.admit(key, most)
		fresh = true
	}
	if !ok {
		return full(a, repo, most)
	}
	defer g.done(key)
	if fresh || r.since() < r.step(most) || !g.begin(key) {
		return commit()
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		n, err := g.count(ctx, repo, most)
		g.end(key)
		if err != nil {
			told(err)
		} else {
			g.counted(key, n, r)
		}
	})
	err := commit()
	wg.Wait()
	return err
}

// begin reports whether to count beside a commit: not while another commit does.
func (g *Gauge) begin(key string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.seen[key]
	if r.counting {
		return false
	}
	r.counting = true
	g.seen[key] = r
	return true
}

// end notes that a count beside a commit is over.
func (g *Gauge) end(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r, known := g.seen[key]; known {
		r.counting = false
		g.seen[key] = r
	}
}

// counted takes a count over, which began when a reading was then: what was under way
// then, or was admitted meanwhile, may not be in it. Counts overtake each other, and one
// that began before another that is known tells nothing.
func (g *Gauge) counted(key string, n int, then reading) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.seen[key]
	told := min(then.admitted-then.busy, r.admitted) // it may have been forgotten meanwhile
	if told < r.told {
		return
	}
	r.open, r.told, r.at = n, told, g.now()
	g.seen[key] = r
}

// admit notes that a commit begins, unless the repository is full: then ok is false. It
// returns the reading as it is then. Of several callers at once no two get the last place.
func (g *Gauge) admit(key string, most int) (r reading, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, known := g.seen[key]
	if r.full(most) {
		return r, false
	}
	if !known && len(g.seen) >= maxRepositories {
		clear(g.seen)
	}
	r.admitted, r.busy = r.admitted+1, r.busy+1
	g.seen[key] = r
	return r, true
}

// done notes that a commit is over.
func (g *Gauge) done(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r, known := g.seen[key]; known {
		r.busy = max(0, r.busy-1)
		g.seen[key] = r
	}
}

// Overflow records that a queued job of account a found no room in a repository, as Admit
// said. A process does it once a minute for each repository, by one call of the store if
// nobody else does it at that time. After an error nobody knows whether it is recorded.
func (g *Gauge) Overflow(ctx context.Context, s *store.Writer, a store.Account, repo store.Repository) error {
	now := g.now()
	o := store.OverflowOf(a.ID, now)
	key, overflow := repo.Key(), o.Key
	g.mu.Lock()
	known := g.seen[key].overflow == overflow
	g.mu.Unlock()
	if known {
		return nil
	}
	for try := 1; ; try++ {
		d := o.Full(now, repo.ID)
		if len(d.Changes) == 0 {
			break
		}
		err := s.Commit(ctx, d.Changes...)
		if err == nil {
			break
		}
		lost, ok := errors.AsType[*store.ConflictError](err)
		if !ok || try == overflowTries {
			return fmt.Errorf("record that %s has more jobs than room: %w", name(repo), err)
		}
		o = *lost.Current[0].(*store.Overflow)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.seen[key]
	r.overflow = overflow
	g.seen[key] = r
	return nil
}

// overflowTries is how often a process tries to write an overflow: each try loses to another
// repository's, whose first job without room came in the same tenth of a second.
const overflowTries = 5

func full(a store.Account, repo store.Repository, most int) *Refusal {
	return &Refusal{
		Full: fullFor, Reason: "too many open requests",
		Text: fmt.Sprintf("%d requests of %s wait for a runner, which is as many as account %s allows (max_open_requests). Wait until some are ready, or stop some.", most, name(repo), a.ID),
	}
}

// name returns what people call a repository.
func name(repo store.Repository) string { return cmp.Or(repo.Name, repo.Key()) }
