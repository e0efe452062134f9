package sim

import (
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/githubtest"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about what GitHub says of runners.
const (
	Proved    Promise = "a runner is online when GitHub showed it so, or gave it a job"
	ReadyAt   Promise = "a request is ready from when its runner was online"
	Fresh     Promise = "a live runner is shared while GitHub's word about it is fresh"
	NoGhost   Promise = "nobody is given a runner that GitHub forgot two minutes before"
	UsedUp    Promise = "no runner is shared between two of its configs"
	JobSpared Promise = "no machine is terminated with a job that it told of"
	NotAgain  Promise = "no image is launched whose runner program GitHub refused before any job"
	Served    Promise = "what is queued for a runner is served beyond the time that was asked for"
)

// confirmations is what a world knows of GitHub's word.
type confirmations struct {
	shown  map[int64]time.Time // when GitHub last showed a registration online to somebody
	ghosts map[int64]bool      // the registrations whose program does not learn that they are gone
	lied   map[string]bool     // the runners of which a machine told what is not so
}

func newConfirmations() confirmations {
	return confirmations{shown: map[int64]time.Time{}, ghosts: map[int64]bool{}, lied: map[string]bool{}}
}

// shows notes what GitHub showed.
func (w *World) shows(r github.Runner, err error) {
	if err != nil || !r.Online {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch.confirmations.shown[r.ID] = time.Now()
}

// sawIntent looks at a new runner: q is its account's quota, as the same commit has it.
func (w *World) sawIntent(r store.Runner, q store.Quota) {
	_, refused := q.Refuses(r.Launch.Image, "")
	w.hold(NotAgain, !refused, "runner %s is launched with image %s, which GitHub refused", r.ID, r.Launch.Image)
}

// jobRuns reports whether a machine told of a job, and not of its end.
func jobRuns(r store.Runner) bool { return !r.Job.StartedAt.IsZero() && r.Job.EndedAt.IsZero() }

// sawOnline looks at a runner that comes into use.
func (w *World) sawOnline(o outside, was, r store.Runner) {
	if !was.OnlineAt.IsZero() || r.OnlineAt.IsZero() {
		return
	}
	_, shown := w.watch.confirmations.shown[r.Config.RunnerID]
	gave := slices.ContainsFunc(o.jobs, func(j githubtest.Job) bool { return runnerIn(j.RunnerName) == r.ID && !j.StartedAt.IsZero() })
	w.hold(Proved, shown || gave || w.watch.confirmations.lied[r.ID], "runner %s counts as online, and GitHub neither showed it so nor gave it a job", r.ID)
}

// sawConfirmed looks at a request that is given a live runner which others use. l is
// its lock as it was, and before for how long at most who gave it stood still.
func (w *World) sawConfirmed(o outside, r store.Request, run store.Runner, l store.Lock, before time.Duration) {
	now := time.Now()
	fresh := w.Limits.Confirmed + slack + before
	shown := w.watch.confirmations.shown[run.Config.RunnerID]
	w.hold(Fresh, now.Sub(shown) <= fresh, "request %s is given runner %s, which GitHub last showed online %s before", r.ID, run.ID, now.Sub(shown))
	w.hold(UsedUp, run.Registered(), "request %s is given runner %s, whose config %d is used up", r.ID, run.ID, run.Config.N)
	gone := o.removed[run.Config.RunnerID]
	w.hold(NoGhost, gone.IsZero() || now.Sub(gone) <= fresh, "request %s is given runner %s, which GitHub forgot %s before", r.ID, run.ID, now.Sub(gone))
}
