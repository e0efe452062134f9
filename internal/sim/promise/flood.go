package promise

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about those who ask for more than they need.
const (
	Unheard  Promise = "past its hard limit nothing that a machine says is written"
	Quieted  Promise = "past its exp no note of a machine is written"
	FewNotes Promise = "few notes of a machine are written, however many it sends"
	Budgeted Promise = "a machine has few events written, however many it sends"
	JobOnce  Promise = "a machine has one job for each config"
	OneFlood Promise = "a flood is one alarm"
	Crowd    Promise = "a repository has few more open requests than its account allows"
	Turned   Promise = "a repository whose jobs found no room is listed before it is forgotten"
)

// floods is what a world knows of those.
type floods struct {
	writes, notes map[string][]time.Time // of what machines said, by runner, of late
	// When jobs of repositories found no room, by what was recorded of which no sweep knows
	// yet, and as sweeps know; and when the runs of a repository were last listed.
	unread       map[string]map[string]time.Time
	full, listed map[string]time.Time
	found        map[string]bool // the requests that workers filed, of jobs of which nobody told
}

func newFloods() floods {
	return floods{writes: map[string][]time.Time{}, notes: map[string][]time.Time{}, unread: map[string]map[string]time.Time{}, full: map[string]time.Time{}, listed: map[string]time.Time{}, found: map[string]bool{}}
}

// floodPromises are about those who ask for more than they need.
type floodPromises struct{ *History }

// sawSaid looks at what a commit is about to write of what a machine says.
func (p floodPromises) sawSaid(c commit) {
	said, event := strings.CutPrefix(c.effect.For, "event ")
	if c.effect.Part != kernel.API || !event && said != "next" {
		return
	}
	decided := p.now(kernel.API).Add(-c.before)
	for _, i := range c.items {
		switch i := i.(type) {
		case *store.Pulse:
			r := p.runners[i.Runner]
			p.hold(Unheard, r.Version == 0 || decided.Before(r.Hard), "the pulse of runner %s is written, and its hard limit was %s", r.ID, r.Hard)
		case *store.Runner:
			was := p.runners[i.ID]
			if was.Version == 0 {
				continue
			}
			p.hold(Unheard, decided.Before(i.Hard), "runner %s is written for %s, and its hard limit was %s", i.ID, said, i.Hard)
			p.hold(OneFlood, was.FloodAt.IsZero() || was.FloodAt.Equal(i.FloodAt), "runner %s floods for the second time", i.ID)
			p.hold(JobOnce, i.Jobs <= i.Config.N, "runner %s had %d jobs by %d configs", i.ID, i.Jobs, i.Config.N)
			p.sawRate(decided, said, was, *i)
		}
	}
}

// sawRate looks at how often a runner is written for what its machine says. The bounds
// are those of a bucket that fills in twelve heartbeats: notes may use half of it, and
// cost one and a half; anything else costs a twentieth.
func (p floodPromises) sawRate(decided time.Time, said string, was, r store.Runner) {
	if !was.FloodAt.Equal(r.FloodAt) {
		return // the alarm's
	}
	beat, now := p.Limits.Heartbeat, time.Now()
	writes := within(p.floods.writes[r.ID], now, 3*beat)
	p.floods.writes[r.ID] = writes
	p.hold(Budgeted, len(writes) <= (12+3)*20+2, "runner %s was written %d times in a minute for what its machine said", r.ID, len(writes))
	if said != store.EventNote && said != store.EventBooting {
		return
	}
	notes := within(p.floods.notes[r.ID], now, 6*beat)
	p.floods.notes[r.ID] = notes
	p.hold(FewNotes, len(notes) <= 4+4+1, "runner %s has %d notes of the last two minutes", r.ID, len(notes))
	l := p.locks[r.Lock]
	p.hold(Quieted, !l.Names(r.ID) || decided.Before(l.Exp), "runner %s has another note, and nobody counts on it since %s", r.ID, l.Exp)
}

// within returns the times of late, and now.
func within(all []time.Time, now time.Time, late time.Duration) (out []time.Time) {
	for _, at := range all {
		if now.Sub(at) < late {
			out = append(out, at)
		}
	}
	return append(out, now)
}

// Listed notes that GitHub listed the runs of a repository, or said that it does not.
func (p floodPromises) Listed(repository string, began time.Time) {
	p.note(func() { p.floods.listed[repository] = began })
}

// sawOverflow looks at what becomes of the repositories whose jobs found no room. What is
// recorded later than a call may take is too late to be read.
func (p floodPromises) sawOverflow(c commit) {
	for _, i := range c.items {
		switch i := i.(type) {
		case *store.Overflow:
			_, ends := minute(i.Key)
			for _, id := range i.Repositories {
				if known := p.floods.unread[i.Key]; known[id].IsZero() && time.Now().Before(ends.Add(50*time.Second)) {
					if known == nil {
						p.floods.unread[i.Key] = map[string]time.Time{}
					}
					p.floods.unread[i.Key][id] = time.Now()
				}
			}
		case *store.Sweep:
			if !i.Overflows.ReadTo.IsZero() {
				p.sawListed(*i)
			}
		}
	}
}

// minute is what the key of an overflow says: whose it is, and when it ends.
func minute(key string) (account string, ends time.Time) {
	account, n, _ := strings.Cut(key, "/")
	m, _ := strconv.ParseInt(n, 10, 64)
	return account, time.Unix((m+1)*60, 0)
}

// sawListed looks at which repositories a sweep does not know as waiting any more.
func (p floodPromises) sawListed(s store.Sweep) {
	for key, repos := range p.floods.unread {
		account, ends := minute(key)
		if !strings.HasPrefix(s.Key, account+"/") || ends.After(s.Overflows.ReadTo) {
			continue
		}
		for id, at := range repos {
			if at.After(p.floods.full[id]) {
				p.floods.full[id] = at
			}
		}
		delete(p.floods.unread, key)
	}
	for id, at := range p.floods.full {
		if !slices.Contains(s.Overflows.Waiting, id) {
			p.hold(Turned, p.floods.listed[id].After(at), "a job in repository %s found no room at %s, and sweep %s knows nothing of it, and last listed it at %s", id, at, s.Key, p.floods.listed[id])
			delete(p.floods.full, id)
		}
	}
}

// sawCrowd looks at how many requests are open once the API filed another one. Each API
// that was deployed counts for itself, and so does each worker that files a job whose
// webhook was lost. Of these there is another one after each death, so that what they file
// comes on top.
func (p floodPromises) sawCrowd(c commit, was, r store.Request) {
	most := p.Account.MaxOpenRequests
	if was.Version != 0 || most == 0 {
		return
	}
	if c.effect.Part != kernel.API {
		p.floods.found[r.ID] = true
		return
	}
	const deployed = 4 // APIs at most: one, and those of deploys and rotations of keys
	open := len(p.requests)
	if open > most+deployed { // else it does not matter which of them are over
		for _, q := range p.requests {
			if q.State.Final() || p.floods.found[q.ID] {
				open--
			}
		}
	}
	p.hold(Crowd, open <= most+deployed, "%d requests are open once %s was filed, and the account allows %d", open, r.ID, most)
}
