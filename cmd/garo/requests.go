package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	var t target
	var following bool
	c := &cobra.Command{
		Use:   "status ID",
		Short: "Show where a request stands, and its whole story",
		Long: `status shows where a request stands, and its whole story; with --follow, each step of
it and of its runner as it comes, until both are over.`,
		Args: oneID,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := t.client(cmd.Context())
			if err != nil {
				return err
			}
			if following {
				return follow(cmd.Context(), cmd.OutOrStdout(), cl, args[0])
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
	c.Flags().BoolVar(&following, "follow", false, "print each step as it comes, until the request and its runner are over")
	c.MarkFlagsMutuallyExclusive("follow", "json")
	c.ValidArgsFunction = t.completeID
	return c
}

func stopCommand() *cobra.Command {
	var t target
	var force bool
	c := &cobra.Command{
		Use:   "stop ID",
		Short: "Cancel a request that is not ready, and end its runner if no other request uses it",
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
	c.ValidArgsFunction = t.completeID
	c.Flags().BoolVar(&force, "force", false, "end the runner even if others share it")
	return c
}

// dash stands for what is empty, so that columns stay columns for other programs.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
