package ec2fleet_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/awshttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/ec2fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/fleettest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/ec2proxy"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	own        = "999999999999" // the control plane's account
	externalID = "garo-external-1"
)

// elsewhere is another account and another region.
var elsewhere = fleet.Place{Account: "222222222222", Region: "us-east-1"}

// cloud is moto behind a proxy that knows EC2's rules, with a role in each of two
// accounts.
type cloud struct {
	*ec2proxy.Proxy
	cfg aws.Config // of the control plane

	mu    sync.Mutex
	ahead time.Duration
}

func start(t *testing.T, cfg ec2proxy.Config) *cloud {
	t.Helper()
	return startWith(t, cfg, ec2proxy.Role{ExternalID: externalID, SourceIdentity: "garo-*"})
}

// startWith is start with another role.
func startWith(t *testing.T, cfg ec2proxy.Config, role ec2proxy.Role) *cloud {
	t.Helper()
	c := &cloud{}
	cfg.Now = c.now
	cfg.Roles = map[string]ec2proxy.Role{}
	for _, account := range []string{here.Account, elsewhere.Account} {
		cfg.Roles["arn:aws:iam::"+account+":role/GitHubRunnerAssumeRole"] = role
	}
	c.Proxy = ec2proxy.Start(t, cfg)
	c.cfg = c.Config(t, here.Region, own)
	http := awshttp.Client(10 * time.Second)
	c.cfg.HTTPClient = http
	t.Cleanup(http.CloseIdleConnections)
	return c
}

func (c *cloud) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

// pass lets time pass at AWS.
func (c *cloud) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// part returns the fleet of a part of the control plane.
func (c *cloud) part(part assume.Part, externalID string) *ec2fleet.Fleet {
	f := ec2fleet.New(c.cfg, assume.New(assume.Config{AWS: c.cfg, Accounts: one{externalID}, ControlPlane: "prod", Part: part}))
	f.SetPageSize(5) // EC2's least
	return f
}

// parts is a fleet whose machines the worker launches and the reaper ends, each
// with its own session policy.
type parts struct {
	*ec2fleet.Fleet
	reaper *ec2fleet.Fleet
}

func (p parts) SpotPrices(ctx context.Context, at fleet.Place, types, subnets []string) (map[string]store.MicroUSD, map[string]string, error) {
	return p.reaper.SpotPrices(ctx, at, types, subnets)
}

func (p parts) Terminate(ctx context.Context, at fleet.Place, ids ...string) error {
	return p.reaper.Terminate(ctx, at, ids...)
}

// direct returns a client of an account's own.
func (c *cloud) direct(t *testing.T, at fleet.Place) *ec2.Client {
	t.Helper()
	return ec2.NewFromConfig(c.Config(t, at.Region, at.Account))
}

// subnets returns two subnets of one zone and one of another.
func (c *cloud) subnets(t *testing.T, at fleet.Place) (subnet, same, other string) {
	t.Helper()
	client := c.direct(t, at)
	found, err := client.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{})
	if err != nil {
		t.Fatalf("DescribeSubnets: %v", err)
	}
	a, b := found.Subnets[0], found.Subnets[1]
	made, err := client.CreateSubnet(t.Context(), &ec2.CreateSubnetInput{
		VpcId: a.VpcId, AvailabilityZone: a.AvailabilityZone, CidrBlock: aws.String("172.31.240.0/24"),
	})
	if err != nil || *a.AvailabilityZone == *b.AvailabilityZone {
		t.Fatalf("CreateSubnet beside %s and %s: %v", *a.AvailabilityZone, *b.AvailabilityZone, err)
	}
	return *a.SubnetId, *made.Subnet.SubnetId, *b.SubnetId
}

// profile makes an instance profile in an account. There is no client of IAM here.
func (c *cloud) profile(t *testing.T, account, name string) {
	t.Helper()
	creds, err := c.Config(t, here.Region, account).Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"Action": {"CreateInstanceProfile"}, "Version": {"2010-05-08"}, "InstanceProfileName": {name}}
	req, err := http.NewRequestWithContext(t.Context(), "POST", c.URL, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+creds.AccessKeyID+"/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=none")
	resp, err := awshttp.Client(10 * time.Second).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 {
		t.Fatalf("CreateInstanceProfile: %s", body)
	}
}

// publicImage is a parameter of Amazon's that every account and region has.
const publicImage = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"

