package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// coded are the rules of the package, asked about records that a state of the model stands
// for.
type coded struct {
	t     *testing.T
	plain [modelJobs]store.Request // as each is accepted
}

func newCoded(t *testing.T) coded {
	c := coded{t: t}
	for j := range c.plain {
		c.plain[j] = plain(fmt.Sprint("r", j+1), fmt.Sprint(21+j))
	}
	return c
}

var modelNow = at(time.Hour)

// request is the record of job j.
func (c coded) request(s modelState, j int) store.Request {
	a := s.J[j]
	if a.R == rNone {
		return store.Request{}
	}
	r := c.plain[j]
	switch a.R {
	case rWaiting:
		r.State = store.Waiting
	case rReady:
		r.State, r.Job.CompletedAt = store.Ready, modelNow
	case rOver:
		r.State = store.Cancelled
	}
	if a.Runner != 0 {
		r.Runner = fmt.Sprint("x", a.Runner)
	}
	if a.Flags&isHeld != 0 {
		r.Wait, r.DueAt = store.WaitHeld, modelNow.Add(time.Minute)
	}
	return r
}

// runner is the record of machine m, which was online for long enough if it was at all.
func (c coded) runner(s modelState, m int) store.Runner {
	k := s.M[m]
	r := store.Runner{
		Meta: store.Meta{Version: 1}, ID: fmt.Sprint("x", m+1), State: store.RunnerLaunched, For: fmt.Sprint("r", k.For), Account: "123456789012", Region: "eu-west-2",
		Labels: []string{"garo"}, Hard: modelNow.Add(5 * time.Hour), Config: store.Config{N: 1, RunnerID: int64(900 + m)},
	}
	if k.T != tBoots {
		r.State, r.Boot.At, r.OnlineAt = store.RunnerOnline, at(time.Minute), at(time.Minute)
	}
	if k.T == tBusy {
		r.State, r.Job.StartedAt = store.RunnerBusy, at(2*time.Minute)
	}
	switch k.Rec {
	case mDraining:
		r.State = store.RunnerDraining
	case mDeregistered:
		r.State, r.DeregisteredAt = store.RunnerDraining, modelNow
	case mEnded:
		r.State = store.RunnerEnded
	}
	if k.Took != 0 {
		r.Took = store.Took{Job: fmt.Sprint(20 + k.Took), Request: fmt.Sprint("r", k.Took)}
	}
	return r
}

// took writes what a decision says of the request of job j back into the state.
func (c coded) took(s modelState, j int, d store.Decision) modelState {
	states := map[store.RequestState]uint8{"": rNone, store.Accepted: rAccepted, store.Waiting: rWaiting, store.Ready: rReady, store.Cancelled: rOver}
	a := &s.J[j]
	to, ok := states[d.Request.State]
	if !ok {
		c.t.Fatalf("request of job %d is %s", j, d.Request.State)
	}
	was := *a
	a.R, a.Runner = to, 0
	if to == rWaiting || to == rReady { // else the record tells people whom it had
		fmt.Sscanf(d.Request.Runner, "x%d", &a.Runner)
	}
	a.Flags &^= isHeld
	if d.Request.State == store.Accepted && d.Request.Wait == store.WaitHeld {
		a.Flags |= isHeld
	}
	if was.R != a.R || was.Flags&isHeld == 0 && a.Flags&isHeld != 0 {
		a.Flags &^= wasRead // a commit by what was read before loses
	}
	return s
}

func (c coded) hear(s modelState, j int, webhook, nameless bool) modelState {
	a := s.J[j]
	if a.G == gRuns || a.G == gDone {
		if a.On == 0 {
			return s
		}
	}
	statuses := map[uint8]store.JobStatus{gQueued: store.JobQueued, gWaits: store.JobWaiting, gRuns: store.JobInProgress, gElsewhere: store.JobInProgress,
		gNever: store.JobCompleted, gDone: store.JobCompleted, gDoneElsewhere: store.JobCompleted}
	seen := store.Sighting{Job: store.WorkflowJob{ID: fmt.Sprint(21 + j), RunID: "1001", Conclusion: "cancelled"}, Status: statuses[a.G], Read: !webhook}
	cs := store.Case{Request: c.request(s, j)}
	if cs.Request.ID == "" { // made, since an offer fits
		cs.Request = c.plain[j]
		cs.Request.Version = 0
	}
	on := false
	if !nameless || !webhook {
		switch a.G {
		case gRuns, gDone:
			cs.Runner = c.runner(s, int(a.On)-1)
			seen.Runner, seen.Registration, on = store.GitHubNameFor("test", cs.Runner.ID, 1), cs.Runner.Config.RunnerID, true
		case gElsewhere, gDoneElsewhere:
			seen.Runner, seen.Registration = "hers", 3
		}
	}
	if on && !seen.Proves("test", cs.Runner) {
		c.t.Fatalf("nothing proves that the job is on %s", cs.Runner.ID)
	}
	d, heard := store.Heard(cs, modelNow, lim, seen, on)
	switch {
	case heard == store.HeardUnsure:
		return c.hear(s, j, false, false)
	case s.J[j].R == rNone && !on:
		return s // who hears of a job that is none of ours makes nothing
	}
	if on {
		s.M[a.On-1].Took = 0
		fmt.Sscanf(d.Runner.Took.Request, "r%d", &s.M[a.On-1].Took)
	}
	return c.took(s, j, d)
}

