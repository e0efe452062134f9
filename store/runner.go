package store

import (
	"fmt"
	"slices"
	"time"
)

// RunnerState is where a machine stands.
type RunnerState string

// The states of a runner, in the order of its life. Online and Busy alternate.
// RunnerFailed and RunnerEnded are final.
const (
	RunnerNew      RunnerState = "new"      // intended; RunInstances has not answered
	RunnerLaunched RunnerState = "launched" // EC2 gave an instance id
	RunnerBooting  RunnerState = "booting"  // the machine has its config
	RunnerOnline   RunnerState = "online"   // GitHub said that it can give it a job
	RunnerBusy     RunnerState = "busy"     // it runs a job
	RunnerDraining RunnerState = "draining" // nothing new is to happen on it
	RunnerEnding   RunnerState = "ending"   // it is being terminated
	RunnerEnded    RunnerState = "ended"
	RunnerFailed   RunnerState = "failed" // it never came to an instance
)

// RunnerStates lists every state.
var RunnerStates = []RunnerState{RunnerNew, RunnerLaunched, RunnerBooting, RunnerOnline, RunnerBusy,
	RunnerDraining, RunnerEnding, RunnerEnded, RunnerFailed}

// Final reports whether nothing ever follows s.
func (s RunnerState) Final() bool { return s == RunnerEnded || s == RunnerFailed }

// Usable reports whether s comes before draining: the runner has, or may come
// to have, a job.
func (s RunnerState) Usable() bool {
	switch s {
	case RunnerNew, RunnerLaunched, RunnerBooting, RunnerOnline, RunnerBusy:
		return true
	}
	return false
}

// Placement is one way to buy the machine.
type Placement struct {
	Market       string `json:"market"` // Spot or OnDemand
	InstanceType string `json:"instance_type"`
	Subnet       string `json:"subnet"`
}

func (p Placement) String() string { return p.Market + " " + p.InstanceType + " in " + p.Subnet }

// Launch is what is frozen at the intent, so that whoever repeats the call
// repeats it to the byte, as a client token demands. User data is rendered from
// the runner's id, its index and these ingredients.
type Launch struct {
	Image           string            `json:"image"` // an AMI id
	SecurityGroups  []string          `json:"security_groups"`
	InstanceProfile string            `json:"instance_profile,omitempty"`
	Tags            map[string]string `json:"tags"`
	Script          int               `json:"script"`       // version of the user data script
	APIURL          string            `json:"api_url"`      // where the machine calls
	AgentSHA256     map[string]string `json:"agent_sha256"` // by architecture
	HardS           int               `json:"hard_s"`       // seconds until the machine's own timer
	KeyID           string            `json:"key_id"`       // the key that the machine's tokens come from
}

// Attempt is one RunInstances call that had an answer.
type Attempt struct {
	Placement
	Runner string    `json:"runner"`
	At     time.Time `json:"at"`
	Code   string    `json:"code"` // "launched", or EC2's error code
	// Text is why EC2 refuses this placement, whatever its capacity, in EC2's words.
	// Empty: it launched, it had no capacity, or a later attempt says more.
	Text string `json:"text,omitempty"`
}

// Said is what EC2 answered last, at one index, that does not tell whether it
// launched.
type Said struct {
	Code  string `json:"code,omitempty"`  // EC2's error code; empty: nothing
	Text  string `json:"text,omitempty"`  // in EC2's words
	Times int    `json:"times,omitempty"` // how often in a row it had that code
}

// Claim is the right to call EC2 and GitHub for a runner. It outlives its
// holder's invocation, since a call of a killed worker may still be open. One
// that was given back names nobody; one that lapsed still names its holder.
type Claim struct {
	By    string    `json:"by,omitempty"`
	Until time.Time `json:"until"`
}

