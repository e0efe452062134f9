package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

func doctorCommand() *cobra.Command {
	var t target
	var last bool
	c := &cobra.Command{
		Use:   "doctor [ACCOUNT [REGION]]",
		Short: "Have the control plane prove that it could launch a machine",
		Long: `doctor has a worker look, by its own rights, at what a launch depends on: in all
registered accounts and regions, or in one. It leaves nothing behind. Each thing that
is wrong has what to do about it. It ends with status 1 if anything failed.`,
		Example: `  garo doctor
  garo doctor 123456789012 eu-west-2
  garo doctor --last`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 2 {
				return usage("%s takes an account and a region, and got %q too: see %s --help", c.CommandPath(), args[2], c.CommandPath())
			}
			if last && len(args) > 0 {
				return usage("--last shows the last check, whatever that was about: leave %q out", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := t.client(cmd.Context())
			if err != nil {
				return err
			}
			found, err := examine(cmd, cl, args, last)
			if err != nil {
				return err
			}
			if t.json {
				err = printJSON(cmd.OutOrStdout(), found)
			} else {
				_, err = io.WriteString(cmd.OutOrStdout(), checkText(found, widthOf(cmd.OutOrStdout()), paintFor(cmd.OutOrStdout())))
			}
			return cmp.Or(err, checkFailed(found))
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&last, "last", false, "show what the last check found, and start none")
	c.ValidArgsFunction = cobra.NoFileCompletions
	return c
}

// examine returns a check that is over: the last one, or one that it has carried out.
func examine(cmd *cobra.Command, cl *client.Client, args []string, last bool) (apitype.Check, error) {
	ctx := cmd.Context()
	if last {
		found, err := cl.Check(ctx, client.LastCheck)
		return found, told(err)
	}
	var body apitype.CheckStart
	if len(args) > 0 {
		body.AccountID = args[0]
	}
	if len(args) > 1 {
		body.Region = args[1]
	}
	started, err := cl.StartCheck(ctx, body)
	if err != nil {
		return started, told(err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "check %s, until %s at the latest\n", started.ID, started.GiveUpAt.Local().Format(time.TimeOnly))
	found, err := cl.WaitCheck(ctx, started.ID, nil)
	if ctx.Err() != nil {
		return found, errInterrupted
	}
	return found, told(err)
}

// checkFailed returns the error that a check ends the program with; nil: nothing failed.
func checkFailed(c apitype.Check) error {
	failed := 0
	for _, f := range c.Findings {
		if f.Result == apitype.ResultFailed {
			failed++
		}
	}
	switch {
	case c.State != apitype.CheckDone:
		return marked{fmt.Errorf("the check was not done until %s, and what it found is not all: see the worker's log for the check %s, and run garo doctor again", date(c.GiveUpAt), c.ID), client.ErrUnavailable}
	case failed > 0:
		return fmt.Errorf("%d of %d checks failed: each says what to do", failed, len(c.Findings))
	}
	return nil
}

// checkText tells what a check found, part by part, in a width; 0: as wide as it takes.
func checkText(c apitype.Check, width int, p paint) string {
	const names, indent = 18, 29 // the longest name and a space, and where evidence begins
	var b strings.Builder
	part := "none"
	counts := map[string]int{}
	for _, f := range c.Findings {
		if now := partOf(f); now != part {
			if part != "none" {
				b.WriteString("\n")
			}
			part = now
			b.WriteString(part + "\n")
		}
		counts[f.Result]++
		text := f.Evidence
		if f.About != "" {
			text = f.About + ": " + text
		}
		head := fmt.Sprintf("  %-8s %-*s", f.Result, names-1, f.Check)
		head = strings.Replace(head, f.Result, p.state(f.Result), 1)
		b.WriteString(head + " " + wrap(text, width, indent) + "\n")
		if f.Remedy != "" {
			b.WriteString(strings.Repeat(" ", 11) + "do: " + wrap(f.Remedy, width, 15) + "\n")
		}
	}
	var sums []string
	for _, r := range []string{apitype.ResultFailed, apitype.ResultWarn, apitype.ResultSkipped, apitype.ResultOK} {
		if counts[r] > 0 {
			sums = append(sums, fmt.Sprintf("%d %s", counts[r], r))
		}
	}
	took := ""
	if !c.EndedAt.IsZero() {
		took = fmt.Sprintf(", %s, in %.1f s", date(c.EndedAt), c.EndedAt.Sub(c.CreatedAt).Seconds())
	}
	fmt.Fprintf(&b, "\n%s%s\n", cmp.Or(strings.Join(sums, ", "), "nothing was found"), took)
	return b.String()
}

// partOf names what a finding is about.
func partOf(f apitype.Finding) string {
	switch {
	case f.AccountID == "":
		return "control plane"
	case f.Region == "":
		return "account " + f.AccountID
	}
	return "account " + f.AccountID + " in " + f.Region
}

// wrap breaks s into lines of a width, all but the first of which are indented; the first
// begins at the indent already. Width 0: into one.
func wrap(s string, width, indent int) string {
	const least = 20 // what is narrower is read less well than what the terminal breaks itself
	if width-indent < least {
		return s
	}
	var b strings.Builder
	at := indent
	for n, word := range strings.Fields(s) {
		switch long := utf8.RuneCountInString(word); {
		case n == 0:
			at += long
		case at+1+long > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent + long
		default:
			b.WriteString(" ")
			at += 1 + long
		}
		b.WriteString(word)
	}
	return b.String()
}
