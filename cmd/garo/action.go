package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/action"
)

// actionCommand is the GitHub Action's part of this program. Its Node.js shell
// calls it, nobody by hand: so it is not in the list of commands.
func actionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:    "action",
		Short:  "Do what a step of the GitHub Action does",
		Hidden: true,
		Args:   noArgs,
		RunE:   func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for name, stage := range map[string]func(context.Context, action.Env) error{"main": action.Main, "post": action.Post} {
		c.AddCommand(&cobra.Command{
			Use:  name,
			Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				ctx, cancel := untilEnd(cmd.Context(), cmd.InOrStdin())
				defer cancel()
				return stage(ctx, action.Env{Getenv: os.Getenv, Stdout: cmd.OutOrStdout(), Connect: connect})
			},
		})
	}
	return c
}

// connect returns a client that calls with the ID tokens of the job.
func connect(url string, mask func(client.Token)) *client.Client {
	return client.Must(client.New(client.Config{ // the action has looked at the address
		URL: url, UserAgent: "garo-action/" + versionText(), Token: client.IDTokens(client.IDTokenConfig{Audience: url, New: mask}),
	}))
}

// untilEnd returns a context that ends when the standard input does: that is the
// shell's way to say that the job is cancelled, on systems without signals too,
// and it says so even when it is killed.
func untilEnd(ctx context.Context, stdin io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // the read ends with the program at the latest
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()
	return ctx, cancel
}
