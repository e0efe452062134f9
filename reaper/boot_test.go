package reaper_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestMachineThatEC2EndsAtOnceIsToldInTheNextRun(t *testing.T) {
	for _, c := range []struct {
		code, words string
		want        store.RequestState
		says        string // in the end of the runner, beside EC2's words
		end         string
		alarms      []store.Alarm
	}{
		{"Client.InternalError", "Client.InternalError: Client error on launch", store.Failed, "AWSServiceRoleForEC2Spot", store.EndTerminated, []store.Alarm{store.AlarmLaunchRefused}},
		{"Client.InvalidSnapshot.NotFound", "Client.InvalidSnapshot.NotFound: The specified snapshot was not found.", store.Failed, "image", store.EndTerminated, []store.Alarm{store.AlarmLaunchRefused}},
		{"Client.KMSKeyNotAccessible", "The key is disabled", store.Failed, "KMS key", store.EndTerminated, []store.Alarm{store.AlarmLaunchRefused}},
		{"Client.VolumeLimitExceeded", "Client.VolumeLimitExceeded: Volume limit exceeded", store.Accepted, "quota", store.EndTerminated, nil},
		{"Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown", store.Accepted, "CloudTrail", store.EndTerminated, nil},
		{"Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown", store.Accepted, "its console", store.EndTerminated, nil},
		{"Server.InternalError", "Server.InternalError: Internal error on launch", store.Accepted, "EC2's own", store.EndTerminated, nil},
		{"Server.SpotInstanceTermination", "Server.SpotInstanceTermination: Spot instance termination", store.Accepted, "spot_fallback", store.EndSpot, nil},
		{"Server.SomethingNew", "It broke", store.Accepted, "It broke (Server.SomethingNew)", store.EndTerminated, nil},
		{"", "", store.Accepted, "does not say why", store.EndTerminated, nil},
	} {
		t.Run(c.code, func(t *testing.T) {
			inWorld(t, func(w *world) {
				run := w.launch(w.begin(w.accept("r")))
				w.run()
				time.Sleep(20 * time.Second)
				w.fleet.kill(here, run.InstanceID, fleet.Terminated, c.code, c.words)
				time.Sleep(40 * time.Second)
				w.queue.take()
				w.run()

				if run = w.wantRunner(run.ID, store.RunnerEnded); run.End == nil {
					t.FailNow()
				}
				if w.live() != 0 || w.lock(run.Lock).State != store.LockEmpty {
					t.Errorf("quota %d, lock %s; want both given back", w.live(), w.lock(run.Lock).State)
				}
				for _, want := range []string{strings.TrimSuffix(strings.TrimPrefix(c.words, c.code+": "), "."), c.code, c.says} {
					if !strings.Contains(run.End.Text, want) || run.End.Code != c.end {
						t.Errorf("the runner's end is %v, want %s with %q", run.End, c.end, want)
					}
				}
				q := w.wantRequest(run.Request, c.want)
				if c.want == store.Failed && (q.Error == nil || *q.Error != *run.End) {
					t.Errorf("the request says %v, want what its runner says: %v", q.Error, run.End)
				}
				if c.code != "" && (len(q.Attempts) != 2 || q.Attempts[1].Code != c.code) {
					t.Errorf("attempts %v, want the launch and its end", q.Attempts)
				}
				sent := w.queue.take()
				if again := len(sent) == 1 && sent[0].Message == queue.StartOf(q) && sent[0].delay == w.lim.Waits[0]; again != (c.want == store.Accepted) {
					t.Errorf("sent %v, want the next try: %v", sent, c.want == store.Accepted)
				}
				w.wantAlarms(c.alarms...)
			})
		})
	}
}

func TestLastTryFailsWithEC2sReason(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.launch(w.begin(w.accept("r", func(q *store.Request) { q.Tries = 3 })))
		w.fleet.kill(here, run.InstanceID, fleet.Terminated, "Server.InternalError", "Server.InternalError: Internal error on launch")
		w.minutes(1)
		q := w.wantRequest(run.Request, store.Failed)
		if q.Error == nil || !strings.Contains(q.Error.Text, "Internal error on launch (Server.InternalError)") || !q.Error.Retryable {
			t.Errorf("the request says %v, want EC2's reason, and that a new start may do", q.Error)
		}
	})
}

