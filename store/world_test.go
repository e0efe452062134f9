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
// few requests, their runners and locks, one quota. Anyone who acts reads, decides
// by the rules and commits; between the two, others may act, and the clock continues.
type world struct {
	*rapid.T
	random  *rand.Rand
	store   *storetest.Memory
	now     time.Time
	late    []commit // decided, and not committed yet
	runners int      // how many were begun
	workers int
	dead    map[string]bool   // workers that were killed
	raised  map[string]bool   // runners that wait longer for their config
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
		dead: map[string]bool{}, raised: map[string]bool{}, minted: map[string]string{}, lost: map[string]bool{}, off: map[string]bool{}, known: newKnown(),
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

// around is the case of a runner, with everything around it.
func (w *world) around(run store.Runner) store.Case {
	if run.Version == 0 {
		return store.Case{Runner: run}
	}
	items, err := w.store.Get(w.Context(), run.Around(store.KindLock, store.KindPulse, store.KindQuota, store.KindRequest)...)
	if err != nil {
		w.Fatal(err)
	}
	return store.Case{Runner: run}.With(items...)
}

// decide commits a decision now, or at some later time, or never.
func (w *world) decide(what string, changes ...store.Change) {
	if len(changes) == 0 {
		return // nothing is to be written
	}
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
	d := wishes(mode).Accept(w.now, identity(id, one(w, lim.GiveUp, lim.GiveUp, time.Second, time.Minute)))
	w.decide("accept "+id, d.Changes...)
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
		d := store.Case{Request: r, Lock: l}.Share(w.now, lim)
		w.decide(fmt.Sprintf("%s shares %s", r.ID, l.Runner), d.Changes...)
		return
	}
	if !l.Free() {
		d := w.around(get[store.Runner](w, l.Runner)).With(&l, &p).Unblock(w.now, lim, "")
		w.decide(fmt.Sprintf("%s drains %s", r.ID, l.Runner), d.Changes...)
		return
	}
	w.runners++
	in := intent()
	in.Launch.Vouched = w.draw(2) == 1
	in.Runner, in.MaxRunners = fmt.Sprintf("x%d", w.runners), worldRunners
	in.Launch.HardS, in.Claim = 2*3600, w.claim()
	c := store.Case{Request: r, Lock: l, Quota: w.quota()}
	d := c.Line(w.now, lim, in.MaxRunners, in.Pacing)
	if d.Wait.For == "" {
		d = c.Begin(w.now, lim, in)
	}
	if d.Wait.For != "" {
		w.runners--
		if d.Wait.For == store.WaitQuota {
			d = store.Case{Request: r}.Hold(w.now, d.Wait)
		}
		w.decide(fmt.Sprintf("%s waits: %s", r.ID, d.Request.Wait), d.Changes...)
		return
	}
	w.decide(fmt.Sprintf("%s begins %s", r.ID, in.Runner), d.Changes...)
}

// claim is that of a new worker.
func (w *world) claim() store.Claim {
	w.workers++
	return store.Claim{By: fmt.Sprintf("w%d", w.workers), Until: w.now.Add(30 * time.Second)}
}

func (w *world) take() {
	run, claim := w.anyRunner(), w.claim()
	d := w.around(run).Take(w.now, claim, "test", &store.Pacing{})
	w.decide(fmt.Sprintf("%s takes %s", claim.By, run.ID), d.Changes...)
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
	c := w.around(run)
	if w.holder(run) == "" || store.NextStep(w.now, run, c.Lock) != store.StepLaunch {
		return
	}
	const code = "InsufficientInstanceCapacity"
	switch one(w, "instance", "instance", "instance", "no capacity", "no placement", "refused", "unclear") {
	case "instance":
		d, _ := c.Launched(w.now, "i-"+run.ClientToken())
		w.decide(run.ID+" is launched", d.Changes...)
	case "no capacity":
		no := store.Refusal{Code: code, Image: one(w, "", "", "ami-2")}
		w.decide(run.ID+" moves on", c.Advance(w.now, lim, run.Index, run.Index+w.draw(3), no, store.Pacing{}).Changes...)
	case "no placement":
		w.decide(run.ID+" is abandoned", c.Abandon(w.now, lim, code, store.Said{}, store.NewEnd(store.EndNoCapacity)).Changes...)
	case "refused":
		why := store.Failure{Code: store.EndLaunchDenied, Text: "t"}
		w.decide(run.ID+" is refused", c.Abandon(w.now, lim, "UnauthorizedOperation", store.Said{}, why).Changes...)
	case "unclear":
		p := store.Pause{Wait: store.Wait{For: store.WaitEC2, Until: w.now.Add(time.Second)}, By: run.Claim.By, Said: store.Said{Code: "InternalError", Text: "It broke."}}
		w.decide(run.ID+" is to be called again", c.Pause(w.now, p).Changes...)
	}
}

