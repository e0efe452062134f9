package reaper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// isRefused reports whether an account refuses us until a person changes something, and
// notes that. It is no failure of the run: the others are none of its concern, and it
// has an alarm of its own.
func (p *pass) isRefused(account, kind, id string, err error) bool {
	if !refused(err) {
		return false
	}
	p.line(Line{Kind: kind, ID: id, Action: Skip, Reason: err.Error()})
	p.refuses(account, err)
	return true
}

// refuses notes why an account refuses us, the first time.
func (w *whole) refuses(account string, err error) {
	w.lock.Lock()
	defer w.lock.Unlock()
	if w.refusing[account] == nil {
		w.refusing[account] = err
	}
}

// isUnregistered notes an account that is registered no longer, though its machines can
// still be seen and ended.
func (ec2 atEC2) isUnregistered(ctx context.Context, at fleet.Place) {
	if _, err := ec2.cfg.Accounts.Account(ctx, at.Account); errors.Is(err, store.ErrNoAccount) {
		ec2.refuses(at.Account, err)
	}
}

// refusals tells people of the accounts that refuse us: one alarm for each, and the next
// one a day later.
func (p *pass) refusals(ctx context.Context) {
	if p.cfg.DryRun {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(p.refusing)) {
		if !store.ValidAccountID(id) {
			continue
		}
		quotas, ok := read[*store.Quota](ctx, p, "account", store.Ref{Kind: store.KindQuota, ID: id})
		if !ok {
			continue
		}
		why := p.refusing[id]
		d := quotas[0].Unreached(p.cfg.Now(), errors.Is(why, store.ErrNoAccount))
		if d.Alarm == "" || !p.apply(ctx, &d.Quota, d) {
			continue
		}
		p.alarm(d.Alarm, id, fmt.Sprintf("account %s is registered no longer, or refuses us: put its registration and its role back as they were until its runners have ended, of which %d live, or end its machines in the EC2 console", id, d.Quota.Live),
			"account", id, "runners", d.Quota.Live, "error", why)
	}
}

// unseen ends a runner whose account refuses to show its machine, once that machine's
// own timer must have ended it.
func (ec2 atEC2) unseen(run *store.Runner, err error) {
	if !refused(err) {
		return
	}
	if why, over := run.Unseen(ec2.cfg.Now(), ec2.cfg.Limits, err); over {
		ec2.finish(run, fleet.Instance{ID: run.InstanceID}, why)
	}
}
