package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// logHandler returns how a local system logs to w: one short line each for people at a
// terminal, and JSON for everything else.
func logHandler(w io.Writer) slog.Handler {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &peopleLog{w: w, width: func() int { return widthOf(w) }, paint: paintFor(w), mu: new(sync.Mutex)}
	}
	return slog.NewJSONHandler(w, nil)
}

// peopleLog writes a line for each entry: when, what, and about what. It leaves out what
// serves to join entries, and cuts what is longer than the terminal is wide.
type peopleLog struct {
	w     io.Writer
	width func() int
	paint paint
	mu    *sync.Mutex // of w
	attrs []slog.Attr
}

// unshown are the attributes that only programs compare.
var unshown = []string{"trace", "token_sha256", "stack"}

// Enabled implements slog.Handler.
func (h *peopleLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle implements slog.Handler.
func (h *peopleLog) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Time.Local().Format(time.TimeOnly) + " ")
	if r.Level != slog.LevelInfo {
		b.WriteString(r.Level.String() + " ")
	}
	b.WriteString(r.Message)
	add := func(a slog.Attr) bool {
		if !slices.Contains(unshown, a.Key) && a.Value.String() != "" {
			fmt.Fprintf(&b, " %s=%s", a.Key, strings.Join(strings.Fields(a.Value.String()), " "))
		}
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	line := b.String()
	if width := h.width(); width > 0 {
		line = cut(line, width)
	}
	switch {
	case r.Level >= slog.LevelError:
		line = h.paint.colour(31, line)
	case r.Level >= slog.LevelWarn:
		line = h.paint.colour(33, line)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, line+"\n")
	return err
}

// WithAttrs implements slog.Handler.
func (h *peopleLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	other := *h
	other.attrs = append(slices.Clip(h.attrs), attrs...)
	return &other
}

// WithGroup implements slog.Handler. Nothing here groups.
func (h *peopleLog) WithGroup(string) slog.Handler { return h }
