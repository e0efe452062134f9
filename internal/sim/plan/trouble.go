package plan

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
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
	oneRefused  Kind = "credential refused"
	endedByEC2  Kind = "machine ended by EC2 as it begins"
	unfamiliar  Kind = "answer of EC2 that nobody knows"
	ghosts      Kind = "deleted runner not told"
	neverBoots  Kind = "machine never boots"
	unfit       Kind = "machine cannot be set up"
	plainAgent  Kind = "agent of a version before"
	noMetadata  Kind = "metadata service away"
	noNetwork   Kind = "machine without network"
	lateNetwork Kind = "machine with network late"
	silence     Kind = "machine silent for a while"
	runMissed   Kind = "reaper run missed"
	runDoubled  Kind = "reaper runs overlap"
	reordered   Kind = "messages reordered"
	delivered2  Kind = "message delivered twice"
	unreadable  Kind = "message unreadable"
	flooded     Kind = "flood of events"
	crowded     Kind = "few open requests allowed"
	spentSoon   Kind = "budget that is spent"
	noPrices    Kind = "spot prices refused"
	inGroup     Kind = "runners register in an organization"
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
	from := setting.Epoch.Add(p.between(0, p.healsAfter(), "window from", name))
	to := from.Add(p.between(time.Second, longest, "window for", name))
	if heals := p.heals(); to.After(heals) {
		to = heals
	}
	return window{from, to}
}

// skew is by how much the clock of each part is off: by seconds, as of machines
// that are set by NTP now and then.
func (p *plan) skew() map[string]time.Duration {
	skew := map[string]time.Duration{}
	for _, part := range []string{kernel.API, kernel.Worker, kernel.Reaper} {
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
	return p.between(0, setting.KillLate, "kill late")
}

// setUp says how long machines take to become what their account wants, and of which it
// fails, or hangs.
func (p *plan) setUp() func(n int) (time.Duration, error) {
	heals, rate := p.heals(), oneOf(p.dice, []uint64{0, 100, 500}, "set-ups fail")
	return func(n int) (time.Duration, error) {
		name := strconv.Itoa(n)
		took := p.between(0, 20*time.Second, "set-up takes", name)
		if !time.Now().Before(heals) || !p.chance(rate, "set-up fails", name) || !p.happens(unfit, name) {
			return took, nil
		}
		if p.chance(300, "set-up hangs", name) {
			took = time.Hour
		}
		return took, errors.New("script: exit status 3")
	}
}

// plainAgents says of which machines the agent is of the version before outfits: some of
// the first, as while a new version is rolled out.
func (p *plan) plainAgents() func(n int) bool {
	heals, rolls := p.heals(), p.chance(300, "rolled out")
	return func(n int) bool {
		name := strconv.Itoa(n)
		return rolls && time.Now().Before(heals) && p.chance(500, "agent of before", name) && p.happens(plainAgent, name)
	}
}

// outfit is what the account wants of its machines: in most worlds, nothing.
func (p *plan) outfit() store.Outfit {
	if !p.chance(250, "outfit") || !p.has("outfit", "") {
		return store.Outfit{}
	}
	return store.Outfit{Setup: store.Setup{Script: "#!/bin/sh\n"}, Packages: []string{"git"}}
}

// metadata says when the metadata service of machines does not answer: in some worlds
// for a while, or most of the time.
func (p *plan) metadata() func() error {
	down := p.window(150, oneOf(p.dice, []time.Duration{20 * time.Second, 5 * time.Minute}, "metadata away"), "metadata")
	flaps, heals := p.chance(50, "metadata flaps"), p.heals()
	return func() error {
		now := time.Now()
		flap := flaps && now.Before(heals) && p.draw("metadata at", strconv.FormatInt(now.UnixNano(), 10))%2 == 0
		if (down.has(now) || flap) && p.happens(noMetadata, "") {
			return errors.New("no route to host")
		}
		return nil
	}
}

// rounds says when the reaper runs in a minute: once, never, or twice.
func (p *plan) rounds() func(int) []time.Duration {
	heals := p.heals()
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

// shards is how many runs share the work of the reaper: mostly one, as in production.
func (p *plan) shards() int {
	if !p.chance(150, "shards") || !p.has("reaper in shards", "") {
		return 1
	}
	return 2 + int(p.draw("how many shards")%3)
}

// deliveries returns what becomes of a batch of messages on its way to a worker.
func (p *plan) deliveries() func(*sim.World, []queue.Delivery) []queue.Delivery {
	heals := p.heals()
	shuffled, twice, poison := p.chance(250, "reordered"), p.chance(250, "delivered twice"), p.chance(100, "unreadable")
	n := 0
	return func(w *sim.World, ds []queue.Delivery) []queue.Delivery {
		n++
		name := strconv.Itoa(n)
		if !time.Now().Before(heals) {
			return ds
		}
		if shuffled {
			ds = p.shuffle(p.gather(w, ds, name), name)
		}
		if twice && p.chance(300, "delivered twice", name) && p.happens(delivered2, name) {
			for _, d := range ds { // it is visible to others while it is handled
				if err := w.Queue.Release(w.Context(), d, p.between(0, 5*time.Second, "delivered again", name, d.ID)); err != nil {
					w.Errorf("%v", err)
				}
			}
		}
		if poison && p.chance(300, "unreadable", name) && p.happens(unreadable, name) {
			body := oneOf(p.dice, []string{"", "{}", `{"v":1}`, `{"v":1,"kind":"start","id":"../../etc"}`, "\xff\xfe", `{"v":9,"kind":"start","id":"a"}`}, "body", name)
			ds = append(ds, queue.Delivery{ID: "unreadable-" + name, Body: []byte(body), Receives: 1})
		}
		return ds
	}
}

// gather may wait for more messages, or a batch has one nearly always. It takes no
// longer than what visibility leaves beside a worker's time.
func (p *plan) gather(w *sim.World, ds []queue.Delivery, name string) []queue.Delivery {
	if len(ds) == setting.Batch || !p.chance(300, "gathers", name) || !p.has("messages gathered", name) {
		return ds
	}
	time.Sleep(p.between(0, 10*time.Second, "gathers", name))
	more, err := w.Queue.Receive(w.Context(), setting.Batch-len(ds), 0)
	if err != nil {
		w.Errorf("%v", err)
	}
	return append(ds, more...)
}

// shuffle brings a batch into another order.
func (p *plan) shuffle(ds []queue.Delivery, name string) []queue.Delivery {
	if len(ds) > 1 && p.happens(reordered, name) {
		slices.SortFunc(ds, func(a, b queue.Delivery) int {
			return cmp.Compare(p.draw("order", name, a.ID), p.draw("order", name, b.ID))
		})
	}
	return ds
}
