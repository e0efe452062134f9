package store_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// launchedAt returns a runner with an instance at the index of a plan.
func launchedAt(index int, plan ...store.Placement) store.Runner {
	return store.Runner{ID: "x1", State: store.RunnerLaunched, Plan: plan, Index: index, InstanceID: "i-1"}
}

func TestWhetherADeathIsWorthAnotherMachine(t *testing.T) {
	spot := store.Placement{Market: store.Spot, InstanceType: "m7i.large", Subnet: "subnet-a"}
	demand := store.Placement{Market: store.OnDemand, InstanceType: "m7i.large", Subnet: "subnet-a"}
	for _, c := range []struct {
		name   string
		run    store.Runner
		code   string
		again  bool
		people bool
	}{
		{"SpotAlone", launchedAt(0, spot), "Client.InternalError", false, true},
		{"SpotWithFallback", launchedAt(0, spot, demand), "Client.InternalError", true, true},
		{"OnDemandOfAFallback", launchedAt(1, spot, demand), "Client.InternalError", false, true},
		{"OnDemandAlone", launchedAt(0, demand), "Client.InternalError", false, true},
		{"SnapshotHasNothingToDoWithSpot", launchedAt(0, spot, demand), "Client.InvalidSnapshot.NotFound", false, true},
		{"Interrupted", launchedAt(0, spot), "Server.SpotInstanceTermination", true, false},
		{"NewCodeOfKMS", launchedAt(0, spot), "Client.KMSKeyDisabled", false, true},
		{"NewCode", launchedAt(0, spot), "Server.New", true, false},
		{"NoCode", launchedAt(0, spot), "", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			why := c.run.Death("terminated", c.code, "")
			if why.Retryable != c.again || store.PeopleMend(c.code) != c.people {
				t.Errorf("Death = %+v, for people %v; want retryable %v, for people %v", why, store.PeopleMend(c.code), c.again, c.people)
			}
		})
	}
}

func TestDeathOfAMachineThatWasOnlineIsNotOfItsLaunch(t *testing.T) {
	run := launchedAt(0, store.Placement{Market: store.Spot})
	run.OnlineAt = time.Unix(1, 0)
	if why := run.Death("terminated", "Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown"); strings.Contains(why.Text, "before it was online") {
		t.Errorf("the text is %q, want no word of the launch", why.Text)
	}
	run.State = store.RunnerOnline
	d := of(run).Died(time.Unix(2, 0), lim, store.Instance{ID: "i-1", State: "terminated", Code: "Client.UserInitiatedShutdown"})
	if got := d.Runner; len(got.Attempts) != 0 || got.State != store.RunnerDraining || told(d.Changes) != "put runner" {
		t.Errorf("runner is %s with attempts %v, changes %q; want it draining with none, and put", got.State, got.Attempts, told(d.Changes))
	}
}

func TestMachineThatSwitchedItselfOffForWantOfAConfigTellsWhatGitHubSaid(t *testing.T) {
	const off = "Client.InstanceInitiatedShutdown"
	boot := time.Unix(300, 0)
	for _, c := range []struct {
		name     string
		at       time.Time
		code     string
		unminted bool
		want     string
	}{
		{"AtItsLimit", boot, off, true, store.EndGitHubDown},
		{"Before", boot.Add(-1), off, true, store.EndTerminated},
		{"SomebodyEndedIt", boot, "Client.UserInitiatedShutdown", true, store.EndTerminated},
		{"GitHubWasNotAsked", boot, off, false, store.EndTerminated},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := launchedAt(0, store.Placement{Market: store.Spot})
			if c.unminted {
				run.Unminted = &store.Unminted{Code: store.EndGitHubDown, Text: "The last answer had status 502.", Tries: 3}
			}
			l := store.Lock{State: store.LockLaunching, Runner: run.ID, BootBy: boot}
			d := store.Case{Runner: run, Lock: l}.Died(c.at, lim, store.Instance{ID: "i-1", State: "terminated", Code: c.code})
			if changes := told(d.Changes); changes != "put runner, put lock" || d.Lock.State != store.LockDraining {
				t.Errorf("changes %q, the lock is %s; want runner and lock put, and draining", changes, d.Lock.State)
			}
			got := d.Runner
			if got.End.Code != c.want || strings.Contains(got.End.Text, "status 502") != (c.want == store.EndGitHubDown) || got.Attempts[0].Code != c.code {
				t.Errorf("the end is %+v after %v, want %s, and EC2's reason among the attempts", got.End, got.Attempts, c.want)
			}
		})
	}
}

