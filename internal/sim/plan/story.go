package plan

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// request is the kind of what a plan asks for: no fault, but it may be left out.
const request Kind = "request"

// story is a plan on its way in a world.
type story struct {
	*plan
	w     *sim.World
	asked atomic.Int64 // how many requests were asked for
}

// tell is the story: requests come, and much goes wrong, until it heals.
func (s *story) tell() {
	var wg sync.WaitGroup
	if themes := []int{mixed, starved}; slices.Contains(themes, s.theme()) && s.chance(250, "organization") && s.happens(inGroup, "") {
		s.w.RegisterIn(true) // where no runner is shared
	}
	n := 1 + s.draw("requests")%5
	if s.theme() != mixed || s.chance(100, "many requests") {
		n += 5 // more than EC2 launches at once
	}
	for i := range n {
		name := strconv.FormatUint(i, 10)
		if s.has(request, name) {
			wg.Go(func() { s.ask(name) })
		}
	}
	s.plainJobs(&wg)
	s.checks(&wg)
	heal := s.rules()
	if s.chance(150, "index lags") && s.happens(staleIndex, "") {
		s.w.SetIndexLag(s.between(time.Second, 90*time.Second, "index lags by"))
	}
	s.happenings(&wg)
	time.Sleep(time.Until(s.heals()))
	s.w.SetFate(nil)
	s.w.SetIndexLag(0)
	heal()
	s.w.Remark("all is well again")
	wg.Wait()
	if _, some := s.w.Lost(); some {
		s.release()
	}
}

// release has the operator release the brake of a world that lost records, each
// time that it comes on. Registrations that no record knows are looked for in
// scopes that have had a runner lately: one more request is made in each.
func (s *story) release() {
	now, both := s.w.InOrganization()
	s.afterAll("after-all")
	if both {
		s.w.RegisterIn(!now)
		s.afterAll("after-all-elsewhere")
	}
	for i := range 8 {
		time.Sleep(s.w.Limits.SweepPeriod)
		if i == 0 {
			continue // he takes his time: without the brake, all would be ended by then
		}
		if i == 1 {
			s.w.Released()
		}
		for _, region := range slices.Sorted(maps.Keys(s.w.Account.Regions)) {
			_, _ = s.w.Client.ReleaseBrake(s.w.Context(), setting.AccountID, region) // there may be no sweep yet
		}
	}
}

// afterAll makes one more request once the repository may have it: those of workflow jobs
// can be open still.
func (s *story) afterAll(key string) {
	s.asked.Add(1)
	for {
		_, err := s.w.Client.Start(s.w.Context(), sim.Ephemeral(key))
		switch {
		case err == nil:
			return
		case !errors.Is(err, client.ErrThrottled):
			s.w.Fatal(err)
		}
		time.Sleep(time.Minute)
	}
}

// ask is one caller: he starts, waits or not, has a job or none, and stops or not.
func (s *story) ask(name string) {
	s.come(name)
	body := s.body(name)
	caller := s.w.Client
	run := "70" + name // digits, as GitHub's are: the API refuses others
	if s.chance(500, "workflow", name) {
		caller = s.w.Workflow(run)
	}
	s.asked.Add(1)
	started, ok := s.start(caller, body, name)
	if !ok {
		return
	}
	s.w.Accepted(started.ID)
	caller = caller.WithToken(client.NewToken(started.StatusToken.Reveal()))
	var wg sync.WaitGroup
	defer wg.Wait()
	stops, within := uint64(200), 4*time.Minute
	if s.theme() == burst { // while the others come
		stops, within = 400, 40*time.Second
	}
	if s.chance(stops, "stops", name) {
		wg.Go(func() {
			time.Sleep(s.between(0, within, "stops at", name))
			_, _ = caller.Stop(context.Background(), started.ID, s.chance(500, "force", name)) // who gives up on that leaves it to the limits
		})
	}
	if !s.chance(200, "never polls", name) {
		s.poll(caller, started, run, name)
	}
}

