package promise

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
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
	Counted   Promise = "each try is counted, and only what trying can fix is tried again"
	Polled    Promise = "a poll sends a start message again that nobody took up"
	Bounded   Promise = "an answer that nobody knows is not asked for without end"
	NotEarly  Promise = "a request is taken up when its pause is over"
	Claimed   Promise = "what EC2 or GitHub does once is asked for under a claim"
	Paced     Promise = "each RunInstances call has a slot, and the slots keep the pace"
)

// calls is what a world has seen of the calls of RunInstances.
type calls struct {
	tokens   map[call]string // with which token each was made
	byToken  map[string]call
	full     map[string]bool         // the tokens that EC2 had no room for, or refused the placement of, and said so to somebody
	gone     map[string]bool         // the tokens whose image EC2 did not know, and said so to somebody
	toldFull map[caller]bool         // who learned that
	unclear  map[string]bool         // the tokens of which a call had no answer
	first    map[string]fleet.Launch // the first call with each token
	placed   map[call]bool           // the placements that were seen to be tried
	open     map[caller]bool         // who, of those that had a claim, has a call without an answer
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
		toldFull: map[caller]bool{}, unclear: map[string]bool{}, first: map[string]fleet.Launch{}, placed: map[call]bool{}, open: map[caller]bool{},
	}
}

// launchPromises are about the way from a request to a launched machine.
type launchPromises struct{ *History }

// Launching looks at a call of RunInstances before it is made. answered notes
// its outcome, as far as its caller can know.
func (p launchPromises) Launching(by string, l fleet.Launch) (answered func(err error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, v := range l.Tags {
		p.texts = append(p.texts, text{"tag " + k, []byte(v)})
	}
	runner := l.Tags[fleet.TagRunner]
	r := p.runners[runner]
	p.launches[runner]++
	if r.Version != 0 || !p.wiped() {
		p.sawCall(runner, r)
	}
	if r.Version != 0 {
		p.sawOptions(l, r)
		p.sawToken(caller{by, l.ClientToken}, r)
	}
	holder := caller{r.Claim.By, r.ID}
	return func(err error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		fe, told := errors.AsType[*fleet.Error](err)
		unknown := err != nil && !told && !errors.Is(err, store.ErrNoAccount) // without its role nothing is called
		p.calls.open[holder] = unknown
		switch {
		case unknown:
			p.calls.unclear[l.ClientToken] = true
		case errors.Is(err, fleet.ErrImage):
			p.calls.gone[l.ClientToken] = true
		case errors.Is(err, fleet.ErrCapacity), errors.Is(err, fleet.ErrUnsuited):
			p.calls.full[l.ClientToken] = true
			p.calls.toldFull[caller{by, l.ClientToken}] = true
		}
		if told {
			p.refused(l.ClientToken, fe)
		}
	}
}

// sawCall looks at whether a call of RunInstances may be made now: under a claim, and
// in a slot of its own, whose time has come.
func (p launchPromises) sawCall(runner string, r store.Runner) {
	now := p.now(kernel.Worker)
	p.hold(Claimed, r.Claim.By != "" && !now.After(r.Claim.Until), "RunInstances is called for runner %s without a claim", runner)
	// Who waits for a slot does not see what happens meanwhile.
	p.hold(Claimed, r.State == store.RunnerNew || r.InstanceID == "" && now.Sub(r.DrainingAt) < worker.Timeout+slack, "RunInstances is called for runner %s, which is %s", runner, r.State)
	p.hold(Paced, p.launches[runner] <= p.slotsOf[runner], "RunInstances is called %d times for runner %s, which got %d slots",
		p.launches[runner], runner, p.slotsOf[runner])
	p.hold(Paced, !now.Before(r.CalledAt), "RunInstances is called for runner %s at %s, and its slot is at %s", runner, now, r.CalledAt)
}

// sawToken looks at the token of a call: it is that of its runner and index alone,
// its machine can boot in time, and it is none that the same invocation knows to be
// in vain.
func (p launchPromises) sawToken(by caller, r store.Runner) {
	c := call{r.ID, r.Index}
	token, other := p.calls.tokens[c], p.calls.byToken[by.of]
	p.hold(OneToken, token == "" || token == by.of, "runner %s was launched at index %d with token %s, and is with %s", r.ID, r.Index, token, by.of)
	p.hold(OneToken, other == call{} || other == c, "token %s is that of runner %s at index %d, and of %s at %d", by.of, other.runner, other.index, c.runner, c.index)
	p.calls.tokens[c], p.calls.byToken[by.of] = by.of, c
	p.hold(Moves, !p.calls.toldFull[by], "%s knows that there is no room for %s, and asks for it again", by.by, by.of)
	if lock := p.locks[r.Lock]; lock.Names(r.ID) && lock.State == store.LockLaunching {
		now := p.now(kernel.Worker)
		p.hold(InTime, now.Before(lock.BootBy), "runner %s is launched at %s, and was to boot by %s", r.ID, now, lock.BootBy)
	}
}

// refused notes what EC2 answered in place of a launch. For an answer that nobody
// knows it is not asked again and again.
func (p launchPromises) refused(token string, err *fleet.Error) {
	p.answers.last[token] = err.Code
	if err.Case != fleet.ErrUnfamiliar {
		return
	}
	if p.answers.strange[token] == nil {
		p.answers.strange[token] = map[string]int{}
	}
	p.answers.strange[token][err.Code]++
	n := p.answers.strange[token][err.Code]
	// Who is killed after the answer could not count it.
	p.hold(Bounded, n <= 2*store.MaxUnfamiliar, "EC2 was asked %d times with token %s, and answers %s", n, token, err.Code)
}

// sawLaunch looks at what a commit is about to change, and returns what looks at
// it once all of the commit was noted.
func (p launchPromises) sawLaunch(items []store.Item) (noted func()) {
	requests := map[string]store.Request{}
	wants := map[string]time.Time{} // until when each runner is wanted by the requests of the commit
	for _, i := range items {
		r, ok := i.(*store.Request)
		if !ok {
			continue
		}
		requests[r.ID] = p.requests[r.ID]
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
			p.sawLockOf(p.locks[i.Key], *i, wants[i.Runner])
		case *store.Runner:
			p.sawCallsOf(p.runners[i.ID], *i)
			p.hold(KeptOpen, i.State.Final() || i.TTL == 0, "runner %s is %s, and may be deleted", i.ID, i.State)
		case *store.Request:
			p.hold(KeptOpen, i.State.Final() || i.TTL == 0, "request %s is %s, and may be deleted", i.ID, i.State)
		}
	}
	return func() {
		for _, i := range items {
			if r, ok := i.(*store.Request); ok {
				p.sawGivenUp(requests[r.ID], *r)
			}
		}
	}
}