// launch returns a launch that succeeds at a place.
func (c *cloud) launch(t *testing.T, at fleet.Place, subnet string) fleet.Launch {
	t.Helper()
	groups, err := c.direct(t, at).DescribeSecurityGroups(t.Context(), &ec2.DescribeSecurityGroupsInput{})
	if err != nil {
		t.Fatalf("DescribeSecurityGroups: %v", err)
	}
	l := launch()
	l.Subnet, l.Image, l.SecurityGroups = subnet, c.image(t, at, publicImage), []string{*groups.SecurityGroups[0].GroupId}
	return l
}

func (c *cloud) image(t *testing.T, at fleet.Place, path string) string {
	t.Helper()
	ami, err := c.part(assume.Worker, externalID).Image(t.Context(), at, path)
	if err != nil || !strings.HasPrefix(ami, "ami-") {
		t.Fatalf("Image(%s) = %q, %v; want an AMI", path, ami, err)
	}
	return ami
}

// TestFleet has EC2 show a machine only half a minute after its launch.
func TestFleet(t *testing.T) {
	const lag = 30 * time.Second
	fleettest.Run(t, func(t *testing.T) fleettest.Subject {
		c := start(t, ec2proxy.Config{Lag: lag})
		subnet, same, other := c.subnets(t, here)
		c.profile(t, here.Account, "builder")
		var give func()
		return fleettest.Subject{
			Fleet:  parts{c.part(assume.Worker, externalID), c.part(assume.Reaper, externalID)},
			At:     here,
			Launch: c.launch(t, here, subnet),

			Inspector: c.part(assume.Worker, externalID),

			Settle: func() { c.pass(lag) },

			OtherZone: other, SameZone: same, // for another place see TestPlacesHaveNothingInCommon: it has other subnets
			PageSize:     5,
			OtherImage:   c.image(t, here, strings.Replace(publicImage, "arm64", "x86_64", 1)),
			OtherProfile: "builder",
			Die:          c.Die,
			Protect:      c.Protect,
			Print:        c.Print,
			OtherType:    "m7i.large",
			SetCapacity: func(has bool) {
				if has {
					give()
					return
				}
				give = c.Add(ec2proxy.Rule{Action: "RunInstances", Code: "InsufficientInstanceCapacity"})
			},
		}
	})
}

// What a registration sets is on the machine, its volume and its interface, and a repeated
// call is the same.
func TestMachineHasItsOptions(t *testing.T) {
	c := start(t, ec2proxy.Config{})
	subnet, _, _ := c.subnets(t, here)
	f := c.part(assume.Worker, externalID)
	l := c.launch(t, here, subnet)
	root, err := f.RootVolume(t.Context(), here, l.Image)
	if err != nil {
		t.Fatal(err)
	}
	l.Tags["team"] = "build"
	l.Options = store.LaunchOptions{RootVolume: store.Volume{SizeGB: 100, Type: "gp3"}, TagInterface: true, PublicIP: new(true)}.On(root)
	first, err := f.Launch(t.Context(), here, l)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := f.Launch(t.Context(), here, l); err != nil || again.ID != first.ID {
		t.Errorf("the same launch again = %s, %v; want %s", again.ID, err, first.ID)
	}
	client := c.direct(t, here)
	found, err := client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{first.ID}})
	if err != nil {
		t.Fatal(err)
	}
	i := found.Reservations[0].Instances[0]
	if aws.ToString(i.PublicIpAddress) == "" || aws.ToString(i.SubnetId) != subnet || len(i.NetworkInterfaces) != 1 {
		t.Errorf("the instance has address %q in %q and %d interfaces, want one, in %s, and one", aws.ToString(i.PublicIpAddress), aws.ToString(i.SubnetId), len(i.NetworkInterfaces), subnet)
	}
	volumes, err := client.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{
		Filters: []types.Filter{{Name: new("attachment.instance-id"), Values: []string{first.ID}}},
	})
	if err != nil || len(volumes.Volumes) != 1 {
		t.Fatalf("DescribeVolumes = %d, %v; want one", len(volumes.Volumes), err)
	}
	v := volumes.Volumes[0]
	if *v.Size != 100 || v.VolumeType != types.VolumeTypeGp3 || !*v.Encrypted || !slices.ContainsFunc(v.Tags, func(tag types.Tag) bool { return *tag.Key == "team" && *tag.Value == "build" }) {
		t.Errorf("the volume has %d GiB of %s, encrypted %t, tags %v; want 100 of gp3, encrypted, with team", *v.Size, v.VolumeType, *v.Encrypted, v.Tags)
	}
}

