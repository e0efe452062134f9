// Command garo runs GARO on one machine, shows what it does, and calls its API:
// it starts, watches and stops requests for runners, here or in AWS.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client/action"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = ""

func main() { os.Exit(run()) }

// run is main with an exit status: 0 for success, 1 for failure, 130 when it was
// interrupted before it was done.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the program at once
	err := root().ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && !errors.Is(err, errInterrupted) && errors.Is(err, ctx.Err()) {
		err = errInterrupted
	}
	if errors.Is(err, action.ErrCancelled) {
		return 130
	}
	if errors.Is(err, action.ErrTold) {
		return 1
	}
	fmt.Fprintln(os.Stderr, "garo: "+strings.ReplaceAll(err.Error(), "\n", "; "))
	if errors.Is(err, errInterrupted) {
		return 130
	}
	return 1
}

// errInterrupted ends a command that was told to stop.
var errInterrupted = errors.New("interrupted")

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "garo",
		Short: "Lends ephemeral machines to GitHub Actions jobs",
		Long: `garo runs GARO on this machine (garo local), shows it at work (garo demo), and
calls its API (garo start, status, wait, stop, list, reap).

The commands that call the API take its address from --url or GARO_URL, and the
operator's token from --token-file or GARO_TOKEN; else both are those of the
"garo local" that runs in this directory.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w: see %s --help", err, c.CommandPath())
	})
	c.AddCommand(localCommand(), demoCommand(), startCommand(), statusCommand(), waitCommand(), stopCommand(),
		listCommand(), reapCommand(), actionCommand(), versionCommand())
	return c
}

// noArgs refuses arguments.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.HasSubCommands() {
		return fmt.Errorf("there is no command %q: see %s --help", args[0], c.CommandPath())
	}
	return fmt.Errorf("%s takes no argument, and got %q: see %s --help", c.CommandPath(), args[0], c.CommandPath())
}

// oneID wants the id of a request.
func oneID(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return fmt.Errorf("%s wants the id of one request, as garo start and garo list print it", c.CommandPath())
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "garo", versionText())
			return err
		},
	}
}

// versionText is the release, or what the Go toolchain knows of the source.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
