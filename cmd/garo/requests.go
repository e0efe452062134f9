package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

func startCommand() *cobra.Command {
	var t target
	var body apitype.Start
	var wait bool
	var timeout, giveUp time.Duration
	c := &cobra.Command{
		Use:   "start",
		Short: "Ask for a runner",
		Long: `start asks for a runner and prints its id and what runs-on must name.

With --wait it shows each step until the runner is ready, ends with status 1 and
the reason if it never is, and cancels the request when it is interrupted.`,
		Example: `  garo start --repo acme/shop --label test1 --wait
  garo start --repo acme/shop --type ondemand --mode ephemeral --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body.Repo = cmp.Or(body.Repo, os.Getenv("GARO_REPO"))
			body.Timeout, body.GiveUp = int(timeout.Seconds()), int(giveUp.Seconds())
			cl := t.client()
			started, err := cl.Start(cmd.Context(), body)
			if err != nil {
				return err
			}
			if !wait {
				if t.json {
					return printJSON(cmd.OutOrStdout(), started)
				}
				tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintf(tw, "id\t%s\nstate\t%s\nruns-on\t%s\n", started.ID, started.State, strings.Join(started.RunsOn, ", "))
				return tw.Flush()
			}
			return await(cmd, t, cl, started.ID, true)
		},
	}
	t.flags(c)
	f := c.Flags()
	f.StringVar(&body.Repo, "repo", "", "repository, as owner/name (default GARO_REPO)")
	f.StringVar(&body.AccountID, "account-id", "", "AWS account to launch in (default the one that serves the repository)")
	f.StringVar(&body.Region, "region", "", "AWS region (default the account's)")
	f.StringVar(&body.Type, "type", "", "spot or ondemand (default the account's)")
	f.StringSliceVar(&body.Labels, "label", nil, "label of the runner, in shared mode; may be repeated")
	f.StringVar(&body.Mode, "mode", "", "shared or ephemeral (default the account's)")
	f.StringSliceVar(&body.InstanceTypes, "instance-type", nil, "instance type, in the order to try; may be repeated")
	f.StringVar(&body.ImageID, "image-id", "", "AMI id or SSM path")
	f.StringSliceVar(&body.Subnets, "subnet", nil, "subnet; may be repeated")
	f.StringSliceVar(&body.SecurityGroups, "security-group", nil, "security group; may be repeated")
	f.DurationVar(&timeout, "timeout", 0, "how long the runner is needed for (default 1h)")
	f.DurationVar(&giveUp, "give-up", 0, "how long to try (default 15m)")
	f.StringVar(&body.IdempotencyKey, "idempotency-key", "", "the same key finds the same request (default random)")
	f.BoolVar(&wait, "wait", false, "wait until the runner is ready")
	return c
}

func waitCommand() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:   "wait ID",
		Short: "Wait until a request is ready, and show its steps",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return await(cmd, t, t.client(), args[0], false)
		},
	}
	t.flags(c)
	return c
}

// await shows the steps of a request until it is final. When it is interrupted
// and the request is its own, it cancels that.
func await(cmd *cobra.Command, t target, cl *client.Client, id string, own bool) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	progress := newStory(cmd.ErrOrStderr())
	status, err := cl.Wait(ctx, id, progress.tell)
	if ctx.Err() != nil {
		if !own {
			return errInterrupted
		}
		// The request must not be left to launch for nobody: a few seconds are worth it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		stopped, err := cl.Stop(ctx, id, false)
		if err != nil {
			return fmt.Errorf("%w, and request %s could not be cancelled: %w", errInterrupted, id, err)
		}
		return fmt.Errorf("%w: request %s is %s", errInterrupted, id, stopped.State)
	}
	if err != nil {
		return err
	}
	if t.json {
		err = printJSON(cmd.OutOrStdout(), status)
	} else {
		err = printStatus(cmd.OutOrStdout(), status, false)
	}
	if err == nil && status.State != "ready" {
		err = notReady(status)
	}
	return err
}

func notReady(s apitype.Status) error {
	if s.Error == nil {
		return fmt.Errorf("request %s is %s", s.ID, s.State)
	}
	return fmt.Errorf("request %s is %s: %s: %s", s.ID, s.State, s.Error.Code, s.Error.Text)
}

func statusCommand() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:   "status ID",
		Short: "Show where a request stands, and its whole story",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			status, err := t.client().Status(cmd.Context(), args[0])
			if err != nil {
				return err
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
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			stopped, err := t.client().Stop(cmd.Context(), args[0], force)
			if err != nil {
				return err
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), stopped)
			}
			runner := "its runner is left as it is"
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
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := []apitype.Status{}
			for len(all) < limit {
				page, err := t.client().Requests(cmd.Context(), q)
				if err != nil {
					return err
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
			fmt.Fprintln(tw, "ID\tSTATE\tTYPE\tMODE\tREPOSITORY\tLABELS\tAGE\tWHY")
			for _, s := range all {
				why := s.Wait
				if s.Error != nil {
					why = s.Error.Code
				}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, p.state(s.State), s.Type, s.Mode, s.Repository,
					strings.Join(s.Labels, ","), time.Since(s.CreatedAt).Round(time.Second), why)
			}
			return tw.Flush()
		},
	}
	t.flags(c)
	c.Flags().StringVar(&q.Repository, "repository", "", "only of the repository with this numeric id")
	c.Flags().StringVar(&q.State, "state", "", "only in this state")
	c.Flags().IntVar(&limit, "limit", 50, "at most so many")
	return c
}

// printStatus prints a request for people; with its story, everything.
func printStatus(w io.Writer, s apitype.Status, story bool) error {
	p := paintFor(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("request", "%s", s.ID)
	row("state", "%s", p.state(s.State)+because(s))
	row("for", "%s, %s %s in %s %s", s.Repository, s.Mode, s.Type, s.Account, s.Region)
	if len(s.Labels) > 0 {
		row("labels", "%s", strings.Join(s.Labels, ", "))
	}
	row("runs-on", "%s", strings.Join(s.RunsOn, ", "))
	if r := s.Runner; r != nil {
		row("runner", "%s, %s", r.Name, p.state(r.State))
		row("instance", "%s, %s %s in %s", cmp.Or(r.InstanceID, "none yet"), r.Market, r.InstanceType, r.Subnet)
		if !r.ExpiresAt.IsZero() {
			row("expires", "%s", r.ExpiresAt.Local().Format(time.DateTime))
		}
		if r.End != nil {
			row("ended by", "%s: %s", r.End.Code, r.End.Text)
		}
	}
	if !s.ReadyAt.IsZero() {
		row("took", "%s", s.ReadyAt.Sub(s.CreatedAt).Round(10*time.Millisecond))
	}
	if err := tw.Flush(); err != nil || !story {
		return err
	}
	if len(s.Attempts) > 0 {
		fmt.Fprintln(w, "\nlaunches tried")
		for _, a := range s.Attempts {
			fmt.Fprintf(tw, "  %s\t%s %s in %s\t%s\n", clock(a.At), a.Market, a.InstanceType, a.Subnet, a.Code)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	print := func(title string, entries []apitype.Entry) {
		fmt.Fprintln(w, "\n"+title)
		for _, e := range entries {
			fmt.Fprintf(tw, "  %s\t%s\t%s\n", clock(e.At), e.State, e.Reason)
		}
	}
	print("request", s.History)
	if err := tw.Flush(); err != nil || s.Runner == nil {
		return err
	}
	print("runner "+s.Runner.ID, s.Runner.History)
	return tw.Flush()
}

func because(s apitype.Status) string {
	switch {
	case s.Error != nil:
		return ": " + s.Error.Code + ": " + s.Error.Text
	case s.Wait != "":
		return ", waits: " + s.Wait
	}
	return ""
}

func clock(at time.Time) string { return at.Local().Format("15:04:05.000") }

// story prints each step of a request once, with the time since it was made.
type story struct {
	w    io.Writer
	told map[string]bool
}

func newStory(w io.Writer) *story { return &story{w, map[string]bool{}} }

func (st *story) tell(s apitype.Status) {
	line := func(at time.Time, who, state, reason string) {
		key := at.String() + who + state + reason
		if !st.told[key] {
			st.told[key] = true
			fmt.Fprintf(st.w, "%7.1fs  %-8s %-10s %s\n", at.Sub(s.CreatedAt).Seconds(), who, state, reason)
		}
	}
	// The two histories run side by side: merged by time, the story reads straight.
	req, run := s.History, []apitype.Entry(nil)
	if s.Runner != nil {
		run = s.Runner.History
	}
	for len(req) > 0 || len(run) > 0 {
		if len(run) == 0 || len(req) > 0 && !run[0].At.Before(req[0].At) {
			line(req[0].At, "request", req[0].State, req[0].Reason)
			req = req[1:]
			continue
		}
		line(run[0].At, "runner", run[0].State, run[0].Reason)
		run = run[1:]
	}
}

// paint colours states on a terminal, and nothing elsewhere.
type paint bool

func paintFor(w io.Writer) paint {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return paint(err == nil && info.Mode()&os.ModeCharDevice != 0)
}

func (p paint) state(s string) string {
	colour, ok := map[string]int{"ready": 32, "online": 32, "busy": 32, "failed": 31, "expired": 31, "cancelled": 33, "accepted": 36, "waiting": 36}[s]
	if !bool(p) || !ok {
		return s
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", colour, s)
}
