package store

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// The architectures of machines, in EC2's words.
const (
	X86   = "x86_64"
	ARM64 = "arm64"
)

// Requirements is what a registration lets instance types be that nobody names: a request
// says what it needs within them, and gets the cheapest that has it.
type Requirements struct {
	VCPUs    Range `json:"vcpus"`              // its Max is needed: it bounds what a machine costs
	MemoryGB Range `json:"memory_gb,omitzero"` // in GiB
	// Arch are allowed, of X86 and ARM64; the first is the default. Empty: X86.
	Arch []string `json:"arch,omitempty"`
	// GPU is how many GPUs. Without a Max, no machine has one.
	GPU Range `json:"gpu,omitzero"`
	// Exclude are instance types that are not chosen, with * for any text, as t*.
	Exclude []string `json:"exclude,omitempty"`
}

// Range is from Min to Max, both of them in it. A Max of zero is no bound.
type Range struct {
	Min int `json:"min,omitempty"`
	Max int `json:"max,omitempty"`
}

func (r Range) holds(n int) bool { return n >= r.Min && (r.Max == 0 || n <= r.Max) }

// from returns r with at least n.
func (r Range) from(n int) Range { return Range{max(r.Min, n), r.Max} }

// InstanceType is what EC2 says of one, as far as it is chosen by that.
type InstanceType struct {
	Name      string
	VCPUs     int
	MemoryMiB int
	GPUs      int
	Arch      []string // of X86 and ARM64, and others of EC2's
	Markets   []string // of Spot and OnDemand
	// Special ones are not chosen: bare metal, older generations, and those with an
	// accelerator that is no GPU.
	Special bool
}

// Most of what anybody may ask for: more than any instance type has
// (https://docs.aws.amazon.com/ec2/latest/instancetypes/mo.html: u7inh-32tb.480xlarge has
// 1,920 vCPUs and 32 TiB; https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html: 16 GPUs).
const (
	MaxVCPUs    = 2048
	MaxMemoryGB = 32768
	MaxGPUs     = 16
)

// maxExclude bounds a registration's list: IAM evaluates it with each launch.
const maxExclude = 50

// Requires returns the first field by which m says what its instance type has to have, by
// its name in the API, and the value; empty: none.
func (m Machine) Requires() (field, value string) {
	switch {
	case m.CPU != 0:
		return "cpu", strconv.Itoa(m.CPU)
	case m.MemoryGB != 0:
		return "memory", strconv.Itoa(m.MemoryGB)
	case m.GPU != 0:
		return "gpu", strconv.Itoa(m.GPU)
	case m.Arch != "":
		return "arch", m.Arch
	}
	return "", ""
}

// CheckRequires returns the field by which m requires what no instance type can have, by its
// name in the API, and what is wanted; nil: none.
func (m Machine) CheckRequires() (field string, err error) {
	for _, f := range []struct {
		name    string
		n, most int
	}{{"cpu", m.CPU, MaxVCPUs}, {"memory", m.MemoryGB, MaxMemoryGB}, {"gpu", m.GPU, MaxGPUs}} {
		if f.n < 0 || f.n > f.most {
			return f.name, fmt.Errorf("want 1 to %d, or leave it out", f.most)
		}
	}
	if m.Arch != "" && m.Arch != X86 && m.Arch != ARM64 {
		return "arch", fmt.Errorf("want %s or %s", X86, ARM64)
	}
	if name, _ := m.Requires(); name != "" && len(m.InstanceTypes) > 0 {
		return name, errors.New("name instance_types, or what they have to have, not both")
	}
	return "", nil
}

// Chooses reports whether the instance types of a machine are chosen by what they have to
// have, and of which architecture. The zero value: they are named.
func (a Account) Chooses(m Machine) (_ Requirements, arch string, ok bool) {
	q := a.InstanceRequirements
	asked, _ := m.Requires()
	if q == nil || len(m.InstanceTypes) > 0 || asked == "" && len(a.DefaultInstanceTypes) > 0 {
		return Requirements{}, "", false
	}
	return *q, cmp.Or(m.Arch, slices.Concat(q.Arch, []string{X86})[0]), true
}

// permitsRequirements is Permits for what a request's instance types have to have.
func (a Account) permitsRequirements(m Machine) (field, what string, ok bool) {
	field, what = m.Requires()
	q := a.InstanceRequirements
	switch {
	case field == "":
		return "", "", true
	case q == nil:
		return field, what, false
	case m.CPU != 0 && !q.VCPUs.holds(m.CPU):
		return "cpu", strconv.Itoa(m.CPU), false
	case m.MemoryGB != 0 && !q.MemoryGB.holds(m.MemoryGB):
		return "memory", strconv.Itoa(m.MemoryGB), false
	case m.GPU != 0 && (q.GPU.Max == 0 || !q.GPU.holds(m.GPU)):
		return "gpu", strconv.Itoa(m.GPU), false
	case m.Arch != "" && !slices.Contains(q.Arch, m.Arch) && !(len(q.Arch) == 0 && m.Arch == X86):
		return "arch", m.Arch, false
	}
	return "", "", true
}

