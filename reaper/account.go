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

// budgets tells people of the accounts among those swept that have spent most of their
// budget of the day.
func (ec2 atEC2) budgets(ctx context.Context) {
	seen := map[string]bool{}
	for _, at := range ec2.todo.swept {
		a, err := ec2.cfg.Accounts.Account(ctx, at.Account)
		if seen[at.Account] || err != nil || a.DailyBudget == (store.DailyBudget{}) || ec2.cfg.DryRun {
			continue
		}
		seen[at.Account] = true
		quotas, ok := read[*store.Quota](ctx, ec2.pass, "account", store.Ref{Kind: store.KindQuota, ID: at.Account})
		if !ok {
			continue
		}
		d := quotas[0].Spending(ec2.cfg.Now(), a.DailyBudget)
		if d.Alarm == "" || !ec2.apply(ctx, &d.Quota, d) {
			continue
		}
		spent := d.Quota.Spent.Cost
		ec2.alarm(d.Alarm, at.Account, fmt.Sprintf("the machines of account %s that ended today cost %s, and its daily_budget is %s dollars: look who uses them, or raise it", at.Account, spent, a.DailyBudget.USD),
			"account", at.Account, "spent", spent.String(), "budget", a.DailyBudget.USD, "starts_wait", a.DailyBudget.Wait)
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