func TestRequestLearnsOfTheDeathOfItsMachine(t *testing.T) {
	now := at(2 * time.Minute)
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		code  string
		want  store.RequestState
		out   outcome
	}{
		{"BeforeItBootedAnotherMachineMayFareBetter", launched, "Server.InternalError", store.Accepted,
			outcome{changes: "put request, put runner, put lock", sends: "request r1 due 2m30s"}},
		{"BeforeItBootedAndSpotIsAtFaultButThereIsOnDemand", launched, "Client.InternalError", store.Accepted,
			outcome{changes: "put request, put runner, put lock", sends: "request r1 due 2m30s"}},
		{"BeforeItBootedAndPeopleHaveToMendIt", launched, "Client.InvalidSnapshot.NotFound", store.Failed,
			outcome{changes: "put request, put runner, put lock"}},
		{"BootedItMayStillHaveALiveRegistration", booting, "Server.InternalError", store.Waiting,
			outcome{changes: "put runner, put lock"}},
		{"OnlineItIsReadyLongSince", online, "Server.InternalError", store.Ready, outcome{changes: "put runner, put lock"}},
		{"DrainingItIsKnownAlready", func(t *testing.T, mode string) stage { return booting(t, mode).drained(at(time.Minute), store.EndIdle) },
			"Server.InternalError", store.Waiting, outcome{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.stage(t, store.Shared)
			d := s.c().Died(now, lim, store.Instance{ID: "i-1", State: "shutting-down", Code: c.code})
			if got := outcomeOf(d); got != c.out || d.Request.State != c.want {
				t.Errorf("the request is %s and the decision %+v; want %s, %+v", d.Request.State, got, c.want, c.out)
			}
		})
	}
}

func TestOnDemandComesFirstOnceSpotWasAtFault(t *testing.T) {
	plan := []store.Placement{
		{Market: store.Spot, InstanceType: "a"}, {Market: store.Spot, InstanceType: "b"},
		{Market: store.OnDemand, InstanceType: "a"}, {Market: store.OnDemand, InstanceType: "b"},
	}
	for code, first := range map[string]string{
		"Client.InternalError":           store.OnDemand,
		"Server.SpotInstanceTermination": store.OnDemand,
		"Client.UserInitiatedShutdown":   store.Spot,
		"InsufficientInstanceCapacity":   store.Spot, // an answer to a launch, not an end
		"launched":                       store.Spot,
	} {
		r := store.Request{Attempts: []store.Attempt{{Placement: plan[0], Code: code}}}
		got := r.Prefer(plan)
		if got[0].Market != first || got[0].InstanceType != "a" || got[1].InstanceType != "b" || len(got) != 4 || plan[0].Market != store.Spot {
			t.Errorf("after %s the plan is %v, want %s first, each market in its order", code, got, first)
		}
	}
	demand := store.Request{Attempts: []store.Attempt{{Placement: plan[2], Code: "Client.InternalError"}}}
	if got := demand.Prefer(plan); !slices.Equal(got, plan) {
		t.Errorf("after the death of an on-demand machine the plan is %v, want it as it was", got)
	}
}

// TestRunnerOfTheOtherVersionIsRead holds what a deploy under live runners needs: a
// record with the newer fields is read without them, and one without them by us.
func TestRunnerOfTheOtherVersionIsRead(t *testing.T) {
	run := launchedAt(0, store.Placement{Market: store.Spot, InstanceType: "a", Subnet: "s"})
	run.Attempts = []store.Attempt{{Placement: run.Plan[0], Runner: "x1", Code: "InvalidParameterValue"}}
	run.Attempts[0].Text = "It does not fit."
	run = run.HearEC2("InternalError", "It broke.")
	b, err := json.Marshal(run)
	if err != nil {
		t.Fatal(err)
	}
	var older struct {
		ID       string `json:"id"`
		Attempts []struct {
			Market, Runner, Code string
		} `json:"attempts"`
	}
	if err := json.Unmarshal(b, &older); err != nil || older.ID != "x1" || older.Attempts[0].Code != "InvalidParameterValue" {
		t.Errorf("the older version reads %+v, %v; want the runner", older, err)
	}
	var newer store.Runner
	if err := json.Unmarshal([]byte(`{"id":"x1","state":"new","plan":[{"market":"spot"}],"attempts":[{"market":"spot","code":"Unsupported"}]}`), &newer); err != nil || newer.Said != (store.Said{}) || newer.Attempts[0].Text != "" {
		t.Errorf("a record of the older version is %+v, %v; want it without the newer fields", newer, err)
	}
	plain := launchedAt(0, run.Plan...)
	if b, err := json.Marshal(plain); err != nil || strings.Contains(string(b), `"said"`) {
		t.Errorf("a record that has nothing new is %s, %v; want it as the older version writes it", b, err)
	}
}
