package store_test

// A model of who counts on which machine: jobs, machines, GitHub's free choice, webhooks
// that are lost, doubled and reordered, deaths, cancels, runners of others, answers that
// lag, and a job that waits. Its rules are the few lines of modelRules; TestRulesAreTheModels
// holds the rules of the package to them, in every state that can be reached.

const modelJobs, modelMachines = 2, 2

// A job at GitHub.
const (
	gNone = iota
	gQueued
	gRuns
	gElsewhere
	gNever
	gDone
	gDoneElsewhere
	gWaits
)

// A request.
const (
	rNone = iota
	rAccepted
	rWaiting
	rReady
	rOver
)

// A machine, and its record.
const (
	tNone = iota
	tBoots
	tIdle
	tBusy
	tOver
)

const (
	mNone = iota
	mLive
	mDraining
	mDeregistered
	mEnded
)

// What is on its way for a job: webhooks, and that it was read as queued or held.
const (
	evQueued = 1 << iota
	evBegan
	evDone
	wasRead
	isHeld
)

// modelJob is a job and its request; machines are counted from 1, 0 is none.
type modelJob struct{ G, On, R, Runner, Flags uint8 }

// modelMachine is a machine and its record; jobs are counted from 1.
type modelMachine struct{ T, Job, Rec, For, Took uint8 }

type faults struct{ Lost, Twice, Death, Cancel, Foreign, Nameless, Lag uint8 }

type modelState struct {
	J     [modelJobs]modelJob
	M     [modelMachines]modelMachine
	Spent faults
}

// modelRules is what decides. Both the model and the package have them.
type modelRules interface {
	// hear applies what a webhook or a read says of job j, as GitHub has it.
	hear(s modelState, j int, webhook, nameless bool) modelState
	settle(s modelState, j int) modelState
	give(s modelState, j, m int) (modelState, bool)
	launch(s modelState, j, m int) modelState
	orphan(s modelState, m int) bool // it is to drain now
}

// modelled are the rules as the model has them.
type modelled struct{}

func (modelled) hear(s modelState, j int, _, _ bool) modelState {
	a := &s.J[j]
	switch a.G {
	case gRuns, gDone:
		if a.On == 0 {
			return s // the machine is forgotten
		}
		s.M[a.On-1].Took = uint8(j + 1)
		a.R, a.Runner, a.Flags = rReady, a.On, a.Flags&^(isHeld|wasRead)
	case gElsewhere, gDoneElsewhere, gNever:
		if a.R == rAccepted || a.R == rWaiting {
			a.R, a.Runner, a.Flags = rOver, 0, a.Flags&^(isHeld|wasRead)
		}
	case gWaits:
		if a.R == rAccepted {
			a.Flags = a.Flags&^wasRead | isHeld
		}
	case gQueued:
		a.Flags &^= isHeld
	}
	return s
}

func (modelled) settle(s modelState, j int) modelState {
	a := &s.J[j]
	if a.R != rWaiting {
		return s
	}
	k := s.M[a.Runner-1]
	if k.Took != 0 && k.Took != uint8(j+1) || k.Rec == mEnded || k.Rec == mDeregistered && k.T != tBusy || k.Rec == mDraining && k.T == tBoots {
		a.R, a.Runner, a.Flags = rAccepted, 0, a.Flags&^(wasRead|isHeld)
	}
	return s
}

func spareIn(s modelState, m int) bool {
	k := s.M[m]
	counted := k.For != 0 && s.J[k.For-1].R == rWaiting && int(s.J[k.For-1].Runner) == m+1
	return k.Rec == mLive && k.Took == 0 && !counted && (k.T == tBoots || k.T == tIdle)
}

func (modelled) orphan(s modelState, m int) bool { return spareIn(s, m) }

func (modelled) give(s modelState, j, m int) (modelState, bool) {
	if s.J[j].R != rAccepted || !spareIn(s, m) {
		return s, false
	}
	s.M[m].For = uint8(j + 1)
	s.J[j].R, s.J[j].Runner, s.J[j].Flags = rWaiting, uint8(m+1), s.J[j].Flags&^(wasRead|isHeld)
	return s, true
}

