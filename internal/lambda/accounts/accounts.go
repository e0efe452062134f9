// Package accounts is what the functions that act in accounts have beside the
// others: EC2 by the accounts' roles, and GitHub by their credentials. The API's
// function must not contain it.
package accounts

import (
	"context"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/awshttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/ec2fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/startup"
	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/internal/reach"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// launching is how long an exchange with EC2 may take: RunInstances answers in
	// seconds, and one that is given up has to be asked for again.
	launching = 15 * time.Second
	// registering is how long an exchange with GitHub may take. A registration whose
	// answer is lost costs another name, and GitHub itself gives up after ten seconds
	// (https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api#timeouts).
	registering = 11 * time.Second
)

// Config is what Access is made of, each field needed.
type Config struct {
	ControlPlane string      // the name in tags and registrations
	Part         assume.Part // who takes on the roles
	GitHubURL    string      // where GitHub's REST API is
	GitHubShare  float64     // of the points and calls that GitHub grants
}

// Access is how to reach the accounts.
type Access struct {
	Fleet  *ec2fleet.Fleet
	GitHub *github.Client

	sessions *assume.Sessions
}

// Open returns an Access for the accounts in the parameters, and calls nothing yet.
func Open(b *startup.Base, cfg Config) (*Access, error) {
	var registered store.Accounts = b.Parameters
	if cfg.Part == assume.Reaper { // which ends what lives, whatever became of the registration
		registered = reach.Accounts{Accounts: b.Parameters, Records: b.Store, Keys: b.Parameters.Keys}
	}
	sessions := assume.New(assume.Config{AWS: b.AWS, Accounts: registered, ControlPlane: cfg.ControlPlane, Part: cfg.Part, Log: b.Log})
	creds, err := github.NewCredentials(github.CredentialsConfig{
		BaseURL: cfg.GitHubURL, Account: registered.Account, Parameter: sessions.Credential, HTTP: httpForGitHub(),
	})
	if err != nil {
		return nil, err
	}
	gh, err := github.New(github.Config{
		BaseURL: cfg.GitHubURL, Names: creds.Names, Token: creds.Token, Renew: creds.Renew, Log: b.Log, HTTP: httpForGitHub(), Share: cfg.GitHubShare,
	})
	if err != nil {
		return nil, err
	}
	return &Access{Fleet: ec2fleet.New(forEC2(b.AWS), sessions), GitHub: gh, sessions: sessions}, nil
}

// TakeOn takes on the role of an account, so that its session is there later.
func (a *Access) TakeOn(ctx context.Context, account string) error {
	return a.sessions.Do(ctx, account, func(aws.CredentialsProvider) error { return nil })
}

// Measure returns the metrics that GitHub's answers tell: what is left of the hour.
func (a *Access) Measure() metrics.Figures {
	left, known := a.GitHub.HourLeft()
	if !known {
		return nil
	}
	return metrics.Figures{metrics.GitHubLeft: {100 * left}}
}

func forEC2(cfg aws.Config) aws.Config {
	cfg = cfg.Copy()
	cfg.HTTPClient = awshttp.Client(launching)
	return cfg
}

func httpForGitHub() *http.Client { return &http.Client{Timeout: registering} }
