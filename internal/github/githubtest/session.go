package githubtest

import (
	"context"
	"errors"
	"time"
)

// What runner programs are told. Any other error is an outage.
var (
	// ErrDeleted: the registration is gone, by a call or because its job is done.
	ErrDeleted = errors.New("runner registration was deleted")
	// ErrUnknownConfig: this server never made that config.
	ErrUnknownConfig = errors.New("runner config is not valid")
	// ErrTooOld: runner programs of this version are refused.
	ErrTooOld = errors.New("runner version is too old")
	// ErrConflict: a session of this registration is open already.
	ErrConflict = errors.New("runner has a session already")
)

var errClosed = errors.New("session is closed")

// Session is a runner program's connection: the runner is online until Close, or
// until the registration is gone.
type Session struct {
	server *Server
	reg    *registration
	closed bool
}

// Connect opens the session of a just-in-time config. It fails with one of the
// errors above.
func (s *Server) Connect(ctx context.Context, config string) (x *Session, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.step(func(now time.Time) error {
		if !isConfig(config) {
			return ErrUnknownConfig
		}
		print := digest(config)
		for _, r := range s.runners {
			switch {
			case r.Digest != print:
				continue
			case s.rules.TooOld:
				return ErrTooOld
			case r.session != nil:
				r.refused++
				return ErrConflict
			}
			x = &Session{server: s, reg: r}
			r.session, r.missed = x, false
			r.opened++
			if !r.Seen {
				r.Seen = true
				s.put(bucketRunners, r.key(), r.record)
			}
			return nil
		}
		return ErrDeleted
	})
	if err != nil {
		if x != nil {
			x.Close()
		}
		return nil, err
	}
	return x, nil
}

// Wait returns the job of this runner, once there is one; at once, the job that
// an earlier session of it took and did not finish. Taking it makes the runner
// busy. It fails with ErrDeleted when the registration is gone.
func (x *Session) Wait(ctx context.Context) (Job, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Job{}, err
		}
		var taken Job
		var changed chan struct{}
		var next time.Duration
		err := x.server.step(func(now time.Time) error {
			s, r := x.server, x.reg
			if err := x.open(); err != nil {
				return err
			}
			if r.job != nil {
				if r.job.State == Assigned {
					r.job.State, r.job.StartedAt = Running, now
					s.put(bucketJobs, r.job.ID, r.job.Job)
					s.notify()
				}
				taken = r.job.Job
				return nil
			}
			r.missed = false
			changed = s.changed
			if at := s.next(); !at.IsZero() {
				next = at.Sub(now)
			}
			return nil
		})
		if err != nil {
			return Job{}, err
		}
		if taken.ID != "" {
			return taken, nil
		}
		if err := until(ctx, changed, next); err != nil {
			return Job{}, err
		}
	}
}

// until waits for a change, or for so long unless it is zero.
func until(ctx context.Context, changed <-chan struct{}, next time.Duration) error {
	var due <-chan time.Time
	if next > 0 {
		t := time.NewTimer(next)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	case <-due:
	}
	return nil
}

// Done ends the job that the runner runs, and with it the registration: it was
// for one job.
func (x *Session) Done(ctx context.Context, j Job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return x.server.step(func(now time.Time) error {
		s, r := x.server, x.reg
		if err := x.open(); err != nil {
			return err
		}
		if r.job == nil || r.job.State != Running || r.job.ID != j.ID {
			return errors.New("the runner has no such job")
		}
		if r.removedAt.IsZero() { // kept before the job's end is: nobody may run a second one
			s.remove(now, r, RemovedByJob)
		}
		s.end(now, r.job, Done)
		r.session = nil
		return nil
	})
}

// Close takes the runner offline. A job that it runs goes on at GitHub for some
// time, for a new session to take up.
func (x *Session) Close() {
	x.server.look(func(now time.Time) {
		x.closed = true
		if x.reg.session == x {
			x.reg.session, x.reg.offlineAt = nil, now
			x.server.notify()
		}
	})
}

// open fails if the session has ended.
func (x *Session) open() error {
	switch {
	case x.closed:
		return errClosed
	case x.reg.session != x:
		return ErrDeleted
	}
	return nil
}
