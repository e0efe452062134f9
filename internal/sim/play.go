package sim

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/githubtest"
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

	Online    []time.Duration // from accepted to online, one for each request
	Recovered []time.Duration // from a crash to the next commit of what it was about
	Quiet     time.Duration   // from the heal until nothing was left
	Orphan    time.Duration   // the longest life of a machine that no record counted on
	Duplicate time.Duration   // the longest time in which a runner had two machines
	Looked    map[Promise]int // how often each promise was put to the test
}

// request is the kind of what a plan asks for: no fault, but it may be left out.
const request Kind = "request"

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
	Run(t, cfg, func(w *World) {
		began := time.Now()
		defer func() {
			out.Virtual = time.Since(began)
			w.finish(&out, tells)
		}()
		p.tell(w)
		out.Quiet = w.Quiet(p.quietWithin(w))
		p.after(w)
	})
	out.Met = p.met
	return out
}

// finish takes over what a world knows of itself.
func (w *World) finish(out *Outcome, tells bool) {
	out.Orphan, out.Duplicate = w.ages()
	out.Looked = w.Looked()
	w.mu.Lock()
	defer w.mu.Unlock()
	out.Effects = len(w.trace)
	for _, r := range w.watch.requests {
		if at := w.watch.runners[r.Runner].OnlineAt; r.State == store.Ready && !at.IsZero() {
			out.Online = append(out.Online, max(0, at.Sub(r.CreatedAt)))
		}
	}
	slices.Sort(out.Online)
	out.Recovered = w.watch.recovered
	if !tells {
		return
	}
	h := sha256.New()
	for _, e := range w.trace {
		line := e.String()
		out.Story = append(out.Story, line)
		fmt.Fprintln(h, line)
	}
	h.Sum(out.Hash[:0])
}

// most is how many effects a world may have: some fifty times as many as usual.
const most = 20_000

// config returns the world that the seed decides on.
func (p *plan) config() Config {
	heals := epoch.Add(p.healsAfter())
	return Config{
		Seed: p.seed, Most: most, Fate: p.fates(heals), Span: p.span,
		KillLate: p.killLate(), Skew: p.skew(), Rounds: p.rounds(heals), Deliver: p.deliveries(heals), Warm: true,
		GitHub: p.github(heals),
		EC2: p.ec2(heals, func(l fleet.Launch) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.launches = append(p.launches, l)
		}),
		World:  func(c *simfleet.WorldConfig) { c.Dies = p.dies(heals) },
		Ghosts: p.chance(60, "ghosts") && p.happens(ghosts, ""),
		NeverBoots: func(n int) bool {
			rate := uint64(25)
			if (p.theme() == oneKey || p.theme() == starved) && p.chance(300, "hardly any boots") {
				rate = 600
			}
			return p.sleeper.Load() || time.Now().Before(heals) && p.chance(rate, "never boots", strconv.Itoa(n)) && p.happens(neverBoots, strconv.Itoa(n))
		},
		Limits: func(l *store.Limits) {
			l.Idle = oneOf(p, []time.Duration{2 * time.Minute, 3 * time.Minute, 5 * time.Minute}, "idle")
			if p.theme() == oneKey {
				l.Idle = 5 * time.Minute // so that one lives for long
			}
			l.NameRetry, l.NameLife, l.RogueGap = 5*time.Minute, 30*time.Minute, 15*time.Minute
		},
		Account: func(a *store.Account) {
			a.HardS = int(oneOf(p, []time.Duration{15 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour}, "hard").Seconds())
			if p.theme() == oneKey {
				a.HardS = int((15 * time.Minute).Seconds()) // twice the longest timeout
			}
			a.MaxRunners = oneOf(p, []int{1, 2, 4, 100}, "max runners")
			if p.theme() == starved {
				a.MaxRunners = 100
				a.Pacing = store.Pacing{Burst: oneOf(p, []int{1, 2, 5}, "launches at once"), IntervalMS: oneOf(p, []int{500, 2000, 6000}, "launch interval")}
			}
		},
	}
}

