package queuetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

func arrives(t *testing.T, b *bench) {
	id := message(t, 1).ID
	want := []queue.Message{
		{Kind: queue.Start, ID: id, Account: "123456789012", Lock: "123456789012/eu-west-2/1001/spot/default/a,b", Trace: "t"},
		{Kind: queue.Resume, ID: id},
		{Kind: queue.Next, ID: id, N: 2, Trace: "t"},
	}
	for _, m := range want {
		if err := b.Send(t.Context(), m, 0); err != nil {
			t.Fatalf("Send %+v: %v", m, err)
		}
	}
	ids, receipts := map[string]bool{}, map[string]bool{}
	for range want {
		d := b.one(t, 1)
		m := decoded(t, d.Body)
		if !slices.Contains(want, m) {
			t.Errorf("received %+v, want one of %+v, each once", m, want)
		}
		want = slices.DeleteFunc(want, func(w queue.Message) bool { return w == m })
		if d.ID == "" || d.Receipt == "" || ids[d.ID] || receipts[d.Receipt] {
			t.Errorf("delivery %q has receipt %q, want both new", d.ID, d.Receipt)
		}
		ids[d.ID], receipts[d.Receipt] = true, true
	}
}

func refuses(t *testing.T, b *bench) {
	ctx := t.Context()
	if err := b.Send(ctx, queue.Message{Kind: queue.Resume}, 0); err == nil {
		t.Error("Send of a message without id: no error")
	}
	if err := b.Send(ctx, message(t, 1), queue.MaxDelay+time.Second); err == nil {
		t.Error("Send with more than MaxDelay: no error")
	}
	if err := b.Send(ctx, message(t, 1), -time.Second); err == nil {
		t.Error("Send with a delay below 0: no error")
	}
	if _, err := b.Receive(ctx, 0, 0); err == nil {
		t.Error("Receive of 0: no error")
	}
	b.none(t, b.Visibility, "after refused sends")

	b.send(t, 1, 0)
	d := b.one(t, 1)
	if err := b.Release(ctx, d, -time.Second); err == nil {
		t.Error("Release with a delay below 0: no error")
	}
}

func delayed(t *testing.T, b *bench) {
	within(t, "Receive of a message delayed by a visibility timeout", b.Visibility, 2*b.Visibility, func() {
		b.send(t, 1, b.Visibility)
		b.none(t, 0, "before the delay")
		b.Sleep(b.Visibility / 2)
		b.none(t, 0, "in half the delay")
		b.one(t, 1)
	})
	if err := b.Send(t.Context(), message(t, 2), queue.MaxDelay); err != nil {
		t.Errorf("Send with MaxDelay: %v", err)
	}
	b.none(t, 0, "before MaxDelay")
}

func batches(t *testing.T, b *bench) {
	const sent = 25
	b.send(t, sent, 0)
	var deliveries []queue.Delivery
	for len(deliveries) < sent {
		got := b.some(t, 10, b.Visibility/2)
		if len(got) == 0 {
			t.Fatalf("received %d of %d messages, and then none", len(deliveries), sent)
		}
		deliveries = append(deliveries, got...)
	}
	seen := map[queue.Message]bool{}
	for i, d := range deliveries {
		seen[decoded(t, d.Body)] = true
		if i%2 == 0 {
			b.delete(t, d)
		}
	}
	if len(seen) != sent {
		t.Errorf("%d messages came in %d deliveries, want %d", len(seen), len(deliveries), sent)
	}
	// The other half comes again: members of a batch live and die alone.
	again := 0
	for again < sent/2 {
		got := b.some(t, 10, 2*b.Visibility)
		if len(got) == 0 {
			break
		}
		for _, d := range got {
			if d.Receives != 2 || !seen[decoded(t, d.Body)] {
				t.Errorf("received %+v, want a message of before for the second time", d)
			}
			b.delete(t, d)
			again++
		}
	}
	if again != sent/2 {
		t.Errorf("%d messages came again, want the %d that were not deleted", again, sent/2)
	}
}

func comesAgain(t *testing.T, b *bench) {
	b.send(t, 1, 0)
	var receipts []string
	d := b.one(t, 1)
	for n := 2; n <= 3; n++ {
		receipts = append(receipts, d.Receipt)
		within(t, "Receive of what another one holds", b.Visibility*3/4, 2*b.Visibility, func() {
			b.none(t, 0, "at once")
			b.Sleep(b.Visibility * 3 / 4)
			b.none(t, 0, "within the visibility timeout")
			d = b.one(t, n)
		})
		if m := decoded(t, d.Body); m != message(t, 0) {
			t.Errorf("message %+v came again as %+v", message(t, 0), m)
		}
		if slices.Contains(receipts, d.Receipt) {
			t.Errorf("receipt %q comes again, want a new one", d.Receipt)
		}
		clear(d.Body) // a caller may do with it what it likes
	}
}

func deleted(t *testing.T, b *bench) {
	b.send(t, 2, 0)
	first := b.one(t, 1)
	b.delete(t, first)
	second := b.one(t, 1)
	if decoded(t, second.Body) == decoded(t, first.Body) {
		t.Errorf("the deleted message %s came again", first.Body)
	}
	b.Sleep(b.Visibility)
	again := b.one(t, 2)
	if decoded(t, again.Body) != decoded(t, second.Body) {
		t.Errorf("received %s, want the message that was not deleted", again.Body)
	}
	b.delete(t, again)
	b.none(t, 2*b.Visibility, "after all is deleted")
	b.dead(t, 0)
}

