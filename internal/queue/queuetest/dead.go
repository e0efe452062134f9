package queuetest

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

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
