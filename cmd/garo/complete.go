package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client"
)

// patience of a shell: what takes longer than a second is no help to who types.
const completionTime = time.Second

// completer returns what may be meant by a word that is being typed.
type completer = func() []string

// words is a completer of what is always the same.
func words(w ...string) completer { return func() []string { return w } }

// complete gives a flag its completions.
func (t *target) complete(c *cobra.Command, flag string, values completer) {
	_ = c.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values(), cobra.ShellCompDirectiveNoFileComp
	}) // it fails for a flag that is not there, and a test completes each
}

// completeID completes the id of a request, of the newest ones, with what tells them apart.
func (t *target) completeID(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var out []string
	if len(args) == 0 {
		for _, s := range t.newest() {
			out = append(out, s[0]+"\t"+s[1]+" "+s[2])
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// repositories completes the repositories of the newest requests.
func (t *target) repositories() []string {
	var out []string
	for _, s := range t.newest() {
		if !slices.Contains(out, s[1]) {
			out = append(out, s[1])
		}
	}
	return out
}

// newest returns id, repository and state of the newest requests; none if the API does
// not say so at once.
func (t *target) newest() [][3]string {
	ctx, cancel := context.WithTimeout(context.Background(), completionTime)
	defer cancel()
	cl, err := t.client(ctx)
	if err != nil {
		return nil
	}
	page, err := cl.Requests(ctx, client.Query{})
	if err != nil {
		return nil
	}
	var out [][3]string
	for _, s := range page.Requests {
		out = append(out, [3]string{s.ID, s.Repository, s.State})
	}
	return out
}
