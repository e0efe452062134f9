package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

// world is a small control plane in which anything may happen in any order: a
// few requests, their runners and locks, one quota. Whoever acts reads, decides
// by the rules and commits; between the two, others may act, and the clock goes on.
type world struct {
	*rapid.T
	random  *rand.Rand
	store   *storetest.Memory
	now     time.Time
	late    []commit // decided, and not committed yet
	runners int      // how many were begun
	workers int
	dead    map[string]bool   // workers that were killed
	minted  map[string]string // which worker used a name at GitHub
	lost    map[string]bool   // names whose answer their worker lost
	off     map[string]bool   // machines that EC2 shows, and not running
	known   known
}

// commit is what somebody decided at a time.
type commit struct {
	what    string
	changes []store.Change
}

var (
	worldRequests = []string{"s1", "s2", "s3", "s4", "s5", "s6", "e1", "e2", "e3", "e4", "e5", "e6", "e7", "e8"} // of one key, and ephemeral ones
	worldRunners  = 6                                                                                            // how many may live at once
)

func newWorld(t *rapid.T) *world {
	return &world{
		T: t, store: storetest.NewMemory(), now: t0,
		dead: map[string]bool{}, minted: map[string]string{}, lost: map[string]bool{}, off: map[string]bool{}, known: newKnown(),
	}
}

// get reads an item; the one that nobody names is absent.
func get[T any, P interface {
	*T
	store.Item
}](w *world, id string) T {
	if id == "" {
		var none T
		return none
	}
	item, err := store.Read[T, P](w.Context(), w.store, id)
	if err != nil {
		w.Fatal(err)
	}
	return item
}

// draw returns a number below n.
func (w *world) draw(n int) int { return w.random.IntN(n) }

// one draws one of those.
func one[T any](w *world, of ...T) T { return of[w.draw(len(of))] }

// decide commits now, or at some later time, or never.
func (w *world) decide(what string, changes ...store.Change) {
	c := commit{what, changes}
	switch w.draw(10) {
	case 8:
		w.late = append(w.late, c)
	case 9:
	default:
		w.commit(c)
	}
}

// commit commits, and then checks everything. A conflict is nobody's fault.
func (w *world) commit(c commit) bool {
	err := w.store.Commit(w.Context(), c.changes...)
	if errors.Is(err, store.ErrConflict) {
		w.Logf("%s: %s loses", w.now.Sub(t0), c.what)
		return false
	}
	if err != nil {
		w.Fatal(err)
	}
	w.Logf("%s: %s", w.now.Sub(t0), c.what)
	w.check(c)
	return true
}

// anyRunner returns one of the runners that something can still happen to, or
// an absent one.
func (w *world) anyRunner() store.Runner {
	var ids []string
	for n := 1; n <= w.runners; n++ {
		id := fmt.Sprintf("x%d", n)
		if run := w.known.runners[id]; run.Version > 0 && (!run.State.Final() || !run.DueAt.IsZero()) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return store.Runner{}
	}
	return get[store.Runner](w, one(w, ids...))
}

func (w *world) quota() store.Quota { return get[store.Quota](w, "123456789012") }

// acts are all that can happen, with how often each is there to be drawn.
var acts = []struct {
	times int
	act   func(*world)
}{
	{10, (*world).work}, {10, (*world).launch}, {10, (*world).mint}, {12, (*world).boot}, {16, (*world).event}, {8, (*world).look}, {2, (*world).accept},
	{8, (*world).tick}, {3, (*world).land}, {5, (*world).settle}, {9, (*world).reap}, {4, (*world).take}, {4, (*world).next}, {1, (*world).release},
	{1, (*world).kill}, {1, (*world).gone}, {1, (*world).stop}, {2, (*world).mistake},
}

var allActs = func() (all []func(*world)) {
	for _, a := range acts {
		all = append(all, slices.Repeat([]func(*world){a.act}, a.times)...)
	}
	return all
}()

