package sim

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about the way from a request to a launched machine.
const (
	Held      Promise = "a lock names its runner until that drains"
	KeptOpen  Promise = "nothing that is open may be deleted"
	NoLonger  Promise = "a runner is kept no longer than somebody asked for"
	ClaimHeld Promise = "a claim is its holder's until it lapses, or no call of his is open"
	OneToken  Promise = "a runner and an index have one client token, and no others have it"
	InTime    Promise = "no machine is launched that could not boot in time"
	Moves     Promise = "a placement is left when EC2 says that it has no room, and not before"
	MayExist  Promise = "no runner fails that one of its calls may have launched"
	GivenUp   Promise = "a request gives up a runner only when no job can come to it any more"
	Counted   Promise = "each try is counted, and only what trying mends is tried again"
	Polled    Promise = "a poll sends a start message again that nobody took up"
)

// calls is what a world has seen of the calls of RunInstances.
type calls struct {
	tokens   map[call]string // with which token each was made
	byToken  map[string]call
	full     map[string]bool // the tokens that EC2 had no room for, or refused the placement of, and said so to somebody
	gone     map[string]bool // the tokens whose image EC2 did not know, and said so to somebody
	toldFull map[caller]bool // who was told that
	unclear  map[string]bool // the tokens of which a call had no answer
	open     map[caller]bool // who, of those that had a claim, has a call without an answer
}

// call is what a client token stands for.
type call struct {
	runner string
	index  int
}

// caller is who makes a call, and the token or the runner that it is made with.
type caller struct{ by, of string }

func newCalls() calls {
	return calls{
		tokens: map[call]string{}, byToken: map[string]call{}, full: map[string]bool{}, gone: map[string]bool{},
		toldFull: map[caller]bool{}, unclear: map[string]bool{}, open: map[caller]bool{},
	}
}

// by names the invocation that makes a call.
func by(ctx context.Context) string {
	if inv := invocationOf(ctx); inv != nil {
		return inv.name
	}
	return ""
}

// calling looks at a call of RunInstances before it is made: its token is that of
// its runner and index alone, its machine can boot in time, and it is none that
// the same invocation knows to be in vain. answered notes what came of it, as far as
// its caller can know.
func (w *World) calling(ctx context.Context, l fleet.Launch) (answered func(err error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.watch.runners[l.Tags[fleet.TagRunner]]
	holder := caller{r.Claim.By, r.ID}
	answered = func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		_, ok := errors.AsType[*fleet.Error](err)
		unknown := err != nil && !ok
		w.watch.calls.open[holder] = unknown
		switch {
		case unknown:
			w.watch.calls.unclear[l.ClientToken] = true
		case errors.Is(err, fleet.ErrImage):
			w.watch.calls.gone[l.ClientToken] = true
		case errors.Is(err, fleet.ErrCapacity), errors.Is(err, fleet.ErrUnsuited):
			w.watch.calls.full[l.ClientToken] = true
			w.watch.calls.toldFull[caller{by(ctx), l.ClientToken}] = true
		}
	}
	if r.Version == 0 {
		return answered // its record is lost
	}
	c := call{r.ID, r.Index}
	token, other := w.watch.calls.tokens[c], w.watch.calls.byToken[l.ClientToken]
	w.hold(OneToken, token == "" || token == l.ClientToken, "runner %s was launched at index %d with token %s, and is with %s", r.ID, r.Index, token, l.ClientToken)
	w.hold(OneToken, other == call{} || other == c, "token %s is that of runner %s at index %d, and of %s at %d", l.ClientToken, other.runner, other.index, c.runner, c.index)
	w.watch.calls.tokens[c], w.watch.calls.byToken[l.ClientToken] = l.ClientToken, c
	w.hold(Moves, !w.watch.calls.toldFull[caller{by(ctx), l.ClientToken}], "%s knows that there is no room for %s, and asks for it again", by(ctx), l.ClientToken)
	if lock := w.watch.locks[r.Lock]; lock.Names(r.ID) && lock.State == store.LockLaunching {
		now := w.clock(Worker)()
		w.hold(InTime, now.Before(lock.BootBy), "runner %s is launched at %s, and was to boot by %s", r.ID, now, lock.BootBy)
	}
	return answered
}

// sawLaunch looks at what a commit is about to change, and returns what looks at
// it once all of the commit was noted.
func (w *World) sawLaunch(items []store.Item) (noted func()) {
	requests := map[string]store.Request{}
	wants := map[string]time.Time{} // until when each runner is wanted by the requests of the commit
	for _, i := range items {
		r, ok := i.(*store.Request)
		if !ok {
			continue
		}
		requests[r.ID] = w.watch.requests[r.ID]
		wants[r.Runner] = latest(wants[r.Runner], r.UpdatedAt.Add(r.Timeout()))
		for _, i := range items {
			if l, ok := i.(*store.Lock); ok && l.Runner == r.Runner {
				wants[r.Runner] = latest(wants[r.Runner], l.BootBy.Add(r.Timeout()))
			}
		}
	}
	for _, i := range items {
		switch i := i.(type) {
		case *store.Lock:
			w.sawLockOf(w.watch.locks[i.Key], *i, wants[i.Runner])
		case *store.Runner:
			w.sawCallsOf(w.watch.runners[i.ID], *i)
			w.hold(KeptOpen, i.State.Final() || i.TTL == 0, "runner %s is %s, and may be deleted", i.ID, i.State)
		case *store.Request:
			w.hold(KeptOpen, i.State.Final() || i.TTL == 0, "request %s is %s, and may be deleted", i.ID, i.State)
		}
	}
	return func() {
		for _, i := range items {
			if r, ok := i.(*store.Request); ok {
				w.sawGivenUp(requests[r.ID], *r)
			}
		}
	}
}

