package simfleet

import (
	"fmt"
	"maps"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Fact is the truth about a machine, which EC2 shows late or not at all.
type Fact struct {
	fleet.Instance // as it is now, without lag

	At         fleet.Place
	Image      string    // empty: it is planted
	Planted    bool      // no launch made it
	NeverBoots bool      // it runs and does nothing
	RunsAt     time.Time // when it is, or was, no longer pending
	// EndsAt is when it begins, or began, to shut down: its power-off timer and
	// an announced interruption count. Zero: nothing ends it.
	EndsAt   time.Time
	EndedAt  time.Time // when it was terminated; zero: it is not
	NoticeAt time.Time // when its interruption was announced; zero: it was not
	// CredentialedAt is when it got its first config: only a machine with one is
	// of any use. Zero: it never did.
	CredentialedAt time.Time
	PowerOff       string // why it switched itself off, in its own words; empty: it did not
}

// Document is what AWS says of the machine.
func (f Fact) Document() identity.Document {
	return identity.Document{AccountID: f.At.Account, Region: f.At.Region, InstanceID: f.ID, ImageID: f.Image, InstanceType: f.InstanceType}
}

// Instances returns all machines of the last day, in the order of their launches.
func (w *World) Instances() []Fact {
	w.hold()
	defer w.release()
	now := w.now()
	facts := make([]Fact, len(w.order))
	for n, i := range w.order {
		facts[n] = w.fact(i, now)
	}
	return facts
}

// Instance returns one of them.
func (w *World) Instance(id string) (Fact, bool) {
	w.hold()
	defer w.release()
	i := w.byID[id]
	if i == nil {
		return Fact{}, false
	}
	return w.fact(i, w.now()), true
}

func (w *World) fact(i *instance, now time.Time) Fact {
	f := Fact{
		Instance:       w.show(i, now),
		At:             i.At,
		Image:          i.Launch.Image,
		Planted:        i.Planted,
		NeverBoots:     i.NeverBoots,
		RunsAt:         i.RunsAt,
		EndsAt:         i.EndsAt,
		NoticeAt:       i.NoticeAt,
		CredentialedAt: i.CredentialedAt,
	}
	if f.Reason != "" {
		f.PowerOff = i.PowerOff
	}
	if f.State.Over() {
		f.EndedAt = w.ended(i)
	}
	return f
}

// Stop stops a machine, as a person may in the console: its power is off, and it is
// not terminated. Nothing starts it again.
func (w *World) Stop(id string) error {
	err := w.change(id, func(i *instance, now time.Time) error {
		if w.state(i, now) != fleet.Running {
			return fmt.Errorf("instance %s does not run", id)
		}
		next := *i
		next.StoppedAt = now
		return w.keep(next)
	})
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	w.notify(id)
	return nil
}

// Interrupt makes EC2 reclaim a spot instance, with a notice so long before:
// SpotNotice, or zero for one that dies without a word.
func (w *World) Interrupt(id string, notice time.Duration) error {
	err := w.change(id, func(i *instance, now time.Time) error {
		if i.Launch.Market != store.Spot {
			return fmt.Errorf("instance %s is not a spot instance", id)
		}
		next := *i
		if notice > 0 {
			next.NoticeAt = now
		}
		next.end(now, now.Add(notice), reasonSpot, "")
		return w.keep(next)
	})
	if err != nil {
		return fmt.Errorf("interrupt: %w", err)
	}
	w.notify(id)
	return nil
}

// Die makes EC2 end an instance now, for a reason: a code and a message, as in
// "Server.InternalError: Internal error on launch".
func (w *World) Die(id, reason string) error {
	err := w.change(id, func(i *instance, now time.Time) error {
		next := *i
		next.end(now, now, reason, "")
		return w.keep(next)
	})
	if err != nil {
		return fmt.Errorf("die: %w", err)
	}
	w.notify(id)
	return nil
}

// Retag gives an instance other tags, as somebody in the account can.
func (w *World) Retag(id string, tags map[string]string) error {
	err := w.change(id, func(i *instance, _ time.Time) error {
		next := *i
		next.Edited = maps.Clone(tags)
		if next.Edited == nil {
			next.Edited = map[string]string{}
		}
		return w.keep(next)
	})
	if err != nil {
		return fmt.Errorf("retag: %w", err)
	}
	return nil
}

// Plant makes a machine that no launch asked for, with these tags and no user
// data: it runs and does nothing.
func (w *World) Plant(at fleet.Place, tags map[string]string) (string, error) {
	id, err := w.plant(at, tags)
	if err == nil {
		w.notify(id)
	}
	return id, err
}

func (w *World) plant(at fleet.Place, tags map[string]string) (string, error) {
	w.hold()
	defer w.release()
	id, err := w.id()
	if err != nil {
		return "", err
	}
	now := w.now()
	return id, w.keep(instance{
		Seq:        w.count + 1,
		ID:         id,
		At:         at,
		Launch:     fleet.Launch{Market: store.OnDemand, Tags: maps.Clone(tags)},
		Planted:    true,
		NeverBoots: true,
		LaunchedAt: now,
		RunsAt:     now.Add(w.cfg.Pending),
	})
}
