package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// t0 is when the runner of a stage was intended.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var lim = store.DefaultLimits()

// at returns the time so long after t0.
func at(d time.Duration) time.Time { return t0.Add(d) }

// stage is all that one rule or another looks at, as it is stored.
type stage struct {
	req   store.Request
	lock  store.Lock
	run   store.Runner
	quota store.Quota
	pulse store.Pulse
}

// same checks that got is want in every field.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, d)
	}
}

// accepted returns an accepted request of an hour.
func accepted(id, mode string) store.Request {
	r := store.Request{
		ID: id, Trace: "trace-" + id, Caller: "github octocat",
		Repository: store.Repository{ID: "42", Name: "alphagov/x", OwnerID: "7", Owner: "alphagov"},
		Origin:     store.Origin{RunID: "1001"},
		Account:    "123456789012", Region: "eu-west-2", Type: store.Spot, Labels: []string{"large", "linux"},
		Mode: mode, OwnLabel: "garo-own", TimeoutS: 3600,
	}.Accept(t0, lim.GiveUp)
	r.Version = 1
	return r
}

// intent returns an intent for r that nothing stands in the way of.
func intent(r store.Request) store.Intent {
	return store.Intent{
		Request: r, Lock: store.Lock{Key: r.LockKey()}, Quota: store.Quota{Account: r.Account, Limit: 1},
		Runner: "x1", ControlPlane: "test",
		Plan: []store.Placement{
			{Market: store.Spot, InstanceType: "c7i.large", Subnet: "subnet-a"},
			{Market: store.Spot, InstanceType: "c7i.large", Subnet: "subnet-b"},
			{Market: store.OnDemand, InstanceType: "c7i.large", Subnet: "subnet-a"},
		},
		Launch:     store.Launch{Image: "ami-1", HardS: 6 * 3600},
		MaxRunners: 10,
		Claim:      store.Claim{By: "worker-1", Until: at(30 * time.Second)},
		Latest:     at(20 * time.Second),
	}
}

// launching is the stage after the intent at t0: boot_by is 12:05, exp 13:05,
// hard 18:00.
func launching(t *testing.T, mode string) stage {
	t.Helper()
	var s stage
	var wait string
	s.req, s.lock, s.run, s.quota, wait, _ = intent(accepted("r1", mode)).Begin(t0, lim)
	if wait != "" {
		t.Fatalf("Begin waits: %s", wait)
	}
	s.req.Version, s.lock.Version, s.run.Version, s.quota.Version = 2, 1, 1, 1
	return s
}

// launched is the stage after RunInstances answered at 12:00:02 and the first
// config was recorded; the claim is given back.
func launched(t *testing.T, mode string) stage {
	t.Helper()
	s := launching(t, mode)
	var ok bool
	if s.run, ok = store.Launched(at(2*time.Second), s.run, "i-1"); !ok {
		t.Fatal("Launched: not ok")
	}
	if s.run, ok = s.run.Configure(at(3*time.Second), "sealed-1", 501); !ok {
		t.Fatal("Configure: not ok")
	}
	s.run = s.run.Release(at(3 * time.Second))
	return s
}

// booting is the stage after the machine got its config at 12:01.
func booting(t *testing.T, mode string) stage {
	t.Helper()
	s := launched(t, mode)
	var verdict store.BootVerdict
	s.run, s.lock, verdict, _, _ = store.BootCall(at(time.Minute), s.run, s.lock, "hash-1", "i-1")
	if verdict != store.BootGo {
		t.Fatalf("BootCall = %s, want go", verdict)
	}
	return s
}

// listening is the stage after the machine said at 12:01:10 that its runner program
// listens.
func listening(t *testing.T, mode string) stage {
	t.Helper()
	s := booting(t, mode)
	if h := s.hear(t, at(70*time.Second), store.Event{Kind: store.EventOnline, Counter: 1}); !h.Confirm || h.Lock != nil {
		t.Fatalf("after online, confirm is %v and the lock %+v; want GitHub asked first", h.Confirm, h.Lock)
	}
	return s
}

// online is the stage after GitHub showed the runner online in the same second, and
// its request was ready a second later.
func online(t *testing.T, mode string) stage {
	t.Helper()
	s := listening(t, mode)
	if verdict := s.confirm(at(70*time.Second), store.Registration{Online: true}); verdict != store.Confirmed || s.run.State != store.RunnerOnline || s.lock.State != store.LockLive {
		t.Fatalf("after %s the runner is %s and the lock %s", verdict, s.run.State, s.lock.State)
	}
	s.req, _, _ = store.Settle(at(71*time.Second), lim, s.req, s.run)
	return s
}

// busy is the stage after a job started at 12:02.
func busy(t *testing.T, mode string) stage {
	t.Helper()
	s := online(t, mode)
	s.hear(t, at(2*time.Minute), store.Event{Kind: store.EventJobStarted, Counter: 2, RunID: "1001"})
	return s
}

// idleAgain is the stage after that job was done at 12:05.
func idleAgain(t *testing.T, mode string) stage {
	t.Helper()
	s := busy(t, mode)
	s.hear(t, at(5*time.Minute), store.Event{Kind: store.EventJobDone, Counter: 3})
	return s
}

// drained is s after its runner began to drain for a reason.
func (s stage) drained(now time.Time, code string) stage {
	s.run, s.lock = store.Drain(now, s.run, s.lock, store.NewEnd(code))
	return s
}

// ended is s after EC2 said that the instance is gone.
func (s stage) ended(now time.Time) stage {
	s.run, s.lock, s.quota = store.Ended(now, lim, s.run, s.lock, s.quota, "EC2 says so")
	return s
}

// hear lets an event happen.
func (s *stage) hear(t *testing.T, now time.Time, e store.Event) store.Heard {
	t.Helper()
	h := store.Hear(now, lim, e, s.run, s.lock, s.pulse)
	if h.Runner != nil {
		s.run = *h.Runner
	}
	if h.Lock != nil {
		s.lock = *h.Lock
	}
	if h.Pulse != nil {
		s.pulse = *h.Pulse
		s.pulse.Key = s.lock.Key
	}
	return h
}

// confirm lets GitHub's word happen.
func (s *stage) confirm(now time.Time, seen store.Registration) (verdict store.Verdict) {
	s.run, s.lock, verdict = store.Confirm(now, lim, s.run, s.lock, seen)
	return verdict
}

// last returns the newest line of a story.
func last(h store.History) store.Entry { return h[len(h)-1] }
