package store

import (
	"slices"
	"time"
)

// Delivery is what the log of a GitHub App says of one try to deliver a webhook.
type Delivery struct {
	ID int64 // later ones have larger ids
	At time.Time
	// Missed is the repository, by id, whose queued job was not delivered. Empty: it was, or
	// the delivery told of something else.
	Missed string
}

// DeliveryLog is how far the log of a GitHub App's deliveries was read, and who is to be
// looked at for that. Its zero value: it was not read yet.
type DeliveryLog struct {
	App int64 `json:"app,omitempty"` // whose log
	// Seen is the newest delivery up to which all were looked at.
	Seen int64 `json:"seen,omitempty"`
	// Top and Cursor are of a reading that has not come down to Seen yet: what Seen will be,
	// and GitHub's name of the page that comes next. Empty: none is under way.
	Top    int64  `json:"top,omitempty"`
	Cursor string `json:"cursor,omitempty"`
	// Missed are the repositories, by id, that are to be listed once, since the delivery of
	// a queued job of theirs failed: the first found first.
	Missed []string `json:"missed,omitempty"`
}

const (
	// deliveryTakes is how old a delivery has to be: GitHub waits ten seconds for the answer
	// (https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks),
	// so that one can come into the log below others that began later, and its lists of runs
	// can be behind its webhooks.
	deliveryTakes = time.Minute
	// queuedFor is for how long a job can be queued for a runner of ours: GitHub cancels it
	// after a day, two at most (https://docs.github.com/en/actions/reference/limits). What
	// older deliveries told of is over.
	queuedFor = 48 * time.Hour
	// maxMissed bounds what is kept of one outage: 2,000 ids of ten digits are 26 KB of a
	// record, and four hours of the calls that listing may take. Others come in turn.
	maxMissed = 2000
)

// Read takes in the next page of the log, the newest delivery first, and GitHub's name of
// the page after it; empty: it was the last. It reads down to what was seen before, or to
// deliveries that are too old to matter.
func (l DeliveryLog) Read(now time.Time, page []Delivery, next string) DeliveryLog {
	l.Missed, l.Cursor = slices.Clone(l.Missed), next
	for _, d := range page {
		if d.ID <= l.Seen || now.Sub(d.At) > queuedFor {
			l.Cursor = ""
			break
		}
		if now.Sub(d.At) < deliveryTakes {
			continue // the next sweep meets it again
		}
		l.Top = max(l.Top, d.ID)
		if d.Missed != "" && len(l.Missed) < maxMissed && !slices.Contains(l.Missed, d.Missed) {
			l.Missed = append(l.Missed, d.Missed)
		}
	}
	if l.Cursor == "" {
		l.Seen, l.Top = max(l.Seen, l.Top), 0
	}
	return l
}

// Listed takes repositories out whose jobs were looked for.
func (l DeliveryLog) Listed(repositories ...string) DeliveryLog {
	l.Missed = slices.DeleteFunc(slices.Clone(l.Missed), func(id string) bool { return slices.Contains(repositories, id) })
	return l
}

// Behind reports whether there is more to read, or to look at, than one sweep could.
func (l DeliveryLog) Behind() bool { return l.Cursor != "" || len(l.Missed) > 0 }
