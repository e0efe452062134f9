package sim_test

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// story is what happens in many worlds, each time with one other step gone wrong.
// It fails its test if it does not come to a good end.
type story struct {
	config func() sim.Config // nil: the zero one
	// tell returns the number of the effect after which its steps begin.
	tell func(w *sim.World) (after int)
	// step says which effects are steps.
	step func(kernel.Effect) bool
}

func (s story) world() sim.Config {
	if s.config == nil {
		return sim.Config{}
	}
	return s.config()
}

// steps tells the story without harm, and returns its steps.
func (s story) steps(t *testing.T) (steps []kernel.Effect) {
	sim.Run(t, s.world(), func(w *sim.World) {
		after := s.tell(w)
		for _, e := range w.Trace() {
			if e.N > after && s.step(e) {
				steps = append(steps, e)
			}
		}
	})
	if t.Failed() || len(steps) == 0 {
		t.Fatalf("the story without harm has %d steps, and failed is %t", len(steps), t.Failed())
	}
	return steps
}

// harmed tells the story once for each step and each harm. Anyone who comes next has
// to bring it to the same end.
func (s story) harmed(t *testing.T, harms map[string]func() kernel.Fate) {
	for i, step := range s.steps(t) {
		for name, harm := range harms {
			t.Run(fmt.Sprintf("%02d %s/%s", i+1, step.Name(), name), func(t *testing.T) {
				t.Parallel()
				var hit atomic.Bool
				cfg := s.world()
				cfg.Fate = func(e kernel.Effect) kernel.Fate {
					if e.Part != step.Part || e.Of != step.Of {
						return kernel.Pass
					}
					if e.Name() != step.Name() {
						t.Errorf("step %d is %q, and was %q without harm", step.Of, e.Name(), step.Name())
					}
					hit.Store(true)
					return harm()
				}
				sim.Run(t, cfg, func(w *sim.World) { s.tell(w) })
				if !hit.Load() {
					t.Error("the step was never reached")
				}
			})
		}
	}
}

// faults are the harms that an invocation can come to at a step.
func faults(fates ...kernel.Fate) map[string]func() kernel.Fate {
	harms := map[string]func() kernel.Fate{}
	for _, f := range fates {
		harms[f.String()] = func() kernel.Fate { return f }
	}
	return harms
}

// pauses are the harms that a process can come to that nobody kills: it stands
// still until its claim, its message and its context have all run out, and then
// continues as if nothing had happened.
func pauses() map[string]func() kernel.Fate {
	return map[string]func() kernel.Fate{"Pause": func() kernel.Fate {
		time.Sleep(90 * time.Second)
		return kernel.Pass
	}}
}

// good is how every story ends: its jobs are done, and once its runners are
// stopped nothing is left.
func good(w *sim.World, s apitype.Started, jobs ...string) {
	w.Helper()
	for _, j := range jobs {
		w.Until("job "+j+" to be done", time.Hour, func() bool { return w.Done(j) })
	}
	stop(w, s)
	w.Quiet(2 * time.Hour)
	w.Check()
}

// stop ends a request's runner.
func stop(w *sim.World, s apitype.Started) {
	w.Helper()
	if _, err := w.Client.Stop(w.Context(), s.ID, true); err != nil {
		w.Fatal(err)
	}
}

func ofWorker(e kernel.Effect) bool { return e.Part == kernel.Worker }

// ephemeral is the shortest story: one request, one machine, one job.
func ephemeral(w *sim.World) int {
	s := w.Start(sim.Ephemeral("a"))
	job := w.Job(s.RunsOn, 30*time.Second)
	w.Ready(s, 15*time.Minute)
	good(w, s, job)
	return 0
}

// shared has one request that launches, one that shares what is being launched,
// and one that shares what is live.
func shared(w *sim.World) int {
	a := w.Start(sim.Shared("a", "build"))
	time.Sleep(10 * time.Second)
	b := w.Start(sim.Shared("b", "build"))
	w.Ready(a, 15*time.Minute)
	w.Ready(b, 15*time.Minute)
	c := w.Start(sim.Shared("c", "build"))
	w.Ready(c, 15*time.Minute)
	good(w, c, w.Job(a.RunsOn, 30*time.Second))
	return 0
}

// twice has one shared machine that runs one job after another.
func twice(w *sim.World) int {
	s := w.Start(sim.Shared("a"))
	w.Ready(s, 15*time.Minute)
	after := len(w.Trace())
	first := w.Job(s.RunsOn, 30*time.Second)
	w.Until("the first job to be done", time.Hour, func() bool { return w.Done(first) })
	good(w, s, first, w.Job(s.RunsOn, 30*time.Second))
	return after
}

