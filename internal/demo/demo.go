// Package demo runs a story on a local system, tells it as it happens, and checks
// from the records, the simulated EC2 and the simulated GitHub whether what GARO
// promises held. The limits are those of production divided by 60: a minute
// takes a second.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/githubtest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// speed divides all limits.
	speed = 60
	// patience is how long the story may take: it is a minute's demonstration.
	patience = 100 * time.Second
	// bootTime is a machine's: some 20 s, divided.
	bootTime = 400 * time.Millisecond
	// jobTime is how long each pretended job takes.
	jobTime = 900 * time.Millisecond

	repository = "acme/shop"
)

// Demo is one performance.
type Demo struct {
	system *local.System
	client *client.Client
	limits store.Limits
	out    io.Writer
	log    *os.File
	began  time.Time

	deaf atomic.Bool // the next machine never boots

	mu     sync.Mutex
	scenes []*scene
}

// scene is one request of the story.
type scene struct {
	name string
	what string
	id   string
	want store.RequestState
}

// Run performs the story in a data directory, which it leaves as it is at the
// end, and writes it to out. It fails if a promise did not hold.
func Run(ctx context.Context, out io.Writer, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	d := &Demo{out: out, log: log, limits: store.DefaultLimits().Divided(speed), began: time.Now()}
	d.limits.NameRetry = 3 * time.Second // a left-over name is looked at hourly: a minute would be too long here
	d.system, err = local.Open(ctx, local.Config{
		Dir: dir, URL: "http://demo.localhost", Limits: d.limits, BootTime: bootTime,
		Empty:      []simfleet.Placement{{Market: store.Spot, InstanceType: "t3a.micro"}},
		GitHubLost: 10 * time.Minute / speed,
		NeverBoots: func(int) bool { return d.deaf.CompareAndSwap(true, false) },
		Log:        slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		return err
	}
	d.client = client.New(client.Config{
		URL: "http://demo.localhost", HTTP: d.system.Client(),
		Token: func(context.Context) (client.Token, error) { return d.system.Token, nil },
	})
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { d.system.Run(ctx) })
	telling, stopTelling := context.WithCancel(ctx)
	wg.Go(func() { d.narrate(telling) })

	err = d.story(ctx)
	stopTelling()
	if err == nil {
		err = d.review(ctx)
	}
	cancel()
	wg.Wait()
	return errors.Join(err, d.system.Close())
}

