// Package sim runs the whole of GARO in virtual time: the real API, worker,
// reaper and agent over an in-memory store and queue, a simulated EC2 and a
// simulated GitHub.
//
// Every call that a part makes of what is around it is an effect, to which a test
// gives a fate (package kernel). Workers are run as Lambda runs them, the reaper each
// minute. What must hold is looked at whenever something is committed or called, and
// by Check (package promise). Package plan draws random worlds, and package explore
// goes through every order of a small part of one.
package sim

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/queuetest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/gateway"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/promise"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

// World is one world: its course of effects, the oracle that watches it, and the
// programs of GARO in it. Make it with Run.
type World struct {
	*testing.T
	*kernel.Kernel
	*promise.Oracle
	*lambda
	*programs
	*workflows
	standing

	Limits store.Limits
	Keys   *keys.Ring
	// Account is the registration. It may be changed while nothing else runs.
	Account store.Account

	// What is really there: these calls are no effects.
	Queue  *queuetest.Memory
	Fleet  *simfleet.Fleet
	GitHub *simgithub.Server
	// Figures has what the parts counted.
	Figures metrics.Tally
	// Client calls the API, as an operator.
	Client *client.Client

	cfg     Config
	gateway *gateway.Gateway
	table   *table
	log     journal
	github  *github.Client
	app     *github.Credentials // of the App that the account names, for what it asks as itself
	images  atomic.Int64        // how many images were built: requests get the newest
}

// Secrets that no record may show. Those that are derived are known to the oracle.
const (
	operatorToken = keys.OperatorPrefix + "canaryoperatorcanaryoperator"
	pat           = "ghp_canarypatcanarypatcanarypatcanary0"
	secondPAT     = "ghp_canarysecondcanarysecondcanary000"
	externalID    = "canaryexternalidcanaryexternalid"
	idKey         = "canaryidkeycanaryidkeycanaryidkey"
	firstKey      = "canaryfirstkeycanaryfirstkeycanary"
	secondKey     = "canarysecondkeycanarysecondkeycanary"
	webhookSecret = "canarywebhooksecretcanarywebhooksecret"
)

// Run tells a story in a new world, in a bubble of fake time, and then ends the
// world. What was found to be wrong in it fails the test.
func Run(t *testing.T, cfg Config, story func(w *World)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cfg)
		ctx, cancel := context.WithCancel(context.Background())
		w.Go(func() { w.source(ctx) })
		w.Go(func() { w.rounds(ctx) })
		if cfg.Plain {
			w.Go(func() { w.tells(ctx) })
		}
		defer func() {
			cancel()
			w.Fleet.Close()
			w.Wait()
			if t.Failed() {
				w.tell()
			}
		}()
		defer func() {
			switch p := recover(); {
			case p == nil || p == over:
			case cfg.Found != nil:
				cfg.Found(fmt.Sprintf("panic: %v\n%s", p, debug.Stack()))
			default:
				panic(p)
			}
		}()
		story(w)
	})
}

// over ends the story of a world whose Config has Found.
var over any = "the story is over"

// Errorf says that something does not hold.
func (w *World) Errorf(format string, args ...any) {
	if w.cfg.Found == nil {
		w.T.Helper()
		w.T.Errorf(format, args...)
		return
	}
	w.cfg.Found(fmt.Sprintf(format, args...))
}

// Error is Errorf of one thing.
func (w *World) Error(what any) {
	w.T.Helper()
	w.Errorf("%v", what)
}

// Fatalf says that something does not hold, and ends the story. Only the story
// itself may call it.
func (w *World) Fatalf(format string, args ...any) {
	w.T.Helper()
	if w.cfg.Found == nil {
		w.T.Fatalf(format, args...)
	}
	w.Errorf(format, args...)
	panic(over)
}

// Fatal is Fatalf of one thing.
func (w *World) Fatal(what any) {
	w.T.Helper()
	w.Fatalf("%v", what)
}

