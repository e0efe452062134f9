package store

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// death is what a reason of EC2's for the end of a machine means.
type death struct {
	advice string
	// again says that the next machine may fare better in the same place.
	again bool
	// spot says that a machine that is bought on demand may fare better.
	spot bool
}

// switchedOff is the code of a machine that shut itself down from inside.
const switchedOff = "Client.InstanceInitiatedShutdown"

// deaths has the reasons that EC2 documents, by code
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html).
var deaths = map[string]death{
	"Client.InternalError": {
		advice: "Most often EC2 may not use the KMS key of the image, or of the account's EBS encryption: allow it to the account's role, and for spot grant it to the role AWSServiceRoleForEC2Spot.",
		spot:   true,
	},
	"Client.InvalidSnapshot.NotFound":     {advice: "A snapshot of the image is gone: build the image again."},
	"Client.VolumeLimitExceeded":          {advice: "Wait for machines to end, or have the region's quota of volumes and of their storage raised.", again: true},
	"Client.UserInitiatedShutdown":        {advice: "Somebody in the account ended it: look for TerminateInstances and StopInstances in its CloudTrail.", again: true},
	switchedOff:                           {advice: "It switched itself off: look at its console, and at what its image does when it boots.", again: true},
	"Server.InternalError":                {advice: "That is EC2's own fault, and seldom lasts.", again: true},
	"Server.InsufficientInstanceCapacity": {advice: "Allow more instance types or subnets.", again: true, spot: true},
	"Server.SpotInstanceTermination":      {advice: "Allow more instance types, or spot_fallback.", again: true, spot: true},
	"Server.SpotInstanceShutdown":         {advice: "Allow more instance types, or spot_fallback.", again: true, spot: true},
}

// deathOf returns what a code means. One that EC2 does not document is judged by
// what it speaks of, and else gets the benefit of the doubt.
func deathOf(code string) death {
	d, known := deaths[code]
	switch {
	case known:
		return d
	case strings.Contains(code, "KMS"):
		return deaths["Client.InternalError"]
	case strings.HasPrefix(code, "Client.InvalidSnapshot"):
		return deaths["Client.InvalidSnapshot.NotFound"]
	case strings.HasPrefix(code, "Server.Spot"):
		return deaths["Server.SpotInstanceTermination"]
	}
	return death{again: true}
}

// PeopleMend reports whether each machine of the same kind will die of code, a
// reason of EC2's, until a person changes something.
func PeopleMend(code string) bool { return code != "" && !deathOf(code).again }

// Death returns why a runner ends whose machine EC2 shows in a state that it does
// not come back from, such as terminated, for a reason by its code and in EC2's
// words; both may be empty. What the next machine would die of too is not
// retryable, but for a spot machine whose plan has on-demand placements.
func (r Runner) Death(state, code, words string) Failure {
	d := deathOf(code)
	when, onDemand := "", false
	if r.OnlineAt.IsZero() {
		when = " before it was online"
		onDemand = d.spot && r.Placement().Market == Spot && slices.ContainsFunc(r.Plan, func(p Placement) bool { return p.Market == OnDemand })
	}
	why := NewEnd(EndTerminated)
	if strings.HasPrefix(code, "Server.Spot") {
		why.Code = EndSpot
	}
	why.Retryable = d.again || onDemand
	why.Text = fmt.Sprintf("EC2 shows the machine as %s%s", state, when)
	words = strings.TrimSuffix(strings.TrimSpace(strings.TrimPrefix(words, code+":")), ".")
	switch {
	case words != "" && code != "":
		why.Text += fmt.Sprintf(": %s (%s).", words, code)
	case words+code != "":
		why.Text += ": " + words + code + "."
	default:
		why.Text += ", and does not say why."
	}
	if d.advice != "" {
		why.Text += " " + d.advice
	}
	return why
}

// Died drains a usable runner whose machine came to a Death, and lets the request that
// launched it learn of that. It needs the runner, its lock and that request.
func (c Case) Died(now time.Time, lim Limits, in Instance) Decision {
	return decide(c, func(d *Decision) {
		d.Runner, d.Lock = died(now, d.Runner, d.Lock, in)
		d.settle(now, lim)
	})
}

// died drains a usable runner. One whose machine switched itself off at its boot limit,
// and had nothing to boot with, ends for what GitHub said.
func died(now time.Time, r Runner, l Lock, in Instance) (Runner, Lock) {
	if !r.State.Usable() {
		return r, l
	}
	why := r.Death(in.State, in.Code, in.Reason)
	if in.Code == switchedOff && r.unregistered(now, l) {
		why = NewEnd(r.Unminted.Code)
	}
	if r.OnlineAt.IsZero() && in.Code != "" {
		r = r.attempted(now, in.Code)
	}
	return drain(now, r, l, why)
}

// Prefer puts the on-demand placements of a plan first once a spot machine of the
// request died of what may be spot's own fault.
func (r Request) Prefer(plan []Placement) []Placement {
	if !slices.ContainsFunc(r.Attempts, func(a Attempt) bool { return a.Market == Spot && deathOf(a.Code).spot }) {
		return plan
	}
	out := slices.Clone(plan)
	slices.SortStableFunc(out, func(a, b Placement) int { return rank(a) - rank(b) })
	return out
}

func rank(p Placement) int {
	if p.Market == OnDemand {
		return 0
	}
	return 1
}
