package simfleet

import (
	"context"
	"fmt"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// Console implements fleet.Fleet. A machine prints that it starts, its id, and why it does
// nothing, if it does nothing.
func (w *World) Console(ctx context.Context, at fleet.Place, id string) (string, error) {
	if err := w.begin(ctx, OpConsole, at, fleet.Launch{}); err != nil {
		return "", err
	}
	w.hold()
	defer w.release()
	now := w.now()
	i := w.byID[id]
	switch {
	case i == nil || i.At != at || !w.sees(i, now.Add(-w.lag)):
		return "", &fleet.Error{Kind: fleet.ErrNotFound, Code: "InvalidInstanceID.NotFound", Text: "the instance " + id + " does not exist"}
	case now.Before(i.RunsAt):
		return "", nil
	case i.NeverBoots:
		return fleet.Printed(fmt.Sprintf("Linux boots instance %s\n\x1b[31mKernel panic\x1b[0m - not syncing: no working init in image %q\n", id, i.Launch.Image)), nil
	}
	return fleet.Printed(fmt.Sprintf("Linux boots instance %s\n%s login:\n", id, id)), nil
}
