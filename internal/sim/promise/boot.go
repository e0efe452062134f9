package promise

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about what machines say, and what they are answered.
const (
	OneNonce  Promise = "only who called boot first is answered"
	OnMachine Promise = "a boot is answered on the launched machine, or to who copied AWS's word for it"
	BoundBoot Promise = "the machine that is bound needs AWS's word no more"
	RealThief Promise = "only a machine whose boot token another used is compromised"
	TakenOnce Promise = "what a machine says is taken once"
	OwnPulse  Promise = "only the runner that the lock names has a pulse"
	NextOrder Promise = "a further config is for a runner that is counted on"
	BootOrder Promise = "a config is answered to the launched machine alone, in time"
)

// heard is what is known of the calls of machines and callers.
type heard struct {
	booters map[string]map[string]bool // who called boot with AWS's word, by runner: an instance, or a thief
	bound   map[string]time.Time       // when a nonce was bound to a runner
	forced  map[string]bool            // the requests that were stopped by force
	unnamed map[string]time.Time       // when a lock ceased to name a runner
}

func newHeard() heard {
	return heard{booters: map[string]map[string]bool{}, bound: map[string]time.Time{}, forced: map[string]bool{}, unnamed: map[string]time.Time{}}
}

// bootPromises are about what machines say, and what they are answered.
type bootPromises struct{ *History }

// Asks looks at a call of the API before it is answered.
func (p bootPromises) Asks(req *http.Request, what, on string, body []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch what {
	case "POST stop":
		if req.URL.Query().Get("force") == "true" {
			p.heard.forced[on] = true
		}
	case "boot":
		var b apitype.Boot
		if json.Unmarshal(body, &b) != nil {
			return
		}
		who := b.InstanceID
		if word, ok := setting.WordOf(b.Nonce); ok && word != setting.CopiedWord {
			return
		} else if ok {
			who = setting.Thief + b.InstanceID
		}
		if p.heard.booters[on] == nil {
			p.heard.booters[on] = map[string]bool{}
		}
		p.heard.booters[on][who] = true
	}
}

// Tells looks at an answer of the API to a call that came at a time. One with a config
// is only for who called first, who is bound by then.
func (p bootPromises) Tells(asked time.Time, what, on string, body []byte, status int) {
	if what != "boot" || !slices.Contains([]int{http.StatusOK, http.StatusTooEarly, http.StatusUnauthorized}, status) {
		return
	}
	var b apitype.Boot
	if json.Unmarshal(body, &b) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.runners[on]
	if r.Version == 0 {
		return // its record was lost meanwhile
	}
	bound := r.Boot.NonceHash == keys.HashNonce(b.Nonce) && r.Boot.InstanceID == b.InstanceID
	if status == http.StatusUnauthorized {
		_, lost := p.keyLost[r.Launch.KeyID] // its token opens nothing any more
		p.hold(BoundBoot, !bound || lost || !p.heard.bound[on].Before(asked), "a boot call for runner %s from %s, which was bound to it at %s, is refused", on, b.InstanceID, p.heard.bound[on])
		return
	}
	word, thief := setting.WordOf(b.Nonce)
	early := word == setting.SiblingsWord && b.InstanceID == setting.Sibling && status == http.StatusTooEarly // nobody knows yet that another was launched
	p.hold(OnMachine, !thief || word == setting.CopiedWord || early, "a thief of runner %s who says that he is %s, with the word %q of AWS, is answered with %d", on, b.InstanceID, word, status)
	p.hold(OneNonce, bound || status == http.StatusTooEarly, "a boot call for runner %s from %s is answered with %d, and %q is bound to it", on, b.InstanceID, status, r.Boot.InstanceID)
	p.hold(BootOrder, status != http.StatusOK || !r.Boot.At.IsZero(), "a config of runner %s is answered, and not recorded as that", on)
}

