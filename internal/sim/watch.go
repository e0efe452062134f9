package sim

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// watch is what a world has seen of its commits.
type watch struct {
	requests  map[string]store.Request
	runners   map[string]store.Runner
	locks     map[string]store.Lock
	usable    map[string]string // the one usable runner of each lock key
	live      int               // runners neither failed nor ended
	slots     []time.Time       // of RunInstances calls
	slotsOf   map[string]int    // how many of them each runner got
	launches  map[string]int    // how many calls were made for each runner
	minted    map[string]bool   // the names that were ever registered, or may have been
	due       []dueEntry        // as the index was told, in order
	commits   int
	conflicts int
}

// dueEntry is a change of the due index; due is zero when an item leaves it.
type dueEntry struct {
	at, due time.Time
	ref     store.Ref
}

func newWatch() watch {
	return watch{
		requests: map[string]store.Request{}, runners: map[string]store.Runner{}, locks: map[string]store.Lock{},
		usable: map[string]string{}, slotsOf: map[string]int{}, launches: map[string]int{}, minted: map[string]bool{},
	}
}

// Commits returns how many commits there were, and how many lost to another one.
func (w *World) Commits() (done, conflicts int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watch.commits, w.watch.conflicts
}

// Slots returns the slots that were reserved for calls of RunInstances, in order.
func (w *World) Slots() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.SortedFunc(slices.Values(w.watch.slots), time.Time.Compare)
}

// commit makes a commit, and looks at what it wrote.
func (w *World) commit(ctx context.Context, changes []store.Change) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.Store().Commit(ctx, changes...)
	if errors.Is(err, store.ErrConflict) {
		w.watch.conflicts++
	}
	if err != nil {
		return err
	}
	w.watch.commits++
	var quota *store.Quota
	for _, c := range changes {
		if c.CheckOnly {
			continue
		}
		ref := c.Item.Ref()
		w.watch.due = append(w.watch.due, dueEntry{time.Now(), c.Item.Base().DueAt, ref})
		if b, err := store.Encode(c.Item); err == nil {
			w.texts = append(w.texts, text{"the record " + ref.String(), b})
		}
		switch i := c.Item.(type) {
		case *store.Request:
			w.sawRequest(*i)
		case *store.Runner:
			w.sawRunner(*i)
		case *store.Lock:
			w.sawLock(*i)
		case *store.Quota:
			quota = i
		}
	}
	if quota != nil && quota.Live != w.watch.live {
		w.broken("the quota counts %d runners, and %d are neither failed nor ended", quota.Live, w.watch.live)
	}
	if quota != nil && quota.Live > quota.Limit {
		w.broken("%d runners live, and the limit is %d", quota.Live, quota.Limit)
	}
	return nil
}

// broken reports that something does not hold.
func (w *World) broken(format string, args ...any) {
	w.Errorf("%s "+format, append([]any{time.Now().Format("15:04:05.000")}, args...)...)
}

func (w *World) sawRequest(r store.Request) {
	was := w.watch.requests[r.ID]
	w.watch.requests[r.ID] = r
	switch {
	case was.Version == 0:
	case was.State.Final() && r.State != was.State:
		w.broken("request %s was %s, and is %s", r.ID, was.State, r.State)
	case was.State == store.Ready && r.Runner != was.Runner:
		w.broken("request %s was ready with runner %s, and has %s", r.ID, was.Runner, r.Runner)
	}
	if r.State == store.Ready && w.watch.runners[r.Runner].OnlineAt.IsZero() {
		w.broken("request %s is ready, and its runner %s was never online", r.ID, r.Runner)
	}
	if r.State.Final() && r.State != store.Ready && r.Error == nil {
		w.broken("request %s is %s, and does not say why", r.ID, r.State)
	}
	if !r.State.Final() && r.DueAt.IsZero() {
		w.broken("request %s is %s, and will be looked at never again", r.ID, r.State)
	}
}