func TestMachineIsInTheRunnersAccountAsItWasAskedFor(t *testing.T) {
	c := start(t, ec2proxy.Config{})
	subnet, _, _ := c.subnets(t, elsewhere)
	l := c.launch(t, elsewhere, subnet)
	l.Market = store.Spot
	i, err := c.part(assume.Worker, externalID).Launch(t.Context(), elsewhere, l)
	if err != nil {
		t.Fatal(err)
	}
	client := c.direct(t, elsewhere)
	found, err := client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{i.ID}})
	if err != nil {
		t.Fatalf("the runner account does not have the instance: %v", err)
	}
	got := found.Reservations[0].Instances[0]
	if got.InstanceLifecycle != types.InstanceLifecycleTypeSpot || *got.SubnetId != subnet || *got.ImageId != l.Image ||
		got.MetadataOptions.HttpTokens != types.HttpTokensStateRequired || *got.MetadataOptions.HttpPutResponseHopLimit != 1 {
		t.Errorf("the instance is %+v, want a spot instance of %+v that asks for IMDSv2 at one hop", got, l)
	}
	volumes, err := client.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{
		Filters: []types.Filter{{Name: new("attachment.instance-id"), Values: []string{i.ID}}},
	})
	if err != nil || len(volumes.Volumes) == 0 {
		t.Fatalf("DescribeVolumes = %v, %v; want those of the instance", volumes, err)
	}
	for what, tags := range map[string][]types.Tag{"instance": got.Tags, "volume": volumes.Volumes[0].Tags} {
		has := map[string]string{}
		for _, tag := range tags {
			has[*tag.Key] = *tag.Value
		}
		if !maps.Equal(has, l.Tags) {
			t.Errorf("the %s has tags %v, want %v", what, has, l.Tags)
		}
	}
	attribute := func(name types.InstanceAttributeName) *ec2.DescribeInstanceAttributeOutput {
		out, err := client.DescribeInstanceAttribute(t.Context(), &ec2.DescribeInstanceAttributeInput{InstanceId: &i.ID, Attribute: name})
		if err != nil {
			t.Fatalf("DescribeInstanceAttribute %s: %v", name, err)
		}
		return out
	}
	if got := aws.ToString(attribute(types.InstanceAttributeNameInstanceInitiatedShutdownBehavior).InstanceInitiatedShutdownBehavior.Value); got != "terminate" {
		t.Errorf("the instance's own shutdown leads to %s, want terminate", got)
	}
	data, err := base64.StdEncoding.DecodeString(aws.ToString(attribute(types.InstanceAttributeNameUserData).UserData.Value))
	if err != nil || string(data) != string(l.UserData) {
		t.Errorf("the machine reads %q, %v; want %q", data, err, l.UserData)
	}
	own, err := ec2.NewFromConfig(c.cfg).DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
	if err != nil || len(own.Reservations) != 0 {
		t.Errorf("the control plane's own account has %v, %v; want nothing", own.Reservations, err)
	}
}

func TestPlacesHaveNothingInCommon(t *testing.T) {
	c := start(t, ec2proxy.Config{})
	f := parts{c.part(assume.Worker, externalID), c.part(assume.Reaper, externalID)}
	places := []fleet.Place{here, {Account: here.Account, Region: elsewhere.Region}, {Account: elsewhere.Account, Region: here.Region}, elsewhere}
	ids := map[fleet.Place]string{}
	for _, at := range places {
		subnet, _, _ := c.subnets(t, at)
		i, err := f.Launch(t.Context(), at, c.launch(t, at, subnet)) // with the same token each time
		if err != nil {
			t.Fatal(err)
		}
		ids[at] = i.ID
	}
	for n, at := range places {
		var listed []string
		for i, err := range f.List(t.Context(), at, "prod") {
			if err != nil {
				t.Fatal(err)
			}
			listed = append(listed, i.ID)
		}
		if !slices.Equal(listed, []string{ids[at]}) {
			t.Errorf("List %s = %v, want %s alone", at, listed, ids[at])
		}
		other := ids[places[(n+1)%len(places)]]
		got, err := f.Get(t.Context(), at, ids[at], other)
		if err != nil || len(got) != 1 || got[ids[at]].ID == "" {
			t.Errorf("Get in %s of its own instance and another place's = %v, %v; want its own alone", at, got, err)
		}
		wantError(t, "Terminate in another place", f.Terminate(t.Context(), at, other), fleet.ErrNotFound, "InvalidInstanceID.NotFound")
	}
}