// sawLockOf looks at a lock whose runner is wanted until a time by the requests
// that were written with it.
func (w *World) sawLockOf(was, l store.Lock, wanted time.Time) {
	empty := l.State == "" || l.State == store.LockEmpty
	w.hold(KeptOpen, empty || l.TTL == 0, "lock %s is %s, and may be deleted", l.Key, l.State)
	if l.Version != was.Version+1 || empty {
		return
	}
	if l.Runner != was.Runner {
		w.hold(Held, was.State != store.LockLaunching && was.State != store.LockLive,
			"lock %s was %s and named runner %s, and names %s", l.Key, was.State, was.Runner, l.Runner)
		was = store.Lock{BootBy: l.BootBy}
	}
	if l.BootBy.Equal(was.BootBy) {
		w.hold(NoLonger, !l.Exp.After(latest(was.Exp, wanted)), "runner %s is kept until %s, and was until %s; it is wanted until %s", l.Runner, l.Exp, was.Exp, wanted)
	}
}

// reimaged reports whether a runner went on at the same placement with another
// image, since EC2 did not know its own, and nothing else changed.
func (w *World) reimaged(was, r store.Runner) bool {
	before := was.Launch
	before.Image = r.Launch.Image
	return w.watch.calls.gone[w.watch.calls.tokens[call{was.ID, was.Index}]] && r.Index == was.Index+1 &&
		slices.Equal(r.Plan, slices.Insert(slices.Clone(was.Plan), r.Index, was.Placement())) && sameLaunch(r.Launch, before)
}

// sawCallsOf looks at what became of a runner whose calls the world knows.
func (w *World) sawCallsOf(was, r store.Runner) {
	if was.Version == 0 {
		return
	}
	token := w.watch.calls.tokens[call{was.ID, was.Index}]
	if r.Index != was.Index {
		w.hold(Moves, w.watch.calls.full[token] || w.reimaged(was, r), "runner %s moved on from index %d, and EC2 did not say that it has no room for that", r.ID, was.Index)
	}
	if r.State == store.RunnerFailed && was.State != r.State {
		w.hold(MayExist, !w.watch.calls.unclear[token], "runner %s failed, and a call with token %s may have launched it", r.ID, token)
	}
	switch {
	case was.Claim.By == "" || was.Claim.By == r.Claim.By:
	case r.Claim.By != "":
		w.hold(ClaimHeld, !r.UpdatedAt.Before(was.Claim.Until), "%s takes runner %s at %s, and %s holds it until %s", r.Claim.By, r.ID, r.UpdatedAt, was.Claim.By, was.Claim.Until)
	case r.State.Usable():
		w.hold(ClaimHeld, !w.watch.calls.open[caller{was.Claim.By, r.ID}], "%s gives runner %s back, and a call of its own is open", was.Claim.By, r.ID)
	}
}

// sawGivenUp looks at a request that waited for a runner and was accepted again:
// nobody can come to use that runner, and the try is counted.
func (w *World) sawGivenUp(was, r store.Request) {
	if was.State != store.Waiting || r.State != store.Accepted {
		return
	}
	run := w.watch.runners[was.Runner]
	if kept, err := w.Store().Get(context.Background(), run.Ref()); err != nil || kept[0].Base().Version == 0 {
		return // its record is lost, or was deleted early
	}
	w.hold(GivenUp, run.State.Final() || !run.State.Usable() && (run.Boot.At.IsZero() || !run.DeregisteredAt.IsZero()),
		"request %s gives up runner %s, which is %s, booted at %s and deregistered at %s", r.ID, run.ID, run.State, run.Boot.At, run.DeregisteredAt)
	w.hold(Counted, run.End == nil || run.End.Retryable, "request %s is tried again after runner %s, which ended for %v", r.ID, run.ID, run.End)
	// One that came to the last try for want of vCPUs has that once more: time helps.
	w.hold(Counted, r.Tries == min(was.Tries, len(w.Limits.Waits)-1)+1, "request %s was tried %d times again, and then %d", r.ID, was.Tries, r.Tries)
}

// polls looks at a poll that begins: answered looks at what it did.
func (w *World) polls(request string) (answered func(err error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was, began, effects := w.watch.requests[request], time.Now(), len(w.trace)
	forgotten := was.State == store.Accepted && was.Sends == 1 && was.Wait == "" && w.clock(API)().Sub(was.SentAt) >= w.Limits.PollResend
	return func(err error) {
		if err != nil || !forgotten || time.Since(began) > apiTime/2 {
			return // it failed, or had no time to commit
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, e := range w.trace[effects:] {
			if e.Op == Commit && e.Fate != Pass && strings.Contains(e.On, request) {
				return
			}
		}
		w.hold(Polled, w.watch.requests[request].Version != was.Version, "request %s was sent at %s, and a poll at %s leaves it at that", request, was.SentAt, began)
	}
}

// nearlyUp reports whether a runner may be counted on for a moment only, or should
// have booted by now.
func (w *World) nearlyUp() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.watch.locks {
		left := time.Until(l.Exp)
		if l.State == store.LockLive && left > 0 && left < w.Limits.ShareMargin-5*time.Second {
			return true
		}
		if l.State == store.LockLaunching && time.Until(l.BootBy) < 0 {
			return true
		}
	}
	return false
}
