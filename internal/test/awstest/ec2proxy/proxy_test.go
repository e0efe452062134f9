package ec2proxy_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/ec2proxy"
)

const (
	home, runners = "111122223333", "444455556666"
	region        = "eu-west-2"
)

// clock is a time that moves on demand.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// client returns an EC2 client that repeats nothing on its own.
func client(t *testing.T, p *ec2proxy.Proxy, region string) *ec2.Client {
	t.Helper()
	cfg := p.Config(t, region, runners)
	cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	return ec2.NewFromConfig(cfg)
}

// subnets returns a subnet of each zone of the default network.
func subnets(t *testing.T, c *ec2.Client) []string {
	t.Helper()
	out, err := c.DescribeSubnets(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(out.Subnets, func(a, b types.Subnet) int { return len(*a.AvailabilityZone) - len(*b.AvailabilityZone) })
	var ids []string
	for _, s := range out.Subnets {
		ids = append(ids, *s.SubnetId)
	}
	if len(ids) < 2 {
		t.Fatalf("subnets = %q, want those of several zones", ids)
	}
	return ids
}

func launch(token, subnet string) *ec2.RunInstancesInput {
	return &ec2.RunInstancesInput{
		ClientToken: &token, SubnetId: &subnet, ImageId: new("ami-12345678"), InstanceType: types.InstanceTypeC7gLarge,
		MinCount: new(int32(1)), MaxCount: new(int32(1)),
		UserData:                          new(base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\n"))),
		InstanceInitiatedShutdownBehavior: types.ShutdownBehaviorTerminate,
		TagSpecifications:                 []types.TagSpecification{{ResourceType: types.ResourceTypeInstance, Tags: []types.Tag{{Key: new("garo:runner"), Value: new("r-" + token)}}}},
	}
}

func spot(in *ec2.RunInstancesInput) *ec2.RunInstancesInput {
	in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot}
	return in
}

// code is that of an error; "lost" if no answer came.
func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	if err != nil {
		return ec2proxy.Lost
	}
	return ""
}

func must(t *testing.T, c *ec2.Client, in *ec2.RunInstancesInput) string {
	t.Helper()
	out, err := c.RunInstances(t.Context(), in)
	if err != nil {
		t.Fatalf("RunInstances %s: %v", *in.ClientToken, err)
	}
	if len(out.Instances) != 1 {
		t.Fatalf("RunInstances %s = %d instances, want one", *in.ClientToken, len(out.Instances))
	}
	return *out.Instances[0].InstanceId
}

// fails checks that a launch is refused with a code.
func fails(t *testing.T, c *ec2.Client, in *ec2.RunInstancesInput, want string) {
	t.Helper()
	if _, err := c.RunInstances(t.Context(), in); code(err) != want {
		t.Errorf("RunInstances %s = %v, want %s", *in.ClientToken, err, want)
	}
}

// listed returns the ids of all instances that pass the filters.
func listed(t *testing.T, c *ec2.Client, filters ...types.Filter) []string {
	t.Helper()
	out, err := c.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{Filters: filters})
	if err != nil {
		t.Fatalf("DescribeInstances: %v", err)
	}
	var ids []string
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			ids = append(ids, *i.InstanceId)
		}
	}
	return ids
}

func terminate(t *testing.T, c *ec2.Client, id string) {
	t.Helper()
	if _, err := c.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{id}}); err != nil {
		t.Fatalf("TerminateInstances %s: %v", id, err)
	}
}

