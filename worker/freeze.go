package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// imageOf returns the image that a request is to have, an AMI id or the path of an
// SSM parameter.
func imageOf(req store.Request, region store.Region) string {
	if req.Machine.Image == "" && len(region.Images) > 0 {
		return region.Images[0]
	}
	return req.Machine.Image
}

// freeze resolves everything that the launch of a runner is made of.
func (in *invocation) freeze(ctx context.Context, req store.Request, a store.Account, runner string) (store.Launch, error) {
	region := a.Regions[req.Region]
	image := imageOf(req, region)
	ami, err := in.Fleet.Image(ctx, fleet.Place{Account: req.Account, Region: req.Region}, image)
	if err != nil {
		return store.Launch{}, fmt.Errorf("image %s: %w", image, err)
	}
	groups := req.Machine.SecurityGroups
	if len(groups) == 0 {
		groups = region.SecurityGroups
	}
	return store.Launch{
		Image: ami, SecurityGroups: groups, InstanceProfile: region.InstanceProfile,
		Tags: map[string]string{
			"Name":                "garo " + req.Repository.Name,
			fleet.TagControlPlane: in.ControlPlane,
			fleet.TagRunner:       runner,
			fleet.TagRequest:      req.ID,
			fleet.TagRepository:   req.Repository.Name,
		},
		Script: bootstrap.Current, APIURL: in.APIURL, AgentSHA256: in.Agents,
		HardS: int(a.Hard(in.Limits) / time.Second), KeyID: in.Keys.Current(), Vouched: true,
	}, nil
}

// unvouched refuses a request for a machine in a region where none could ever boot.
func (r *round) unvouched(s *start, req *store.Request) {
	r.alarm(store.AlarmAccess, "region without a certificate of AWS", "account", req.Account, "region", req.Region, "request", req.ID, "trace", req.Trace)
	r.refuse(s, req, store.Failure{Code: store.EndLaunchDenied, Text: "This version of GARO has no certificate of AWS for the region " + req.Region +
		", by which a machine there could prove what it is. Name another region, or have GARO brought up to date."})
}
