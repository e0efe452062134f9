package promise

import (
	"maps"
	"reflect"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about what a machine is made of.
const (
	Suited   Promise = "a machine is what each request that gets it asked for"
	OwnTags  Promise = "nobody but us says whose a machine is"
	SameCall Promise = "whoever repeats a launch repeats it to the byte"
)

// sawOptions looks at a call for a runner that is recorded: it is as the request asked,
// ours by its tags, and as the calls before it with that token.
func (p launchPromises) sawOptions(l fleet.Launch, r store.Runner) {
	if asked := p.requests[r.Request]; asked.Version != 0 {
		p.suits(asked, l.Options, l.Tags)
	}
	p.hold(OwnTags, l.Tags[fleet.TagControlPlane] == setting.ControlPlane && l.Tags[fleet.TagRequest] == r.Request && l.Tags[fleet.TagRunner] == r.ID,
		"runner %s for request %s is launched with tags %v", r.ID, r.Request, l.Tags)
	first, known := p.calls.first[l.ClientToken]
	p.hold(SameCall, !known || reflect.DeepEqual(first, l), "token %s was used for %+v, and is for %+v", l.ClientToken, first, l)
	p.calls.first[l.ClientToken] = l
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
