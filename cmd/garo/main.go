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
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = ""

func main() {
	os.Exit(run())
}

// run is main with an exit status: 0 for success, 1 for failure, 130 when the
// person at the keyboard ended it.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errInterrupted):
		fmt.Fprintln(os.Stderr, "garo:", err)
		return 130
	}
	fmt.Fprintln(os.Stderr, "garo:", err)
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
operator's token from --token-file, GARO_TOKEN, or .garo/token, where
"garo local" leaves it.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.AddCommand(localCommand(), demoCommand(), startCommand(), statusCommand(), waitCommand(), stopCommand(),
		listCommand(), reapCommand(), versionCommand())
	return c
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
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