func TestClientTokenLaunchesOnce(t *testing.T) {
	clock := newClock()
	p := ec2proxy.Start(t, ec2proxy.Config{Now: clock.now})
	c := client(t, p, region)
	nets := subnets(t, c)
	id := must(t, c, launch("t1", nets[0]))
	if again := must(t, c, launch("t1", nets[0])); again != id {
		t.Errorf("same call = %s, want %s", again, id)
	}
	out, err := c.RunInstances(t.Context(), launch("t1", nets[0]))
	if err != nil || out.Instances[0].State.Name != types.InstanceStateNameRunning || len(out.Instances[0].Tags) != 1 {
		t.Errorf("same call = %+v, %v; want it with its tag, as running as it is now", out, err)
	}
	other := launch("t1", nets[0])
	other.UserData = new(base64.StdEncoding.EncodeToString([]byte("#!/bin/bash\n")))
	fails(t, c, other, "IdempotentParameterMismatch")
	if upper := must(t, c, launch("T1", nets[0])); upper == id {
		t.Error("token in another case = the same instance, want one of its own")
	}
	if zone := must(t, c, launch("t1", nets[1])); zone == id {
		t.Error("token in another zone = the same instance, want one of its own")
	}
	elsewhere := client(t, p, "eu-west-1")
	if far := must(t, elsewhere, launch("t1", subnets(t, elsewhere)[0])); far == id {
		t.Error("token in another region = the same instance, want one of its own")
	}
	terminate(t, c, id)
	fails(t, c, launch("t1", nets[0]), "IdempotentInstanceTerminated")
	fails(t, c, other, "IdempotentParameterMismatch")
	clock.advance(24*time.Hour - 1)
	fails(t, c, launch("t1", nets[0]), "IdempotentInstanceTerminated")
	clock.advance(1)
	if fresh := must(t, c, launch("t1", nets[0])); fresh == id {
		t.Error("token a day after the end = the same instance, want a new one")
	}
}

func TestSameTokenAtOnceLaunchesOnce(t *testing.T) {
	p := ec2proxy.Start(t, ec2proxy.Config{})
	c := client(t, p, region)
	net := subnets(t, c)[0]
	ids := make([]string, 16)
	var wg sync.WaitGroup
	for n := range ids {
		wg.Go(func() {
			out, err := c.RunInstances(t.Context(), launch("t1", net))
			if err != nil {
				t.Errorf("RunInstances: %v", err)
				return
			}
			ids[n] = *out.Instances[0].InstanceId
		})
	}
	wg.Wait()
	if slices.Sort(ids); ids[0] != ids[15] || len(listed(t, c)) != 1 {
		t.Errorf("16 calls at once = %q, want one instance", ids)
	}
}

func TestFailedLaunchBindsItsToken(t *testing.T) {
	p := ec2proxy.Start(t, ec2proxy.Config{})
	c := client(t, p, region)
	nets := subnets(t, c)
	first := must(t, c, launch("t0", nets[0]))
	p.Add(ec2proxy.Rule{Action: "RunInstances", Code: "InsufficientInstanceCapacity", Times: 3})
	if again := must(t, c, launch("t0", nets[0])); again != first {
		t.Errorf("same call without capacity = %s, want the instance that there is", again)
	}
	fails(t, c, launch("t1", nets[0]), "InsufficientInstanceCapacity")
	fails(t, c, spot(launch("t1", nets[0])), "IdempotentParameterMismatch")
	must(t, c, launch("t1", nets[0]))
	if _, err := c.RunInstances(t.Context(), launch("t2", "subnet-00000000")); code(err) != "InvalidSubnetID.NotFound" {
		t.Errorf("unknown subnet = %v, want InvalidSubnetID.NotFound", err)
	}
	p.Add(ec2proxy.Rule{Action: "RunInstances", Code: "RequestLimitExceeded", Times: 1})
	fails(t, c, launch("t3", nets[0]), "RequestLimitExceeded")
	must(t, c, spot(launch("t3", nets[0]))) // throttled calls bind nothing
	if got := len(listed(t, c)); got != 3 {
		t.Errorf("instances = %d, want 3", got)
	}
}

