package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The checks of the parts at work, by their names in findings.
const (
	Waiting = "waiting"
	Reaper  = "reaper"
	Brake   = "brake"
)

// waiting looks at what waits for a machine.
func (d *Doctor) waiting(ctx context.Context) store.Finding {
	var all []store.Request
	f := store.Filter{Kind: store.KindRequest, States: []string{string(store.Accepted)}, Look: recordedLook}
	for i, err := range d.Records.List(ctx, f) {
		if _, more := errors.AsType[*store.MoreError](err); more {
			break
		}
		if err != nil {
			return unread(Waiting, "", err)
		}
		if r, ok := i.(*store.Request); ok {
			all = append(all, *r)
		}
	}
	return judgeWaiting(d.Now(), all)
}

// waitsLong is how long a request may wait before it is worth a look: launches at EC2's pace
// serve 600 in that time.
const waitsLong = 5 * time.Minute

func judgeWaiting(now time.Time, all []store.Request) store.Finding {
	if len(all) == 0 {
		return ok(Waiting, "", "No request waits for its launch.")
	}
	oldest := all[0]
	for _, r := range all {
		if r.CreatedAt.Before(oldest.CreatedAt) {
			oldest = r
		}
	}
	waited := now.Sub(oldest.CreatedAt)
	evidence := fmt.Sprintf("%s for a launch, the oldest for %s.", waits(len(all)), waited.Round(time.Second))
	if oldest.Wait != "" {
		evidence = fmt.Sprintf("%s for a launch, the oldest for %s: %s.", waits(len(all)), waited.Round(time.Second), oldest.Wait)
	}
	if waited < waitsLong {
		return ok(Waiting, "request "+oldest.ID, evidence)
	}
	return warn(Waiting, "request "+oldest.ID, evidence, "garo status "+oldest.ID+" says what it waits for: the quota, EC2's capacity and pace, or GitHub.")
}

func waits(n int) string {
	if n == 1 {
		return "1 request waits"
	}
	return fmt.Sprintf("%d requests wait", n)
}

// sweep looks at how the reaper keeps a region.
func (d *Doctor) sweep(ctx context.Context, at fleet.Place) []store.Finding {
	items, err := d.Records.Get(ctx, store.Ref{Kind: store.KindSweep, ID: store.SweepKey(at.Account, at.Region)})
	if err != nil {
		return []store.Finding{unread(Reaper, "", err)}
	}
	s, known := items[0].(*store.Sweep)
	if !known || s.Version == 0 {
		return []store.Finding{skipped(Reaper, "", "The reaper has swept nothing here yet: it does so once a machine was launched.")}
	}
	return []store.Finding{judgeReaper(d.Now(), *s), judgeBrake(*s)}
}

// overdue is how late the reaper may be with a sweep: it runs once a minute, and may be busy
// with what ends.
const overdue = 5 * time.Minute

func judgeReaper(now time.Time, s store.Sweep) store.Finding {
	last := "It was last here at " + clock(s.UpdatedAt) + "."
	if !s.DueAt.IsZero() && now.Sub(s.DueAt) > overdue {
		return failed(Reaper, "", last+" It was to sweep again at "+clock(s.DueAt)+".", "Look at the reaper's log and its alarms reaper and reaper_late: while it does not run, machines end by their own timers alone.")
	}
	return ok(Reaper, "", last)
}

func judgeBrake(s store.Sweep) store.Finding {
	if s.Braked() {
		return failed(Brake, "", "It is on since "+clock(s.BrakeAt)+": more machines without a record were found than are ended at once.",
			"Look why: an emptied or wrong table, or another control plane of this name. Then garo reap --release "+s.Key+".")
	}
	return ok(Brake, "", fmt.Sprintf("It is off, and %d machines have no record.", len(s.Instances)))
}
