package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// shardOf returns the shard that a schedule's event names. An event that names none is of
// the one schedule of a reaper without shards.
func shardOf(event json.RawMessage) reaper.Shard {
	var s reaper.Shard
	if json.Unmarshal(event, &s) != nil {
		return reaper.Shard{}
	}
	return s
}

// run makes one run, and logs its outcome as one line; each decision has had
// one of its own. A failure is the invocation's too, so that Lambda counts it: to
// make the run again is safe, and what failed is due in the next one anyway.
func run(ctx context.Context, r interface {
	RunShard(ctx context.Context, s reaper.Shard) (reaper.Report, error)
}, event json.RawMessage, log *slog.Logger) (reaper.Report, error) {
	shard := shardOf(event)
	report, err := r.RunShard(ctx, shard)
	attrs := []any{
		"requests", report.Requests, "runners", report.Runners, "sweeps", report.Sweeps,
		"took_ms", report.EndedAt.Sub(report.StartedAt).Milliseconds(), "late", report.Late, "counts", report.Counts,
	}
	if shard.Of > 1 {
		attrs = append(attrs, "shard", shard.Index, "of", shard.Of)
	}
	if report.Late {
		attrs = append(attrs, "left", report.Left)
	}
	switch {
	case err != nil:
		first, _, _ := strings.Cut(err.Error(), "\n") // hundreds can fail alike
		store.AlarmReaper.Raise(ctx, log, "reaper run failed", append(attrs, "error", first)...)
		return report, fmt.Errorf("reaper run: %d failures; the first: %s", max(1, report.Counts[reaper.Fail]), first)
	case report.Late:
		store.AlarmLate.Raise(ctx, log, "reaper run ended before it was done", attrs...)
	default:
		log.InfoContext(ctx, "reaper run", attrs...)
	}
	return report, nil
}