// come waits until a caller comes.
func (s *story) come(name string) {
	switch {
	case s.theme() == oneKey:
		time.Sleep(s.between(0, s.healsAfter(), "ask at", name))
		for s.chance(400, "when it is nearly over", name) && time.Since(setting.Epoch) < s.healsAfter() && !s.w.NearlyUp() {
			time.Sleep(s.between(5*time.Second, 10*time.Second, "looks", name))
		}
	case s.theme() == burst && name != "0":
		time.Sleep(s.between(0, s.healsAfter()-time.Minute, "burst at") + s.between(0, 30*time.Second, "ask at", name))
	case s.theme() == starved:
		time.Sleep(s.between(0, oneOf(s.dice, []time.Duration{time.Second, 20 * time.Second, 3 * time.Minute}, "ask within"), "ask at", name))
	case s.chance(200, "all at once"):
		time.Sleep(s.between(0, time.Second, "ask at", name))
	default:
		time.Sleep(s.between(0, s.healsAfter()*2/3, "ask at", name))
	}
}

// body is what a caller asks for.
func (s *story) body(name string) apitype.Start {
	body := sim.Ephemeral(name)
	if s.theme() == oneKey || s.theme() == burst {
		body = sim.Shared(name)
	} else if now, _ := s.w.InOrganization(); !now && s.chance(600, "shared", name) {
		body = sim.Shared(name, oneOf(s.dice, [][]string{nil, {"build"}}, "labels", name)...)
	}
	if s.theme() == mixed && s.chance(300, "root volume", name) {
		body.RootVolumeGB = oneOf(s.dice, []int{20, 100}, "root volume", name)
	}
	if s.theme() == mixed && s.chance(200, "tag", name) {
		body.Tags = map[string]string{"job": oneOf(s.dice, []string{"7", "8"}, "tag", name)}
	}
	if s.theme() == mixed && s.chance(250, "needs", name) {
		body.CPU = oneOf(s.dice, []int{0, 2, 4, 8}, "cpu", name)
		body.Arch = oneOf(s.dice, []string{"", store.X86, store.ARM64}, "arch", name)
		body.GPU = oneOf(s.dice, []int{0, 0, 1}, "gpu", name)
	}
	longest := oneOf(s.dice, []time.Duration{2 * time.Minute, 7*time.Minute + 30*time.Second}, "longest timeout", name)
	if s.theme() == oneKey {
		longest = oneOf(s.dice, []time.Duration{2*time.Minute + 30*time.Second, 7*time.Minute + 30*time.Second}, "longest timeout") // half of the runner's life is the most
	}
	body.Timeout = int(s.between(time.Minute, longest, "timeout", name).Seconds())
	if end := s.w.Lives(); s.theme() == oneKey && end > time.Minute && end < longest && s.chance(500, "to the end") {
		body.Timeout = int(end.Seconds()) - 1 // all that the runner has
	}
	body.GiveUp = int(oneOf(s.dice, []time.Duration{2 * time.Minute, 6 * time.Minute, 15 * time.Minute}, "give up", name).Seconds())
	return body
}

// start asks for a runner, and again if that fails, until the caller gives up.
func (s *story) start(caller *client.Client, body apitype.Start, name string) (apitype.Started, bool) {
	for try := 0; ; try++ {
		started, err := caller.Start(context.Background(), body)
		if err == nil {
			return started, true
		}
		if try == 2 || s.chance(300, "vanishes", name) {
			return started, false
		}
		time.Sleep(s.between(time.Second, time.Minute, "tries again", name, strconv.Itoa(try)))
	}
}

// poll polls until a request is final, and queues a job for its runner.
func (s *story) poll(caller *client.Client, started apitype.Started, run, name string) {
	for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(s.between(2*time.Second, 20*time.Second, "polls", name)) {
		answered := s.w.Polls(started.ID)
		status, err := caller.Status(context.Background(), started.ID)
		answered(err)
		if errors.Is(err, client.ErrNotFound) {
			return // its record is deleted
		}
		if err != nil || !client.Final(status.State) {
			continue
		}
		if status.State == string(store.Ready) && s.chance(800, "job", name) {
			job := simgithub.Job{RunID: run, Labels: started.RunsOn, Duration: s.length(started.ID, name)}
			if _, err := s.w.GitHub.Queue(setting.RepositoryID, job); err != nil {
				s.w.Errorf("%v", err)
			}
		}
		return
	}
	s.w.Errorf("request %s had no end within an hour", started.ID)
}

// length is how long the job of a request takes.
func (s *story) length(id, name string) time.Duration {
	length := s.between(5*time.Second, 90*time.Second, "length", name)
	switch x := s.draw("long", name) % 1000; {
	case x < 100:
		return length * 6
	case x < 150 && s.w.Account.HardS <= 20*60:
		return s.w.Account.Hard(s.w.Limits) // longer than is left
	case x < 250:
		return s.w.Remains(id) + s.between(0, 45*time.Second, "until it expires", name)
	}
	return length
}
