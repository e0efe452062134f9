package main

import (
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client"
)

// pageAt returns the address of the API's page with the token in its fragment, which
// browsers send to nobody (https://www.rfc-editor.org/rfc/rfc9110#section-7.1); the page
// takes it out of the address at once.
func pageAt(api string, token client.Token) string {
	return api + "/#token=" + url.QueryEscape(token.Reveal())
}

func openCommand() *cobra.Command {
	var t target
	var only bool
	c := &cobra.Command{
		Use:   "open",
		Short: "Open the page of the API in a browser, to look at what runs",
		Long: `open opens the API's page in your browser, and prints its address. The address has
your token in it: it is for this machine alone.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := t.token()
			if err != nil {
				return err
			}
			if err := t.greet(cmd.Context()); err != nil {
				return err
			}
			page := pageAt(t.address(), token)
			if t.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"page": page})
			}
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), page); err != nil || only {
				return err
			}
			if err := browse(cmd.Context(), page); err != nil {
				return fmt.Errorf("open a browser: %w: open the address yourself", err)
			}
			return nil
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&only, "print", false, "print the address alone")
	return c
}

// browse has the desktop open an address.
func browse(ctx context.Context, address string) error {
	program, args := "xdg-open", []string{address}
	switch runtime.GOOS {
	case "darwin":
		program = "open"
	case "windows":
		program, args = "rundll32", []string{"url.dll,FileProtocolHandler", address}
	}
	return exec.CommandContext(ctx, program, args...).Run()
}
