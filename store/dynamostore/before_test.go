package dynamostore_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"

	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
)

// old reads an item as the version wrote it that took a runner into use by its
// machine's word alone. A deploy happens under live runners, and both versions read
// what the other writes.
func old(t *testing.T, i store.Item) store.Item {
	t.Helper()
	b, err := os.ReadFile("testdata/before/" + string(i.Ref().Kind) + ".json")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := attributevalue.UnmarshalMapJSON(b)
	if err != nil {
		t.Fatal(err)
	}
	back, err := dynamostore.ItemFrom(i.Ref(), stored)
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func TestLiveRunnerOfTheVersionBeforeIsToBeConfirmedByWhoWantsToShareIt(t *testing.T) {
	now := noon.Add(2 * time.Minute)
	s := online(t, "abcdefghijklmnopqrstuvwxya", noon)
	lock, run := *old(t, &s.lock).(*store.Lock), *old(t, &s.runner).(*store.Runner)
	if lock.State != store.LockLive || lock.Confirmed(now, lim) {
		t.Errorf("lock is %s, confirmed %v; want live and not", lock.State, lock.Confirmed(now, lim))
	}
	if step := store.NextStep(now, run, lock); run.State != store.RunnerOnline || !run.ListeningAt.IsZero() || step != store.StepNone {
		t.Errorf("runner is %s, listening at %v, next step %q; want online, and nothing for a worker to do", run.State, run.ListeningAt, step)
	}
	d, verdict := store.Case{Runner: run, Lock: lock}.Confirm(now, lim, store.Registration{Online: true})
	if verdict != store.Confirmed || !d.Lock.Confirmed(now, lim) {
		t.Errorf("Confirm = %s, want confirmed", verdict)
	}
	quota := old(t, &s.quota).(*store.Quota)
	if len(quota.TooOld) != 0 || quota.Live != 1 {
		t.Errorf("quota = %+v, want one runner, and no image refused", quota)
	}
	if run.Lease.Usable(now) || run.Lease.Soon(now) {
		t.Errorf("lease %+v, want none: its next registration leases as it comes", run.Lease)
	}
	// A request that the version before has wait for a slot has no turn: it gets one.
	waiting := store.Request{Region: "eu-west-2", State: store.Accepted, Wait: store.WaitPaced, Meta: store.Meta{DueAt: now}}
	if turn, _ := quota.Turn(now, waiting, store.Pacing{}); turn.At.After(now) {
		t.Errorf("the turn of a request of the version before is at %v, want now", turn)
	}
}

// A sweep of the version before has read no log of deliveries, and a job's request of it does
// not say why it lost its machine: the next look does.
func TestSweepAndRequestOfTheVersionBeforeBeginWithoutThem(t *testing.T) {
	s := online(t, "abcdefghijklmnopqrstuvwxya", noon)
	if sweep := old(t, &s.sweep).(*store.Sweep); sweep.Deliveries.Behind() || sweep.Deliveries.App != 0 || len(sweep.Checked)+len(sweep.Instances) == 0 {
		t.Errorf("the sweep is %+v, want what it had and no log", sweep)
	}
	if r := old(t, &s.request).(*store.Request); r.Lost != "" || r.State != s.request.State || r.ID != s.request.ID {
		t.Errorf("the request is %s of %s, lost %q; want %s", r.ID, r.State, r.Lost, s.request.State)
	}
}

// What the version before reads is there, and of the same type; what is new has names
// of its own, which it passes over.
func TestItemsHaveAllThatTheVersionBeforeReads(t *testing.T) {
	s := online(t, "abcdefghijklmnopqrstuvwxya", noon)
	s.runner.MissedAt, s.runner.DeleteAfter, s.runner.Refusals, s.runner.SuspectAt, s.runner.Config.Used = noon, noon, 1, noon, true
	s.quota.TooOld = []store.TooOldImage{{Image: s.runner.Launch.Image, Program: "key", Runner: s.runner.ID, At: noon}}
	s.lock.Slot, s.quota.Lines = noon, map[string]store.Line{"eu-west-2": {End: noon, First: noon, BehindMS: 500, Registered: noon}}
	s.runner.Lease = store.Lease{Credential: "c", At: noon}
	s.request.Lost = "setup_failed"
	s.sweep.Deliveries = store.DeliveryLog{App: 7, Seen: 3, Top: 5, Cursor: "next", Missed: []string{"42"}}
	for _, i := range []store.Item{&s.runner, &s.lock, &s.quota, &s.request, &s.sweep} {
		item, err := dynamostore.ItemOf(i)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile("testdata/before/" + string(i.Ref().Kind) + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var was, is any
		if err := json.Unmarshal(b, &was); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(readable(t, item), &is); err != nil {
			t.Fatal(err)
		}
		for _, lost := range missing(string(i.Ref().Kind), was, is) {
			t.Errorf("%s is no longer there, or of another type", lost)
		}
	}
}

// missing returns the paths of maps that are in was and not in is.
func missing(path string, was, is any) (lost []string) {
	a, ok := was.(map[string]any)
	if !ok {
		return nil
	}
	b, _ := is.(map[string]any)
	for name, v := range a {
		if _, ok := b[name]; !ok {
			lost = append(lost, path+"."+name)
			continue
		}
		lost = append(lost, missing(path+"."+name, v, b[name])...)
	}
	return lost
}
