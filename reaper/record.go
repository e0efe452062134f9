package reaper

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// record keeps what the run was and saw, for people. It comes last, in the time that is left
// for recording, and a run that cannot be recorded is as good as one that is.
func (r *Reaper) record(ctx context.Context, p *pass) {
	if r.cfg.DryRun {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, recording)
	defer cancel()
	last, err := store.Read[store.ReaperRun](ctx, p.store, strconv.Itoa(p.shard.Index))
	if err == nil {
		if d := r.runOf(p).Record(r.cfg.Limits, last); len(d.Changes) > 0 {
			err = p.store.Commit(ctx, d.Changes...)
		}
	}
	if err != nil {
		r.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the run of the reaper is not recorded; the page shows an earlier one", slog.Any("error", err))
	}
}

// runOf returns what is recorded of a run.
func (r *Reaper) runOf(p *pass) store.ReaperRun {
	var looked time.Time // at no sweep
	if p.report.Places > 0 {
		looked = p.report.StartedAt
	}
	var hour *int
	if r.cfg.GitHubLeft != nil {
		if left, known := r.cfg.GitHubLeft(); known {
			hour = new(int(100 * left))
		}
	}
	return store.ReaperRun{
		ID: strconv.Itoa(p.shard.Index), Of: p.shard.Of, StartedAt: p.report.StartedAt, EndedAt: p.report.EndedAt,
		Left: p.report.Left, Failures: p.report.Counts[Fail], OldestMS: p.report.OldestMS, GitHubLeft: hour,
		LookedAt: looked, Braked: p.report.Braked, Program: p.report.Program, ProgramEndsAt: p.report.ProgramEndsAt, Alarms: p.raised,
	}
}
