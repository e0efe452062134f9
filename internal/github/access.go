package github

import (
	"errors"
	"strconv"

	gogithub "github.com/google/go-github/v88/github"
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

// Access is what a call needs a credential for.
type Access struct {
	Account string // the AWS account whose registration names the credential
	// Repository is the id of the one repository that is called. Empty: an organization is.
	Repository string
	Name       string // of the repository or the organization, for people's messages only
	Right      Right
}

// Access returns what calls about the runners of a scope need a credential for.
func (s Scope) Access() Access {
	if s.Organization {
		return Access{Account: s.Account, Name: s.Name, Right: OrganizationRunners}
	}
	return Access{Account: s.Account, Repository: s.ID, Name: s.Name, Right: RepositoryRunners}
}

// Right is what a call may do: the permission of an App that it takes.
type Right string

// The rights.
const (
	RepositoryRunners   Right = "administration: write"                   // of one repository
	OrganizationRunners Right = "organization_self_hosted_runners: write" // of the installation's organization
)

// options returns what is asked of GitHub for a token that has the access, and no more.
func (a Access) options() (*gogithub.InstallationTokenOptions, error) {
	options := &gogithub.InstallationTokenOptions{Permissions: a.Right.permissions()}
	if options.Permissions == nil { // without any the token would have all rights of the App
		return nil, errors.New("no right is asked for")
	}
	if a.Right != OrganizationRunners {
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
	}
	return nil
}