func TestEphemeralStartSurvivesHarmAtEachStepOfTheWorker(t *testing.T) {
	t.Parallel()
	story{step: ofWorker, tell: ephemeral}.harmed(t, faults(kernel.Fates...))
}

func TestSharedStartsSurviveHarmAtEachStepOfTheWorker(t *testing.T) {
	t.Parallel()
	story{step: ofWorker, tell: shared}.harmed(t, faults(kernel.Fates...))
}

func TestLaunchWithoutCapacitySurvivesHarmAtEachStepOfTheWorker(t *testing.T) {
	t.Parallel()
	story{step: ofWorker, tell: func(w *sim.World) int {
		w.Fleet.SetCapacity(simfleet.Placement{Market: store.Spot, InstanceType: "t3a.micro", Subnet: "subnet-a"}, false)
		w.Fleet.SetCapacity(simfleet.Placement{Market: store.Spot, InstanceType: "t3a.micro", Subnet: "subnet-b"}, false)
		ephemeral(w)
		return firstOf(w, kernel.Launch) - 1 // what comes before is another story
	}}.harmed(t, faults(kernel.Fates...))
}

// failsOnce returns a hook that makes the first operation of a kind fail.
func failsOnce(op string, err error) func(string, fleet.Launch) error {
	var done atomic.Bool
	return func(o string, _ fleet.Launch) error {
		if o == op && done.CompareAndSwap(false, true) {
			return err
		}
		return nil
	}
}

// failsOnceAtGitHub is the same for GitHub's API.
func failsOnceAtGitHub(op string, fault simgithub.Fault) func(string) simgithub.Fault {
	var done atomic.Bool
	return func(o string) simgithub.Fault {
		if o == op && done.CompareAndSwap(false, true) {
			return fault
		}
		return simgithub.Fault{}
	}
}

