package plan

import (
	"strconv"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
)

// The kinds of trouble that workflow jobs have.
const (
	webhookLost  Kind = "webhook lost"
	webhookFails Kind = "webhook not delivered, and logged so"
	webhookTwice Kind = "webhook delivered twice"
	webhookLate  Kind = "webhook late"
	nameless     Kind = "webhook without the runner's name"
	readsOld     Kind = "GitHub's answers about jobs behind"
	jobCancelled Kind = "job cancelled before it began"
	jobElsewhere Kind = "job taken by a runner of others"
	waitsFor     Kind = "job waits for its environment"
	heldBack     Kind = "job held back by GitHub"
)

// plainJob is the kind of a workflow job, and forbiddenJob of one that may have no machine:
// no fault, but it may be left out.
const plainJob, forbiddenJob Kind = "workflow job", "workflow job of a run that is not allowed"

// plain reports whether the world has workflow jobs that name labels, and ask nobody.
func (p *plan) plain() bool { return p.chance(350, "workflow jobs") }

// plainJobs has workflow jobs come.
func (s *story) plainJobs(wg *sync.WaitGroup) {
	if !s.plain() {
		return
	}
	for i := range 1 + s.draw("workflow jobs")%6 {
		name := strconv.FormatUint(i, 10)
		if s.has(plainJob, name) {
			wg.Go(func() { s.plainJob(name) })
		}
	}
}

// plainJob is one workflow job, and what happens to it at GitHub.
func (s *story) plainJob(name string) {
	if s.chance(500, "jobs at once") {
		time.Sleep(s.between(0, 20*time.Second, "job at", name))
	} else {
		time.Sleep(s.between(0, s.healsAfter()*2/3, "job at", name))
	}
	j := sim.PlainJob{
		Run: strconv.FormatUint(9000+s.draw("run of job", name)%3, 10), Length: s.between(5*time.Second, 3*time.Minute, "length of job", name),
		Environment: s.chance(80, "environment", name) && s.happens(waitsFor, name), Back: s.chance(80, "held back", name) && s.happens(heldBack, name),
	}
	if s.chance(300, "further label", name) {
		j.Labels = []string{sim.Plain, "Linux"}
	}
	if s.chance(50, "forbidden", name) && s.has(forbiddenJob, name) {
		j.Run, j.Event = "9999", "issues"
	}
	id := s.w.Plain(j)
	if j.Environment || j.Back {
		time.Sleep(max(0, min(s.between(time.Second, 6*time.Minute, "approved", name), time.Until(s.heals()))))
		s.w.Approve(id)
	}
	time.Sleep(s.between(0, 2*time.Minute, "job's trouble at", name))
	switch x := s.draw("job's trouble", name) % 1000; {
	case time.Now().After(s.heals()):
	case x < 150 && s.has(jobCancelled, name) && s.w.CancelPlain(id):
		s.again(jobCancelled)
	case x >= 150 && x < 220 && s.has(jobElsewhere, name) && s.w.TakeElsewhere(id, s.taker(name)):
		s.again(jobElsewhere)
	}
}

// taker is what the runner of others is called that takes a job: in some worlds as one of
// ours, which anyone who may register runners can do.
func (s *story) taker(name string) string {
	if all := s.w.GitHub.Registrations(); len(all) > 0 && s.chance(600, "impostor", name) {
		return oneOf(s.dice, all, "impostor of", name).Name
	}
	return "hers"
}

// webhooks says when GitHub delivers what it tells of jobs.
func (p *plan) webhooks() func(job, event string) []time.Duration {
	heals := p.heals()
	rate := oneOf(p.dice, []uint64{0, 100, 300, 800}, "rate of webhooks")
	return func(job, event string) []time.Duration {
		moment := p.between(0, 3*time.Second, "webhook at", job, event)
		x := p.draw("webhook", job, event)
		if x%1000 >= rate || !time.Now().Before(heals) {
			return []time.Duration{moment}
		}
		later := p.between(time.Second, 10*time.Minute, "webhook again", job, event)
		switch kind := oneOf(p.dice, []Kind{webhookLost, webhookTwice, webhookLate}, "webhook's trouble", job, event); {
		case !p.happens(kind, job+" "+event):
		case kind == webhookLost:
			return nil
		case kind == webhookTwice:
			return []time.Duration{moment, later}
		default:
			return []time.Duration{later}
		}
		return []time.Duration{moment}
	}
}

// logged says whether GitHub tried to deliver a webhook that is lost, and wrote that down.
func (p *plan) logged() func(job, event string) bool {
	return func(job, event string) bool {
		return p.chance(500, "logged", job, event) && p.happens(webhookFails, job+" "+event)
	}
}

// namelessly says whether a webhook leaves out on which runner the job is.
func (p *plan) namelessly() func(job, event string) bool {
	heals, on := p.heals(), p.chance(250, "nameless")
	return func(job, event string) bool {
		return on && time.Now().Before(heals) && p.chance(400, "nameless", job, event) && p.happens(nameless, job+" "+event)
	}
}

// readLag says how old GitHub's answers about jobs are: in some worlds, for a while.
func (p *plan) readLag() func() time.Duration {
	behind := p.window(250, 6*time.Minute, "reads of jobs")
	lag := p.between(time.Second, 90*time.Second, "reads of jobs are behind")
	return func() time.Duration {
		if behind.has(time.Now()) && p.has(readsOld, "") {
			p.again(readsOld)
			return lag
		}
		return 0
	}
}

// plainWithin is how much longer a world may take to come to rest that has workflow jobs:
// each may have to pause, to be looked for, and to have its turn behind all others.
func (p *plan) plainWithin() time.Duration {
	if !p.plain() {
		return 0
	}
	return time.Hour
}
