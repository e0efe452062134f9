package github

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// GitHub lets a credential spend 900 points a minute at one endpoint, and takes 5
// for a call that writes and 1 for one that reads
// (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#about-secondary-rate-limits).
// All endpoints are counted together here, which is on the safe side, but for that of
// registrations: workers lease those from store.Points before they launch machines.
//
// The same page allows 80 requests a minute that create content. It speaks of
// what people see, such as comments; should GitHub count registrations among
// them, it says so by a 403 with a time, which is kept like any other limit.
const (
	pointsPerMinute = 900
	pointsToWrite   = 5
	pointsToRead    = 1
)

// DefaultShare is the share of one of ten workers that run at once: as many as
// the queue's event source invokes (its maximum concurrency is 10).
const DefaultShare = 1.0 / 10

// points is what is counted for a call.
func (o op) points() int {
	switch o {
	case mint:
		return 0
	case remove, grants, cancel:
		return pointsToWrite
	}
	return pointsToRead
}

// limiter keeps this process within its share of the points of each
// credential, and within the Budget of its hour. A nil limiter lets everything pass.
// It is safe for concurrent use.
type limiter struct {
	share     float64 // of a credential, above 0
	perMinute float64 // points

	mu     sync.Mutex
	purses map[string]*bucket
}

// bucket is what a credential may spend. It holds a third of the share and takes in
// two thirds a minute: no minute, wherever it begins, sees more than the share.
type bucket struct {
	points *gauge
	hour   *hour
	// rests is until when GitHub asked to be left alone.
	rests time.Time
}

// gauge is a rate.Limiter that tells those who ask too early different times.
type gauge struct {
	*rate.Limiter
	// promised is the time that the last caller without tokens got.
	promised time.Time
}

// promise returns when to ask for n tokens again. Those who ask at once get
// different times within a minute, each as much later as it takes to gather what
// the one before needs; who comes when there are some gets them.
func (g *gauge) promise(n int, now time.Time) time.Time {
	gather := func(tokens float64) time.Duration {
		return time.Duration(tokens / float64(g.Limit()) * float64(time.Second))
	}
	first := now.Add(gather(float64(n) - g.TokensAt(now)))
	at := g.promised.Add(gather(float64(n)))
	if at.Before(first) || at.After(first.Add(time.Minute)) {
		at = first
	}
	g.promised = at
	return at
}

func newLimiter(share float64) (*limiter, error) {
	l := &limiter{share: share, perMinute: share * pointsPerMinute, purses: map[string]*bucket{}}
	switch {
	case share == 0:
		return nil, nil
	case !(share <= 1) || l.holds() < pointsToWrite: // NaN is not below 1 either
		return nil, fmt.Errorf("GitHub client: share %v: want at most 1, and enough for one call that writes; or 0", share)
	}
	return l, nil
}

// holds returns what a bucket holds when it is full.
func (l *limiter) holds() int { return int(l.perMinute / 3) }

// bucket returns the one of a purse, with the lock held.
func (l *limiter) bucket(purse string) *bucket {
	b := l.purses[purse]
	if b == nil {
		b = &bucket{points: &gauge{Limiter: rate.NewLimiter(rate.Limit(l.perMinute*2/3/60), l.holds())}, hour: newHour(l.share)}
		l.purses[purse] = b
	}
	return b
}

// take spends what a call costs, or says when to ask again.
func (l *limiter) take(purse string, op op, now time.Time) (at time.Time, ok bool) {
	if l == nil {
		return time.Time{}, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(purse)
	if now.Before(b.rests) {
		return b.rests, false
	}
	if at, ok := b.hour.room(op.purpose(), now); !ok {
		return at, false
	}
	if !b.points.AllowN(now, op.points()) {
		return b.points.promise(op.points(), now), false
	}
	b.hour.spend(op.purpose(), now)
	return time.Time{}, true
}

// left returns how many calls of the hour a credential has left, as GitHub said last, below
// none while GitHub asks to be left alone.
func (l *limiter) left(purse string, now time.Time) float64 {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(purse)
	switch {
	case now.Before(b.rests):
		return -1
	case now.Before(b.hour.reset):
		return float64(b.hour.remaining)
	}
	return float64(b.hour.limit)
}

// owe spends what a call costs that is made in any case, if need be of what is to
// come.
func (l *limiter) owe(purse string, op op, now time.Time) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(purse)
	b.points.ReserveN(now, op.points())
	b.hour.spend(op.purpose(), now)
}

// learn takes in what GitHub says of a credential's hour.
func (l *limiter) learn(purse string, h http.Header, now time.Time) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucket(purse).hour.learn(now, h)
}

// rest makes a credential wait as long as GitHub asks for. A caller that does not stop may
// be shut out, says GitHub.
func (l *limiter) rest(purse string, until time.Time) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(purse)
	if until.After(b.rests) {
		b.rests = until
	}
}

// hourLeft returns the least part that a credential has left of its hour, of those whose
// hour is known.
func (l *limiter) hourLeft(now time.Time) (least float64, known bool) {
	if l == nil {
		return 0, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	least = 1
	for _, b := range l.purses {
		if h := b.hour; now.Before(h.reset) {
			known, least = true, min(least, float64(h.remaining)/float64(h.limit))
		}
	}
	return least, known
}
