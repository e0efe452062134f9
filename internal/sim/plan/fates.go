package plan

import (
	"slices"
	"strconv"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
)

// The kinds that are fates of an effect.
var kindOf = map[kernel.Fate]Kind{
	kernel.FailBefore: "call fails without effect",
	kernel.FailAfter:  "answer lost",
	kernel.FailLate:   "effect late",
	kernel.KillBefore: "killed before a call",
	kernel.KillAfter:  "killed after a call",
	kernel.Pause:      "pause",
	kernel.Twice:      "call repeated",
	kernel.Throttle:   "throttled",
	kernel.Refuse:     "refused",
	kernel.Hold:       "message delayed",
}

// reads says whether an operation changes nothing.
func reads(op string) bool {
	switch op {
	case kernel.Get, kernel.Due, kernel.List, kernel.Image, kernel.Root, kernel.Types, kernel.Console, kernel.ByToken, kernel.Find:
		return true
	}
	return false
}

// suits says whether a fate can come to an effect.
func suits(f kernel.Fate, e *kernel.Effect) bool {
	invoked := e.Part == kernel.API || e.Part == kernel.Worker || e.Part == kernel.Reaper
	switch f {
	case kernel.KillBefore, kernel.KillAfter:
		return invoked
	case kernel.FailLate:
		return !reads(e.Op)
	case kernel.Twice:
		return !reads(e.Op)
	case kernel.Throttle:
		return e.To == kernel.ToEC2 || e.To == kernel.ToGitHub || e.To == kernel.ToStore
	case kernel.Refuse:
		return e.To == kernel.ToEC2 || e.To == kernel.ToGitHub
	case kernel.Hold:
		return e.Op == kernel.Send
	}
	return true
}

// fates returns what decides the fate of effects until the world heals.
func (p *plan) fates() func(kernel.Effect) kernel.Fate {
	heals := p.heals()
	all := []func(*kernel.Effect) kernel.Fate{p.networks(), p.outages(), p.atTheWrongTime, p.chances()}
	return func(e kernel.Effect) kernel.Fate {
		if !e.At.Before(heals) {
			return kernel.Pass
		}
		for _, fate := range all {
			if f := fate(&e); f != kernel.Pass {
				return f
			}
		}
		return kernel.Pass
	}
}

// chances returns the fate that comes to any effect by chance.
func (p *plan) chances() func(*kernel.Effect) kernel.Fate {
	rate := oneOf(p.dice, []uint64{0, 10, 30, 60, 150}, "rate of fates")
	var on []kernel.Fate
	for f := kernel.FailBefore; f <= kernel.Hold; f++ {
		if p.chance(500, "fate", f.String()) {
			on = append(on, f)
		}
	}
	return func(e *kernel.Effect) kernel.Fate {
		if rate == 0 {
			return kernel.Pass
		}
		x := p.draw("fate", e.Part, e.For, e.Op, e.What, strconv.Itoa(e.Nth))
		often := rate
		if slices.Contains([]string{e.What, e.For}, "event heartbeat") || slices.Contains([]string{e.What, e.For}, "GET status") {
			often = rate/8 + 1 // there are very many, and each means little
		}
		if x%1000 >= often {
			return kernel.Pass
		}
		fit := slices.DeleteFunc(slices.Clone(on), func(f kernel.Fate) bool { return !suits(f, e) })
		if len(fit) == 0 {
			return kernel.Pass
		}
		f := fit[(x>>20)%uint64(len(fit))]
		if f == kernel.Refuse && (x>>40)%4 != 0 || !p.happens(kindOf[f], address(e)) { // most of what is refused is over at once
			return kernel.Pass
		}
		return f
	}
}

// address names an effect in every play of a seed.
func address(e *kernel.Effect) string { return e.Name() + " #" + strconv.Itoa(e.Nth) }

