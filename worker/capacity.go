package worker

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// hintFor is how long a placement without capacity is avoided: capacity comes
// back in minutes, and a miss costs one call.
const scarceFor = 3 * time.Minute

// capacity remembers, for this process alone, which placements had no capacity.
// It only orders what is tried; the record says what was tried.
type capacity struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func placementKey(account, region string, p store.Placement) string {
	return strings.Join([]string{account, region, p.Market, p.InstanceType, p.Subnet}, "|")
}

// empty remembers that p has no capacity.
func (h *capacity) empty(now time.Time, account, region string, p store.Placement) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until == nil {
		h.until = map[string]time.Time{}
	}
	for k, t := range h.until {
		if !now.Before(t) {
			delete(h.until, k)
		}
	}
	h.until[placementKey(account, region, p)] = now.Add(scarceFor)
}

func (h *capacity) avoids(now time.Time, account, region string, p store.Placement) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return now.Before(h.until[placementKey(account, region, p)])
}

// sorted returns the plan with the avoided placements last.
func (h *capacity) sorted(now time.Time, account, region string, plan []store.Placement) []store.Placement {
	var good, bad []store.Placement
	for _, p := range plan {
		if h.avoids(now, account, region, p) {
			bad = append(bad, p)
		} else {
			good = append(good, p)
		}
	}
	return append(good, bad...)
}

// family returns the part of an instance type that a vCPU limit counts together:
// the letter, as in t of t3a.micro
// (https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html).
func family(instanceType string) string { return instanceType[:min(1, len(instanceType))] }

// suits reports whether a placement may do, after EC2 said code of another one that
// it refused whatever its capacity: of the subnet, or else of the instance type.
func suits(p, refused store.Placement, code string) bool {
	if strings.HasPrefix(code, "InvalidSubnet") {
		return p.Subnet != refused.Subnet
	}
	return p.InstanceType != refused.InstanceType
}

// next returns the index to try after EC2 said fe of the current placement: the
// next one that may have room, or one past the plan's end.
func (h *capacity) next(now time.Time, r store.Runner, fe *fleet.Error) int {
	here := r.Placement()
	fits := func(p store.Placement) bool {
		for _, a := range r.Attempts {
			if a.Text != "" && !suits(p, a.Placement, a.Code) {
				return false
			}
		}
		switch {
		case errors.Is(fe, fleet.ErrUnsuited):
			return suits(p, here, fe.Code)
		case fe.Code == "MaxSpotInstanceCountExceeded":
			return p.Market != store.Spot // the limit is the account's, for all of the region
		case fe.Code == "VcpuLimitExceeded":
			return p.Market != here.Market || family(p.InstanceType) != family(here.InstanceType)
		}
		return true
	}
	fallback := len(r.Plan)
	for i := r.Index + 1; i < len(r.Plan); i++ {
		if !fits(r.Plan[i]) {
			continue
		}
		if !h.avoids(now, r.Account, r.Region, r.Plan[i]) {
			return i
		}
		fallback = min(fallback, i)
	}
	return fallback
}
