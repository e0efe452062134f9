package promise

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Commits returns how many commits there were, and how many lost to another one.
func (h *History) Commits() (done, conflicts int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.commits, h.conflicts
}

// Slots returns the slots that were reserved for calls of RunInstances, in order.
func (h *History) Slots() []time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedFunc(slices.Values(h.slots[setting.AccountID+"/"+setting.Region]), time.Time.Compare)
}

// All returns all requests as they were last committed, oldest first.
func (h *History) All() []store.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedFunc(maps.Values(h.requests), func(a, b store.Request) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
}

// States returns how many requests are in each state.
func (h *History) States() map[store.RequestState]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := map[store.RequestState]int{}
	for id := range h.requests {
		n[h.requests[id].State]++
	}
	return n
}

// Booted returns the runners that booted and are not over, by id.
func (h *History) Booted() (all []store.Runner) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.runners {
		if !r.Boot.At.IsZero() && r.State != store.RunnerEnded {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b store.Runner) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Online returns how long each ready request took until its runner was online, the
// shortest first.
func (h *History) Online() (all []time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.requests {
		if at := h.runners[r.Runner].OnlineAt; r.State == store.Ready && !at.IsZero() {
			all = append(all, max(0, at.Sub(r.CreatedAt)))
		}
	}
	slices.Sort(all)
	return all
}

// Recovered returns how long after each kill it took until a record was written
// again that the killed invocation was about.
func (h *History) Recovered() []time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.recovered)
}

// Looked returns how often each promise was put to the test.
func (h *History) Looked() map[Promise]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.looked)
}

// Lives returns how long the runner may still live that can be shared; of several
// the one that ends last.
func (h *History) Lives() (left time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.locks {
		if l.State == store.LockLive {
			left = max(left, time.Until(l.Hard))
		}
	}
	return left
}

// Remains returns for how long a request may count on its runner.
func (h *History) Remains(request string) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.requests[request]
	return max(time.Second, time.Until(h.locks[r.LockKey()].Exp))
}

// NearlyUp reports whether a runner may be counted on for a moment only, or should
// have booted by now.
func (h *History) NearlyUp() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.locks {
		left := time.Until(l.Exp)
		if l.State == store.LockLive && left > 0 && left < h.Limits.ShareMargin-5*time.Second {
			return true
		}
		if l.State == store.LockLaunching && time.Until(l.BootBy) < 0 {
			return true
		}
	}
	return false
}
