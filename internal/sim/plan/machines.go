package plan

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
)

// registration picks one of those at GitHub.
func (s *story) registration(name string) (int64, bool) {
	all := s.w.GitHub.Registrations()
	if len(all) == 0 {
		return 0, false
	}
	return oneOf(s.dice, all, "registration", name).ID, true
}

// machines returns those that are on.
func (s *story) machines() []simfleet.Fact {
	return slices.DeleteFunc(s.w.Fleet.Instances(), func(f simfleet.Fact) bool {
		return f.State != fleet.Pending && f.State != fleet.Running
	})
}

// machine picks one of those that are on.
func (s *story) machine(name string) (simfleet.Fact, bool) {
	on := s.machines()
	if len(on) == 0 {
		return simfleet.Fact{}, false
	}
	return oneOf(s.dice, on, "machine", name), true
}

// twin launches another machine with the user data of one that was launched.
func (s *story) twin(name string) bool {
	return s.copyOf(name, s.chance(500, "twin sleeps", name))
}

// copyOf is twin of a machine that boots, or never does.
func (s *story) copyOf(name string, sleeps bool) bool {
	s.mu.Lock()
	launches := slices.Clone(s.launches)
	s.mu.Unlock()
	if len(launches) == 0 {
		return false
	}
	l := oneOf(s.dice, launches, "twin of", name)
	l.ClientToken += "-twin-" + name
	l.Tags = maps.Clone(l.Tags)
	s.sleeper.Store(sleeps)
	defer s.sleeper.Store(false)
	_, err := s.w.Fleet.Launch(s.w.Context(), setting.Here, l)
	return err == nil
}

// steal boots with the token in a machine's user data, and with what a thief may have of
// AWS's word for it.
func (s *story) steal(name string) bool {
	m, ok := s.machine(name)
	for _, young := range s.w.Fleet.Instances() {
		if young.CredentialedAt.IsZero() && (young.State == fleet.Pending || young.State == fleet.Running) {
			m, ok = young, true // the token of the others is of no use any more
		}
	}
	if !ok {
		return false
	}
	claims := oneOf(s.dice, []string{m.ID, m.ID, setting.Sibling}, "claims", name)
	word := oneOf(s.dice, setting.Words, "word", name)
	again := s.draw("steals again", name) % 8 // before and after the machine itself
	for i := uint64(0); ; i++ {
		if s.w.Steal(m, claims, word) == 0 || i == again {
			return true
		}
		time.Sleep(s.between(time.Second, 5*time.Second, "steals", name))
	}
}

// forge has a machine that lies, or what broke into it, report what is not so.
func (s *story) forge(name string) bool {
	booted := s.w.Booted()
	if len(booted) == 0 {
		return false
	}
	r := oneOf(s.dice, booted, "forger", name)
	session, err := s.w.Keys.Session(r.Launch.KeyID, r.ID, r.Boot.NonceHash)
	if err != nil {
		return false
	}
	s.w.Lies(r.ID)
	words := []string{"heartbeat", "booting", "online", "job_started", "job_done", "idle", "draining", "note", "golden"}
	for i := range s.draw("forged", name)%5 + 1 {
		n := name + "/" + strconv.FormatUint(i, 10)
		e := apitype.Event{Event: oneOf(s.dice, words, "forged", n), Counter: r.Counter + int64(s.draw("counter", n)%9) - 3}
		if e.Event == "job_started" {
			e.RunID = "666"
		}
		if !s.post("/runners/"+r.ID+"/events", session.Reveal(), e) {
			return true // one was made, and had no answer
		}
	}
	return true
}

// flood has a machine with root say all that it can, as fast as it is answered: at
// once, or from when nobody counts on it, or from its hard limit.
func (s *story) flood(name string) bool {
	booted := s.w.Booted()
	if len(booted) == 0 {
		return false
	}
	r := oneOf(s.dice, booted, "flooder", name)
	session, err := s.w.Keys.Session(r.Launch.KeyID, r.ID, r.Boot.NonceHash)
	if err != nil {
		return false
	}
	s.w.Lies(r.ID)
	words := []string{"note", "booting", "heartbeat", "online", "idle"}
	if s.chance(300, "flood of jobs", name) {
		words = append(words, "job_started", "job_done")
	}
	from := oneOf(s.dice, []time.Time{time.Now(), s.w.Lock(r.Lock).Exp, r.Hard}, "flood from", name)
	if wait := time.Until(from); wait < 20*time.Minute {
		time.Sleep(wait + s.between(0, time.Second, "flood a little later", name)) // no two begin in one moment
	}
	counter := r.Counter + int64(s.draw("flood counter", name)%3)*1000
	for i := range 60 + s.draw("flood", name)%60 {
		n := name + "/" + strconv.FormatUint(i, 10)
		counter += int64(s.draw("flood step", n) % 9)
		e := apitype.Event{Event: oneOf(s.dice, words, "flooded", n), Counter: counter, Detail: n}
		if !s.post("/runners/"+r.ID+"/events", session.Reveal(), e) {
			return true
		}
	}
	return true
}

// post makes a call as machines do, and reports whether it was answered.
func (s *story) post(path, bearer string, body any) bool {
	b, err := json.Marshal(body)
	if err != nil {
		return false
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, setting.URL+path, bytes.NewReader(b))
	if err != nil {
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := s.w.Thief().Do(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return true
}

// repeat sends a message again that was sent once, or may have been.
func (s *story) repeat(name string) bool {
	var m queue.Message
	all := s.w.All()
	if len(all) == 0 {
		return false
	}
	r := oneOf(s.dice, all, "request", name)
	m = queue.StartOf(r)
	if r.Runner != "" {
		switch s.draw("kind", name) % 3 {
		case 0:
			m = queue.Message{Kind: queue.Resume, ID: r.Runner}
		case 1:
			m = queue.Message{Kind: queue.Next, ID: r.Runner, N: int(s.draw("n", name)%3) + 1}
		}
	}
	for i := range s.draw("copies", name)%10 + 1 {
		if s.w.Queue.Send(s.w.Context(), m, time.Duration(i%3)*s.between(0, 5*time.Minute, "again", name)) != nil {
			return false
		}
		time.Sleep(time.Nanosecond) // who waits for messages gets this one alone
	}
	return true
}
