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
	return store.Request{
		ID: id, Caller: "github octocat", Trace: "Root=1-67891233-abcdef012345678912345678",
		Repository: store.Repository{ID: "123456789", Name: "alphagov/example", OwnerID: "596977", Owner: "alphagov"},
		Origin:     store.Origin{RunID: "9876543210", RunAttempt: "1", CheckRunID: "44556677", Actor: "octocat", Event: "push", Ref: "refs/heads/main", Workflow: "ci"},
		Account:    "123456789012", Region: "eu-west-2", Type: store.Spot, Labels: []string{"large", "linux"}, Mode: store.Shared,
		OwnLabel: "garo-abcdefghijklmnopqrstuvwxyz", BodyHash: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", TimeoutS: 3600,
	}.Accept(now, lim.GiveUp)
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
	account := store.Quota{Account: r.Account}
	var wait string
	s.request, s.lock, s.runner, s.quota, wait, _ = store.Intent{
		Request: r, Lock: store.Lock{Key: r.LockKey()}, Quota: account, Runner: "x" + id, ControlPlane: "prod",
		Plan: []store.Placement{
			{Market: store.Spot, InstanceType: "c7i.large", Subnet: "subnet-0a1b2c3d"},
			{Market: store.OnDemand, InstanceType: "c7i.large", Subnet: "subnet-0a1b2c3d"},
		},
		Launch: store.Launch{
			Image: "ami-0123456789abcdef0", SecurityGroups: []string{"sg-0a1b2c3d"}, Tags: map[string]string{"Name": "garo", "garo:runner": "x" + id},
			Script: 1, APIURL: "https://garo.example", AgentSHA256: map[string]string{"arm64": "00ff"}, HardS: 6 * 3600, KeyID: "k1",
		},
		MaxRunners: 10, Claim: store.Claim{By: "worker-1", Until: at(30)}, Latest: at(20),
	}.Begin(now, lim)
	if wait != "" {
		t.Fatalf("Begin waits: %s", wait)
	}
	run, launched := store.Launched(at(2), s.runner, "i-0123456789abcdef0")
	run, configured := run.Configure(at(3), "c2VhbGVk", 501)
	run = run.Release(at(3))
	run.Version = 1 // to the rules, version 0 is no runner
	run, s.lock, _, _, _ = store.BootCall(at(30), run, s.lock, "5e884898da280471", "i-0123456789abcdef0")
	heard := store.Hear(at(60), lim, store.Event{Kind: store.EventOnline, Counter: 1}, run, s.lock, store.Pulse{Key: s.lock.Key})
	if !launched || !configured || heard.Runner == nil || heard.Pulse == nil {
		t.Fatalf("launched %v, configured %v, heard %+v; want the runner program listening", launched, configured, heard)
	}
	s.runner, s.lock, _ = store.Confirm(at(60), lim, *heard.Runner, s.lock, store.Registration{Online: true})
	s.pulse = *heard.Pulse
	s.request, _, _ = store.Settle(at(61), lim, s.request, s.runner)
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
