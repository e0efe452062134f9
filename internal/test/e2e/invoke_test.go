//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/runtimeapi"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// batchSize is that of the event source.
const batchSize = 10

// poll is the queue's event source from now on: it invokes all workers, each with
// one batch at a time.
func (w *world) poll() {
	ctx, cancel := context.WithCancel(w.lasting)
	var wg sync.WaitGroup
	for _, f := range w.workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				batch, err := w.queue.Receive(ctx, batchSize, time.Second)
				switch {
				case ctx.Err() != nil:
					return // a message that was received comes again
				case err != nil:
					w.Errorf("poll: %v", err)
					return
				case len(batch) > 0:
					w.deliver(f, batch)
				}
			}
		})
	}
	w.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// deliver hands a batch to a worker, deletes what it has done, and lets the rest
// come again: sooner than by the visibility timeout, for which no test can wait.
func (w *world) deliver(f *runtimeapi.Function, batch []queue.Delivery) {
	var e events.SQSEvent
	var bodies []string
	for _, d := range batch {
		bodies = append(bodies, string(d.Body))
		e.Records = append(e.Records, events.SQSMessage{
			MessageId: d.ID, ReceiptHandle: d.Receipt, Body: string(d.Body), EventSource: "aws:sqs", AWSRegion: home,
			EventSourceARN: fmt.Sprintf("arn:aws:sqs:%s:%s:%s", home, w.control, w.table),
			Attributes:     map[string]string{"ApproximateReceiveCount": strconv.Itoa(d.Receives)},
		})
	}
	payload, err := json.Marshal(e)
	if err != nil {
		w.Errorf("event: %v", err)
		return
	}
	// AWS does not document which message of a batch gives it its trace: any may.
	trace := w.traces.Of(batch[0].ID)
	for _, d := range batch {
		if other := w.traces.Of(d.ID); f.Hops(other) > f.Hops(trace) {
			trace = other
		}
	}
	answer, err := f.InvokeAfter(w.lasting, payload, trace)
	var said events.SQSEventResponse
	if err == nil {
		err = json.Unmarshal(answer, &said)
	}
	w.mu.Lock()
	w.batches = append(w.batches, bodies)
	if err != nil {
		w.crashes = append(w.crashes, err)
	}
	w.mu.Unlock()
	for _, d := range batch {
		again := err != nil || slices.ContainsFunc(said.BatchItemFailures, func(f events.SQSBatchItemFailure) bool { return f.ItemIdentifier == d.ID })
		if again {
			err := w.queue.Release(w.lasting, d, w.opt.redeliver)
			if err != nil {
				w.Errorf("let message %s come again: %v", d.ID, err)
			}
		} else if err := w.queue.Delete(w.lasting, d); err != nil {
			w.Errorf("delete message %s: %v", d.ID, err)
		}
	}
}

// tick is the schedule: it invokes the reaper once. Then the power is gone where
// EC2 has terminated an instance.
//
// Nothing that a runner program does about its deletion comes before the reaper
// has recorded it: GitHub tells runner programs seconds later.
func (w *world) tick() error {
	w.Helper()
	_, err := func() ([]byte, error) {
		w.reaping.Lock()
		defer w.reaping.Unlock()
		return w.reaper.Invoke(w.lasting, []byte("{}"))
	}()
	for _, m := range w.machines {
		if m.on.Err() == nil && w.terminated(m.region, m.id) {
			m.stop()
		}
	}
	return err
}

// noReaper returns once the reaper does not run.
func (w *world) noReaper() {
	w.reaping.RLock()
	defer w.reaping.RUnlock()
}

// reap makes a run of the reaper that must not fail.
func (w *world) reap() {
	w.Helper()
	if err := w.tick(); err != nil {
		w.Errorf("the reaper: %v", err)
	}
}

// terminated reports whether EC2 says so of a machine.
func (w *world) terminated(region, id string) bool {
	w.Helper()
	return slices.ContainsFunc(w.instances(w.runners, region), func(i types.Instance) bool {
		return *i.InstanceId == id && i.State.Name == types.InstanceStateNameTerminated
	})
}

// edit changes an item of the table, as nobody but a test does.
func edit[T any, P interface {
	*T
	store.Item
}](w *world, id string, change func(P)) {
	w.Helper()
	session := store.NewWriter(w.store, w.Name(), time.Now)
	item, err := store.Read[T, P](w.Context(), w.store, id)
	if err == nil {
		change(&item)
		err = session.Commit(w.Context(), store.Put(P(&item)))
	}
	if err != nil {
		w.Fatal(err)
	}
}

// takeCrashes returns how invocations of the worker failed, which is then expected.
func (w *world) takeCrashes() []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	crashes := w.crashes
	w.crashes = nil
	return crashes
}

// delivered returns the bodies of the batches so far.
func (w *world) delivered() [][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.batches)
}
