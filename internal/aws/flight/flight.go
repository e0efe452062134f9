// Package flight fetches a value once for all who want it at the same time, and
// keeps it for as long as its fetcher says.
//
// It promises that there is one fetch at a time for a key, on the goroutine of one
// who asked; that the others wait for it no longer than their own contexts last;
// that nobody gets a failure that was only another caller's lack of time;
// and that no lock is held during a fetch.
package flight

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Fetch brings the value of a key. last is what was brought before, if that is
// kept still, or else the zero value. The answer, an error too, is for all who
// ask before until; the zero time is for those alone who wait for it. An error
// with an until counts as an answer: what was brought before is dropped. One that ctx
// ended is no answer, whatever its until.
type Fetch[V any] func(ctx context.Context, last V) (value V, until time.Time, err error)

// Cache keeps values by key. It is safe for concurrent use. A Cache must not be
// copied.
type Cache[K comparable, V any] struct {
	// Now is needed.
	Now func() time.Time
	// Keep is how long after it was brought a value is kept for Fetch's last.
	Keep time.Duration

	mu      sync.Mutex
	begun   uint64 // fetches
	entries map[K]*entry[V]
}

// entry is an answer, or is about to be one: once done is closed, only claim and
// Forget look at more than value and err.
type entry[V any] struct {
	done      chan struct{}
	n         uint64 // of the fetches begun
	value     V
	err       error
	abandoned bool // its fetcher ran out of its own time
	until     time.Time
	last      V
	lastUntil time.Time // zero: there is no last
}

// Get returns the value of a key: what is there, or else what fetch brings. fresh
// accepts nothing whose fetch began before this call.
func (c *Cache[K, V]) Get(ctx context.Context, key K, fresh bool, fetch Fetch[V]) (V, error) {
	after := c.count(fresh)
	for {
		e, mine := c.claim(key, after)
		if mine {
			c.run(ctx, e, fetch)
			return e.value, e.err
		}
		select {
		case <-e.done:
		case <-ctx.Done():
			var none V
			return none, fmt.Errorf("wait for what another call fetches: %w", ctx.Err())
		}
		if !e.abandoned && e.n > after {
			return e.value, e.err
		}
	}
}

// Peek returns the value of a key if one is there that stands now.
func (c *Cache[K, V]) Peek(key K) (V, bool) {
	now := c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && e.isDone() && e.err == nil && now.Before(e.until) {
		return e.value, true
	}
	var none V
	return none, false
}

// Forget drops the value of a key, and what is kept of it, if it is still the one
// that bad is about.
func (c *Cache[K, V]) Forget(key K, bad func(V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && e.isDone() && e.err == nil && bad(e.value) {
		delete(c.entries, key)
	}
}

// count returns how many fetches an answer has to come after.
func (c *Cache[K, V]) count(fresh bool) uint64 {
	if !fresh {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begun
}

// claim returns the entry of a key, or a new one that the caller has to fetch. It
// forgets what is of no use any more.
func (c *Cache[K, V]) claim(key K, after uint64) (e *entry[V], mine bool) {
	now := c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.entries[key]
	if old != nil && (!old.isDone() || old.n > after && now.Before(old.until)) {
		return old, false
	}
	for k, e := range c.entries {
		if e.isDone() && !now.Before(e.until) && !now.Before(e.lastUntil) {
			delete(c.entries, k)
		}
	}
	if c.entries == nil {
		c.entries = map[K]*entry[V]{}
	}
	c.begun++
	e = &entry[V]{done: make(chan struct{}), n: c.begun}
	if old != nil && now.Before(old.lastUntil) {
		e.last, e.lastUntil = old.last, old.lastUntil
	}
	c.entries[key] = e
	return e, true
}

// run fetches for all who wait.
func (c *Cache[K, V]) run(ctx context.Context, e *entry[V], fetch Fetch[V]) {
	defer close(e.done)
	e.err = errors.New("fetching panicked") // unless it returns
	value, until, err := fetch(ctx, e.last)
	e.abandoned = err != nil && ctx.Err() != nil
	if e.abandoned {
		until = time.Time{}
	}
	e.value, e.until, e.err = value, until, err
	switch {
	case err == nil:
		e.last, e.lastUntil = value, c.Now().Add(c.Keep)
	case !until.IsZero():
		var none V
		e.last, e.lastUntil = none, time.Time{}
	}
}

func (e *entry[V]) isDone() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}
