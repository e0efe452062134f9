package simgithub

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// registration is a runner and what only this package knows of it.
type registration struct {
	record
	config  secret.Text
	session *Session
	job     *job // that it has: assigned or running
	missed  bool // it left a job lying, and has not asked since

	opened, refused int
	forgotten       bool // GitHub forgot it: those who wait already do not notice
	removedAt       time.Time
	changed         chan struct{} // closed when something of it changes; nil: nobody waits for that
	removedBy       string
}

// record is what is kept of a registration.
type record struct {
	ID         int64  `json:"id"`
	Repository string `json:"repository"`
	// RepositoryID is whose it is. Empty on a Disk of before it was kept: load finds it.
	RepositoryID string `json:"repository_id,omitempty"`
	// OrganizationID is set, and RepositoryID is not, of a runner of an organization.
	OrganizationID string `json:"organization_id,omitempty"`
	// Group is 0 on a Disk of before it was kept: load makes it the default one.
	Group     int64     `json:"group,omitempty"`
	Name      string    `json:"name"`
	Labels    []string  `json:"labels"`
	CreatedAt time.Time `json:"created_at"`
	Digest    string    `json:"digest"` // of its config
	Spent     bool      `json:"spent"`  // its one job was lost
	Auto      bool      `json:"auto"`   // a job was queued for it on its own
	Seen      bool      `json:"seen"`   // a runner program has connected
	// OfflineAt is when its last session ended, or when a process first found that
	// there was none any more. Zero: it has a session, or had none yet.
	OfflineAt time.Time `json:"offline_at,omitzero"`
	Ghost     bool      `json:"ghost,omitempty"` // it looks busy whatever it does
}

func (r *registration) key() string { return strconv.FormatInt(r.ID, 10) }

// busy reports whether r runs a job and looks it.
func (r *registration) busy(now time.Time, lag time.Duration) bool {
	return r.Ghost || r.job != nil && r.job.State == Running && now.Sub(r.job.StartedAt) >= lag
}

func (r *registration) fact(now time.Time, lag time.Duration) Registration {
	return Registration{
		ID:           r.ID,
		Repository:   r.Repository,
		RepositoryID: r.RepositoryID, OrganizationID: r.OrganizationID, Group: r.Group,
		Name:      r.Name,
		Labels:    slices.Clone(r.Labels),
		Config:    r.config,
		CreatedAt: r.CreatedAt,
		Online:    r.session != nil,
		Busy:      r.busy(now, lag),
		Opened:    r.opened,
		Refused:   r.refused,
		RemovedAt: r.removedAt,
		RemovedBy: r.removedBy,
	}
}

// awaits returns what ends when something of r changes.
func (r *registration) awaits() <-chan struct{} {
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

// wake wakes the runner program of r if it waits. Others have no part in what becomes of r:
// a change that woke all of a thousand made a thousand of them look at everything.
func (r *registration) wake() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// free reports whether r can be given a job.
func (r *registration) free() bool {
	return r.session != nil && r.job == nil && !r.Spent && !r.missed
}

// fits reports whether r has every label that j names, whatever the case of its letters.
func (r *registration) fits(j *job) bool {
	for _, want := range j.Labels {
		if !slices.ContainsFunc(r.Labels, func(has string) bool { return strings.EqualFold(has, want) }) {
			return false
		}
	}
	return true
}
