package promise

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

// Config is what an Oracle may look at: what is really there, and what was agreed.
type Config struct {
	Kernel  *kernel.Kernel
	Limits  *store.Limits
	Account *store.Account
	Keys    *keys.Ring
	Fleet   *simfleet.Fleet
	GitHub  *simgithub.Server
	Store   func() *storetest.Memory
	// Lag is by how much the due index is behind the items.
	Lag func() time.Duration
	// Workflow tells how a workflow job is at GitHub, whose answers are as old as Reads says.
	Workflow func(id string) (Workflow, bool)
	Reads    func() time.Duration
	// Registrars names the credentials of the account, by which runners are registered.
	Registrars func() []string
	// Moved tells where the registration has runners register now, and since when.
	Moved func() (store.Scope, time.Time)
	// Secrets are those that no record may show, beside those that are derived.
	Secrets []Secret
	// Errorf hears what does not hold.
	Errorf func(format string, args ...any)
}

// History is what was seen of a world: its records as they were last committed, the
// calls that were made for them, and their answers.
type History struct {
	Config

	mu        sync.Mutex // guards what follows; held while nothing waits
	seen                 // since the table was emptied
	wipedAt   time.Time  // when the table was emptied: there are machines that nothing is known of
	forgot    bool       // a record was deleted that named a registration
	released  time.Time  // when the operator first released the brake of a world that lost records
	texts     []text
	unreached time.Time            // when the account was last removed, or began to refuse us
	keyLost   map[string]time.Time // when each key was taken away, by its id
	outfits   outfits
	counts    counts
	refusals  refusals
	retagged  map[string]string    // the runners that machines were launched for whose tags were edited, by machine
	stopped   map[string]time.Time // when a person stopped a machine, by its id
}

// seen is what an emptied table makes void.
type seen struct {
	requests map[string]store.Request
	runners  map[string]store.Runner
	locks    map[string]store.Lock
	pulses   map[string]store.Pulse
	usable   map[string]string      // the one usable runner of each lock key
	live     map[string]int         // runners neither failed nor ended, by account
	slots    map[string][]time.Time // of RunInstances calls, by account and region
	slotsOf  map[string]int         // how many of them each runner got
	launches map[string]int         // how many calls were made for each runner
	calls    calls
	heard    heard

	confirmations confirmations
	answers       answers
	unfit         map[string]bool      // the requests that had a machine which could not be set up
	pausing       map[string]time.Time // when the request of a workflow job learnt last that its machine could not be set up
	floods        floods
	leases        leases
	usages        map[string]store.Usage // by id
	checks        map[string]store.Checkup
	missed        map[string]time.Time // when EC2 did not show a machine, by its id or token
	sent          map[string]int       // how many messages were sent that name an id
	configs       map[int64]bool       // the registrations whose config was recorded
	names         map[string]bool      // the names that were ever registered, or may have been
	placed        map[store.Ref]place  // where each item is in the due index
	versions      map[store.Ref]int64
	left          map[string]time.Time     // since when nobody counts on a machine for workflow jobs
	waited        map[string]bool          // the runners whose boot limit was raised while they waited for a config
	looked        map[Promise]int          // how often each promise was put to the test
	crashes       map[string]time.Time     // when who was at it was killed, by the id of a record
	slow          map[string]time.Duration // for how long each invocation stood still, and the calls of each runner's machine
	recovered     []time.Duration          // how long after that it was written again
	commits       int
	conflicts     int
}

// place is where an item is in the due index, and since when.
type place struct{ at, due time.Time }

// text is something that people or programs without rights can read.
type text struct {
	where string
	b     []byte
}

func newSeen() seen {
	return seen{
		requests: map[string]store.Request{}, runners: map[string]store.Runner{}, locks: map[string]store.Lock{}, pulses: map[string]store.Pulse{},
		usable: map[string]string{}, live: map[string]int{}, slots: map[string][]time.Time{}, slotsOf: map[string]int{}, launches: map[string]int{},
		names: map[string]bool{}, configs: map[int64]bool{},
		calls: newCalls(), heard: newHeard(), confirmations: newConfirmations(), answers: newAnswers(), unfit: map[string]bool{}, pausing: map[string]time.Time{}, floods: newFloods(), leases: newLeases(), checks: map[string]store.Checkup{}, usages: map[string]store.Usage{}, placed: map[store.Ref]place{},
		missed: map[string]time.Time{}, sent: map[string]int{}, versions: map[store.Ref]int64{}, looked: map[Promise]int{}, waited: map[string]bool{}, left: map[string]time.Time{},
		crashes: map[string]time.Time{}, slow: map[string]time.Duration{},
	}
}

// instant is how long after its decision a commit is made, at most, by one who does
// not stand still meanwhile.
const instant = 2 * time.Second

// slack is by how much the clocks of two parts may differ.
const slack = 12 * time.Second