// Choose returns the names of those of all that have what m requires within the account's
// rules, in its market, cheapest first, and at most MaxPlacements. price is what an hour of
// an instance type costs; zero: nobody knows, and such types come last. Of equal price, and
// of those without one, the smaller come first. It is pure.
func (a Account) Choose(m Machine, market string, all []InstanceType, price func(instanceType string) MicroUSD) []string {
	q, arch, ok := a.Chooses(m)
	if !ok {
		return nil
	}
	cpu, memory, gpu := q.VCPUs.from(m.CPU), q.MemoryGB.from(m.MemoryGB), q.GPU.from(m.GPU)
	if gpu.Min == 0 {
		gpu = Range{0, -1}
	}
	var fit []InstanceType
	for _, t := range all {
		gib := Range{memory.Min * 1024, memory.Max * 1024}
		if cpu.holds(t.VCPUs) && gib.holds(t.MemoryMiB) && (gpu.holds(t.GPUs) || gpu.Max < 0 && t.GPUs == 0) && !t.Special &&
			slices.Contains(t.Arch, arch) && slices.Contains(t.Markets, market) && !q.excludes(t.Name) {
			fit = append(fit, t)
		}
	}
	slices.SortFunc(fit, func(x, y InstanceType) int {
		px, py := price(x.Name), price(y.Name)
		return cmp.Or(compareKnown(px, py), cmp.Compare(x.VCPUs, y.VCPUs), cmp.Compare(x.MemoryMiB, y.MemoryMiB), strings.Compare(x.Name, y.Name))
	})
	names := make([]string, 0, MaxPlacements)
	for _, t := range fit[:min(len(fit), MaxPlacements)] {
		names = append(names, t.Name)
	}
	return names
}

// compareKnown orders prices, those that nobody knows last.
func compareKnown(x, y MicroUSD) int {
	switch {
	case (x > 0) != (y > 0):
		return cmp.Compare(y, x)
	case x <= 0:
		return 0
	}
	return cmp.Compare(x, y)
}

func (q Requirements) excludes(instanceType string) bool {
	return slices.ContainsFunc(q.Exclude, func(pattern string) bool {
		ok, _ := path.Match(pattern, instanceType) // checked with the registration
		return ok
	})
}

// NoType says to people that no instance type of a region has what r requires.
func NoType(r Request) Failure {
	return Failure{Code: CodeNoType, Text: fmt.Sprintf("No instance type that region %s offers in the market %s has what the request asks for, within the account's instance_requirements. Ask for less, or have the rules widened.", r.Region, r.Type)}
}

// CodeNoType is of the failure of a request that no instance type is good enough for.
const CodeNoType = "no_instance_type"

// check returns every fault of the rules.
func (q *Requirements) check() []error {
	if q == nil {
		return nil
	}
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("instance_requirements."+format, args...))
	}
	for _, r := range []struct {
		name string
		Range
		most int
	}{{"vcpus", q.VCPUs, MaxVCPUs}, {"memory_gb", q.MemoryGB, MaxMemoryGB}, {"gpu", q.GPU, MaxGPUs}} {
		if r.Min < 0 || r.Max < 0 || r.Max > r.most || r.Min > r.most || r.Max > 0 && r.Min > r.Max {
			fault("%s: %d to %d: want min and max of at most %d, min not above max", r.name, r.Min, r.Max, r.most)
		}
	}
	if q.VCPUs.Max == 0 {
		fault("vcpus.max: want the most vCPUs that a machine may have: it bounds what one costs")
	}
	if q.GPU.Min > 0 && q.GPU.Max == 0 {
		fault("gpu.max: want the most GPUs that a machine may have")
	}
	for i, arch := range q.Arch {
		if arch != X86 && arch != ARM64 || slices.Contains(q.Arch[:i], arch) {
			fault("arch: %q: want %s and %s, each at most once", arch, X86, ARM64)
		}
	}
	if len(q.Exclude) > maxExclude {
		fault("exclude: %d: want at most %d", len(q.Exclude), maxExclude)
	}
	for _, p := range q.Exclude {
		if p == "" || len(p) > 64 || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789.-*") != "" {
			fault("exclude: %.80q: want instance types, with * for any text, such as t*", p)
		}
	}
	return errs
}
