package oidc

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
)

// Claims are what GitHub vouches for in the token of a job, each as the claim
// says it. Ids are numbers in decimal and decide; names can be given up and taken
// over. Names that people choose can hold any character.
//
// The claim sub is left out, so that nobody decides by it: its form depends on
// the age and the settings of the repository.
type Claims struct {
	Issuer   string    // iss: which ids are meant, if there are several GitHub servers
	ID       string    // jti: of this token
	IssuedAt time.Time // iat
	Expires  time.Time // exp

	Repository   string // owner/name
	RepositoryID string
	Owner        string // repository_owner: an organisation or a user
	OwnerID      string // repository_owner_id
	Visibility   string // repository_visibility: public, private or internal
	Enterprise   string // empty: the owner belongs to none
	EnterpriseID string

	RunID      string
	RunNumber  string // counts a workflow's runs
	RunAttempt string // counts from 1 when a run is repeated
	CheckRunID string // tells the jobs of a run apart; empty: the server does not have it yet
	Actor      string // who started the run
	ActorID    string
	Event      string // event_name: what started the run

	Ref     string // such as refs/heads/main; empty: the event has none
	RefType string // branch or tag
	BaseRef string // of pull requests
	HeadRef string // of pull requests

	Workflow       string // its name
	WorkflowRef    string // its file, as owner/name/path@ref
	WorkflowSHA    string
	JobWorkflowRef string // as WorkflowRef, of the reusable workflow that the job is in
	JobWorkflowSHA string

	Environment       string // of deployments; empty: the job has none
	RunnerEnvironment string // github-hosted or self-hosted

	// Properties are the repository's custom properties that its organisation puts
	// into tokens, by name without repo_property_. One with several values has
	// commas between them, a boolean is true or false.
	Properties map[string]string
}

const property = "repo_property_"

const nameClass = form.Letter + form.Digit + "__--"

// The forms of claims. What else there is, is text of at most maxText bytes.
var (
	idForm    = form.GitHubID
	ownerForm = form.Form{{Of: nameClass, Min: 1, Max: 100}}
	repoForm  = form.Form{{Of: nameClass, Min: 1, Max: 100}, {Text: "/", Of: nameClass + "..", Min: 1, Max: 100}}
)

// read fills in the claims that say whose token it is. Required are those that
// tell the repository, the job and who started it: every GitHub server has them.
func (c *Claims) read(o object) error {
	for _, f := range []struct {
		name     string
		to       *string
		form     form.Form
		required bool
	}{
		{"jti", &c.ID, nil, true},
		{"repository", &c.Repository, repoForm, true},
		{"repository_id", &c.RepositoryID, idForm, true},
		{"repository_owner", &c.Owner, ownerForm, true},
		{"repository_owner_id", &c.OwnerID, idForm, true},
		{"repository_visibility", &c.Visibility, nil, true},
		{"enterprise", &c.Enterprise, nil, false},
		{"enterprise_id", &c.EnterpriseID, idForm, false},
		{"run_id", &c.RunID, idForm, true},
		{"run_number", &c.RunNumber, idForm, false},
		{"run_attempt", &c.RunAttempt, idForm, true},
		{"check_run_id", &c.CheckRunID, idForm, false},
		{"actor", &c.Actor, nil, true},
		{"actor_id", &c.ActorID, idForm, true},
		{"event_name", &c.Event, nil, true},
		{"ref", &c.Ref, nil, false},
		{"ref_type", &c.RefType, nil, false},
		{"base_ref", &c.BaseRef, nil, false},
		{"head_ref", &c.HeadRef, nil, false},
		{"workflow", &c.Workflow, nil, false},
		{"workflow_ref", &c.WorkflowRef, nil, false},
		{"workflow_sha", &c.WorkflowSHA, nil, false},
		{"job_workflow_ref", &c.JobWorkflowRef, nil, false},
		{"job_workflow_sha", &c.JobWorkflowSHA, nil, false},
		{"environment", &c.Environment, nil, false},
		{"runner_environment", &c.RunnerEnvironment, nil, true},
	} {
		read := o.text
		if f.required {
			read = o.needed
		}
		value, err := read(f.name)
		if err != nil {
			return err
		}
		if value != "" && f.form != nil && !f.form.Fits(value) {
			return refuse(CauseClaim, "claim %s is not of its form", f.name)
		}
		*f.to = value
	}
	if !strings.HasPrefix(c.Repository, c.Owner+"/") {
		return refuse(CauseClaim, "claims repository and repository_owner do not agree")
	}
	return c.readProperties(o)
}

func (c *Claims) readProperties(o object) error {
	for _, name := range slices.Sorted(maps.Keys(o)) {
		key, ok := strings.CutPrefix(name, property)
		if !ok {
			continue
		}
		value, err := o.text(name)
		if err != nil || key == "" {
			return refuse(CauseClaim, "a claim that begins %s is not of its form", property)
		}
		if c.Properties == nil {
			c.Properties = map[string]string{}
		}
		c.Properties[key] = value
	}
	return nil
}
