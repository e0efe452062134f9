package promise

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// wrote notes that an item was written, and returns what it changed, in words; empty: nothing. The caller
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
	was, is := "", stateOf(i)
	switch i := i.(type) {
	case *store.Request:
		r := h.requests[i.ID]
		was = stateOf(&r)
	case *store.Runner:
		r := h.runners[i.ID]
		was = stateOf(&r)
	case *store.Lock:
		l := h.locks[i.Key]
		was = stateOf(&l)
	}
	if was == is {
		return ""
	}
	id := i.Ref().ID
	short := id[strings.LastIndexByte(id, '/')+1:] // what tells it from others
	return fmt.Sprintf("%s %.8s: %s -> %s", i.Ref().Kind, short, cmp.Or(was, "none"), is)
}

// stateOf tells the state of an item in a few words; empty: it is none, or has none.
func stateOf(i store.Item) (s string) {
	if i.Base().Version == 0 {
		return ""
	}
	switch i := i.(type) {
	case *store.Request:
		return strings.TrimSpace(string(i.State) + " " + i.Wait)
	case *store.Lock:
		return fmt.Sprintf("%s %.8s", i.State, i.Runner)
	case *store.Runner:
		s = string(i.State)
		if i.Index > 0 {
			s += fmt.Sprintf(" at %d", i.Index)
		}
		if i.Config.N > 0 {
			s += fmt.Sprintf(" with config %d", i.Config.N)
		}
		if i.End != nil {
			s += " for " + i.End.Code
		}
	}
	return s
}
