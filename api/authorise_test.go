package api_test

import (
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// ask is what Authorize decides about.
type ask struct {
	caller  api.Caller
	account store.Account
	request store.Request
}

func allowed() ask {
	return ask{workflow, registration(), store.Request{
		Repository: store.Repository{ID: "1001", Name: "alphagov/demo", OwnerID: "55", Owner: "alphagov"},
		Account:    accountID, Region: region, Type: store.Spot, Mode: store.Shared, TimeoutS: 3600,
	}}
}

func (a ask) verdict() api.Verdict {
	return api.Authorize(store.DefaultLimits(), a.caller, a.account, a.request)
}

func TestAuthorizeAllowsARegisteredWorkflow(t *testing.T) {
	if v := allowed().verdict(); !v.Allowed || v.Reason == "" {
		t.Errorf("Authorize = %+v, want it allowed, with a reason", v)
	}
}

func TestAuthorizeDenies(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*ask)
		reason string
		field  string
	}{
		"no caller":             {func(a *ask) { a.caller = api.Caller{} }, "kind of caller", ""},
		"unknown kind":          {func(a *ask) { a.caller.Kind = "Operator" }, "kind of caller", ""},
		"operator without name": {func(a *ask) { a.caller = api.Caller{Kind: api.Operator} }, "without a name", ""},

		"no repository_id":                          {func(a *ask) { a.caller.Claims.RepositoryID = "" }, "repository_id", ""},
		"repository_id with a space":                {func(a *ask) { a.caller.Claims.RepositoryID = "1001 " }, "repository_id", ""},
		"repository_id of digits that only look so": {func(a *ask) { a.caller.Claims.RepositoryID = "１００１" }, "repository_id", ""},
		"another repository_id":                     {func(a *ask) { a.caller.Claims.RepositoryID = "1002" }, "another repository", "repo"},
		"no owner id":                               {func(a *ask) { a.caller.Claims.OwnerID = "" }, "repository_owner_id", ""},
		"another owner id":                          {func(a *ask) { a.caller.Claims.OwnerID = "56" }, "another repository", "repo"},
		"no repository":                             {func(a *ask) { a.caller.Claims.Repository = "" }, "claim repository", ""},
		"repository with a path":                    {func(a *ask) { a.caller.Claims.Repository = "alphagov/demo/x" }, "claim repository", ""},
		"no owner":                                  {func(a *ask) { a.caller.Claims.Owner = "" }, "repository_owner", ""},
		"no run":                                    {func(a *ask) { a.caller.Claims.RunID = "" }, "run_id", ""},
		"run that is no number":                     {func(a *ask) { a.caller.Claims.RunID = "7001x" }, "run_id", ""},
		"no attempt":                                {func(a *ask) { a.caller.Claims.RunAttempt = "" }, "run_attempt", ""},
		"check run that is no number":               {func(a *ask) { a.caller.Claims.CheckRunID = "x" }, "check_run_id", ""},
		"no actor":                                  {func(a *ask) { a.caller.Claims.Actor = "" }, "actor", ""},
		"no event":                                  {func(a *ask) { a.caller.Claims.Event = "" }, "event_name", ""},
		"event in another case":                     {func(a *ask) { a.caller.Claims.Event = "Pull_Request_Target" }, "event_name", ""},
		"pull_request_target":                       {func(a *ask) { a.caller.Claims.Event = "pull_request_target" }, "event pull_request_target not allowed", ""},
		"workflow_run":                              {func(a *ask) { a.caller.Claims.Event = "workflow_run" }, "event workflow_run not allowed", ""},
		"issue_comment":                             {func(a *ask) { a.caller.Claims.Event = "issue_comment" }, "event issue_comment not allowed", ""},
		"event that nobody knows":                   {func(a *ask) { a.caller.Claims.Event = "dancing" }, "event dancing not allowed", ""},
		"workflow_call is no run's event":           {func(a *ask) { a.caller.Claims.Event = "workflow_call" }, "event workflow_call not allowed", ""},
		"dynamic":                                   {func(a *ask) { a.caller.Claims.Event = "dynamic" }, "event dynamic not allowed", ""},
		"event of strangers, opted in as public only": {func(a *ask) {
			a.caller.Claims.Visibility, a.account.Allow.PublicRepositories, a.request.Mode = "public", true, store.Ephemeral
			a.caller.Claims.Event, a.request.Origin.Event = "issues", "push"
		}, "event issues not allowed", ""},
		"another event than the one that is opted in": {func(a *ask) {
			a.caller.Claims.Event, a.account.Allow.Events = "fork", []string{"issues"}
		}, "event fork not allowed", ""},
		"no visibility":              {func(a *ask) { a.caller.Claims.Visibility = "" }, "repository_visibility", ""},
		"visibility in another case": {func(a *ask) { a.caller.Claims.Visibility = "Private" }, "repository_visibility", ""},
		"public":                     {func(a *ask) { a.caller.Claims.Visibility = "public" }, "public repository", ""},
		"public, ephemeral": {func(a *ask) {
			a.caller.Claims.Visibility, a.request.Mode = "public", store.Ephemeral
		}, "public repository", ""},
		"public and allowed, but shared": {func(a *ask) {
			a.caller.Claims.Visibility, a.account.Allow.PublicRepositories = "public", true
		}, "public repository, shared", "mode"},
		"no runner environment":      {func(a *ask) { a.caller.Claims.RunnerEnvironment = "" }, "runner_environment", ""},
		"another runner environment": {func(a *ask) { a.caller.Claims.RunnerEnvironment = "github_hosted" }, "runner_environment", ""},
		"self-hosted":                {func(a *ask) { a.caller.Claims.RunnerEnvironment = "self-hosted" }, "self-hosted", ""},

		"of another GitHub server":         {func(a *ask) { a.caller.Claims.Server = "ghe.test" }, "another repository", "repo"},
		"for an account of another server": {func(a *ask) { a.account.Server = "ghe.test" }, "does not serve", "account_id"},
		"ref not admitted":                 {func(a *ask) { a.account.Only.Refs = []string{"refs/heads/other", "refs/tags/"} }, "claim ref not admitted", ""},
		"ref that only begins alike": {func(a *ask) {
			a.account.Only.Refs, a.caller.Claims.Ref = []string{"refs/heads/main"}, "refs/heads/main-evil"
		}, "claim ref not admitted", ""},
		"no ref":                      {func(a *ask) { a.account.Only.Refs, a.caller.Claims.Ref = []string{"refs/heads/"}, "" }, "claim ref not admitted", ""},
		"a lone slash admits nothing": {func(a *ask) { a.account.Only.Refs, a.caller.Claims.Ref = []string{"/"}, "/x" }, "claim ref not admitted", ""},
		"environment not admitted":    {func(a *ask) { a.account.Only.Environments, a.caller.Claims.Environment = []string{"prod"}, "prod2" }, "environment not admitted", ""},
		"no environment":              {func(a *ask) { a.account.Only.Environments, a.caller.Claims.Environment = []string{"prod"}, "" }, "environment not admitted", ""},
		"job_workflow_ref not admitted": {func(a *ask) {
			a.account.Only.JobWorkflowRefs, a.caller.Claims.JobWorkflowRef = []string{"acme/ci/"}, "acme/ci-evil/x@y"
		}, "job_workflow_ref not admitted", ""},
		"property missing": {func(a *ask) { a.account.Only.Properties = map[string]string{"tier": "1"} }, "property tier not admitted", ""},
		"property of another value": {func(a *ask) {
			a.account.Only.Properties, a.caller.Claims.Properties = map[string]string{"tier": "1"}, map[string]string{"tier": "11"}
		}, "property tier not admitted", ""},
		"property empty where it must be there": {func(a *ask) { a.account.Only.Properties = map[string]string{"tier": ""} }, "property tier not admitted", ""},

		"account without repositories": {func(a *ask) { a.account.Repositories = nil }, "does not serve", "account_id"},
		"account of another repository of that name": {func(a *ask) {
			a.account.Repositories = []store.Named{{ID: "9", Name: "alphagov/demo"}}
		}, "does not serve", "account_id"},
		"account of another owner of that name": {func(a *ask) {
			a.account.Repositories, a.account.Owners = nil, []store.Named{{ID: "9", Name: "alphagov"}}
		}, "does not serve", "account_id"},
		"no account":                {func(a *ask) { a.account = store.Account{} }, "does not serve", "account_id"},
		"request for no repository": {func(a *ask) { a.request.Repository = store.Repository{} }, "another repository", "repo"},
		"request for another":       {func(a *ask) { a.request.Repository.ID = "1002" }, "another repository", "repo"},
		"region":                    {func(a *ask) { a.request.Region = "us-east-1" }, "region not allowed", "region"},
		"market":                    {func(a *ask) { a.account.Markets = []string{store.OnDemand} }, "type not allowed", "type"},
		"no market":                 {func(a *ask) { a.request.Type = "" }, "type not allowed", "type"},
		"mode":                      {func(a *ask) { a.account.Modes = []string{store.Ephemeral} }, "mode not allowed", "mode"},
		"instance type":             {func(a *ask) { a.request.Machine.InstanceTypes = []string{"p5.48xlarge"} }, "instance_types", "instance_types"},
		"image":                     {func(a *ask) { a.request.Machine.Image = "ami-2" }, "image_id", "image_id"},
		"subnet of another region":  {func(a *ask) { a.request.Machine.Subnets = []string{"subnet-c1"} }, "subnets", "subnets"},
		"group of another region":   {func(a *ask) { a.request.Machine.SecurityGroups = []string{"sg-2"} }, "security_groups", "security_groups"},
		"timeout":                   {func(a *ask) { a.request.TimeoutS = 7201 }, "timeout", "timeout"},
		"operator for an unregistered repository": {func(a *ask) {
			a.caller, a.request.Repository.ID, a.request.Repository.OwnerID = api.Caller{Kind: api.Operator, Name: "ann"}, "9", ""
		}, "does not serve", "account_id"},
		"operator for no repository": {func(a *ask) {
			a.caller, a.request.Repository = api.Caller{Kind: api.Operator, Name: "ann"}, store.Repository{}
		}, "does not serve", "account_id"},
		"operator outside what the account allows": {func(a *ask) {
			a.caller, a.request.Region = api.Caller{Kind: api.Operator, Name: "ann"}, "us-east-1"
		}, "region not allowed", "region"},
	} {
		t.Run(name, func(t *testing.T) {
			a := allowed()
			tc.change(&a)
			v := a.verdict()
			if v.Allowed || !strings.Contains(v.Reason, tc.reason) || v.Field != tc.field || v.Text == "" {
				t.Errorf("Authorize = %+v, want it denied for %q, field %q, with a text", v, tc.reason, tc.field)
			}
		})
	}
}