func (d *Demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "%6.1fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// story is what happens.
func (d *Demo) story(ctx context.Context) error {
	fmt.Fprintf(d.out, "GARO on this machine: simulated EC2 and GitHub, the real API, worker, reaper and agent.\n"+
		"All limits are divided by %d: the idle limit of 10 minutes is 10 seconds, the boot limit of 5 minutes 5.\n"+
		"Spot t3a.micro has no capacity today.\n\n", speed)

	test1 := apitype.Start{Repo: repository, Type: store.Spot, Labels: []string{"test1"}, Mode: store.Shared, IdempotencyKey: "run-1/test1"}
	a, err := d.start(ctx, "test1", "spot, shared, label test1", test1, store.Ready)
	if err != nil {
		return err
	}
	again, err := d.client.Start(ctx, test1)
	if err != nil {
		return err
	}
	d.say("test1 is asked for again with the same key: request %s is %s", again.ID, map[bool]string{true: "the same one", false: "ANOTHER ONE"}[again.ID == a.id])

	if err := d.launched(ctx, a); err != nil {
		return err
	}
	d.deaf.Store(true)
	test2, err := d.start(ctx, "test2", "spot, ephemeral; its first machine never boots", ephemeral(store.Spot, "run-1/test2"), store.Ready)
	if err != nil {
		return err
	}
	if err := d.until(ctx, "a machine that never boots", func() bool { return !d.deaf.Load() }); err != nil {
		return err
	}
	test3, err := d.start(ctx, "test3", "ondemand, ephemeral", ephemeral(store.OnDemand, "run-1/test3"), store.Ready)
	if err != nil {
		return err
	}
	spot, err := d.start(ctx, "spot", "spot, ephemeral; EC2 takes the machine back during its job", ephemeral(store.Spot, "run-1/spot"), store.Ready)
	if err != nil {
		return err
	}
	stopped, err := d.start(ctx, "stop", "spot, ephemeral; stopped before it is ready", ephemeral(store.Spot, "run-1/stop"), store.Cancelled)
	if err != nil {
		return err
	}
	if err := d.launched(ctx, stopped); err != nil {
		return err
	}
	d.say("POST /stop stop: its machine is launched, and has not booted yet")
	if _, err := d.client.Stop(ctx, stopped.id, false); err != nil {
		return err
	}
	orphan, err := d.system.Fleet.Plant(fleet.Place{Account: local.BuiltIn, Region: local.Region},
		map[string]string{fleet.TagControlPlane: local.ControlPlane, fleet.TagRunner: "aaaaaaaaaaaaaaaaaaaaaaaaaa"})
	if err != nil {
		return err
	}
	d.say("somebody plants the machine %s: it has our tag, and no record names it", orphan)

	// The workflow runs its jobs as its runners come up.
	if err := d.ready(ctx, a); err != nil {
		return err
	}
	second, err := d.start(ctx, "test1b", "the same labels, from a second run", func() apitype.Start { s := test1; s.IdempotencyKey = "run-2/test1"; return s }(), store.Ready)
	if err != nil {
		return err
	}
	for _, j := range []struct {
		scene  *scene
		run    string
		length time.Duration
	}{{a, "1", jobTime}, {second, "2", jobTime}, {test3, "1", jobTime}, {spot, "1", time.Minute}} {
		if err := d.job(ctx, j.scene, j.run, j.length); err != nil {
			return err
		}
	}
	if err := d.interrupt(ctx, spot); err != nil {
		return err
	}
	if err := d.job(ctx, test2, "1", jobTime); err != nil {
		return err
	}
	d.say("all jobs are handed out; now the reaper has to clear everything away")
	return d.until(ctx, "every machine to end", func() bool { return d.quiet(ctx) })
}

func ephemeral(market, key string) apitype.Start {
	return apitype.Start{Repo: repository, Type: market, Mode: store.Ephemeral, IdempotencyKey: key}
}

// start asks for a runner.
func (d *Demo) start(ctx context.Context, name, what string, body apitype.Start, want store.RequestState) (*scene, error) {
	started, err := d.client.Start(ctx, body)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s := &scene{name: name, what: what, id: started.ID, want: want}
	d.say("POST /start %s (%s): request %s", name, what, started.ID)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scenes = append(d.scenes, s)
	return s, nil
}

// launched waits until the request has an instance.
func (d *Demo) launched(ctx context.Context, s *scene) error {
	return d.until(ctx, s.name+" to be launched", func() bool {
		run, err := d.runnerOf(ctx, s.id)
		return err == nil && run.InstanceID != ""
	})
}

// ready waits until the request has its runner.
func (d *Demo) ready(ctx context.Context, s *scene) error {
	return d.until(ctx, s.name+" to be ready", func() bool {
		status, err := d.client.Status(ctx, s.id) // as a client polls
		return err == nil && status.State == string(store.Ready)
	})
}

// job queues a job at GitHub, as the workflow does when its runner is ready.
func (d *Demo) job(ctx context.Context, s *scene, run string, length time.Duration) error {
	if err := d.ready(ctx, s); err != nil {
		return err
	}
	r, err := store.Read[store.Request](ctx, d.system.Store, s.id)
	if err != nil {
		return err
	}
	_, err = d.system.GitHub.Queue(repository, githubtest.Job{RunID: run, Labels: r.RunsOn(), Duration: length})
	return err
}

// interrupt has EC2 take the machine of s back once it runs its job.
func (d *Demo) interrupt(ctx context.Context, s *scene) error {
	var run store.Runner
	err := d.until(ctx, s.name+" to run its job", func() bool {
		run, _ = d.runnerOf(ctx, s.id)
		return run.State == store.RunnerBusy
	})
	if err != nil {
		return err
	}
	d.say("EC2 announces that it takes %s back", run.InstanceID)
	return d.system.Fleet.Interrupt(run.InstanceID, simfleet.SpotNotice/speed)
}

func (d *Demo) runnerOf(ctx context.Context, request string) (store.Runner, error) {
	r, err := store.Read[store.Request](ctx, d.system.Store, request)
	if err != nil || r.Runner == "" {
		return store.Runner{}, err
	}
	return store.Read[store.Runner](ctx, d.system.Store, r.Runner)
}

// quiet reports whether nothing runs any more.
func (d *Demo) quiet(ctx context.Context) bool {
	for _, f := range d.system.Fleet.Instances() {
		if f.EndedAt.IsZero() {
			return false
		}
	}
	for i, err := range d.system.Store.List(ctx, store.Filter{Kind: store.KindRunner}) {
		if err != nil || !i.(*store.Runner).State.Final() || len(i.(*store.Runner).Names) > 0 {
			return false
		}
	}
	return len(d.system.GitHub.Registrations()) == 0
}

// until waits for something, and names it if it does not come.
func (d *Demo) until(ctx context.Context, what string, done func() bool) error {
	for !done() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w (see %s)", what, ctx.Err(), d.log.Name())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// narrate prints every step of requests and runners as it is recorded.
func (d *Demo) narrate(ctx context.Context) {
	told := map[string]int{}
	for ctx.Err() == nil {
		for _, line := range d.news(ctx, told) {
			fmt.Fprintln(d.out, line)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// news returns what was added to the histories since the last call, by time.
func (d *Demo) news(ctx context.Context, told map[string]int) []string {
	var lines []entry
	add := func(ref store.Ref, name string, h store.History) {
		for _, e := range h[min(told[ref.String()], len(h)):] {
			lines = append(lines, entry{e.At, fmt.Sprintf("%-16s %-9s %s", name, e.State, e.Reason)})
		}
		told[ref.String()] = len(h)
	}
	for _, s := range d.all() {
		if r, err := store.Read[store.Request](ctx, d.system.Store, s.id); err == nil {
			add(r.Ref(), "request "+s.name, r.History)
		}
	}
	for i, err := range d.system.Store.List(ctx, store.Filter{Kind: store.KindRunner}) {
		if err != nil {
			break
		}
		r := i.(*store.Runner)
		add(r.Ref(), "runner "+short(r.ID), r.History)
	}
	for _, f := range d.system.Fleet.Instances() {
		if f.Planted && !f.EndedAt.IsZero() && told[f.ID] == 0 {
			told[f.ID] = 1
			lines = append(lines, entry{f.EndedAt, fmt.Sprintf("%-16s %-9s %s", "machine "+f.ID, "ended", "no record names it")})
		}
	}
	return sorted(lines, d.began)
}

func (d *Demo) all() []*scene {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*scene(nil), d.scenes...)
}

// short is enough of an id to tell a few apart.
func short(id string) string { return strings.ToLower(id[:min(6, len(id))]) }
