package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// group examines the runner group of an organization: whether it is there, and admits the
// repositories that the account serves.
func (d *Doctor) group(ctx context.Context, in github.Scope, serves []store.Named) store.Finding {
	g, err := d.GitHub.Group(ctx, in)
	if err != nil || !g.Selected {
		return judgeGroup(in, g, err)
	}
	all, whole, err := d.GitHub.Admits(ctx, in, g)
	if err != nil {
		return judgeUnlisted(in, err)
	}
	return judgeAdmitted(in, g, serves, all, whole)
}

// served returns the repositories that an account serves, as far as they are known: those that
// its registration names, and those of its owners that it launched for lately.
func served(a store.Account, runners []store.Runner) []store.Named {
	all := slices.Clone(a.Repositories)
	for _, r := range runners {
		known := func(n store.Named) bool { return n.ID == r.Repository.ID }
		if a.Serves(r.Repository) && !slices.ContainsFunc(all, known) {
			all = append(all, store.Named{ID: r.Repository.ID, Name: r.Repository.Name})
		}
	}
	return all
}

func judgeGroup(in github.Scope, g github.Group, err error) store.Finding {
	about := groupOf(in)
	switch {
	case errors.Is(err, github.ErrNoGroup):
		return failed(Group, about, err.Error()+".", "Make the runner group in the organization's settings, for these runners alone, or correct scope.runner_group in the registration.")
	case errors.Is(err, github.ErrDenied), errors.Is(err, github.ErrNotFound):
		return failed(Group, about, err.Error()+".", groupRight)
	case err != nil:
		return ghUnread(Group, about, err)
	}
	who := "It admits all repositories of the organization, or all private ones."
	if g.Public {
		who += " Public ones may be among them."
	}
	return ok(Group, about, who)
}

// groupRight is what the group and its repositories are read with
// (https://docs.github.com/en/rest/actions/self-hosted-runner-groups asks for read alone).
const groupRight = "Give the App, or the token, the organization permission Self-hosted runners: write."

// groupOf names the group that a finding is about.
func groupOf(in github.Scope) string { return in.Name + ", " + in.Group }

// judgeUnlisted is the finding about a group that is there, and whose repositories are not known.
func judgeUnlisted(in github.Scope, err error) store.Finding {
	if errors.Is(err, github.ErrDenied) || errors.Is(err, github.ErrNotFound) {
		return warn(Group, groupOf(in), "It is there, and which repositories it admits is not known: "+err.Error()+".", groupRight)
	}
	return ghUnread(Group, groupOf(in), err)
}

// mostNamed is how many repositories a finding names: about as many as its text has room for.
const mostNamed = 20

// judgeAdmitted judges a group for which repositories are selected: all are those, if whole. A
// public one is admitted only if the group allows public ones, although it is selected
// (https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/manage-access,
// https://github.com/google/go-github/pull/1998).
func judgeAdmitted(in github.Scope, g github.Group, serves []store.Named, all []github.Admitted, whole bool) store.Finding {
	var missing, public []string
	for _, repo := range serves {
		i := slices.IndexFunc(all, func(a github.Admitted) bool { return a.ID == repo.ID })
		switch {
		case i < 0:
			missing = append(missing, repo.Name)
		case all[i].Public && !g.Public:
			public = append(public, repo.Name)
		}
	}
	var evidence, remedies []string
	if len(missing) > 0 && whole {
		evidence = append(evidence, "It does not admit "+named(missing)+".")
		remedies = append(remedies, "Select what is missing in the group's settings, or take it out of the registration: GitHub gives a job of a repository outside the group to none of its runners.")
	}
	if len(public) > 0 {
		evidence = append(evidence, "It admits no public repositories, and keeps out "+named(public)+".")
		remedies = append(remedies, "Take public repositories out of the registration, or allow them in the group's settings: then a pull request of a stranger may run on a machine of the account.")
	}
	switch {
	case len(evidence) > 0:
		return failed(Group, groupOf(in), strings.Join(evidence, " "), strings.Join(remedies, " "))
	case len(missing) > 0:
		return warn(Group, groupOf(in), fmt.Sprintf("Of the repositories that it admits, GitHub showed %d and not all. Not among them: %s.", len(all), named(missing)),
			"Look in the group's settings whether it is selected.")
	}
	return ok(Group, groupOf(in), "It admits selected repositories, and each of the account's is among them: "+plural(len(serves), "repository")+".")
}

// named counts repositories, and names them as far as there is room.
func named(repos []string) string {
	return plural(len(repos), "repository") + " that the account serves: " + strings.Join(repos[:min(len(repos), mostNamed)], ", ")
}
