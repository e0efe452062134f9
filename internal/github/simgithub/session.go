package simgithub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What runner programs learn. Any other error is an outage.
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
// until the registration is gone. It is as actions/runner 2.336.0 has it: the
// program creates its session and says that it listens for jobs
// (src/Runner.Listener/Runner.cs, RunAsync) before its first poll, and only the
// answer to a poll refuses its version or says that its registration is gone
// (src/Runner.Listener/BrokerMessageListener.cs, GetNextMessageAsync, and
// src/Sdk/WebApi/WebApi/BrokerHttpClient.cs, GetRunnerMessageAsync).
type Session struct {
	server *Server
	reg    *registration
	closed bool
}

// OwnerOf returns the number of a repository's owner, by the repository's name: that of
// the organization, or 1 for everybody who is none.
func (x *Session) OwnerOf(name string) (id string) {
	owner, _, _ := strings.Cut(name, "/")
	id = "1"
	x.server.look(func(time.Time) {
		if i := slices.IndexFunc(x.server.orgs, func(o Organization) bool { return strings.EqualFold(o.Name, owner) }); i >= 0 {
			id = x.server.orgs[i].ID
		}
	})
	return id
}

// Connect opens the session of a just-in-time config, of whatever version. It
// fails with one of the errors above, other than ErrTooOld.
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
			case r.session != nil:
				r.refused++
				return ErrConflict
			}
			x = &Session{server: s, reg: r}
			r.session, r.missed = x, false
			r.opened++
			if !r.Seen || !r.OfflineAt.IsZero() {
				r.Seen, r.OfflineAt = true, time.Time{}
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

// Wait polls, and returns the job of this runner once there is one; at once, the
// job that an earlier session of it took and did not finish. Taking it makes the
// runner busy. It fails with ErrTooOld if the rules refuse the version, now or
// later, and with ErrDeleted when the registration is gone. A job that somebody
// else has acquired by then is passed over, as the program does (Runner.cs, on
// TaskOrchestrationJobAlreadyAcquiredException): it polls again.
func (x *Session) Wait(ctx context.Context) (Job, error) {
	var taken Job
	err := x.poll(ctx, func(now time.Time) (done bool) {
		s, r := x.server, x.reg
		switch {
		case r.job == nil:
			r.missed = false
			return false
		case r.job.State == Assigned && s.rules.LosesJobs:
			r.Spent = true
			s.put(bucketRunners, r.key(), r.record)
			s.requeue(r.job)
			return false
		case r.job.State == Assigned:
			r.job.State, r.job.StartedAt = Running, now
			s.put(bucketJobs, r.job.ID, r.job.Job)
		}
		taken = r.job.Job
		return true
	})
	return taken, err
}

// Watch polls while a job runs, as the program does beside it. It fails as Wait
// does, or with ctx.
func (x *Session) Watch(ctx context.Context) error {
	return x.poll(ctx, func(time.Time) bool { return false })
}

// poll asks done, and again after each change, until it is true. A program that
// polled before GitHub forgot its registration does not notice: it waits on.
func (x *Session) poll(ctx context.Context, done func(now time.Time) bool) error {
	for polled := false; ; polled = true {
		if err := ctx.Err(); err != nil {
			return err
		}
		var over bool
		var changed <-chan struct{}
		var next time.Duration
		err := x.server.step(func(now time.Time) error {
			s := x.server
			switch err := x.open(); {
			case polled && x.reg.forgotten && !x.closed:
			case err != nil:
				return err
			case s.rules.TooOld:
				return ErrTooOld
			default:
				over = done(now)
			}
			changed = x.reg.awaits()
			next = s.next(now).Sub(now)
			return nil
		})
		if err != nil || over {
			return err
		}
		if err := until(ctx, changed, next); err != nil {
			return err
		}
	}
}

// Forget makes GitHub forget a registration that runs no job, as it does with
// those that did not connect for a day. Sessions that poll already do not notice;
// any later poll fails with ErrDeleted.
func (s *Server) Forget(id int64) error {
	return s.step(func(now time.Time) error {
		r := s.runner(id)
		if r == nil || r.job != nil && r.job.State == Running {
			return fmt.Errorf("forget runner %d: it is not there, or runs a job", id)
		}
		x := r.session
		s.remove(now, r, RemovedByGitHub)
		r.session, r.forgotten = x, true
		return nil
	})
}

// Calm makes GitHub say again of all runners whether they are busy.
func (s *Server) Calm() {
	s.look(func(time.Time) {
		for _, r := range s.runners {
			if r.Ghost {
				r.Ghost = false
				s.put(bucketRunners, r.key(), r.record)
			}
		}
	})
}

// Haunt makes GitHub say for ever that a runner is busy, and refuse to delete it.
func (s *Server) Haunt(id int64) error {
	return s.step(func(time.Time) error {
		r := s.runner(id)
		if r == nil {
			return fmt.Errorf("haunt runner %d: it is not there", id)
		}
		r.Ghost = true
		s.put(bucketRunners, r.key(), r.record)
		return nil
	})
}

// until waits for a change, or for so long.
func until(ctx context.Context, changed <-chan struct{}, next time.Duration) error {
	t := time.NewTimer(next)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	case <-t.C:
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
		r.job.Refused = j.Refused
		s.end(now, r.job, Done)
		r.session = nil
		return nil
	})
}

// Close takes the runner offline. A job that it runs continues at GitHub for some
// time, for a new session to take up.
func (x *Session) Close() {
	x.server.look(func(now time.Time) {
		x.closed = true
		if x.reg.session == x {
			x.reg.session, x.reg.OfflineAt = nil, now
			if x.reg.removedAt.IsZero() {
				x.server.put(bucketRunners, x.reg.key(), x.reg.record)
			}
			x.reg.wake()
		}
	})
}

// open fails if the session has ended.
func (x *Session) open() error {
	switch {
	case x.closed:
		return errClosed
	case x.reg.session != x, x.reg.forgotten:
		return ErrDeleted
	}
	return nil
}