func newWorld(t *testing.T, cfg Config) *World {
	if cfg.KillLate == 0 {
		cfg.KillLate = setting.KillLate
	}
	w := &World{
		T: t, cfg: cfg, Limits: store.DefaultLimits(), Account: account(),
		Queue: queuetest.NewMemory(setting.Visibility), table: newTable(cfg.IndexLag), gateway: gateway.New(cfg.Throttles),
	}
	if cfg.Plain {
		w.Account.GitHub = store.GitHubCredentials{{AppID: appID, InstallationID: 1}}
		w.Account.RunsOn, w.Account.WebhookSecrets = []store.Offer{{Labels: []string{Plain}}}, []secret.Text{secret.New(webhookSecret)}
	}
	if cfg.Two {
		w.Account.GitHub = append(w.Account.Credentials(), store.GitHubCredential{Parameter: "/github/runner/second"})
	}
	if cfg.Account != nil {
		cfg.Account(&w.Account)
	}
	if cfg.Limits != nil {
		cfg.Limits(&w.Limits)
	}
	w.Kernel = kernel.New(kernel.Config{
		Seed: cfg.Seed, Span: cfg.Span, Most: cfg.Most, Skew: cfg.Skew, KillLate: cfg.KillLate, Gate: cfg.Gate,
	})
	w.SetFate(cfg.Fate)
	w.lambda, w.programs, w.workflows = newLambda(w), &programs{w: w}, newWorkflows(w)
	w.Keys = w.ring("k1")
	w.outside()
	w.Oracle = promise.New(promise.Config{
		Kernel: w.Kernel, Limits: &w.Limits, Account: &w.Account, Keys: w.Keys, Fleet: w.Fleet, GitHub: w.GitHub,
		Store: w.Store, Lag: w.table.behind, Errorf: w.Errorf, Workflow: w.workflows.at, Reads: w.lag, Moved: w.registers, Registrars: func() []string { return w.Account.CredentialNames() },
		Secrets: []promise.Secret{
			{What: "the operator's token", Text: operatorToken}, {What: "the GitHub credential", Text: pat}, {What: "the other GitHub credential", Text: secondPAT}, {What: "the external id", Text: externalID},
			{What: "the webhook's secret", Text: webhookSecret}, {What: "the id key", Text: idKey}, {What: "a key", Text: firstKey}, {What: "the other key", Text: secondKey},
		},
	})
	w.Watcher = w.Oracle
	w.assemble()
	return w
}

// SetIndexLag changes by how much the due index is behind the items.
func (w *World) SetIndexLag(lag time.Duration) { w.table.lag.Store(int64(lag)) }

// Store returns what is really recorded: its calls are no effects.
func (w *World) Store() *storetest.Memory { return w.table.real.Load() }

// Wipe empties the table, as a wrong deploy would.
func (w *World) Wipe() { w.Wiped(w.table.empty) }

// Check looks at everything that must hold at any time.
func (w *World) Check() {
	w.Helper()
	w.Oracle.Check(w.log.text())
}

// Quiet waits until nothing is left. It fails the test if
// something still is after the limit, and returns how long it took.
func (w *World) Quiet(limit time.Duration) time.Duration {
	w.Helper()
	began := time.Now()
	for len(w.Left()) > 0 && time.Since(began) < limit {
		time.Sleep(10 * look)
	}
	for _, what := range w.Left() {
		w.Errorf("left after %s: %s", limit, what)
	}
	return time.Since(began)
}

// Alarms returns the alarms that were raised, in order.
func (w *World) Alarms() []store.Alarm {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	return slices.Clone(w.log.alarms)
}

// tell prints what happened, the last part of it if it was much: heartbeats and
// polls are left out.
func (w *World) tell() {
	const most = 120
	told := slices.DeleteFunc(w.Trace(), func(e kernel.Effect) bool {
		return e.Fate == kernel.Pass && strings.Contains(e.Name(), "heartbeat") || strings.Contains(e.Name(), "GET status")
	})
	for _, e := range told[max(0, len(told)-most):] {
		w.Log(e)
	}
	log := w.log.text()
	fmt.Fprintf(w.Output(), "%s", log[max(0, len(log)-10_000):])
}

// must ends the story if there is an error.
func (w *World) must(err error) {
	if err != nil {
		w.Helper()
		w.Fatal(err)
	}
}
