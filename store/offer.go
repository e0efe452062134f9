package store

import (
	"fmt"
	"slices"
	"strings"
)

// Offer says which workflow jobs get a machine of the account, and which machine: an entry of
// runs_on in the registration. What it leaves empty is the account's choice, as in
// POST /start. Nothing in a job's labels chooses an image, a subnet or a type.
type Offer struct {
	// Labels are what a job has to name, all of them, in lower case. Exactly one of
	// Labels and Pin is set.
	Labels []string `json:"labels,omitempty"`
	// Pin is how the one label of a job begins, which no other job has.
	Pin  string    `json:"pin,omitempty"`
	Only OfferOnly `json:"only,omitzero"`

	Region string `json:"region,omitempty"`
	Type   string `json:"type,omitempty"` // Spot or OnDemand
	Machine
	TimeoutS int `json:"timeout,omitempty"` // seconds
}

// OfferOnly narrows an offer. An empty list narrows nothing. There are no refs: GitHub
// does not tell which ref a queued job's run is of, only a branch's name, which a fork
// can choose (https://docs.github.com/en/rest/actions/workflow-runs).
type OfferOnly struct {
	Repositories []Named  `json:"repositories,omitempty"`
	Events       []string `json:"events,omitempty"` // GitHub's names of what started the run
}

// Key names the offer among those of its account: the labels, or the pin and a star.
func (o Offer) Key() string {
	if o.Pin != "" {
		return o.Pin + "*"
	}
	return strings.Join(slices.Sorted(slices.Values(o.Labels)), ",")
}

// Serves reports whether the offer is for the jobs of a repository.
func (o Offer) Serves(repo Repository) bool {
	in := o.Only.Repositories
	return len(in) == 0 || repo.ID != "" && slices.ContainsFunc(in, func(n Named) bool { return n.ID == repo.ID })
}

// The labels that say what any machine may be
// (https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/use-in-a-workflow).
var general = []string{"self-hosted", "linux", "windows", "macos", "x64", "arm", "arm64"}

// hosted is how the labels of GitHub's own machines begin. A machine of ours with one of
// them would take jobs that are meant for those.
var hosted = []string{"ubuntu-", "windows-", "macos-"}

// truths are the general labels that are true of the offer's machines.
func (a Account) truths(o Offer) []string {
	types := o.InstanceTypes
	if len(types) == 0 {
		types = a.DefaultInstanceTypes
	}
	out := []string{"self-hosted", "linux"}
	if _, arch, ok := a.Chooses(o.Machine); ok {
		return append(out, map[string]string{X86: "x64", ARM64: "arm64"}[arch])
	}
	arm := 0
	for _, t := range types {
		if isGraviton(t) {
			arm++
		}
	}
	switch {
	case len(types) > 0 && arm == 0:
		out = append(out, "x64")
	case len(types) > 0 && arm == len(types):
		out = append(out, "arm64")
	}
	return out
}

// isGraviton reports whether an instance type has AWS's ARM processors: the letters
// behind the generation have a g, as in c7gn.large; a1 came before that rule
// (https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html).
func isGraviton(instanceType string) bool {
	family, _, _ := strings.Cut(instanceType, ".")
	generation := strings.IndexAny(family, "0123456789")
	return family == "a1" || generation >= 0 && strings.Contains(family[generation:], "g")
}

// Match is what an account's offers make of a job. The zero value: it is none of ours.
type Match struct {
	// Offer is the one that serves the job; nil: none does.
	Offer *Offer
	// Labels are what the job's runner registers with, and nothing else: all labels of
	// the job in lower case, sorted.
	Labels []string
	// Why says to people why a job that looks like ours gets no machine. Empty: there is
	// an offer, or the job does not look like ours.
	Why string
}

// Match decides which offer serves a job of that repository with these labels, as
// GitHub writes them. It is pure. At most one can, since offers that could take each
// other's jobs make no registration.
func (a Account) Match(repo Repository, labels []string) Match {
	if len(labels) == 0 || slices.ContainsFunc(labels, func(l string) bool { return hasFold(l, Ours) }) {
		return Match{} // a runner group alone, or the own label of a request
	}
	canonical, err := ParseLabels(labels)
	if err != nil {
		canonical = nil // still it may look like ours
	}
	why := ""
	for i := range a.RunsOn {
		o := &a.RunsOn[i]
		no, near := o.refuses(a, labels, canonical)
		switch {
		case no == "" && err == nil && o.Serves(repo):
			return Match{Offer: o, Labels: canonical}
		case no == "" && err != nil:
			no = err.Error()
		case no == "":
			no = "the registration keeps it for other repositories (only)"
		}
		if near && why == "" {
			why = fmt.Sprintf("runs_on %s: %s", o.Key(), no)
		}
	}
	return Match{Why: why}
}

// refuses returns why an offer is not for a job with these labels; empty: it is. near
// says whether the job looks as if it meant this offer. canonical is nil if labels have
// none of our form.
func (o Offer) refuses(a Account, labels, canonical []string) (why string, near bool) {
	if o.Pin != "" {
		pinned := 0
		for _, l := range labels {
			if hasFold(l, o.Pin) {
				pinned++
			}
		}
		switch {
		case pinned == 0:
			return "no label begins with the pin", false
		case len(canonical) > 1 || canonical == nil && len(labels) > 1:
			return "a label that begins with a pin has to stand alone in runs-on: beside others it protects nothing", true
		case len(canonical) == 1 && canonical[0] == o.Pin:
			return "the label is the pin itself: add what no other job has, such as the run's id", true
		}
		return "", true
	}
	has := func(want string) bool {
		return slices.ContainsFunc(labels, func(l string) bool { return strings.EqualFold(l, want) })
	}
	var lacks, shares []string
	for _, l := range o.Labels {
		switch {
		case !has(l):
			lacks = append(lacks, l)
		case !slices.Contains(general, l):
			shares = append(shares, l)
		}
	}
	near = len(shares) > 0
	if len(lacks) > 0 {
		return "the job does not name " + strings.Join(lacks, ", "), near
	}
	truths := a.truths(o)
	for _, l := range canonical {
		if !slices.Contains(o.Labels, l) && !slices.Contains(truths, l) {
			return fmt.Sprintf("its machines do not have the label %s, which the job names", l), near
		}
	}
	return "", near
}

// hasFold reports whether s begins with a text in lower case, whatever its own case is.
func hasFold(s, begin string) bool {
	return len(s) >= len(begin) && strings.EqualFold(s[:len(begin)], begin)
}
