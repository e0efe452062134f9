package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

func statusCommand() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:   "status ID",
		Short: "Show where a request stands, and its whole story",
		Args:  oneID,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := t.client(cmd.Context())
			if err != nil {
				return err
			}
			status, err := cl.Status(cmd.Context(), args[0])
			if err != nil {
				return toldOf(err)
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), status)
			}
			return printStatus(cmd.OutOrStdout(), status, true)
		},
	}
	t.flags(c)
	return c
}

func stopCommand() *cobra.Command {
	var t target
	var force bool
	c := &cobra.Command{
		Use:   "stop ID",
		Short: "Cancel a request that is not ready, and end its runner if that is nobody else's",
		Args:  oneID,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := t.client(cmd.Context())
			if err != nil {
				return err
			}
			stopped, err := cl.Stop(cmd.Context(), args[0], force)
			if err != nil {
				return toldOf(err)
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), stopped)
			}
			runner := "no runner ends for it"
			if stopped.Draining {
				runner = "its runner drains"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "request %s is %s; %s\n", stopped.ID, stopped.State, runner)
			return err
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&force, "force", false, "end the runner even if others share it")
	return c
}

func listCommand() *cobra.Command {
	var t target
	var q client.Query
	var limit int
	c := &cobra.Command{
		Use:   "list",
		Short: "List requests, newest first",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return fmt.Errorf("--limit %d: want at least 1", limit)
			}
			cl, err := t.client(cmd.Context())
			if err != nil {
				return err
			}
			all := []apitype.Status{}
			for len(all) < limit {
				page, err := cl.Requests(cmd.Context(), q)
				if err != nil {
					return told(err)
				}
				all = append(all, page.Requests...)
				if q.After = page.After; q.After == "" {
					break
				}
			}
			all = all[:min(len(all), limit)]
			if t.json {
				return printJSON(cmd.OutOrStdout(), all)
			}
			p := paintFor(cmd.OutOrStdout())
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintf(tw, "ID\t%s\tTYPE\tMODE\tREPOSITORY\tLABELS\tAGE\tWHY\n", p.cell("STATE"))
			for _, s := range all {
				why := s.Wait
				if s.Error != nil {
					why = s.Error.Code
				}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, p.cell(s.State), s.Type, s.Mode, s.Repository,
					dash(strings.Join(s.Labels, ",")), time.Since(s.CreatedAt).Round(time.Second), dash(why))
			}
			return tw.Flush()
		},
	}
	t.flags(c)
	c.Flags().StringVar(&q.Repository, "repository", "", "only of the repository with this numeric id")
	c.Flags().StringVar(&q.State, "state", "", "only in this state: accepted, waiting, ready, failed, expired or cancelled")
	c.Flags().IntVar(&limit, "limit", 50, "at most so many")
	return c
}

// dash stands for what is empty, so that columns stay columns for other programs.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
