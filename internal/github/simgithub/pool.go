package simgithub

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
)

// kept bounds what is remembered of removed registrations and of jobs that are
// over: with their configs some 16 MB, in a process that may run for weeks.
const kept = 4096

// pool is the runners that are registered and the jobs for them, with what Disk has of
// both.
type pool struct {
	shelf
	pickUp, lost time.Duration // as in Config

	last    int64           // the id that was given out last
	runners []*registration // those that are there, by id
	removed []*registration // those that were, in the order of their end
	jobs    []*job          // those that are not over, by age
	over    []Job           // those that are, in the order of their end
}

// id returns a new id: for registrations, jobs and runs alike.
func (p *pool) id() int64 {
	p.last++
	p.put(bucketLast, "last", p.last)
	return p.last
}

// runner returns the runner of an id if it is there.
func (p *pool) runner(id int64) *registration {
	for _, r := range p.runners {
		if r.ID == id {
			return r
		}
	}
	return nil
}

// remove ends a registration. Its session ends with it, unless a job runs in it.
func (p *pool) remove(now time.Time, r *registration, by string) {
	r.removedAt, r.removedBy = now, by
	if r.job == nil || r.job.State != Running {
		r.session = nil
	}
	p.runners = slices.DeleteFunc(p.runners, func(x *registration) bool { return x == r })
	p.removed = append(p.removed, r)
	if len(p.removed) > kept {
		p.removed = slices.Delete(p.removed, 0, len(p.removed)-kept)
	}
	p.drop(bucketRunners, r.key())
	r.wake()
}

func (p *pool) queue(now time.Time, repo github.Repository, j Job) string {
	n := &job{Job: Job{
		ID:         strconv.FormatInt(p.id(), 10),
		Repository: repo.Name, RepositoryID: repo.ID,
		RunID:    j.RunID,
		Labels:   slices.Clone(j.Labels),
		Duration: j.Duration,
		Back:     j.Back,
		Held:     j.Held,
		State:    Queued,
		QueuedAt: now,
	}}
	p.jobs = append(p.jobs, n)
	p.put(bucketJobs, n.ID, n.Job)
	return n.ID
}

// settle does what the time brings: jobs that were not taken are queued again,
// those whose runner program is gone are lost, and the queued ones are assigned,
// the oldest first, each to the oldest runner that it fits.
func (s *Server) settle(now time.Time) {
	s.overdue(now, s.rules.StaysBusy)
	if s.rules.AutoJobs > 0 {
		s.queueAuto(now, s.rules.AutoJobs)
	}
	s.assign(now)
}

// overdue takes jobs from runners that did not take them in time, or went away with
// them; staysBusy says whether those look busy for ever.
func (p *pool) overdue(now time.Time, staysBusy bool) {
	for _, j := range slices.Clone(p.jobs) {
		switch {
		case j.Elsewhere && now.Sub(j.StartedAt) >= j.Duration:
			p.end(now, j, Done)
		case j.Elsewhere:
		case j.State == Assigned && now.Sub(j.AssignedAt) >= p.pickUp:
			j.by.missed = true
			p.requeue(j)
		case j.State == Running && j.by.session == nil && now.Sub(j.by.OfflineAt) >= p.lost:
			j.by.Spent, j.by.Ghost = true, j.by.Ghost || staysBusy
			if j.by.removedAt.IsZero() {
				p.put(bucketRunners, j.by.key(), j.by.record)
			}
			p.end(now, j, Lost)
		}
	}
}

// queueAuto queues a job of that length for each runner that is new here and has a
// label that begins with garo-.
func (s *Server) queueAuto(now time.Time, length time.Duration) {
	for _, r := range s.runners {
		if r.session == nil || r.Auto || r.Spent {
			continue
		}
		i := slices.IndexFunc(r.Labels, func(l string) bool { return strings.HasPrefix(strings.ToLower(l), "garo-") })
		if i < 0 {
			continue
		}
		repo := github.Repository{ID: r.RepositoryID, Name: r.Repository}
		if r.OrganizationID != "" { // of the repositories that it admits, the first
			n := slices.IndexFunc(s.names.repos, func(x github.Repository) bool { return s.admits(r, x.ID) })
			if n < 0 {
				continue
			}
			repo = s.names.repos[n]
		}
		r.Auto = true
		s.put(bucketRunners, r.key(), r.record)
		s.queue(now, repo, Job{RunID: strconv.FormatInt(s.id(), 10), Labels: []string{r.Labels[i]}, Duration: length})
	}
}

// assign gives the queued jobs to the runners that they fit. Few are free at any time,
// however many there are: the jobs are held against those alone.
func (s *Server) assign(now time.Time) {
	var free []*registration
	for _, r := range s.runners {
		if r.free() {
			free = append(free, r)
		}
	}
	for _, j := range s.jobs {
		if len(free) == 0 {
			return
		}
		if j.State != Queued || j.Back {
			continue
		}
		i := slices.IndexFunc(free, func(r *registration) bool { return r.fits(j) && s.admits(r, j.RepositoryID) })
		if i < 0 {
			continue
		}
		r := free[i]
		free = slices.Delete(free, i, i+1)
		r.job, j.by = j, r
		j.State, j.AssignedAt, j.RunnerID, j.RunnerName = Assigned, now, r.ID, r.Name
		s.put(bucketJobs, j.ID, j.Job)
		r.wake()
	}
}

// requeue takes a job from the runner that has not begun it.
func (p *pool) requeue(j *job) {
	j.by.wake()
	j.by.job = nil
	j.by, j.State = nil, Queued
	j.Requeued++
	p.put(bucketJobs, j.ID, j.Job)
}

// next returns when the next job that is left lying may have to be queued again, which is
// the only thing that those who wait have of time alone. One that is assigned from now on
// cannot be before a whole pick-up has passed.
func (p *pool) next(now time.Time) time.Time {
	at := now.Add(p.pickUp)
	for _, j := range p.jobs {
		if due := j.AssignedAt.Add(p.pickUp); j.State == Assigned && due.Before(at) {
			at = due
		}
	}
	return at
}

// end ends a job, which may have a runner.
func (p *pool) end(now time.Time, j *job, state JobState) {
	j.State, j.EndedAt = state, now
	if j.by != nil {
		j.by.job = nil
		j.by.wake()
	}
	p.jobs = slices.DeleteFunc(p.jobs, func(x *job) bool { return x == j })
	p.over = append(p.over, j.Job)
	if len(p.over) > kept {
		p.over = slices.Delete(p.over, 0, len(p.over)-kept)
	}
	p.drop(bucketJobs, j.ID)
}
