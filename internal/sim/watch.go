package sim

import (
	"cmp"
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
	requests map[string]store.Request
	runners  map[string]store.Runner
	locks    map[string]store.Lock
	pulses   map[string]store.Pulse
	usable   map[string]string // the one usable runner of each lock key
	live     int               // runners neither failed nor ended
	slots    []time.Time       // of RunInstances calls
	slotsOf  map[string]int    // how many of them each runner got
	launches map[string]int    // how many calls were made for each runner
	calls    calls
	heard    heard

	confirmations confirmations
	answers       answers
	missed        map[string]time.Time   // when EC2 did not show a machine, by its id or token
	sent          map[string]int         // how many messages were sent that name an id
	configs       map[int64]bool         // the registrations whose config was recorded
	minted        map[string]bool        // the names that were ever registered, or may have been
	due           []dueEntry             // as the index was told, in order
	placed        map[store.Ref]dueEntry // where each item is in the index, and since when
	versions      map[store.Ref]int64
	looked        map[Promise]int          // how often each promise was put to the test
	crashes       map[string]time.Time     // when who was at it was killed, by the id of a record
	slow          map[string]time.Duration // for how long each invocation stood still, and the calls of each runner's machine
	recovered     []time.Duration          // how long after that it was written again
	commits       int
	conflicts     int
}

// dueEntry is a change of the due index; due is zero when an item leaves it.
type dueEntry struct {
	at, due time.Time
	ref     store.Ref
}

func newWatch() watch {
	return watch{
		requests: map[string]store.Request{}, runners: map[string]store.Runner{}, locks: map[string]store.Lock{}, pulses: map[string]store.Pulse{},
		usable: map[string]string{}, slotsOf: map[string]int{}, launches: map[string]int{}, minted: map[string]bool{},
		configs: map[int64]bool{}, calls: newCalls(), heard: newHeard(), confirmations: newConfirmations(), answers: newAnswers(), placed: map[store.Ref]dueEntry{}, missed: map[string]time.Time{}, sent: map[string]int{},
		versions: map[store.Ref]int64{}, looked: map[Promise]int{}, crashes: map[string]time.Time{}, slow: map[string]time.Duration{},
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
func (w *World) commit(ctx context.Context, e *Effect, changes []store.Change) error {
	there := w.around(changes)
	there.part = e.Part
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
	var seen []store.Item
	for _, c := range changes {
		if c.CheckOnly {
			continue
		}
		ref := c.Item.Ref()
		if w.watch.versions[ref] >= c.Item.Base().Version {
			continue // it was made before, and its answer lost
		}
		w.watch.versions[ref] = c.Item.Base().Version
		e.Change = join(e.Change, w.change(c.Item))
		if at, ok := w.watch.crashes[ref.ID]; ok && ref.Kind != store.KindPulse {
			w.watch.recovered = append(w.watch.recovered, time.Since(at))
			delete(w.watch.crashes, ref.ID)
		}
		entry := dueEntry{time.Now(), c.Item.Base().DueAt, ref}
		w.watch.due = append(w.watch.due, entry)
		if !w.watch.placed[ref].due.Equal(entry.due) {
			w.watch.placed[ref] = entry
		}
		if b, err := store.Encode(c.Item); err == nil {
			w.texts = append(w.texts, text{"the record " + ref.String(), b})
		}
		seen = append(seen, c.Item)
	}
	w.sawEnd(e, there, seen)
	w.saw(there, seen, instant+w.watch.slow[e.By])
	return nil
}

// clone copies what a commit is to write.
func clone(changes []store.Change) []store.Change {
	out := slices.Clone(changes)
	for i, c := range changes {
		b, err := store.Encode(c.Item)
		if err == nil {
			out[i].Item, err = store.Decode(c.Item.Ref(), b)
		}
		if err != nil {
			panic(err) // every item can be kept
		}
	}
	return out
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}

// change tells by how much an item differs from what was seen of it last: its
// state, in a few words, and nothing when that is as it was.
func (w *World) change(i store.Item) string {
	var was, is string
	switch i := i.(type) {
	case *store.Request:
		was, is = stateOf(w.watch.requests[i.ID]), stateOf(*i)
	case *store.Runner:
		was, is = standOf(w.watch.runners[i.ID]), standOf(*i)
	case *store.Lock:
		was, is = lockOf(w.watch.locks[i.Key]), lockOf(*i)
	}
	if was == is {
		return ""
	}
	return fmt.Sprintf("%s %.8s: %s -> %s", i.Ref().Kind, shortOf(i), cmp.Or(was, "none"), is)
}

// shortOf returns the part of an id that tells an item from others.
func shortOf(i store.Item) string {
	id := i.Ref().ID
	return id[strings.LastIndexByte(id, '/')+1:]
}

func stateOf(r store.Request) string {
	if r.Version == 0 {
		return ""
	}
	return strings.TrimSpace(string(r.State) + " " + r.Wait)
}

func standOf(r store.Runner) string {
	if r.Version == 0 {
		return ""
	}
	s := string(r.State)
	if r.Index > 0 {
		s += fmt.Sprintf(" at %d", r.Index)
	}
	if r.Config.N > 0 {
		s += fmt.Sprintf(" with config %d", r.Config.N)
	}
	if r.End != nil {
		s += " for " + r.End.Code
	}
	return s
}

func lockOf(l store.Lock) string {
	if l.Version == 0 {
		return ""
	}
	return fmt.Sprintf("%s %.8s", l.State, l.Runner)
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
	lag := time.Duration(w.index.Load())
	if lag == 0 {
		return w.Store().Due(ctx, before)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	seen, at := time.Now().Add(-lag), map[store.Ref]time.Time{}
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
	told := slices.DeleteFunc(slices.Clone(w.trace), func(e *Effect) bool {
		return e.Fate == Pass && strings.Contains(e.Name(), "heartbeat") || strings.Contains(e.Name(), "GET status")
	})
	for _, e := range told[max(0, len(told)-most):] {
		w.Log(*e)
	}
	fmt.Fprintf(w.Output(), "%s", w.log.Bytes()[max(0, w.log.Len()-10_000):])
}

// slowed notes for how long an invocation, or the calls of a machine, stood still.
func (w *World) slowed(e *Effect, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch.slow[cmp.Or(e.By, e.On)] += d // a machine's call is its runner's
	for _, id := range strings.Fields(e.On) {
		if _, ok := w.watch.runners[id]; ok && e.By != "" { // as is what the API does for it
			w.watch.slow[id] += d
		}
	}
}

// crashed notes what an invocation was about that was killed.
func (w *World) crashed(e *Effect) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range strings.FieldsSeq(e.On) {
		if _, ok := w.watch.crashes[id]; !ok {
			w.watch.crashes[id] = time.Now()
		}
	}
}

// remark puts into the story what no part did.
func (w *World) remark(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, &Effect{N: w.effects, Part: "world", Op: fmt.Sprintf(format, args...), At: time.Now()})
}