func TestRoleRefusesAWrongExternalID(t *testing.T) {
	c := start(t, ec2proxy.Config{})
	subnet, _, _ := c.subnets(t, here)
	l := c.launch(t, here, subnet)
	f := c.part(assume.Worker, "garo-external-2")
	_, err := f.Launch(t.Context(), here, l)
	e := wantError(t, "Launch", err, fleet.ErrRefused, "AccessDenied")
	if !strings.Contains(e.Text, here.Account) || strings.Contains(err.Error(), "garo-external") {
		t.Errorf("Launch = %v, want an error that names the account and no external id", err)
	}
	_, err = f.Image(t.Context(), here, publicImage)
	wantError(t, "Image", err, fleet.ErrRefused, "AccessDenied")
	if n := len(c.Calls("RunInstances")); n != 0 {
		t.Errorf("%d calls of RunInstances, want none", n)
	}
	if n := len(c.Calls("AssumeRole")); n != 2 { // one of them made the launch
		t.Errorf("%d calls of AssumeRole, want 2: the refusal stands for a while", n)
	}
}

func TestNoPartCanDoTheOthersWork(t *testing.T) {
	c := start(t, ec2proxy.Config{})
	subnet, _, _ := c.subnets(t, here)
	l := c.launch(t, here, subnet)
	worker, reaper := c.part(assume.Worker, externalID), c.part(assume.Reaper, externalID)
	_, err := reaper.Launch(t.Context(), here, l)
	wantError(t, "Launch by the reaper", err, fleet.ErrRefused, "UnauthorizedOperation")
	i, err := worker.Launch(t.Context(), here, l)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, "Terminate by the worker", worker.Terminate(t.Context(), here, i.ID), fleet.ErrRefused, "UnauthorizedOperation")
	if err := reaper.Terminate(t.Context(), here, i.ID); err != nil {
		t.Error(err)
	}
}

func TestLaunchWhoseAnswerIsLostIsFoundByItsToken(t *testing.T) {
	for name, rule := range map[string]ec2proxy.Rule{
		"AnswerIsLost":     {Action: "RunInstances", Times: 1, After: true},
		"InternalError":    {Action: "RunInstances", Times: 1, After: true, Code: "InternalError"},
		"TakesEffectLater": {Action: "RunInstances", Times: 1, Late: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, ec2proxy.Config{})
			subnet, _, _ := c.subnets(t, here)
			l := c.launch(t, here, subnet)
			f := c.part(assume.Worker, externalID)
			c.Add(rule)
			_, err := f.Launch(t.Context(), here, l)
			e, answered := errors.AsType[*fleet.Error](err)
			if err == nil || answered != (rule.Code != "") || answered && e.Kind != fleet.ErrUnknown {
				t.Fatalf("Launch = %v, want that its outcome is unknown", err)
			}
			i, err := f.Launch(t.Context(), here, l)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.TakeEffect(t.Context()); err != nil {
				t.Fatal(err)
			}
			found, err := f.ByToken(t.Context(), here, "r1", l.ClientToken)
			if err != nil || found.ID != i.ID {
				t.Errorf("ByToken = %s, %v; want %s", found.ID, err, i.ID)
			}
			n := 0
			for _, err := range f.List(t.Context(), here, "prod") {
				if n++; err != nil {
					t.Fatal(err)
				}
			}
			if n != 1 {
				t.Errorf("there are %d machines, want 1", n)
			}
		})
	}
}

func TestLaunchOnAConnectionThatWasCutIsOneMachine(t *testing.T) {
	c := start(t, ec2proxy.Config{})
	subnet, _, _ := c.subnets(t, here)
	l := c.launch(t, here, subnet)
	f := c.part(assume.Worker, externalID)
	if _, err := f.Get(t.Context(), here, "i-0123456789abcdef0"); err != nil { // opens the connection
		t.Fatal(err)
	}
	c.Add(ec2proxy.Rule{Action: "RunInstances", Times: 1, Reset: true})
	i, err := f.Launch(t.Context(), here, l)
	if err != nil || len(c.Calls("RunInstances")) != 2 {
		t.Fatalf("Launch = %v after %d calls, want the same call again on another connection", err, len(c.Calls("RunInstances")))
	}
	for got, err := range f.List(t.Context(), here, "prod") {
		if err != nil || got.ID != i.ID {
			t.Errorf("List yields %s, %v; want %s alone", got.ID, err, i.ID)
		}
	}
}