// sawLockOf looks at a lock whose runner is wanted until a time by the requests
// that were written with it.
func (p launchPromises) sawLockOf(was, l store.Lock, wanted time.Time) {
	empty := l.State == "" || l.State == store.LockEmpty
	p.hold(KeptOpen, empty || l.TTL == 0, "lock %s is %s, and may be deleted", l.Key, l.State)
	if l.Version != was.Version+1 || empty {
		return
	}
	if l.Runner != was.Runner {
		p.hold(Held, was.State != store.LockLaunching && was.State != store.LockLive,
			"lock %s was %s and named runner %s, and names %s", l.Key, was.State, was.Runner, l.Runner)
		was = store.Lock{BootBy: l.BootBy}
	}
	if l.BootBy.Equal(was.BootBy) {
		p.hold(NoLonger, !l.Exp.After(latest(was.Exp, wanted)), "runner %s is kept until %s, and was until %s; it is wanted until %s", l.Runner, l.Exp, was.Exp, wanted)
	}
}

// reimaged reports whether a runner continued at the same placement with another
// image, since EC2 did not know its own, and nothing else changed.
func (h *History) reimaged(was, r store.Runner) bool {
	before := was.Launch
	before.Image = r.Launch.Image
	return h.calls.gone[h.calls.tokens[call{was.ID, was.Index}]] && r.Index == was.Index+1 &&
		slices.Equal(r.Plan, slices.Insert(slices.Clone(was.Plan), r.Index, was.Placement())) && sameLaunch(r.Launch, before)
}