// GitHubName is a runner name that was, or is about to be, registered.
type GitHubName struct {
	N    int    `json:"n"` // the number of the config that it belongs to
	Name string `json:"name"`
	// RunnerID is GitHub's id for it. Zero: no answer is known.
	RunnerID int64 `json:"runner_id,omitempty"`
}

// MaxNames bounds the names of a runner whose registration nobody knows the outcome
// of, the next one included. Seven calls without an answer, with pauses that
// double, span some five minutes, about a boot limit; and a record of eight names
// is as small as any other.
const MaxNames = 8

// Unminted is why GitHub has registered nothing yet for the config that is wanted.
type Unminted struct {
	Code  string `json:"code"`  // what the runner ends with if it stays so until boot_by
	Text  string `json:"text"`  // what GitHub answered last, as a sentence
	Tries int    `json:"tries"` // how many registrations in a row had such an answer
}

// Config is the newest one-job configuration.
type Config struct {
	// N is its number. Zero: there is none yet. Numbers rise and may skip.
	N int `json:"n"`
	// Sealed is the config itself, encrypted for the control plane. Empty once the
	// runner drains: N and RunnerID stay, since its end needs them.
	Sealed string `json:"sealed,omitempty"`
	// RunnerID is GitHub's id of the registration.
	RunnerID int64 `json:"runner_id,omitempty"`
	// Used: its one job is done, or the machine asked for another config.
	Used bool `json:"used,omitempty"`
}

// Boot is what the machine's first calls bound.
type Boot struct {
	NonceHash  string `json:"nonce_hash,omitempty"`  // SHA-256, hex
	InstanceID string `json:"instance_id,omitempty"` // as the machine claims it
	// At is when the config was answered first. Zero: never, so that whatever
	// runs there has no credential.
	At time.Time `json:"at,omitzero"`
}