// answers is what GitHub says in place of what was asked.
func answers(status int, header ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"message":"no"}`))
	})
}

func TestTroubleSurvivesHarmAtEachStepOfTheWorker(t *testing.T) {
	t.Parallel()
	// What a worker does about one trouble has steps too: those from the call on
	// that goes wrong.
	for name, trouble := range map[string]struct {
		op     string
		config func() sim.Config
	}{
		"LaunchIsThrottled": {kernel.Launch, func() sim.Config {
			return sim.Config{EC2: failsOnce(simfleet.OpLaunch, &fleet.Error{Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded"})}
		}},
		"LaunchHasNoAnswer": {kernel.Launch, func() sim.Config {
			return sim.Config{EC2: failsOnce(simfleet.OpLaunch, errors.New("no answer"))}
		}},
		"ImageHasNoAnswer": {kernel.Image, func() sim.Config {
			return sim.Config{EC2: failsOnce(simfleet.OpImage, errors.New("no answer"))}
		}},
		"MintAnswerIsLost": {kernel.Mint, func() sim.Config {
			return sim.Config{GitHub: failsOnceAtGitHub(simgithub.OpMint, simgithub.Fault{Lose: true})}
		}},
		"MintIsLimited": {kernel.Mint, func() sim.Config {
			return sim.Config{GitHub: failsOnceAtGitHub(simgithub.OpMint, simgithub.Fault{Instead: answers(http.StatusTooManyRequests, "Retry-After", "20")})}
		}},
		"NameIsTaken": {kernel.Mint, func() sim.Config {
			return sim.Config{GitHub: failsOnceAtGitHub(simgithub.OpMint, simgithub.Fault{Instead: simgithub.NameExists("garo")})}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			tell := func(w *sim.World) int {
				ephemeral(w)
				return firstOf(w, trouble.op)
			}
			story{step: ofWorker, tell: tell, config: trouble.config}.harmed(t, faults(kernel.FailAfter, kernel.KillAfter))
		})
	}
}

// firstOf returns the number of the first effect of an operation.
func firstOf(w *sim.World, op string) int {
	for _, e := range w.Trace() {
		if e.Op == op {
			return e.N
		}
	}
	return 0
}

func TestRetrySurvivesHarmAtEachStepOfTheWorker(t *testing.T) {
	t.Parallel()
	// For a while no placement has capacity: the runner fails, and its request is
	// accepted again.
	story{step: ofWorker, tell: func(w *sim.World) int {
		w.Fleet.SetCapacity(simfleet.Placement{}, false)
		s := w.Start(sim.Ephemeral("a"))
		time.Sleep(20 * time.Second)
		w.Fleet.SetCapacity(simfleet.Placement{}, true)
		job := w.Job(s.RunsOn, 30*time.Second)
		w.Ready(s, 15*time.Minute)
		good(w, s, job)
		return 0
	}}.harmed(t, faults(kernel.FailAfter, kernel.KillAfter))
}

func TestWaitForTheQuotaSurvivesHarmAtEachStepOfTheWorker(t *testing.T) {
	t.Parallel()
	one := func() sim.Config { return sim.Config{Account: func(a *store.Account) { a.MaxRunners = 1 }} }
	story{step: ofWorker, config: one, tell: func(w *sim.World) int {
		a := w.Start(sim.Ephemeral("a"))
		w.Ready(a, 15*time.Minute)
		after := len(w.Trace())
		b := w.Start(sim.Ephemeral("b"))
		jobs := []string{w.Job(a.RunsOn, 30*time.Second), w.Job(b.RunsOn, 30*time.Second)}
		w.Ready(b, 15*time.Minute)
		good(w, b, jobs...)
		return after
	}}.harmed(t, faults(kernel.FailAfter, kernel.KillAfter))
}

func TestRefusalSurvivesHarmAtEachStepOfTheWorker(t *testing.T) {
	t.Parallel()
	// What nobody but a person can fix ends the request, once, with a reason.
	refused := func() sim.Config {
		return sim.Config{EC2: func(op string, _ fleet.Launch) error {
			if op != simfleet.OpLaunch {
				return nil
			}
			return &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "You may not."}
		}}
	}
	denied := func() sim.Config {
		return sim.Config{GitHub: func(op string) (f simgithub.Fault) {
			if op == simgithub.OpMint {
				f.Instead = answers(http.StatusForbidden)
			}
			return f
		}}
	}
	for name, config := range map[string]func() sim.Config{"OfTheLaunch": refused, "OfTheRegistration": denied} {
		t.Run(name, func(t *testing.T) {
			story{step: ofWorker, config: config, tell: func(w *sim.World) int {
				s := w.Start(sim.Ephemeral("a"))
				if r := w.Final(s, 20*time.Minute); r.State != store.Failed {
					w.Errorf("request is %s, want failed", r.State)
				}
				w.Quiet(2 * time.Hour)
				w.Check()
				return 0
			}}.harmed(t, faults(kernel.FailAfter, kernel.KillAfter))
		})
	}
}

func TestNextConfigSurvivesHarmAtEachStep(t *testing.T) {
	t.Parallel()
	story{tell: twice, step: func(e kernel.Effect) bool { return e.Part == kernel.Worker || e.For == "next" }}.harmed(t, faults(kernel.Fates...))
}

func TestStartSurvivesHarmAtEachStepOfTheAPI(t *testing.T) {
	t.Parallel()
	story{tell: ephemeral, step: func(e kernel.Effect) bool { return e.For == "POST start" }}.harmed(t, faults(kernel.Fates...))
}

func TestMachineSurvivesHarmAtEachOfItsCalls(t *testing.T) {
	t.Parallel()
	calls := map[string]bool{"boot": true, "event booting": true, "event online": true, "event job_started": true, "event job_done": true, "next": true}
	story{
		step: func(e kernel.Effect) bool { return e.Part == kernel.API && calls[e.For] && e.Op != kernel.Get },
		tell: func(w *sim.World) int { twice(w); return 0 },
	}.harmed(t, faults(kernel.KillBefore, kernel.KillAfter))
	story{
		step: func(e kernel.Effect) bool { return e.Part == kernel.Machine && calls[e.What] },
		tell: func(w *sim.World) int { twice(w); return 0 },
	}.harmed(t, faults(kernel.FailBefore, kernel.FailAfter, kernel.FailLate))
}

func TestEndSurvivesHarmAtEachStepOfTheReaper(t *testing.T) {
	t.Parallel()
	story{
		step: func(e kernel.Effect) bool { // the sweeps, which ask for lists, come between
			return e.Part == kernel.Reaper && e.Op != kernel.List && e.What != "sweep"
		},
		tell: func(w *sim.World) int {
			s := w.Start(sim.Shared("a"))
			w.Ready(s, 15*time.Minute)
			after := len(w.Trace())
			good(w, s)
			return after
		},
	}.harmed(t, faults(kernel.Fates...))
}

func TestPausedWorkerDoesNoHarmWhenItContinues(t *testing.T) {
	t.Parallel()
	// Nobody kills the process: it continues after its successor took over.
	for name, tell := range map[string]func(*sim.World) int{"Ephemeral": ephemeral, "Shared": shared} {
		t.Run(name, func(t *testing.T) {
			story{step: ofWorker, tell: tell, config: func() sim.Config { return sim.Config{KillLate: time.Hour} }}.harmed(t, pauses())
		})
	}
}
