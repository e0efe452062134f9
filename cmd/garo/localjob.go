package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

// jobFlags are the flags of local job.
type jobFlags struct {
	target

	job   local.Job
	count int
}

func localJobCommand() *cobra.Command {
	var j jobFlags
	c := &cobra.Command{
		Use:   "job",
		Short: "Queue workflow jobs at the simulated GitHub, and show their lives",
		Long: `job queues jobs that only name labels, as a workflow with a plain runs-on does, at the
simulated GitHub of the garo local that runs here. That tells of them by signed
webhooks; --lost, --late and --twice have it tell badly. Each change of a job is one
line, and the command ends when all jobs are over.`,
		Example: `  garo local job --runs-on garo --count 5
  garo local job --runs-on g-linux-7 --lost`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return j.run(cmd) },
	}
	j.flags(c)
	f := c.Flags()
	f.StringVar(&j.job.Repository, "repo", "acme/shop", "repository of the jobs, as owner/name")
	f.StringSliceVar(&j.job.RunsOn, "runs-on", []string{"garo"}, "labels that each job names")
	f.IntVar(&j.count, "count", 1, "how many jobs to queue")
	f.DurationVar(&j.job.Length, "length", 5*time.Second, "how long a job takes")
	f.BoolVar(&j.job.Lost, "lost", false, "lose the webhook that tells that it is queued")
	f.DurationVar(&j.job.Late, "late", 0, "deliver each webhook so much later")
	f.BoolVar(&j.job.Twice, "twice", false, "deliver each webhook twice")
	return c
}

func (j *jobFlags) run(cmd *cobra.Command) error {
	if j.count < 1 || j.count > 1000 {
		return usage("--count %d: want 1 to 1000", j.count)
	}
	if len(j.job.RunsOn) == 0 || slices.Contains(j.job.RunsOn, "") {
		return usage("--runs-on: want labels")
	}
	ctx := cmd.Context()
	if err := j.greet(ctx); err != nil {
		return err
	}
	shown := map[string]local.QueuedJob{}
	for range j.count {
		var queued local.QueuedJob
		if err := j.call(ctx, http.MethodPost, j.job, &queued); err != nil {
			return err
		}
		shown[queued.ID] = local.QueuedJob{}
	}
	for {
		var all []local.QueuedJob
		if err := j.call(ctx, http.MethodGet, nil, &all); err != nil {
			return err
		}
		over := 0
		for _, job := range all {
			was, ours := shown[job.ID]
			if !ours {
				continue
			}
			if job != was {
				shown[job.ID] = job
				if err := j.show(cmd.OutOrStdout(), job); err != nil {
					return err
				}
			}
			if slices.Contains([]string{"done", "lost", "cancelled"}, job.State) {
				over++
			}
		}
		if over == len(shown) {
			return nil
		}
		if err := sleep.For(ctx, 200*time.Millisecond); err != nil { // as often as its jobs are reported
			return err
		}
	}
}

func (j *jobFlags) show(out io.Writer, job local.QueuedJob) error {
	if j.json {
		return printJSON(out, job)
	}
	on := ""
	if job.Runner != "" {
		on = " on " + job.Runner
	}
	_, err := fmt.Fprintf(out, "job %s %s%s (request %s)\n", job.ID, job.State, on, job.Request)
	return err
}

// call makes a call about jobs at the local system.
func (j *jobFlags) call(ctx context.Context, method string, in, out any) error {
	return j.locally(ctx, method, "/local/jobs", in, out, "queue jobs", usage("%s is no garo local: its GitHub is a real one", j.address()))
}
