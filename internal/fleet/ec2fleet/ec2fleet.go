// Package ec2fleet is the fleet.Fleet that launches and ends EC2 instances, in the
// accounts and regions of registrations, each with the role of its account.
//
// It adds nothing to what EC2 promises and takes nothing away: a Launch is one
// RunInstances call, the same bytes for the same fleet.Launch; its error says that
// nothing was launched only when EC2 says so, by a code that is known to mean it.
// No call is repeated, reads included: worker and reaper come back anyway, and a
// repetition here would use up EC2's rate behind their backs. The one exception is
// a call that AWS turned down unread because the role's session was over
// (assume.Sessions.Do).
package ec2fleet

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/ssmparam"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// mostOnAPage is EC2's most for one page of DescribeInstances
	// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html).
	mostOnAPage = 1000
	// mostValues is EC2's most for the values of one filter
	// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html).
	mostValues = 200
)

// Fleet is EC2. It is safe for concurrent use.
type Fleet struct {
	aws      aws.Config
	sessions *assume.Sessions
	pageSize int32

	mu      sync.Mutex
	clients map[string]*client // by region
	gone    map[ami]bool       // images that EC2 did not know, not yet read again
}

var _ fleet.Fleet = (*Fleet)(nil)

// New returns a Fleet that calls with the credentials of sessions. Of cfg it takes
// the HTTP client and the endpoints.
func New(cfg aws.Config, sessions *assume.Sessions) *Fleet {
	return &Fleet{aws: cfg, sessions: sessions, pageSize: mostOnAPage, clients: map[string]*client{}, gone: map[ami]bool{}}
}

// client is what is called of one region's EC2. These are method values and not an
// *ec2.Client, which has 700 methods: a linker that has to keep all methods, since
// a program looks some up by name, can still drop those.
type client struct {
	run       func(context.Context, *ec2.RunInstancesInput, ...func(*ec2.Options)) (*ec2.RunInstancesOutput, error)
	describe  func(context.Context, *ec2.DescribeInstancesInput, ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error)
	terminate func(context.Context, *ec2.TerminateInstancesInput, ...func(*ec2.Options)) (*ec2.TerminateInstancesOutput, error)
}

func (f *Fleet) client(region string) *client {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.clients[region]; c != nil {
		return c
	}
	sdk := ec2.NewFromConfig(f.aws, func(o *ec2.Options) { o.Region, o.Retryer = region, aws.NopRetryer{} })
	c := &client{run: sdk.RunInstances, describe: sdk.DescribeInstances, terminate: sdk.TerminateInstances}
	f.clients[region] = c
	return c
}

// do makes a call at a place, as the role of its account, and classifies its error.
func (f *Fleet) do(ctx context.Context, at fleet.Place, call func(c *client, as func(*ec2.Options)) error) error {
	c := f.client(at.Region)
	err := f.sessions.Do(ctx, at.Account, func(creds aws.CredentialsProvider) error {
		return call(c, func(o *ec2.Options) { o.Credentials = creds })
	})
	return classify(err)
}

// Image implements fleet.Fleet. What a parameter says is kept for five minutes, as
// ssmparam.Reader promises, unless EC2 said meanwhile that there is no such image.
func (f *Fleet) Image(ctx context.Context, at fleet.Place, image string) (string, error) {
	if !strings.HasPrefix(image, "/") {
		return image, nil
	}
	text, err := f.sessions.Parameter(ctx, at, image, false)
	if err == nil && f.disowned(at, strings.TrimSpace(text.Reveal())) {
		text, err = f.sessions.Parameter(ctx, at, image, true)
	}
	refused := func(format string, args ...any) error {
		return &fleet.Error{Kind: fleet.ErrRefused, Code: "ImageParameter", Text: fmt.Sprintf("SSM parameter %s in %s ", image, at) + fmt.Sprintf(format, args...)}
	}
	switch ami := strings.TrimSpace(text.Reveal()); {
	case errors.Is(err, fleet.ErrRefused):
		return "", err
	case errors.Is(err, ssmparam.ErrNoParameter):
		return "", refused("does not exist: make it, or change the registration's images.")
	case errors.Is(err, ssmparam.ErrDenied):
		return "", refused("may not be read: allow the account's role ssm:GetParameter on it.")
	case err != nil: // SSM's errors are not EC2's: what is left of them passes
		return "", judged(err, func(string, int) verdict { return verdict{kind: fleet.ErrUnknown} })
	case !strings.HasPrefix(ami, "ami-"):
		return "", refused("has no AMI id: name one that has nothing else.")
	default:
		return ami, nil
	}
}