func TestUnknownOutcomesLaunchAllTheSame(t *testing.T) {
	p := ec2proxy.Start(t, ec2proxy.Config{})
	c := client(t, p, region)
	net := subnets(t, c)[0]
	for _, r := range []ec2proxy.Rule{{After: true}, {After: true, Code: "InternalError"}} {
		want := r.Code
		if want == "" {
			want = ec2proxy.Lost
		}
		r.Action, r.Times = "RunInstances", 1
		p.Add(r)
		fails(t, c, launch("t"+want, net), want)
		if got := listed(t, c, types.Filter{Name: new("client-token"), Values: []string{"t" + want}}); len(got) != 1 || got[0] != must(t, c, launch("t"+want, net)) {
			t.Errorf("after %s = %q, want the instance of the same call", want, got)
		}
		calls := p.Calls("RunInstances")
		if got := calls[len(calls)-2].Answer; got != want {
			t.Errorf("recorded answer = %q, want %q", got, want)
		}
	}
}

func TestLateLaunchTakesEffectOnce(t *testing.T) {
	p := ec2proxy.Start(t, ec2proxy.Config{})
	c := client(t, p, region)
	net := subnets(t, c)[0]
	for _, token := range []string{"t1", "t2"} {
		p.Add(ec2proxy.Rule{Action: "RunInstances", Late: true, Times: 1})
		fails(t, c, launch(token, net), ec2proxy.Lost)
	}
	if got := listed(t, c); len(got) != 0 {
		t.Fatalf("instances before they take effect = %q, want none", got)
	}
	fails(t, c, spot(launch("t1", net)), "IdempotentParameterMismatch")
	again := must(t, c, launch("t1", net))
	for range 2 {
		if err := p.TakeEffect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := listed(t, c); len(got) != 2 || !slices.Contains(got, again) || !slices.Contains(got, must(t, c, launch("t2", net))) {
			t.Errorf("instances = %q, want one of each token", got)
		}
	}
}

func TestRulesAndBucketsChooseTheirCalls(t *testing.T) {
	clock := newClock()
	p := ec2proxy.Start(t, ec2proxy.Config{Now: clock.now, Buckets: map[string]ec2proxy.Bucket{"RunInstances": {Burst: 3, PerSecond: 2}}})
	c := client(t, p, region)
	net := subnets(t, c)[0]
	remove := p.Add(ec2proxy.Rule{Params: map[string]string{"InstanceMarketOptions.MarketType": "spot"}, Code: "MaxSpotInstanceCountExceeded"})
	fails(t, c, spot(launch("t1", net)), "MaxSpotInstanceCountExceeded")
	must(t, c, launch("t2", net))
	remove()
	must(t, c, spot(launch("t3", net)))
	fails(t, c, launch("t4", net), "RequestLimitExceeded")
	elsewhere := client(t, p, "eu-west-1")
	must(t, elsewhere, launch("t4", subnets(t, elsewhere)[0])) // has a bucket of its own
	clock.advance(500 * time.Millisecond)
	must(t, c, launch("t4", net))
	fails(t, c, launch("t5", net), "RequestLimitExceeded")

	stop := spot(launch("t6", net))
	stop.InstanceInitiatedShutdownBehavior = types.ShutdownBehaviorStop
	clock.advance(time.Second)
	fails(t, c, stop, "InvalidParameterCombination")
	profile := launch("t7", net)
	profile.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: new("nobody")}
	fails(t, c, profile, "InvalidParameterValue")
}

