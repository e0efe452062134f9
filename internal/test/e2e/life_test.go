//go:build linux

package e2e

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestMachineLivesFromItsRequestToItsEnd(t *testing.T) {
	w := newWorld(t, options{})
	w.poll()
	asked := time.Now()
	s := w.ask("9001", apitype.Start{Region: away, Labels: []string{"big"}})
	run := w.configured(s)
	w.wantLaunched(s, run, asked)

	m := w.boot(away, run.InstanceID)
	w.eventually("the request is ready", func() bool { return w.status(s).State == string(store.Ready) })
	registered := w.github.Registrations()
	if len(registered) != 1 || !registered[0].Online || strings.Join(registered[0].Labels, " ") != s.OwnLabel+" spot big" {
		t.Errorf("GitHub has %+v, want one runner online with %s, its type and its label", registered, s.OwnLabel)
	}

	job, err := w.github.Queue(shop, simgithub.Job{RunID: "7001", Labels: s.RunsOn})
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("the job is done and the machine waits for the next", func() bool {
		jobs, left := w.github.Jobs(), w.github.Registrations()
		return jobs[0].ID == job && jobs[0].State == simgithub.Done && len(left) == 1 && left[0].Online
	})
	if now := w.status(s); now.Runner == nil || now.Runner.Jobs != 1 || now.Runner.InstanceID != run.InstanceID {
		t.Errorf("status = %+v, want one job done on %s", now.Runner, run.InstanceID)
	}

	var stopped apitype.Stopped
	if status := w.call("POST", "/stop/"+s.ID, s.StatusToken.Reveal(), nil, &stopped); status != http.StatusAccepted || !stopped.Draining {
		t.Fatalf("POST /stop = %d, %+v; want 202, and that the runner drains", status, stopped)
	}
	// What the machine says meanwhile can have a run lose its commit, which the next one repeats.
	w.eventually("the reaper has the registration deleted", func() bool {
		w.reap()
		return len(w.github.Registrations()) == 0
	})
	if m.on.Err() != nil {
		t.Errorf("the power is %v when the registration is deleted, want a grace period", m.on.Err())
	}
	// The grace period of 90 s is over once the machine says that no job runs.
	w.eventually("the machine says that it is idle", func() bool { return !w.runner(s).IdleAt.IsZero() })
	w.eventually("the machine is terminated, and its runner ended", func() bool {
		w.reap()
		return w.runner(s).State == store.RunnerEnded
	})
	if run = w.runner(s); run.State != store.RunnerEnded || run.End.Code != store.EndStopped || m.on.Err() == nil {
		t.Errorf("runner %s (%+v), the power is %v; want it ended since it was stopped, and no power", run.State, run.End, m.on.Err())
	}
	if last := w.status(s); last.State != string(store.Ready) || len(last.History) == 0 || last.Runner == nil || last.Runner.State != string(store.RunnerEnded) {
		t.Errorf("status = %+v, want the story of a request that was ready", last)
	}
	w.wantAtRest()
	w.wantRights()
}

// wantLaunched checks the one machine of a request.
func (w *world) wantLaunched(s apitype.Started, run store.Runner, asked time.Time) {
	w.Helper()
	for _, place := range []struct {
		account, region string
		want            int
	}{{w.runners, away, 1}, {w.runners, home, 0}, {w.control, home, 0}, {w.control, away, 0}} {
		if got := len(w.instances(place.account, place.region)); got != place.want {
			w.Errorf("account %s has %d instances in %s, want %d", place.account, got, place.region, place.want)
		}
	}
	got := w.instances(w.runners, away)[0]
	if *got.InstanceId != run.InstanceID || got.InstanceLifecycle != types.InstanceLifecycleTypeSpot || string(got.InstanceType) != "t3a.micro" ||
		!strings.HasPrefix(*got.ClientToken, "garo-"+run.ID) || got.LaunchTime.Before(asked.Add(-time.Minute)) {
		w.Errorf("instance = %+v, want %s: spot, t3a.micro, with the token of runner %s", got, run.InstanceID, run.ID)
	}
	if o := got.MetadataOptions; o == nil || o.HttpTokens != types.HttpTokensStateRequired || o.HttpPutResponseHopLimit == nil || *o.HttpPutResponseHopLimit != 1 {
		w.Errorf("metadata options = %+v, want IMDSv2 at one hop", o)
	}
	client := w.ec2(w.runners, away)
	behaviour, err := client.DescribeInstanceAttribute(w.Context(), &ec2.DescribeInstanceAttributeInput{
		InstanceId: got.InstanceId, Attribute: types.InstanceAttributeNameInstanceInitiatedShutdownBehavior,
	})
	if err != nil || *behaviour.InstanceInitiatedShutdownBehavior.Value != "terminate" {
		w.Errorf("shutdown behaviour = %+v, %v; want that it terminates", behaviour, err)
	}
	volumes, err := client.DescribeVolumes(w.Context(), &ec2.DescribeVolumesInput{
		Filters: []types.Filter{{Name: new("attachment.instance-id"), Values: []string{run.InstanceID}}},
	})
	if err != nil || len(volumes.Volumes) != 1 {
		w.Fatalf("volumes = %+v, %v; want one", volumes, err)
	}
	want := map[string]string{
		"Name": "garo " + shop, fleet.TagControlPlane: controlPlane, fleet.TagRunner: run.ID, fleet.TagRequest: s.ID, fleet.TagRepository: shop,
	}
	for what, tags := range map[string][]types.Tag{"instance": got.Tags, "volume": volumes.Volumes[0].Tags} {
		has := map[string]string{}
		for _, tag := range tags {
			has[*tag.Key] = *tag.Value
		}
		if !maps.Equal(has, want) {
			w.Errorf("the %s has tags %v, want %v", what, has, want)
		}
	}
	d, err := bootstrap.Parse(w.userData(away, run.InstanceID))
	if err != nil || d.API != w.url || d.Runner != run.ID || d.Index != 0 || d.KeyID != "k1" || d.HardS != int(store.DefaultLimits().Hard.Seconds()) || len(d.Agent) != 1 {
		w.Errorf("user data = %+v, %v; want the API, runner %s, key k1, six hours and an agent", d, err, run.ID)
	}
}

// wantRights checks that worker and reaper took on the runner account's role as
// what they are, and did with it what is theirs.
func (w *world) wantRights() {
	w.Helper()
	did := map[string]map[string]bool{}
	for _, c := range w.aws.Calls() {
		if c.Session.Account != w.runners || !strings.HasPrefix(c.Session.Name, "garo-") {
			continue
		}
		if c.Session.Policy == "" || c.Session.SourceIdentity != "garo-"+controlPlane || c.Session.Duration > time.Hour {
			w.Errorf("%s was called in session %+v, want a policy, a source identity and at most an hour", c.Action, c.Session)
		}
		if did[c.Session.Name] == nil {
			did[c.Session.Name] = map[string]bool{}
		}
		did[c.Session.Name][c.Action] = true
	}
	for name, want := range map[string]string{
		"garo-" + controlPlane + "-worker": "GetParameter RunInstances",
		"garo-" + controlPlane + "-reaper": "DescribeInstances DescribeSpotPriceHistory DescribeSubnets GetParameter TerminateInstances",
	} {
		if got := strings.Join(slices.Sorted(maps.Keys(did[name])), " "); got != want {
			w.Errorf("session %s made the calls %s, want %s", name, got, want)
		}
	}
	if len(did) != 2 {
		w.Errorf("sessions of the runner account: %v, want the worker's and the reaper's", did)
	}
}
