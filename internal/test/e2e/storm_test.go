//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/ec2proxy"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestThrottleStormLosesNoRequest(t *testing.T) {
	const requests, refused = 20, 30
	w := newWorld(t, options{workers: 3, registration: map[string]any{
		"pacing": map[string]any{"burst": requests, "interval_ms": 50}, // else our own pacing keeps below EC2's rate
	}})
	w.log.expect("EC2 refuses launches for their pace") // and what to ask AWS for
	w.aws.Add(ec2proxy.Rule{Action: "RunInstances", Code: "RequestLimitExceeded", Times: refused})
	var all []apitype.Started
	for n := range requests {
		all = append(all, w.ask("1", apitype.Start{Mode: store.Ephemeral, IdempotencyKey: fmt.Sprint(n)}))
	}
	w.poll()
	ids := map[string]bool{}
	for _, s := range all {
		ids[w.configured(s).InstanceID] = true
	}
	calls, tokens := w.launches()
	if got := len(w.instances(w.runners, home)); got != requests || len(ids) != requests || len(tokens) != requests || len(calls) != requests+refused {
		t.Errorf("%d instances, %d in records, %d calls of RunInstances with %d tokens; want %d, %d, %d and %d",
			got, len(ids), len(calls), len(tokens), requests, requests, requests+refused, requests)
	}
	if q, err := store.Read[store.Quota](t.Context(), w.store, w.runners); err != nil || q.Live != requests {
		t.Errorf("quota = %d, %v; want %d in use", q.Live, err, requests)
	}
	if dead, err := w.queue.Dead(t.Context()); err != nil || len(dead) > 0 {
		t.Errorf("%d dead messages, %v; want none", len(dead), err)
	}
}

func TestDuplicatesLaunchOnce(t *testing.T) {
	const times = 10
	w := newWorld(t, options{workers: 3})
	var accepted atomic.Int64
	answers := make([]apitype.Started, times)
	token := w.token("1")
	var wg sync.WaitGroup
	for n := range times {
		wg.Go(func() {
			if w.call("POST", "/start", token, apitype.Start{}, &answers[n]) == 202 {
				accepted.Add(1)
			}
		})
	}
	wg.Wait()
	for _, a := range answers {
		if a.ID != answers[0].ID || a.OwnLabel != answers[0].OwnLabel {
			t.Fatalf("answers = %+v, want the same request each time", answers)
		}
	}
	if got := accepted.Load(); got != times {
		t.Errorf("%d of %d calls were accepted", got, times)
	}
	r, err := store.Read[store.Request](t.Context(), w.store, answers[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	for range times {
		if err := w.queue.Send(t.Context(), queue.StartOf(r), 0); err != nil {
			t.Fatal(err)
		}
	}
	w.poll()
	run := w.configured(answers[0])
	w.eventually("all messages are dealt with", func() bool {
		return len(slices.Concat(w.delivered()...)) >= times+1 // those of the calls, of which one wrote the record, and ours
	})
	w.wantOneInstance(run, 1)
	if got := len(w.runnersKept()); got != 1 {
		t.Errorf("%d runners are recorded, want one", got)
	}
}

func TestPoisonHurtsNoOtherMessage(t *testing.T) {
	w := newWorld(t, options{})
	unknown, err := queue.Encode(queue.Message{Kind: queue.Resume, ID: strings.Repeat("a", 26)})
	if err != nil {
		t.Fatal(err)
	}
	poison := []string{`{"v":1,"kind":"start","id":`, string(unknown)}
	w.log.expect("message cannot be read")
	w.log.expect(alarmed(store.AlarmUnknown))
	w.log.expect("is not recorded")
	send := func(body string) {
		if _, err := w.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &w.queueURL, MessageBody: &body}); err != nil {
			t.Fatal(err)
		}
	}
	var good []apitype.Started
	for n, body := range poison {
		good = append(good, w.ask("1", apitype.Start{Mode: store.Ephemeral, IdempotencyKey: fmt.Sprint(n)}))
		send(body)
	}
	w.poll()
	for _, s := range good {
		w.configured(s)
	}
	var dead []queue.Dead
	w.eventually("what cannot be worked on is dead", func() bool {
		if dead, err = w.queue.Dead(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(dead) == len(poison)
	})
	for _, d := range dead {
		if !slices.Contains(poison, string(d.Body)) {
			t.Errorf("the dead letter queue has %s, want %q", d.Body, poison)
		}
	}
	batches := w.delivered()
	received := map[string]int{}
	for _, body := range slices.Concat(batches...) {
		received[body]++
	}
	for _, body := range poison {
		if received[body] != queue.MaxReceives {
			t.Errorf("%s was received %d times, want %d", body, received[body], queue.MaxReceives)
		}
	}
	if first := batches[0]; len(first) != len(good)+len(poison) {
		t.Errorf("the first batch is %q, want all together", first)
	}
	if got := len(w.instances(w.runners, home)); got != len(good) {
		t.Errorf("%d instances, want %d", got, len(good))
	}
}

func TestTwoStartsShareOneMachine(t *testing.T) {
	w := newWorld(t, options{})
	w.poll()
	first := w.ask("1", apitype.Start{Labels: []string{"big"}})
	run := w.configured(first)
	second := w.ask("2", apitype.Start{Labels: []string{"big"}})
	if first.ID == second.ID || first.OwnLabel != second.OwnLabel {
		t.Errorf("two jobs got the requests %s and %s with the labels %s and %s; want two with one label", first.ID, second.ID, first.OwnLabel, second.OwnLabel)
	}
	w.eventually("the second request waits for the machine that boots", func() bool { return w.runner(second).ID == run.ID })
	if got := w.status(second).State; got != string(store.Waiting) {
		t.Errorf("the second request is %s before the machine is online, want that it waits", got)
	}
	w.boot(home, run.InstanceID)
	for _, s := range []apitype.Started{first, second} {
		w.eventually("the request is ready", func() bool { return w.status(s).State == string(store.Ready) })
	}
	third := w.ask("3", apitype.Start{Labels: []string{"big"}})
	w.eventually("the third request is ready at once", func() bool { return w.status(third).State == string(store.Ready) })
	w.wantOneInstance(run, 1)
	var stopped apitype.Stopped
	if status := w.call("POST", "/stop/"+first.ID, first.StatusToken.Reveal(), nil, &stopped); status != 202 || stopped.Draining {
		t.Errorf("POST /stop = %d, %+v; want 202, and that the machine stays for the others", status, stopped)
	}
}
