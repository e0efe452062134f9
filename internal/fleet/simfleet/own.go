package simfleet

import (
	"bytes"
	"fmt"
	"time"
)

// This is what a machine does to itself. It fails for a machine that is not on.

// PowerOff ends the machine, which gives a reason.
func (w *World) PowerOff(id, reason string) error {
	return w.endItself(id, time.Time{}, reason)
}

// SetTimer makes the machine power itself off at a time, or now if that has
// passed, unless something ends it before: a later timer changes nothing.
func (w *World) SetTimer(id string, at time.Time) error {
	return w.endItself(id, at, "timer")
}

func (w *World) endItself(id string, at time.Time, reason string) error {
	moved := false
	err := w.change(id, func(i *instance, now time.Time) error {
		next := *i
		if i.Rooted {
			return nil // anyone who has root lets the machine say that it did
		}
		if moved = next.end(now, at, reasonInstance, reason); !moved {
			return nil // nothing to keep: agents set their timer with every answer
		}
		return w.keep(next)
	})
	if err != nil {
		return fmt.Errorf("power off (%s): %w", reason, err)
	}
	if moved {
		w.notify(id)
	}
	return nil
}

// Root gives a job root on the machine: its timer is disarmed, and it does not switch
// itself off any more, whatever its agent wants.
func (w *World) Root(id string) error {
	return w.change(id, func(i *instance, _ time.Time) error {
		next := *i
		next.Rooted, next.EndsAt, next.Reason, next.PowerOff = true, time.Time{}, "", ""
		return w.keep(next)
	})
}

// SetCredentialed notes that the machine has got a config.
func (w *World) SetCredentialed(id string) error {
	return w.change(id, func(i *instance, now time.Time) error {
		if !i.CredentialedAt.IsZero() {
			return nil
		}
		next := *i
		next.CredentialedAt = now
		return w.keep(next)
	})
}

// UserData returns what the machine was launched with; not to be changed.
func (w *World) UserData(id string) []byte {
	w.hold()
	defer w.release()
	if i := w.byID[id]; i != nil {
		return i.Launch.UserData
	}
	return nil
}

// Disk returns what the machine saved last; nil: nothing.
func (w *World) Disk(id string) []byte {
	w.hold()
	defer w.release()
	return bytes.Clone(w.disks[id])
}

// SaveDisk saves data in place of what the machine saved before.
func (w *World) SaveDisk(id string, data []byte) error {
	return w.change(id, func(*instance, time.Time) error {
		if err := w.cfg.Disk.Put(diskBucket, id, data); err != nil {
			return fmt.Errorf("save the disk of %s: %w", id, err)
		}
		w.disks[id] = bytes.Clone(data)
		return nil
	})
}
