package store

import (
	"slices"
	"strconv"
	"time"
)

// Overflow names the repositories of an account that had a queued job in one minute for
// which there was no room: as many of their requests were open as the registration allows.
// GitHub does not tell of such a job again, so that the next sweep that finds room in the
// repository looks for it.
type Overflow struct {
	Meta
	Key string `json:"key"` // <account>/<the minute, counted from 1970>
	// Repositories are their ids, each once, the first that had no room first.
	Repositories []string `json:"repositories,omitempty"`
}

// Overflows is what the sweeps of an account know of its overflows.
type Overflows struct {
	// ReadTo is the end of the last minute whose overflow was read. Zero: none was.
	ReadTo time.Time `json:"read_to,omitzero"`
	// Waiting are the repositories, by id, that are to be listed when they have room.
	Waiting []string `json:"waiting,omitempty"`
}

// overflowsAtOnce is how many minutes a sweep reads: what one call reads. A sweep comes each
// five minutes, and after a reaper that was away for a day the next fifteen runs catch up.
const overflowsAtOnce = 100

// Ref implements Item.
func (o *Overflow) Ref() Ref { return Ref{KindOverflow, o.Key} }

func (o *Overflow) name(id string) { o.Key = id }

// OverflowOf returns the absent overflow of an account in the minute of now.
func OverflowOf(account string, now time.Time) Overflow {
	return Overflow{Key: account + "/" + strconv.FormatInt(now.Unix()/60, 10)}
}

// Full notes that a repository had no room. It changes nothing if that is known, or if the
// minute has as many repositories as are kept: the others are found in their turn.
func (o Overflow) Full(now time.Time, repository string) Decision {
	if len(o.Repositories) >= maxMissed || slices.Contains(o.Repositories, repository) {
		return Decision{Case: &Case{}}
	}
	o.Repositories = append(slices.Clone(o.Repositories), repository)
	o.expire(now, queuedFor)
	return Decision{Case: &Case{}, Changes: []Change{Put(&o)}}
}

// Unread returns the overflows of an account that are to be read, and what is known once
// they are. A minute is read when GitHub's lists have what its webhooks told.
func (o Overflows) Unread(account string, now time.Time) ([]Ref, Overflows) {
	end := now.Add(-deliveryTakes).Truncate(time.Minute)
	from := maxTime(o.ReadTo, end.Add(-queuedFor))
	if o.ReadTo.IsZero() {
		from = end.Add(-overflowsAtOnce * time.Minute)
	}
	var refs []Ref
	for ; from.Before(end) && len(refs) < overflowsAtOnce; from = from.Add(time.Minute) {
		of := OverflowOf(account, from)
		refs = append(refs, of.Ref())
	}
	if len(refs) > 0 {
		o.ReadTo = from
	}
	return refs, o
}

// With takes in the repositories of an overflow.
func (o Overflows) With(of Overflow) Overflows {
	o.Waiting = slices.Clone(o.Waiting)
	for _, id := range of.Repositories {
		if len(o.Waiting) < maxMissed && !slices.Contains(o.Waiting, id) {
			o.Waiting = append(o.Waiting, id)
		}
	}
	return o
}

// Listed takes a repository out whose jobs were all looked for.
func (o Overflows) Listed(repository string) Overflows {
	o.Waiting = slices.DeleteFunc(slices.Clone(o.Waiting), func(id string) bool { return id == repository })
	return o
}

// Behind reports whether there are minutes left that the next sweep can read.
func (o Overflows) Behind(now time.Time) bool {
	return !o.ReadTo.IsZero() && now.Add(-deliveryTakes).Sub(o.ReadTo) > overflowsAtOnce*time.Minute
}