func deletedLate(t *testing.T, b *bench) {
	b.send(t, 1, 0)
	d := b.one(t, 1)
	b.Sleep(b.Visibility * 5 / 4)
	b.delete(t, d) // its timeout has passed, but nobody else has it
	b.none(t, b.Visibility, "after a late delete")

	b.send(t, 1, 0)
	d = b.one(t, 1)
	b.release(t, d, b.Visibility/4)
	b.delete(t, d)
	b.none(t, b.Visibility, "after a release and a delete")
}

func released(t *testing.T, b *bench) {
	b.send(t, 1, 0)
	d := b.one(t, 1)
	within(t, "Receive after a release without delay", 0, b.Visibility*3/4, func() {
		b.release(t, d, 0)
		d = b.one(t, 2)
	})
	within(t, "Receive after a release with half the visibility timeout", b.Visibility/2, b.Visibility, func() {
		b.release(t, d, b.Visibility/2)
		b.none(t, 0, "before the release's delay")
		d = b.one(t, 3)
	})
	within(t, "Receive after a release with two visibility timeouts", 2*b.Visibility, 3*b.Visibility, func() {
		b.release(t, d, 2*b.Visibility)
		b.Sleep(b.Visibility * 3 / 2)
		b.none(t, 0, "before the release's delay")
		b.one(t, 4)
	})
}

func staleDelete(t *testing.T, b *bench) {
	b.send(t, 1, 0)
	first := b.one(t, 1)
	b.Sleep(b.Visibility)
	b.one(t, 2) // who has it now dies without a word
	b.delete(t, first)
	third := b.one(t, 3)
	b.release(t, third, 0)
	fourth := b.one(t, 4)
	b.delete(t, third) // made stale by a release, not by time
	b.Sleep(b.Visibility)
	b.delete(t, b.one(t, 5))
	b.delete(t, fourth)
	b.none(t, b.Visibility, "after the newest delete")
}

func staleRelease(t *testing.T, b *bench) {
	b.send(t, 1, 0)
	first := b.one(t, 1)
	b.Sleep(b.Visibility)
	second := b.one(t, 2)
	b.release(t, first, 0)
	b.none(t, 0, "after a stale release without delay")
	b.release(t, first, 10*b.Visibility)
	third := b.one(t, 3) // not kept away for longer either
	b.release(t, second, 0)
	b.none(t, 0, "after another stale release")
	b.delete(t, third)
}

func receiptOfNone(t *testing.T, b *bench) {
	b.send(t, 1, 0)
	d := b.one(t, 1)
	b.delete(t, d)
	b.delete(t, d)
	b.release(t, d, 0)
	b.none(t, b.Visibility, "after a release of what is deleted")

	// Nor does it touch a message that was sent since.
	b.send(t, 1, 0)
	second := b.one(t, 1)
	b.delete(t, d)
	b.release(t, d, 0)
	b.none(t, 0, "after a release of what is deleted")
	b.release(t, second, 0)
	b.one(t, 2)
}

func dies(t *testing.T, b *bench) {
	sent := time.Now()
	b.send(t, 1, 0)
	for i := 1; i <= queue.MaxReceives; i++ {
		b.one(t, i)
	}
	b.dead(t, 0) // the last one may still delete it
	b.Sleep(b.Visibility)
	b.none(t, b.Visibility, "after MaxReceives")
	dead := b.dead(t, 1)[0]
	if m := decoded(t, dead.Body); m != message(t, 0) {
		t.Errorf("dead message = %+v, want %+v", m, message(t, 0))
	}
	if dead.ID == "" || dead.Receives < queue.MaxReceives {
		t.Errorf("dead message has id %q and %d receives, want one, and at least %d", dead.ID, dead.Receives, queue.MaxReceives)
	}
	if off := dead.SentAt.Sub(sent).Abs(); off > b.Visibility {
		t.Errorf("dead message was sent at %v, want %v", dead.SentAt, sent)
	}
	b.dead(t, 1) // to look at it takes nothing away

	if err := b.Send(t.Context(), message(t, 1), 0); err != nil {
		t.Fatalf("Send: %v", err)
	}
	d := b.one(t, 1)
	if m := decoded(t, d.Body); m != message(t, 1) {
		t.Errorf("received %+v beside a dead message, want %+v", m, message(t, 1))
	}
	b.delete(t, d)
	b.dead(t, 1)
}

func lastHolder(t *testing.T, b *bench) {
	b.send(t, 1, 0)
	b.delete(t, b.wear(t))
	b.none(t, 2*b.Visibility, "after a delete by the last holder")
	b.dead(t, 0)
}

func lastRelease(t *testing.T, b *bench) {
	b.send(t, 1, 0)
	b.release(t, b.wear(t), 0)
	b.none(t, b.Visibility, "after a release by the last holder")
	b.dead(t, 1)
}

func deadInOrder(t *testing.T, b *bench) {
	older, newer := message(t, 0), message(t, 1)
	b.send(t, 1, 0)
	b.Sleep(b.Visibility / 2)
	if err := b.Send(t.Context(), newer, 0); err != nil {
		t.Fatalf("Send: %v", err)
	}
	for last := 0; last < 2; {
		got := b.some(t, 10, 2*b.Visibility)
		if len(got) == 0 {
			t.Fatal("no message comes any more, want both until their last receive")
		}
		for _, d := range got {
			if d.Receives == queue.MaxReceives {
				last++
			}
			// The older one dies last: by its timeout, and not by a release.
			if d.Receives < queue.MaxReceives || decoded(t, d.Body) != older {
				b.release(t, d, 0)
			}
		}
	}
	b.Sleep(b.Visibility)
	b.none(t, 0, "after MaxReceives")
	dead := b.dead(t, 2)
	if a, z := decoded(t, dead[0].Body), decoded(t, dead[1].Body); a != older || z != newer {
		t.Errorf("Dead = %+v, %+v; want %+v, %+v", a, z, older, newer)
	}
}

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
