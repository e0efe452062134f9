//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/ec2proxy"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/runtimeapi"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// launches are the RunInstances calls so far, by client token in the order of the
// first use.
func (w *world) launches() (calls []ec2proxy.Call, tokens []string) {
	calls = w.aws.Calls("RunInstances")
	for _, c := range calls {
		if token := c.Params.Get("ClientToken"); !slices.Contains(tokens, token) {
			tokens = append(tokens, token)
		}
	}
	return calls, tokens
}

// wantOneInstance checks that the only instance is that of the runner, after so
// many RunInstances calls with one token and the same parameters.
func (w *world) wantOneInstance(run store.Runner, calls int) {
	w.Helper()
	got := w.instances(w.runners, home)
	if len(got) != 1 || *got[0].InstanceId != run.InstanceID {
		w.Errorf("%d instances, want the one that the record names", len(got))
	}
	made, tokens := w.launches()
	if len(made) != calls || len(tokens) != 1 {
		w.Errorf("%d calls of RunInstances with the tokens %q, want %d with one token", len(made), tokens, calls)
	}
	for _, c := range made {
		if c.Params.Encode() != made[0].Params.Encode() {
			w.Errorf("a repeated call differs from the first: %v and %v", c.Params, made[0].Params)
		}
	}
	if minted := w.github.Minted(); len(minted) != 1 {
		w.Errorf("%d registrations were made at GitHub, want one", len(minted))
	}
}

func TestSpotFallsBackToOnDemand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code  string
		calls int // of RunInstances
	}{
		{"MaxSpotInstanceCountExceeded", 2}, // which is the account's limit: no other spot placement has room
		{"InsufficientInstanceCapacity", 3}, // of each of the two subnets
	} {
		t.Run(c.code, func(t *testing.T) {
			w := newWorld(t, options{})
			w.aws.Add(ec2proxy.Rule{Action: "RunInstances", Params: map[string]string{"InstanceMarketOptions.MarketType": "spot"}, Code: c.code})
			w.poll()
			s := w.ask("1", apitype.Start{})
			run := w.configured(s)
			got := w.instances(w.runners, home)
			if len(got) != 1 || *got[0].InstanceId != run.InstanceID || got[0].InstanceLifecycle == types.InstanceLifecycleTypeSpot {
				t.Errorf("instances = %+v, want one, on demand", got)
			}
			calls, tokens := w.launches()
			if len(calls) != c.calls || len(tokens) != c.calls {
				t.Errorf("%d calls of RunInstances with the tokens %q, want %d with one each", len(calls), tokens, c.calls)
			}
			attempts := w.status(s).Attempts
			if len(attempts) != c.calls || attempts[0].Market != store.Spot || attempts[0].Code != c.code ||
				attempts[c.calls-1].Market != store.OnDemand || attempts[c.calls-1].Code != "launched" {
				t.Errorf("attempts = %+v, want what became of each", attempts)
			}
			w.boot(home, run.InstanceID)
			w.eventually("the request is ready", func() bool { return w.status(s).State == string(store.Ready) })
		})
	}
}

// The worker has 11 s in place of 30, so that its claim on the runner, which holds
// until it is surely gone, is over in 13 s: three above what must be left for a
// launch.
const (
	shortly = 11 * time.Second
	claimed = shortly + 2*time.Second
)

func TestWorkerKilledDuringALaunchIsResumedWithTheSameMachine(t *testing.T) {
	w := newWorld(t, options{workerTimeout: shortly, redeliver: claimed})
	w.aws.Add(ec2proxy.Rule{Action: "RunInstances", Times: 1, Do: func(ec2proxy.Call) { w.workers[0].Kill() }}) // then it takes effect
	w.poll()
	s := w.ask("1", apitype.Start{})
	run := w.configured(s)
	w.wantOneInstance(run, 2)
	if e, ok := errors.AsType[*runtimeapi.Error](errors.Join(w.takeCrashes()...)); !ok || e.Type != "Runtime.ExitError" {
		t.Errorf("the invocation ended with %v, want that its process was killed", e)
	}
	w.boot(home, run.InstanceID)
	w.eventually("the request is ready", func() bool { return w.status(s).State == string(store.Ready) })
}

func TestUnknownOutcomeLaunchesOnce(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]ec2proxy.Rule{
		"AnswerLost":             {After: true},
		"LaunchedOnlyAfterwards": {Late: true},
		"InternalError":          {After: true, Code: "InternalError"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{workerTimeout: shortly})
			rule.Action, rule.Times = "RunInstances", 1
			w.aws.Add(rule)
			w.poll()
			s := w.ask("1", apitype.Start{})
			run := w.configured(s)
			w.wantOneInstance(run, 2)
			w.boot(home, run.InstanceID)
			w.eventually("the request is ready", func() bool { return w.status(s).State == string(store.Ready) })
		})
	}
}

func TestWrongExternalIDFailsTheRequest(t *testing.T) {
	const demanded = "another-external-id"
	w := newWorld(t, options{externalID: demanded})
	w.hide("the external id that the role demands", demanded)
	w.log.expect(alarmed(store.AlarmAccess))
	w.log.expect(alarmed(store.AlarmLaunchRefused))
	w.poll()
	for n, image := range []string{
		publicImage, // an SSM parameter: the role is needed before there is a runner
		someImage,   // the role is needed by the launch itself
	} {
		s := w.ask(fmt.Sprint(n), apitype.Start{ImageID: image})
		var now apitype.Status
		w.eventually("the request has failed", func() bool {
			now = w.status(s)
			return now.State == string(store.Failed)
		})
		if e := now.Error; e == nil || e.Code != store.EndLaunchDenied || e.Retryable || !strings.Contains(e.Text, "account "+w.runners) ||
			!strings.Contains(e.Text, "role/GitHubRunnerAssumeRole") || !strings.Contains(e.Text, "external id") || strings.Contains(e.Text, w.externalID) {
			t.Errorf("with %s the request failed with %+v, want the account, the role and what to check", image, e)
		}
	}
	if err := w.tick(); err != nil {
		t.Errorf("the reaper's run failed for the sake of one account: %v", err)
	}
	if calls, _ := w.launches(); len(calls) > 0 || len(w.github.Minted()) > 0 {
		t.Errorf("%d calls of RunInstances and %d registrations, want none", len(calls), len(w.github.Minted()))
	}
	w.wantAtRest()
}
