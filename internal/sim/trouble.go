package sim

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/githubtest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

// The kinds of fault that last for a while, or for the whole of a world's trouble.
const (
	clockSkew   Kind = "clock skew"
	killedLate  Kind = "killed late"
	staleIndex  Kind = "due index behind"
	staleEC2    Kind = "EC2's view behind"
	away        Kind = "service away"
	noCapacity  Kind = "no capacity"
	limitedByGH Kind = "GitHub limit"
	nameTaken   Kind = "name taken"
	busyLate    Kind = "busy shown late"
	omitsBusy   Kind = "list omits busy runners"
	tooOld      Kind = "runner program too old"
	tooOldSoon  Kind = "runner program refused later"
	forgets     Kind = "registration forgotten under its program"
	haunted     Kind = "runner busy for ever"
	losesJobs   Kind = "job lost to another runner"
	mintsNot    Kind = "GitHub registers nothing"
	endedByEC2  Kind = "machine ended by EC2 as it begins"
	unfamiliar  Kind = "answer of EC2 that nobody knows"
	ghosts      Kind = "deleted runner not told"
	neverBoots  Kind = "machine never boots"
	noNetwork   Kind = "machine without network"
	lateNetwork Kind = "machine with network late"
	silence     Kind = "machine silent for a while"
	runMissed   Kind = "reaper run missed"
	runDoubled  Kind = "reaper runs overlap"
	reordered   Kind = "messages reordered"
	delivered2  Kind = "message delivered twice"
	unreadable  Kind = "message unreadable"
)

// window is a time in which something is wrong.
type window struct{ from, to time.Time }

func (w window) has(at time.Time) bool { return !at.Before(w.from) && at.Before(w.to) }

// window returns one of at most so long, in the time before the world heals. In
// most seeds it is empty.
func (p *plan) window(perMille uint64, longest time.Duration, name string) window {
	if !p.chance(perMille, "window", name) {
		return window{}
	}
	from := epoch.Add(p.between(0, p.healsAfter(), "window from", name))
	to := from.Add(p.between(time.Second, longest, "window for", name))
	if heals := epoch.Add(p.healsAfter()); to.After(heals) {
		to = heals
	}
	return window{from, to}
}

// outages returns the fate of effects while what they call is away. A call that
// fails then has sometimes had its effect.
func (p *plan) outages() func(*Effect) Fate {
	windows := map[string]window{}
	for _, to := range []string{ToStore, ToQueue, ToEC2, ToGitHub, ToSSM, ToAPI} {
		longest := oneOf(p, []time.Duration{20 * time.Second, 90 * time.Second, 10 * time.Minute}, "away", to)
		w := p.window(70, longest, to)
		if w != (window{}) && p.happens(away, to) {
			windows[to] = w
		}
	}
	return func(e *Effect) Fate {
		if w, ok := windows[e.To]; !ok || !w.has(e.At) {
			return Pass
		}
		p.again(away)
		if p.draw("away", e.Name(), strconv.Itoa(e.Nth))%4 == 0 {
			return FailAfter
		}
		return FailBefore
	}
}

// networks returns the fate of machines' calls. Machines are told apart by the
// order of their first calls.
func (p *plan) networks() func(*Effect) Fate {
	var seen []string
	late := map[string]time.Time{}
	return func(e *Effect) Fate {
		if e.Part != Machine {
			return Pass
		}
		p.mu.Lock()
		if !slices.Contains(seen, e.On) {
			seen = append(seen, e.On)
		}
		machine := strconv.Itoa(slices.Index(seen, e.On))
		if late[machine].IsZero() { // it comes to boot when it may not any more, or nearly
			late[machine] = e.At.Add(p.between(4*time.Minute, 6*time.Minute, "late network of machine", machine))
		}
		comes := late[machine]
		p.mu.Unlock()
		switch x := p.draw("network of machine", machine); {
		case x%1000 < 15 && p.happens(noNetwork, machine):
			return FailBefore
		case x%1000 >= 15 && x%1000 < 30 && e.At.Before(comes) && p.happens(lateNetwork, machine):
			return FailBefore
		case x%1000 >= 900 && (p.theme() == oneKey || x%1000 >= 980):
			gap := p.window(1000, 3*time.Minute, "silence of machine "+machine)
			if gap.has(e.At) && p.happens(silence, machine) {
				return FailBefore
			}
		}
		return Pass
	}
}

