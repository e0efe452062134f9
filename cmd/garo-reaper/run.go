package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// run makes one run, and logs what came of it as one line; each decision has had
// one of its own. A failure is the invocation's too, so that Lambda counts it: to
// make the run again is safe, and what failed is due in the next one anyway.
func run(ctx context.Context, r interface {
	Run(ctx context.Context) (reaper.Report, error)
}, log *slog.Logger) error {
	report, err := r.Run(ctx)
	attrs := []any{
		"requests", report.Requests, "runners", report.Runners, "sweeps", report.Sweeps,
		"took_ms", report.EndedAt.Sub(report.StartedAt).Milliseconds(), "late", report.Late, "counts", report.Counts,
	}
	switch {
	case err != nil:
		first, _, _ := strings.Cut(err.Error(), "\n") // hundreds can fail alike
		store.AlarmReaper.Raise(ctx, log, "reaper run failed", append(attrs, "error", first)...)
		return fmt.Errorf("reaper run: %d failures; the first: %s", max(1, report.Counts[reaper.Fail]), first)
	case report.Late:
		log.WarnContext(ctx, "reaper run ended before it was done", attrs...)
	default:
		log.InfoContext(ctx, "reaper run", attrs...)
	}
	return nil
}
