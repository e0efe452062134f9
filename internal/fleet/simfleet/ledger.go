package simfleet

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// The buckets of the Disk.
const (
	instanceBucket = "instance" // by instance id: an instance
	tokenBucket    = "token"    // by scope: a binding of a launch that failed
	diskBucket     = "disk"     // by instance id: what the machine saved
)

// ledger is what a World has on record, in memory and on the Disk: the instances, the
// client tokens and the machines' disks. Its methods are called with the lock, but for
// change, which takes it.
type ledger struct {
	cfg WorldConfig

	// lock has one slot, and is held while anything below is read or changed,
	// writes to Disk included: memory and Disk change in the same order.
	lock   chan struct{}
	count  int         // of machines that were ever launched or planted
	order  []*instance // by Seq
	byID   map[string]*instance
	tokens map[scope]*binding
	disks  map[string][]byte // by instance id
	pruned time.Time
}

// openLedger returns a ledger that continues from what its Disk has.
func openLedger(cfg WorldConfig) (*ledger, error) {
	l := &ledger{
		cfg:    cfg,
		lock:   make(chan struct{}, 1),
		byID:   map[string]*instance{},
		tokens: map[scope]*binding{},
		disks:  map[string][]byte{},
	}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("open the simulated fleet: %w", err)
	}
	return l, nil
}

func (l *ledger) hold()    { l.lock <- struct{}{} }
func (l *ledger) release() { <-l.lock }

// now is the time, in the form that it also has on the Disk.
func (l *ledger) now() time.Time { return l.cfg.Now().UTC().Round(0) }

// change lets f change an instance that has not begun to shut down.
func (l *ledger) change(id string, f func(i *instance, now time.Time) error) error {
	l.hold()
	defer l.release()
	now := l.now()
	i := l.byID[id]
	switch {
	case i == nil:
		return fmt.Errorf("instance %s does not exist", id)
	case !i.EndsAt.IsZero() && !now.Before(i.EndsAt):
		return fmt.Errorf("instance %s has ended", id)
	}
	return f(i, now)
}

// id returns a new instance id.
func (l *ledger) id() (string, error) {
	b, err := l.random(9)
	if err != nil {
		return "", err
	}
	return "i-" + fmt.Sprintf("%x", b)[:17], nil // 17 digits, as EC2 has it
}

func (l *ledger) random(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(l.cfg.Random, b); err != nil {
		return nil, fmt.Errorf("random: %w", err)
	}
	return b, nil
}

// ended is when i is terminated: zero while nothing ends it.
func (l *ledger) ended(i *instance) time.Time {
	if i.EndsAt.IsZero() {
		return time.Time{}
	}
	return i.EndsAt.Add(l.cfg.Stopping)
}

// state is the state of i at a time.
func (l *ledger) state(i *instance, at time.Time) fleet.State {
	switch {
	case !i.EndsAt.IsZero() && !at.Before(l.ended(i)):
		return fleet.Terminated
	case !i.EndsAt.IsZero() && !at.Before(i.EndsAt):
		return fleet.ShuttingDown
	case !i.StoppedAt.IsZero() && !at.Before(i.StoppedAt):
		return fleet.Stopped
	case at.Before(i.RunsAt):
		return fleet.Pending
	default:
		return fleet.Running
	}
}

// sees reports whether EC2's view of a time has i.
func (l *ledger) sees(i *instance, at time.Time) bool {
	return !i.LaunchedAt.After(at) && (i.EndsAt.IsZero() || at.Before(l.ended(i).Add(visible)))
}

