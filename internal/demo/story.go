package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// scene is one request of the story.
type scene struct {
	name  string
	id    string
	token string // its status token
	want  store.RequestState
}

// cast are the requests whose runners get jobs.
type cast struct{ test1, test2, test3, spot *scene }

// story is what happens.
func (d *Demo) story(ctx context.Context) error {
	test1 := apitype.Start{Repo: repository, Type: store.Spot, Labels: []string{"test1"}, Mode: store.Shared, GiveUp: giveUp, IdempotencyKey: "run-1/test1"}
	c, err := d.launches(ctx, test1)
	if err != nil {
		return err
	}
	if err := d.stop(ctx); err != nil {
		return err
	}
	if err := d.plant(); err != nil {
		return err
	}
	if err := d.jobs(ctx, c, test1); err != nil {
		return err
	}
	if err := d.plainJobs(ctx); err != nil {
		return err
	}
	d.say("all jobs are handed out; now the reaper has to clear everything away")
	return d.until(ctx, "every machine to end", func() bool { return d.quiet(ctx) })
}

// launches asks for the runners of the cast, for test1 twice.
func (d *Demo) launches(ctx context.Context, test1 apitype.Start) (c cast, err error) {
	if c.test1, err = d.start(ctx, "test1", "spot, shared, label test1", test1); err != nil {
		return c, err
	}
	again, err := d.client.Start(ctx, test1)
	if err != nil {
		return c, fmt.Errorf("start test1 again: %w", err)
	}
	d.say("test1 is asked for again with the same key: request %s is %s", again.ID, map[bool]string{true: "the same one", false: "ANOTHER ONE"}[again.ID == c.test1.id])

	if err := d.launched(ctx, c.test1); err != nil {
		return c, err
	}
	d.deaf.Store(true)
	if c.test2, err = d.start(ctx, "test2", "spot, ephemeral; its first machine never boots", ephemeral(store.Spot, "run-1/test2")); err != nil {
		return c, err
	}
	if err := d.until(ctx, "a machine that never boots", func() bool { return !d.deaf.Load() }); err != nil {
		return c, err
	}
	if c.test3, err = d.start(ctx, "test3", "ondemand, ephemeral", ephemeral(store.OnDemand, "run-1/test3")); err != nil {
		return c, err
	}
	c.spot, err = d.start(ctx, "spot", "spot, ephemeral; EC2 takes the machine back during its job", ephemeral(store.Spot, "run-1/spot"))
	return c, err
}

// plant makes a machine with our tag that no record names.
func (d *Demo) plant() error {
	orphan, err := d.system.Fleet.Plant(fleet.Place{Account: local.BuiltIn, Region: local.Region},
		map[string]string{fleet.TagControlPlane: local.ControlPlane, fleet.TagRunner: "aaaaaaaaaaaaaaaaaaaaaaaaaa"})
	if err != nil {
		return err
	}
	d.say("somebody plants the machine %s: it has our tag, and no record names it", orphan)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.planted = append(d.planted, orphan)
	return nil
}

// jobs runs the jobs of the workflow as its runners come up, and those of a second
// run, which shares a runner with test1.
func (d *Demo) jobs(ctx context.Context, c cast, test1 apitype.Start) error {
	if err := d.ready(ctx, c.test1); err != nil {
		return err
	}
	test1.IdempotencyKey = "run-2/test1"
	second, err := d.start(ctx, "test1b", "the same labels, from a second run", test1)
	if err != nil {
		return err
	}
	for _, j := range []struct {
		scene  *scene
		run    string
		length time.Duration
	}{{c.test1, "1", jobTime}, {second, "2", jobTime}, {c.test3, "1", jobTime}, {c.spot, "1", time.Minute}} {
		if err := d.job(ctx, j.scene, j.run, j.length); err != nil {
			return err
		}
	}
	if err := d.interrupt(ctx, c.spot); err != nil {
		return err
	}
	return d.job(ctx, c.test2, "1", jobTime)
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
	s := &scene{name: name, id: started.ID, token: started.StatusToken.Reveal(), want: store.Ready}
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
	_, err = d.system.GitHub.Queue(r.Repository.ID, simgithub.Job{RunID: run, Labels: r.RunsOn(), Duration: length})
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
