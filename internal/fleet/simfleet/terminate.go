package simfleet

import (
	"context"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// Protect turns the protection of an instance from termination on or off, as a person
// may in the console. It stops nothing but Terminate.
func (w *World) Protect(id string, on bool) error {
	err := w.change(id, func(i *instance, _ time.Time) error {
		next := *i
		next.Protected = on
		return w.keep(next)
	})
	if err != nil {
		return fmt.Errorf("protect: %w", err)
	}
	return nil
}

// Terminate implements fleet.Fleet. An instance that the view does not have yet
// is ErrNotFound, as in EC2.
func (w *World) Terminate(ctx context.Context, at fleet.Place, ids ...string) error {
	if len(ids) == 0 || len(ids) > fleet.MaxTerminate {
		return fmt.Errorf("terminate %d instances in %s: want 1 to %d", len(ids), at, fleet.MaxTerminate)
	}
	if err := w.begin(ctx, OpTerminate, at, fleet.Launch{}); err != nil {
		return err
	}
	ended, err := w.terminate(at, ids)
	for _, id := range ended {
		w.notify(id)
	}
	return err
}

// terminate ends instances as EC2 does: none if one is unknown, and of those in a zone
// with a protected one none either. It returns those that it let end.
func (w *World) terminate(at fleet.Place, ids []string) (ended []string, _ error) {
	w.hold()
	defer w.release()
	now := w.now()
	closed := map[string]bool{} // zones
	var refused error
	for _, id := range ids {
		i := w.byID[id]
		if i == nil || i.At != at || !w.sees(i, now.Add(-w.lag)) {
			return nil, &fleet.Error{Kind: fleet.ErrNotFound, Code: "InvalidInstanceID.NotFound", Text: "the instance " + id + " does not exist"}
		}
		if i.Protected && !w.state(i, now).Over() {
			closed[i.Zone] = true
			refused = refuse("OperationNotPermitted", "the instance "+id+" may not be terminated: it is protected")
		}
	}
	for _, id := range ids {
		i := w.byID[id]
		if closed[i.Zone] {
			continue
		}
		ended = append(ended, id)
		next := *i
		if !next.end(now, now, reasonUser, "") {
			continue
		}
		if err := w.keep(next); err != nil {
			return ended, err
		}
	}
	return ended, refused
}
