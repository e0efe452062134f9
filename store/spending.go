package store

import "time"

// DailyBudget is what the machines of an account may cost on a day, in UTC, by the costs of
// those that have ended on it. Its zero value is no budget.
type DailyBudget struct {
	// USD is the amount in dollars, as "50" or "12.50".
	USD string `json:"usd"`
	// Wait has starts wait for the next day once the budget is spent. Else people alone are
	// told of it.
	Wait bool `json:"wait,omitempty"`
}

func (b DailyBudget) amount() MicroUSD {
	usd, _ := ParseUSD(b.USD) // a registration is checked when it is read
	return usd
}

// Spent is what the machines of an account cost that ended on one day.
type Spent struct {
	Day  string   `json:"day"` // such as 2026-03-01, in UTC
	Cost MicroUSD `json:"cost"`
	// Told is the day on which people were last told that most of the budget is spent.
	Told string `json:"told,omitempty"`
}

// budgetWarning is from how many hundredths of the budget on the alarm is raised.
const budgetWarning = 80

// spend adds what a machine cost that ended on a day. One that is counted a day late, over
// midnight, is in the usage alone.
func (q Quota) spend(day string, cost MicroUSD) Quota {
	if cost == 0 || day < q.Spent.Day {
		return q
	}
	if day > q.Spent.Day {
		q.Spent = Spent{Day: day, Told: q.Spent.Told}
	}
	q.Spent.Cost += cost
	return q
}

// spentOn returns what was spent on the day of a time.
func (q Quota) spentOn(now time.Time) MicroUSD {
	if q.Spent.Day != now.UTC().Format(dayForm) {
		return 0
	}
	return q.Spent.Cost
}

// OverBudget returns what a request of the account has to wait for that needs a machine of
// its own; the zero value: its budget allows one.
func (a Account) OverBudget(now time.Time, lim Limits, q Quota) Wait {
	if budget := a.DailyBudget.amount(); !a.DailyBudget.Wait || budget == 0 || q.spentOn(now) < budget {
		return Wait{}
	}
	again := now.Add(lim.Waits[len(lim.Waits)-1]) // people may raise the budget meanwhile
	return Wait{WaitBudget, minTime(again, now.UTC().Truncate(24*time.Hour).Add(24*time.Hour))}
}

// Spending decides whether people are to hear that the account has spent most of its budget:
// once a day.
func (q Quota) Spending(now time.Time, b DailyBudget) Decision {
	return decide(Case{Quota: q}, func(d *Decision) {
		today, budget := now.UTC().Format(dayForm), b.amount()
		if budget == 0 || q.Spent.Told == today || q.spentOn(now) < budget*budgetWarning/100 {
			return
		}
		d.Quota.Spent.Told = today
		d.Alarm = AlarmBudget
	})
}
