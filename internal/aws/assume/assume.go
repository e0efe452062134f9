// Package assume takes on the roles that runner accounts offer to GARO, and reads
// their SSM parameters with them.
//
// It promises that a role is only ever taken on with the external id that the
// account's registration has, under a name and a source identity that tell the
// account's audit trail who it was, and with a session policy that leaves a part
// of the control plane no more than its own work needs. A session is shared by
// all who need it at the same time, and is given up ten minutes before it ends.
// No error and no log line ever holds an external id.
package assume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/flight"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/ssmparam"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// DefaultRole is the name of the role when the registration names none.
	DefaultRole = "GitHubRunnerAssumeRole"
	// life is how long a session lasts: the most that a role gives to a caller who
	// has a role already, as a Lambda function does; to ask for more fails
	// (https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_terms-and-concepts.html#iam-term-role-chaining).
	life = time.Hour
	// spare is how long before its end a session is given to nobody any more: more
	// than any invocation lasts, and than clocks differ.
	spare = 10 * time.Minute
	// refusedFor is how long a refusal stands before the role is tried again: the
	// reaper alone asks for each runner of an account.
	refusedFor = 10 * time.Second
)

// Config is what Sessions are made of. Every field without a default is needed.
type Config struct {
	// AWS has the control plane's own credentials, its HTTP client, and its region:
	// that region's STS is asked, so that no other region has to be up, and since
	// only a region's STS makes credentials that serve in all regions
	// (https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_enable-regions.html).
	AWS aws.Config
	// Accounts has the registrations.
	Accounts store.Accounts
	// ControlPlane is its name, 1 to 16 of a-z, 0-9 and hyphen.
	ControlPlane string
	// Part is who takes on the roles.
	Part Part
	Now  func() time.Time // nil: time.Now
	Log  *slog.Logger     // nil: none
}

// Sessions are those of the roles of all registered accounts. They are safe for
// concurrent use. No call is repeated, but for Do's one.
type Sessions struct {
	cfg    Config
	assume func(ctx context.Context, in *sts.AssumeRoleInput, opts ...func(*sts.Options)) (*sts.AssumeRoleOutput, error)
	cache  flight.Cache[role, aws.Credentials]

	mu      sync.Mutex
	readers map[fleet.Place]*ssmparam.Reader
}

// New returns Sessions. It calls nobody.
func New(cfg Config) *Sessions {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	client := sts.NewFromConfig(cfg.AWS, func(o *sts.Options) { o.Retryer = aws.NopRetryer{} })
	return &Sessions{
		cfg:     cfg,
		assume:  client.AssumeRole,
		cache:   flight.Cache[role, aws.Credentials]{Now: cfg.Now},
		readers: map[fleet.Place]*ssmparam.Reader{},
	}
}

// Do makes a call with credentials of an account's role. If AWS answers that they
// are no good, it makes the call once more, with new ones: a session can be
// revoked, and its role made again. Errors of the call come back as they are. That
// the role cannot be had is a *fleet.Error, or store.ErrNoAccount; anything else
// is an outage.
func (s *Sessions) Do(ctx context.Context, account string, call func(aws.CredentialsProvider) error) error {
	for again := false; ; again = true {
		r, creds, err := s.session(ctx, account)
		if err != nil {
			return fmt.Errorf("take on the role of account %s: %w", account, err)
		}
		err = call(credentials.StaticCredentialsProvider{Value: creds})
		if again || !stale(err) {
			return err
		}
		s.cfg.Log.Warn("AWS refuses the session of a role; takes it on again", "account", account, "error", err)
		s.cache.Forget(r, func(c aws.Credentials) bool { return c.AccessKeyID == creds.AccessKeyID })
	}
}

// staleCodes are what services answer to credentials that have ended, or whose
// role is no longer the one that they are of. None of them has done anything
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html,
// https://docs.aws.amazon.com/systems-manager/latest/APIReference/CommonErrors.html).
var staleCodes = []string{
	"ExpiredToken", "ExpiredTokenException", "RequestExpired", "AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException",
}

func stale(err error) bool {
	e, ok := errors.AsType[smithy.APIError](err)
	return ok && slices.Contains(staleCodes, e.ErrorCode())
}

