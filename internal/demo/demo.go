// Package demo runs a story on a local system, tells it as it happens, and checks
// from the records, the simulated EC2 and the simulated GitHub whether what GARO
// promises held. The limits are those of production divided by 60: a minute
// takes a second.
//
// The story waits for what happens and never for time to pass, so that a machine
// that has other things to do only makes it longer.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
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
	// calm divides the two that would take a stall of this machine for the death of
	// a simulated one: a heartbeat is missed after 7.5 s, and its machine lost after 20.
	calm = 6
	// giveUp is how long each request is tried, in seconds: for ever, next to the rest.
	giveUp = 90
	// patience is how long the story may take; it takes 20 s where nothing else runs.
	patience = 3 * time.Minute
	// bootTime is a machine's: some 20 s, divided.
	bootTime = 400 * time.Millisecond
	// jobTime is how long each pretended job takes.
	jobTime = 900 * time.Millisecond

	repository = "acme/shop"
)

// limits are those of the demonstration.
func limits() store.Limits {
	production := store.DefaultLimits()
	l := production.Divided(speed)
	l.Silent, l.Lost = production.Silent/calm, production.Lost/calm
	l.NameRetry = 3 * time.Second // a left-over name is looked at hourly: a minute would be too long here
	return l
}

// Demo is one performance.
type Demo struct {
	system *local.System
	client *client.Client
	limits store.Limits
	out    io.Writer // the narrator's, and after the story the review's
	log    *os.File
	began  time.Time

	deaf atomic.Bool // the next machine never boots

	mu      sync.Mutex
	scenes  []*scene
	planted []string // machines that the story itself made
	said    []entry  // and not printed yet
}

// scene is one request of the story.
type scene struct {
	name  string
	id    string
	token string // its status token
	want  store.RequestState
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
	d := &Demo{out: out, log: log, limits: limits(), began: time.Now()}
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
	fmt.Fprintf(out, "GARO on this machine: simulated EC2 and GitHub, the real API, worker, reaper and agent.\n"+
		"All limits are divided by %d: the idle limit of 10 minutes is 10 seconds, the boot limit of 5 minutes 5.\n"+
		"(Only a machine that is silent is given more time, as this one may be busy with something else.)\n"+
		"Spot t3a.micro has no capacity today.\n\n"+
		"What the story does stands at the margin, and what the records then say is indented.\n\n", speed)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var running, telling sync.WaitGroup
	running.Go(func() { d.system.Run(ctx) })
	told, stopTelling := context.WithCancel(ctx)
	defer stopTelling()
	telling.Go(func() { d.narrate(told) })

	err = d.story(ctx)
	stopTelling()
	telling.Wait()
	if err == nil {
		err = d.review(ctx)
	}
	cancel()
	running.Wait()
	return errors.Join(err, d.system.Close())
}

// story is what happens.
func (d *Demo) story(ctx context.Context) error {
	test1 := apitype.Start{Repo: repository, Type: store.Spot, Labels: []string{"test1"}, Mode: store.Shared, GiveUp: giveUp, IdempotencyKey: "run-1/test1"}
	a, err := d.start(ctx, "test1", "spot, shared, label test1", test1)
	if err != nil {
		return err
	}
	again, err := d.client.Start(ctx, test1)
	if err != nil {
		return fmt.Errorf("start test1 again: %w", err)
	}
	d.say("test1 is asked for again with the same key: request %s is %s", again.ID, map[bool]string{true: "the same one", false: "ANOTHER ONE"}[again.ID == a.id])

	if err := d.launched(ctx, a); err != nil {
		return err
	}
	d.deaf.Store(true)
	test2, err := d.start(ctx, "test2", "spot, ephemeral; its first machine never boots", ephemeral(store.Spot, "run-1/test2"))
	if err != nil {
		return err
	}
	if err := d.until(ctx, "a machine that never boots", func() bool { return !d.deaf.Load() }); err != nil {
		return err
	}
	test3, err := d.start(ctx, "test3", "ondemand, ephemeral", ephemeral(store.OnDemand, "run-1/test3"))
	if err != nil {
		return err
	}
	spot, err := d.start(ctx, "spot", "spot, ephemeral; EC2 takes the machine back during its job", ephemeral(store.Spot, "run-1/spot"))
	if err != nil {
		return err
	}
	if err := d.stop(ctx); err != nil {
		return err
	}
	orphan, err := d.system.Fleet.Plant(fleet.Place{Account: local.BuiltIn, Region: local.Region},
		map[string]string{fleet.TagControlPlane: local.ControlPlane, fleet.TagRunner: "aaaaaaaaaaaaaaaaaaaaaaaaaa"})
	if err != nil {
		return err
	}
	d.say("somebody plants the machine %s: it has our tag, and no record names it", orphan)
	d.mu.Lock()
	d.planted = append(d.planted, orphan)
	d.mu.Unlock()

	// The workflow runs its jobs as its runners come up.
	if err := d.ready(ctx, a); err != nil {
		return err
	}
	shared := test1
	shared.IdempotencyKey = "run-2/test1"
	second, err := d.start(ctx, "test1b", "the same labels, from a second run", shared)
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
	return apitype.Start{Repo: repository, Type: market, Mode: store.Ephemeral, GiveUp: giveUp, IdempotencyKey: key}
}

// start asks for a runner, and means to get it.
func (d *Demo) start(ctx context.Context, name, what string, body apitype.Start) (*scene, error) {
	at := time.Now()
	started, err := d.client.Start(ctx, body)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s := &scene{name: name, id: started.ID, token: started.StatusToken, want: store.Ready}
	d.sayAt(at, "POST /start %s (%s): request %s", name, what, started.ID)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scenes = append(d.scenes, s)
	return s, nil
}

// stop asks for a runner, and stops the request while its machine boots. If the
// machine was faster, the request stays ready, and the machine ends all the same.
func (d *Demo) stop(ctx context.Context) error {
	s, err := d.start(ctx, "stop", "spot, ephemeral; stopped before it is ready", ephemeral(store.Spot, "run-1/stop"))
	if err != nil {
		return err
	}
	if err := d.launched(ctx, s); err != nil {
		return err
	}
	d.say("POST /stop stop: its machine was launched a moment ago")
	stopped, err := d.client.Stop(ctx, s.id, false)
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if s.want = store.Cancelled; stopped.State == string(store.Ready) {
		s.want = store.Ready
	}
	return nil
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
	var state string
	err := d.until(ctx, s.name+" to be ready", func() bool {
		status, err := d.client.Status(ctx, s.id) // as a client polls
		state = status.State
		return err == nil && client.Final(state)
	})
	if err == nil && state != string(store.Ready) {
		err = fmt.Errorf("request %s is %s, want %s (see %s)", s.name, state, store.Ready, d.log.Name())
	}
	return err
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
		return run.State == store.RunnerBusy || !run.State.Usable() && run.Version != 0
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