// ec2 returns what EC2 fails with by itself: placements have no capacity for a
// minute and more.
func (p *plan) ec2(heals time.Time, launched func(fleet.Launch)) func(string, fleet.Launch) error {
	rate := oneOf(p, []uint64{0, 0, 100, 400, 800}, "rate of no capacity")
	if p.theme() == starved {
		rate = oneOf(p, []uint64{300, 600, 900}, "rate of no capacity")
	}
	strange := p.window(80, oneOf(p, []time.Duration{20 * time.Second, 2 * time.Minute, 6 * time.Minute}, "unfamiliar for"), "unfamiliar")
	return func(op string, l fleet.Launch) error {
		if op != simfleet.OpLaunch {
			return nil
		}
		launched(l)
		if strange.has(time.Now()) && p.happens(unfamiliar, "window") {
			return &fleet.Error{Kind: fleet.ErrUnknown, Case: fleet.ErrUnfamiliar, Code: "FluxCapacitorDrained", Text: "The flux capacitor is drained."}
		}
		minute := time.Since(epoch) / time.Minute
		where := fmt.Sprintf("%s %s in %s, minute %d", l.Market, l.InstanceType, l.Subnet, minute)
		if rate == 0 || !time.Now().Before(heals) || p.draw(where)%1000 >= rate || !p.happens(noCapacity, where) {
			return nil
		}
		code := oneOf(p, []string{"InsufficientInstanceCapacity", "InsufficientInstanceCapacity", "InsufficientFreeAddressesInSubnet",
			"Unsupported", "MaxSpotInstanceCountExceeded", "VcpuLimitExceeded"}, where, "code")
		return &fleet.Error{Kind: fleet.ErrCapacity, Code: code, Text: "no capacity for " + where}
	}
}