// epoch is when every world begins: testing/synctest says so.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// healsAfter is how long things go wrong.
func (p *plan) healsAfter() time.Duration {
	switch p.theme() {
	case oneKey:
		return p.between(12*time.Minute, 16*time.Minute, "heals")
	case starved:
		return p.between(7*time.Minute, 11*time.Minute, "heals")
	}
	return p.between(3*time.Minute, 10*time.Minute, "heals")
}

// A theme is what a world is mostly about.
const (
	mixed   = iota // whatever comes
	oneKey         // one runner that is shared again and again, up to its hard limit
	burst          // many requests for one runner within half a minute
	starved        // many requests for many runners, of which EC2 gives few, and slowly
)

func (p *plan) theme() int {
	return oneOf(p, []int{mixed, mixed, mixed, oneKey, burst, starved}, "theme")
}

// quietWithin bounds the time from the heal until nothing is left: what is known
// to wait, and five periods of the reaper.
func (p *plan) quietWithin(w *World) time.Duration {
	return w.Account.Hard(w.Limits) + w.Limits.GiveUp + w.Limits.NameLife + w.Limits.DeleteAgain + 5*w.Limits.ReaperPeriod
}

// tell is the story: requests come, and much goes wrong, until it heals.
func (p *plan) tell(w *World) {
	heals := epoch.Add(p.healsAfter())
	var wg sync.WaitGroup
	n := 1 + p.draw("requests")%5
	if p.theme() != mixed || p.chance(100, "many requests") {
		n += 5 // more than EC2 launches at once
	}
	for i := range n {
		name := strconv.FormatUint(i, 10)
		if p.has(request, name) {
			wg.Go(func() { p.ask(w, name) })
		}
	}
	heal := p.rules(w)
	if p.chance(150, "index lags") && p.happens(staleIndex, "") {
		w.SetIndexLag(p.between(time.Second, 90*time.Second, "index lags by"))
	}
	p.happenings(w, &wg)
	time.Sleep(time.Until(heals))
	w.SetFate(nil)
	w.SetIndexLag(0)
	heal()
	w.remark("all is well again")
	wg.Wait()
	if _, some := w.lost(); some {
		p.release(w)
	}
}

// release has the operator release the brake of a world that lost records, each
// time that it comes on. Registrations that no record knows are looked for in
// repositories that have had a runner lately: one more request is made.
func (p *plan) release(w *World) {
	p.asked.Add(1)
	w.Start(Ephemeral("after-all"))
	for i := range 8 {
		time.Sleep(w.Limits.SweepPeriod)
		if i == 0 {
			continue // he takes his time: without the brake, all would be ended by then
		}
		if i == 1 {
			w.mu.Lock()
			w.released = time.Now()
			w.mu.Unlock()
		}
		_, _ = w.Client.ReleaseBrake(w.Context(), AccountID, Region) // there may be no sweep yet
	}
}

