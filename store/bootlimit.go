package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// metalBoots is how many boot limits of other machines a bare metal one has: AWS says
// that the check of its hardware can take 20 minutes before it is reached over the
// network (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-launch-params.html),
// and 30 leave it as much room as five leave the others.
const metalBoots = 6

// maxBootLimit bounds what a registration may say, in seconds: a machine that takes longer
// than an hour is of no use to a job that waits.
const maxBootLimit = 3600

// isMetal reports whether an instance type is bare metal, such as m7i.metal-24xl.
func isMetal(instanceType string) bool {
	_, size, _ := strings.Cut(instanceType, ".")
	return size == "metal" || strings.HasPrefix(size, "metal-")
}

// BootLimits returns how many seconds the instance types of a plan have to boot that have
// not Limits.BootLimit; nil: none is another.
func (a Account) BootLimits(plan []Placement, lim Limits) map[string]int {
	var out map[string]int
	for _, p := range plan {
		s := a.BootLimitS
		if isMetal(p.InstanceType) {
			s = max(s, int(metalBoots*lim.BootLimit/time.Second))
		}
		if own, ok := a.BootLimitsS[p.InstanceType]; ok {
			s = own
		}
		if s > 0 {
			if out == nil {
				out = map[string]int{}
			}
			out[p.InstanceType] = s
		}
	}
	return out
}

// BootLimit returns how long a machine of the placement has from its launch to its first
// call.
func (l Launch) BootLimit(p Placement, lim Limits) time.Duration {
	if s := l.BootLimitsS[p.InstanceType]; s > 0 {
		return time.Duration(s) * time.Second
	}
	return lim.BootLimit
}

// longestBoot returns the boot limit of the placement that has the longest.
func (l Launch) longestBoot(lim Limits) time.Duration {
	longest := lim.BootLimit
	for _, s := range l.BootLimitsS {
		longest = max(longest, time.Duration(s)*time.Second)
	}
	return longest
}

// checkBootLimits returns every fault of a registration's boot limits.
func (a Account) checkBootLimits() []error {
	var errs []error
	check := func(name string, s int) {
		if s < 60 || s > maxBootLimit { // nothing boots in less than a minute for certain
			errs = append(errs, fmt.Errorf("%s: %d: want 60 to %d seconds", name, s, maxBootLimit))
		}
	}
	if a.BootLimitS != 0 {
		check("boot_limit", a.BootLimitS)
	}
	for _, t := range slices.Sorted(maps.Keys(a.BootLimitsS)) {
		check("boot_limits."+t, a.BootLimitsS[t])
		if !slices.Contains(a.InstanceTypes, t) && a.InstanceRequirements == nil {
			errs = append(errs, fmt.Errorf("boot_limits: %q is not in instance_types", t))
		}
	}
	return errs
}
