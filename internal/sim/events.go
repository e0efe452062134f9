package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/githubtest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// event is something that happens at one time. do reports whether there was what
// it happens to.
type event struct {
	kind Kind
	do   func(p *plan, w *World, name string) bool
}

var events = []event{
	{"spot machine reclaimed with notice", func(p *plan, w *World, name string) bool {
		m, ok := p.machine(w, name)
		return ok && w.Fleet.Interrupt(m.ID, simfleet.SpotNotice) == nil
	}},
	{"spot machine reclaimed without a word", func(p *plan, w *World, name string) bool {
		m, ok := p.machine(w, name)
		return ok && w.Fleet.Interrupt(m.ID, 0) == nil
	}},
	{"machine dies", func(p *plan, w *World, name string) bool {
		m, ok := p.machine(w, name)
		return ok && w.Fleet.PowerOff(m.ID, died) == nil
	}},
	{"repository renamed, and its name given away", func(_ *plan, w *World, name string) bool {
		return w.GitHub.Rename(repositoryID, Repository+"-"+name) == nil && w.GitHub.Create(github.Repository{ID: "99" + name, Name: Repository}) == nil
	}},
	{"tags of a machine edited", func(p *plan, w *World, name string) bool {
		m, ok := p.machine(w, name)
		if !ok {
			return false
		}
		tags := maps.Clone(m.Tags)
		if p.chance(500, "tag", name) {
			tags[fleet.TagRunner] = strings.Repeat("z", 26)
		} else {
			delete(tags, fleet.TagRunner)
		}
		w.retagged.LoadOrStore(m.ID, m.Tags[fleet.TagRunner])
		return w.Fleet.Retag(m.ID, tags) == nil
	}},
	{"machine stopped by a person", func(p *plan, w *World, name string) bool {
		m, ok := p.machine(w, name)
		if !ok || w.Fleet.Stop(m.ID) != nil {
			return false
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.watch.confirmations.stopped[m.ID] = time.Now()
		return true
	}},
	{"second machine of a launch", (*plan).twin},
	{"boot token stolen", (*plan).steal},
	{"forged event", (*plan).forge},
	{"registration deleted by its owner", func(p *plan, w *World, name string) bool {
		id, ok := p.registration(w, name)
		return ok && w.Forget(id) == nil
	}},
	{forgets, func(p *plan, w *World, name string) bool {
		id, ok := p.registration(w, name)
		return ok && w.GitHub.Forget(id) == nil
	}},
	{haunted, func(p *plan, w *World, name string) bool {
		id, ok := p.registration(w, name)
		return ok && w.GitHub.Haunt(id) == nil
	}},
	{tooOldSoon, func(p *plan, w *World, name string) bool {
		w.GitHub.Change(func(r *githubtest.Rules) { r.TooOld = true })
		time.Sleep(p.between(time.Second, 2*time.Minute, "refused for", name))
		w.GitHub.Change(func(r *githubtest.Rules) { r.TooOld = false })
		return true
	}},
	{"job taken by its labels", func(p *plan, w *World, name string) bool {
		all := w.GitHub.Registrations()
		if len(all) == 0 {
			return false
		}
		labels := oneOf(p, all, "registration", name).Labels
		job := githubtest.Job{RunID: "999", Labels: labels[len(labels)-1:], Duration: p.between(time.Second, 5*time.Minute, "thief", name)}
		_, err := w.GitHub.Queue(repositoryID, job)
		return err == nil
	}},
	{"message repeated", (*plan).repeat},
	{"message of nothing that is known", func(p *plan, w *World, name string) bool {
		kind := oneOf(p, []queue.Kind{queue.Start, queue.Resume, queue.Next}, "kind", name)
		m := queue.Message{Kind: kind, ID: strings.Repeat(name[:1], 26)}
		switch kind {
		case queue.Start:
			m.Account, m.Lock = AccountID, AccountID+"/"+Region+"/7/spot/default/"
		case queue.Next:
			m.N = 2
		}
		return w.Queue.Send(w.Context(), m, 0) == nil
	}},
	{"keys rotated", func(_ *plan, w *World, _ string) bool { return w.rotate() }},
	{"deploy", func(_ *plan, w *World, name string) bool {
		w.deploy(strings.Repeat(name[len(name)-1:], 64))
		return true
	}},
	{tableEmptied, func(p *plan, w *World, name string) bool {
		for last := epoch.Add(p.healsAfter() - time.Minute); time.Now().Before(last); time.Sleep(5 * time.Second) {
			if len(p.machines(w)) > store.BrakeAbove {
				break // it is worst then
			}
		}
		for i := range store.BrakeAbove + 1 {
			if len(p.machines(w)) <= store.BrakeAbove && p.chance(500, "crowd", name) {
				p.copyOf(w, name+"-"+strconv.Itoa(i), true)
			}
		}
		if all, _ := w.lost(); all {
			return false
		}
		w.Wipe()
		return true
	}},
	{"record deleted early", func(_ *plan, w *World, _ string) bool {
		return w.Expire(time.Now().Add(w.Limits.Keep-3*time.Minute)) > 0
	}},
}

// died is why a machine is off that did not switch itself off.
const died = "a kernel panic"

// tableEmptied is the loss of all records, as by a wrong deploy.
const tableEmptied Kind = "table emptied"

// happenings has everything that happens at one time happen, until the world heals.
func (p *plan) happenings(w *World, wg *sync.WaitGroup) {
	var on []event
	for _, e := range events {
		if p.chance(400, "event", string(e.kind)) {
			on = append(on, e)
		}
	}
	if len(on) == 0 {
		return
	}
	for i := range p.draw("events") % 9 {
		name := strconv.FormatUint(i, 10)
		e := oneOf(p, on, "event", name)
		if e.kind == tableEmptied && !p.chance(100, "empties the table", name) {
			continue // what follows from that hides much else
		}
		wg.Go(func() {
			time.Sleep(p.between(0, p.healsAfter(), "event at", name))
			if p.only != nil && !p.only[string(e.kind)+": "+name] {
				return
			}
			if e.do(p, w, name) {
				p.happens(e.kind, name)
				w.remark("%s (%s)", e.kind, name)
			}
		})
	}
}

// registration picks one of those at GitHub.
func (p *plan) registration(w *World, name string) (int64, bool) {
	all := w.GitHub.Registrations()
	if len(all) == 0 {
		return 0, false
	}
	return oneOf(p, all, "registration", name).ID, true
}

// machines returns those that are on.
func (p *plan) machines(w *World) []simfleet.Fact {
	return slices.DeleteFunc(w.Fleet.Instances(), func(f simfleet.Fact) bool {
		return f.State != fleet.Pending && f.State != fleet.Running
	})
}

// machine picks one of those that are on.
func (p *plan) machine(w *World, name string) (simfleet.Fact, bool) {
	on := p.machines(w)
	if len(on) == 0 {
		return simfleet.Fact{}, false
	}
	return oneOf(p, on, "machine", name), true
}

// twin launches another machine with the user data of one that was launched.
func (p *plan) twin(w *World, name string) bool {
	return p.copyOf(w, name, p.chance(500, "twin sleeps", name))
}

// copyOf is twin of a machine that boots, or never does.
func (p *plan) copyOf(w *World, name string, sleeps bool) bool {
	p.mu.Lock()
	launches := slices.Clone(p.launches)
	p.mu.Unlock()
	if len(launches) == 0 {
		return false
	}
	l := oneOf(p, launches, "twin of", name)
	l.ClientToken += "-twin-" + name
	l.Tags = maps.Clone(l.Tags)
	p.sleeper.Store(sleeps)
	defer p.sleeper.Store(false)
	_, err := w.Fleet.Launch(w.Context(), Here, l)
	return err == nil
}

// steal boots with the token in a machine's user data.
func (p *plan) steal(w *World, name string) bool {
	m, ok := p.machine(w, name)
	for _, young := range w.Fleet.Instances() {
		if young.CredentialedAt.IsZero() && (young.State == fleet.Pending || young.State == fleet.Running) {
			m, ok = young, true // the token of the others is of no use any more
		}
	}
	if !ok {
		return false
	}
	doc, err := bootstrap.Parse(w.Fleet.UserData(m.ID))
	if err != nil {
		return false
	}
	claims := oneOf(p, []string{m.ID, "i-0123456789abcdef0"}, "claims", name)
	again := p.draw("steals again", name) % 8 // before and after the machine itself
	for i := uint64(0); ; i++ {
		call := apitype.Boot{Token: doc.Token.Reveal(), Nonce: strings.Repeat(thiefs, 5), InstanceID: claims}
		if !w.post("/runners/"+doc.Runner+"/boot", "", call) || i == again {
			return true
		}
		time.Sleep(p.between(time.Second, 5*time.Second, "steals", name))
	}
}

// forge has a machine that lies, or what broke into it, report what is not so.
func (p *plan) forge(w *World, name string) bool {
	w.mu.Lock()
	var booted []store.Runner
	for _, r := range w.watch.runners {
		if !r.Boot.At.IsZero() && r.State != store.RunnerEnded {
			booted = append(booted, r)
		}
	}
	w.mu.Unlock()
	if len(booted) == 0 {
		return false
	}
	slices.SortFunc(booted, func(a, b store.Runner) int { return strings.Compare(a.ID, b.ID) })
	r := oneOf(p, booted, "forger", name)
	session, err := w.Keys.Session(r.Launch.KeyID, r.ID, r.Boot.NonceHash)
	if err != nil {
		return false
	}
	w.mu.Lock()
	w.watch.confirmations.lied[r.ID] = true
	w.mu.Unlock()
	words := []string{"heartbeat", "booting", "online", "job_started", "job_done", "idle", "draining", "note", "golden"}
	for i := range p.draw("forged", name)%5 + 1 {
		n := name + "/" + strconv.FormatUint(i, 10)
		e := apitype.Event{Event: oneOf(p, words, "forged", n), Counter: r.Counter + int64(p.draw("counter", n)%9) - 3}
		if e.Event == "job_started" {
			e.RunID = "666"
		}
		if !w.post("/runners/"+r.ID+"/events", session.Reveal(), e) {
			return true // one was made, and had no answer
		}
	}
	return true
}

// post makes a call as machines do, and reports whether it was answered.
func (w *World) post(path, bearer string, body any) bool {
	b, err := json.Marshal(body)
	if err != nil {
		return false
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url+path, bytes.NewReader(b))
	if err != nil {
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := w.Thief().Do(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return true
}

// repeat sends a message again that was sent once, or may have been.
func (p *plan) repeat(w *World, name string) bool {
	var m queue.Message
	all := w.All()
	if len(all) == 0 {
		return false
	}
	r := oneOf(p, all, "request", name)
	m = queue.StartOf(r)
	if r.Runner != "" {
		switch p.draw("kind", name) % 3 {
		case 0:
			m = queue.Message{Kind: queue.Resume, ID: r.Runner}
		case 1:
			m = queue.Message{Kind: queue.Next, ID: r.Runner, N: int(p.draw("n", name)%3) + 1}
		}
	}
	for i := range p.draw("copies", name)%10 + 1 {
		if w.Queue.Send(w.Context(), m, time.Duration(i%3)*p.between(0, 5*time.Minute, "again", name)) != nil {
			return false
		}
		time.Sleep(time.Nanosecond) // whoever waits for messages gets this one alone
	}
	return true
}