// answer is what GitHub says in place of what was asked.
func answer(status int, header ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"message":"no"}`)) // to memory: it does not fail
	})
}

// gateway is what GitHub's own proxy says when nothing behind it answers.
var gateway http.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(http.StatusBadGateway)
	_, _ = w.Write([]byte("<html><body>502 Bad Gateway</body></html>")) // to memory: it does not fail
})

// github returns what GitHub's API refuses by itself: all for a while, in one of
// the two ways in which it limits, and names that it has already.
func (p *plan) github(heals time.Time) func(string) githubtest.Fault {
	limit := p.window(120, oneOf(p, []time.Duration{time.Minute, 5 * time.Minute, 20 * time.Minute}, "limit for"), "limit")
	if limit != (window{}) && !p.happens(limitedByGH, "window") {
		limit = window{}
	}
	taken := p.chance(150, "names taken")
	down := p.window(100, oneOf(p, []time.Duration{time.Minute, 5 * time.Minute, 20 * time.Minute}, "registers nothing for"), "registers nothing")
	n := 0
	return func(op string) (f githubtest.Fault) {
		now := time.Now()
		if limit.has(now) {
			p.again(limitedByGH)
			left := int(limit.to.Sub(now)/time.Second) + 1
			if p.chance(500, "secondary limit") {
				f.Instead = answer(http.StatusTooManyRequests, "Retry-After", strconv.Itoa(min(left, 60)))
			} else {
				f.Instead = answer(http.StatusForbidden, "X-RateLimit-Limit", "5000", "X-RateLimit-Remaining", "0",
					"X-RateLimit-Reset", strconv.FormatInt(now.Unix()+int64(left), 10))
			}
			return f
		}
		if op == githubtest.OpMint && down.has(now) && p.happens(mintsNot, "window") {
			f.Instead = gateway
			return f
		}
		if op != githubtest.OpMint || !taken || !now.Before(heals) {
			return f
		}
		p.mu.Lock()
		n++
		name := strconv.Itoa(n)
		p.mu.Unlock()
		if p.chance(300, "name taken", name) && p.happens(nameTaken, name) {
			f.Instead = githubtest.NameExists("garo-" + name)
		}
		return f
	}
}

// rules changes how GitHub and EC2 look at things, until the world heals.
func (p *plan) rules(w *World) (heal func()) {
	w.GitHub.Change(func(r *githubtest.Rules) {
		if p.chance(100, "busy lag") && p.happens(busyLate, "") {
			r.BusyLag = p.between(time.Second, time.Minute, "busy lag for")
		}
		r.OmitBusy = p.chance(100, "omit busy") && p.happens(omitsBusy, "")
		r.TooOld = p.chance(20, "too old") && p.happens(tooOld, "")
		r.LosesJobs = p.chance(40, "loses jobs") && p.happens(losesJobs, "")
	})
	if p.chance(150, "EC2 lags") && p.happens(staleEC2, "") {
		least, longest := time.Second, oneOf(p, []time.Duration{10 * time.Second, time.Minute, 6 * time.Minute}, "EC2 lag")
		if longest > time.Minute {
			least = 4 * time.Minute // so that a machine is not shown when it may count as gone for the first time
		}
		w.Fleet.SetLag(p.between(least, longest, "EC2 lags by"))
	}
	return func() {
		w.NewImage() // with a runner program that GitHub takes
		w.GitHub.Change(func(r *githubtest.Rules) { r.BusyLag, r.OmitBusy, r.TooOld, r.LosesJobs = 0, false, false, false })
		w.GitHub.Calm()
		w.Fleet.SetLag(0)
	}
}

// skew is by how much the clock of each part is off: by seconds, as of machines
// that are set by NTP now and then.
func (p *plan) skew() map[string]time.Duration {
	skew := map[string]time.Duration{}
	for _, part := range []string{API, Worker, Reaper} {
		if p.chance(200, "skew", part) && p.happens(clockSkew, part) {
			skew[part] = p.between(-5*time.Second, 5*time.Second, "skew of", part)
		}
	}
	return skew
}

// killLate is how late Lambda kills what passed its deadline. In some worlds the
// whole environment stood still, and wakes when others have taken over.
func (p *plan) killLate() time.Duration {
	if p.chance(80, "very late") && p.happens(killedLate, "") {
		return p.between(30*time.Second, 5*time.Minute, "killed late by")
	}
	return p.between(0, killLate, "kill late")
}

// rounds says when the reaper runs in a minute: once, never, or twice.
func (p *plan) rounds(heals time.Time) func(int) []time.Duration {
	missed, doubled := p.chance(200, "rounds missed"), p.chance(200, "rounds doubled")
	all := p.chance(100, "all rounds missed")
	return func(n int) []time.Duration {
		name := strconv.Itoa(n)
		switch x := p.draw("round", name) % 1000; {
		case !time.Now().Before(heals):
		case missed && (all || x < 300) && p.happens(runMissed, name):
			return nil
		case doubled && x > 600 && p.happens(runDoubled, name):
			return []time.Duration{0, p.between(0, 3*time.Second, "second run", name)}
		}
		return []time.Duration{0}
	}
}

// deliveries returns what becomes of a batch of messages on its way to a worker.
func (p *plan) deliveries(heals time.Time) func(*World, []queue.Delivery) []queue.Delivery {
	shuffled, twice, poison := p.chance(250, "reordered"), p.chance(250, "delivered twice"), p.chance(100, "unreadable")
	n := 0
	return func(w *World, ds []queue.Delivery) []queue.Delivery {
		n++
		name := strconv.Itoa(n)
		if !time.Now().Before(heals) {
			return ds
		}
		if shuffled && len(ds) < batch && p.chance(300, "gathers", name) && p.has("messages gathered", name) {
			// Or a batch has one message nearly always. No longer than what visibility
			// leaves beside a worker's time.
			time.Sleep(p.between(0, 10*time.Second, "gathers", name))
			more, err := w.Queue.Receive(w.Context(), batch-len(ds), 0)
			if err != nil {
				w.Errorf("%v", err)
			}
			ds = append(ds, more...)
		}
		if shuffled && len(ds) > 1 && p.happens(reordered, name) {
			slices.SortFunc(ds, func(a, b queue.Delivery) int {
				return cmp.Compare(p.draw("order", name, a.ID), p.draw("order", name, b.ID))
			})
		}
		if twice && p.chance(300, "delivered twice", name) && p.happens(delivered2, name) {
			for _, d := range ds { // it is visible to others while it is handled
				if err := w.Queue.Release(w.Context(), d, p.between(0, 5*time.Second, "delivered again", name, d.ID)); err != nil {
					w.Errorf("%v", err)
				}
			}
		}
		if poison && p.chance(300, "unreadable", name) && p.happens(unreadable, name) {
			body := oneOf(p, []string{"", "{}", `{"v":1}`, `{"v":1,"kind":"start","id":"../../etc"}`, "\xff\xfe", `{"v":9,"kind":"start","id":"a"}`}, "body", name)
			ds = append(ds, queue.Delivery{ID: "unreadable-" + name, Body: []byte(body), Receives: 1})
		}
		return ds
	}
}
