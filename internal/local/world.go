package local

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/diskmap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simjobs"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// githubToken is the credential that the simulated GitHub knows. It opens nothing else.
var githubToken = secret.New("local")

// world opens EC2 and GitHub, as they were left.
func (s *System) world() error {
	disk, err := diskmap.Open(filepath.Join(s.cfg.Dir, WorldFile))
	if err != nil {
		return err
	}
	s.close = append(s.close, disk.Close)
	gh, err := simgithub.New(simgithub.Config{
		Rules: simgithub.Rules{Token: githubToken}, Disk: disk, Lost: s.cfg.GitHubLost,
	})
	if err != nil {
		return err
	}
	s.GitHub = gh
	world := simfleet.WorldConfig{Disk: disk, Pending: s.cfg.BootTime / 4, NeverBoots: s.cfg.NeverBoots}
	if s.cfg.EC2Pacing {
		world.Launches = simfleet.EC2Rate
	}
	var jobs simfleet.Broker = &broker{Server: gh, teller: s.teller, records: s.Store, jobs: s.cfg.Jobs, seen: map[string]bool{}}
	if s.cfg.GitHubURL != "" {
		jobs = pretender{}
	}
	// The machines call the handler of the API; what they say goes through no
	// socket, so that a thousand of them fit.
	s.Fleet, err = simfleet.Open(simfleet.Config{
		World: world, HTTP: memhttp.Client(s.api), Broker: jobs, BootTime: s.cfg.BootTime - s.cfg.BootTime/4,
		Sign: simidentity.Own().Sign, Log: s.cfg.Log,
	})
	if err != nil {
		return err
	}
	s.close = append(s.close, func() error { s.Fleet.Close(); return nil })
	for _, p := range s.cfg.Empty {
		s.Fleet.SetCapacity(p, false)
	}
	return nil
}

// broker lets simulated machines talk to the simulated GitHub, and gives each
// runner its pretended job.
type broker struct {
	*simgithub.Server
	teller  *teller
	records store.Store
	jobs    time.Duration // zero: there are none

	mu   sync.Mutex
	seen map[string]bool // the runners that went online
}

func (b *broker) Connect(ctx context.Context, config string) (simfleet.Session, error) {
	x, err := simjobs.Connect(ctx, b.Server, config)
	if err != nil {
		return nil, err
	}
	if b.jobs > 0 {
		if err := b.queue(ctx, config); err != nil {
			x.Close()
			return nil, err
		}
	}
	return asking{x, b.teller}, nil
}

// asking is a session whose jobs know the name of their repository: here GitHub has any,
// by its number alone.
type asking struct {
	simfleet.Session
	t *teller
}

// Wait implements simfleet.Session.
func (a asking) Wait(ctx context.Context) (simfleet.Job, error) {
	j, err := a.Session.Wait(ctx)
	if repo, unknown := a.t.repository(ctx, j.Asks.RepositoryID); unknown == nil {
		j.Asks.Repository, j.Asks.OwnerID = repo.Name, repo.OwnerID
	}
	return j, err
}

// queue queues the job of a runner that goes online for the first time: for its
// own label, so that no other runner takes it, and of the workflow run that asked
// for the runner, so that nobody takes the job for a thief.
func (b *broker) queue(ctx context.Context, config string) error {
	name, err := nameIn(config)
	if err != nil {
		return err
	}
	registered := b.Registrations()
	i := slices.IndexFunc(registered, func(r simgithub.Registration) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	runner := strings.TrimPrefix(name[:strings.LastIndex(name, "-")], "garo-"+ControlPlane+"-") // the rest is the number of the registration
	record, err := store.Read[store.Runner](ctx, b.records, runner)
	if err != nil {
		return err
	}
	if record.OfJob() || !b.first(runner) { // a workflow job is there already
		return nil
	}
	// An operator's request comes from no run: any number will do.
	run := cmp.Or(record.RunID, strconv.FormatInt(time.Now().UnixMicro(), 10))
	repository := cmp.Or(registered[i].RepositoryID, record.Repository.ID) // an organization's runner has none
	_, err = b.Queue(repository, simgithub.Job{RunID: run, Labels: registered[i].Labels[:1], Duration: b.jobs})
	return err
}

func (b *broker) first(runner string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := !b.seen[runner]
	b.seen[runner] = true
	return first
}

// nameIn returns the name of the registration in a just-in-time config, as the
// runner program finds it there.
func nameIn(config string) (string, error) {
	var files map[string][]byte
	var settings struct{ AgentName string }
	b, err := base64.StdEncoding.DecodeString(config)
	if err == nil {
		err = json.Unmarshal(b, &files)
	}
	if err == nil {
		err = json.Unmarshal(files[".runner"], &settings)
	}
	if err != nil || settings.AgentName == "" {
		return "", errors.New("the config names no runner")
	}
	return settings.AgentName, nil
}
