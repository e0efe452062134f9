package queuetest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

// Memory is a queue.Queue that forgets all when its process ends. It delivers
// exactly what the contract demands, in the order in which messages became
// visible, and draws nothing at random: the same calls have the same results. Make
// it with NewMemory, inside of the bubble that uses it if there is one.
type Memory struct {
	visibility time.Duration

	mu       sync.Mutex
	last     int
	messages []*entry
	woken    chan struct{} // closed, and made again, when something may have become visible
}

type entry struct {
	id                int
	body              []byte
	sentAt, visibleAt time.Time
	receives          int
}

var _ queue.Queue = (*Memory)(nil)

// NewMemory returns an empty queue with that visibility timeout.
func NewMemory(visibility time.Duration) *Memory {
	return &Memory{visibility: visibility, woken: make(chan struct{})}
}

// Send implements queue.Sender.
func (q *Memory) Send(ctx context.Context, m queue.Message, delay time.Duration) error {
	body, err := queue.Encode(m)
	if err != nil {
		return err
	}
	if delay < 0 || delay > queue.MaxDelay {
		return fmt.Errorf("send message: delay %v, want 0 to %v", delay, queue.MaxDelay)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	q.last++
	q.messages = append(q.messages, &entry{id: q.last, body: body, sentAt: now, visibleAt: now.Add(delay)})
	q.wake()
	return nil
}

// SendAll implements queue.BatchSender.
func (q *Memory) SendAll(ctx context.Context, all ...queue.Outgoing) []error {
	if len(all) > queue.MaxBatch {
		return queue.Each(len(all), fmt.Errorf("send %d messages: want at most %d", len(all), queue.MaxBatch))
	}
	var errs []error
	for i, m := range all {
		if err := q.Send(ctx, m.Message, m.Delay); err != nil {
			if errs == nil {
				errs = make([]error, len(all))
			}
			errs[i] = err
		}
	}
	return errs
}

// Receive implements queue.Queue.
func (q *Memory) Receive(ctx context.Context, max int, wait time.Duration) ([]queue.Delivery, error) {
	if max < 1 {
		return nil, fmt.Errorf("receive messages: %d, want at least 1", max)
	}
	deadline := time.Now().Add(wait)
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("receive messages: %w", err)
		}
		got, next, woken := q.take(max)
		left := time.Until(deadline)
		if len(got) > 0 || left <= 0 {
			return got, nil
		}
		if !next.IsZero() {
			left = min(left, time.Until(next))
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-woken:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// take receives what is visible. Next is when something may be, and zero when
// nothing is known of; woken is closed if that changes.
func (q *Memory) take(max int) (got []queue.Delivery, next time.Time, woken <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	slices.SortFunc(q.messages, func(a, b *entry) int {
		return cmp.Or(a.visibleAt.Compare(b.visibleAt), cmp.Compare(a.id, b.id))
	})
	now := time.Now()
	for _, e := range q.messages {
		if e.receives >= queue.MaxReceives {
			continue
		}
		if e.visibleAt.After(now) {
			next = e.visibleAt
			break
		}
		if len(got) == max {
			break
		}
		e.receives++
		e.visibleAt = now.Add(q.visibility)
		got = append(got, queue.Delivery{
			ID: strconv.Itoa(e.id), Body: bytes.Clone(e.body), Receives: e.receives, Receipt: e.receipt(),
		})
	}
	return got, next, q.woken
}

// receipt is that of the newest delivery.
func (e *entry) receipt() string { return fmt.Sprintf("%d/%d", e.id, e.receives) }

// wake makes all who wait look again. The caller holds the mutex.
func (q *Memory) wake() {
	close(q.woken)
	q.woken = make(chan struct{})
}

// Delete implements queue.Queue.
func (q *Memory) Delete(ctx context.Context, d queue.Delivery) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete message %s: %w", d.ID, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.messages = slices.DeleteFunc(q.messages, func(e *entry) bool { return e.receives > 0 && e.receipt() == d.Receipt })
	return nil
}

// Release implements queue.Queue.
func (q *Memory) Release(ctx context.Context, d queue.Delivery, delay time.Duration) error {
	if delay < 0 {
		return fmt.Errorf("release message %s: delay %v, want at least 0", d.ID, delay)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("release message %s: %w", d.ID, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.messages {
		if e.receives > 0 && e.receipt() == d.Receipt {
			e.visibleAt = time.Now().Add(delay)
			q.wake()
		}
	}
	return nil
}

// Dead implements queue.Queue.
func (q *Memory) Dead(ctx context.Context) ([]queue.Dead, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list dead messages: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	var dead []queue.Dead
	for _, e := range slices.SortedFunc(slices.Values(q.messages), func(a, b *entry) int { return cmp.Compare(a.id, b.id) }) {
		if e.receives >= queue.MaxReceives && !e.visibleAt.After(now) {
			dead = append(dead, queue.Dead{ID: strconv.Itoa(e.id), Body: bytes.Clone(e.body), Receives: e.receives, SentAt: e.sentAt})
		}
	}
	return dead, nil
}