func TestDescribeFiltersAndPages(t *testing.T) {
	p := ec2proxy.Start(t, ec2proxy.Config{})
	c := client(t, p, region)
	net := subnets(t, c)[0]
	var ids []string
	for _, token := range []string{"a1", "a2", "a3", "b1", "b2", "b3", "b4"} {
		in := launch(token, net)
		if token[0] == 'b' {
			in = spot(in)
		}
		ids = append(ids, must(t, c, in))
	}
	for _, f := range []struct {
		name, value string
		want        []string
	}{
		{"client-token", "a2", ids[1:2]},
		{"client-token", "a*", ids[:3]},
		{"instance-lifecycle", "spot", ids[3:]},
		{"tag:garo:runner", "r-b1", ids[3:4]},
		{"tag:garo:runner", "r-b*", ids[3:]},
		{"instance-state-name", "running", ids},
		{"client-token", "A1", nil},
	} {
		if got := listed(t, c, types.Filter{Name: &f.name, Values: []string{f.value}}); !slices.Equal(got, f.want) {
			t.Errorf("%s %s = %q, want %q", f.name, f.value, got, f.want)
		}
	}
	if got := listed(t, c, types.Filter{Name: new("instance-lifecycle"), Values: []string{"spot"}}, types.Filter{Name: new("tag:garo:runner"), Values: []string{"r-b1", "r-a1"}}); !slices.Equal(got, ids[3:4]) {
		t.Errorf("two filters = %q, want what passes both", got)
	}
	if _, err := c.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{Filters: []types.Filter{{Name: new("launch-time"), Values: []string{"x"}}}}); code(err) != "InvalidParameterValue" {
		t.Errorf("filter that is not known = %v, want InvalidParameterValue", err)
	}
	var got []string
	pages := ec2.NewDescribeInstancesPaginator(c, &ec2.DescribeInstancesInput{MaxResults: new(int32(5))})
	var sizes []int
	for pages.HasMorePages() {
		out, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(out.Reservations))
		for _, r := range out.Reservations {
			got = append(got, *r.Instances[0].InstanceId)
		}
	}
	if !slices.Equal(sizes, []int{5, 2}) || !slices.Equal(got, ids) {
		t.Errorf("pages of %v with %q, want 5 and 2 with %q", sizes, got, ids)
	}
}

func TestViewLagsAndForgets(t *testing.T) {
	clock := newClock()
	p := ec2proxy.Start(t, ec2proxy.Config{Now: clock.now, Lag: time.Minute})
	c := client(t, p, region)
	id := must(t, c, launch("t1", subnets(t, c)[0]))
	byID := func() string {
		_, err := c.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
		return code(err)
	}
	clock.advance(time.Minute - 1)
	if got := listed(t, c); len(got) != 0 || byID() != "InvalidInstanceID.NotFound" {
		t.Errorf("before the view has it: %q and %q, want nothing", got, byID())
	}
	_, err := c.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
	if code(err) != "InvalidInstanceID.NotFound" {
		t.Errorf("TerminateInstances before the view has it = %v, want not found", err)
	}
	clock.advance(1)
	if got := listed(t, c); len(got) != 1 || byID() != "" {
		t.Errorf("once the view has it: %q and %q, want it", got, byID())
	}
	terminate(t, c, id)
	terminate(t, c, id)
	clock.advance(time.Hour - 1)
	if got := byID(); got != "" {
		t.Errorf("an hour after its end = %q, want it still there", got)
	}
	clock.advance(1)
	if got := byID(); got != "InvalidInstanceID.NotFound" {
		t.Errorf("more than an hour after its end = %q, want it gone", got)
	}
	_, err = c.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{"i-nonsense"}})
	if code(err) != "InvalidInstanceID.Malformed" {
		t.Errorf("TerminateInstances of no id = %v, want malformed", err)
	}
}