func (w *World) sawRunner(r store.Runner) {
	was := w.watch.runners[r.ID]
	w.watch.runners[r.ID] = r
	if !r.CalledAt.Equal(was.CalledAt) {
		w.watch.slots = append(w.watch.slots, r.CalledAt)
		w.watch.slotsOf[r.ID]++
	}
	if was.Version == 0 {
		w.watch.live++
	}
	if r.State.Final() && !was.State.Final() {
		w.watch.live--
	}
	switch other := w.watch.usable[r.Lock]; {
	case r.State.Usable() && other != "" && other != r.ID:
		w.broken("runners %s and %s of %s are usable at once", other, r.ID, r.Lock)
	case r.State.Usable():
		w.watch.usable[r.Lock] = r.ID
	case other == r.ID:
		delete(w.watch.usable, r.Lock)
	}
	if was.Version == 0 {
		return
	}
	switch {
	case was.State.Final() && r.State != was.State:
		w.broken("runner %s was %s, and is %s", r.ID, was.State, r.State)
	case !r.Hard.Equal(was.Hard):
		w.broken("the hard limit of runner %s moved from %s to %s", r.ID, was.Hard, r.Hard)
	case was.InstanceID != "" && r.InstanceID != was.InstanceID:
		w.broken("runner %s had instance %s, and has %s", r.ID, was.InstanceID, r.InstanceID)
	case r.Index < was.Index || r.Config.N < was.Config.N:
		w.broken("runner %s went back to index %d and config %d", r.ID, r.Index, r.Config.N)
	case !r.State.Usable() && was.State.Usable() && r.End == nil:
		w.broken("runner %s is %s, and does not say why", r.ID, r.State)
	}
}

func (w *World) sawLock(l store.Lock) {
	was := w.watch.locks[l.Key]
	w.watch.locks[l.Key] = l
	switch {
	case l.Exp.After(l.Hard):
		w.broken("lock %s may be counted on until %s, and its runner ends at %s", l.Key, l.Exp, l.Hard)
	case was.Runner == l.Runner && l.Exp.Before(was.Exp):
		w.broken("lock %s could be counted on until %s, and now until %s", l.Key, was.Exp, l.Exp)
	}
}

// launches looks at a call of RunInstances before it is made: it is made under a
// claim, and has a slot of its own.
func (w *World) launches(runner string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch.launches[runner]++
	r := w.watch.runners[runner]
	if r.Claim.By == "" || w.clock(Worker)().After(r.Claim.Until) {
		w.broken("RunInstances is called for runner %s without a claim", runner)
	}
	if w.watch.launches[runner] > w.watch.slotsOf[runner] {
		w.broken("RunInstances is called %d times for runner %s, which got %d slots", w.watch.launches[runner], runner, w.watch.slotsOf[runner])
	}
}

// mints looks at a registration before it is made: under a claim, and a name that
// was written ahead and is new.
func (w *World) mints(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.watch.runners[runnerIn(name)]
	if w.watch.minted[name] {
		w.broken("the name %s is registered a second time", name)
	}
	if !slices.ContainsFunc(r.Names, func(g store.GitHubName) bool { return g.Name == name }) {
		w.broken("the name %s is registered before it is written", name)
	}
	if r.Claim.By == "" || w.clock(Worker)().After(r.Claim.Until) {
		w.broken("the name %s is registered without a claim", name)
	}
}

// spent remembers that a name was registered, or may have been.
func (w *World) spent(name string, err error) {
	if errors.Is(err, github.ErrLimited) || errors.Is(err, github.ErrDenied) || errors.Is(err, github.ErrNotFound) || errors.Is(err, github.ErrRefused) {
		return // it was not
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch.minted[name] = true
}

// due yields what the due index shows: what it was told IndexLag ago.
func (w *World) due(ctx context.Context, before time.Time) iter.Seq2[store.Ref, error] {
	if w.cfg.IndexLag == 0 {
		return w.Store().Due(ctx, before)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	seen, at := time.Now().Add(-w.cfg.IndexLag), map[store.Ref]time.Time{}
	for _, e := range w.watch.due {
		if !e.at.After(seen) {
			at[e.ref] = e.due
		}
	}
	var found []store.Ref
	for ref, due := range at {
		if !due.IsZero() && !due.After(before) {
			found = append(found, ref)
		}
	}
	slices.SortFunc(found, func(a, b store.Ref) int {
		if c := at[a].Compare(at[b]); c != 0 {
			return c
		}
		return compare(a, b)
	})
	return func(yield func(store.Ref, error) bool) {
		for _, ref := range found {
			if !yield(ref, nil) {
				return
			}
		}
	}
}

func compare(a, b store.Ref) int {
	return slices.Compare([]string{string(a.Kind), a.ID}, []string{string(b.Kind), b.ID})
}

// tell prints what happened, the last part of it if it was much: heartbeats and
// polls are left out.
func (w *World) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	const most = 120
	told := slices.DeleteFunc(slices.Clone(w.trace), func(e Effect) bool {
		return e.Fate == Pass && strings.Contains(e.Name(), "heartbeat") || strings.Contains(e.Name(), "GET status")
	})
	for _, e := range told[max(0, len(told)-most):] {
		w.Log(e)
	}
	fmt.Fprintf(w.Output(), "%s", w.log.Bytes()[max(0, w.log.Len()-10_000):])
}
