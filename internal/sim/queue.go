package sim

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
)

// tappedQueue is the queue as those who send see it.
type tappedQueue struct{ w *World }

var (
	_ queue.Sender      = tappedQueue{}
	_ queue.BatchSender = tappedQueue{}
)

func (q tappedQueue) Send(ctx context.Context, m queue.Message, delay time.Duration) error {
	e := &kernel.Effect{Op: kernel.Send, To: kernel.ToQueue, What: string(m.Kind), On: m.ID}
	_, err := kernel.Do(ctx, q.w.Kernel, e, func(ctx context.Context) (none, error) {
		q.w.Sends(m)
		if e.Fate == kernel.Hold {
			wait := q.w.Span(e)
			q.w.Go(func() {
				time.Sleep(wait)
				_ = q.w.Queue.Send(ctx, m, delay) // what it refuses now it would have refused then
			})
			return none{}, nil
		}
		return none{}, q.w.Queue.Send(ctx, m, delay)
	})
	return err
}

// SendAll is one call: what befalls it befalls all of its messages.
func (q tappedQueue) SendAll(ctx context.Context, all ...queue.Outgoing) []error {
	kinds, ids := map[string]bool{}, make([]string, len(all))
	for i, m := range all {
		kinds[string(m.Kind)], ids[i] = true, m.ID
	}
	e := &kernel.Effect{Op: kernel.Send, To: kernel.ToQueue, What: strings.Join(slices.Sorted(maps.Keys(kinds)), " "), On: strings.Join(ids, " ")}
	errs, err := kernel.Do(ctx, q.w.Kernel, e, func(ctx context.Context) ([]error, error) {
		for _, m := range all {
			q.w.Sends(m.Message)
		}
		if e.Fate == kernel.Hold {
			wait := q.w.Span(e)
			q.w.Go(func() {
				time.Sleep(wait)
				_ = q.w.Queue.SendAll(ctx, all...) // what it refuses now it would have refused then
			})
			return nil, nil
		}
		return q.w.Queue.SendAll(ctx, all...), nil
	})
	if err != nil {
		return queue.Each(len(all), err)
	}
	return errs
}