// session returns credentials of an account's role that last for a while yet.
func (s *Sessions) session(ctx context.Context, account string) (role, aws.Credentials, error) {
	r, err := s.roleFor(ctx, account)
	if err != nil {
		return role{}, aws.Credentials{}, err
	}
	creds, err := s.cache.Get(ctx, r, false, func(ctx context.Context, _ aws.Credentials) (aws.Credentials, time.Time, error) {
		creds, err := s.begin(ctx, r)
		switch {
		case err == nil:
			return creds, creds.Expires.Add(-spare), nil
		case errors.Is(err, fleet.ErrRefused):
			return aws.Credentials{}, s.cfg.Now().Add(refusedFor), err
		}
		return aws.Credentials{}, time.Time{}, err
	})
	return r, creds, err
}

// begin takes on a role.
func (s *Sessions) begin(ctx context.Context, r role) (aws.Credentials, error) {
	out, err := s.assume(ctx, s.input(r))
	if err != nil {
		return aws.Credentials{}, refusal(r, err)
	}
	c := out.Credentials
	if c == nil || aws.ToString(c.AccessKeyId) == "" || aws.ToString(c.SecretAccessKey) == "" || c.Expiration == nil {
		return aws.Credentials{}, errors.New("STS answered without credentials")
	}
	s.cfg.Log.Debug("took on a role", "account", r.account, "role", r.arn, "until", *c.Expiration)
	return aws.Credentials{
		AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: aws.ToString(c.SessionToken),
		CanExpire: true, Expires: *c.Expiration, AccountID: r.account, Source: "GARO",
	}, nil
}

// Parameter returns an SSM parameter of a runner account, read with its role: kept
// and served as ssmparam.Reader promises.
func (s *Sessions) Parameter(ctx context.Context, at fleet.Place, name string, fresh bool) (secret.Text, error) {
	return s.reader(at).Get(ctx, name, fresh)
}

func (s *Sessions) reader(at fleet.Place) *ssmparam.Reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.readers[at]; r != nil {
		return r
	}
	client := ssm.NewFromConfig(s.cfg.AWS, func(o *ssm.Options) { o.Region, o.Retryer = at.Region, aws.NopRetryer{} })
	get := client.GetParameter // a method value: the linker drops what is not called
	r := ssmparam.NewReader(func(ctx context.Context, in *ssm.GetParameterInput, opts ...func(*ssm.Options)) (out *ssm.GetParameterOutput, err error) {
		err = s.Do(ctx, at.Account, func(creds aws.CredentialsProvider) error {
			out, err = get(ctx, in, append(opts, func(o *ssm.Options) { o.Credentials = creds })...)
			return err
		})
		if errors.Is(err, fleet.ErrRefused) {
			err = fmt.Errorf("%w: %w", ssmparam.ErrDenied, err) // what was read before does not serve any more
		}
		return out, err
	}, s.cfg.Now, s.cfg.Log)
	s.readers[at] = r
	return r
}

// Credential returns the parameter that has an account's GitHub credential, for
// github.CredentialsConfig: it is in the account's default region. What only
// people can fix, in SSM or in the role, is github.ErrNoParameter.
func (s *Sessions) Credential(ctx context.Context, account, name string, fresh bool) (secret.Text, error) {
	a, err := s.cfg.Accounts.Account(ctx, account)
	if err != nil {
		return secret.Text{}, err
	}
	region := a.DefaultRegion
	if regions := slices.Sorted(maps.Keys(a.Regions)); region == "" && len(regions) == 1 {
		region = regions[0]
	}
	if region == "" {
		return secret.Text{}, fmt.Errorf("%w: the registration of account %s needs a default_region: the parameter is read there", github.ErrNoParameter, account)
	}
	text, err := s.Parameter(ctx, fleet.Place{Account: account, Region: region}, name, fresh)
	if errors.Is(err, ssmparam.ErrNoParameter) || errors.Is(err, ssmparam.ErrDenied) {
		err = fmt.Errorf("%w in %s: %w", github.ErrNoParameter, region, err)
	}
	return text, err
}
