package api

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// A limiter is the first line against a machine that calls without end: it refuses
// before anything is read. There are as many as there are processes, and each begins
// empty, so that it bounds no writes: that is for the runner's budget, which is in its
// record. It is safe for concurrent use.
//
// It counts by the runner's id and the token together. By the id alone anybody who
// knows it could have the machine refused, and it is in the runner's name at GitHub.
type limiter struct {
	every time.Duration // for one call more
	now   func() time.Time

	mu   sync.Mutex
	seen map[[sha256.Size]byte]*talker
}

// talker is one holder of a token for one runner.
type talker struct {
	until   time.Time // when all of its calls are there again
	leftOut int       // events for people that were not written since one was
}

const (
	// callsAtOnce is how many calls of a machine are taken at once by a process. A
	// machine that was without a network says at most a few dozen events afterwards, one
	// after another.
	callsAtOnce = 40
	// callsPerHeartbeat is how many follow in each heartbeat's time: one a second. A
	// machine calls once in a heartbeat, eight times for a job, and every two seconds
	// while it waits for a config.
	callsPerHeartbeat = 20
	// maxTalkers bounds what a limiter remembers, at about a hundred bytes each. Who
	// fills it with tokens that he makes up gains nothing by it: a new one is always taken.
	maxTalkers = 10_000
)

func newLimiter(lim store.Limits, now func() time.Time) *limiter {
	return &limiter{every: lim.Heartbeat / callsPerHeartbeat, now: now, seen: map[[sha256.Size]byte]*talker{}}
}

// of returns the talker of a runner's id and a token. The caller holds the mutex.
func (l *limiter) of(runner, token string) *talker {
	key := sha256.Sum256([]byte(runner + " " + token))
	t := l.seen[key]
	if t == nil {
		if len(l.seen) >= maxTalkers {
			clear(l.seen)
		}
		t = &talker{}
		l.seen[key] = t
	}
	return t
}

// take counts a call of a machine, and refuses one that is too many.
func (l *limiter) take(runner, token string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, now := l.of(runner, token), l.now()
	until := t.until
	if until.Before(now) {
		until = now
	}
	if until = until.Add(l.every); until.Sub(now) > callsAtOnce*l.every {
		return throttled(until.Sub(now)-callsAtOnce*l.every, "This machine calls too often.")
	}
	t.until = until
	return nil
}

// leftOut returns how many events for people were not written, and setLeftOut changes that.
func (l *limiter) leftOut(runner, token string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(runner, token).leftOut
}

func (l *limiter) setLeftOut(runner, token string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(runner, token).leftOut = n
}

// throttled refuses a call until a while has passed.
func throttled(wait time.Duration, detail string) *problem {
	return &problem{code: apitype.CodeThrottled, detail: detail + " Send the same call again after Retry-After.", retryAfter: wait}
}