// live lets n things happen. Rapid draws which of them do, so that a failure
// shrinks to those that matter; what each of them is depends on the seed and its
// own number alone. (Rapid's own choices prefer the first ones so much that few
// machines would ever boot.)
func (w *world) live(n int) {
	seed := rapid.Uint64().Draw(w.T, "seed")
	happen := rapid.Custom(func(t *rapid.T) (some []int) {
		for i, yes := range rapid.SliceOfN(rapid.Bool(), n, n).Draw(t, "happens") {
			if yes {
				some = append(some, i)
			}
		}
		return some
	})
	for _, i := range happen.Draw(w.T, "happen") {
		w.random = rand.New(rand.NewPCG(seed, uint64(i)))
		one(w, allActs...)(w)
	}
}

func (w *world) tick() {
	w.now = w.now.Add([]time.Duration{100 * time.Millisecond, time.Second, 5 * time.Second, 20 * time.Second, time.Minute, 3 * time.Minute, time.Hour}[min(w.draw(7), w.draw(7))])
}

// land lets a late commit arrive.
func (w *world) land() {
	if len(w.late) > 0 {
		n := w.draw(len(w.late))
		c := w.late[n]
		w.late = slices.Delete(w.late, n, n+1)
		c.what += " (late)"
		w.commit(c)
	}
}

func (w *world) accept() {
	id := one(w, worldRequests...)
	if old := get[store.Request](w, id); old.Version > 0 {
		return // a replay finds its record
	}
	mode := store.Shared
	if id[0] == 'e' {
		mode = store.Ephemeral
	}
	r := accepted(id, mode)
	r.Version = 0
	r.CreatedAt, r.DueAt, r.GiveUpAt = w.now, w.now, w.now.Add(one(w, lim.GiveUp, lim.GiveUp, time.Second, time.Minute))
	w.decide("accept "+id, store.Put(&r))
}

// work is what a worker does with a start message.
func (w *world) work() {
	r := get[store.Request](w, one(w, worldRequests...))
	if r.State != store.Accepted {
		return
	}
	l, p := get[store.Lock](w, r.LockKey()), get[store.Pulse](w, r.LockKey())
	if store.Shareable(w.now, lim, r, l, p) && !l.Confirmed(w.now, lim) {
		w.confirm(get[store.Runner](w, l.Runner))
		return
	}
	if store.Shareable(w.now, lim, r, l, p) {
		r, l, wrote := store.Share(w.now, lim, r, l)
		change := store.Check(&l)
		if wrote {
			change = store.Put(&l)
		}
		w.decide(fmt.Sprintf("%s shares %s", r.ID, l.Runner), store.Put(&r), change)
		return
	}
	if !l.Free() {
		run := get[store.Runner](w, l.Runner)
		if end, _ := store.Blocked(w.now, lim, l, p, run, get[store.Request](w, run.Request)); end != "" {
			run, l = store.Drain(w.now, run, l, store.NewEnd(end))
			w.decide(fmt.Sprintf("%s drains %s: %s", r.ID, run.ID, end), store.Put(&run), store.Put(&l))
		}
		return
	}
	w.runners++
	in := intent(r)
	in.Lock, in.Quota, in.Runner, in.MaxRunners = l, w.quota(), fmt.Sprintf("x%d", w.runners), worldRunners
	in.Launch.HardS, in.Latest, in.Claim = 2*3600, w.now.Add(20*time.Second), w.claim()
	r, l, run, q, wait, until := in.Begin(w.now, lim)
	if wait != "" {
		w.runners--
		r = r.Hold(w.now, until, wait)
		w.decide(fmt.Sprintf("%s waits: %s", r.ID, wait), store.Put(&r))
		return
	}
	w.decide(fmt.Sprintf("%s begins %s", r.ID, run.ID), store.Put(&r), store.Put(&l), store.Put(&run), store.Put(&q))
}

