package pagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// patience bounds each wait for the browser: far more than it takes, since other tests
// may have the processors.
const patience = 2 * time.Minute

// world is a local system that nothing changes but the test, behind a real address.
type world struct {
	*testing.T
	system *local.System
	url    string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	awstest.Need(t, "chromium")
	server := httptest.NewUnstartedServer(nil)
	url := "http://" + server.Listener.Addr().String()
	s, err := local.Open(t.Context(), local.Config{Dir: t.TempDir(), URL: url, Limits: store.DefaultLimits()})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = s.Handler()
	server.Start()
	t.Cleanup(func() {
		server.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{T: t, system: s, url: url}
}

// put records items as they are.
func (w *world) put(items ...store.Item) {
	w.Helper()
	for len(items) > 0 {
		n := min(len(items), store.MaxChanges)
		changes := make([]store.Change, n)
		for i, it := range items[:n] {
			changes[i] = store.Put(it)
		}
		if err := store.NewWriter(w.system.Store, fmt.Sprint("page", time.Now().UnixNano()), time.Now).Commit(w.Context(), changes...); err != nil {
			w.Fatal(err)
		}
		items = items[n:]
	}
}

// id returns the id that words stand for.
func id(words string) string {
	sum := sha256.Sum256([]byte(words))
	id, err := keys.NewID(bytes.NewReader(sum[:]))
	if err != nil {
		panic(err) // a hash is longer than an id
	}
	return id
}

// instance returns the id of the nth instance.
func instance(n int) string { return fmt.Sprintf("i-0a3f52d19c7e4b8%02d", n) }

// history is what a busy hour leaves: machines in all states, requests that wait, that
// are ready, and that failed.
func (w *world) history() {
	now := time.Now().UTC()
	repo := store.Repository{ID: "1001", Name: "acme/shop", OwnerID: "1", Owner: "acme"}
	place := store.Placement{Market: store.Spot, InstanceType: "t3a.small", Subnet: "subnet-a"}
	request := func(name string, state store.RequestState, ago time.Duration) *store.Request {
		at := now.Add(-ago)
		return &store.Request{
			ID: id(name), State: state, CreatedAt: at, Caller: "github octocat", Repository: repo, Origin: store.Origin{RunID: "7001"}, Trace: "trace-" + name,
			Account: local.BuiltIn, Region: local.Region, Type: store.Spot, Labels: []string{"large"}, Mode: store.Shared, Spec: "default", OwnLabel: "garo-" + id("own"),
			TimeoutS: 3600, GiveUpAt: at.Add(15 * time.Minute), History: store.History{{At: at, State: "accepted"}},
		}
	}
	var items []store.Item
	for n, state := range []store.RunnerState{store.RunnerLaunched, store.RunnerBooting, store.RunnerOnline, store.RunnerBusy, store.RunnerBusy, store.RunnerDraining} {
		at := now.Add(-time.Duration(n+1) * time.Minute)
		run := &store.Runner{
			ID: id(fmt.Sprintf("m%c%s", 'b'+n, state)), State: state, CreatedAt: at, Request: id("ready"), Repository: repo, RunID: "7001", Account: local.BuiltIn, Region: local.Region, Mode: store.Shared,
			Labels: []string{"garo-" + id("own"), "large"}, Plan: []store.Placement{place}, InstanceID: instance(n), Lock: "lock", Hard: now.Add(5 * time.Hour),
			Attempts: []store.Attempt{{Placement: place, Runner: id("m"), At: at.Add(time.Second), Code: "launched"}}, LaunchedAt: at.Add(2 * time.Second), History: store.History{{At: at, State: "new", Reason: "launched for a request"}},
		}
		if state != store.RunnerLaunched && state != store.RunnerBooting {
			run.Config, run.Names = store.Config{N: 1}, []store.GitHubName{{N: 1, Name: store.GitHubNameFor(local.ControlPlane, run.ID, 1)}}
			run.Boot.At, run.OnlineAt = at.Add(20*time.Second), at.Add(24*time.Second)
		}
		items = append(items, run)
	}
	ready := request("ready", store.Ready, 4*time.Minute)
	ready.Runner, ready.ReadyAt, ready.EndedAt = items[2].Ref().ID, now.Add(-3*time.Minute), now.Add(-3*time.Minute)
	ready.History = append(ready.History, store.Entry{At: ready.CreatedAt.Add(time.Second), State: "waiting", Reason: "launches a runner"}, store.Entry{At: ready.ReadyAt, State: "ready", Reason: "runner online"})
	queued, oldest := request("queued", store.Accepted, time.Minute), request("oldest", store.Accepted, 10*time.Minute)
	queued.Wait, oldest.Wait = store.WaitPaced, store.WaitQuota
	queued.DueAt, oldest.DueAt = now.Add(time.Hour), now.Add(time.Hour)
	failed := request("failed", store.Failed, 2*time.Hour)
	failed.EndedAt, failed.Error = now.Add(-time.Hour), &store.Failure{Code: "no_capacity", Text: "No placement had capacity. Allow more instance types.", Retryable: true}
	failed.Attempts = []store.Attempt{{Placement: place, Runner: id("gone"), At: failed.CreatedAt, Code: "InsufficientInstanceCapacity"}}
	old := request("older", store.Expired, 5*24*time.Hour)
	old.EndedAt, old.Error = old.CreatedAt.Add(time.Hour), &store.Failure{Code: "expired", Text: "No runner was ready before give_up_at."}
	web := store.Repository{ID: "1002", Name: "acme/web", OwnerID: "1", Owner: "acme"}
	usage := func(ago time.Duration, of store.Repository, rows ...store.UsageRow) {
		for i := range rows {
			rows[i].Account, rows[i].InstanceType, rows[i].Market = local.BuiltIn, "t3a.small", store.Spot
		}
		items = append(items, &store.Usage{ID: store.UsageRef(now.Add(-ago), of).ID, Repository: of, Rows: rows})
	}
	usage(0, repo, store.UsageRow{Workflow: "Build", Runners: 1, Seconds: 3600, Cost: 1_000_000}, store.UsageRow{Workflow: "Deploy", Runners: 3, Seconds: 5400, Unpriced: 1800, Cost: 34_500})
	usage(24*time.Hour, repo, store.UsageRow{Workflow: "Build", Runners: 1, Seconds: 3600, Cost: 500_000})
	usage(24*time.Hour, web, store.UsageRow{Workflow: "Build", Runners: 1, Seconds: 60, Unpriced: 60})
	prices := &store.Prices{Key: store.PriceRefs(local.BuiltIn, local.Region)[0].ID, Hour: map[string]store.MicroUSD{"t3a.small eu-west-2a": 20_000}, Zones: map[string]string{"subnet-a": "eu-west-2a"}, NextAt: now.Add(time.Hour)}
	last := &store.Checkup{ID: store.LastCheck, Caller: "operator ann", CreatedAt: now.Add(-time.Hour), EndedAt: now.Add(-time.Hour), Findings: []store.Finding{
		{Check: "keys", Result: store.ResultOK, Evidence: "Key k1 signs."},
		{Check: "subnet", Account: local.BuiltIn, Region: local.Region, About: "subnet-a", Result: store.ResultFailed, Evidence: "It has no default route.", Remedy: "Give its route table a default route."},
	}}
	reaped := &store.ReaperRun{
		ID: "0", StartedAt: now.Add(-40 * time.Second), EndedAt: now.Add(-38 * time.Second), LateMS: 1500, Left: map[string]int{"sweeps": 2, "ends": 40}, Failures: 3, OldestMS: 600_000, GitHubLeft: new(7),
		LookedAt: now.Add(-40 * time.Second), Braked: []string{local.BuiltIn + "/" + local.Region}, Program: "2.330.0", ProgramEndsAt: now.Add(5*24*time.Hour + time.Hour),
		Alarms: []store.Raised{{Code: store.AlarmBrake, Count: 12, Since: now.Add(-3 * time.Hour), At: now.Add(-time.Minute), Text: "5 machines without a record"}},
	}
	w.put(append(items, reaped, prices, ready, queued, oldest, failed, old, last)...)
}

// browser starts a Chromium with a window of that size, which ends with the test. Its
// scheme is light or dark.
func (w *world) browser(width, height int64, scheme string) *tab {
	w.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		w.Fatal(err)
	}
	// Chromium's sandbox needs rights that root has not in containers; what it opens is ours.
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.UserDataDir(filepath.Join(w.TempDir(), "chromium")), chromedp.WSURLReadTimeout(patience))
	alloc, stop := chromedp.NewExecAllocator(w.Context(), opts...)
	ctx, cancel := chromedp.NewContext(alloc)
	w.Cleanup(func() {
		cancel()
		stop()
	})
	t := &tab{world: w, ctx: ctx}
	if err := chromedp.Listen(ctx, func(e any) {
		if said, ok := e.(*runtime.EventExceptionThrown); ok {
			w.Errorf("the page fails: %s", said.ExceptionDetails.Text)
		}
	}); err != nil {
		w.Fatalf("start Chromium: %v", err)
	}
	t.do(chromedp.EmulateViewport(width, height))
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, media); err != nil {
		w.Fatal(err)
	}
	return t
}

