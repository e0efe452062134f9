package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// entry is a line of the story.
type entry struct {
	at   time.Time
	text string
}

// say tells what the story itself has just done.
func (d *Demo) say(format string, args ...any) { d.sayAt(time.Now(), format, args...) }

// sayAt tells what the story began at that time.
func (d *Demo) sayAt(at time.Time, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said = append(d.said, entry{at, fmt.Sprintf(format, args...)})
}

const (
	// look is how often the narrator looks for news.
	look = 100 * time.Millisecond
	// hold is how old news are before they are printed, so that most lines stand in the
	// order in which things happened: a step is recorded a moment after the time that
	// it carries. On a busy machine the moment may be longer.
	hold = 300 * time.Millisecond
)

// narrate prints what the story does, and every step of requests and runners that
// is recorded, until ctx ends.
func (d *Demo) narrate(ctx context.Context) {
	seen := map[string]int{}
	var t teller
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-time.After(look):
		}
		news, before := d.news(context.WithoutCancel(ctx), seen), time.Now().Add(-hold)
		if ended {
			before = time.Now()
		}
		for _, e := range t.tell(news, before) {
			fmt.Fprintln(d.out, folded(fmt.Sprintf("%6.1fs  %s", e.at.Sub(d.began).Seconds(), e.text), 12))
		}
	}
}

// columns is how wide a line may be: what most terminals show without folding it.
const columns = 100

// folded breaks a line at spaces where it is wider than that. What follows is indented.
func folded(line string, indent int) string {
	line = strings.TrimRight(line, " ")
	if len(line) <= columns {
		return line
	}
	at := strings.LastIndexByte(line[:columns+1], ' ')
	if at <= indent {
		return line // one long word
	}
	return strings.TrimRight(line[:at], " ") + "\n" + folded(strings.Repeat(" ", indent)+strings.TrimLeft(line[at:], " "), indent)
}

// teller puts news in order.
type teller struct {
	pending []entry   // not printed yet
	last    time.Time // of the newest line that was printed
}

// tell returns the lines that are old enough to print, and keeps the others.
// No line has an earlier time than the one before it: one that became known too
// late for that gets the time of the line before. (The record has its own.)
func (t *teller) tell(news []entry, before time.Time) (lines []entry) {
	t.pending = append(t.pending, news...)
	slices.SortStableFunc(t.pending, func(a, b entry) int { return a.at.Compare(b.at) })
	for len(t.pending) > 0 && !t.pending[0].at.After(before) {
		e := t.pending[0]
		t.pending = t.pending[1:]
		if e.at.Before(t.last) {
			e.at = t.last
		}
		t.last = e.at
		lines = append(lines, e)
	}
	return lines
}

// news returns what was said, and what was added to the histories, since the last
// call. seen has how much of each history was printed. It says nothing of a request,
// its runners or a planted machine before the story has said that it made them.
func (d *Demo) news(ctx context.Context, seen map[string]int) []entry {
	d.mu.Lock()
	news, scenes, planted := d.said, slices.Clone(d.scenes), slices.Clone(d.planted)
	d.said = nil
	d.mu.Unlock()
	add := func(ref store.Ref, name string, h store.History) {
		for _, e := range h[min(seen[ref.String()], len(h)):] {
			news = append(news, entry{e.At, fmt.Sprintf("  %-15s  %-9s  %s", name, e.State, e.Reason)})
		}
		seen[ref.String()] = len(h)
	}
	for _, s := range scenes {
		if r, err := store.Read[store.Request](ctx, d.system.Store, s.id); err == nil {
			add(r.Ref(), "request "+s.name, r.History)
		}
	}
	for i, err := range d.system.Store.List(ctx, store.Filter{Kind: store.KindRunner}) {
		if err != nil {
			break // the next look finds the rest
		}
		r := i.(*store.Runner)
		if !slices.ContainsFunc(scenes, func(s *scene) bool { return s.id == r.Request }) {
			continue
		}
		add(r.Ref(), "runner "+short(r.ID), r.History)
	}
	for _, f := range d.system.Fleet.Instances() {
		if slices.Contains(planted, f.ID) && !f.EndedAt.IsZero() && seen[f.ID] == 0 {
			seen[f.ID] = 1
			news = append(news, entry{f.EndedAt, "  " + f.ID + " is terminated: no record names it"})
		}
	}
	return news
}

// short is enough of an id to tell a few apart.
func short(id string) string { return strings.ToLower(id[:min(6, len(id))]) }
