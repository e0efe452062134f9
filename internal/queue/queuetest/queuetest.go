// Package queuetest holds every queue.Queue to the contract, and has Memory: a
// queue for tests of what sends and receives, which is held to it too.
package queuetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

// Setup says how one kind of queue is tested.
type Setup struct {
	// Open returns a queue that is empty and not shared. What it opens it
	// closes in t.Cleanup.
	Open func(t *testing.T) queue.Queue
	// Visibility is the visibility timeout of that queue: whole seconds that
	// divide by 4, so that SQS, which knows whole seconds alone, can pass too.
	Visibility time.Duration
	// Sleep returns when the queue's clock has gone on by d; nil: time.Sleep.
	Sleep func(d time.Duration)
	// Bubble runs each test in a bubble of testing/synctest, where waiting costs
	// nothing; else each takes up to eight visibility timeouts, side by side as far
	// as go test -parallel allows.
	Bubble bool
}

// Run tests a kind of queue.
func Run(t *testing.T, s Setup) {
	if s.Sleep == nil {
		s.Sleep = time.Sleep
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, *bench)
	}{
		{"MessageArrivesAsItWasSent", arrives},
		{"WhatCannotBeDoneIsRefused", refuses},
		{"BatchArrivesAsItWasSent", batchArrives},
		{"RefusedMessageOfABatchHoldsUpNoOther", batchRefuses},
		{"DelayedMessageComesInItsTime", delayed},
		{"BatchIsBoundedAndNothingIsLeftBehind", batches},

		{"UndeletedMessageComesAgain", comesAgain},
		{"DeletedMessageIsGone", deleted},
		{"NewestReceiptDeletesEvenLate", deletedLate},
		{"ReleasedMessageComesAfterItsDelay", released},
		{"StaleReceiptDeletesNothing", staleDelete},
		{"StaleReceiptReleasesNothing", staleRelease},
		{"ReceiptOfADeletedMessageDoesNothing", receiptOfNone},

		{"MessageReceivedTooOftenIsDead", dies},
		{"LastHolderMayStillDelete", lastHolder},
		{"ReleaseByTheLastHolderIsTheEnd", lastRelease},
		{"DeadComeOldestFirst", deadInOrder},

		{"ReceiveWaitsNoLongerThanAsked", waitsInVain},
		{"ReceiveWaitsForWhatIsSent", waitsForSend},
		{"ReceiveWaitsForWhatBecomesVisible", waitsForVisible},
		{"CancelledReceiveReturnsAndLosesNothing", cancelled},
		{"ConcurrentReceiversShareNothing", concurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !s.Bubble {
				t.Parallel()
				c.test(t, &bench{s, s.Open(t)})
				return
			}
			synctest.Test(t, func(t *testing.T) { c.test(t, &bench{s, s.Open(t)}) })
		})
	}
}

// bench is a queue under test.
type bench struct {
	Setup
	queue.Queue
}

// message returns a message that is no other's.
func message(t *testing.T, i int) queue.Message {
	t.Helper()
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(i))
	id, err := keys.NewID(bytes.NewReader(b[:]))
	if err != nil {
		t.Fatal(err)
	}
	return queue.Message{Kind: queue.Resume, ID: id, Trace: "t"}
}

// send sends messages 0 to n-1.
func (b *bench) send(t *testing.T, n int, delay time.Duration) {
	t.Helper()
	for i := range n {
		if err := b.Send(t.Context(), message(t, i), delay); err != nil {
			t.Fatalf("Send message %d: %v", i, err)
		}
	}
}

// some receives at most max deliveries.
func (b *bench) some(t *testing.T, max int, wait time.Duration) []queue.Delivery {
	t.Helper()
	got, err := b.Receive(t.Context(), max, wait)
	if err != nil {
		t.Fatalf("Receive: %v", err)
	}
	if len(got) > max {
		t.Fatalf("Receive of %d = %d deliveries", max, len(got))
	}
	return got
}

// one receives one delivery, which must come within two visibility timeouts, and
// must be the message's receive number receives.
func (b *bench) one(t *testing.T, receives int) queue.Delivery {
	t.Helper()
	got := b.some(t, 1, 2*b.Visibility)
	if len(got) != 1 || got[0].Receives != receives {
		t.Fatalf("Receive = %+v, want one delivery with receive count %d", got, receives)
	}
	return got[0]
}

// none looks for a message, for so long, and must find none.
func (b *bench) none(t *testing.T, wait time.Duration, when string) {
	t.Helper()
	if got := b.some(t, 10, wait); len(got) > 0 {
		t.Fatalf("Receive %s = %+v, want nothing", when, got)
	}
}

func (b *bench) delete(t *testing.T, d queue.Delivery) {
	t.Helper()
	if err := b.Delete(t.Context(), d); err != nil {
		t.Errorf("Delete: %v", err)
	}
}

func (b *bench) release(t *testing.T, d queue.Delivery, delay time.Duration) {
	t.Helper()
	if err := b.Release(t.Context(), d, delay); err != nil {
		t.Errorf("Release: %v", err)
	}
}

// wear receives the one message in the queue again and again, until its last
// receive, and returns that.
func (b *bench) wear(t *testing.T) queue.Delivery {
	t.Helper()
	for i := 1; i < queue.MaxReceives; i++ {
		b.release(t, b.one(t, i), 0)
	}
	return b.one(t, queue.MaxReceives)
}

// dead returns the dead messages once there are n. Another number is an error
// only when it lasts: SQS moves a message when it would deliver it next.
func (b *bench) dead(t *testing.T, n int) []queue.Dead {
	t.Helper()
	for try := 0; ; try++ {
		got, err := b.Dead(t.Context())
		if err != nil {
			t.Fatalf("Dead: %v", err)
		}
		if len(got) == n {
			return got
		}
		if try == 8 {
			t.Fatalf("Dead = %+v, want %d messages", got, n)
		}
		b.none(t, 0, "while messages die")
		b.Sleep(b.Visibility / 4)
	}
}

// decoded returns the message of a body.
func decoded(t *testing.T, body []byte) queue.Message {
	t.Helper()
	m, err := queue.Decode(body)
	if err != nil {
		t.Errorf("Decode(%q): %v", body, err)
	}
	return m
}

// within runs f, which must take at least least, and less than most.
func within(t *testing.T, what string, least, most time.Duration, f func()) {
	t.Helper()
	const rounding = 10 * time.Millisecond // queues keep times in milliseconds
	began := time.Now()
	f()
	if took := time.Since(began); took < least-rounding || took >= most {
		t.Errorf("%s took %v, want at least %v and less than %v", what, took, least, most)
	}
}

// receiving is a Receive of one message on its way.
type receiving struct {
	got  []queue.Delivery
	err  error
	done chan struct{}
}

// begin begins to receive one message.
func (b *bench) begin(ctx context.Context, wait time.Duration) *receiving {
	r := &receiving{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.got, r.err = b.Receive(ctx, 1, wait)
	}()
	return r
}
