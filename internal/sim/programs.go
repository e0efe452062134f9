package sim

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/pricelist"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/pricelist/simprices"
	"github.com/alphagov/github-actions-runner-orchestration/internal/doctor"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// agents is what user data says of the agent's programs; a simulated machine has
// the agent built in.
var agents = map[string]string{"amd64": strings.Repeat("a", 64), "arm64": strings.Repeat("b", 64)}

// programs are the programs of GARO as they are deployed, and who calls them.
type programs struct {
	processes atomic.Int64 // of the API, that were begun
	w         *World
	api       atomic.Pointer[[]http.Handler]
	reaper    reaper.Config

	mu       sync.Mutex
	deployed deployment
}

// assemble makes what GARO is made of but for the workers.
func (p *programs) assemble() {
	p.deployed = deployment{keys: p.w.Keys, agents: agents}
	p.serve()
	p.reaper = reaper.Config{
		Store: countedStore(p.w), Queue: tappedQueue{p.w}, Accounts: accounts{p.w}, Fleet: tappedFleet{p.w}, GitHub: tappedGitHub{w: p.w},
		Workflows: tappedWorkflows{p.w}, Keys: func(context.Context) (*keys.Ring, error) { return p.deployment().keys, nil },
		Limits: p.w.Limits, ControlPlane: setting.ControlPlane,
	}
	if p.w.cfg.Prices {
		p.reaper.Prices = pricelist.New(memhttp.Client(simprices.Handler()), pricelist.AWS)
	}
	p.w.Client = p.caller(operatorToken)
}

// deployment is what may change while machines live.
type deployment struct {
	n      int // counts them
	keys   *keys.Ring
	agents map[string]string
}

// ring returns the keys of the world, of which current signs.
func (p *programs) ring(current string) *keys.Ring {
	ring, err := keys.NewRing(secret.New(idKey), current, map[string]secret.Text{"k1": secret.New(firstKey), "k2": secret.New(secondKey)})
	p.w.must(err)
	return ring
}

// redeploy replaces the API and, once they are done with what they do, all workers.
func (p *programs) redeploy(change func(*deployment)) {
	p.mu.Lock()
	p.deployed.n++
	change(&p.deployed)
	p.mu.Unlock()
	p.serve()
}

// Deploy brings a new version of the agent.
func (p *programs) Deploy(hash string) {
	p.redeploy(func(d *deployment) { d.agents = map[string]string{"amd64": hash, "arm64": hash} })
}

// Rotate makes the other key the one that signs. It reports false if it is already.
func (p *programs) Rotate() bool {
	p.mu.Lock()
	done := p.deployed.keys.Current() == "k2"
	p.mu.Unlock()
	if !done {
		ring := p.ring("k2")
		p.redeploy(func(d *deployment) { d.keys = ring })
	}
	return !done
}

// fresh is the parameter with the keys.
func (p *programs) fresh(ctx context.Context) (*keys.Ring, error) {
	e := &kernel.Effect{Op: kernel.Get, What: "keys", To: kernel.ToSSM}
	return kernel.Do(ctx, p.w.Kernel, e, func(context.Context) (*keys.Ring, error) { return p.deployment().keys, nil })
}

// LoseKey takes the first key away at once, as after a leak, and has the other one sign.
// It reports false if it is gone already.
func (p *programs) LoseKey() bool {
	if !p.deployment().keys.Has("k1") {
		return false
	}
	ring, err := keys.NewRing(secret.New(idKey), "k2", map[string]secret.Text{"k2": secret.New(secondKey)})
	p.w.must(err)
	p.redeploy(func(d *deployment) { d.keys = ring })
	p.w.KeyLost("k1")
	return true
}

// deployment returns what is deployed now.
func (p *programs) deployment() deployment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deployed
}

