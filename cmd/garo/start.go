package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// lastCall is how long a command that is interrupted may take to leave nothing
// behind. A second signal ends it before.
const lastCall = 10 * time.Second

// startFlags are the flags of start.
type startFlags struct {
	target
	body            apitype.Start
	wait            bool
	timeout, giveUp time.Duration
}

func startCommand() *cobra.Command {
	var s startFlags
	c := &cobra.Command{
		Use:   "start",
		Short: "Ask for a runner",
		Long: `start asks for a runner and prints its id and what runs-on must name.

With --wait it shows each step until the runner is ready, ends with status 6, the
launches that were tried and the reason if it never is, and cancels the request when
it is interrupted.`,
		Example: `  garo start --repo acme/shop --label test1 --wait
  garo start --repo acme/shop --type ondemand --mode ephemeral --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd) },
	}
	s.flags(c)
	f := c.Flags()
	f.StringVar(&s.body.Repo, "repo", "", "repository, as owner/name (default GARO_REPO)")
	f.StringVar(&s.body.AccountID, "account-id", "", "AWS account to launch in (default the one that serves the repository)")
	f.StringSliceVar(&s.body.Regions, "region", nil, "AWS region (default the account's); with --mode ephemeral it may be repeated, in the order to try")
	f.StringVar(&s.body.Type, "type", "", "spot or ondemand (default the account's)")
	f.StringSliceVar(&s.body.Labels, "label", nil, "label of the runner, in shared mode; may be repeated")
	f.StringVar(&s.body.Mode, "mode", "", "shared or ephemeral (default the account's)")
	f.StringSliceVar(&s.body.InstanceTypes, "instance-type", nil, "instance type, in the order to try; may be repeated")
	f.IntVar(&s.body.CPU, "cpu", 0, "in place of instance types: how many vCPUs at least (default the account's)")
	f.IntVar(&s.body.Memory, "memory", 0, "how many GiB of memory at least (default the account's)")
	f.IntVar(&s.body.GPU, "gpu", 0, "how many GPUs at least (default the account's)")
	f.StringVar(&s.body.Arch, "arch", "", "x86_64 or arm64 (default the account's)")
	f.StringVar(&s.body.ImageID, "image-id", "", "AMI id or SSM path")
	f.StringSliceVar(&s.body.Subnets, "subnet", nil, "subnet; may be repeated")
	f.StringSliceVar(&s.body.SecurityGroups, "security-group", nil, "security group; may be repeated")
	f.IntVar(&s.body.RootVolumeGB, "root-volume-gb", 0, "size of the root volume in GiB (default the account's)")
	f.StringToStringVar(&s.body.Tags, "tag", nil, "tag of the machine, as KEY=VALUE; may be repeated")
	f.DurationVar(&s.timeout, "timeout", 0, "how long the runner is needed for (default 1h)")
	f.DurationVar(&s.giveUp, "give-up", 0, "how long to try (default 15m)")
	f.StringVar(&s.body.IdempotencyKey, "idempotency-key", "", "the same key finds the same request (default random)")
	s.complete(c, "repo", s.repositories)
	s.complete(c, "type", words("spot", "ondemand"))
	s.complete(c, "mode", words("shared", "ephemeral"))
	s.complete(c, "arch", words("x86_64", "arm64"))
	f.BoolVar(&s.wait, "wait", false, "wait until the runner is ready")
	return c
}

// run asks for the runner and prints what the API answers.
func (s *startFlags) run(cmd *cobra.Command) error {
	s.body.Repo = cmp.Or(s.body.Repo, os.Getenv("GARO_REPO"))
	if s.body.Repo == "" {
		return usage("no repository: give --repo OWNER/NAME or GARO_REPO")
	}
	err := s.said(cmd)
	if err != nil {
		return err
	}
	if len(s.body.Regions) == 1 {
		s.body.Region, s.body.Regions = s.body.Regions[0], nil
	}
	if s.body.Timeout, err = seconds("timeout", s.timeout); err != nil {
		return err
	}
	if s.body.GiveUp, err = seconds("give-up", s.giveUp); err != nil {
		return err
	}
	cl, err := s.client(cmd.Context())
	if err != nil {
		return err
	}
	// A call that was made is heard out: what it made can then be told, or cancelled.
	ctx, cancel := outlast(cmd.Context(), lastCall)
	defer cancel()
	started, err := cl.Start(ctx, s.body)
	switch {
	case err != nil:
		return told(err)
	case s.wait:
		fmt.Fprintf(cmd.ErrOrStderr(), "request %s, runs-on %s\n", started.ID, strings.Join(started.RunsOn, ", "))
		return await(cmd, s.target, cl, started.ID, true)
	case s.json:
		return printJSON(cmd.OutOrStdout(), started)
	}
	tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "id\t%s\nstate\t%s\nruns-on\t%s\n", started.ID, started.State, strings.Join(started.RunsOn, ", "))
	return tw.Flush()
}

// said refuses values that a script left empty by mistake: without its key a start that
// is repeated asks for a second runner, and without its label for another one.
func (s *startFlags) said(cmd *cobra.Command) error {
	if cmd.Flags().Changed("idempotency-key") && s.body.IdempotencyKey == "" {
		return usage("--idempotency-key is empty: give a key, or leave it out for a random one")
	}
	if cmd.Flags().Changed("label") && (len(s.body.Labels) == 0 || slices.ContainsFunc(s.body.Labels, func(l string) bool { return strings.TrimSpace(l) == "" })) {
		return usage("--label is empty: give a label, or leave it out")
	}
	return nil
}

// seconds returns d as the API takes it. Zero: not said.
func seconds(flag string, d time.Duration) (int, error) {
	if d < 0 || d%time.Second != 0 {
		return 0, usage("--%s %s: want whole seconds, such as 90s or 30m", flag, d)
	}
	return int(d / time.Second), nil
}

func waitCommand() *cobra.Command {
	var t target
	c := &cobra.Command{
		Use:   "wait ID",
		Short: "Wait until a request is ready, and show its steps",
		Long: `wait shows each step of a request until it is ready, and ends with status 6 and the
reason if it never is. Interrupted, it leaves the request as it is.`,
		Args: oneID,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := t.client(cmd.Context())
			if err != nil {
				return err
			}
			return await(cmd, t, cl, args[0], false)
		},
	}
	t.flags(c)
	c.ValidArgsFunction = t.completeID
	return c
}

// await shows the steps of a request until it is final. When it is interrupted
// and the request is its own, it cancels that.
func await(cmd *cobra.Command, t target, cl *client.Client, id string, own bool) error {
	ctx := cmd.Context()
	var story client.Story
	status, err := cl.Wait(ctx, id, func(s apitype.Status) {
		for _, step := range story.Next(s) {
			fmt.Fprintln(cmd.ErrOrStderr(), stepLine(step))
		}
	})
	switch {
	case ctx.Err() != nil && own:
		return cancelOwn(ctx, cl, id)
	case ctx.Err() != nil:
		return errInterrupted
	case errors.Is(err, client.ErrNoAnswer), errors.Is(err, client.ErrUnavailable):
		return fmt.Errorf("%w: when the API is back, continue with garo wait %s", err, id)
	}
	no, ended := errors.AsType[*client.NotReadyError](err)
	if err != nil && !ended {
		return toldOf(err)
	}
	if t.json {
		err = printJSON(cmd.OutOrStdout(), status)
	} else {
		err = printStatus(cmd.OutOrStdout(), status, false)
		if err == nil && ended {
			err = printAttempts(cmd.OutOrStdout(), status.Attempts)
		}
	}
	if err == nil && ended {
		err = no
	}
	return err
}

// cancelOwn cancels a request that nobody waits for any more, so that no machine
// is launched for it.
func cancelOwn(ctx context.Context, cl *client.Client, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCall)
	defer cancel()
	stopped, err := cl.Stop(ctx, id, false)
	if err != nil {
		return fmt.Errorf("%w, and request %s could not be cancelled (garo stop does it): %w", errInterrupted, id, err)
	}
	return fmt.Errorf("%w: request %s is %s", errInterrupted, id, stopped.State)
}

// outlast returns a context that ends d after ctx does.
func outlast(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return longer, func() { stop(); cancel() }
}
