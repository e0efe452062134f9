package simgithub

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// JobState is where a job stands.
type JobState string

// The states of a job. The last three are final.
const (
	Queued    JobState = "queued"
	Assigned  JobState = "assigned" // to a runner that has not taken it yet
	Running   JobState = "running"
	Done      JobState = "done"
	Lost      JobState = "lost"      // its runner program went away and did not come back
	Cancelled JobState = "cancelled" // before any runner had it
)

// Job is a job of a workflow. To queue one, only RunID, Labels and Duration are
// needed.
type Job struct {
	ID         string
	Repository string // its name when the job was queued
	// RepositoryID is whose job it is. Empty on a Disk of before it was kept.
	RepositoryID string
	RunID        string        // of the workflow run
	Labels       []string      // what its runner must have
	Duration     time.Duration // how long the runner program is to take for it

	// Back: it is given to no runner until Release, as of a matrix with max-parallel.
	Back bool
	// Held is the status that GitHub shows of it while it is held back: waiting, pending or
	// requested. Empty: queued.
	Held string

	State      JobState
	RunnerID   int64 // that it is or was assigned to last; 0: none
	RunnerName string
	// Refused: its machine failed it before its first step.
	Refused  bool
	Requeued int // how often it was queued again
	// Elsewhere: a runner that this server does not have took it.
	Elsewhere bool

	QueuedAt   time.Time
	ReleasedAt time.Time // when it was held back no more; zero: it never was, or still is
	AssignedAt time.Time // the last time
	StartedAt  time.Time
	EndedAt    time.Time
}

// job is a job that is not over, and the runner that has it, if it is not queued.
type job struct {
	Job
	by *registration
}

// Queue queues a job of a repository, by its name or id, and returns the job's id.
func (s *Server) Queue(repository string, j Job) (id string, err error) {
	err = s.step(func(now time.Time) error {
		repo, ok := s.names.named(repository)
		if !ok {
			return fmt.Errorf("queue a job: no repository %s", repository)
		}
		if len(j.Labels) == 0 {
			return errors.New("queue a job: it names no labels")
		}
		id = s.queue(now, repo, j)
		return nil
	})
	return id, err
}

// Release lets a job that was held back go to a runner.
func (s *Server) Release(id string) error {
	return s.step(func(now time.Time) error {
		j, err := s.unfinished(id)
		if err != nil {
			return err
		}
		j.Back, j.ReleasedAt = false, now
		s.put(bucketJobs, j.ID, j.Job)
		return nil
	})
}

// TakeElsewhere gives a job that no runner has begun to one that this server does not have,
// under a name that may be anybody's. It takes its time there.
func (s *Server) TakeElsewhere(id, name string) error {
	return s.step(func(now time.Time) error {
		j, err := s.unfinished(id)
		switch {
		case err != nil:
			return err
		case j.State == Running:
			return fmt.Errorf("give job %s to another runner: it runs", id)
		case j.by != nil:
			s.requeue(j)
		}
		j.State, j.StartedAt, j.Elsewhere, j.RunnerID, j.RunnerName = Running, now, true, s.id(), name
		s.put(bucketJobs, j.ID, j.Job)
		return nil
	})
}

// CancelJob ends a job that no runner has begun.
func (s *Server) CancelJob(id string) error {
	return s.step(func(now time.Time) error {
		j, err := s.unfinished(id)
		switch {
		case err != nil:
			return err
		case j.State == Running:
			return fmt.Errorf("cancel job %s: it runs", id)
		case j.by != nil:
			s.requeue(j)
		}
		s.end(now, j, Cancelled)
		return nil
	})
}

// unfinished finds a job that is not over.
func (p *pool) unfinished(id string) (*job, error) {
	i := slices.IndexFunc(p.jobs, func(j *job) bool { return j.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("job %s: it is over, or was never queued", id)
	}
	return p.jobs[i], nil
}

// Jobs returns all jobs, as far as this process knows them, in the order in
// which they were queued.
func (s *Server) Jobs() (out []Job) {
	s.look(func(time.Time) {
		out = slices.Clone(s.over)
		for _, j := range s.jobs {
			out = append(out, j.Job)
		}
		for i := range out {
			out[i].Labels = slices.Clone(out[i].Labels)
		}
	})
	slices.SortFunc(out, func(a, b Job) int { return number(a.ID) - number(b.ID) })
	return out
}
