package queuetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

func waitsInVain(t *testing.T, b *bench) {
	within(t, "Receive without waiting", 0, b.Visibility*3/4, func() { b.none(t, 0, "from an empty queue") })
	within(t, "Receive with half a visibility timeout", b.Visibility/2, b.Visibility*3/2, func() {
		b.none(t, b.Visibility/2, "from an empty queue")
	})
	b.send(t, 1, 2*b.Visibility)
	within(t, "Receive that ends before a delay", b.Visibility, b.Visibility*7/4, func() {
		b.none(t, b.Visibility, "before the delay")
	})
}

func waitsForSend(t *testing.T, b *bench) {
	r := b.begin(t.Context(), 4*b.Visibility)
	b.Sleep(b.Visibility / 2)
	within(t, "Receive from the send on", 0, b.Visibility, func() {
		b.send(t, 1, 0)
		<-r.done
	})
	if r.err != nil || len(r.got) != 1 {
		t.Errorf("waiting Receive = %+v, %v; want the message", r.got, r.err)
	}
}

func waitsForVisible(t *testing.T, b *bench) {
	r := b.begin(t.Context(), 4*b.Visibility)
	b.Sleep(b.Visibility / 4)
	within(t, "Receive from a delayed send on", b.Visibility/2, b.Visibility*3/2, func() {
		b.send(t, 1, b.Visibility/2)
		<-r.done
	})
	if r.err != nil || len(r.got) != 1 {
		t.Fatalf("waiting Receive = %+v, %v; want the message", r.got, r.err)
	}
	d := r.got[0]
	r = b.begin(t.Context(), 4*b.Visibility)
	b.Sleep(b.Visibility / 4)
	within(t, "Receive from a release on", 0, b.Visibility/2, func() {
		b.release(t, d, 0)
		<-r.done
	})
	if r.err != nil || len(r.got) != 1 || r.got[0].Receives != 2 {
		t.Errorf("waiting Receive = %+v, %v; want the released message", r.got, r.err)
	}
}

func cancelled(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(t.Context())
	r := b.begin(ctx, 8*b.Visibility)
	b.Sleep(b.Visibility / 4)
	within(t, "Receive from its cancellation on", 0, b.Visibility, func() {
		cancel()
		<-r.done
	})
	if len(r.got) > 0 || !errors.Is(r.err, context.Canceled) {
		t.Errorf("cancelled Receive = %+v, %v; want context.Canceled", r.got, r.err)
	}
	b.send(t, 1, 0)
	if got, err := b.Receive(ctx, 1, b.Visibility); len(got) > 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("Receive with a cancelled context = %+v, %v; want context.Canceled", got, err)
	}
	if err := b.Send(ctx, message(t, 1), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Send with a cancelled context = %v, want context.Canceled", err)
	}
	// The wait that was cancelled may have taken it at the far end: then it
	// comes again.
	if got := b.some(t, 1, 2*b.Visibility); len(got) != 1 || decoded(t, got[0].Body) != message(t, 0) {
		t.Errorf("Receive = %+v, want the message that was sent", got)
	}
}

func concurrent(t *testing.T, b *bench) {
	const senders, each, receivers = 4, 10, 6
	var wg sync.WaitGroup
	defer wg.Wait()
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				if err := b.Send(t.Context(), message(t, s*each+i), 0); err != nil {
					t.Errorf("Send: %v", err)
				}
			}
		})
	}
	var mu sync.Mutex
	seen := map[queue.Message]time.Time{}
	for range receivers {
		wg.Go(func() {
			for {
				got, err := b.Receive(t.Context(), 3, b.Visibility/4)
				if err != nil {
					t.Errorf("Receive: %v", err)
					return
				}
				now := time.Now()
				mu.Lock()
				for _, d := range got {
					m := decoded(t, d.Body)
					if at, ok := seen[m]; ok && now.Sub(at) < b.Visibility*3/4 {
						t.Errorf("%+v came twice within %v", m, now.Sub(at))
					}
					seen[m] = now
				}
				all := len(seen) == senders*each
				mu.Unlock()
				if len(got) == 0 && all {
					return
				}
			}
		})
	}
}
