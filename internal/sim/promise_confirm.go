package sim

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
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
	InVain    Promise = "a runner to which no job comes is shared for no longer than one may idle"
	UsedUp    Promise = "no runner is shared between two of its configs"
	JobSpared Promise = "no machine is terminated with a job that it reported"
	NotAgain  Promise = "no image is launched whose runner program GitHub refused before any job"
	BlamedFor Promise = "an image is refused for what a machine says before its first job"
	LastOne   Promise = "a machine whose runner program GitHub refused gets no further config"
	Seldom    Promise = "GitHub is not asked before its time to delete what it calls busy"
	Told      Promise = "who launched a runner is ready with the commit that says that it is online"
	Served    Promise = "what is queued for a runner is served beyond the time that was asked for"
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
	stopped map[string]time.Time // when a person stopped a machine, by its id
}

func newConfirmations() confirmations {
	return confirmations{shown: map[int64]time.Time{}, lied: map[string]bool{},
		refused: map[string]time.Time{}, blamed: map[string]bool{}, busy: map[string]bool{}, counted: map[string]time.Time{}, stopped: map[string]time.Time{}}
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

// refuses notes that GitHub refused the program of a runner. It takes a time of its
// own, since GitHub refuses all programs at once. A program that ends meanwhile for
// another reason, such as the end of its job, never hears of it.
func (w *World) refuses(ctx context.Context, runner string, err error) {
	if !errors.Is(err, simfleet.ErrTooOld) {
		return
	}
	t := time.NewTimer(time.Duration(hash64(w.cfg.Seed, "refused", runner)%499_979)*time.Microsecond + 1)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return
	case <-t.C:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watch.confirmations.refused[runner].IsZero() {
		w.watch.confirmations.refused[runner] = time.Now()
	}
}

// sawRefused looks at a runner that drains since GitHub refused its program.
func (w *World) sawRefused(was, r store.Runner) {
	if was.End == nil && r.End != nil && r.End.Code == store.EndTooOld && was.Job.StartedAt.IsZero() && was.Jobs == 0 {
		w.watch.confirmations.blamed[r.Launch.Image] = true
	}
	at, refused := w.watch.confirmations.refused[r.ID]
	if r.Wanted > was.Wanted && was.Version != 0 {
		w.hold(LastOne, !refused || time.Since(at) < time.Minute, "runner %s asks for config %d, and GitHub refused its program at %s", r.ID, r.Wanted, at)
	}
}

// sawBlame looks at an image that is refused by the commit of a runner, as it was.
func (w *World) sawBlame(was store.Runner, q store.Quota) {
	if was.State.Usable() && slices.ContainsFunc(q.TooOld, func(i store.TooOldImage) bool { return i.Runner == was.ID }) {
		w.hold(BlamedFor, was.Jobs == 0 && was.Job.StartedAt.IsZero(), "image %s is refused for runner %s, which had jobs", was.Launch.Image, was.ID)
	}
}

// sawTold looks at the request that launched a runner which came into use by a
// commit of who asked GitHub.
func (w *World) sawTold(part string, r store.Runner) {
	q := w.watch.requests[r.Request]
	if part == API || q.Version == 0 {
		return // the machine says that it has a job
	}
	w.hold(Told, q.State != store.Waiting || q.Runner != r.ID || r.OnlineAt.After(q.GiveUpAt), "runner %s is online, and request %s waits for it", r.ID, q.ID)
}

// sawIntent looks at a new runner.
func (w *World) sawIntent(r store.Runner) {
	w.hold(NotAgain, !w.watch.confirmations.blamed[r.Launch.Image], "runner %s is launched with image %s, which GitHub refused", r.ID, r.Launch.Image)
}

// jobRuns reports whether a machine reported a job, and not its end.
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
	if since := w.watch.confirmations.counted[run.ID]; jobRuns(run) {
		delete(w.watch.confirmations.counted, run.ID) // the request's job queues behind it
	} else if !since.IsZero() {
		w.hold(InVain, now.Sub(since) <= w.Limits.Idle+slack+before, "request %s is given runner %s, to which no job came since %s", r.ID, run.ID, since)
	} else {
		w.watch.confirmations.counted[run.ID] = now
	}
	gone := o.removed[run.Config.RunnerID]
	w.hold(NoGhost, gone.IsZero() || now.Sub(gone) <= fresh, "request %s is given runner %s, which GitHub forgot %s before", r.ID, run.ID, now.Sub(gone))
}
