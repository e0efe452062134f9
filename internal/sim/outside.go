package sim

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simjobs"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/promise"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// account is the registration that a world begins with.
func account() store.Account {
	return store.Account{
		ID:           setting.AccountID,
		ExternalID:   secret.New(externalID),
		Repositories: []store.Named{{ID: setting.RepositoryID, Name: setting.Repository}},
		Owners:       []store.Named{{ID: "1", Name: "acme"}},
		Regions: map[string]store.Region{setting.Region: {
			Subnets: []string{"subnet-a", "subnet-b"}, SecurityGroups: []string{"sg-1"}, Images: []string{"/garo/image"},
			RootVolume: store.Volume{SizeGB: 30, Type: "gp3"},
		}},
		InstanceTypes: []string{"t3a.micro", "m7a.large"}, DefaultInstanceTypes: []string{"t3a.micro", "m7a.large"},
		Markets: []string{store.Spot, store.OnDemand}, SpotFallback: true, Modes: []string{store.Shared, store.Ephemeral},
		MaxRunners: 1000, MachineOptions: store.MachineOptions{MaxRootVolumeGB: 200, RequestTags: []string{"job"}, InstanceRequirements: &store.Requirements{
			VCPUs: store.Range{Min: 2, Max: 8}, Arch: []string{store.X86, store.ARM64}, GPU: store.Range{Max: 1}, Exclude: []string{"t3a.*"},
		}, BootLimitsS: map[string]int{setting.SlowType: setting.SlowBoot}},
	}
}

// accounts is a store.Accounts of the one account.
type accounts struct{ *World }

func (a accounts) Account(ctx context.Context, id string) (store.Account, error) {
	e := &kernel.Effect{Op: kernel.Get, What: "account", On: id, To: kernel.ToSSM}
	return kernel.Do(ctx, a.World.Kernel, e, func(ctx context.Context) (store.Account, error) {
		return registered{a.World}.Account(ctx, id)
	})
}

func (a accounts) List(ctx context.Context) ([]string, error) { return registered{a.World}.List(ctx) }

// appID is the number of the GitHub App that the account of a world with workflow jobs names.
const appID = 7

// appKey is the key that the App proves itself with, and appPEM is as GitHub gives it out.
var (
	appKey = sync.OnceValue(func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err) // the system has no randomness
		}
		return key
	})
	appPEM = sync.OnceValue(func() secret.Text {
		return secret.New(string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(appKey())})))
	})
)

// hub makes GitHub, and its client.
func (w *World) hub() {
	var err error
	var repositories []github.Repository
	for _, r := range w.Account.Repositories {
		repositories = append(repositories, github.Repository{ID: r.ID, Name: r.Name})
	}
	w.GitHub, err = simgithub.New(simgithub.Config{
		Repositories: repositories,
		Organizations: []simgithub.Organization{{ID: setting.Organization.ID, Name: setting.Organization.Name, Groups: []simgithub.Group{
			{ID: setting.GroupID - 1, Name: "others", Repositories: []string{}},
			{ID: setting.GroupID, Name: setting.Organization.Group, Repositories: []string{setting.RepositoryID}},
		}}},
		Rules:   simgithub.Rules{Token: secret.New(pat), Others: []secret.Text{secret.New(secondPAT)}, Limit: w.cfg.GitHubLimit, App: simgithub.App{ID: appID, Installation: 1, Key: &appKey().PublicKey}},
		ReadLag: w.cfg.ReadLag,
		Fault:   w.hubFails,
		Errorf:  w.Errorf, Random: w.Random("github"),
	})
	w.must(err)
	share := 0.0
	if w.cfg.GitHubLimit != (simgithub.Limit{}) {
		share = 1 // one client is that of all workers and of the reaper
	}
	w.app, err = github.NewCredentials(github.CredentialsConfig{
		BaseURL: "http://localhost", Account: registered{w}.Account,
		Parameter: func(context.Context, string, string, bool) (secret.Text, error) { return appPEM(), nil },
	})
	w.must(err)
	w.github, err = github.New(github.Config{
		Share: share, Names: w.credentialNames, Log: slog.New(heard{w.log.logger("github", immortal).Handler()}),
		BaseURL: "http://localhost", HTTP: memhttp.Client(w.GitHub.Handler()),
		Token: func(ctx context.Context, a github.Access) (secret.Text, error) {
			if a.Right == github.AsApp {
				return w.app.Token(ctx, a)
			}
			if names := w.Account.CredentialNames(); len(names) > 1 && a.Credential == names[1] && a.Account == w.Account.ID {
				return secret.New(secondPAT), nil
			}
			return secret.New(pat), nil
		},
	})
	w.must(err)
}