// tab is an open page.
type tab struct {
	*world
	ctx context.Context
}

// do has the browser act, each action within its patience.
func (t *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	for n, a := range actions {
		ctx, cancel := context.WithTimeout(t.ctx, patience)
		err := chromedp.Do(ctx, a)
		cancel()
		if err != nil {
			t.Fatalf("action %d: %v", n, err)
		}
	}
}

// eval returns what a script says, or promises.
func eval[T any](t *tab, script string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%s: %v", script[:min(len(script), 200)], err)
	}
	return out
}

// until waits for a condition of the page.
func (t *tab) until(condition string) {
	t.Helper()
	eval[bool](t, `new Promise((done) => { const look = () => (`+condition+`) ? done(true) : setTimeout(look, 20); look() })`)
}

// shown waits until a view was drawn.
func (t *tab) shown(view string) {
	t.Helper()
	t.until(fmt.Sprintf(`document.body.dataset.shown === %q`, view))
}

// open opens the page as garo open does, at a view.
func (t *tab) open(view string) {
	t.Helper()
	t.do(chromedp.Navigate(t.url + "/#token=" + t.system.Token.Reveal()))
	t.shown("now")
	if view != "now" {
		t.see(view)
	}
}

// see goes to another view.
func (t *tab) see(view string) {
	t.Helper()
	name, _, _ := strings.Cut(view, "/")
	t.to(view)
	t.shown(name)
}

// to changes the address, as a link does.
func (t *tab) to(view string) {
	t.Helper()
	eval[bool](t, fmt.Sprintf(`delete document.body.dataset.shown; location.hash = "#"; location.hash = %q; true`, "#"+view))
}

// text returns what people read in the view.
func (t *tab) text() string {
	t.Helper()
	return eval[string](t, `document.querySelector("main").innerText`)
}