// show is i as EC2 shows it when its view is of a time.
func (l *ledger) show(i *instance, at time.Time) fleet.Instance {
	s := fleet.Instance{
		ID:           i.ID,
		State:        l.state(i, at),
		ClientToken:  i.Launch.ClientToken,
		LaunchedAt:   i.LaunchedAt,
		Market:       i.Launch.Market,
		InstanceType: i.Launch.InstanceType,
		Subnet:       i.Launch.Subnet,
		Tags:         maps.Clone(i.tags()),
	}
	if s.State == fleet.ShuttingDown || s.State == fleet.Terminated {
		s.Reason = i.Reason
		s.ReasonCode, _, _ = strings.Cut(i.Reason, ": ")
	}
	return s
}

// free reports whether the token of b may be used again.
func (l *ledger) free(b *binding, now time.Time) bool {
	until := b.Until
	if i := b.instance; i != nil {
		if i.EndsAt.IsZero() {
			return false
		}
		until = l.ended(i).Add(bound)
	}
	return !now.Before(until)
}

// keep makes next what is known of its instance, here and on the Disk. After an
// error it is as before, here.
func (l *ledger) keep(next instance) error {
	if err := l.cfg.Disk.Put(instanceBucket, next.ID, next); err != nil {
		return fmt.Errorf("keep instance %s: %w", next.ID, err)
	}
	if cur := l.byID[next.ID]; cur != nil {
		*cur = next
		return nil
	}
	l.add(&next)
	return nil
}

// add makes i known, after all others.
func (l *ledger) add(i *instance) {
	l.byID[i.ID] = i
	l.order = append(l.order, i)
	l.count = max(l.count, i.Seq)
	if i.Launch.ClientToken != "" {
		s := scope{i.At, i.Zone, i.Launch.ClientToken}
		l.tokens[s] = &binding{Scope: s, Print: fingerprint(i.Launch), instance: i}
	}
}

// bind keeps that a launch failed with a token.
func (l *ledger) bind(b binding) error {
	if err := l.cfg.Disk.Put(tokenBucket, b.Scope.key(), b); err != nil {
		return fmt.Errorf("keep client token: %w", err)
	}
	l.tokens[b.Scope] = &b
	return nil
}

// load reads the Disk.
func (l *ledger) load() error {
	err := l.cfg.Disk.Load(tokenBucket, func(_ string, value []byte) error {
		var b binding
		if err := json.Unmarshal(value, &b); err != nil {
			return err
		}
		l.tokens[b.Scope] = &b
		return nil
	})
	if err != nil {
		return err
	}
	var all []*instance
	err = l.cfg.Disk.Load(instanceBucket, func(_ string, value []byte) error {
		var i instance
		if err := json.Unmarshal(value, &i); err != nil {
			return err
		}
		all = append(all, &i)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b *instance) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, i := range all {
		l.add(i)
	}
	return l.cfg.Disk.Load(diskBucket, func(id string, value []byte) error {
		var b []byte
		if err := json.Unmarshal(value, &b); err != nil {
			return err
		}
		l.disks[id] = b
		return nil
	})
}

// prune forgets, once a minute, what nobody can ask for any more: the disks of
// machines that ended, then tokens that are free and instances without one.
func (l *ledger) prune(now time.Time) error {
	if now.Before(l.pruned.Add(time.Minute)) {
		return nil
	}
	l.pruned = now
	var err error
	drop := func(bucket, key string) {
		if e := l.cfg.Disk.Delete(bucket, key); e != nil && err == nil {
			err = fmt.Errorf("prune %s: %w", bucket, e)
		}
	}
	l.order = slices.DeleteFunc(l.order, func(i *instance) bool {
		if l.state(i, now).Over() && l.disks[i.ID] != nil {
			delete(l.disks, i.ID)
			drop(diskBucket, i.ID)
		}
		if i.EndsAt.IsZero() || now.Before(l.ended(i).Add(bound)) {
			return false
		}
		delete(l.byID, i.ID)
		drop(instanceBucket, i.ID)
		return true
	})
	for s, b := range l.tokens { // in any order: each goes for itself
		if l.free(b, now) {
			delete(l.tokens, s)
			drop(tokenBucket, s.key())
		}
	}
	return err
}