func TestCallsAreWhatIsPromised(t *testing.T) {
	c := start(t, ec2proxy.Config{})
	subnet, _, _ := c.subnets(t, here)
	l := c.launch(t, here, subnet)
	f := c.part(assume.Worker, externalID)
	wantCalls := func(what string, want ...string) {
		t.Helper()
		var got []string
		for _, call := range c.Calls()[len(c.Calls())-len(want):] {
			got = append(got, call.Action)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s made the calls %v, want %v", what, got, want)
		}
	}
	before := len(c.Calls())
	count := func(what string, want int) {
		t.Helper()
		if got := len(c.Calls()) - before; got != want {
			t.Errorf("%s took %d calls, want %d", what, got, want)
		}
		before = len(c.Calls())
	}
	if _, err := f.Image(t.Context(), here, publicImage); err != nil {
		t.Fatal(err)
	}
	count("an image in a fresh process", 2)
	wantCalls("an image in a fresh process", "AssumeRole", "GetParameter")
	var wg sync.WaitGroup
	for n := range 10 {
		wg.Go(func() {
			l := l
			l.ClientToken = fmt.Sprintf("t%d", n)
			if _, err := f.Image(t.Context(), here, publicImage); err != nil {
				t.Errorf("Image: %v", err)
			}
			if _, err := f.Launch(t.Context(), here, l); err != nil {
				t.Errorf("Launch: %v", err)
			}
		})
	}
	wg.Wait()
	count("ten images and launches in a warm process", 10)
	if _, err := f.ByToken(t.Context(), here, "r1", "t3"); err != nil {
		t.Fatal(err)
	}
	count("a look-up among ten, five a page", 2)
}

func TestOneSessionServesAllRegionsUntilItIsOver(t *testing.T) {
	c := start(t, ec2proxy.Config{})
	f := c.part(assume.Reaper, externalID)
	list := func(at fleet.Place) {
		t.Helper()
		for _, err := range f.List(t.Context(), at, "prod") {
			if err != nil {
				t.Errorf("List %s: %v", at, err)
			}
		}
	}
	list(here)
	list(fleet.Place{Account: here.Account, Region: "eu-west-1"})
	list(elsewhere)
	if n := len(c.Calls("AssumeRole")); n != 2 {
		t.Errorf("%d sessions for two accounts in three regions, want 2", n)
	}
	c.pass(time.Hour) // AWS's clock; ours lets the session stand
	list(here)
	list(here)
	calls := c.Calls("AssumeRole", "DescribeInstances")
	var answers []string
	for _, call := range calls[len(calls)-4:] {
		answers = append(answers, call.Action+" "+call.Answer)
	}
	want := []string{"DescribeInstances RequestExpired", "AssumeRole ", "DescribeInstances ", "DescribeInstances "}
	if !slices.Equal(answers, want) {
		t.Errorf("the last calls were %q, want %q", answers, want)
	}
	for _, s := range c.Sessions() {
		if s.SourceIdentity != "garo-prod" || s.Name != "garo-prod-reaper" || s.ExternalID != externalID || s.Duration != time.Hour || s.Policy == "" {
			t.Errorf("a session is %+v, want it named, of an hour and with a policy", s)
		}
	}
}

func TestImageOfAnAccountsOwnParameter(t *testing.T) {
	c := start(t, ec2proxy.Config{})
	for at, ami := range map[fleet.Place]string{here: "ami-0aaa", elsewhere: "ami-0bbb"} {
		_, err := ssm.NewFromConfig(c.Config(t, at.Region, at.Account)).PutParameter(t.Context(), &ssm.PutParameterInput{
			Name: new("/images/runner"), Value: &ami, Type: ssmtypes.ParameterTypeString,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.image(t, at, "/images/runner"); got != ami {
			t.Errorf("Image in %s = %s, want %s", at, got, ami)
		}
	}
	_, err := c.part(assume.Worker, externalID).Image(t.Context(), fleet.Place{Account: here.Account, Region: "eu-west-1"}, "/images/runner")
	wantError(t, "Image in a region without the parameter", err, fleet.ErrRefused, "ImageParameter")
}
