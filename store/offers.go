package store

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
)

// maxOffers bounds what each webhook is compared with. A registration of 8 KB has room
// for few more.
const maxOffers = 32

var pinForm = form.Form{{Of: form.Lower + form.Digit + "..__--", Min: 1, Max: 63}} // a label has 64, of which one is the job's own

// checkOffers returns every fault of a registration's runs_on.
func (a Account) checkOffers() []error {
	var errs []error
	if len(a.RunsOn) > maxOffers {
		errs = append(errs, fmt.Errorf("runs_on: %d entries: want at most %d", len(a.RunsOn), maxOffers))
	}
	if len(a.RunsOn) > 0 && !slices.Contains(a.Modes, Ephemeral) {
		errs = append(errs, fmt.Errorf("runs_on: its machines run one job each: modes wants %s", Ephemeral))
	}
	if len(a.RunsOn) > 0 && (len(a.Only.Refs)+len(a.Only.Environments)+len(a.Only.JobWorkflowRefs)+len(a.Only.Properties) > 0) {
		errs = append(errs, fmt.Errorf("runs_on: no job would get a machine, since only narrows the account to what GitHub does not tell of a queued job: remove only, or use another account"))
	}
	for i, o := range a.RunsOn {
		fault := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf(fmt.Sprintf("runs_on[%d]", i)+format, args...))
		}
		if (len(o.Labels) == 0) == (o.Pin == "") {
			fault(": want labels or a pin, one of them")
			continue
		}
		a.checkLabels(o, fault)
		a.checkMachine(o, fault)
		for j, other := range a.RunsOn[:i] {
			if why := a.clash(o, other); why != "" {
				fault(" and runs_on[%d]: %s", j, why)
			}
		}
	}
	return errs
}

// checkLabels tells the faults of an offer's labels, or of its pin.
func (a Account) checkLabels(o Offer, fault func(string, ...any)) {
	if o.Pin != "" {
		switch near := slices.IndexFunc(slices.Concat(general, hosted, []string{Ours}), func(l string) bool {
			return strings.HasPrefix(l, o.Pin) || strings.HasPrefix(o.Pin, l)
		}); {
		case !pinForm.Fits(o.Pin):
			fault(".pin %.80q: use 1 to 63 of a-z, 0-9, dot, underscore and hyphen", o.Pin)
		case near >= 0:
			fault(".pin %q: begins like labels that are not yours alone (%s, %s* or %s*)", o.Pin, strings.Join(general, ", "), strings.Join(hosted, "*, "), Ours)
		}
		return
	}
	canonical, err := ParseLabels(o.Labels)
	switch {
	case err != nil:
		fault(".labels: %v", err)
		return
	case len(canonical) != len(o.Labels) || slices.ContainsFunc(o.Labels, func(l string) bool { return !slices.Contains(canonical, l) }):
		fault(".labels: write each once, in lower case")
		return
	}
	own := 0
	truths := a.truths(o)
	for _, l := range canonical {
		switch {
		case slices.ContainsFunc(hosted, func(h string) bool { return strings.HasPrefix(l, h) }):
			fault(".labels: %q is for GitHub's own machines: a machine with it would take their jobs", l)
		case !slices.Contains(general, l):
			own++
		case !slices.Contains(truths, l):
			fault(".labels: %q is not true of its machines", l)
		}
	}
	if own == 0 {
		fault(".labels: want one that is yours, not only %s", strings.Join(canonical, ", "))
	}
}

// checkMachine tells the faults of what an offer says about its machines.
func (a Account) checkMachine(o Offer, fault func(string, ...any)) {
	region, market := o.Region, o.Type
	if market == "" && len(a.Markets) > 0 {
		market = a.Markets[0]
	}
	if region == "" {
		region = a.OwnRegion()
	}
	if field, err := o.CheckRequires(); err != nil {
		fault(".%s: %v", field, err)
	}
	if region == "" {
		fault(".region: want one of the regions: the account has no default_region")
	} else if field, value, ok := a.Permits(Request{Region: region, Type: market, Mode: Ephemeral, Machine: o.Machine}); !ok && field != "mode" {
		fault(".%s: %q is not one of the account's", field, value)
	}
	if o.TimeoutS < 0 || o.TimeoutS > int(a.MaxTimeout(DefaultLimits()).Seconds()) {
		fault(".timeout: want at most the account's %d seconds", int(a.MaxTimeout(DefaultLimits()).Seconds()))
	}
	for _, n := range o.Only.Repositories {
		if !form.GitHubID.Fits(n.ID) || n.Name == "" {
			fault(".only.repositories: %q (%q): want GitHub's numeric id and the name", n.ID, n.Name)
		}
	}
	for _, e := range o.Only.Events {
		if !slices.Contains(usualEvents, e) && !slices.Contains(otherEvents, e) {
			fault(".only.events: %.80q: want an event that triggers workflows, as GitHub names it", e)
		}
	}
}

// clash says why two offers cannot be in one registration: a machine of one could take a
// job that was meant for the other, since GitHub gives a job to any runner that has all
// of the job's labels.
func (a Account) clash(o, other Offer) string {
	switch {
	case o.Pin != "" && other.Pin != "":
		if strings.HasPrefix(o.Pin, other.Pin) || strings.HasPrefix(other.Pin, o.Pin) {
			return fmt.Sprintf("the pins %q and %q begin alike: a label could be of either", o.Pin, other.Pin)
		}
		return ""
	case o.Pin != "":
		return a.clash(other, o)
	case other.Pin != "":
		for _, l := range o.Labels {
			if strings.HasPrefix(l, other.Pin) || strings.HasPrefix(other.Pin, l) {
				return fmt.Sprintf("the pin %q and the label %q begin alike: choose another pin", other.Pin, l)
			}
		}
		return ""
	}
	if within(o.Labels, other.Labels, a.truths(other)) || within(other.Labels, o.Labels, a.truths(o)) {
		return fmt.Sprintf("a job with the labels of one (%s) could get a machine of the other (%s): give each a label that the other lacks", o.Key(), other.Key())
	}
	return ""
}

// within reports whether a job that names few may be one that machines take which have
// many and any of extra.
func within(few, many, extra []string) bool {
	return !slices.ContainsFunc(few, func(l string) bool { return !slices.Contains(many, l) && !slices.Contains(extra, l) })
}
