package plan

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/promise"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Outcome is what became of the world of a seed.
type Outcome struct {
	Seed    uint64
	Broken  []string // what did not hold
	Met     []string // the requests and faults that there were, for Play to leave out
	Faults  map[Kind]int
	Effects int
	Virtual time.Duration // that passed in the world
	Story   []string      // its effects, one a line
	Hash    [32]byte      // of the story

	Online    []time.Duration         // from accepted to online, one for each request
	Recovered []time.Duration         // from a crash to the next commit of what it was about
	Quiet     time.Duration           // from the heal until nothing was left
	Orphan    time.Duration           // the longest life of a machine that no record counted on
	Duplicate time.Duration           // the longest time in which a runner had two machines
	Looked    map[promise.Promise]int // how often each promise was put to the test
}

// Play tells the story of a seed. With only, it has no other requests and faults
// than those, in the words of Outcome.Met. The test does not fail by what is
// broken; it is the bubble's.
func Play(t *testing.T, seed uint64, only []string, tells bool) Outcome {
	p := newPlan(seed, only)
	out := Outcome{Seed: seed, Faults: p.counts}
	var mu sync.Mutex
	cfg := p.config()
	cfg.Found = func(what string) {
		mu.Lock()
		defer mu.Unlock()
		out.Broken = append(out.Broken, what)
	}
	sim.Run(t, cfg, func(w *sim.World) {
		began := time.Now()
		defer func() {
			out.Virtual = time.Since(began)
			out.finish(w, tells)
		}()
		s := &story{plan: p, w: w}
		s.tell()
		out.Quiet = w.Quiet(p.quietWithin(w))
		w.Check()
		w.Healed(p.heals(), int(s.asked.Load()), w.PlainJobs(), w.Alarms())
	})
	out.Met = p.met
	return out
}

// finish takes over what a world knows of itself.
func (o *Outcome) finish(w *sim.World, tells bool) {
	o.Orphan, o.Duplicate = w.Ages()
	o.Looked, o.Online, o.Recovered = w.Looked(), w.Online(), w.Recovered()
	trace := w.Trace()
	o.Effects = len(trace)
	if !tells {
		return
	}
	h := sha256.New()
	for _, e := range trace {
		line := e.String()
		o.Story = append(o.Story, line)
		fmt.Fprintln(h, line)
	}
	h.Sum(o.Hash[:0])
}

// most is how many effects a world may have: some fifty times as many as usual.
const most = 20_000

// config returns the world that the seed decides on.
func (p *plan) config() sim.Config {
	heals := p.heals()
	return sim.Config{
		Seed: p.seed, Most: most, Fate: p.fates(), Span: p.span,
		KillLate: p.killLate(), Skew: p.skew(), Rounds: p.rounds(), Deliver: p.deliveries(), Warm: true,
		Shards: p.shards(), Prices: p.chance(600, "prices") || p.chance(250, "daily budget"),
		Two: p.two(), Plain: p.plain(), Webhook: p.webhooks(), Logged: p.logged(), Nameless: p.namelessly(), ReadLag: p.readLag(),
		GitHub: p.github(), Refuses: p.refuses(),
		EC2: p.ec2(), Metadata: p.metadata(), SetUp: p.setUp(), PlainAgent: p.plainAgents(),
		World:  func(c *simfleet.WorldConfig) { c.Dies = p.dies() },
		Ghosts: p.chance(60, "ghosts") && p.happens(ghosts, ""),
		NeverBoots: func(n int) bool {
			rate := uint64(25)
			if (p.theme() == oneKey || p.theme() == starved) && p.chance(300, "hardly any boots") {
				rate = 600
			}
			return p.sleeper.Load() || time.Now().Before(heals) && p.chance(rate, "never boots", strconv.Itoa(n)) && p.happens(neverBoots, strconv.Itoa(n))
		},
		Limits: func(l *store.Limits) {
			l.Idle = oneOf(p.dice, []time.Duration{2 * time.Minute, 3 * time.Minute, 5 * time.Minute}, "idle")
			if p.theme() == oneKey {
				l.Idle = 5 * time.Minute // so that one lives for long
			}
			l.NameRetry, l.NameLife, l.RogueGap = 5*time.Minute, 30*time.Minute, 15*time.Minute
		},
		Account: func(a *store.Account) {
			a.Outfit = p.outfit()
			if p.plain() && p.chance(300, "cancel on failure") && p.has("runs cancelled whose machine cannot be had", "") {
				a.OnFailure = store.CancelRun
			}
			a.HardS = int(oneOf(p.dice, []time.Duration{15 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour}, "hard").Seconds())
			if p.theme() == oneKey {
				a.HardS = int((15 * time.Minute).Seconds()) // twice the longest timeout
			}
			few := uint64(80)
			if p.plain() {
				few = 250 // a job that finds no room comes later
			}
			if p.chance(few, "few open requests") && p.happens(crowded, "") {
				a.MaxOpenRequests = oneOf(p.dice, []int{1, 2, 3}, "open requests")
			}
			if (p.theme() == mixed || p.theme() == starved) && p.chance(300, "two regions") && p.has("second region", "") {
				a.DefaultRegion, a.FallbackRegions = setting.Region, []string{setting.OtherRegion}
				other := a.Regions[setting.Region]
				other.Subnets = []string{"subnet-c", "subnet-d"}
				a.Regions = map[string]store.Region{setting.Region: a.Regions[setting.Region], setting.OtherRegion: other}
			}
			if p.chance(250, "daily budget") && p.happens(spentSoon, "") {
				a.DailyBudget = store.DailyBudget{USD: oneOf(p.dice, []string{"0.0001", "0.001", "0.01"}, "budget"), Wait: !p.plain() && p.chance(700, "starts wait")} // a workflow job waits on, until the next day
			}
			a.MaxRunners = oneOf(p.dice, []int{1, 2, 4, 100}, "max runners")
			if p.theme() == starved {
				a.MaxRunners = 100
				a.Pacing = store.Pacing{Burst: oneOf(p.dice, []int{1, 2, 5}, "launches at once"), IntervalMS: oneOf(p.dice, []int{500, 2000, 6000}, "launch interval")}
			}
		},
	}
}

// quietWithin bounds the time from the heal until nothing is left: what is known
// to wait, and five periods of the reaper.
func (p *plan) quietWithin(w *sim.World) time.Duration {
	return p.plainWithin() + w.Account.Hard(w.Limits) + w.Limits.GiveUp + w.Limits.NameLife + w.Limits.DeleteAgain + 5*w.Limits.ReaperPeriod
}