// serve makes the processes of the API.
func (p *programs) serve() {
	handlers := make([]http.Handler, max(1, p.w.cfg.APIs))
	for i := range handlers {
		// No two processes draw the same ids, also not before and after a deploy.
		name := fmt.Sprint(kernel.API, p.processes.Add(1))
		handlers[i] = api.New(api.Config{
			Store: countedStore(p.w), Queue: tappedQueue{p.w}, Accounts: accounts{p.w}, Keys: p.deployment().keys, Identity: simidentity.Own().Trust(),
			Limits: p.w.Limits, URL: setting.URL,
			Auth: api.ByPrefix{Operators: api.Operators{"sim": keys.HashToken(operatorToken)}, GitHub: runs{}},
			Now:  p.w.Clock(kernel.API), Random: p.w.Random(name), Log: p.w.log.logger(kernel.API, immortal),
		})
	}
	p.api.Store(&handlers)
}

// handler is the next process of the API as it is deployed now.
func (p *programs) handler() http.Handler {
	handlers := *p.api.Load()
	return handlers[p.w.Count("API process")%len(handlers)]
}

// process returns a fresh worker.
func (p *programs) process() *process {
	name := fmt.Sprintf("process-%d", p.w.Count("process"))
	d := p.deployment()
	fresh := &process{deployed: d.n}
	examiner := doctor.New(doctor.Config{
		Accounts: accounts{p.w}, Fleet: tappedFleet{p.w}, GitHub: tappedCheck{tappedGitHub{w: p.w}, tappedWorkflows{p.w}}, Records: tappedStore{p.w}, Keys: p.fresh, Vouches: simidentity.Own().Trust().Has,
		ControlPlane: setting.ControlPlane, APIURL: setting.URL, HTTP: &http.Client{Transport: door{p.w, kernel.Worker}}, Now: p.w.Clock(kernel.Worker),
	})
	fresh.worker = worker.New(worker.Config{
		Store: countedStore(p.w), Queue: tappedQueue{p.w}, Accounts: accounts{p.w}, Fleet: tappedFleet{p.w}, GitHub: tappedGitHub{p.w, name}, Workflows: tappedWorkflows{p.w},
		Doctor: examiner, Keys: d.keys, FreshKeys: p.fresh, Identity: simidentity.Own().Trust(), Limits: p.w.Limits, ControlPlane: setting.ControlPlane, APIURL: setting.URL, Agents: d.agents,
		Now: p.w.Clock(kernel.Worker), Random: p.w.Random(name), Log: p.w.log.logger(name, func() bool { return fresh.inv.Dead() }),
	})
	return fresh
}

// caller returns a client with a token.
func (p *programs) caller(token string) *client.Client {
	return client.Must(client.New(client.Config{
		URL: setting.URL, HTTP: &http.Client{Transport: door{p.w, kernel.Client}}, Random: p.w.Random(kernel.Client + token),
		Token: func(context.Context) (client.Token, error) { return client.NewToken(token), nil },
	}))
}

// runPrefix begins the ID tokens of workflow runs, which name their run.
const runPrefix = "idtoken-of-run-"

// runs knows the ID tokens.
type runs struct{}

// Authenticate implements api.Authenticator.
func (runs) Authenticate(_ context.Context, token string) (api.Caller, error) {
	run, ok := strings.CutPrefix(token, runPrefix)
	if !ok {
		return api.Caller{}, api.ErrToken
	}
	return api.Caller{Kind: api.GitHub, Name: "somebody", Claims: api.Claims{
		RepositoryID: setting.RepositoryID, Repository: setting.Repository, OwnerID: "1", Owner: "acme", Visibility: "private",
		RunID: run, RunAttempt: "1", Actor: "somebody", Event: "push", Ref: "refs/heads/main", RunnerEnvironment: "github-hosted",
	}}, nil
}

// Workflow returns a client that calls as a job of a workflow run.
func (p *programs) Workflow(run string) *client.Client { return p.caller(runPrefix + run) }

// Thief returns an HTTP client that reaches the API as machines do.
func (p *programs) Thief() *http.Client { return &http.Client{Transport: door{p.w, kernel.Machine}} }
