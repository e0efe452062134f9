package sim

import (
	"bytes"
	"context"
	"log/slog"
	"sync"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// journal is what the parts log.
type journal struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	alarms []store.Alarm
}

// text returns what was logged so far.
func (j *journal) text() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return bytes.Clone(j.buf.Bytes())
}

// Write implements io.Writer.
func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

// logger returns the logger of a part. What the dead log is lost.
func (j *journal) logger(by string, dead func() bool) *slog.Logger {
	text := slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug})
	return slog.New(logHandler{text, j, dead}).With("by", by)
}

// immortal is for the logger of a part that is no invocation.
func immortal() bool { return false }

// logHandler keeps the log, and counts the alarms in it.
type logHandler struct {
	slog.Handler
	journal *journal
	dead    func() bool
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

func (h logHandler) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}

// heard is a handler for what outlives the invocations that call it: it logs for the dead too.
type heard struct{ slog.Handler }

func (h heard) WithAttrs(attrs []slog.Attr) slog.Handler { return heard{h.Handler.WithAttrs(attrs)} }

func (h heard) Handle(_ context.Context, r slog.Record) error {
	return h.Handler.Handle(context.Background(), r)
}

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.dead() || kernel.InvocationOf(ctx).Dead() {
		return nil
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "alarm" {
			h.journal.mu.Lock()
			h.journal.alarms = append(h.journal.alarms, store.Alarm(a.Value.String()))
			h.journal.mu.Unlock()
		}
		return true
	})
	return h.Handler.Handle(ctx, r)
}
