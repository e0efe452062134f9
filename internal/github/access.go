package github

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	gogithub "github.com/google/go-github/v88/github"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// errand is one call: what it asks for, of whom, and by which right.
type errand struct {
	op   op
	what string // for people
	id   string // of the repository or the organization that it is about
	// root is the path that all of the call is below. GitHub documents paths by names,
	// and redirects calls by a repository's former name to its id, which no other one can
	// take over. Its own links to what an organization has are by id too; a call by a
	// former name of an organization is answered with 404
	// (https://docs.github.com/en/organizations/managing-organization-settings/renaming-an-organization).
	root   string
	access Access
}

// errand returns the errand of a call about the runners of a scope, one of which may be
// its object.
func (in Scope) errand(op op, object string) errand {
	root := "repositories/" + in.ID
	if in.Organization {
		root = "organizations/" + in.ID
	}
	return errand{op: op, what: describe(op, object, in.Name), id: in.ID, root: root + "/actions/runners", access: in.Access()}
}

// errand returns the errand of a call about the workflow runs of a repository.
func (r Repository) errand(op op, object string, right Right) errand {
	a := Access{Account: r.Account, Name: r.Name, Right: right}
	if right == CancelRuns {
		a.Repository = r.ID
	}
	return errand{op: op, what: describe(op, object, r.Name), id: r.ID, root: "repositories/" + r.ID + "/actions", access: a}
}

// Access is what a call needs a credential for.
type Access struct {
	Account string // the AWS account whose registration names the credential
	// Credential is which one, as store.Account.CredentialName has it. Empty: the account's
	// main one, or with AsApp its App.
	Credential string
	// Repository is the id of the one repository that the credential is for, if it is for one.
	Repository string
	Name       string // of the repository or the organization, for people's messages only
	Right      Right
}

// Access returns what calls about the runners of a scope need a credential for.
func (s Scope) Access() Access {
	if s.Organization {
		return Access{Account: s.Account, Credential: s.Credential, Name: s.Name, Right: OrganizationRunners}
	}
	return Access{Account: s.Account, Credential: s.Credential, Repository: s.ID, Name: s.Name, Right: RepositoryRunners}
}

// Right is what a call may do: the permission of an App that it takes.
type Right string

// The rights.
const (
	RepositoryRunners   Right = "administration: write"                   // of one repository
	OrganizationRunners Right = "organization_self_hosted_runners: write" // of the installation's organization
	ReadJobs            Right = "actions: read"                           // in all repositories of the installation
	CancelRuns          Right = "actions: write"                          // in one repository
	AsApp               Right = "as the App"                              // what GitHub tells the App about itself
)

// purse is whose calls count together: a credential's. GitHub counts those of an App as
// itself apart.
func (a Access) purse() string {
	if a.Right == AsApp {
		return a.Account + " as the App"
	}
	return cmp.Or(a.Credential, a.Account)
}

// options returns what is asked of GitHub for a token that has the access, and no more.
func (a Access) options() (*gogithub.InstallationTokenOptions, error) {
	options := &gogithub.InstallationTokenOptions{Permissions: a.Right.permissions()}
	if options.Permissions == nil { // without any the token would have all rights of the App
		return nil, errors.New("no right is asked for")
	}
	if a.Right == RepositoryRunners || a.Right == CancelRuns {
		id, err := strconv.ParseInt(a.Repository, 10, 64)
		if err != nil || id <= 0 { // without one the token would open all repositories
			return nil, errors.New("the repository has no id")
		}
		options.RepositoryIDs = []int64{id}
	}
	return options, nil
}

// permissions returns what a token asks for that has r; nil: r is none.
func (r Right) permissions() *gogithub.InstallationPermissions {
	switch r {
	case RepositoryRunners:
		return &gogithub.InstallationPermissions{Administration: new("write")}
	case OrganizationRunners:
		return &gogithub.InstallationPermissions{OrganizationSelfHostedRunners: new("write")}
	case ReadJobs:
		return &gogithub.InstallationPermissions{Actions: new("read")}
	case CancelRuns:
		return &gogithub.InstallationPermissions{Actions: new("write")}
	}
	return nil
}

// grantKey is what a grant is for. A registration that changes has other grants.
type grantKey struct {
	account, parameter string
	app, installation  int64
	repository         string // its id; empty: it is for none alone
	right              Right  // empty: a parameter was read again
}

func keyOf(a Access, from store.GitHubCredential) grantKey {
	return grantKey{a.Account, from.Parameter, from.AppID, from.InstallationID, a.Repository, a.Right}
}

// proof returns what an App proves itself with. A registration without an App is ErrDenied.
func (c *Credentials) proof(ctx context.Context, a Access, from store.GitHubCredential, fresh bool) (secret.Text, error) {
	e := &Error{Kind: ErrDenied, Op: "prove to be the App of account " + a.Account}
	if from.AppID == 0 {
		return secret.Text{}, fmt.Errorf("%w: the registration names none", e)
	}
	key, err := c.parameter(ctx, a.Account, from.Parameter, fresh)
	if err != nil {
		return secret.Text{}, err
	}
	proof, err := sign(from.AppID, key, c.cfg.Now())
	if err != nil {
		return secret.Text{}, fmt.Errorf("%w: parameter %s: %w", e, from.Parameter, err)
	}
	return proof, nil
}
