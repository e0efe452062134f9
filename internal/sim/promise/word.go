package promise

import (
	"errors"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// The promises about what GitHub says of runners.
const (
	Proved    Promise = "a runner is online when GitHub showed it so, or gave it a job"
	ReadyAt   Promise = "a request is ready from when its runner was online"
	Fresh     Promise = "a live runner is shared while GitHub's word about it is fresh"
	NoGhost   Promise = "nobody is given a runner that GitHub forgot two minutes before"
	InVain    Promise = "a runner to which no job comes is shared for no longer than one may idle"
	UsedUp    Promise = "no runner is shared between two of its configs"
	NotAgain  Promise = "no image is launched whose runner program GitHub refused before any job"
	BlamedFor Promise = "an image is refused for what a machine says before its first job"
	LastOne   Promise = "a machine whose runner program GitHub refused gets no further config"
	Told      Promise = "who launched a runner is ready with the commit that says that it is online"
	FewNames  Promise = "few names of unknown outcome are written in a record"
	NameOnce  Promise = "a name is written ahead, and registered once"
)

// confirmations is what a world knows of GitHub's word.
type confirmations struct {
	shown map[int64]time.Time // when GitHub last showed a registration online to somebody
	lied  map[string]bool     // the runners of which a machine reported what is not so
	// refused are the runners whose program GitHub refused, since when; blamed the
	// images of those that had no job by then.
	refused map[string]time.Time
	blamed  map[string]bool
	busy    map[string]bool      // the runners that GitHub once would not delete
	counted map[string]time.Time // since when runners are shared without a job
}

func newConfirmations() confirmations {
	return confirmations{shown: map[int64]time.Time{}, lied: map[string]bool{},
		refused: map[string]time.Time{}, blamed: map[string]bool{}, busy: map[string]bool{}, counted: map[string]time.Time{}}
}

// jobRuns reports whether a machine reported a job, and not its end.
func jobRuns(r store.Runner) bool { return !r.Job.StartedAt.IsZero() && r.Job.EndedAt.IsZero() }

// answers is what the outside answered to the calls for a runner.
type answers struct {
	mints   map[string]map[error]int  // of registrations, by runner and kind; nil: the good ones
	strange map[string]map[string]int // of RunInstances, by client token and code that nobody knows
	last    map[string]string         // the last code of RunInstances, by client token
}

func newAnswers() answers {
	return answers{mints: map[string]map[error]int{}, strange: map[string]map[string]int{}, last: map[string]string{}}
}

// wordPromises are about what GitHub says of runners.
type wordPromises struct{ *History }

// Minting looks at a registration before it is made: under a claim, and a name that
// was written ahead and is new. answered notes its outcome.
func (p wordPromises) Minting(by Minter, name, credential string) (answered func(err error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := setting.RunnerIn(name)
	if c, ok := p.checks[id]; ok {
		p.hold(NameOnce, !p.names[name], "the name %s is registered a second time", name)
		p.hold(Claimed, c.Claim.By != "" && !p.now(kernel.Worker).After(c.Claim.Until), "the name %s is registered for a check without a claim", name)
		leasePromises(p).sawUsed(credential)
	} else if r := p.runners[id]; r.Version != 0 || !p.wiped() {
		p.hold(NameOnce, !p.names[name], "the name %s is registered a second time", name)
		p.hold(NameOnce, slices.ContainsFunc(r.Names, func(g store.GitHubName) bool { return g.Name == name }), "the name %s is registered before it is written", name)
		now := p.now(kernel.Worker)
		// A call that is under way does not see that the reaper found the machine over, and
		// ended the runner and with it the claim.
		overtaken := r.State == store.RunnerEnded && now.Sub(r.EndedAt) < worker.Timeout+slack
		p.hold(Claimed, r.Claim.By != "" && !now.After(r.Claim.Until) || overtaken, "the name %s is registered without a claim", name)
		leasePromises(p).sawMint(r, name, credential)
		credentialPromises(p).sawTried(by, r, credential)
	}
	return func(err error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.answers.mints[id] == nil {
			p.answers.mints[id] = map[error]int{}
		}
		kind := mintKind(err)
		p.answers.mints[id][kind]++
		if _, check := p.checks[id]; !check {
			credentialPromises(p).sawAnswer(by, p.runners[id], credential, kind)
		}
		if !slices.Contains([]error{github.ErrLimited, github.ErrDenied, github.ErrNotFound, github.ErrRefused}, kind) {
			p.names[name] = true // it was registered, or may have been
		}
	}
}

// mintKind is the kind of outcome of a registration; nil: a good one. One whose worker was
// dead by then is a kind of its own, kernel.ErrDead: nobody could record what GitHub said.
func mintKind(err error) error {
	if err == nil {
		return nil
	}
	for _, k := range []error{kernel.ErrDead, github.ErrLimited, github.ErrDenied, github.ErrNotFound, github.ErrRefused, github.ErrNameTaken, github.ErrConflict} {
		if errors.Is(err, k) {
			return k
		}
	}
	return github.ErrUnknown
}

// Shows notes what GitHub showed.
func (p wordPromises) Shows(r github.Runner, err error) {
	if err == nil && r.Online {
		p.note(func() { p.confirmations.shown[r.ID] = time.Now() })
	}
}

// Refuses notes that GitHub refused the program of a runner.
func (p wordPromises) Refuses(runner string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.confirmations.refused[runner].IsZero() {
		p.confirmations.refused[runner] = time.Now()
	}
}

// Lies notes that a machine reports what is not so.
func (p wordPromises) Lies(runner string) {
	p.note(func() { p.confirmations.lied[runner] = true })
}

// Stopped notes that a person stopped a machine.
func (p wordPromises) Stopped(instance string) {
	p.note(func() { p.stopped[instance] = time.Now() })
}

// sawWord looks at what a commit writes of what GitHub said about a runner.
func (p wordPromises) sawWord(c commit, was, r store.Runner) {
	p.sawOnline(was, r)
	p.sawRefused(was, r)
	p.sawNames(r)
	if !r.Job.StartedAt.Equal(was.Job.StartedAt) || r.Jobs != was.Jobs || r.Wanted != was.Wanted {
		delete(p.confirmations.counted, r.ID)
	}
	if r.Refusals > 0 {
		p.confirmations.busy[r.ID] = true
	}
	for _, i := range c.items {
		if q, ok := i.(*store.Quota); ok {
			p.sawBlame(was, *q)
		}
	}
}

// sawRefused looks at a runner that drains since GitHub refused its program.
func (p wordPromises) sawRefused(was, r store.Runner) {
	if was.End == nil && r.End != nil && r.End.Code == store.EndTooOld && was.Job.StartedAt.IsZero() && was.Jobs == 0 {
		p.confirmations.blamed[r.Launch.Image] = true
	}
	at, refused := p.confirmations.refused[r.ID]
	if r.Wanted > was.Wanted && was.Version != 0 {
		p.hold(LastOne, !refused || time.Since(at) < time.Minute, "runner %s asks for config %d, and GitHub refused its program at %s", r.ID, r.Wanted, at)
	}
}

// sawBlame looks at an image that is refused by the commit of a runner, as it was.
func (p wordPromises) sawBlame(was store.Runner, q store.Quota) {
	if was.State.Usable() && slices.ContainsFunc(q.TooOld, func(i store.TooOldImage) bool { return i.Runner == was.ID }) {
		p.hold(BlamedFor, was.Jobs == 0 && was.Job.StartedAt.IsZero(), "image %s is refused for runner %s, which had jobs", was.Launch.Image, was.ID)
	}
}

// sawTold looks at the request that launched a runner which came into use by a
// commit of who asked GitHub.
func (p wordPromises) sawTold(part string, r store.Runner) {
	q := p.requests[r.Request]
	if part == kernel.API || q.Version == 0 || q.OfJob() {
		return // the machine says that it has a job
	}
	p.hold(Told, q.State != store.Waiting || q.Runner != r.ID || r.OnlineAt.After(q.GiveUpAt), "runner %s is online, and request %s waits for it", r.ID, q.ID)
}

// sawIntents looks at the runners that a commit adds.
func (p wordPromises) sawIntents(c commit) {
	for _, i := range c.items {
		if r, ok := i.(*store.Runner); ok && r.Version == 1 {
			p.hold(NotAgain, !p.confirmations.blamed[r.Launch.Image], "runner %s is launched with image %s, which GitHub refused", r.ID, r.Launch.Image)
		}
	}
}

// sawOnline looks at a runner that comes into use.
func (p wordPromises) sawOnline(was, r store.Runner) {
	if !begins(was.OnlineAt, r.OnlineAt) {
		return
	}
	_, shown := p.confirmations.shown[r.Config.RunnerID]
	gave := slices.ContainsFunc(p.jobs(), func(j simgithub.Job) bool { return setting.RunnerIn(j.RunnerName) == r.ID && !j.StartedAt.IsZero() })
	p.hold(Proved, shown || gave || p.confirmations.lied[r.ID], "runner %s counts as online, and GitHub neither showed it so nor gave it a job", r.ID)
}

// sawConfirmed looks at a request that is given a live runner which others use.
func (p wordPromises) sawConfirmed(c commit, r store.Request, run store.Runner) {
	now := time.Now()
	fresh := p.Limits.Confirmed + slack + c.before
	shown := p.confirmations.shown[run.Config.RunnerID]
	p.hold(Fresh, now.Sub(shown) <= fresh, "request %s is given runner %s, which GitHub last showed online %s before", r.ID, run.ID, now.Sub(shown))
	p.hold(UsedUp, serves(run), "request %s is given runner %s, whose config %d is used up", r.ID, run.ID, run.Config.N)
	if since := p.confirmations.counted[run.ID]; jobRuns(run) {
		delete(p.confirmations.counted, run.ID) // the request's job queues behind it
	} else if !since.IsZero() {
		p.hold(InVain, now.Sub(since) <= p.Limits.Idle+slack+c.before, "request %s is given runner %s, to which no job came since %s", r.ID, run.ID, since)
	} else {
		p.confirmations.counted[run.ID] = now
	}
	var gone time.Time
	for _, g := range p.GitHub.Minted() {
		if g.ID == run.Config.RunnerID {
			gone = g.RemovedAt
		}
	}
	p.hold(NoGhost, gone.IsZero() || now.Sub(gone) <= fresh, "request %s is given runner %s, which GitHub forgot %s before", r.ID, run.ID, now.Sub(gone))
}

// serves reports whether a job can still come to a runner by its newest config: the
// one that its machine wants, which no job used up, and whose name may be at GitHub.
func serves(r store.Runner) bool {
	named := slices.ContainsFunc(r.Names, func(g store.GitHubName) bool { return g.N == r.Config.N })
	return named && r.Config.RunnerID != 0 && !r.Config.Used && r.Config.N >= r.Wanted
}

// sawNames looks at the names that are written in a record.
func (p wordPromises) sawNames(r store.Runner) {
	n := 0
	for _, g := range r.Names {
		if g.RunnerID == 0 {
			n++
		}
	}
	p.hold(FewNames, n <= store.MaxNames+1, "runner %s has %d names of which nobody knows whether they are registered", r.ID, n)
}
