// Command garo runs GARO on one machine, shows what it does, and calls its API:
// it starts, watches and stops requests for runners, here or in AWS.
package main

import (
	"cmp"
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

// run is main with an exit status: exit.go has what each means.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the program at once
	err := root().ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if errors.Is(err, action.ErrTold) {
		return exitFailed
	}
	err = explained(ctx, err)
	if !errors.Is(err, action.ErrCancelled) {
		fmt.Fprintln(os.Stderr, "garo: "+strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return exitOf(err)
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "garo",
		Short: "Lends ephemeral machines to GitHub Actions jobs",
		Long: `garo runs GARO on this machine (garo local), shows it at work (garo demo), and
calls its API: garo start asks for a runner; status, wait and stop are about one
request; list, runners and show find what there is, watch and open show it as it changes;
cost tells what it cost; doctor and reap are for operators.

The commands that call the API take its address from --url or GARO_URL, and the
operator's token from --token-file or GARO_TOKEN; else both are those of the
"garo local" that runs in this directory.`,
		Version: versionText(),
		// Cobra's own, which it sets only where it makes the suggestion itself.
		SuggestionsMinimumDistance: 2,

		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%w: see %s --help", err, c.CommandPath())
	})
	c.SetVersionTemplate("garo {{.Version}}\n")
	c.AddCommand(localCommand(), demoCommand(), startCommand(), statusCommand(), waitCommand(), stopCommand(),
		listCommand(), runnersCommand(), showCommand(), costCommand(), openCommand(), watchCommand(), consoleCommand(), doctorCommand(), reapCommand(), appCommand(), actionCommand(), versionCommand())
	return c
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

// versionText is the release, or what the Go toolchain knows of the source: its version,
// and the commit where the program was built from a checkout. A release has no commit in
// it, since its bytes depend on the sources alone: its tag names the commit.
func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(devel)"
	}
	var text strings.Builder
	text.WriteString(cmp.Or(info.Main.Version, "(devel)"))
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			text.WriteString(" commit " + s.Value)
		}
	}
	return text.String()
}