// mint registers a name at GitHub and records the config, or loses the answer.
func (w *world) mint() {
	run := w.anyRunner()
	by := w.holder(run)
	if by == "" || store.NextStep(w.now, run, get[store.Lock](w, run.Lock)) != store.StepMint {
		return
	}
	if run.Crowded() {
		return // the reaper has to ask about its names first
	}
	name, ok := run.NextName()
	if !ok || w.minted[name.Name] == by {
		d := of(run).SpendName(w.now, name.N, store.EndGitHubDown, "No answer.", "test")
		w.decide(run.ID+" writes a name ahead", d.Changes...)
		return
	}
	if user := w.minted[name.Name]; user != "" {
		w.Fatalf("%s uses the name %s, which %s has used", by, name.Name, user)
	}
	w.minted[name.Name], w.lost[name.Name] = by, true
	d := of(run).Configure(w.now, name.N, "sealed", int64(len(w.minted)), "")
	if d.Runner.Config.N != name.N {
		w.Fatalf("%s has a name and takes no config", run.ID)
	}
	c := commit{fmt.Sprintf("%s gets config %d", run.ID, name.N), d.Changes}
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
	seen := one(w, store.Registration{Online: true}, store.Registration{Online: true}, store.Registration{Online: true}, store.Registration{}, store.Registration{Absent: true})
	d, verdict := w.around(run).Confirm(w.now, lim, seen)
	w.decide(fmt.Sprintf("%s is %s", run.ID, verdict), d.Changes...)
}

// release gives a claim back. Anyone who may have lost an answer does not, and
// nobody mints before it is known whether the claim was given back.
func (w *world) release() {
	run := w.anyRunner()
	if name, _ := run.NextName(); w.holder(run) != "" && !w.lost[name.Name] {
		w.commit(commit{run.ID + " is released", of(run).Release(w.now).Changes})
	}
}

func (w *world) kill() { w.dead[w.anyRunner().Claim.By] = true }

// boot is a boot call: of the machine mostly, and sometimes of a thief.
func (w *world) boot() {
	run := w.anyRunner()
	if run.Version == 0 {
		return
	}
	nonce, instance := "mine", "i-"+run.ClientToken()
	if w.draw(30) == 29 {
		nonce, instance = one(w, "mine", "theirs"), one(w, instance, "i-9")
	}
	d, verdict := w.around(run).Boot(w.now, lim, nonce, instance)
	if verdict == store.BootGo && (d.Runner.Boot.NonceHash != nonce || d.Runner.InstanceID != instance) {
		w.Fatalf("%s gives its config to %s with the nonce %s", run.ID, instance, nonce)
	}
	w.decide(fmt.Sprintf("boot of %s: %s", run.ID, verdict), d.Changes...)
}