func TestAuthorizeAllowsWhatTheAccountOptsInTo(t *testing.T) {
	for name, change := range map[string]func(*ask){
		"internal":     func(a *ask) { a.caller.Claims.Visibility = "internal" },
		"no check run": func(a *ask) { a.caller.Claims.CheckRunID = "" },
		"pull_request": func(a *ask) { a.caller.Claims.Event = "pull_request" },
		"an event by its name": func(a *ask) {
			a.caller.Claims.Event, a.account.Allow.Events = "issues", []string{"fork", "issues"}
		},
		"pull_request_target by its name": func(a *ask) {
			a.caller.Claims.Event, a.account.Allow.Events = "pull_request_target", []string{"pull_request_target"}
		},
		"by owner": func(a *ask) {
			a.account.Repositories, a.account.Owners = nil, []store.Named{{ID: "55", Name: "old-name"}}
		},
		"renamed":             func(a *ask) { a.account.Repositories = []store.Named{{ID: "1001", Name: "alphagov/old"}} },
		"operator":            func(a *ask) { a.caller = api.Caller{Kind: api.Operator, Name: "ann"} },
		"pull_request_target": func(a *ask) { a.caller.Claims.Event, a.account.Allow.PullRequestTarget = "pull_request_target", true },
		"workflow_run":        func(a *ask) { a.caller.Claims.Event, a.account.Allow.WorkflowRun = "workflow_run", true },
		"issue_comment":       func(a *ask) { a.caller.Claims.Event, a.account.Allow.IssueComment = "issue_comment", true },
		"self-hosted": func(a *ask) {
			a.caller.Claims.RunnerEnvironment, a.account.Allow.SelfHostedCallers = "self-hosted", true
		},
		"another server, and an account of it": func(a *ask) {
			a.account.Server = "ghe.test"
			a.caller.Claims.Server, a.request.Repository.Server = a.account.Server, a.account.Server
		},
		"all conditions fulfilled": func(a *ask) {
			a.account.Only = store.Conditions{
				Refs: []string{"refs/heads/main", "refs/tags/"}, Environments: []string{"prod"},
				JobWorkflowRefs: []string{"acme/ci/"}, Properties: map[string]string{"tier": "1"},
			}
			a.caller.Claims.Ref, a.caller.Claims.Environment = "refs/tags/v1", "prod"
			a.caller.Claims.JobWorkflowRef = "acme/ci/.github/workflows/build.yml@refs/heads/main"
			a.caller.Claims.Properties = map[string]string{"tier": "1", "team": "x"}
		},
		"conditions do not bind operators": func(a *ask) {
			a.caller, a.account.Only.Refs = api.Caller{Kind: api.Operator, Name: "ann"}, []string{"refs/heads/main"}
		},
		"public": func(a *ask) {
			a.caller.Claims.Visibility, a.account.Allow.PublicRepositories, a.request.Mode = "public", true, store.Ephemeral
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := allowed()
			change(&a)
			if v := a.verdict(); !v.Allowed {
				t.Errorf("Authorize = %+v, want it allowed", v)
			}
		})
	}
}