func TestSpotMachineThatDiesOfSpotIsTriedOnDemand(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.begin(w.accept("r"))
		run.Plan = append(run.Plan, store.Placement{Market: store.OnDemand, InstanceType: "m7i.large", Subnet: "subnet-a"})
		run = w.launch(run)
		w.fleet.kill(here, run.InstanceID, fleet.Terminated, "Client.InternalError", "Client.InternalError: Client error on launch")
		w.minutes(1)
		q := w.wantRequest(run.Request, store.Accepted)
		if plan := q.Prefer(run.Plan); plan[0].Market != store.OnDemand || len(plan) != len(run.Plan) {
			t.Errorf("the next plan is %v, want on demand first", plan)
		}
		w.wantAlarms(store.AlarmLaunchRefused) // spot does not work there, whatever the next try comes to
	})
}

func TestMachineThatIsEndingIsGivenUpAtOnce(t *testing.T) {
	for _, state := range []fleet.State{fleet.ShuttingDown, fleet.Stopping, fleet.Stopped} {
		t.Run(string(state), func(t *testing.T) {
			inWorld(t, func(w *world) {
				run := w.launch(w.begin(w.accept("r")))
				w.fleet.kill(here, run.InstanceID, state, "Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")
				time.Sleep(time.Minute)
				w.run()
				if got := w.runner(run.ID); got.State.Usable() || !strings.Contains(got.End.Text, string(state)) {
					t.Errorf("runner is %s (%v), want it given up in that run", got.State, got.End)
				}
				w.wantRequest(run.Request, store.Accepted)
				w.minutes(3)
				w.wantRunner(run.ID, store.RunnerEnded)
			})
		})
	}
}

func TestMachineThatDiesBetweenBootAndOnlineIsTold(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.boot(w.configure(w.launch(w.begin(w.accept("r")))))
		w.minutes(1)
		w.fleet.kill(here, run.InstanceID, fleet.Terminated, "Server.SpotInstanceTermination", "Server.SpotInstanceTermination: Spot instance termination")
		w.minutes(1)
		w.wantRunner(run.ID, store.RunnerEnded)
		w.wantRequest(run.Request, store.Accepted)
		w.minutes(1)
		if names := w.hub.names("42"); len(names) != 0 {
			t.Errorf("GitHub has %v, want nothing", names)
		}
	})
}

func TestNothingFollowsFromAMachineThatEC2DoesNotShowYet(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.launch(w.begin(w.accept("r")))
		w.fleet.hidden[run.InstanceID] = true
		w.minutes(4)
		w.wantRunner(run.ID, store.RunnerLaunched)
		w.fleet.fail = func(op string, _ fleet.Place, _ string) error {
			if op == "get" {
				return &fleet.Error{Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded", Text: "Request limit exceeded."}
			}
			return nil
		}
		time.Sleep(time.Minute + time.Second)
		_, _ = w.try() // the failed call is reported
		if got := w.runner(run.ID); got.End == nil || got.End.Code != store.EndNoBoot {
			t.Errorf("runner is %s (%v), want %s: boot_by holds whether EC2 answers or not", got.State, got.End, store.EndNoBoot)
		}
	})
}

func TestMachinesThatBootAreAskedForAtOnceAndOnlineOnesNotAtAll(t *testing.T) {
	inWorld(t, func(w *world) {
		w.online("online")
		for n := range 101 {
			w.launch(w.begin(w.accept("boot" + strings.Map(func(r rune) rune { return 'a' + r - '0' }, fmt.Sprintf("%03d", n)))))
		}
		w.run()
		gets := slices.DeleteFunc(slices.Clone(w.fleet.calls), func(c string) bool { return !strings.HasPrefix(c, "get ") })
		slices.Sort(gets)
		if !slices.Equal(gets, []string{"get 1", "get 100"}) {
			t.Errorf("EC2 was asked %v, want 101 machines in two calls", gets)
		}
	})
}

func TestDryRunLeavesADeadMachineAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		run := w.launch(w.begin(w.accept("r")))
		w.fleet.kill(here, run.InstanceID, fleet.Terminated, "Server.InternalError", "Internal error on launch")
		w.config.DryRun = true
		r := w.run()
		w.wantRunner(run.ID, store.RunnerLaunched)
		w.wantRequest(run.Request, store.Waiting)
		if got := lines(r, reaper.Ended); !slices.Contains(got, "runner "+run.ID) || len(w.queue.take()) != 0 {
			t.Errorf("the report has %v, want that the runner would end, and nothing sent", got)
		}
	})
}
