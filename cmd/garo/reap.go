package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/reaper"
)

func reapCommand() *cobra.Command {
	var t target
	var dryRun bool
	var release string
	c := &cobra.Command{
		Use:   "reap",
		Short: "Run the reaper of a local system now, or release a sweep's brake",
		Long: `reap makes a local system run its reaper now, and prints what that did and why;
with --dry-run, what it would do.

--release ACCOUNT/REGION overrides the brake, the safety stop of a sweep: the next one
in that account and region, local or in AWS, ends the machines that no record names.
Look at the alarm brake first.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if release != "" {
				account, region, ok := strings.Cut(release, "/")
				if !ok || account == "" || region == "" {
					return usage("--release %q: want ACCOUNT/REGION, such as 123456789012/eu-west-2", release)
				}
				cl, err := t.client(cmd.Context())
				if err != nil {
					return err
				}
				released, err := cl.ReleaseBrake(cmd.Context(), account, region)
				if err != nil {
					return told(err)
				}
				if t.json {
					return printJSON(cmd.OutOrStdout(), released)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "the brake of %s in %s is released for the next sweep\n", account, region)
				return err
			}
			var report reaper.Report
			if err := t.reap(cmd.Context(), dryRun, &report); err != nil {
				return err
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), report)
			}
			_, err := fmt.Fprint(cmd.OutOrStdout(), report)
			return err
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "decide as usual, and change nothing")
	c.Flags().StringVar(&release, "release", "", "release the brake of ACCOUNT/REGION")
	c.MarkFlagsMutuallyExclusive("dry-run", "release")
	return c
}