// claim is that of a new worker.
func (w *world) claim() store.Claim {
	w.workers++
	return store.Claim{By: fmt.Sprintf("w%d", w.workers), Until: w.now.Add(30 * time.Second)}
}

func (w *world) take() {
	run := w.anyRunner()
	claim := w.claim()
	if run.State.Usable() && !run.Held(w.now, claim.By) {
		run = run.Take(w.now, claim, "test")
		w.decide(fmt.Sprintf("%s takes %s", claim.By, run.ID), store.Put(&run))
	}
}

// holder returns who may call EC2 and GitHub for a runner now, if anybody may.
func (w *world) holder(run store.Runner) string {
	if !w.now.Before(run.Claim.Until) || w.dead[run.Claim.By] {
		return ""
	}
	return run.Claim.By
}

// launch is one answer to RunInstances, and what the worker makes of it.
func (w *world) launch() {
	run := w.anyRunner()
	l, q := get[store.Lock](w, run.Lock), w.quota()
	if w.holder(run) == "" || store.NextStep(w.now, run, l) != store.StepLaunch {
		return
	}
	switch one(w, "instance", "instance", "instance", "no capacity", "no placement", "refused", "unclear") {
	case "instance":
		run, _ = store.Launched(w.now, run, "i-"+run.ClientToken())
		w.decide(run.ID+" is launched", store.Put(&run))
	case "no capacity":
		next := run.Index + w.draw(3)
		latest := one(w, w.now.Add(10*time.Second), time.Time{}) // or no call in this invocation
		if run, l, q, _, reserved, ok := store.Advance(w.now, lim, run, l, q, "InsufficientInstanceCapacity", next, store.Pacing{}, latest); ok {
			changes := []store.Change{store.Put(&run), store.Put(&l)}
			if reserved {
				changes = append(changes, store.Put(&q))
			}
			w.decide(run.ID+" moves on", changes...)
		}
	case "no placement":
		run, l, q = store.Abandon(w.now, lim, run, l, q, "InsufficientInstanceCapacity", store.NewEnd(store.EndNoCapacity), run.Unclear)
		w.decide(run.ID+" is abandoned", store.Put(&run), store.Put(&l), store.Put(&q))
	case "refused":
		run, l, q = store.Abandon(w.now, lim, run, l, q, "UnauthorizedOperation", store.Failure{Code: store.EndLaunchDenied, Text: "t"}, run.Unclear)
		w.decide(run.ID+" is refused", store.Put(&run), store.Put(&l), store.Put(&q))
	case "unclear":
		if run, q, _, ok := store.Call(w.now, run, q, store.Pacing{}, w.now.Add(10*time.Second)); ok {
			run.Unclear = true
			w.decide(run.ID+" is called again", store.Put(&run), store.Put(&q))
		}
	}
}

// mint registers a name at GitHub and records the config, or loses the answer.
func (w *world) mint() {
	run := w.anyRunner()
	by := w.holder(run)
	if by == "" || store.NextStep(w.now, run, get[store.Lock](w, run.Lock)) != store.StepMint {
		return
	}
	name, ok := run.NextName()
	if !ok || w.minted[name.Name] == by {
		run = run.WriteAhead("test")
		w.decide(run.ID+" writes a name ahead", store.Put(&run))
		return
	}
	if user := w.minted[name.Name]; user != "" {
		w.Fatalf("%s uses the name %s, which %s has used", by, name.Name, user)
	}
	w.minted[name.Name], w.lost[name.Name] = by, true
	run, ok = run.Configure(w.now, "sealed", int64(len(w.minted)))
	if !ok {
		w.Fatalf("%s has a name and takes no config", run.ID)
	}
	c := commit{fmt.Sprintf("%s gets config %d", run.ID, run.Config.N), []store.Change{store.Put(&run)}}
	if one(w, "comes", "comes", "is lost") == "comes" && w.commit(c) {
		delete(w.lost, name.Name)
	}
}