func (modelled) launch(s modelState, j, m int) modelState {
	s.M[m] = modelMachine{T: tBoots, Rec: mLive, For: uint8(j + 1)}
	s.J[j].R, s.J[j].Runner, s.J[j].Flags = rWaiting, uint8(m+1), s.J[j].Flags&^(wasRead|isHeld)
	return s
}

// modelStep is what may come next; fair ones come some day.
type modelStep struct {
	to   modelState
	fair bool
	what string
}

// forget drops machines that nothing can refer to any more, so that others can be launched.
func (s modelState) forget() modelState {
	for m := range s.M {
		needed := s.M[m].Rec != mEnded
		for _, a := range s.J {
			told := a.Flags&(evBegan|evDone) != 0 || a.Flags&evQueued != 0 && a.R == rNone || a.R == rAccepted || a.R == rWaiting || a.G == gRuns
			needed = needed || a.R == rWaiting && int(a.Runner) == m+1 || int(a.On) == m+1 && told
		}
		if needed {
			continue
		}
		for j := range s.J {
			if int(s.J[j].On) == m+1 {
				s.J[j].On = 0
			}
			if int(s.J[j].Runner) == m+1 {
				s.J[j].Runner = 0
			}
		}
		s.M[m] = modelMachine{}
	}
	return s
}

// stepper collects what may come next of a state.
type stepper struct {
	s    modelState
	max  faults
	does modelRules
	out  []modelStep
}

func (x *stepper) add(to modelState, fair bool, what string) {
	if to = to.forget(); to != x.s {
		x.out = append(x.out, modelStep{to, fair, what})
	}
}

// nextOf returns all that may come next.
func nextOf(s modelState, limits faults, does modelRules) []modelStep {
	x := &stepper{s: s, max: limits, does: does}
	for j := range s.J {
		x.atGitHub(j)
		x.webhooks(j)
		x.request(j)
	}
	for m := range s.M {
		if s.M[m].Rec != mNone && s.M[m].Rec != mEnded {
			x.machine(m)
		}
	}
	return x.out
}

// atGitHub is what becomes of a job there.
func (x *stepper) atGitHub(j int) {
	s, a := x.s, x.s.J[j]
	set := func(fair bool, what string, to, ev uint8, also ...func(*modelState)) {
		n := s
		n.J[j].G, n.J[j].Flags = to, n.J[j].Flags|ev
		for _, f := range also {
			f(&n)
		}
		x.add(n, fair, what)
	}
	switch a.G {
	case gNone:
		if j == 0 {
			set(false, "waits", gWaits, evQueued)
		}
		set(false, "queued", gQueued, evQueued)
	case gWaits:
		set(true, "approved", gQueued, evQueued)
	case gQueued:
		if s.Spent.Cancel < x.max.Cancel {
			set(false, "cancelled", gNever, evDone, func(n *modelState) { n.Spent.Cancel++ })
		}
		if s.Spent.Foreign < x.max.Foreign {
			set(false, "given to others", gElsewhere, evBegan, func(n *modelState) { n.Spent.Foreign++ })
		}
		for m, k := range s.M {
			if k.T == tIdle && (k.Rec == mLive || k.Rec == mDraining) {
				set(true, "given to a machine", gRuns, evBegan, func(n *modelState) { n.J[j].On, n.M[m].T, n.M[m].Job = uint8(m+1), tBusy, uint8(j+1) })
			}
		}
	case gRuns:
		set(true, "ends", gDone, evDone, func(n *modelState) { n.M[a.On-1].T = tOver })
	case gElsewhere:
		set(true, "ends elsewhere", gDoneElsewhere, evDone)
	}
}

