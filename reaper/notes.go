package reaper

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// note reports one decision on an item, and logs it.
func (p *pass) note(it store.Item, act Action, reason string) {
	l := Line{Kind: string(it.Ref().Kind), ID: it.Ref().ID, Action: act, Reason: reason}
	switch it := it.(type) {
	case *store.Request:
		p.line(l, "runner", it.Runner, "trace", it.Trace)
	case *store.Runner:
		p.line(l, "request", it.Request, "trace", it.Trace)
	default:
		p.line(l)
	}
}

// line adds a line to the report, and logs it with further attributes.
func (p *pass) line(l Line, attrs ...any) {
	p.report.Lines = append(p.report.Lines, l)
	p.report.Counts[l.Action]++
	attrs = append([]any{l.Kind, l.ID, "action", string(l.Action), "reason", l.Reason}, attrs...)
	if p.cfg.DryRun {
		attrs = append(attrs, "dry_run", true)
	}
	level := slog.LevelInfo
	if l.Action == Fail {
		level = slog.LevelWarn
	}
	p.cfg.Log.Log(context.Background(), level, "reaper", attrs...)
}

// fail reports an error, logs it, and leaves the rest of the run alone. The run fails
// with it, and people hear of it when run after run fails: what passes on its own needs
// no alarm of its own.
func (p *pass) fail(kind, id string, err error) {
	p.errs = append(p.errs, err)
	p.line(Line{Kind: kind, ID: id, Action: Fail, Reason: err.Error()})
}

// alarm raises code for the thing that key names, once in a run: for what stays
// wrong until a person acts.
func (p *pass) alarm(code store.Alarm, key, msg string, attrs ...any) {
	p.lock.Lock()
	raised := p.alarmed[string(code)+" "+key]
	p.alarmed[string(code)+" "+key] = true
	if now := p.cfg.Now().UTC(); !raised {
		p.raised = append(p.raised, store.Raised{Code: code, Count: 1, Since: now, At: now, Text: msg})
	}
	p.lock.Unlock()
	if raised {
		return
	}
	code.Raise(context.Background(), p.cfg.Log, msg, attrs...)
}

// guard calls f. A record that makes it panic is reported, and spoils no other.
func (p *pass) guard(kind, id string, f func()) {
	defer func() {
		if thrown := recover(); thrown != nil {
			p.panicked(kind, id, thrown, debug.Stack())
		}
	}()
	f()
}

func (p *pass) panicked(kind, id string, thrown any, stack []byte) {
	p.fail(kind, id, fmt.Errorf("%s %s: panic: %v", kind, id, thrown))
	p.alarm(store.AlarmPanic, kind+" "+id, "the reaper panicked", kind, id, "panic", fmt.Sprint(thrown), "stack", string(stack))
}
