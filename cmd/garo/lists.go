package main

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// listFlags are the flags of the commands that list.
type listFlags struct {
	target
	query client.Query
	since string
	limit int
}

// add gives c the flags; states are what --state can be.
func (l *listFlags) add(c *cobra.Command, states ...string) {
	l.flags(c)
	f := c.Flags()
	f.StringVar(&l.query.Repository, "repo", "", "only of this repository: owner/name, or its numeric id")
	f.StringVar(&l.query.State, "state", "", "only in this state: "+strings.Join(states, ", "))
	f.StringVar(&l.query.Account, "account-id", "", "only in this AWS account")
	f.StringVar(&l.query.Region, "region", "", "only in this AWS region")
	f.StringVar(&l.since, "since", "", "only those made since: an age such as 90m, 1d or 2w, or a time")
	f.IntVar(&l.limit, "limit", 50, "at most this many")
	l.complete(c, "state", words(states...))
	l.complete(c, "repo", l.repositories)
}

// client returns the client to ask, once the flags can be meant.
func (l *listFlags) ask(ctx context.Context) (*client.Client, error) {
	if l.limit < 1 {
		return nil, usage("--limit %d: want at least 1", l.limit)
	}
	if l.since != "" {
		var err error
		if l.query.Since, err = sinceTime(l.since, time.Now()); err != nil {
			return nil, err
		}
	}
	return l.client(ctx)
}

// first returns the first rows of a list.
func first[T any](rows iter.Seq2[T, error], limit int) ([]T, error) {
	all := []T{}
	for row, err := range rows {
		if err != nil {
			return nil, told(err)
		}
		if all = append(all, row); len(all) == limit {
			break
		}
	}
	return all, nil
}

func listCommand() *cobra.Command {
	var l listFlags
	c := &cobra.Command{
		Use:   "list",
		Short: "List requests, newest first",
		Example: `  garo list --repo acme/shop --since 1d --failed
  garo list --state waiting`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := l.ask(cmd.Context())
			if err != nil {
				return err
			}
			all, err := first(cl.AllRequests(cmd.Context(), l.query), l.limit)
			if err != nil {
				return err
			}
			if l.json {
				return printJSON(cmd.OutOrStdout(), all)
			}
			t := requestTable(all, time.Now())
			return t.print(cmd.OutOrStdout())
		},
	}
	l.add(c, "accepted", "waiting", "ready", "failed", "expired", "cancelled")
	c.Flags().BoolVar(&l.query.Failed, "failed", false, "only those that ended without a runner: failed or expired")
	c.MarkFlagsMutuallyExclusive("failed", "state")
	return c
}

func requestTable(rows []apitype.Status, now time.Time) table {
	t := table{
		head:  []string{"ID", "STATE", "TYPE", "MODE", "REPOSITORY", "LABELS", "RUNNER", "INSTANCE", "PLACEMENT", "AGE", "WHY"},
		spare: []string{"MODE", "TYPE", "PLACEMENT", "RUNNER", "LABELS", "INSTANCE", "REPOSITORY"},
	}
	for _, s := range rows {
		why := s.Wait
		if s.Error != nil {
			why = s.Error.Code
		}
		var runner, instance, place string
		if r := s.Runner; r != nil {
			runner, instance, place = r.ID, r.InstanceID, placement(*r)
			why = cmp.Or(why, r.Wait)
		}
		t.add(s.ID, s.State, s.Type, s.Mode, s.Repository, strings.Join(s.Labels, ","), runner, instance, place, age(now.Sub(s.CreatedAt)), why)
	}
	return t
}

func runnersCommand() *cobra.Command {
	var l listFlags
	var all bool
	c := &cobra.Command{
		Use:   "runners",
		Short: "List the machines that run, newest first",
		Long: `runners lists the machines that are not over, newest first; with --all or --state,
those that ended too. LEFT is the time until a machine ends whatever runs on it.`,
		Example: `  garo runners --repo acme/shop
  garo runners --all --since 1d`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := l.ask(cmd.Context())
			if err != nil {
				return err
			}
			l.query.Live = !all && l.query.State == ""
			found, err := first(cl.AllRunners(cmd.Context(), l.query), l.limit)
			if err != nil {
				return err
			}
			if l.json {
				return printJSON(cmd.OutOrStdout(), found)
			}
			t := runnerTable(found, time.Now())
			return t.print(cmd.OutOrStdout())
		},
	}
	l.add(c, "new", "launched", "booting", "online", "busy", "draining", "ending", "ended", "failed")
	c.Flags().BoolVar(&all, "all", false, "those that are over, too")
	c.MarkFlagsMutuallyExclusive("all", "state")
	return c
}