// sawCallsOf looks at what became of a runner whose calls the world knows.
func (p launchPromises) sawCallsOf(was, r store.Runner) {
	if was.Version == 0 {
		return
	}
	token := p.calls.tokens[call{was.ID, was.Index}]
	if r.Index != was.Index {
		p.hold(Moves, p.calls.full[token] || p.reimaged(was, r), "runner %s moved on from index %d, and EC2 did not say that it has no room for that", r.ID, was.Index)
	}
	if r.State == store.RunnerFailed && was.State != r.State {
		p.hold(MayExist, !p.calls.unclear[token], "runner %s failed, and a call with token %s may have launched it", r.ID, token)
	}
	switch {
	case was.Claim.By == "" || was.Claim.By == r.Claim.By:
	case r.Claim.By != "":
		p.hold(ClaimHeld, !r.UpdatedAt.Before(was.Claim.Until), "%s takes runner %s at %s, and %s holds it until %s", r.Claim.By, r.ID, r.UpdatedAt, was.Claim.By, was.Claim.Until)
	case r.State.Usable():
		p.hold(ClaimHeld, !p.calls.open[caller{was.Claim.By, r.ID}], "%s gives runner %s back, and a call of its own is open", was.Claim.By, r.ID)
	}
}

// sawGivenUp looks at a request that waited for a runner and was accepted again:
// nobody can come to use that runner, and the try is counted.
func (p launchPromises) sawGivenUp(was, r store.Request) {
	if was.State != store.Waiting || r.State != store.Accepted {
		return
	}
	run := p.runners[was.Runner]
	if !p.kept(run.Ref()) {
		return // its record is lost, or was deleted early
	}
	if r.OfJob() {
		took := run.Took.Job != "" && run.Took.Request != r.ID
		p.hold(GivenUp, took || deserted(run) && (run.State.Final() || !jobRuns(run)), "request %s gives up runner %s, which is %s, took %q, was deregistered at %s and began a job at %s",
			r.ID, run.ID, run.State, run.Took.Job, run.DeregisteredAt, run.Job.StartedAt)
		p.hold(Counted, r.Tries == was.Tries+1 && r.Launches == was.Launches+1, "request %s was tried %d times again by launch %d, and then %d by %d", r.ID, was.Tries, was.Launches, r.Tries, r.Launches)
		return
	}
	p.hold(GivenUp, deserted(run), "request %s gives up runner %s, which is %s, booted at %s and deregistered at %s", r.ID, run.ID, run.State, run.Boot.At, run.DeregisteredAt)
	p.hold(Counted, run.End == nil || run.End.Retryable, "request %s is tried again after runner %s, which ended for %v", r.ID, run.ID, run.End)
	if p.sawElsewhere(was, r, run) {
		return
	}
	// One that came to the last try for want of vCPUs has that once more: time helps.
	p.hold(Counted, r.Tries == min(was.Tries, len(p.Limits.Waits)-1)+1, "request %s was tried %d times again, and then %d", r.ID, was.Tries, r.Tries)
}

// deserted reports whether no job can come to a runner any more.
func deserted(r store.Runner) bool {
	return r.State.Final() || !r.State.Usable() && (r.Boot.At.IsZero() || !r.DeregisteredAt.IsZero())
}

// Polls looks at a poll that begins: answered looks at what it did.
func (p launchPromises) Polls(request string) (answered func(err error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was, began := p.requests[request], time.Now()
	forgotten := was.State == store.Accepted && was.Sends == 1 && was.Wait == "" && p.now(kernel.API).Sub(was.SentAt) >= p.Limits.PollResend
	return func(err error) {
		if err != nil || !forgotten || time.Since(began) > setting.APITime/2 {
			return // it failed, or had no time to commit
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, e := range p.Kernel.Trace() {
			if !e.At.Before(began) && e.Op == kernel.Commit && e.Fate != kernel.Pass && strings.Contains(e.On, request) {
				return
			}
		}
		p.hold(Polled, p.requests[request].Version != was.Version, "request %s was sent at %s, and a poll at %s leaves it at that", request, was.SentAt, began)
	}
}

// sawTakenUp looks at a request that a worker continues with: the pause before its next
// try is over.
func (p launchPromises) sawTakenUp(was, r store.Request) {
	if was.State == store.Accepted && was.Wait == store.WaitBackoff && (r.State == store.Waiting || r.State == store.Ready && !r.OfJob()) {
		p.hold(NotEarly, !was.DueAt.After(r.UpdatedAt.Add(early)), "request %s is taken up at %s, and was to pause until %s", r.ID, r.UpdatedAt, was.DueAt)
	}
}

// early is how much before its time a worker may take a request up: it knows that
// clocks differ.
const early = 2 * time.Second
