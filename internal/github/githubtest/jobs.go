package githubtest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
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
		repo, ok := s.named(repository)
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

func (s *Server) queue(now time.Time, repo github.Repository, j Job) string {
	n := &job{Job: Job{
		ID:         strconv.FormatInt(s.id(), 10),
		Repository: repo.Name, RepositoryID: repo.ID,
		RunID:    j.RunID,
		Labels:   slices.Clone(j.Labels),
		Duration: j.Duration,
		State:    Queued,
		QueuedAt: now,
	}}
	s.jobs = append(s.jobs, n)
	s.put(bucketJobs, n.ID, n.Job)
	return n.ID
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

// settle does what is due at now: jobs that were not taken are queued again,
// those whose runner program is gone are lost, and the queued ones are assigned,
// the oldest first, each to the oldest runner that it fits.
func (s *Server) settle(now time.Time) {
	for _, j := range slices.Clone(s.jobs) {
		switch {
		case j.State == Assigned && now.Sub(j.AssignedAt) >= s.cfg.PickUp:
			j.by.missed = true
			s.requeue(j)
		case j.State == Running && j.by.session == nil && now.Sub(j.by.OfflineAt) >= s.cfg.Lost:
			j.by.Spent, j.by.Ghost = true, j.by.Ghost || s.rules.StaysBusy
			if j.by.removedAt.IsZero() {
				s.put(bucketRunners, j.by.key(), j.by.record)
			}
			s.end(now, j, Lost)
		}
	}
	for _, r := range s.runners {
		if s.rules.AutoJobs > 0 && r.session != nil && !r.Auto && !r.Spent {
			for _, l := range r.Labels {
				if strings.HasPrefix(strings.ToLower(l), "garo-") {
					r.Auto = true
					s.put(bucketRunners, r.key(), r.record)
					s.queue(now, github.Repository{ID: r.RepositoryID, Name: r.Repository}, Job{RunID: strconv.FormatInt(s.id(), 10), Labels: []string{l}, Duration: s.rules.AutoJobs})
					break
				}
			}
		}
	}
	for _, j := range s.jobs {
		if j.State != Queued {
			continue
		}
		i := slices.IndexFunc(s.runners, func(r *registration) bool { return r.takes(j) })
		if i < 0 {
			continue
		}
		r := s.runners[i]
		r.job, j.by = j, r
		j.State, j.AssignedAt, j.RunnerID, j.RunnerName = Assigned, now, r.ID, r.Name
		s.put(bucketJobs, j.ID, j.Job)
		s.notify()
	}
}

// requeue takes a job from the runner that has not begun it.
func (s *Server) requeue(j *job) {
	j.by.job = nil
	j.by, j.State = nil, Queued
	j.Requeued++
	s.put(bucketJobs, j.ID, j.Job)
	s.notify()
}

// takes reports whether j can be assigned to r: it has every label that j names,
// whatever the case of its letters.
func (r *registration) takes(j *job) bool {
	if r.session == nil || r.job != nil || r.Spent || r.missed || r.RepositoryID != j.RepositoryID {
		return false
	}
	for _, want := range j.Labels {
		if !slices.ContainsFunc(r.Labels, func(has string) bool { return strings.EqualFold(has, want) }) {
			return false
		}
	}
	return true
}

// next returns when the next job that is left lying will be queued again; zero:
// none is. That is the only thing that those who wait have of time alone.
func (s *Server) next() (at time.Time) {
	for _, j := range s.jobs {
		if due := j.AssignedAt.Add(s.cfg.PickUp); j.State == Assigned && (at.IsZero() || due.Before(at)) {
			at = due
		}
	}
	return at
}

// end ends a job that a runner has.
func (s *Server) end(now time.Time, j *job, state JobState) {
	j.State, j.EndedAt = state, now
	j.by.job = nil
	s.jobs = slices.DeleteFunc(s.jobs, func(x *job) bool { return x == j })
	s.over = append(s.over, j.Job)
	if len(s.over) > kept {
		s.over = slices.Delete(s.over, 0, len(s.over)-kept)
	}
	s.drop(bucketJobs, j.ID)
	s.notify()
}