// look is what a worker or the reaper does with a runner that listens, or has for long
// not been looked at.
func (w *world) look() {
	run := w.anyRunner()
	if store.NextStep(w.now, run, get[store.Lock](w, run.Lock)) == store.StepConfirm || run.State == store.RunnerOnline {
		w.confirm(run)
	}
}

// confirm asks GitHub about a runner.
func (w *world) confirm(run store.Runner) {
	l := get[store.Lock](w, run.Lock)
	seen := one(w, store.Registration{Online: true}, store.Registration{Online: true}, store.Registration{Online: true}, store.Registration{}, store.Registration{Absent: true})
	next, lock, verdict := store.Confirm(w.now, lim, run, l, seen)
	if changes := store.Changed(run, &next, l, &lock); len(changes) > 0 {
		if r, settled, _ := store.Settle(w.now, lim, get[store.Request](w, run.Request), next); settled {
			changes = append(changes, store.Put(&r))
		}
		w.decide(fmt.Sprintf("%s is %s", run.ID, verdict), changes...)
	}
}

// release gives a claim back. Whoever may have lost an answer does not, and
// nobody mints before it is known whether the claim was given back.
func (w *world) release() {
	run := w.anyRunner()
	if name, _ := run.NextName(); w.holder(run) != "" && !w.lost[name.Name] {
		run = run.Release(w.now)
		w.commit(commit{run.ID + " is released", []store.Change{store.Put(&run)}})
	}
}

func (w *world) kill() { w.dead[w.anyRunner().Claim.By] = true }

// boot is a boot call: of the machine mostly, and sometimes of a thief.
func (w *world) boot() {
	run := w.anyRunner()
	l := get[store.Lock](w, run.Lock)
	nonce, instance := "mine", "i-"+run.ClientToken()
	if w.draw(30) == 29 {
		nonce, instance = one(w, "mine", "theirs"), one(w, instance, "i-9")
	}
	run, l, verdict, writeRun, writeLock := store.BootCall(w.now, run, l, nonce, instance)
	if verdict == store.BootGo && (run.Boot.NonceHash != nonce || run.InstanceID != instance) {
		w.Fatalf("%s gives its config to %s with the nonce %s", run.ID, instance, nonce)
	}
	var changes []store.Change
	if writeRun {
		changes = append(changes, store.Put(&run))
	}
	switch {
	case writeLock:
		changes = append(changes, store.Put(&l))
	case verdict == store.BootGo:
		changes = append(changes, store.Check(&l))
	}
	if len(changes) > 0 {
		w.decide(fmt.Sprintf("boot of %s: %s", run.ID, verdict), changes...)
	}
}

// event is one thing that a machine says; it may be a lie.
func (w *world) event() {
	run := w.anyRunner()
	if run.Boot.At.IsZero() {
		return // nobody has its session key
	}
	l, p := get[store.Lock](w, run.Lock), get[store.Pulse](w, run.Lock)
	e := store.Event{
		Kind: one(w, store.EventOnline, store.EventOnline, store.EventOnline, store.EventHeartbeat, store.EventHeartbeat, store.EventHeartbeat,
			store.EventJobStarted, store.EventJobDone, store.EventIdle, store.EventDraining, store.EventBooting),
		Counter: run.Counter + int64(w.draw(4)),
		Reason:  one(w, store.EndSpot, store.EndIdle, store.EndTooOld, "whatever"),
		RunID:   "1001",
	}
	if e.Kind == store.EventHeartbeat {
		e.Counter = p.Counter + 1
	}
	h := store.Hear(w.now, lim, e, run, l, p)
	var changes []store.Change
	if h.Runner != nil {
		changes = append(changes, store.Put(h.Runner))
	}
	if h.Lock != nil {
		changes = append(changes, store.Put(h.Lock))
	}
	if h.Pulse != nil {
		changes = append(changes, store.Put(h.Pulse))
	}
	if h.CheckLock {
		changes = append(changes, store.Check(&l))
	}
	if len(changes) > 0 {
		w.decide(fmt.Sprintf("%s says %s", run.ID, e.Kind), changes...)
	}
}

