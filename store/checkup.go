package store

import (
	"slices"
	"strings"
	"time"
)

// Checkup is one examination of the control plane, which an operator asked for and a worker
// carries out by its own rights: what garo doctor shows. It is done part by part, so that a
// worker that dies loses one part at most.
type Checkup struct {
	Meta
	ID string `json:"id"`
	// Account and Region are what it is about. Empty: all of them.
	Account string `json:"account,omitempty"`
	Region  string `json:"region,omitempty"`
	// Runner is the one whose machine's console is to be read, and nothing else is examined.
	// Empty: it is no such check.
	Runner  string `json:"runner,omitempty"`
	Console string `json:"console,omitempty"` // what the machine printed, its last lines
	Caller  string `json:"caller"`
	Trace   string `json:"trace"`

	CreatedAt time.Time `json:"created_at"`
	SentAt    time.Time `json:"sent_at"`             // when its last message was sent
	StartedAt time.Time `json:"started_at,omitzero"` // when a worker first took it up
	EndedAt   time.Time `json:"ended_at,omitzero"`
	// GiveUpAt is when nobody continues it any more: what it has by then is all.
	GiveUpAt time.Time `json:"give_up_at"`

	Claim    Claim     `json:"claim,omitzero"`
	Tries    int       `json:"tries,omitempty"` // how often a worker took it up
	Done     []string  `json:"done,omitempty"`  // the parts that are done, by Part.Key
	Findings []Finding `json:"findings,omitempty"`
}

// LastCheck is the id under which the last check that ended is kept once more, so that it
// is found without its own.
const LastCheck = "last"

// CheckState is where a check stands.
type CheckState string

// The states of a check. The last two are final.
const (
	CheckQueued  CheckState = "queued"  // no worker has taken it up
	CheckRunning CheckState = "running" // one did, and it is not done
	CheckDone    CheckState = "done"
	CheckUnknown CheckState = "unknown" // it was not done in time, and nobody continues it
)

// Result is what a check found of one thing.
type Result string

// The results, from the best to the worst. Skipped is neither: it was not looked at.
const (
	ResultOK      Result = "ok"
	ResultSkipped Result = "skipped"
	ResultWarn    Result = "warn"
	ResultFailed  Result = "failed"
)

// Finding is what one check found of one thing.
type Finding struct {
	Check   string `json:"check"` // which check, such as dry_run
	Account string `json:"account,omitempty"`
	Region  string `json:"region,omitempty"`
	About   string `json:"about,omitempty"` // what it looked at, such as a subnet
	Result  Result `json:"result"`
	// Evidence is what was seen, or why nothing was looked at; Remedy is what to do about
	// it, empty where there is nothing to do.
	Evidence string `json:"evidence"`
	Remedy   string `json:"remedy,omitempty"`
}

// Part is what of a check is done at once: what is about the control plane (the zero
// value), an account, or a region of one.
type Part struct{ Account, Region string }

// Key names the part in a record.
func (p Part) Key() string { return p.Account + "/" + p.Region }

const (
	// checkFor is how long a check is continued: each of 100 parts takes seconds, and a
	// worker that dies is followed a minute later.
	checkFor = 10 * time.Minute
	// checkResend is how long after its last message, or after the claim of a worker that
	// died, a check counts as forgotten: the queue shows a message again within a minute.
	checkResend = time.Minute
	// maxFindings bounds a record: most findings have 200 bytes, and this many of the longest
	// ones, of 1.2 KB, are below the 400 KB of an item.
	maxFindings = 250
	// maxFinding bounds the texts of a finding, in characters.
	maxFinding = 400
	// keepConsole is how long a console is kept: whatever a machine printed is in it, and it is
	// read once.
	keepConsole = 24 * time.Hour
	// maxAbout bounds what a finding is about.
	maxAbout = 120
)

// Ref implements Item.
func (c *Checkup) Ref() Ref { return Ref{KindCheck, c.ID} }

func (c *Checkup) name(id string) { c.ID = id }

// State returns where the check stands.
func (c Checkup) State(now time.Time) CheckState {
	switch {
	case !c.EndedAt.IsZero():
		return CheckDone
	case !now.Before(c.GiveUpAt):
		return CheckUnknown
	case c.StartedAt.IsZero():
		return CheckQueued
	}
	return CheckRunning
}

