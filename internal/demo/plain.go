package demo

import (
	"context"
	"fmt"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// plain is a workflow job that asks for nothing: it names a label, and GitHub tells of it.
type plain struct {
	*scene

	job string // GitHub's number of it
}

// plainJobs queues three jobs with a plain runs-on. One is cancelled while its machine
// boots, GitHub's webhook about another is lost, and the two that run are each given the
// machine that was launched for the other.
//
// GitHub holds them back until it is their turn: what happens does not depend on which
// machine is faster.
func (d *Demo) plainJobs(ctx context.Context) error {
	d.say("three jobs of a workflow just say runs-on: no step asks for a machine")
	if err := d.cancelled(ctx); err != nil {
		return err
	}
	lost, err := d.queue(ctx, "plain1", "garo, and the webhook about it is lost", local.Job{RunsOn: []string{"garo"}, Lost: true})
	if err != nil {
		return err
	}
	if err := d.recorded(ctx, lost); err != nil {
		return err
	}
	d.say("the reaper found plain1 among the queued jobs of %s", repository)
	told, err := d.queue(ctx, "plain2", "garo", local.Job{RunsOn: []string{"garo"}})
	if err != nil {
		return err
	}
	return d.swap(ctx, lost, told)
}

// cancelled queues a job and cancels it while its machine boots, which never comes up.
func (d *Demo) cancelled(ctx context.Context) error {
	d.deaf.Store(true)
	j, err := d.queue(ctx, "plain3", "g-linux-7, a pin", local.Job{RunsOn: []string{"g-linux-7"}})
	if err != nil {
		return err
	}
	j.want = store.Cancelled
	if err := d.launched(ctx, j.scene); err != nil {
		return err
	}
	d.say("somebody cancels plain3 at GitHub, while its machine boots")
	if err := d.system.GitHub.CancelJob(j.job); err != nil {
		return err
	}
	return d.until(ctx, "plain3 to be over", func() bool {
		r, err := store.Read[store.Request](ctx, d.system.Store, j.id)
		return err == nil && r.State.Final()
	})
}

// queue queues a job at GitHub, which gives it to no runner yet.
func (d *Demo) queue(ctx context.Context, name, what string, j local.Job) (plain, error) {
	j.Repository, j.Length, j.Back = repository, jobTime, true
	queued, err := d.system.QueueJob(ctx, j)
	if err != nil {
		return plain{}, fmt.Errorf("queue %s: %w", name, err)
	}
	d.say("GitHub queues %s (runs-on: %s): request %s", name, what, queued.Request)
	s := &scene{name: name, id: queued.Request, want: store.Ready}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scenes = append(d.scenes, s)
	return plain{s, queued.ID}, nil
}

// recorded waits until there is a request for a job.
func (d *Demo) recorded(ctx context.Context, j plain) error {
	return d.until(ctx, j.name+" to be found", func() bool {
		r, err := store.Read[store.Request](ctx, d.system.Store, j.id)
		return err == nil && r.Version != 0
	})
}

// swap waits until the machines of two jobs with the same label are both online, and has
// GitHub give each job the other's.
func (d *Demo) swap(ctx context.Context, a, b plain) error {
	var of [2]store.Runner
	err := d.until(ctx, "the machines of plain1 and plain2 to be online", func() bool {
		for i, j := range []plain{a, b} {
			run, err := d.runnerOf(ctx, j.id)
			if of[i] = run; err != nil || run.State != store.RunnerOnline {
				return false
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	jobs := []plain{a, b}
	if of[0].Config.RunnerID < of[1].Config.RunnerID { // GitHub gives a job to the oldest runner that has its labels
		slices.Reverse(jobs)
	}
	d.say("both machines have the label garo: GitHub gives plain1 to %s and plain2 to %s", short(of[1].ID), short(of[0].ID))
	for _, j := range jobs {
		if err := d.system.GitHub.Release(j.job); err != nil {
			return err
		}
	}
	return d.until(ctx, "plain1 and plain2 to be done", func() bool {
		done := 0
		for _, j := range d.system.GitHub.Jobs() {
			if j.State == simgithub.Done && (j.ID == a.job || j.ID == b.job) {
				done++
			}
		}
		return done == len(jobs)
	})
}