func TestRoleIsTakenOnAcrossAccounts(t *testing.T) {
	const role = "arn:aws:iam::" + runners + ":role/GitHubRunnerAssumeRole"
	const policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ec2:DescribeInstances","ec2:DescribeSubnets","ssm:GetParameter"],"Resource":"*"}]}`
	clock := newClock()
	p := ec2proxy.Start(t, ec2proxy.Config{Now: clock.now, Roles: map[string]ec2proxy.Role{role: {ExternalID: "right", SourceIdentity: "garo-*"}}})
	cfg := p.Config(t, region, home)
	cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	taken := func(id string) aws.Config {
		as := cfg.Copy()
		as.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), role, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName, o.ExternalID, o.SourceIdentity, o.Policy = "garo-test-worker", &id, new("garo-test"), new(policy)
		}))
		return as
	}
	if _, err := taken("wrong").Credentials.Retrieve(t.Context()); code(err) != "AccessDenied" {
		t.Errorf("AssumeRole with a wrong external id = %v, want AccessDenied", err)
	}
	if got := p.Sessions(); len(got) != 0 {
		t.Errorf("sessions = %+v, want none", got)
	}
	as := taken("right")
	c := ec2.NewFromConfig(as)
	fails(t, c, launch("t1", subnets(t, c)[0]), "UnauthorizedOperation")
	if got := listed(t, c); len(got) != 0 {
		t.Errorf("instances = %q, want none", got)
	}
	_, err := ssm.NewFromConfig(as).GetParameter(t.Context(), &ssm.GetParameterInput{Name: new("/github/runner/pat")})
	if code(err) != "ParameterNotFound" {
		t.Errorf("GetParameter = %v, want moto's answer", err)
	}
	_, err = ssm.NewFromConfig(as).DeleteParameter(t.Context(), &ssm.DeleteParameterInput{Name: new("/github/runner/pat")})
	if code(err) != "AccessDeniedException" {
		t.Errorf("DeleteParameter = %v, want AccessDeniedException", err)
	}
	all := p.Sessions()
	if len(all) != 1 || all[0].Account != runners || all[0].ExternalID != "right" || all[0].SourceIdentity != "garo-test" || all[0].Policy != policy {
		t.Errorf("sessions = %+v, want the one with what was sent", all)
	}
	who, err := sts.NewFromConfig(as).GetCallerIdentity(t.Context(), nil)
	if err != nil || *who.Account != runners {
		t.Errorf("GetCallerIdentity = %+v, %v; want account %s", who, err, runners)
	}
	calls := p.Calls("RunInstances", "GetParameter")
	if len(calls) != 2 || calls[0].Account != runners || calls[0].Region != region || calls[0].Session.Name != "garo-test-worker" ||
		calls[0].Params.Get("ClientToken") != "t1" || calls[0].Answer != "UnauthorizedOperation" || calls[1].Service != "ssm" || calls[1].Body == "" {
		t.Errorf("calls = %+v, want the launch and the parameter in the runner account", calls)
	}
	clock.advance(time.Hour)
	if _, err := c.DescribeInstances(t.Context(), nil); code(err) != "RequestExpired" {
		t.Errorf("with a session of an hour ago = %v, want RequestExpired", err)
	}
	_, err = sts.NewFromConfig(cfg).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: new(role), RoleSessionName: new("x1"), ExternalId: new("right"), DurationSeconds: new(int32(3601))})
	if code(err) != "ValidationError" {
		t.Errorf("chained for more than an hour = %v, want ValidationError", err)
	}
}

func TestLatencyIsOfEveryCallAndLeavesRulesAlone(t *testing.T) {
	p := ec2proxy.Start(t, ec2proxy.Config{})
	c := client(t, p, region)
	net := subnets(t, c)[0]
	const latency, calls = 100 * time.Millisecond, 3
	p.SetLatency(latency)
	p.Add(ec2proxy.Rule{Action: "RunInstances", Code: "InsufficientInstanceCapacity", Times: 1})
	began := time.Now()
	fails(t, c, launch("t1", net), "InsufficientInstanceCapacity")
	must(t, c, launch("t1", net))
	listed(t, c)
	if took := time.Since(began); took < calls*latency {
		t.Errorf("%d calls took %v, want at least %v each", calls, took, latency)
	}
}

func TestRulesSlowCallsAndWatchThem(t *testing.T) {
	p := ec2proxy.Start(t, ec2proxy.Config{})
	c := client(t, p, region)
	net := subnets(t, c)[0]
	const wait = 200 * time.Millisecond
	before := make(chan int, 1)
	p.Add(ec2proxy.Rule{Action: "RunInstances", Wait: wait, Do: func(call ec2proxy.Call) {
		before <- len(listed(t, c))
		if call.Params.Get("ClientToken") != "t1" {
			t.Errorf("call = %+v, want that of t1", call)
		}
	}})
	began := time.Now()
	must(t, c, launch("t1", net))
	if took, n := time.Since(began), <-before; took < wait || n != 0 {
		t.Errorf("RunInstances took %v with %d instances before it, want at least %v and none", took, n, wait)
	}
}