func (w *world) next() {
	run := w.anyRunner()
	l := get[store.Lock](w, run.Lock)
	run, l, _, wanted, changed := store.NextCall(w.now, run, l, run.Config.N+1)
	if wanted && changed {
		w.decide(run.ID+" asks for the next config", store.Put(&run), store.Put(&l))
	}
}

// reap is what the reaper does with a runner: it drains, then ends step by step.
func (w *world) reap() {
	run := w.anyRunner()
	if run.Version == 0 {
		return
	}
	l, p := get[store.Lock](w, run.Lock), get[store.Pulse](w, run.Lock)
	if end := store.DrainReason(w.now, lim, run, l, p, get[store.Request](w, run.Request)); end != "" {
		run, l = store.Drain(w.now, run, l, store.NewEnd(end))
		w.decide(fmt.Sprintf("%s drains: %s", run.ID, end), store.Put(&run), store.Put(&l))
		return
	}
	off := one(w, true, false, false, false, false, false)
	w.off[run.ID] = w.off[run.ID] || off
	step := store.NextEndStep(w.now, lim, run, off)
	switch step {
	case store.EndDelete:
		run = run.Deleting(w.now)
		if one(w, "204", "422") == "204" {
			run = run.Deregistered(w.now)
		} else {
			run = run.Refused(w.now, lim)
		}
	case store.EndBegin:
		run = run.Ending(w.now, "the reaper says so")
	case store.EndTerminate:
		w.end(run)
		return
	case store.EndNames:
		run = run.Forget(run.Unused()[0].N).NamesLeft(w.now, lim)
	default:
		return
	}
	w.decide(fmt.Sprintf("%s: %s", run.ID, step), store.Put(&run))
}

func (w *world) end(run store.Runner) {
	run, l, q := store.Ended(w.now, lim, run, get[store.Lock](w, run.Lock), w.quota(), "EC2 says so")
	changes := []store.Change{store.Put(&run), store.Put(&q)}
	if l.State == store.LockEmpty {
		changes = append(changes, store.Put(&l))
	}
	w.decide(run.ID+" ends", changes...)
}

// gone is a machine that ends by itself, in whatever state.
func (w *world) gone() {
	if run := w.anyRunner(); run.InstanceID != "" {
		w.end(run)
	}
}

func (w *world) stop() {
	r := get[store.Request](w, one(w, worldRequests...))
	if r.Version == 0 {
		return
	}
	run, l := store.Runner{}, get[store.Lock](w, r.LockKey())
	if r.Runner != "" {
		run = get[store.Runner](w, r.Runner)
	}
	r, run, l, putRequest, putRunner, putLock := store.Stop(w.now, lim, r, run, l, "somebody", one(w, false, false, true))
	var changes []store.Change
	if putRequest {
		changes = append(changes, store.Put(&r))
	}
	if putRunner {
		changes = append(changes, store.Put(&run))
	}
	if putLock {
		changes = append(changes, store.Put(&l))
	}
	if len(changes) > 0 {
		w.decide("stop of "+r.ID, changes...)
	}
}

// settle is what the reaper, a poll or the worker does with a request.
func (w *world) settle() {
	r := get[store.Request](w, one(w, worldRequests...))
	if r.State == store.Waiting {
		var changed bool
		if r, changed, _ = store.Settle(w.now, lim, r, get[store.Runner](w, r.Runner)); changed {
			w.decide(fmt.Sprintf("%s settles: %s", r.ID, r.State), store.Put(&r))
			return
		}
	}
	if r.Overdue(w.now) {
		r = r.Expire(w.now, lim)
		w.decide(r.ID+" expires", store.Put(&r))
	}
}