func runnerTable(rows []apitype.Runner, now time.Time) table {
	t := table{
		head:  []string{"ID", "STATE", "REPOSITORY", "INSTANCE", "PLACEMENT", "RUN", "JOBS", "AGE", "LEFT", "COST", "WHY"},
		spare: []string{"JOBS", "COST", "PLACEMENT", "RUN", "LEFT", "INSTANCE", "REPOSITORY"},
	}
	for _, r := range rows {
		why, run, until, left := r.Wait, r.RunID, now, ""
		if r.End != nil {
			why = r.End.Code
		}
		if r.Job != nil {
			run = cmp.Or(r.Job.RunID, run)
		}
		if over := r.State == "ended" || r.State == "failed"; !over {
			left = age(r.HardAt.Sub(now))
		} else if !r.EndedAt.IsZero() {
			until = r.EndedAt
		}
		t.add(r.ID, r.State, r.Repository, r.InstanceID, placement(r), run, fmt.Sprint(r.Jobs), age(until.Sub(r.CreatedAt)), left, spent(r, now), why)
	}
	return t
}

// spent says what a machine has cost so far, or in all.
func spent(r apitype.Runner, now time.Time) string {
	switch c := r.Cost; {
	case r.InstanceID == "":
		return ""
	case c == nil, c.HourUSD == nil:
		return "unknown"
	case c.USD != nil:
		return money(*c.USD)
	default:
		return money(*c.HourUSD * max(0, now.Sub(r.LaunchedAt).Hours()))
	}
}

// placement names how a machine is bought, as --no-capacity of garo local does.
func placement(r apitype.Runner) string {
	if r.InstanceType == "" {
		return ""
	}
	return r.Market + "/" + r.InstanceType + "/" + r.Subnet
}

func showCommand() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:   "show ANY",
		Short: "Show whatever an id, a name, an instance or an address at GitHub stands for",
		Long: `show finds what you have in your hands, and shows it: the id of a request or a
runner, a runner's name at GitHub, an EC2 instance (i-...), the number of a workflow
run, or the address of a run or a job at GitHub.`,
		Example: `  garo show i-0123456789abcdef0
  garo show https://github.com/acme/shop/actions/runs/123456/job/789`,
		Args: oneThing("thing to look for"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, found, err := t.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), found)
			}
			return t.show(cmd, cl, found)
		},
	}
	t.flags(c)
	c.ValidArgsFunction = t.completeID
	return c
}

// oneThing refuses all but one argument, which is called what.
func oneThing(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 || args[0] == "" {
			return usage("%s wants one %s: see %s --help", c.CommandPath(), what, c.CommandPath())
		}
		return nil
	}
}

// find returns what somebody's words stand for, and the client that was asked.
func (t *target) find(ctx context.Context, words string) (*client.Client, apitype.Found, error) {
	cl, err := t.client(ctx)
	if err != nil {
		return nil, apitype.Found{}, err
	}
	found, err := cl.Find(ctx, words)
	return cl, found, told(err)
}

// show prints what was found: one thing whole, several in a table.
func (t *target) show(cmd *cobra.Command, cl *client.Client, found apitype.Found) error {
	out := cmd.OutOrStdout()
	for _, r := range found.Runners {
		if err := printRunner(out, r); err != nil {
			return err
		}
	}
	switch len(found.Requests) {
	case 0:
		return nil
	case 1:
		status, err := cl.Status(cmd.Context(), found.Requests[0].ID) // a run's come without their stories
		if err != nil {
			return told(err)
		}
		return printStatus(out, status, true)
	}
	rows := requestTable(found.Requests, time.Now())
	return rows.print(out)
}