// ask is one caller: he starts, waits or not, has a job or none, and stops or not.
func (p *plan) ask(w *World, name string) {
	ctx := context.Background()
	switch {
	case p.theme() == oneKey:
		time.Sleep(p.between(0, p.healsAfter(), "ask at", name))
		for p.chance(400, "when it is nearly over", name) && time.Since(epoch) < p.healsAfter() && !w.nearlyUp() {
			time.Sleep(p.between(5*time.Second, 10*time.Second, "looks", name))
		}
	case p.theme() == burst && name != "0":
		time.Sleep(p.between(0, p.healsAfter()-time.Minute, "burst at") + p.between(0, 30*time.Second, "ask at", name))
	case p.theme() == starved:
		time.Sleep(p.between(0, oneOf(p, []time.Duration{time.Second, 20 * time.Second, 3 * time.Minute}, "ask within"), "ask at", name))
	case p.chance(200, "all at once"):
		time.Sleep(p.between(0, time.Second, "ask at", name))
	default:
		time.Sleep(p.between(0, p.healsAfter()*2/3, "ask at", name))
	}
	body := Ephemeral(name)
	if p.theme() == oneKey || p.theme() == burst {
		body = Shared(name)
	} else if p.chance(600, "shared", name) {
		body = Shared(name, oneOf(p, [][]string{nil, {"build"}}, "labels", name)...)
	}
	longest := oneOf(p, []time.Duration{2 * time.Minute, 7*time.Minute + 30*time.Second}, "longest timeout", name)
	if p.theme() == oneKey {
		longest = oneOf(p, []time.Duration{2*time.Minute + 30*time.Second, 7*time.Minute + 30*time.Second}, "longest timeout") // half of the runner's life is the most
	}
	body.Timeout = int(p.between(time.Minute, longest, "timeout", name).Seconds())
	if end := w.lives(); p.theme() == oneKey && end > time.Minute && end < longest && p.chance(500, "to the end") {
		body.Timeout = int(end.Seconds()) - 1 // all that the runner has
	}
	body.GiveUp = int(oneOf(p, []time.Duration{2 * time.Minute, 6 * time.Minute, 15 * time.Minute}, "give up", name).Seconds())
	caller := w.Client
	run := "70" + name // digits, as GitHub's are: the API refuses others
	if p.chance(500, "workflow", name) {
		caller = w.Workflow(run)
	}
	p.asked.Add(1)
	var s apitype.Started
	for try := range 3 {
		var err error
		if s, err = caller.Start(ctx, body); err == nil {
			break
		}
		if try == 2 || p.chance(300, "vanishes", name) {
			return
		}
		time.Sleep(p.between(time.Second, time.Minute, "tries again", name, strconv.Itoa(try)))
	}
	w.answered(s.ID)
	caller = caller.WithToken(client.NewToken(s.StatusToken))
	var wg sync.WaitGroup
	defer wg.Wait()
	stops, within := uint64(200), 4*time.Minute
	if p.theme() == burst { // while the others come
		stops, within = 400, 40*time.Second
	}
	if p.chance(stops, "stops", name) {
		wg.Go(func() {
			time.Sleep(p.between(0, within, "stops at", name))
			_, _ = caller.Stop(ctx, s.ID, p.chance(500, "force", name)) // who gives up on that leaves it to the limits
		})
	}
	if p.chance(200, "never polls", name) {
		return
	}
	for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(p.between(2*time.Second, 20*time.Second, "polls", name)) {
		answered := w.polls(s.ID)
		status, err := caller.Status(ctx, s.ID)
		answered(err)
		if errors.Is(err, client.ErrNotFound) {
			return // its record is deleted
		}
		if err != nil || !client.Final(status.State) {
			continue
		}
		if status.State == string(store.Ready) && p.chance(800, "job", name) {
			length := p.between(5*time.Second, 90*time.Second, "length", name)
			switch x := p.draw("long", name) % 1000; {
			case x < 100:
				length *= 6
			case x < 150 && w.Account.HardS <= 20*60:
				length = w.Account.Hard(w.Limits) // longer than is left
			case x < 250:
				length = w.left(s.ID) + p.between(0, 45*time.Second, "until it expires", name)
			}
			if _, err := w.GitHub.Queue(repositoryID, githubtest.Job{RunID: run, Labels: s.RunsOn, Duration: length}); err != nil {
				w.Errorf("%v", err)
			}
		}
		return
	}
	w.Errorf("request %s had no end within an hour", s.ID)
}

// after is what must hold when nothing is left.
func (p *plan) after(w *World) {
	w.Check()
	w.checkJobs()
	w.checkReaches()
	w.checkPanics()
	w.checkAsked(int(p.asked.Load()))
	w.checkHealed(epoch.Add(p.healsAfter()))
}