func (c coded) settle(s modelState, j int) modelState {
	if s.J[j].R != rWaiting {
		return s
	}
	cs := store.Case{Request: c.request(s, j), Runner: c.runner(s, int(s.J[j].Runner)-1)}
	return c.took(s, j, cs.Settle(modelNow, lim))
}

func (c coded) give(s modelState, j, m int) (modelState, bool) {
	if s.J[j].R == rNone || s.M[m].Rec == mNone || s.M[m].T == tOver { // nobody knows yet that it is over
		return s, false
	}
	was := s.M[m].For
	d, ok := store.GiveSpare(store.Case{Request: c.request(s, j), Runner: c.runner(s, m)}, modelNow, lim, c.request(s, int(was)-1))
	if !ok {
		return s, false
	}
	fmt.Sscanf(d.Runner.For, "r%d", &s.M[m].For)
	return c.took(s, j, d), true
}

func (c coded) launch(s modelState, j, m int) modelState {
	r := c.request(s, j)
	d := store.Case{Request: r, Lock: store.Lock{Key: r.LockKey()}, Quota: store.Quota{Account: r.Account}}.Begin(modelNow, lim, func() store.Intent {
		in := intent()
		in.Runner = fmt.Sprint("x", m+1)
		return in
	}())
	if d.Wait.For != "" || d.Runner.For != r.ID || d.Runner.Lock != r.LockKey() {
		c.t.Fatalf("Begin waits for %q: the runner is for %q by %q", d.Wait.For, d.Runner.For, d.Runner.Lock)
	}
	s.M[m] = modelMachine{T: tBoots, Rec: mLive, For: uint8(j + 1)}
	return c.took(s, j, d)
}

func (c coded) orphan(s modelState, m int) bool {
	if s.M[m].T == tOver {
		return false
	}
	run := c.runner(s, m)
	l := store.Lock{Key: "k", State: store.LockLive, Runner: run.ID, Exp: modelNow.Add(time.Hour), BootBy: modelNow.Add(time.Minute)}
	return store.DrainReason(modelNow, lim, run, l, store.Pulse{Runner: run.ID, Seen: modelNow}, c.request(s, int(s.M[m].For)-1)) == store.EndUnwanted
}

// In every state that the model can reach, the rules decide as the model has it: so what
// holds of the model holds of them. And from each of them fair steps alone lead to where
// all jobs are over and all machines ended.
func TestRulesAreTheModels(t *testing.T) {
	code := newCoded(t)
	for _, max := range []faults{{Nameless: 1}, {Lag: 1}} {
		states, ids := []modelState{{}}, map[modelState]int{{}: 0}
		var back [][]int // by state, those that reach it by a fair step
		back = append(back, nil)
		for i := 0; i < len(states); i++ {
			model := nextOf(states[i], max, modelled{})
			agree(t, states[i], model, nextOf(states[i], max, code))
			for _, n := range model {
				id, known := ids[n.to]
				if !known {
					id = len(states)
					ids[n.to] = id
					states, back = append(states, n.to), append(back, nil)
				}
				if n.fair {
					back[id] = append(back[id], i)
				}
			}
		}
		t.Logf("faults %+v: %d states", max, len(states))
		if stuck, n := stuckIn(states, back); n > 0 {
			t.Errorf("faults %+v: from %d states nothing leads to the end, such as %+v", max, n, stuck)
		}
	}
}

// agree checks that two have the same steps.
func agree(t *testing.T, s modelState, model, code []modelStep) {
	t.Helper()
	if len(model) != len(code) {
		t.Fatalf("in %+v the model has %d steps, and the rules %d:\n%v\n%v", s, len(model), len(code), model, code)
	}
	for i, m := range model {
		if m != code[i] {
			t.Fatalf("in %+v, by %q, the model has\n%+v, and the rules by %q\n%+v", s, m.what, m.to, code[i].what, code[i].to)
		}
	}
}

// stuckIn returns how many states reach no good end by fair steps, and one of them.
func stuckIn(states []modelState, back [][]int) (stuck modelState, n int) {
	can := make([]bool, len(states))
	var queue []int
	for i, s := range states {
		if over(s) {
			can[i] = true
			queue = append(queue, i)
		}
	}
	for len(queue) > 0 {
		x := queue[0]
		queue = queue[1:]
		for _, y := range back[x] {
			if !can[y] {
				can[y] = true
				queue = append(queue, y)
			}
		}
	}
	for i, s := range states {
		if !can[i] {
			stuck, n = s, n+1
		}
	}
	return stuck, n
}

// over reports whether all jobs are over, all was said, and all machines ended.
func over(s modelState) bool {
	for _, a := range s.J {
		if a.G == gQueued || a.G == gRuns || a.G == gElsewhere || a.G == gWaits || a.Flags&(evQueued|evBegan|evDone) != 0 || a.R == rAccepted || a.R == rWaiting {
			return false
		}
	}
	for _, k := range s.M {
		if k.Rec != mNone && k.Rec != mEnded {
			return false
		}
	}
	return true
}