// ami is an image of one place.
type ami struct {
	at fleet.Place
	id string
}

// disown notes that EC2 does not know an image.
func (f *Fleet) disown(at fleet.Place, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone[ami{at, id}] = true
}

// disowned reports, once for each time that it was noted, that EC2 does not know an
// image: the next caller reads again what named it.
func (f *Fleet) disowned(at fleet.Place, id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.gone[ami{at, id}]
	delete(f.gone, ami{at, id})
	return was
}

// Launch implements fleet.Fleet.
func (f *Fleet) Launch(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
	var out *ec2.RunInstancesOutput
	err := f.do(ctx, at, func(c *client, as func(*ec2.Options)) (err error) {
		out, err = c.run(ctx, runInput(l), as)
		return err
	})
	switch {
	case errors.Is(err, fleet.ErrImage):
		f.disown(at, l.Image)
		fallthrough
	case err != nil:
		return fleet.Instance{}, fmt.Errorf("run an instance in %s: %w", at, err)
	case len(out.Instances) != 1 || aws.ToString(out.Instances[0].InstanceId) == "":
		return fleet.Instance{}, fmt.Errorf("run an instance in %s: EC2 answered with %d instances, want one", at, len(out.Instances))
	}
	return toInstance(out.Instances[0]), nil
}

// runInput is the call of a launch. EC2 compares a repeated call with the first, so
// that it must come out the same whoever makes it and whenever.
func runInput(l fleet.Launch) *ec2.RunInstancesInput {
	var tags []types.Tag
	for _, k := range slices.Sorted(maps.Keys(l.Tags)) {
		tags = append(tags, types.Tag{Key: &k, Value: new(l.Tags[k])})
	}
	in := &ec2.RunInstancesInput{
		ClientToken:      &l.ClientToken,
		MinCount:         new(int32(1)),
		MaxCount:         new(int32(1)),
		ImageId:          &l.Image,
		InstanceType:     types.InstanceType(l.InstanceType),
		SubnetId:         &l.Subnet, // not in a network interface: a token is then bound to the subnet's zone
		SecurityGroupIds: l.SecurityGroups,
		UserData:         new(base64.StdEncoding.EncodeToString(l.UserData)),

		// A machine that powers itself off is gone.
		InstanceInitiatedShutdownBehavior: types.ShutdownBehaviorTerminate,
		// What a job makes the machine fetch must not get at user data, nor a
		// container that is one hop further.
		MetadataOptions: &types.InstanceMetadataOptionsRequest{
			HttpEndpoint:            types.InstanceMetadataEndpointStateEnabled,
			HttpTokens:              types.HttpTokensStateRequired,
			HttpPutResponseHopLimit: new(int32(1)),
		},
		// A spot request is not tagged: it ends with its instance, and EC2 refuses
		// its tags in an on-demand launch.
		TagSpecifications: []types.TagSpecification{
			{ResourceType: types.ResourceTypeInstance, Tags: tags},
			{ResourceType: types.ResourceTypeVolume, Tags: tags},
		},
	}
	if l.InstanceProfile != "" {
		in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: &l.InstanceProfile}
		if strings.HasPrefix(l.InstanceProfile, "arn:") {
			in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Arn: &l.InstanceProfile}
		}
	}
	if l.Market == store.Spot {
		in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{
			MarketType: types.MarketTypeSpot,
			SpotOptions: &types.SpotMarketOptions{ // without a price: the on-demand price is the most
				SpotInstanceType:             types.SpotInstanceTypeOneTime,
				InstanceInterruptionBehavior: types.InstanceInterruptionBehaviorTerminate,
			},
		}
	}
	return in
}

