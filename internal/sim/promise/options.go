package promise

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// The promises about what a machine is made of.
const (
	Suited   Promise = "a machine is what each request that gets it asked for"
	OwnTags  Promise = "nobody but us says whose a machine is"
	BootsBy  Promise = "a machine has the time to boot that its instance type needs"
	NextOne  Promise = "a region is left for the next when EC2 has no room in it, and not before"
	SameCall Promise = "a launch that is repeated is the same to the byte"
)

// sawOptions looks at a call for a runner that is recorded: it is as the request asked,
// ours by its tags, and as the calls before it with that token.
func (p launchPromises) sawOptions(l fleet.Launch, r store.Runner) {
	if asked := p.requests[r.Request]; asked.Version != 0 {
		p.suits(asked, l.Options, l.Tags)
		p.fits(asked, l.InstanceType)
		p.hold(NextOne, r.Region == asked.Region, "runner %s is launched in %s, and request %s is in %s", r.ID, r.Region, asked.ID, asked.Region)
	}
	p.hold(OwnTags, l.Tags[fleet.TagControlPlane] == setting.ControlPlane && l.Tags[fleet.TagRequest] == r.Request && l.Tags[fleet.TagRunner] == r.ID,
		"runner %s for request %s is launched with tags %v", r.ID, r.Request, l.Tags)
	first, known := p.calls.first[l.ClientToken]
	p.hold(SameCall, !known || reflect.DeepEqual(first, l), "token %s was used for %+v, and is for %+v", l.ClientToken, first, l)
	p.calls.first[l.ClientToken] = l
}

// sawElsewhere looks at a request that gave up a runner, and reports whether it continues in
// its next region: that is no further try. Otherwise it begins with the first one again.
func (p launchPromises) sawElsewhere(was, r store.Request, run store.Runner) bool {
	if len(was.Regions) == 0 {
		p.hold(NextOne, r.Region == was.Region, "request %s was in %s, and is in %s", r.ID, was.Region, r.Region)
		return false
	}
	full := run.End != nil && (run.End.Code == store.EndNoCapacity || run.End.Code == store.EndVCPULimit)
	next := slices.Index(was.Regions, was.Region) + 1
	if !full || next >= len(was.Regions) {
		p.hold(NextOne, r.Region == was.Regions[0], "request %s, of %q, was in %s and is in %s after %v", r.ID, was.Regions, was.Region, r.Region, run.End)
		return false
	}
	told := p.calls.full[p.calls.tokens[call{run.ID, run.Index}]]
	p.hold(NextOne, told && r.Region == was.Regions[next] && r.Tries == was.Tries && !r.DueAt.After(r.UpdatedAt),
		"request %s, of %q, leaves %s for %s after %d tries, due at %s; EC2 said that there is no room: %t", r.ID, was.Regions, was.Region, r.Region, r.Tries, r.DueAt, told)
	return true
}

// sawBootBy looks at when a machine has to boot that is to be launched in another place
// than before. Its time is counted from the decision, which may be a whole invocation old.
func (p launchPromises) sawBootBy(r store.Runner) {
	l := p.locks[r.Lock]
	if r.State != store.RunnerNew || !l.Names(r.ID) || l.State != store.LockLaunching || p.calls.placed[call{r.ID, r.Index}] {
		return
	}
	p.calls.placed[call{r.ID, r.Index}] = true
	limit := p.Limits.BootLimit
	if r.Placement().InstanceType == setting.SlowType {
		limit = setting.SlowBoot * time.Second
	}
	p.hold(BootsBy, !l.BootBy.Before(r.UpdatedAt.Add(limit-slack-worker.Timeout)), "runner %s goes to %s at %s, and has to boot by %s", r.ID, r.Placement(), r.UpdatedAt, l.BootBy)
}

// suits looks at whether a machine is as a request asked.
func (p launchPromises) suits(r store.Request, o store.LaunchOptions, tags map[string]string) {
	want := r.Machine.RootVolumeGB
	p.hold(Suited, want == 0 || o.RootVolume.SizeGB == want && o.RootDevice != "", "request %s asked for %d GiB, and gets %+v", r.ID, want, o)
	got := maps.Clone(tags)
	maps.DeleteFunc(got, func(k, v string) bool { return r.Machine.Tags[k] != v })
	p.hold(Suited, len(got) == len(r.Machine.Tags), "request %s asked for tags %v, and gets %v", r.ID, r.Machine.Tags, tags)
	p.hold(Suited, r.Machine.Tags["job"] != "" || tags["job"] == "", "request %s asked for no tag, and gets %v", r.ID, tags)
}

// fits looks at whether an instance type is one that a request named, or has what it asked
// for, within the rules that the registration of every world has.
func (p launchPromises) fits(r store.Request, name string) {
	m := r.Machine
	named := m.InstanceTypes
	if m.CPU+m.GPU+m.MemoryGB == 0 && m.Arch == "" && len(named) == 0 {
		named = p.Account.DefaultInstanceTypes
	}
	if len(named) > 0 {
		p.hold(Suited, slices.Contains(named, name), "request %s is for one of %q, and gets %s", r.ID, named, name)
		return
	}
	i := slices.IndexFunc(simfleet.InstanceTypes, func(t store.InstanceType) bool { return t.Name == name })
	if i < 0 {
		p.hold(Suited, false, "request %s gets the instance type %s, which EC2 does not have", r.ID, name)
		return
	}
	t, rules, arch := simfleet.InstanceTypes[i], p.Account.InstanceRequirements, cmp.Or(m.Arch, store.X86)
	p.hold(Suited, t.VCPUs >= m.CPU && t.VCPUs <= rules.VCPUs.Max && t.GPUs >= m.GPU && (m.GPU > 0 || t.GPUs == 0) && slices.Contains(t.Arch, arch) && !t.Special && !strings.HasPrefix(name, "t3a."),
		"request %s asked for %d vCPUs, %d GPUs and %q, and gets %+v", r.ID, m.CPU, m.GPU, arch, t)
}
