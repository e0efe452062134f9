package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/startup"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/sqsqueue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// margin is how long before Lambda's deadline the worker's ends, so that it can
// still say which messages have to come again, and the others do not.
const margin = 500 * time.Millisecond

// function handles batches of messages.
type function struct {
	worker *startup.Kept[*worker.Worker]
	log    *slog.Logger
}

// handle works on a batch and answers which messages have to come again. Without
// keys that is all of them.
func (f *function) handle(ctx context.Context, e events.SQSEvent) (events.SQSEventResponse, error) {
	batch, err := sqsqueue.Deliveries(e)
	if err != nil {
		return events.SQSEventResponse{}, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-margin))
		defer cancel()
	}
	w, err := f.worker.Get(ctx)
	if err != nil {
		store.AlarmAccess.Raise(ctx, f.log, "keys cannot be had; all messages come again", "messages", len(batch), "error", err)
		return events.SQSEventResponse{}, err
	}
	return sqsqueue.Response(w.Handle(ctx, batch)), nil
}