// hold notes that a promise was put to the test, and says so if it is broken. The
// caller holds the mutex.
func (h *History) hold(p Promise, ok bool, format string, args ...any) {
	h.looked[p]++
	if !ok {
		h.Errorf("%s "+format, append([]any{time.Now().Format("15:04:05.000")}, args...)...)
	}
}

// note takes something down.
func (h *History) note(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// now returns the time by the clock of a part.
func (h *History) now(part string) time.Time { return h.Kernel.Clock(part)() }

// Wiped notes that the table is emptied, by f.
func (h *History) Wiped(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.seen = newSeen()
	h.wipedAt = time.Now()
}

// Lost reports whether the table was emptied, and whether anything that is left at
// EC2 or GitHub may have no record any more.
func (h *History) Lost() (all, some bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wiped(), h.wiped() || h.forgot
}

// wiped reports whether the table was emptied. The caller holds the mutex.
func (h *History) wiped() bool { return !h.wipedAt.IsZero() }

// outdated reports whether an invocation that began at a time may have read what was
// lost since, when the table was emptied. The caller holds the mutex.
func (h *History) outdated(began time.Time) bool { return !began.After(h.wipedAt) }

// Released notes that the operator releases the brake for the first time.
func (h *History) Released() { h.note(func() { h.released = time.Now() }) }

// Expire deletes the records whose time to live ends before a time, as DynamoDB
// does late.
func (h *History) Expire(before time.Time) (deleted int) {
	registered := map[string]bool{} // runners, whatever their records think of it
	for _, r := range h.GitHub.Registrations() {
		registered[setting.RunnerIn(r.Name)] = true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	deleted, err := h.Store().Expire(context.Background(), before)
	if err != nil {
		h.Errorf("%v", err)
	}
	for ref := range h.versions {
		if h.kept(ref) {
			continue
		}
		delete(h.versions, ref) // who makes it again begins at 1
		switch ref.Kind {
		case store.KindPoints:
			delete(h.leases.points, ref.ID) // its count begins again, too
		case store.KindOverflow:
			delete(h.floods.unread, ref.ID) // no sweep can read it
		case store.KindCheck:
			delete(h.checks, ref.ID) // who asks again with its id has it done again, under the same names
			maps.DeleteFunc(h.names, func(name string, _ bool) bool { return setting.RunnerIn(name) == ref.ID })
		}
		if r, ok := h.runners[ref.ID]; ok && ref.Kind == store.KindRunner {
			h.forgot = h.forgot || len(r.Names) > 0 || registered[r.ID]
			r.DueAt, r.Names = time.Time{}, nil
			h.runners[ref.ID] = r
		}
	}
	return deleted
}

// kept reports whether a record is still there.
func (h *History) kept(ref store.Ref) bool {
	items, err := h.Store().Get(context.Background(), ref)
	return err == nil && items[0].Base().Version != 0
}

// Said keeps what others can read.
func (h *History) Said(where string, b []byte) {
	h.note(func() { h.texts = append(h.texts, text{where, b}) })
}

// Retagged notes that somebody edits the tags of a machine.
func (h *History) Retagged(f simfleet.Fact) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.retagged[f.ID]; !ok {
		h.retagged[f.ID] = f.Tags[fleet.TagRunner]
	}
}

// tagged returns the id of the runner that a machine was launched for, whatever its
// tags say by now. The caller holds the mutex.
func (h *History) tagged(f simfleet.Fact) string {
	if was, ok := h.retagged[f.ID]; ok {
		return was
	}
	return f.Tags[fleet.TagRunner]
}

// Stands implements kernel.Watcher.
func (h *History) Stands(e *kernel.Effect, d time.Duration) {
	h.note(func() {
		h.slow[cmp.Or(e.By, e.On)] += d // a machine's call is its runner's
		for id := range strings.FieldsSeq(e.On) {
			if _, ok := h.runners[id]; ok && e.By != "" { // as is what the API does for it
				h.slow[id] += d
			}
		}
	})
}

// Killed implements kernel.Watcher.
func (h *History) Killed(e *kernel.Effect) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range strings.FieldsSeq(e.On) {
		if _, ok := h.crashes[id]; !ok {
			h.crashes[id] = time.Now()
		}
	}
}

// Calls implements kernel.Watcher.
func (h *History) Calls(e *kernel.Effect, returned bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold(Goroutines, !returned, "%s calls %s %s after it returned", e.By, e.Op, e.What)
}

// Restless implements kernel.Watcher.
func (h *History) Restless(effects int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold(Rest, false, "the world has %d effects, and does not come to rest", effects)
}

// begins reports whether a commit sets a time that was not set.
func begins(was, is time.Time) bool { return was.IsZero() && !is.IsZero() }

func latest(times ...time.Time) time.Time   { return slices.MaxFunc(times, time.Time.Compare) }
func earliest(times ...time.Time) time.Time { return slices.MinFunc(times, time.Time.Compare) }
