package queuetest

import (
	"slices"
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
