package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/internal/appsetup"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

// appFlags are the flags of app create.
type appFlags struct {
	org, name, url, web, api, scope, dir, region, webhook, key string

	cancel, ssm bool
}

func appCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "app",
		Short: "Make the GitHub App that delivers workflow jobs and registers runners",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(appCreateCommand())
	return c
}

func appCreateCommand() *cobra.Command {
	var a appFlags
	c := &cobra.Command{
		Use:   "create",
		Short: "Make a GitHub App for an organization, and keep its secrets",
		Long: `create prints an address of this machine, whose page sends you to GitHub. There you
see the App's name and its rights, and make it. Back here you compare its number, and
its private key and webhook secret go into files of --dir, or with --ssm into the
parameters that the control plane reads, with the AWS credentials of your shell. They
are never printed, and never overwrite what is there. Then install the App at the
address that is printed: create waits for that, and prints what the registration needs.`,
		Example: `  garo app create --org acme --url https://garo.example.org --ssm --region eu-west-2`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.run(cmd) },
	}
	f := c.Flags()
	f.StringVar(&a.org, "org", "", "organization that is to own the App (needed)")
	f.StringVar(&a.url, "url", "", "address of the control plane's API (needed)")
	f.StringVar(&a.name, "name", "", "name of the App (default garo-ORG)")
	f.StringVar(&a.scope, "scope", "organization", "where runners register: organization or repository")
	f.BoolVar(&a.cancel, "cancel-runs", false, "let it cancel runs that may or can have no machine (on_forbidden or on_failure = cancel_run)")
	f.StringVar(&a.dir, "dir", filepath.Join(defaultDir, "app"), "folder that keeps the secrets, without --ssm")
	f.BoolVar(&a.ssm, "ssm", false, "put the secrets into SSM parameters")
	f.StringVar(&a.region, "region", "", "AWS region of the parameters (default that of the shell)")
	f.StringVar(&a.webhook, "webhook-parameter", "/garo/webhook", "SSM parameter of the webhook secret")
	f.StringVar(&a.key, "key-parameter", "/github/runner/app", "SSM parameter of the private key: github.parameter of the registration")
	f.StringVar(&a.web, "github", "https://github.com", "address of GitHub for people")
	f.StringVar(&a.api, "github-api", "https://api.github.com", "address of GitHub's API")
	return c
}

// pollInstallation is how often GitHub is asked whether the App is installed: a person does
// that, and 20 calls a minute are few of the 5,000 an hour.
const pollInstallation = 3 * time.Second

func (a *appFlags) run(cmd *cobra.Command) error {
	switch {
	case a.org == "" || a.url == "":
		return usage("--org and --url are needed")
	case a.scope != "organization" && a.scope != "repository":
		return usage("--scope %q: want organization or repository", a.scope)
	case !strings.HasPrefix(a.url, "https://"):
		return usage("--url %q: GitHub delivers to https addresses", a.url)
	}
	if a.name == "" {
		a.name = "garo-" + a.org
	}
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	keep, err := a.keeper(ctx)
	if err != nil {
		return err
	}
	c := appsetup.Config{
		Web: a.web, API: a.api, Owner: a.org, Name: a.name, Webhook: strings.TrimSuffix(a.url, "/") + "/github/webhook",
		Repositories: a.scope == "repository", Cancel: a.cancel,
		Show: func(address string) {
			fmt.Fprintf(out, "Open this in a browser of this machine, and make the App:\n\n  %s\n\n", address)
		},
		Confirm: func(made appsetup.App) (bool, error) {
			fmt.Fprintf(out, "GitHub made the App %q, number %d, of %s.\nIs that the number on its page %s? Type it again to keep it: ", made.Name, made.ID, made.Owner, made.URL)
			line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
			return strings.TrimSpace(line) == fmt.Sprint(made.ID), err
		},
	}
	made, err := appsetup.Create(ctx, c)
	if err != nil {
		return err
	}
	where, err := keep(made)
	if err != nil {
		return fmt.Errorf("%w; the App %d has secrets that are not kept: make new ones at %s", err, made.ID, made.URL)
	}
	fmt.Fprintf(out, "Its secrets are in %s.\nInstall it at %s, for the repositories that GARO serves.\n", where, made.InstallURL())
	for {
		proof, err := github.Proof(made.ID, made.Key, time.Now())
		if err != nil {
			return fmt.Errorf("the App's key: %w", err)
		}
		switch id, err := appsetup.Installation(ctx, c, proof); {
		case err != nil:
			return err
		case id != 0:
			fmt.Fprintf(out, "It is installed. Say so in the registration:\n\n  github = { app_id = %d, installation_id = %d%s }\n", made.ID, id, a.parameter())
			return nil
		}
		if err := sleep.For(ctx, pollInstallation); err != nil {
			return err
		}
	}
}

// parameter names the key's parameter for the registration; empty: it is in a file.
func (a *appFlags) parameter() string {
	if !a.ssm {
		return ""
	}
	return fmt.Sprintf(", parameter = %q", a.key)
}

// keeper returns what keeps the secrets, and says where. What can be checked is checked
// before there is an App.
func (a *appFlags) keeper(ctx context.Context) (func(appsetup.Made) (string, error), error) {
	if !a.ssm {
		if err := os.MkdirAll(a.dir, 0o700); err != nil {
			return nil, err
		}
		key, hook := filepath.Join(a.dir, "key.pem"), filepath.Join(a.dir, "webhook.json")
		for _, name := range []string{key, hook} {
			if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("%s is there already: move it away, or name another --dir", name)
			}
		}
		return func(m appsetup.Made) (string, error) {
			return a.dir, errors.Join(writeSecret(key, m.Key), writeSecret(hook, hookDocument(m)))
		}, nil
	}
	cfg, err := config.LoadDefaultConfig(ctx, func(o *config.LoadOptions) error { o.Region = a.region; return nil })
	if err != nil {
		return nil, fmt.Errorf("AWS credentials: %w", err)
	}
	client := ssm.NewFromConfig(cfg)
	for _, name := range []string{a.key, a.webhook} {
		var none *types.ParameterNotFound
		_, err := client.GetParameter(ctx, &ssm.GetParameterInput{Name: &name})
		switch {
		case err == nil:
			return nil, fmt.Errorf("the parameter %s is there already: name another, or delete it", name)
		case !errors.As(err, &none):
			return nil, fmt.Errorf("look for the parameter %s: %w", name, err)
		}
	}
	return func(m appsetup.Made) (string, error) {
		for name, value := range map[string]secret.Text{a.key: m.Key, a.webhook: hookDocument(m)} {
			in := &ssm.PutParameterInput{Name: &name, Value: aws.String(value.Reveal()), Type: types.ParameterTypeSecureString}
			if _, err := client.PutParameter(context.WithoutCancel(ctx), in); err != nil {
				return "", fmt.Errorf("write the parameter %s: %w", name, err)
			}
		}
		return "the parameters " + a.key + " and " + a.webhook, nil
	}, nil
}

// hookDocument is the parameter `webhook`.
func hookDocument(m appsetup.Made) secret.Text {
	b, err := json.Marshal(map[string][]string{"secrets": {m.WebhookSecret.Reveal()}})
	if err != nil {
		panic(err) // texts always marshal
	}
	return secret.New(string(b))
}

// writeSecret makes a file that its owner alone may read. It overwrites none.
func writeSecret(name string, text secret.Text) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text.Reveal())
	return errors.Join(err, f.Close())
}