// Job is the last job seen on the machine.
type Job struct {
	RunID     string    `json:"run_id,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
}

// Runner is one machine, from the intent to launch it to its end.
type Runner struct {
	Meta
	ID         string      `json:"id"`
	State      RunnerState `json:"state"`
	CreatedAt  time.Time   `json:"created_at"`
	Lock       string      `json:"lock"`    // the key of the lock that names it, or did
	Request    string      `json:"request"` // the request that launched it
	Trace      string      `json:"trace"`
	Repository Repository  `json:"repository"`
	RunID      string      `json:"run_id,omitempty"` // the run that the launching request came from
	Account    string      `json:"account"`
	Region     string      `json:"region"`
	Mode       string      `json:"mode"`
	Labels     []string    `json:"labels"` // what it registers with: the own label first

	Plan   []Placement `json:"plan"`
	Index  int         `json:"index"` // the placement being tried, or launched
	Launch Launch      `json:"launch"`
	// CalledAt is the slot of the last RunInstances call.
	CalledAt time.Time `json:"called_at"`
	// Unclear: a call at this index had no answer that tells whether it launched.
	Unclear  bool      `json:"unclear,omitempty"`
	Said     Said      `json:"said,omitzero"`
	Attempts []Attempt `json:"attempts,omitempty"`
	Claim    Claim     `json:"claim,omitzero"`
	// Wait and WaitUntil say what the next step waits for.
	Wait       string       `json:"wait,omitempty"`
	WaitUntil  time.Time    `json:"wait_until,omitzero"`
	InstanceID string       `json:"instance_id,omitempty"`
	Names      []GitHubName `json:"names"`
	Config     Config       `json:"config"`
	// Unminted is nil when there is a config, or none was tried for.
	Unminted *Unminted `json:"unminted,omitempty"`
	Wanted   int       `json:"wanted"` // the config number that the machine asks for
	Boot     Boot      `json:"boot,omitzero"`
	// Counter is the number of the last event that was taken.
	Counter int64 `json:"counter,omitempty"`

	LaunchedAt time.Time `json:"launched_at,omitzero"`
	// ListeningAt is when the machine said that the runner program of the current
	// config listens for jobs. That is the machine's word alone: the program says so
	// before GitHub has answered it. Zero: it said nothing, or the config is used up.
	ListeningAt time.Time `json:"listening_at,omitzero"`
	// OnlineAt is when it was first known that jobs can come to the runner: GitHub
	// showed it online, or had given it a job.
	OnlineAt time.Time `json:"online_at,omitzero"`
	// MissedAt is when GitHub first did not show the current registration online.
	// Zero: it has not been missed since GitHub showed it last.
	MissedAt time.Time `json:"missed_at,omitzero"`
	Job      Job       `json:"job,omitzero"`
	Jobs     int       `json:"jobs"`             // how many jobs it finished
	Stolen   string    `json:"stolen,omitempty"` // the run id of a job that came from another run than the launching request's

	// Hard is when it must end, whatever runs on it. It never changes.
	Hard time.Time `json:"hard"`
	// End says why it drains, ended or failed.
	End        *Failure  `json:"end,omitempty"`
	DrainingAt time.Time `json:"draining_at,omitzero"`
	// DeletedAt is when GitHub was first asked to delete the registration;
	// DeregisteredAt is when it was gone.
	DeletedAt      time.Time `json:"deleted_at,omitzero"`
	DeregisteredAt time.Time `json:"deregistered_at,omitzero"`
	// Refusals is how often GitHub refused to delete it, for a job that runs, since
	// the machine last said that none does. DeleteAfter is when it is asked again.
	Refusals    int       `json:"refusals,omitempty"`
	DeleteAfter time.Time `json:"delete_after,omitzero"`
	// SuspectAt is when a person was alarmed that the end waits for too long.
	SuspectAt time.Time `json:"suspect_at,omitzero"`
	// IdleAt is when the machine said, while draining, that no job runs. It counts
	// once the registration is gone: before, GitHub may still hand one out.
	IdleAt       time.Time `json:"idle_at,omitzero"`
	EndingAt     time.Time `json:"ending_at,omitzero"`
	TerminatedAt time.Time `json:"terminated_at,omitzero"` // the last TerminateInstances call
	MissingAt    time.Time `json:"missing_at,omitzero"`    // when EC2 first did not find it
	EndedAt      time.Time `json:"ended_at,omitzero"`
	History      History   `json:"history"`
}

// Ref implements Item.
func (r *Runner) Ref() Ref { return Ref{KindRunner, r.ID} }

func (r *Runner) name(id string) { r.ID = id }

// Placement returns the placement being tried, or launched.
func (r Runner) Placement() Placement { return r.Plan[r.Index] }

// ClientToken is what makes RunInstances idempotent. It names the runner and the
// index and nothing that a successor would change: a resumed launch must carry
// the token of the one that it resumes, or it would launch twice.
func (r Runner) ClientToken() string { return fmt.Sprintf("garo-%s-%d", r.ID, r.Index) }

// GitHubNameFor returns the name for registration n. GitHub takes 64
// characters; the control plane's name has at most 16 of them.
func GitHubNameFor(controlPlane, runner string, n int) string {
	return fmt.Sprintf("garo-%s-%s-%d", controlPlane, runner, n)
}

// NextName returns the name that the wanted config is to be registered under.
// It is false when that must be written ahead first.
func (r Runner) NextName() (GitHubName, bool) {
	if len(r.Names) == 0 || r.Names[len(r.Names)-1].N <= r.Config.N {
		return GitHubName{}, false
	}
	return r.Names[len(r.Names)-1], true
}

// enter moves r to another state.
func (r Runner) enter(now time.Time, state RunnerState, reason string) Runner {
	r.State = state
	r.History = r.History.with(now, string(state), reason)
	return r
}

// note adds to r's story without a change of state.
func (r Runner) note(now time.Time, reason string) Runner {
	r.History = r.History.with(now, string(r.State), reason)
	return r
}

// Held reports whether another invocation may have a call open for r.
func (r Runner) Held(now time.Time, by string) bool {
	return r.Claim.By != "" && r.Claim.By != by && now.Before(r.Claim.Until)
}

// Release gives back the claim of a runner that is not over: its holder has no call
// open any more. It needs the runner.
func (c Case) Release(now time.Time) Decision {
	return c.decide(func(d *Decision) {
		if !d.Runner.State.Final() {
			d.Runner = d.Runner.release(now)
		}
	})
}

func (r Runner) release(now time.Time) Runner {
	r.Claim = Claim{Until: now}
	return r
}

// writeAhead adds the name that the next registration will use. A name that may
// have been used is never used again, because minting is not idempotent.
func (r Runner) writeAhead(controlPlane string) Runner {
	n := max(r.Config.N+1, r.Wanted)
	if last, ok := r.NextName(); ok {
		n = max(n, last.N+1)
	}
	r.Names = append(slices.Clip(slices.Clone(r.Names)), GitHubName{N: n, Name: GitHubNameFor(controlPlane, r.ID, n)})
	return r
}

// Configure records the config that was registered under the last name, if that has
// number n, and gives the claim back. Only a runner before draining takes a config: what
// is registered for any other, the reaper deletes. It needs the runner.
func (c Case) Configure(now time.Time, n int, sealed string, runnerID int64) Decision {
	return c.decide(func(d *Decision) {
		r := &d.Runner
		if name, ok := r.NextName(); !ok || name.N != n || !r.State.Usable() {
			return
		}
		r.Names = slices.Clone(r.Names)
		r.Names[len(r.Names)-1].RunnerID = runnerID
		r.Config = Config{N: n, Sealed: sealed, RunnerID: runnerID}
		r.Wait, r.WaitUntil, r.Unminted = "", time.Time{}, nil
		r.ListeningAt, r.MissedAt = time.Time{}, time.Time{}
		*r = r.note(now, fmt.Sprintf("registered at GitHub: config %d", n)).release(now)
	})
}

// Pause is why a worker leaves a runner for a while.
type Pause struct {
	Wait Wait
	// By holds the claim.
	By string
	// Said is what EC2 answered last, if that does not tell whether it launched.
	Said Said
	// Code and Text are why GitHub registered nothing, as Unregistered takes them.
	Code, Text string
}

// Pause gives the claim on a usable runner back until its next step may be tried, and
// has a worker go on then. It needs the runner.
func (c Case) Pause(now time.Time, p Pause) Decision {
	return c.decide(func(d *Decision) {
		r := &d.Runner
		if r.Claim.By != p.By {
			if r.Wait == p.Wait.For && r.WaitUntil.Equal(p.Wait.Until) {
				d.send(r, p.Wait.Until) // this was committed, and the answer lost
			}
			return
		}
		if !r.State.Usable() {
			return
		}
		r.Unclear = r.Unclear || p.Wait.For == WaitEC2
		if p.Said.Code != "" {
			*r = r.Hear(p.Said.Code, p.Said.Text)
		}
		if r.Wait != p.Wait.For {
			*r = r.note(now, "waits: "+p.Wait.For)
		}
		r.Wait, r.WaitUntil = p.Wait.For, p.Wait.Until
		*r = r.release(now)
		if p.Code != "" {
			*r = r.Unregistered(now, p.Code, p.Text)
		}
		d.send(r, p.Wait.Until)
	})
}

// SpendName records why GitHub did not register name n, and writes the next one ahead.
// It needs the runner.
func (c Case) SpendName(now time.Time, n int, code, text, controlPlane string) Decision {
	return c.decide(func(d *Decision) {
		r := &d.Runner
		if last, ok := r.NextName(); !r.State.Usable() || ok && last.N > n {
			return
		}
		*r = r.Unregistered(now, code, text).writeAhead(controlPlane)
	})
}

// Unregistrable drains a runner that GitHub will never register, and lets the request
// that launched it learn of that. It needs the runner, its lock and that request.
func (c Case) Unregistrable(now time.Time, lim Limits, text string) Decision {
	return c.decide(func(d *Decision) {
		if d.Runner.State.Usable() {
			d.Runner = d.Runner.release(now)
			d.drain(now, Failure{Code: EndMintDenied, Text: text})
			d.settle(now, lim)
		}
	})
}

// ReviewRunner drains a usable runner that has to, and else has a worker go on with one
// that seems to be forgotten: a step is outstanding and no worker is at it. The claim is
// free, the time to wait is over, and nobody wrote the runner for a while. It needs all
// but the quota.
//
// The request that nobody wants, the limits and a lock that names another runner cannot
// be otherwise a moment later; a share is excluded by the lock's version, and a
// heartbeat by the pulse's.
func (c Case) ReviewRunner(now time.Time, lim Limits) Decision {
	return c.decide(func(d *Decision) {
		r := &d.Runner
		if why := DrainReason(now, lim, *r, d.Lock, d.Pulse, d.Request); why != "" {
			d.drain(now, NewEnd(why))
			switch why {
			case EndLost:
				d.check(KindPulse)
			case EndCompromised:
				d.Alarm = AlarmCompromised
			}
			return
		}
		step := NextStep(now, *r, d.Lock) // StepConfirm is the reaper's too: the worker's message comes again by itself
		if step != StepNone && step != StepConfirm && !r.Held(now, "") &&
			now.Sub(r.WaitUntil) >= lim.Resend && now.Sub(r.UpdatedAt) >= lim.Resend {
			d.send(r, now)
		}
	})
}

// Remind has a worker ask GitHub about a runner that waits to come into use and that
// nobody has asked about. It needs the runner.
func (c Case) Remind(now time.Time) Decision {
	return c.decide(func(d *Decision) {
		if d.Runner.OnlineAt.IsZero() && d.Runner.MissedAt.IsZero() {
			d.send(&d.Runner, now)
		}
	})
}

// Adopt records the instance that a launch left unrecorded, and has a worker go on with
// the runner. It needs the runner.
func (c Case) Adopt(now time.Time, instance string) Decision {
	return c.decide(func(d *Decision) {
		d.Runner, _ = launched(now, d.Runner, instance)
		if NextStep(now, d.Runner, Lock{}) != StepNone { // with an instance, the lock has no say
			d.send(&d.Runner, now)
		}
	})
}

// Unregistered records why a registration came to nothing: in the story once, however
// often the same is said.
func (r Runner) Unregistered(now time.Time, code, text string) Runner {
	tries := 1
	if r.Unminted != nil && r.Unminted.Code == code {
		tries += r.Unminted.Tries
	}
	if r.Unminted == nil || r.Unminted.Code != code || r.Unminted.Text != text {
		r = r.note(now, "not registered at GitHub: "+text)
	}
	r.Unminted = &Unminted{Code: code, Text: text, Tries: tries}
	return r
}

// Crowded reports whether r has MaxNames names without a known outcome. The next
// one is not registered then, until the reaper has asked GitHub about the others:
// so it stays one that was never used.
func (r Runner) Crowded() bool {
	n := 0
	for _, g := range r.Names {
		if g.RunnerID == 0 {
			n++
		}
	}
	return n >= MaxNames
}

// Forget drops a name that GitHub no longer has.
func (r Runner) Forget(n int) Runner {
	r.Names = slices.DeleteFunc(slices.Clone(r.Names), func(g GitHubName) bool { return g.N == n })
	return r
}

// Unused returns the names that may be deleted at GitHub now: while the runner can
// still use them, all but the current config's and the next one, and all after its
// end.
func (r Runner) Unused() []GitHubName {
	if r.State.Final() {
		return r.Names
	}
	next, _ := r.NextName()
	var out []GitHubName
	for _, g := range r.Names {
		if g.N != r.Config.N && g.N != next.N {
			out = append(out, g)
		}
	}
	return out
}
