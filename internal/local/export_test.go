package local

import "context"

// Batch is how many messages a worker takes at once.
const Batch = batch

// Take has the worker handle the next batch.
func (s *System) Take(ctx context.Context) error { return s.take(ctx, ctx) }