// ByToken implements fleet.Fleet. Several instances can only come of a token that
// was used in two zones: then one that lives is the answer.
func (f *Fleet) ByToken(ctx context.Context, at fleet.Place, runner, token string) (fleet.Instance, error) {
	var found fleet.Instance
	for i, err := range f.describe(ctx, at, "tag:"+fleet.TagRunner, runner) {
		if err != nil {
			return fleet.Instance{}, fmt.Errorf("find the instance of runner %s in %s: %w", runner, at, err)
		}
		if i.ClientToken == token && (found.ID == "" || found.State.Over() && !i.State.Over()) {
			found = i
		}
	}
	if found.ID == "" {
		return fleet.Instance{}, &fleet.Error{
			Kind: fleet.ErrNotFound, Code: "InvalidInstanceID.NotFound",
			Text: fmt.Sprintf("EC2 shows no instance of runner %s in %s with that client token.", runner, at),
		}
	}
	return found, nil
}

// Get implements fleet.Fleet. It asks by filter: by id, one that is unknown would
// hide all others.
func (f *Fleet) Get(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Instance, error) {
	got := map[string]fleet.Instance{}
	for some := range slices.Chunk(ids, mostValues) {
		for i, err := range f.describe(ctx, at, "instance-id", some...) {
			if err != nil {
				return nil, fmt.Errorf("get %d instances in %s: %w", len(ids), at, err)
			}
			got[i.ID] = i
		}
	}
	return got, nil
}

// List implements fleet.Fleet.
func (f *Fleet) List(ctx context.Context, at fleet.Place, controlPlane string) iter.Seq2[fleet.Instance, error] {
	return func(yield func(fleet.Instance, error) bool) {
		for i, err := range f.describe(ctx, at, "tag:"+fleet.TagControlPlane, controlPlane) {
			if err != nil {
				err = fmt.Errorf("list instances of %s in %s: %w", controlPlane, at, err)
			}
			if !yield(i, err) {
				return
			}
		}
	}
}

// describe yields the instances that a filter lets through, page by page. An error
// is the last that it yields.
func (f *Fleet) describe(ctx context.Context, at fleet.Place, filter string, values ...string) iter.Seq2[fleet.Instance, error] {
	return func(yield func(fleet.Instance, error) bool) {
		in := &ec2.DescribeInstancesInput{
			Filters:    []types.Filter{{Name: &filter, Values: values}},
			MaxResults: &f.pageSize,
		}
		for {
			var out *ec2.DescribeInstancesOutput
			err := f.do(ctx, at, func(c *client, as func(*ec2.Options)) (err error) {
				out, err = c.describe(ctx, in, as)
				return err
			})
			if err != nil {
				yield(fleet.Instance{}, err)
				return
			}
			for _, r := range out.Reservations {
				for _, i := range r.Instances {
					if !yield(toInstance(i), nil) {
						return
					}
				}
			}
			if aws.ToString(out.NextToken) == "" {
				return
			}
			in.NextToken = out.NextToken
		}
	}
}

// Terminate implements fleet.Fleet.
func (f *Fleet) Terminate(ctx context.Context, at fleet.Place, id string) error {
	err := f.do(ctx, at, func(c *client, as func(*ec2.Options)) error {
		_, err := c.terminate(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}}, as)
		return err
	})
	if err != nil {
		return fmt.Errorf("terminate instance %s in %s: %w", id, at, err)
	}
	return nil
}

// toInstance returns an instance as the rest of GARO knows it.
func toInstance(i types.Instance) fleet.Instance {
	out := fleet.Instance{
		ID:           aws.ToString(i.InstanceId),
		ClientToken:  aws.ToString(i.ClientToken),
		LaunchedAt:   aws.ToTime(i.LaunchTime),
		Market:       store.OnDemand,
		InstanceType: string(i.InstanceType),
		Subnet:       aws.ToString(i.SubnetId),
		Tags:         make(map[string]string, len(i.Tags)),
	}
	if i.State != nil {
		out.State = fleet.State(i.State.Name)
	}
	if i.InstanceLifecycle == types.InstanceLifecycleTypeSpot {
		out.Market = store.Spot
	}
	for _, t := range i.Tags {
		out.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	if out.State != fleet.Pending && out.State != fleet.Running {
		out.Reason = reason(i)
		if i.StateReason != nil {
			out.ReasonCode = strings.ReplaceAll(tidy(aws.ToString(i.StateReason.Code)), " ", "")
		}
	}
	return out
}

// reason returns why an instance ended, such as "Server.SpotInstanceTermination:
// Spot instance termination".
func reason(i types.Instance) string {
	if i.StateReason != nil && aws.ToString(i.StateReason.Message) != "" {
		return tidy(*i.StateReason.Message)
	}
	return tidy(aws.ToString(i.StateTransitionReason))
}
