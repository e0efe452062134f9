package simfleet

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// Why an instance ended, in EC2's words
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html).
const (
	reasonUser     = "Client.UserInitiatedShutdown: User initiated shutdown"
	reasonInstance = "Client.InstanceInitiatedShutdown: Instance initiated shutdown"
	reasonSpot     = "Server.SpotInstanceTermination: Spot instance termination"
)

// The buckets of the Disk.
const (
	instanceBucket = "instance" // by instance id: an instance
	tokenBucket    = "token"    // by scope: a binding of a launch that failed
	diskBucket     = "disk"     // by instance id: what the machine saved
)

// instance is one machine: all of it that is kept. What state it is in follows
// from its times.
type instance struct {
	Seq        int // the how-manyeth machine of this world
	ID         string
	At         fleet.Place
	Zone       string
	Launch     fleet.Launch // of a planted one: the tags alone
	Planted    bool
	NeverBoots bool
	LaunchedAt time.Time
	RunsAt     time.Time // when it is no longer pending

	// EndsAt is when it begins to shut down: in the future while a timer or an
	// interruption is ahead, and only ever earlier. Zero: nothing ends it yet.
	EndsAt   time.Time
	Reason   string // why then, in EC2's words
	PowerOff string // why it switches itself off then, in its own words

	StoppedAt      time.Time // when a person stopped it, for good; zero: nobody did
	NoticeAt       time.Time // when its interruption was announced; zero: it was not
	CredentialedAt time.Time // when it got its first config; zero: never

	Edited map[string]string // the tags that it was given since; nil: it has those of its launch
}

// tags are those that i has by now.
func (i *instance) tags() map[string]string {
	if i.Edited != nil {
		return i.Edited
	}
	return i.Launch.Tags
}

// end makes i begin to shut down at a time, or now if that has passed; it
// reports false if something does so earlier already.
func (i *instance) end(now, at time.Time, reason, powerOff string) bool {
	if at.Before(now) {
		at = now
	}
	if !i.EndsAt.IsZero() && !at.Before(i.EndsAt) {
		return false
	}
	i.EndsAt, i.Reason, i.PowerOff = at, reason, powerOff
	return true
}

// clone copies what l refers to.
func clone(l fleet.Launch) fleet.Launch {
	l.SecurityGroups = slices.Clone(l.SecurityGroups)
	l.Tags = maps.Clone(l.Tags)
	l.UserData = bytes.Clone(l.UserData)
	return l
}

// scope is what a client token is unique in.
type scope struct {
	At    fleet.Place
	Zone  string
	Token string
}

func (s scope) key() string { return fmt.Sprintf("%s/%q/%q", s.At, s.Zone, s.Token) }

// binding is what a client token stands for.
type binding struct {
	Scope scope
	Print string    // of the launch
	Until time.Time // of a launch that failed: when the token is free again

	instance *instance // nil: the launch failed
}

// fingerprint is equal for launches that are equal to the byte.
func fingerprint(l fleet.Launch) string {
	if len(l.SecurityGroups) == 0 {
		l.SecurityGroups = nil
	}
	if len(l.Tags) == 0 {
		l.Tags = nil
	}
	if len(l.UserData) == 0 {
		l.UserData = nil
	}
	b, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings and bytes always marshal
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// ended is when i is terminated: zero while nothing ends it.
func (w *World) ended(i *instance) time.Time {
	if i.EndsAt.IsZero() {
		return time.Time{}
	}
	return i.EndsAt.Add(w.cfg.Stopping)
}

// state is the state of i at a time.
func (w *World) state(i *instance, at time.Time) fleet.State {
	switch {
	case !i.EndsAt.IsZero() && !at.Before(w.ended(i)):
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
func (w *World) sees(i *instance, at time.Time) bool {
	return !i.LaunchedAt.After(at) && (i.EndsAt.IsZero() || at.Before(w.ended(i).Add(visible)))
}

// show is i as EC2 shows it when its view is of a time.
func (w *World) show(i *instance, at time.Time) fleet.Instance {
	s := fleet.Instance{
		ID:           i.ID,
		State:        w.state(i, at),
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

// free reports whether the token of b may be used anew.
func (w *World) free(b *binding, now time.Time) bool {
	until := b.Until
	if i := b.instance; i != nil {
		if i.EndsAt.IsZero() {
			return false
		}
		until = w.ended(i).Add(bound)
	}
	return !now.Before(until)
}

// keep makes next what is known of its instance, here and on the Disk. After an
// error it is as before, here.
func (w *World) keep(next instance) error {
	if err := w.cfg.Disk.Put(instanceBucket, next.ID, next); err != nil {
		return fmt.Errorf("keep instance %s: %w", next.ID, err)
	}
	if cur := w.byID[next.ID]; cur != nil {
		*cur = next
		return nil
	}
	w.add(&next)
	return nil
}

// add makes i known, after all others.
func (w *World) add(i *instance) {
	w.byID[i.ID] = i
	w.order = append(w.order, i)
	w.count = max(w.count, i.Seq)
	if i.Launch.ClientToken != "" {
		s := scope{i.At, i.Zone, i.Launch.ClientToken}
		w.tokens[s] = &binding{Scope: s, Print: fingerprint(i.Launch), instance: i}
	}
}

// bind keeps that a launch failed with a token.
func (w *World) bind(b binding) error {
	if err := w.cfg.Disk.Put(tokenBucket, b.Scope.key(), b); err != nil {
		return fmt.Errorf("keep client token: %w", err)
	}
	w.tokens[b.Scope] = &b
	return nil
}

// load reads the Disk.
func (w *World) load() error {
	err := w.cfg.Disk.Load(tokenBucket, func(_ string, value []byte) error {
		var b binding
		if err := json.Unmarshal(value, &b); err != nil {
			return err
		}
		w.tokens[b.Scope] = &b
		return nil
	})
	if err != nil {
		return err
	}
	var all []*instance
	err = w.cfg.Disk.Load(instanceBucket, func(_ string, value []byte) error {
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
		w.add(i)
	}
	return w.cfg.Disk.Load(diskBucket, func(id string, value []byte) error {
		var b []byte
		if err := json.Unmarshal(value, &b); err != nil {
			return err
		}
		w.disks[id] = b
		return nil
	})
}

// prune forgets, once a minute, what nobody can ask for any more: the disks of
// machines that ended, then tokens that are free and instances without one.
func (w *World) prune(now time.Time) error {
	if now.Before(w.pruned.Add(time.Minute)) {
		return nil
	}
	w.pruned = now
	var err error
	drop := func(bucket, key string) {
		if e := w.cfg.Disk.Delete(bucket, key); e != nil && err == nil {
			err = fmt.Errorf("prune %s: %w", bucket, e)
		}
	}
	w.order = slices.DeleteFunc(w.order, func(i *instance) bool {
		if w.state(i, now).Over() && w.disks[i.ID] != nil {
			delete(w.disks, i.ID)
			drop(diskBucket, i.ID)
		}
		if i.EndsAt.IsZero() || now.Before(w.ended(i).Add(bound)) {
			return false
		}
		delete(w.byID, i.ID)
		drop(instanceBucket, i.ID)
		return true
	})
	for s, b := range w.tokens { // in any order: each goes for itself
		if w.free(b, now) {
			delete(w.tokens, s)
			drop(tokenBucket, s.key())
		}
	}
	return err
}
