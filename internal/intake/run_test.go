package intake_test

import (
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestRunOfAPlainJobIsAskedAsATokenIs(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*store.Account, *store.Offer, *store.Request, *store.WorkflowRun)
		want string // a part of the reason; empty: allowed
	}{
		{"Push", func(*store.Account, *store.Offer, *store.Request, *store.WorkflowRun) {}, ""},
		{"NotRegistered", func(a *store.Account, _ *store.Offer, _ *store.Request, _ *store.WorkflowRun) {
			a.Repositories, a.Owners = []store.Named{{ID: "99", Name: "o/z"}}, nil
		}, "does not serve"},
		{"WhatTheAccountDoesNotOffer", func(_ *store.Account, _ *store.Offer, r *store.Request, _ *store.WorkflowRun) {
			r.Machine.InstanceTypes = []string{"p5.48xlarge"}
		}, "instance_types not allowed"},
		{"Fork", func(_ *store.Account, _ *store.Offer, _ *store.Request, run *store.WorkflowRun) {
			run.HeadRepository = "77"
		}, "code of a fork"},
		{"ForkThatIsGone", func(_ *store.Account, _ *store.Offer, _ *store.Request, run *store.WorkflowRun) {
			run.HeadRepository = ""
		}, "code of a fork"},
		{"ForkOptedIn", func(a *store.Account, _ *store.Offer, _ *store.Request, run *store.WorkflowRun) {
			a.Allow.Forks, run.HeadRepository = true, "77"
		}, ""},
		{"Public", func(_ *store.Account, o *store.Offer, _ *store.Request, run *store.WorkflowRun) {
			*o, run.Public = store.Offer{Pin: "p-"}, true
		}, "public repository"},
		{"PublicByPin", func(a *store.Account, o *store.Offer, _ *store.Request, run *store.WorkflowRun) {
			*o, run.Public, a.Allow.PublicRepositories = store.Offer{Pin: "p-"}, true, true
		}, ""},
		{"PublicByLabel", func(a *store.Account, _ *store.Offer, _ *store.Request, run *store.WorkflowRun) {
			run.Public, a.Allow.PublicRepositories = true, true
		}, "public repository, plain label"},
		{"PullRequestTarget", func(_ *store.Account, _ *store.Offer, _ *store.Request, run *store.WorkflowRun) {
			run.Event = "pull_request_target"
		}, "event pull_request_target not allowed"},
		{"Dependabots", func(_ *store.Account, _ *store.Offer, _ *store.Request, run *store.WorkflowRun) {
			run.Event = "dynamic"
		}, "event dynamic not allowed"},
		{"DependabotsOptedIn", func(a *store.Account, _ *store.Offer, _ *store.Request, run *store.WorkflowRun) {
			a.Allow.Events, run.Event = []string{"dynamic"}, "dynamic"
		}, ""},
		{"NoEvent", func(_ *store.Account, _ *store.Offer, _ *store.Request, run *store.WorkflowRun) { run.Event = "" }, "not allowed"},
		{"EventOfTheOffer", func(_ *store.Account, o *store.Offer, _ *store.Request, _ *store.WorkflowRun) {
			o.Only.Events = []string{"schedule", "push"}
		}, ""},
		{"EventNotOfTheOffer", func(_ *store.Account, o *store.Offer, _ *store.Request, _ *store.WorkflowRun) {
			o.Only.Events = []string{"schedule"}
		}, "event not of the offer"},
		{"RepositoryNotOfTheOffer", func(_ *store.Account, o *store.Offer, _ *store.Request, _ *store.WorkflowRun) {
			o.Only.Repositories = []store.Named{{ID: "43", Name: "alphagov/y"}}
		}, "repository not of the offer"},
		{"RefsProveNothing", func(a *store.Account, _ *store.Offer, _ *store.Request, _ *store.WorkflowRun) {
			a.Only.Refs = []string{"refs/heads/main"}
		}, "conditions that nothing proves"},
		{"NoEnvironmentIsNoProof", func(a *store.Account, _ *store.Offer, _ *store.Request, _ *store.WorkflowRun) {
			a.Only.Environments = []string{""}
		}, "conditions that nothing proves"},
	} {
		repo := store.Repository{ID: "42", Name: "alphagov/x", OwnerID: "7", Owner: "alphagov"}
		a := store.Account{
			ID: "123456789012", Repositories: []store.Named{{ID: "42", Name: "alphagov/x"}},
			Regions:       map[string]store.Region{"eu-west-2": {Subnets: []string{"s1"}, Images: []string{"ami-1"}}},
			InstanceTypes: []string{"c7i.large"}, Markets: []string{store.Spot}, Modes: []string{store.Ephemeral},
		}
		o := store.Offer{Labels: []string{"garo"}}
		r := store.Request{Account: a.ID, Repository: repo, Region: "eu-west-2", Type: store.Spot, Mode: store.Ephemeral, TimeoutS: 60}
		run := store.WorkflowRun{Event: "push", HeadRepository: "42"}
		c.edit(&a, &o, &r, &run)
		no := intake.RunAllowed(store.DefaultLimits(), a, o, r, run)
		if got := reason(no); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: RunAllowed = %q, want %q", c.name, got, c.want)
		}
		if no != nil && no.Text == "" {
			t.Errorf("%s: the refusal %q does not say what to do", c.name, no.Reason)
		}
	}
}

func reason(no *intake.Refusal) string {
	if no == nil {
		return ""
	}
	return no.Reason
}
