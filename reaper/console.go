package reaper

import (
	"context"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// mostConsoles is how many consoles a round reads: each costs a call, and machines that do
// not boot at the same time most often have the same reason.
const mostConsoles = 20

// consoleLimit bounds the reading of one. Ends of machines wait for it, so that it has less
// than other calls, and that it has no answer stops no other call.
const consoleLimit = 3 * time.Second

// consoles reads what the machines printed of those runners that drain now since they did
// not boot, and says it by the id of the runner, for their errors. What cannot be read is
// said too, and holds nothing up.
func (ec2 atEC2) consoles(ctx context.Context, usable []*looked) map[string]string {
	var silent []store.Runner
	for _, l := range usable {
		if len(silent) < mostConsoles && store.NotBooted(ec2.cfg.Now(), ec2.cfg.Limits, l.around) {
			silent = append(silent, *l.runner)
		}
	}
	said := make([]string, len(silent))
	ec2.each(ctx, len(silent), accounts(ec2AtOnce, func(i int) string { return silent[i].Account }), func(q *pass, i int) {
		at, printed := fleet.PlaceOf(silent[i]), ""
		err := atEC2{q}.askBehind(ctx, "EC2's console output in "+at.String(), consoleLimit, func(ctx context.Context) (err error) {
			printed, err = q.cfg.Fleet.Console(ctx, at, silent[i].InstanceID)
			return err
		})
		said[i] = store.Console(printed, err)
	})
	out := map[string]string{}
	for i, run := range silent {
		out[run.ID] = said[i]
	}
	return out
}