// webhooks is what is delivered of a job.
func (x *stepper) webhooks(j int) {
	for _, ev := range []uint8{evQueued, evBegan, evDone} {
		if x.s.J[j].Flags&ev == 0 {
			continue
		}
		heard := func(n modelState, nameless bool) modelState {
			if ev != evQueued {
				return x.does.hear(n, j, true, nameless)
			}
			if n.J[j].R == rNone {
				n.J[j].R = rAccepted
				return n
			}
			return x.does.hear(n, j, false, false) // it is read now
		}
		n := x.s
		n.J[j].Flags &^= ev
		x.add(heard(n, false), true, "webhook")
		if x.s.Spent.Lost < x.max.Lost {
			lost := n
			lost.Spent.Lost++
			x.add(lost, false, "webhook lost")
		}
		if ev == evBegan && x.s.Spent.Nameless < x.max.Nameless {
			nameless := n
			nameless.Spent.Nameless++
			x.add(heard(nameless, true), false, "nameless webhook")
		}
		if x.s.Spent.Twice < x.max.Twice {
			twice := x.s
			twice.Spent.Twice++
			x.add(heard(twice, false), false, "webhook, and again later")
		}
	}
}

// request is what worker and reaper do for one.
func (x *stepper) request(j int) {
	s, a := x.s, x.s.J[j]
	if a.R == rAccepted && a.Flags&(wasRead|isHeld) == 0 {
		n := s
		if n = x.does.hear(n, j, false, false); a.G == gQueued {
			n.J[j].Flags |= wasRead
		}
		x.add(n, true, "read before a launch")
	}
	if a.R == rAccepted && a.Flags&wasRead != 0 {
		given := false
		for m := range s.M {
			if n, ok := x.does.give(s, j, m); ok {
				x.add(n, true, "takes over")
				given = true
			}
		}
		for m := 0; m < len(s.M) && !given; m++ {
			if s.M[m].Rec == mNone {
				x.add(x.does.launch(s, j, m), true, "launch")
				break
			}
		}
	}
	if a.R == rAccepted || a.R == rWaiting {
		x.add(x.does.hear(s, j, false, false), true, "look")
		x.add(x.does.settle(s, j), true, "settle")
	}
	if a.G == gQueued && (a.R == rNone || a.R == rOver) {
		n := s
		n.J[j].R, n.J[j].Runner, n.J[j].Flags = rAccepted, 0, n.J[j].Flags&^(wasRead|isHeld)
		x.add(n, true, "found queued")
	}
}

// machine is what becomes of one.
func (x *stepper) machine(m int) {
	k := x.s.M[m]
	set := func(fair bool, what string, f func(*modelState, *modelMachine)) {
		n := x.s
		f(&n, &n.M[m])
		x.add(n, fair, what)
	}
	alive := k.T == tBoots || k.T == tIdle || k.T == tBusy
	switch {
	case k.T == tBoots && k.Rec == mLive:
		set(true, "online", func(_ *modelState, k *modelMachine) { k.T = tIdle })
	case k.T == tBoots:
		set(true, "may not boot", func(_ *modelState, k *modelMachine) { k.T = tOver })
	case k.T == tOver:
		set(true, "ended", func(_ *modelState, k *modelMachine) { k.Rec = mEnded })
	case k.Rec == mDraining && k.T == tIdle:
		set(true, "deregistered", func(_ *modelState, k *modelMachine) { k.Rec = mDeregistered })
	case k.Rec == mDraining && k.T == tBusy && x.s.Spent.Lag < x.max.Lag:
		set(false, "deregistered with a job", func(n *modelState, k *modelMachine) { k.Rec = mDeregistered; n.Spent.Lag++ })
	case k.Rec == mDeregistered && k.T == tIdle:
		set(true, "ends", func(_ *modelState, k *modelMachine) { k.T = tOver })
	}
	if alive && x.s.Spent.Death < x.max.Death {
		set(false, "dies", func(n *modelState, k *modelMachine) {
			if n.Spent.Death++; k.T == tBusy {
				n.J[k.Job-1].G, n.J[k.Job-1].Flags = gDone, n.J[k.Job-1].Flags|evDone
			}
			k.T = tOver
		})
	}
	if k.Rec == mLive && alive && x.does.orphan(x.s, m) {
		set(true, "drains", func(_ *modelState, k *modelMachine) { k.Rec = mDraining })
	}
	if k.Rec == mLive && k.T == tIdle && !x.useful() {
		set(true, "idle too long", func(_ *modelState, k *modelMachine) { k.Rec = mDraining })
	}
}

// useful reports whether a job may yet come to a machine.
func (x *stepper) useful() bool {
	for _, a := range x.s.J {
		if a.G == gQueued || a.G == gWaits {
			return true
		}
	}
	return false
}
