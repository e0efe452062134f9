package simgithub

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// What Disk has: the last id, the registrations by id, the open jobs by id.
const (
	bucketLast    = "github_last"
	bucketRunners = "github_runners"
	bucketJobs    = "github_jobs"
)

// write is a change that Disk has to make.
type write struct {
	bucket, key string
	value       any // nil: delete
}

// shelf is what goes to Disk: it collects what a step changes. disk may be nil.
type shelf struct {
	disk   Disk
	unkept []write // what disk does not have yet
}

func (s *shelf) put(bucket, key string, value any) {
	if s.disk != nil {
		s.unkept = append(s.unkept, write{bucket, key, value})
	}
}

func (s *shelf) drop(bucket, key string) { s.put(bucket, key, nil) }

// keep brings Disk up to date. Values are what they were when they were put.
func (s *shelf) keep() error {
	for n, w := range s.unkept {
		var err error
		if w.value == nil {
			err = s.disk.Delete(w.bucket, w.key)
		} else {
			err = s.disk.Put(w.bucket, w.key, w.value)
		}
		if err != nil {
			s.unkept = slices.Delete(s.unkept, 0, n)
			return fmt.Errorf("keep %s %s: %w", w.bucket, w.key, err)
		}
	}
	s.unkept = nil
	return nil
}

// load reads what an earlier process kept.
func (s *Server) load() error {
	if s.disk == nil {
		return nil
	}
	now := s.cfg.Now()
	err := s.disk.Load(bucketLast, func(_ string, value []byte) error {
		return json.Unmarshal(value, &s.last)
	})
	if err != nil {
		return fmt.Errorf("load the last id: %w", err)
	}
	err = s.disk.Load(bucketRunners, func(key string, value []byte) error {
		r := &registration{}
		if err := json.Unmarshal(value, &r.record); err != nil {
			return fmt.Errorf("runner %s: %w", key, err)
		}
		r.Group = cmp.Or(r.Group, defaultGroup)
		if r.RepositoryID == "" && r.OrganizationID == "" {
			r.RepositoryID = s.idOf(r.Repository)
		}
		if r.OfflineAt.IsZero() && r.Seen {
			r.OfflineAt = now
			s.put(bucketRunners, r.key(), r.record)
		}
		s.runners = append(s.runners, r)
		return nil
	})
	if err != nil {
		return fmt.Errorf("load runners: %w", err)
	}
	slices.SortFunc(s.runners, func(a, b *registration) int { return cmp.Compare(a.ID, b.ID) })
	err = s.disk.Load(bucketJobs, func(key string, value []byte) error {
		j := &job{}
		if err := json.Unmarshal(value, &j.Job); err != nil {
			return fmt.Errorf("job %s: %w", key, err)
		}
		if j.RepositoryID == "" {
			j.RepositoryID = s.idOf(j.Repository)
		}
		if j.State != Queued && !j.Elsewhere {
			if j.by = s.runner(j.RunnerID); j.by == nil { // deleted, with the job still on it
				j.by = &registration{record: record{ID: j.RunnerID, OfflineAt: now}, removedAt: now}
			}
			j.by.job = j
		}
		s.jobs = append(s.jobs, j)
		return nil
	})
	if err != nil {
		return fmt.Errorf("load jobs: %w", err)
	}
	slices.SortFunc(s.jobs, func(a, b *job) int { return number(a.ID) - number(b.ID) })
	return nil
}

// idOf returns the id of a repository that an earlier version kept by name alone.
func (s *Server) idOf(name string) string {
	repo, _ := s.names.exists(name, false)
	return repo.ID
}

// number orders ids of jobs, which are numbers.
func number(id string) int {
	n, _ := strconv.Atoi(id)
	return n
}