// atTheWrongTime brings to an effect what a theme is about: in a burst, one who
// has decided to share a runner stands still before he says so; in a world that is
// starved, launches have all kinds of answers, and none.
func (p *plan) atTheWrongTime(e *kernel.Effect) kernel.Fate {
	x := p.draw("wrong time", e.Name(), strconv.Itoa(e.Nth))
	f := kernel.Pass
	switch {
	case p.theme() == burst && e.Part == kernel.Worker && e.Op == kernel.Commit && e.What == "request ready" && x%1000 < 300:
		f = kernel.Pause
	case p.theme() == starved && e.Op == kernel.Launch && p.chance(250, "no launches") && e.At.Before(setting.Epoch.Add(9*time.Minute)):
		f = kernel.FailBefore // until after the machine's time to boot
	case p.theme() == starved && e.Op == kernel.Launch && x%1000 < 250:
		f = []kernel.Fate{kernel.FailBefore, kernel.FailAfter, kernel.FailLate, kernel.Throttle, kernel.Throttle, kernel.Refuse, kernel.KillAfter, kernel.Pause}[(x>>20)%8]
	}
	if f == kernel.Pass || !p.happens(kindOf[f], address(e)) {
		return kernel.Pass
	}
	return f
}

// span says how long the fate of an effect takes.
func (p *plan) span(e kernel.Effect) time.Duration {
	at := []string{"span", e.Name(), strconv.Itoa(e.Nth)}
	switch {
	case e.Fate == kernel.Hold && p.draw(append(at, "long")...)%4 == 0:
		return p.between(10*time.Minute, time.Hour, at...)
	case e.Fate == kernel.Hold:
		return p.between(time.Second, 5*time.Minute, at...)
	case e.Fate == kernel.FailLate && e.Op == kernel.Commit:
		return p.between(10*time.Millisecond, 10*time.Second, at...)
	case e.Fate == kernel.FailLate:
		return p.between(time.Second, 90*time.Second, at...)
	case p.draw(append(at, "long")...)%8 == 0:
		return p.between(30*time.Second, 100*time.Second, at...)
	}
	return p.between(100*time.Millisecond, 30*time.Second, at...)
}

// outages returns the fate of effects while what they call is away. A call that
// fails then has sometimes had its effect.
func (p *plan) outages() func(*kernel.Effect) kernel.Fate {
	windows := map[string]window{}
	for _, to := range []string{kernel.ToStore, kernel.ToQueue, kernel.ToEC2, kernel.ToGitHub, kernel.ToSSM, kernel.ToAPI} {
		longest := oneOf(p.dice, []time.Duration{20 * time.Second, 90 * time.Second, 10 * time.Minute}, "away", to)
		w := p.window(70, longest, to)
		if w != (window{}) && p.happens(away, to) {
			windows[to] = w
		}
	}
	return func(e *kernel.Effect) kernel.Fate {
		if w, ok := windows[e.To]; !ok || !w.has(e.At) {
			return kernel.Pass
		}
		p.again(away)
		if p.draw("away", e.Name(), strconv.Itoa(e.Nth))%4 == 0 {
			return kernel.FailAfter
		}
		return kernel.FailBefore
	}
}

// networks returns the fate of machines' calls. Machines are identified by the
// order of their first calls.
func (p *plan) networks() func(*kernel.Effect) kernel.Fate {
	var seen []string
	late := map[string]time.Time{}
	return func(e *kernel.Effect) kernel.Fate {
		if e.Part != kernel.Machine {
			return kernel.Pass
		}
		p.mu.Lock()
		if !slices.Contains(seen, e.On) {
			seen = append(seen, e.On)
		}
		machine := strconv.Itoa(slices.Index(seen, e.On))
		if late[machine].IsZero() { // it comes to boot when it may not any more, or nearly
			late[machine] = e.At.Add(p.between(4*time.Minute, 6*time.Minute, "late network of machine", machine))
		}
		comes := late[machine]
		p.mu.Unlock()
		switch x := p.draw("network of machine", machine); {
		case x%1000 < 15 && p.happens(noNetwork, machine):
			return kernel.FailBefore
		case x%1000 >= 15 && x%1000 < 30 && e.At.Before(comes) && p.happens(lateNetwork, machine):
			return kernel.FailBefore
		case x%1000 >= 900 && (p.theme() == oneKey || x%1000 >= 980):
			gap := p.window(1000, 3*time.Minute, "silence of machine "+machine)
			if gap.has(e.At) && p.happens(silence, machine) {
				return kernel.FailBefore
			}
		}
		return kernel.Pass
	}
}
