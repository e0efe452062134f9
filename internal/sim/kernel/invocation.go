package kernel

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Invocation is one run of the worker or the reaper, or one call of the API.
type Invocation struct {
	Part, Name string
	Began      time.Time

	call     string        // of the API: what is called
	once     sync.Once     // it dies once
	dead     chan struct{} // closed when it is
	returned atomic.Bool   // it has answered: whatever it calls now, no goroutine of it may
	late     time.Duration // how long after its deadline it is killed
}

type invocationKey struct{}

// InvocationOf returns who makes a call; nil: no invocation does.
func InvocationOf(ctx context.Context) *Invocation {
	inv, _ := ctx.Value(invocationKey{}).(*Invocation)
	return inv
}

// By names the invocation that makes a call.
func By(ctx context.Context) string {
	if inv := InvocationOf(ctx); inv != nil {
		return inv.Name
	}
	return ""
}

// Invoke begins an invocation; call is what is called of the API.
func (k *Kernel) Invoke(part, call string) *Invocation {
	name := fmt.Sprintf("%s-%d", part, k.Count(part))
	return &Invocation{Part: part, Name: name, Began: time.Now(), call: call, dead: make(chan struct{}), late: k.cfg.KillLate}
}

// Context returns what the invocation runs in: it ends at the deadline, and the
// invocation with it, a little late.
func (inv *Invocation) Context(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, invocationKey{}, inv), limit)
	end := time.AfterFunc(limit+inv.late, inv.kill)
	return ctx, func() {
		end.Stop()
		cancel()
	}
}

// Return notes that the invocation has answered.
func (inv *Invocation) Return() { inv.returned.Store(true) }

// kill ends the invocation where it is.
func (inv *Invocation) kill() { inv.once.Do(func() { close(inv.dead) }) }

// Died is closed when the invocation dies.
func (inv *Invocation) Died() <-chan struct{} { return inv.dead }

// Dead reports whether the invocation was killed; who is none never is.
func (inv *Invocation) Dead() bool {
	if inv == nil {
		return false
	}
	select {
	case <-inv.dead:
		return true
	default:
		return false
	}
}

// stand waits as a process does that gets no time to run: only its death ends it.
func (inv *Invocation) stand(d time.Duration) {
	if inv == nil {
		time.Sleep(d)
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-inv.dead:
	}
}

// travel waits while a call is on its way, unless the caller stops waiting. One
// that is dead learns it at once, so that it can be forgotten.
func (inv *Invocation) travel(ctx context.Context, d time.Duration) error {
	var dead chan struct{}
	if inv != nil {
		dead = inv.dead
	}
	if inv.Dead() {
		return ErrDead
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-dead:
		return ErrDead
	}
}
