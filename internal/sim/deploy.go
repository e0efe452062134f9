package sim

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// agents is what user data says of the agent's programs; a simulated machine has
// the agent built in.
var agents = map[string]string{"amd64": strings.Repeat("a", 64), "arm64": strings.Repeat("b", 64)}

// assemble makes what GARO is made of but for the workers.
func (w *World) assemble() {
	w.deployed = deployment{keys: w.Keys, agents: agents}
	w.serve()
	w.reaper = reaper.Config{
		Store: tappedStore{w}, Queue: tappedQueue{w}, Accounts: accounts{w}, Fleet: tappedFleet{w}, GitHub: tappedGitHub{w},
		Limits: w.Limits, ControlPlane: ControlPlane,
	}
	w.Client = w.caller(operatorToken)
}

// deployment is what may change while machines live.
type deployment struct {
	n      int // counts them
	keys   *keys.Ring
	agents map[string]string
}

// ring returns the keys of the world, of which current signs.
func (w *World) ring(current string) *keys.Ring {
	ring, err := keys.NewRing(secret.New(idKey), current, map[string]secret.Text{"k1": secret.New(firstKey), "k2": secret.New(secondKey)})
	w.must(err)
	return ring
}

// redeploy replaces the API and, once they are done with what they do, all workers.
func (w *World) redeploy(change func(*deployment)) {
	w.mu.Lock()
	w.deployed.n++
	change(&w.deployed)
	w.mu.Unlock()
	w.serve()
}

// deploy brings a new version of the agent.
func (w *World) deploy(hash string) {
	w.redeploy(func(d *deployment) { d.agents = map[string]string{"amd64": hash, "arm64": hash} })
}

// rotate makes the other key the one that signs. It reports false if it is already.
func (w *World) rotate() bool {
	w.mu.Lock()
	done := w.deployed.keys.Current() == "k2"
	w.mu.Unlock()
	if !done {
		ring := w.ring("k2")
		w.redeploy(func(d *deployment) { d.keys = ring })
	}
	return !done
}

// deployment returns what is deployed now.
func (w *World) deployment() deployment {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deployed
}

// serve makes the API.
func (w *World) serve() {
	handler := api.New(api.Config{
		Store: tappedStore{w}, Queue: tappedQueue{w}, Accounts: accounts{w}, Keys: w.deployment().keys, Limits: w.Limits, URL: url,
		Auth: api.ByPrefix{Operators: api.Operators{"sim": keys.HashToken(operatorToken)}, GitHub: runs{}},
		Now:  w.clock(API), Random: w.random(API), Log: w.logger(API, func() bool { return false }),
	})
	w.api.Store(&handler)
}

// handler is the API as it is deployed now.
func (w *World) handler() http.Handler { return *w.api.Load() }

// process returns a fresh worker.
func (w *World) process() *process {
	w.mu.Lock()
	w.invoked["process"]++
	name := fmt.Sprintf("process-%d", w.invoked["process"])
	w.mu.Unlock()
	d := w.deployment()
	p := &process{deployed: d.n}
	p.worker = worker.New(worker.Config{
		Store: tappedStore{w}, Queue: tappedQueue{w}, Accounts: accounts{w}, Fleet: tappedFleet{w}, GitHub: tappedGitHub{w},
		Keys: d.keys, Limits: w.Limits, ControlPlane: ControlPlane, APIURL: url, Agents: d.agents,
		Now: w.clock(Worker), Random: w.random(name), Log: w.logger(name, func() bool { return p.inv.isDead() }),
	})
	return p
}

// caller returns a client with a token.
func (w *World) caller(token string) *client.Client {
	return client.New(client.Config{
		URL: url, HTTP: &http.Client{Transport: door{w, Client}}, Random: w.random(Client + token),
		Token: func(context.Context) (client.Token, error) { return client.NewToken(token), nil },
	})
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
		RepositoryID: repositoryID, Repository: Repository, OwnerID: "1", Owner: "acme", Visibility: "private",
		RunID: run, RunAttempt: "1", Actor: "somebody", Event: "push", Ref: "refs/heads/main", RunnerEnvironment: "github-hosted",
	}}, nil
}

// Workflow returns a client that calls as a job of a workflow run.
func (w *World) Workflow(run string) *client.Client { return w.caller(runPrefix + run) }