// hubFails is what goes wrong with a call of GitHub's API. A credential that it refuses is
// refused before all else. People, who are no invocation, have credentials of their own.
func (w *World) hubFails(op string, r *http.Request) (f simgithub.Fault) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if place := slices.Index([]string{pat, secondPAT}, token); place >= 0 && w.cfg.Refuses != nil && kernel.InvocationOf(r.Context()) != nil {
		if refusal := w.cfg.Refuses(place); refusal != nil {
			if names, err := w.credentialNames(r.Context(), w.Account.ID); err == nil && len(names) > 1 {
				w.Refused()
			}
			return simgithub.Fault{Instead: *refusal}
		}
	}
	if w.cfg.GitHub != nil {
		f = w.cfg.GitHub(op)
	}
	return f
}

// credentialNames returns the names of an account's credentials.
func (w *World) credentialNames(ctx context.Context, account string) ([]string, error) {
	a, err := registered{w}.Account(ctx, account)
	if err != nil {
		return []string{""}, nil // it ends what lives with what it has
	}
	return a.CredentialNames(), nil
}

// outside makes what is around GARO.
func (w *World) outside() {
	w.hub()
	ec2 := simfleet.WorldConfig{
		Pending: setting.Pending, Stopping: setting.Stopping, Launches: simfleet.EC2Rate, PageSize: 100, NeverBoots: w.cfg.NeverBoots,
		Fault: func(op string, _ fleet.Place, l fleet.Launch) error {
			if w.cfg.EC2 == nil {
				return nil
			}
			return w.cfg.EC2(op, l)
		},
		Random: w.Random("ec2"),
		Image: func(fleet.Place, string) (string, error) {
			return fmt.Sprintf("ami-%017d", w.images.Load()), nil
		},
	}
	if w.cfg.World != nil {
		w.cfg.World(&ec2)
	}
	cfg := simfleet.Config{
		World: ec2,
		HTTP:  &http.Client{Transport: door{w, kernel.Machine}}, Broker: broker{w}, BootTime: setting.BootTime,
		Sign: simidentity.Own().Sign, Metadata: w.cfg.Metadata,
		Log: w.log.logger(kernel.Machine, immortal),
	}
	if promise.Wants(w.Account.Outfit) {
		cfg.Install = w.setUp
		cfg.Plain = func(string) bool { return w.cfg.PlainAgent != nil && w.cfg.PlainAgent(w.Count("agent")) }
	}
	var err error
	w.Fleet, err = simfleet.Open(cfg)
	w.must(err)
}

// setUp makes a machine what its account wants, or not.
func (w *World) setUp(ctx context.Context, instance string, o apitype.Outfit) (did string, err error) {
	if len(o.Parts()) == 0 || w.IsFit(instance) {
		return "", nil
	}
	if w.cfg.SetUp != nil {
		var took time.Duration
		took, err = w.cfg.SetUp(w.Count("set-up"))
		if sleep.For(ctx, took) != nil {
			err = errors.New("script: it did not end")
		}
	}
	if err != nil {
		err = fmt.Errorf("%w: of %s: %w", agent.ErrSetup, instance, err)
		w.FitOut(instance, err.Error())
		return "", err
	}
	w.FitOut(instance, "")
	return "set up: " + strings.Join(o.Parts(), ", "), nil
}

// broker lets simulated machines talk to the simulated GitHub.
type broker struct{ *World }

func (b broker) Connect(ctx context.Context, config string) (simfleet.Session, error) {
	s, err := simjobs.Connect(ctx, b.GitHub, config)
	if err != nil {
		return nil, err
	}
	runner := ""
	for _, g := range b.GitHub.Registrations() {
		if g.Config.Equal(config) {
			runner = setting.RunnerIn(g.Name)
		}
	}
	b.World.Connects(runner)
	return session{s, b.World, runner}, nil
}

// session is a runner program's connection. runner is whose it is.
type session struct {
	simjobs.Session
	world  *World
	runner string
}

func (s session) Wait(ctx context.Context) (simfleet.Job, error) {
	j, err := s.Session.Wait(ctx)
	if s.world.cfg.Ghosts && errors.Is(err, simfleet.ErrDeleted) {
		<-ctx.Done() // it never learns
	}
	s.heard(ctx, err)
	return j, err
}

func (s session) Watch(ctx context.Context) error {
	err := s.Session.Watch(ctx)
	s.heard(ctx, err)
	return err
}

// heard notes that GitHub refused the program. It takes a time of its own, since
// GitHub refuses all programs at once. A program that ends meanwhile for another
// reason, such as the end of its job, never hears of it.
func (s session) heard(ctx context.Context, err error) {
	if !errors.Is(err, simfleet.ErrTooOld) {
		return
	}
	t := time.NewTimer(time.Duration(kernel.Hash(s.world.cfg.Seed, "refused", s.runner)%499_979)*time.Microsecond + 1)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
		s.world.Refuses(s.runner)
	}
}
