package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// images are those that a request may have, each an AMI id or the path of an SSM parameter,
// of which it gets the first that is of an architecture. An empty one is any: then there is
// one image, as the caller or the registration names it.
type images struct {
	names []string
	arch  string
}

// imagesOf returns the images that a request may have.
func imagesOf(req store.Request, a store.Account) images {
	offered := a.Regions[req.Region].Images
	_, arch, _ := a.Chooses(req.Machine)
	switch {
	case req.Machine.Image != "":
		return images{[]string{req.Machine.Image}, arch}
	case arch == "":
		return images{offered[:min(1, len(offered))], ""}
	}
	return images{offered, arch}
}

// String names them for people.
func (i images) String() string { return strings.Join(i.names, " or ") }

// byPath reports whether a parameter names any of them.
func (i images) byPath() bool {
	return slices.ContainsFunc(i.names, func(name string) bool { return strings.HasPrefix(name, "/") })
}

// registration returns the registration that a machine for the request is launched by.
// false: none can be, now or ever, which is decided.
func (r *round) registration(ctx context.Context, s *start, req *store.Request) (store.Account, bool) {
	account, err := r.account(ctx, req.Account)
	switch {
	case errors.Is(err, store.ErrNoAccount), err == nil && account.Closed:
		r.refuse(s, req, store.NewEnd(store.EndNoAccount))
		return account, false
	case err != nil:
		if !errors.Is(err, store.ErrUnusable) { // who reads registrations tells people of their faults
			r.alarm(store.AlarmAccess, "registration cannot be read", "account", req.Account, "request", req.ID, "trace", req.Trace, "error", err)
		}
		r.hold(ctx, s, req, store.Wait{For: store.WaitOutage, Until: r.now.Add(r.Limits.Waits[0])})
		return account, false
	}
	if req.Tries > 0 { // the last try may have failed since our keys are old ones
		if _, err := r.freshKeys(ctx); err != nil {
			r.Log.Warn("launches with the keys that are known", "request", req.ID, "trace", req.Trace, "error", err)
		}
	}
	return account, true
}

// freeze resolves everything that the launch of a runner is made of.
func (r *round) freeze(ctx context.Context, req store.Request, a store.Account, runner string) (store.Launch, error) {
	region := a.Regions[req.Region]
	images := imagesOf(req, a)
	options, tags := a.Options(req)
	on, err := suited(ctx, fleet.Place{Account: req.Account, Region: req.Region}, images, options, r.image)
	if err != nil {
		return store.Launch{}, fmt.Errorf("image %s: %w", images, err)
	}
	groups := req.Machine.SecurityGroups
	if len(groups) == 0 {
		groups = region.SecurityGroups
	}
	maps.Copy(tags, map[string]string{ // ours count, whatever the registration has
		"Name":                "garo " + req.Repository.Name,
		fleet.TagControlPlane: r.ControlPlane,
		fleet.TagRunner:       runner,
		fleet.TagRequest:      req.ID,
		fleet.TagRepository:   req.Repository.Name,
	})
	return store.Launch{
		Image: on.ami, SecurityGroups: groups, InstanceProfile: region.InstanceProfile, Tags: tags, Options: on.options(options),
		Script: bootstrap.Current, APIURL: r.APIURL, AgentSHA256: r.Agents,
		HardS: int(a.Hard(r.Limits) / time.Second), KeyID: r.keys().Current(), Vouched: true,
	}, nil
}

// wanted is an image to resolve, by its AMI id or the path of an SSM parameter, and whether
// its root volume is to be known too.
type wanted struct {
	at    fleet.Place
	image string
	root  bool
}

// resolved is what a wanted image stands for.
type resolved struct {
	ami  string
	root *store.Root // nil: it was not asked for
}

// options returns the options on the image, with its root volume if they say how that is
// to be.
func (r resolved) options(o store.LaunchOptions) store.LaunchOptions {
	if r.root == nil || o.RootVolume == (store.Volume{}) {
		return o
	}
	return o.On(*r.root)
}

// suited returns the first of the images that is of their architecture. resolve is how one
// is resolved.
func suited(ctx context.Context, at fleet.Place, i images, o store.LaunchOptions, resolve func(context.Context, wanted) (resolved, error)) (resolved, error) {
	for _, name := range i.names {
		on, err := resolve(ctx, wanted{at, name, i.arch != "" || o.RootVolume != store.Volume{}})
		if err != nil || i.arch == "" || on.root.Arch == "" || on.root.Arch == i.arch {
			return on, err
		}
	}
	return resolved{}, &fleet.Error{Kind: fleet.ErrRefused, Code: "NoImage", Text: fmt.Sprintf("None of the images of the registration in %s is for %s (%s). Name one there, or ask for another arch.", at, i.arch, i)}
}

// image is resolve, once in a round: a batch mostly wants one image.
func (r *round) image(ctx context.Context, w wanted) (resolved, error) {
	if known, ok := r.images[w]; ok {
		return known, nil
	}
	on, err := r.resolve(ctx, w)
	if err == nil {
		r.images[w] = on
	}
	return on, err
}

// resolve returns what an image stands for. An AMI that is gone is read from its parameter
// again, once.
func (in *invocation) resolve(ctx context.Context, w wanted) (resolved, error) {
	for again := false; ; again = true {
		ami, err := in.Fleet.Image(ctx, w.at, w.image)
		if err != nil || !w.root {
			return resolved{ami: ami}, err
		}
		root, err := in.Fleet.RootVolume(ctx, w.at, ami)
		switch {
		case err == nil:
			return resolved{ami, &root}, nil
		case again || !errors.Is(err, fleet.ErrImage) || !strings.HasPrefix(w.image, "/"):
			return resolved{}, err
		}
	}
}

// unvouched refuses a request for a machine in a region where none could ever boot.
func (r *round) unvouched(s *start, req *store.Request) {
	r.alarm(store.AlarmAccess, "region without a certificate of AWS", "account", req.Account, "region", req.Region, "request", req.ID, "trace", req.Trace)
	r.refuse(s, req, store.Failure{Code: store.EndLaunchDenied, Text: "This version of GARO has no certificate of AWS for the region " + req.Region +
		", by which a machine there could prove what it is. Name another region, or have GARO brought up to date."})
}