func TestMachineThatDiesShowsItsReason(t *testing.T) {
	p := ec2proxy.Start(t, ec2proxy.Config{})
	c := client(t, p, region)
	subnet := subnets(t, c)[0]
	out, err := c.RunInstances(t.Context(), launch("t1", subnet))
	if err != nil {
		t.Fatal(err)
	}
	id := *out.Instances[0].InstanceId
	p.Die(id, "Client.InternalError", "Client.InternalError: Client error on <launch>")
	got, err := c.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	if err != nil {
		t.Fatal(err)
	}
	i := got.Reservations[0].Instances[0]
	if i.State.Name != types.InstanceStateNameTerminated || i.StateReason == nil || *i.StateReason.Code != "Client.InternalError" || *i.StateReason.Message != "Client.InternalError: Client error on <launch>" {
		t.Errorf("the instance is %s for %+v, want it terminated, and why", i.State.Name, i.StateReason)
	}
	_, err = c.RunInstances(t.Context(), launch("t1", subnet))
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "IdempotentInstanceTerminated" {
		t.Errorf("the same launch again = %v, want IdempotentInstanceTerminated", err)
	}
}

func TestTypeOfAnotherArchitectureIsRefusedInEC2sWords(t *testing.T) {
	p := ec2proxy.Start(t, ec2proxy.Config{})
	c := client(t, p, region)
	images, err := c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Filters: []types.Filter{{Name: new("architecture"), Values: []string{"x86_64"}}}})
	if err != nil || len(images.Images) == 0 {
		t.Fatalf("DescribeImages = %d images, %v; want some", len(images.Images), err)
	}
	in := launch("t1", subnets(t, c)[0])
	in.ImageId, in.InstanceType = images.Images[0].ImageId, types.InstanceTypeM7gLarge
	_, err = c.RunInstances(t.Context(), in)
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "InvalidParameterValue" || !strings.Contains(e.ErrorMessage(), "does not match the architecture 'x86_64'") {
		t.Errorf("RunInstances = %v, want the mismatch", err)
	}
	in.ClientToken, in.InstanceType = new("t2"), types.InstanceTypeM7iLarge
	if _, err := c.RunInstances(t.Context(), in); err != nil {
		t.Errorf("RunInstances of the right type = %v", err)
	}
}

func TestGroupIsTerminatedAsEC2Says(t *testing.T) {
	p := ec2proxy.Start(t, ec2proxy.Config{})
	c := client(t, p, region)
	nets := subnets(t, c)
	zones := map[string][]string{} // of two instances each
	for n, net := range nets[:3] {
		for k := range 2 {
			out, err := c.RunInstances(t.Context(), launch(fmt.Sprintf("t%d%d", n, k), net))
			if err != nil {
				t.Fatal(err)
			}
			zone := *out.Instances[0].Placement.AvailabilityZone
			zones[zone] = append(zones[zone], *out.Instances[0].InstanceId)
		}
	}
	var groups [][]string
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		groups = append(groups, zones[zone])
	}
	if len(groups) < 2 {
		t.Fatalf("the instances are in %d zones, want some", len(groups))
	}
	all := slices.Concat(groups...)
	alive := func() []string {
		return listed(t, c, types.Filter{Name: aws.String("instance-state-name"), Values: []string{"pending", "running"}})
	}
	_, err := c.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: append(slices.Clone(all), "i-0123456789abcdef0")})
	if code(err) != "InvalidInstanceID.NotFound" || len(alive()) != len(all) {
		t.Errorf("TerminateInstances with one unknown = %v, and %d of %d live; want not found, and all", err, len(alive()), len(all))
	}
	p.Protect(groups[0][0])
	_, err = c.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: all})
	got, want := alive(), slices.Clone(groups[0])
	slices.Sort(got)
	slices.Sort(want)
	if code(err) != "OperationNotPermitted" || !slices.Equal(got, want) {
		t.Errorf("TerminateInstances with one protected = %v, and %v live; want not permitted, and those of its zone: %v", err, got, want)
	}
}
