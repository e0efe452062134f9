package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/action"
)

// How the program ends. Scripts rely on the numbers: docs/cli.md has them.
const (
	exitFailed       = 1   // anything that has no number of its own
	exitUsage        = 2   // the command line, or a value in it, cannot be meant
	exitUnauthorised = 3   // the token is missing or wrong, or may not do this
	exitNotFound     = 4   // what was named is not there
	exitNoAnswer     = 5   // the API does not answer, or cannot
	exitNotReady     = 6   // the request ended without a runner
	exitInterrupted  = 130 // 128 and SIGINT, as shells have it
)

// errInterrupted ends a command that a signal stops.
var errInterrupted = errors.New("interrupted")

// errUsage marks errors of the command line.
var errUsage = errors.New("usage")

// told is an error with its mark, which it does not show.
type marked struct {
	error
	mark error
}

func (m marked) Unwrap() []error { return []error{m.error, m.mark} }

// usage returns an error of the command line.
func usage(format string, args ...any) error { return marked{fmt.Errorf(format, args...), errUsage} }

// exitOf returns the number that the program ends with after an error.
func exitOf(err error) int {
	for _, c := range []struct {
		err  error
		code int
	}{
		{errInterrupted, exitInterrupted}, {action.ErrCancelled, exitInterrupted}, {errUsage, exitUsage},
		{client.ErrInvalidField, exitUsage}, {client.ErrUnauthenticated, exitUnauthorised}, {client.ErrForbidden, exitUnauthorised},
		{errNoToken, exitUnauthorised}, {client.ErrNotFound, exitNotFound}, {client.ErrNoAnswer, exitNoAnswer}, {client.ErrUnavailable, exitNoAnswer},
	} {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	if _, ok := errors.AsType[*client.NotReadyError](err); ok {
		return exitNotReady
	}
	if e, ok := errors.AsType[*client.Error](err); ok && e.Problem.Status >= http.StatusInternalServerError {
		return exitNoAnswer
	}
	return exitFailed
}

// explained returns err as the program ends with it: a call that the end of the program
// cut off was interrupted, and what cobra refuses is usage.
func explained(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, errInterrupted) && errors.Is(err, ctx.Err()) {
		return errInterrupted
	}
	if strings.HasPrefix(err.Error(), "if any flags in the group") { // cobra's own, without a type
		return marked{err, errUsage}
	}
	return err
}

// noArgs refuses arguments, and says which command may have been meant.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !c.HasSubCommands() {
		return usage("%s takes no argument, and got %q: see %s --help", c.CommandPath(), args[0], c.CommandPath())
	}
	meant := ""
	if names := c.SuggestionsFor(args[0]); len(names) > 0 {
		meant = fmt.Sprintf(" (did you mean %s?)", strings.Join(names, " or "))
	}
	return usage("there is no command %q%s: see %s --help", args[0], meant, c.CommandPath())
}

// oneID wants the id of a request.
func oneID(c *cobra.Command, args []string) error {
	if len(args) == 1 && args[0] != "" {
		return nil
	}
	return usage("%s wants the id of one request, as garo start and garo list print it", c.CommandPath())
}
