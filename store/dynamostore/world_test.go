package dynamostore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var lim = store.DefaultLimits()

// accepted returns a request of an hour as POST /start records it.
func accepted(id string, now time.Time) store.Request {
	const ownLabel, hash = "garo-abcdefghijklmnopqrstuvwxyz", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	r := store.Request{
		ID: id, Caller: "github octocat", Trace: "Root=1-67891233-abcdef012345678912345678",
		Repository: store.Repository{ID: "123456789", Name: "alphagov/example", OwnerID: "596977", Owner: "alphagov"},
		Origin:     store.Origin{RunID: "9876543210", RunAttempt: "1", CheckRunID: "44556677", Actor: "octocat", Event: "push", Ref: "refs/heads/main", Workflow: "ci"},
		Account:    "123456789012", Region: "eu-west-2", Type: store.Spot, Labels: []string{"large", "linux"}, Mode: store.Shared,
		TimeoutS: 3600,
	}
	return store.Case{Request: r}.Accept(now, store.Identity{
		ID: id, Trace: r.Trace, BodyHash: hash, GiveUp: lim.GiveUp, OwnLabel: func(string) string { return ownLabel },
	}).Request
}

// stage is one item of each kind, as they stand when the runner that a request had
// launched is online.
type stage struct {
	request store.Request
	runner  store.Runner
	lock    store.Lock
	pulse   store.Pulse
	quota   store.Quota
	sweep   store.Sweep
}

func (s *stage) items() []store.Item {
	return []store.Item{&s.request, &s.runner, &s.lock, &s.pulse, &s.quota, &s.sweep}
}

// online takes a request of that id through the rules until its runner is online, a
// minute after now. Nothing of it is stored yet.
func online(t testing.TB, id string, now time.Time) *stage {
	t.Helper()
	var s stage
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	r := accepted(id, now)
	c := store.Case{Request: r, Lock: store.Lock{Key: r.LockKey()}, Pulse: store.Pulse{Key: r.LockKey()}, Quota: store.Quota{Account: r.Account}}
	c.Request.Version = 1
	begun := c.Begin(now, lim, store.Intent{
		Runner: "x" + id, ControlPlane: "prod",
		Plan: []store.Placement{
			{Market: store.Spot, InstanceType: "c7i.large", Subnet: "subnet-0a1b2c3d"},
			{Market: store.OnDemand, InstanceType: "c7i.large", Subnet: "subnet-0a1b2c3d"},
		},
		Launch: store.Launch{
			Image: "ami-0123456789abcdef0", SecurityGroups: []string{"sg-0a1b2c3d"}, Tags: map[string]string{"Name": "garo", "garo:runner": "x" + id},
			Script: 1, APIURL: "https://garo.example", AgentSHA256: map[string]string{"arm64": "00ff"}, HardS: 6 * 3600, KeyID: "k1",
		},
		MaxRunners: 10, Claim: store.Claim{By: "worker-1", Until: at(30)},
	})
	if begun.Wait.For != "" {
		t.Fatalf("Begin waits: %s", begun.Wait.For)
	}
	begun.Runner.Version = 1 // to the rules, version 0 is no runner
	d, launched := begun.Launched(at(2), "i-0123456789abcdef0")
	d = d.Configure(at(3), 1, "c2VhbGVk", 501, "")
	d, booted := d.Boot(at(30), lim, "5e884898da280471", "i-0123456789abcdef0")
	d, order := d.ApplyEvent(at(60), lim, store.Event{Kind: store.EventOnline, Counter: 1}, "")
	if !launched || booted != store.BootGo || order != store.OrderGo || d.Runner.ListeningAt.IsZero() {
		t.Fatalf("launched %v, boot %s, order %s, listening at %v; want the runner program listening", launched, booted, order, d.Runner.ListeningAt)
	}
	waiting := d.Request
	d.Request = store.Request{} // which is settled a second later
	d, _ = d.Confirm(at(60), lim, store.Registration{Online: true})
	d.Request = waiting
	d = d.Settle(at(61), lim)
	s.request, s.runner, s.lock, s.pulse, s.quota = d.Request, d.Runner, d.Lock, d.Pulse, d.Quota
	if s.request.State != store.Ready || s.lock.State != store.LockLive {
		t.Fatalf("request %s, lock %s; want ready and live", s.request.State, s.lock.State)
	}
	s.sweep = store.Sweep{Key: store.SweepKey(r.Account, r.Region), Instances: map[string]time.Time{"i-0fedcba9876543210": at(60)}}
	s.sweep.DueAt = at(300)
	for n, i := range s.items() {
		m := i.Base()
		m.Version, m.Writer, m.UpdatedAt = 0, fmt.Sprintf("worker-1/%d", n+1), at(61)
	}
	return &s
}
