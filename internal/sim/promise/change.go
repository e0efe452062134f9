package promise

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// wrote notes that an item was written, and returns by how much it changed. The caller
// holds the mutex.
func (h *History) wrote(i store.Item) (change string) {
	ref, due := i.Ref(), i.Base().DueAt
	h.versions[ref] = i.Base().Version
	if at, ok := h.crashes[ref.ID]; ok && ref.Kind != store.KindPulse {
		h.recovered = append(h.recovered, time.Since(at))
		delete(h.crashes, ref.ID)
	}
	if !h.placed[ref].due.Equal(due) {
		h.placed[ref] = place{time.Now(), due}
	}
	if b, err := store.Encode(i); err == nil {
		h.texts = append(h.texts, text{"the record " + ref.String(), b})
	}
	return h.change(i)
}

// change tells by how much an item differs from what was seen of it last: its
// state, in a few words, and nothing when that is as it was.
func (h *History) change(i store.Item) string {
	var was, is string
	switch i := i.(type) {
	case *store.Request:
		was, is = stateOf(h.requests[i.ID]), stateOf(*i)
	case *store.Runner:
		was, is = standOf(h.runners[i.ID]), standOf(*i)
	case *store.Lock:
		was, is = lockOf(h.locks[i.Key]), lockOf(*i)
	}
	if was == is {
		return ""
	}
	return fmt.Sprintf("%s %.8s: %s -> %s", i.Ref().Kind, shortOf(i), cmp.Or(was, "none"), is)
}

// shortOf returns the part of an id that tells an item from others.
func shortOf(i store.Item) string {
	id := i.Ref().ID
	return id[strings.LastIndexByte(id, '/')+1:]
}

func stateOf(r store.Request) string {
	if r.Version == 0 {
		return ""
	}
	return strings.TrimSpace(string(r.State) + " " + r.Wait)
}

func standOf(r store.Runner) string {
	if r.Version == 0 {
		return ""
	}
	s := string(r.State)
	if r.Index > 0 {
		s += fmt.Sprintf(" at %d", r.Index)
	}
	if r.Config.N > 0 {
		s += fmt.Sprintf(" with config %d", r.Config.N)
	}
	if r.End != nil {
		s += " for " + r.End.Code
	}
	return s
}

func lockOf(l store.Lock) string {
	if l.Version == 0 {
		return ""
	}
	return fmt.Sprintf("%s %.8s", l.State, l.Runner)
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}