// Result returns the worst of the findings: ResultOK if there are none.
func (c Checkup) Result() Result {
	order := []Result{ResultOK, ResultSkipped, ResultWarn, ResultFailed}
	worst := 0
	for _, f := range c.Findings {
		worst = max(worst, slices.Index(order, f.Result))
	}
	return order[worst]
}

// AskCheckup records a check that has an id, what it is about, who asked, and no more.
func AskCheckup(now time.Time, lim Limits, c Checkup) Decision {
	c.CreatedAt, c.SentAt, c.GiveUpAt = now, now, now.Add(checkFor)
	c.expire(now, lim.Keep)
	if c.Runner != "" {
		c.expire(now, keepConsole)
	}
	return c.write(true)
}

// Poll sends the message of a check again that nobody continues, as when it was lost.
// Otherwise nothing changes.
func (c Checkup) Poll(now time.Time) Decision {
	state := c.State(now)
	if state == CheckDone || state == CheckUnknown || now.Before(maxTime(c.SentAt, c.Claim.Until).Add(checkResend)) {
		return Decision{Case: &Case{}}
	}
	c.SentAt = now
	return c.write(true)
}

// Take claims the check for a worker. false: it is over, or another one has it until
// Claim.Until.
func (c Checkup) Take(now time.Time, by Claim) (_ Decision, ok bool) {
	if state := c.State(now); state == CheckDone || state == CheckUnknown || c.Claim.By != by.By && c.Claim.By != "" && now.Before(c.Claim.Until) {
		return Decision{Case: &Case{}}, false
	}
	c.Claim, c.Tries = by, c.Tries+1
	if c.StartedAt.IsZero() {
		c.StartedAt = now
	}
	return c.write(false), true
}

// Found records what was found of a part, which is done by that.
func (c Checkup) Found(p Part, all []Finding) Decision {
	c.Done = append(slices.Clip(c.Done), p.Key())
	c.Findings = slices.Clip(c.Findings)
	for _, f := range all {
		if len(c.Findings) == maxFindings {
			break
		}
		f.Account, f.Region = p.Account, p.Region
		f.About, f.Evidence, f.Remedy = short(f.About, maxAbout), short(f.Evidence, maxFinding), short(f.Remedy, maxFinding)
		c.Findings = append(c.Findings, f)
	}
	return c.write(false)
}

// Printed records what a machine printed, and what is to be said of that.
func (c Checkup) Printed(console string, f Finding) Decision {
	c.Console = console
	return c.Found(Part{}, []Finding{f})
}

// HandOn gives the claim back, and has another worker continue.
func (c Checkup) HandOn(now time.Time) Decision {
	c.Claim, c.SentAt = Claim{}, now
	return c.write(true)
}

// End ends the check. last is what is kept under LastCheck: it becomes this one, unless it
// is of a later one, or this one read a console.
func (c Checkup) End(now time.Time, last Checkup) Decision {
	c.EndedAt, c.Claim = now, Claim{}
	d := c.write(false)
	if last.CreatedAt.After(c.CreatedAt) || c.Runner != "" {
		return d
	}
	meta := last.Meta
	meta.TTL = c.TTL
	last = c
	last.Meta, last.ID = meta, LastCheck
	d.Changes = append(d.Changes, Put(&last))
	return d
}

// Full reports whether the check has room for no more findings.
func (c Checkup) Full() bool { return len(c.Findings) >= maxFindings }

// Has reports whether a part is done.
func (c Checkup) Has(p Part) bool { return slices.Contains(c.Done, p.Key()) }

// write returns the decision to write c, the only item of its commit, and to send its
// message.
func (c Checkup) write(send bool) Decision {
	d := Decision{Case: &Case{}, Changes: []Change{Put(&c)}}
	if send {
		d.Sends = []Send{{Item: &c, Due: c.SentAt}}
	}
	return d
}

// short returns a text of a finding in one line, and in the length that a record has for it.
func short(s string, most int) string {
	r := []rune(strings.Join(strings.Fields(s), " "))
	if len(r) <= most {
		return string(r)
	}
	return string(r[:most-1]) + "…"
}
