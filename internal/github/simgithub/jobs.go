package simgithub

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// JobState is where a job stands.
type JobState string

// The states of a job. Done and Lost are final.
const (
	Queued   JobState = "queued"
	Assigned JobState = "assigned" // to a runner that has not taken it yet
	Running  JobState = "running"
	Done     JobState = "done"
	Lost     JobState = "lost" // its runner program went away and did not come back
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

	State      JobState
	RunnerID   int64 // that it is or was assigned to last; 0: none
	RunnerName string
	Requeued   int // how often it was queued again

	QueuedAt   time.Time
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