// event is one thing that a machine says; it may be a lie.
func (w *world) event() {
	run := w.anyRunner()
	if run.Boot.At.IsZero() {
		return // nobody has its session key
	}
	c := w.around(run)
	e := store.Event{
		Kind: one(w, store.EventOnline, store.EventOnline, store.EventOnline, store.EventHeartbeat, store.EventHeartbeat, store.EventHeartbeat,
			store.EventJobStarted, store.EventJobDone, store.EventIdle, store.EventDraining, store.EventBooting),
		Counter: run.Counter + int64(w.draw(4)),
		Reason:  one(w, store.EndSpot, store.EndIdle, store.EndTooOld, "whatever"),
		RunID:   "1001",
	}
	if e.Kind == store.EventHeartbeat {
		e.Counter = c.Pulse.Counter + 1
	}
	d, _ := c.ApplyEvent(w.now, lim, e, "key-1")
	if d.Need != nil {
		w.Fatalf("%s says %s, which needs %v of a case that has everything", run.ID, e.Kind, d.Need)
	}
	w.decide(fmt.Sprintf("%s says %s", run.ID, e.Kind), d.Changes...)
}

func (w *world) next() {
	run := w.anyRunner()
	d, _ := w.around(run).Next(w.now, lim, run.Config.N+1)
	w.decide(run.ID+" asks for the next config", d.Changes...)
}

// reap is what the reaper does with a runner: it drains, then ends step by step.
func (w *world) reap() {
	run := w.anyRunner()
	if run.Version == 0 {
		return
	}
	c := w.around(run)
	if d := c.ReviewRunner(w.now, lim, ""); d.Runner.State != run.State {
		w.decide(fmt.Sprintf("%s drains: %s", run.ID, d.Runner.End.Code), d.Changes...)
		return
	}
	off := one(w, true, false, false, false, false, false)
	w.off[run.ID] = w.off[run.ID] || off
	step := store.NextEndStep(w.now, lim, run, off)
	var all store.Batch
	switch step {
	case store.EndDelete:
		d := c.Deleting(w.now)
		all.Add(d)
		if one(w, "204", "422") == "204" {
			all.Add(d.Deregistered(w.now))
		} else {
			all.Add(d.Refused(w.now, lim))
		}
	case store.EndBegin:
		all.Add(c.Ending(w.now, "the reaper says so"))
	case store.EndTerminate:
		w.end(run)
		return
	case store.EndNames:
		all.Add(c.Forgotten(w.now, lim, []int{run.Unused()[0].N}, true))
	case store.EndWait:
		all.Add(c.Suspect(w.now, lim))
	default:
		return
	}
	w.decide(fmt.Sprintf("%s: %s", run.ID, step), all.Changes...)
}

func (w *world) end(run store.Runner) {
	in := store.Instance{ID: run.InstanceID, State: "terminated", Code: one(w, "", "Server.InternalError", "Client.InvalidSnapshot.NotFound")}
	d, ok := w.around(run).Finish(w.now, lim, in, "EC2 says so", store.Price{})
	if ok == (len(d.Changes) == 0) {
		w.Fatalf("the end of %s is %v, and has %d changes", run.ID, ok, len(d.Changes))
	}
	w.decide(run.ID+" ends", d.Changes...)
}

// gone is a machine that ends on its own, in whatever state.
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
	lock := get[store.Lock](w, r.LockKey())
	c := store.Case{Request: r, Runner: get[store.Runner](w, r.Runner), Lock: lock}
	w.decide("stop of "+r.ID, c.Stop(w.now, lim, "somebody", one(w, false, false, true)).Changes...)
}

// settle is what the reaper, a poll or the worker does with a request.
func (w *world) settle() {
	r := get[store.Request](w, one(w, worldRequests...))
	if r.Version == 0 {
		return
	}
	c := store.Case{Request: r, Runner: get[store.Runner](w, r.Runner)}
	var d store.Decision
	switch one(w, "reaper", "poll", "worker") {
	case "reaper":
		d, _ = c.ReviewRequest(w.now, lim)
	case "poll":
		d = c.Poll(w.now, lim)
	case "worker":
		if d = c.Settle(w.now, lim); d.Changes == nil && r.Overdue(w.now) {
			d = c.Expire(w.now, lim)
		}
	}
	w.decide(fmt.Sprintf("%s settles: %s", r.ID, d.Request.State), d.Changes...)
}