// sawBoot looks at what a commit writes of what a machine said: was is the runner
// as it was, and l its lock. All times are those of the API's clock, or are read
// with the versions that the commit demands.
func (p bootPromises) sawBoot(e *kernel.Effect, was, r store.Runner, l store.Lock) {
	if e.Part == kernel.API && strings.HasPrefix(e.For, "event ") {
		alarm := !r.FloodAt.Equal(was.FloodAt) // which takes nothing of what was said
		p.hold(TakenOnce, r.Counter > was.Counter || alarm, "runner %s heard %q twice, with counter %d", r.ID, e.For, r.Counter)
	}
	p.hold(TakenOnce, r.Jobs == was.Jobs || r.Jobs == was.Jobs+1 && r.Counter > was.Counter, "runner %s did %d jobs, and then %d", r.ID, was.Jobs, r.Jobs)
	p.sawBound(was, r)
	if begins(was.Boot.At, r.Boot.At) {
		p.hold(BootOrder, was.State.Usable(), "runner %s boots, and is %s", r.ID, was.State)
		p.hold(BootOrder, l.Names(r.ID) && l.State == store.LockLaunching && r.Boot.At.Before(l.BootBy),
			"runner %s boots at %s; its lock is %s, names %s, and it was to boot by %s", r.ID, r.Boot.At, l.State, l.Runner, l.BootBy)
	}
	if was.Version != 0 && r.Wanted > was.Wanted {
		p.hold(NextOrder, was.State == store.RunnerOnline && l.Names(r.ID) && l.State == store.LockLive && r.UpdatedAt.Before(r.Hard),
			"runner %s, %s, is to get config %d at %s; its lock is %s, names %s, and it ends at %s", r.ID, was.State, r.Wanted, r.UpdatedAt, l.State, l.Runner, r.Hard)
	}
	if ended(r) == store.EndCompromised && ended(was) != store.EndCompromised {
		p.sawCompromised(r)
	}
}

// sawBound looks at a runner to which a nonce is bound.
func (p bootPromises) sawBound(was, r store.Runner) {
	if was.Boot.NonceHash != "" || r.Boot.NonceHash == "" {
		return
	}
	p.heard.bound[r.ID] = time.Now()
	p.hold(OnMachine, r.Boot.InstanceID == r.InstanceID, "runner %s is bound to %s, and %q was launched", r.ID, r.Boot.InstanceID, r.InstanceID)
}

// sawCompromised looks at a runner whose boot token was used by another.
func (p bootPromises) sawCompromised(r store.Runner) {
	who := p.heard.booters[r.ID]
	p.hold(RealThief, who[r.InstanceID] && who[setting.Thief+r.InstanceID], "runner %s is compromised, and nobody but %v used its boot token", r.ID, who)
}

// ended returns the code of why a runner ends; empty: it does not.
func ended(r store.Runner) string {
	if r.End == nil {
		return ""
	}
	return r.End.Code
}

// sawBooted looks at a runner whose machine was answered for the first time. The
// history has all of the commit that comes before it.
func (p bootPromises) sawBooted(was, r store.Runner) {
	if was.Version == 0 || !begins(was.Boot.At, r.Boot.At) {
		return
	}
	now, l := time.Now(), p.locks[r.Lock]
	p.hold(BootOrder, r.Config.N > 0 && r.InstanceID != "" && r.Boot.InstanceID == r.InstanceID && r.Boot.NonceHash != "",
		"runner %s booted with config %d on %q, and its instance is %q", r.ID, r.Config.N, r.Boot.InstanceID, r.InstanceID)
	// The commit may stand still after the API looked at its clock.
	p.hold(BootOrder, l.Names(r.ID) && !now.After(l.BootBy.Add(slack+p.slow[r.ID])), "runner %s booted at %s, and its lock names %s, to boot by %s", r.ID, now, l.Runner, l.BootBy)
}

// sawPulses looks at the signs of life that a commit wrote: the lock of their key
// names that runner, by the same commit, or did when it was read.
func (p bootPromises) sawPulses(c commit) {
	for _, i := range c.items {
		pulse, ok := i.(*store.Pulse)
		named := ok && slices.ContainsFunc(c.items, func(i store.Item) bool {
			l, ok := i.(*store.Lock)
			return ok && l.Key == pulse.Key && l.Names(pulse.Runner)
		})
		if !ok || named {
			continue
		}
		until, ended := p.heard.unnamed[pulse.Runner]
		right := p.locks[pulse.Key].Names(pulse.Runner) || p.wiped() || ended && pulse.Seen.Before(until.Add(slack))
		p.hold(OwnPulse, right, "the pulse of %s is that of runner %s at %s, which the lock named until %s", pulse.Key, pulse.Runner, pulse.Seen, until)
	}
}
