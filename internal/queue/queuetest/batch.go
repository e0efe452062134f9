package queuetest

import (
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

// outgoing returns messages 0 to n-1.
func outgoing(t *testing.T, n int, delay time.Duration) []queue.Outgoing {
	t.Helper()
	all := make([]queue.Outgoing, n)
	for i := range all {
		all[i] = queue.Outgoing{Message: message(t, i), Delay: delay}
	}
	return all
}

// take receives n messages, each once and in any order.
func (b *bench) take(t *testing.T, want []queue.Message, when string) {
	t.Helper()
	for len(want) > 0 {
		got := b.some(t, 10, 2*b.Visibility)
		if len(got) == 0 {
			t.Fatalf("Receive %s = nothing, want %+v", when, want)
		}
		for _, d := range got {
			m := decoded(t, d.Body)
			if !slices.Contains(want, m) {
				t.Errorf("received %s %+v, want one of %+v, each once", when, m, want)
			}
			want = slices.DeleteFunc(want, func(w queue.Message) bool { return w == m })
			b.delete(t, d)
		}
	}
}

func batchArrives(t *testing.T, b *bench) {
	if errs := b.SendAll(t.Context()); errs != nil {
		t.Errorf("SendAll of nothing = %v, want no error", errs)
	}
	all := outgoing(t, queue.MaxBatch, 0)
	all[0].Delay = b.Visibility
	var now []queue.Message
	for _, m := range all[1:] {
		now = append(now, m.Message)
	}
	within(t, "SendAll with one delayed by a visibility timeout", b.Visibility, 2*b.Visibility, func() {
		if errs := b.SendAll(t.Context(), all...); errs != nil {
			t.Fatalf("SendAll = %v, want no error", errs)
		}
		b.take(t, now, "at once")
		b.none(t, 0, "before the delay")
		b.take(t, []queue.Message{all[0].Message}, "after the delay")
	})
	b.none(t, 0, "after all")
}

func batchRefuses(t *testing.T, b *bench) {
	all := outgoing(t, 4, 0)
	all[1].ID = ""
	all[2].Delay = queue.MaxDelay + time.Second
	errs := b.SendAll(t.Context(), all...)
	if len(errs) != 4 || errs[0] != nil || errs[1] == nil || errs[2] == nil || errs[3] != nil {
		t.Errorf("SendAll = %v, want an error for the second, without id, and for the third, with more than MaxDelay", errs)
	}
	b.take(t, []queue.Message{all[0].Message, all[3].Message}, "beside what was refused")

	errs = b.SendAll(t.Context(), outgoing(t, queue.MaxBatch+1, 0)...)
	if len(errs) != queue.MaxBatch+1 || slices.Contains(errs, nil) {
		t.Errorf("SendAll of %d = %v, want an error for each", queue.MaxBatch+1, errs)
	}
	b.none(t, b.Visibility, "after refused sends")
}
