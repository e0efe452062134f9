package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

func consoleCommand() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:   "console ANY",
		Short: "Print what a machine has written to its console",
		Long: `console has a worker read the console of a machine, and prints its last 64 KB: what its
system and GARO's agent wrote since it started. What EC2 has may be minutes old, and is
gone an hour after the machine. ANY is what garo show takes.`,
		Example: `  garo console i-0123456789abcdef0`,
		Args:    oneThing("machine"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, found, err := t.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			runner, err := machineOf(found)
			if err != nil {
				return err
			}
			started, err := cl.StartCheck(cmd.Context(), apitype.CheckStart{RunnerID: runner})
			if err != nil {
				return told(err)
			}
			read, err := cl.WaitCheck(cmd.Context(), started.ID, nil)
			if cmd.Context().Err() != nil {
				return errInterrupted
			}
			if err != nil {
				return told(err)
			}
			if t.json {
				err = printJSON(cmd.OutOrStdout(), read)
			} else {
				_, err = io.WriteString(cmd.OutOrStdout(), read.Console)
			}
			return cmp.Or(err, unprinted(read))
		},
	}
	t.flags(c)
	c.ValidArgsFunction = t.completeID
	return c
}

// machineOf returns the id of the one runner that was found.
func machineOf(found apitype.Found) (string, error) {
	ids := map[string]bool{}
	last := ""
	note := func(id string) { ids[id], last = true, id }
	for _, r := range found.Runners {
		note(r.ID)
	}
	for _, s := range found.Requests {
		if s.Runner != nil {
			note(s.Runner.ID)
		}
	}
	switch len(ids) {
	case 0:
		return "", marked{errors.New("what that names has no machine: garo show tells more"), client.ErrNotFound}
	case 1:
		return last, nil
	}
	return "", usage("that names %d machines: name one of those that garo show lists", len(ids))
}

// unprinted returns why there is nothing to print; nil: there is.
func unprinted(c apitype.Check) error {
	if c.State != apitype.CheckDone {
		return checkFailed(c)
	}
	for _, f := range c.Findings {
		if f.Result != apitype.ResultOK {
			return fmt.Errorf("console of %s: %s %s", cmp.Or(f.About, c.RunnerID), f.Evidence, f.Remedy)
		}
	}
	return nil
}
