package plan

import (
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// event is something that happens at one time. do reports whether there was what
// it happens to.
type event struct {
	kind Kind
	do   func(s *story, name string) bool
}

var events = []event{
	{"spot machine reclaimed with notice", func(s *story, name string) bool {
		m, ok := s.machine(name)
		return ok && s.w.Fleet.Interrupt(m.ID, simfleet.SpotNotice) == nil
	}},
	{"spot machine reclaimed without a word", func(s *story, name string) bool {
		m, ok := s.machine(name)
		return ok && s.w.Fleet.Interrupt(m.ID, 0) == nil
	}},
	{"machine dies", func(s *story, name string) bool {
		m, ok := s.machine(name)
		return ok && s.w.Fleet.PowerOff(m.ID, setting.Died) == nil
	}},
	{"repository renamed, and its name given away", func(s *story, name string) bool {
		return s.w.GitHub.Rename(setting.RepositoryID, setting.Repository+"-"+name) == nil && s.w.GitHub.Create(github.Repository{ID: "99" + name, Name: setting.Repository}) == nil
	}},
	{"registration moved to the organization, or back", func(s *story, name string) bool {
		now, _ := s.w.InOrganization()
		s.w.RegisterIn(!now)
		return true
	}},
	{"tags of a machine edited", func(s *story, name string) bool {
		m, ok := s.machine(name)
		if !ok {
			return false
		}
		tags := maps.Clone(m.Tags)
		if s.chance(500, "tag", name) {
			tags[fleet.TagRunner] = strings.Repeat("z", 26)
		} else {
			delete(tags, fleet.TagRunner)
		}
		s.w.Retagged(m)
		return s.w.Fleet.Retag(m.ID, tags) == nil
	}},
	{"machine stopped by a person", func(s *story, name string) bool {
		m, ok := s.machine(name)
		if !ok || s.w.Fleet.Stop(m.ID) != nil {
			return false
		}
		s.w.Stopped(m.ID)
		return true
	}},
	{"machine protected from termination", func(s *story, name string) bool {
		m, ok := s.machine(name)
		if !ok || s.w.Fleet.Protect(m.ID, true) != nil {
			return false
		}
		s.w.Go(func() { // anyone who did that lets go of it before the world is looked at
			time.Sleep(time.Until(s.heals()))
			_ = s.w.Fleet.Protect(m.ID, false) // it may be over
		})
		return true
	}},
	{"second machine of a launch", (*story).twin},
	{"boot token stolen", (*story).steal},
	{"forged event", (*story).forge},
	{flooded, (*story).flood},
	{"registration deleted by its owner", func(s *story, name string) bool {
		id, ok := s.registration(name)
		return ok && s.w.Forget(id) == nil
	}},
	{forgets, func(s *story, name string) bool {
		id, ok := s.registration(name)
		return ok && s.w.GitHub.Forget(id) == nil
	}},
	{haunted, func(s *story, name string) bool {
		id, ok := s.registration(name)
		return ok && s.w.GitHub.Haunt(id) == nil
	}},
	{tooOldSoon, func(s *story, name string) bool {
		s.w.GitHub.Change(func(r *simgithub.Rules) { r.TooOld = true })
		time.Sleep(s.between(time.Second, 2*time.Minute, "refused for", name))
		s.w.GitHub.Change(func(r *simgithub.Rules) { r.TooOld = false })
		return true
	}},
	{"job taken by its labels", func(s *story, name string) bool {
		all := s.w.GitHub.Registrations()
		if len(all) == 0 {
			return false
		}
		labels := oneOf(s.dice, all, "registration", name).Labels
		job := simgithub.Job{RunID: "999", Labels: labels[len(labels)-1:], Duration: s.between(time.Second, 5*time.Minute, "thief", name)}
		if job.Labels[0] == sim.Plain { // it may have machines of its own
			s.w.Plain(sim.PlainJob{Run: job.RunID, Length: job.Duration})
			return true
		}
		_, err := s.w.GitHub.Queue(setting.RepositoryID, job)
		return err == nil
	}},
	{"message repeated", (*story).repeat},
	{"message of nothing that is known", func(s *story, name string) bool {
		kind := oneOf(s.dice, []queue.Kind{queue.Start, queue.Resume, queue.Next}, "kind", name)
		m := queue.Message{Kind: kind, ID: strings.Repeat(name[:1], 26)}
		switch kind {
		case queue.Start:
			m.Account, m.Lock = setting.AccountID, setting.AccountID+"/"+setting.Region+"/7/spot/default/"
		case queue.Next:
			m.N = 2
		}
		return s.w.Queue.Send(s.w.Context(), m, 0) == nil
	}},
	{"keys rotated", func(s *story, _ string) bool { return s.w.Rotate() }},
	{"key lost", func(s *story, _ string) bool { return s.w.LoseKey() }},
	{"account removed, and registered again", func(s *story, name string) bool {
		return s.meanwhile(name, s.w.Remove, s.w.Register)
	}},
	{"role of the account refuses us", func(s *story, name string) bool {
		return s.meanwhile(name, s.w.Distrust, s.w.Trust)
	}},
	{"registration names another root volume", func(s *story, name string) bool {
		s.w.Enlarge(oneOf(s.dice, []int{40, 60, 80}, "root volume", name))
		return true
	}},
	{"deploy", func(s *story, name string) bool {
		s.w.Deploy(strings.Repeat(name[len(name)-1:], 64))
		return true
	}},
	{tableEmptied, func(s *story, name string) bool {
		for last := s.heals().Add(-time.Minute); time.Now().Before(last); time.Sleep(5 * time.Second) {
			if len(s.machines()) > store.BrakeAbove {
				break // it is worst then
			}
		}
		for i := range store.BrakeAbove + 1 {
			if len(s.machines()) <= store.BrakeAbove && s.chance(500, "crowd", name) {
				s.copyOf(name+"-"+strconv.Itoa(i), true)
			}
		}
		if all, _ := s.w.Lost(); all {
			return false
		}
		s.w.Wipe()
		return true
	}},
	{"registrations leased by others", func(s *story, name string) bool {
		until := time.Now().Add(min(s.between(time.Second, 4*time.Minute, "leased for", name), time.Until(s.heals())))
		for time.Now().Before(until) {
			s.w.LeaseOut()
			time.Sleep(5 * time.Second)
		}
		return true
	}},
	{"record deleted early", func(s *story, _ string) bool {
		return s.w.Expire(time.Now().Add(s.w.Limits.Keep-3*time.Minute)) > 0
	}},
}

// meanwhile has something begin, and end some minutes later, before the world heals.
func (s *story) meanwhile(name string, begin, end func()) bool {
	left := time.Until(s.heals()) - s.between(time.Millisecond, time.Second, "before it heals", name)
	if left <= 0 {
		return false
	}
	begin()
	time.Sleep(min(s.between(time.Second, 6*time.Minute, "meanwhile for", name), left))
	end()
	return true
}

// tableEmptied is the loss of all records, as by a wrong deploy.
const tableEmptied Kind = "table emptied"

// happenings has everything that happens at one time happen, until the world heals.
func (s *story) happenings(wg *sync.WaitGroup) {
	var on []event
	for _, e := range events {
		if s.chance(400, "event", string(e.kind)) {
			on = append(on, e)
		}
	}
	if len(on) == 0 {
		return
	}
	for i := range s.draw("events") % 9 {
		name := strconv.FormatUint(i, 10)
		e := oneOf(s.dice, on, "event", name)
		if e.kind == tableEmptied && (!s.chance(100, "empties the table", name) || len(s.w.Account.Regions) > 1) {
			continue // what follows from that hides much else, and each region has a brake of its own
		}
		wg.Go(func() {
			time.Sleep(s.between(0, s.healsAfter(), "event at", name))
			if s.only != nil && !s.only[string(e.kind)+": "+name] {
				return
			}
			if e.do(s, name) {
				s.happens(e.kind, name)
				s.w.Remark("%s (%s)", e.kind, name)
			}
		})
	}
}