// Each opt-in opens one door and no other.
func TestOptInsDoNotStandForEachOther(t *testing.T) {
	doors := map[string]struct {
		open  func(*store.Allow)
		knock func(*ask)
	}{
		"public_repositories": {func(a *store.Allow) { a.PublicRepositories = true }, func(a *ask) {
			a.caller.Claims.Visibility, a.request.Mode = "public", store.Ephemeral
		}},
		"pull_request_target": {func(a *store.Allow) { a.PullRequestTarget = true }, func(a *ask) { a.caller.Claims.Event = "pull_request_target" }},
		"workflow_run":        {func(a *store.Allow) { a.WorkflowRun = true }, func(a *ask) { a.caller.Claims.Event = "workflow_run" }},
		"issue_comment":       {func(a *store.Allow) { a.IssueComment = true }, func(a *ask) { a.caller.Claims.Event = "issue_comment" }},
		"self_hosted_callers": {func(a *store.Allow) { a.SelfHostedCallers = true }, func(a *ask) { a.caller.Claims.RunnerEnvironment = "self-hosted" }},
	}
	for opened, o := range doors {
		for knocked, k := range doors {
			a := allowed()
			o.open(&a.account.Allow)
			k.knock(&a)
			v := a.verdict()
			if v.Allowed != (opened == knocked) {
				t.Errorf("Authorize of %s with allow.%s = %+v, want allowed %t", knocked, opened, v, opened == knocked)
			}
			if !v.Allowed && !strings.Contains(v.Text, "allow."+knocked) {
				t.Errorf("text for %s = %q, want it to name allow.%s", knocked, v.Text, knocked)
			}
		}
	}
}
