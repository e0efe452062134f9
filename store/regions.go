package store

import (
	"fmt"
	"slices"
	"time"
)

// MaxRegions bounds the regions of one request: each is a whole plan of launches, and
// there are no more within reach of one place than that.
const MaxRegions = 8

// InRegions returns r as a request that is tried in regions, in that order. A shared one
// is tried in the first alone: its runner is found by its region.
func (r Request) InRegions(regions []string) Request {
	r.Region = regions[0]
	if r.Mode == Ephemeral && len(regions) > 1 {
		r.Regions = slices.Clone(regions)
	}
	return r
}

// FallbackFor returns the regions that r is tried in when it names none: its own, and
// those of the account's fallback that offer all that r names.
func (a Account) FallbackFor(r Request) []string {
	regions := []string{r.Region}
	for _, name := range a.FallbackRegions {
		other := r
		other.Region = name
		if _, _, ok := a.Permits(other); ok && name != r.Region && len(regions) < MaxRegions {
			regions = append(regions, name)
		}
	}
	return regions
}

// permitsEach is Permits for a request that is tried in several regions: each has to
// offer what it names.
func (a Account) permitsEach(r Request) (field, value string, ok bool) {
	for _, name := range r.Regions {
		one := r
		one.Region, one.Regions = name, nil
		field, value, ok := a.Permits(one)
		switch {
		case field == "region":
			return "regions", name, false
		case !ok:
			return field, value, false
		}
	}
	return "", "", true
}

// elsewhere accepts a request again at once in its next region, after why it got no
// machine in this one. It is no further try: those are of all regions. ok is false if
// there is no next region, or another region would not help.
func (r Request) elsewhere(now time.Time, why Failure) (_ Request, ok bool) {
	next := slices.Index(r.Regions, r.Region) + 1
	if why.Code != EndNoCapacity && why.Code != EndVCPULimit || next == 0 || next >= len(r.Regions) || !now.Before(r.GiveUpAt) {
		return r, false
	}
	was := r.Region
	r.State, r.Runner, r.Region = Accepted, "", r.Regions[next]
	r.DueAt, r.Wait, r.Sends = now, "", 0
	r = r.sent(now)
	r.History = r.History.with(now, string(Accepted), why.Code+" in "+was+"; next: "+r.Region)
	return r, true
}

// checkFallback returns every fault of a registration's fallback regions.
func (a Account) checkFallback() []error {
	var errs []error
	if len(a.FallbackRegions) > MaxRegions {
		errs = append(errs, fmt.Errorf("fallback_regions: %d: want at most %d", len(a.FallbackRegions), MaxRegions))
	}
	for i, name := range a.FallbackRegions {
		if _, ok := a.Regions[name]; !ok || slices.Contains(a.FallbackRegions[:i], name) {
			errs = append(errs, fmt.Errorf("fallback_regions: %q: want each of the regions at most once", name))
		}
	}
	return errs
}
