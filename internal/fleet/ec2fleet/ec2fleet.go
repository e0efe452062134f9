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
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
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
	roots   map[ami]store.Root // of images that were looked at
}

var _ fleet.Fleet = (*Fleet)(nil)

// New returns a Fleet that calls with the credentials of sessions. Of cfg it takes
// the HTTP client and the endpoints.
func New(cfg aws.Config, sessions *assume.Sessions) *Fleet {
	return &Fleet{aws: cfg, sessions: sessions, pageSize: mostOnAPage, clients: map[string]*client{}, gone: map[ami]bool{}, roots: map[ami]store.Root{}}
}

// client is what is called of one region's EC2. These are method values and not an
// *ec2.Client, which has 700 methods: a linker that has to keep all methods, since
// a program looks some up by name, can still drop those.
type client struct {
	run       func(context.Context, *ec2.RunInstancesInput, ...func(*ec2.Options)) (*ec2.RunInstancesOutput, error)
	images    func(context.Context, *ec2.DescribeImagesInput, ...func(*ec2.Options)) (*ec2.DescribeImagesOutput, error)
	describe  func(context.Context, *ec2.DescribeInstancesInput, ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error)
	types     func(context.Context, *ec2.DescribeInstanceTypesInput, ...func(*ec2.Options)) (*ec2.DescribeInstanceTypesOutput, error)
	console   func(context.Context, *ec2.GetConsoleOutputInput, ...func(*ec2.Options)) (*ec2.GetConsoleOutputOutput, error)
	subnets   func(context.Context, *ec2.DescribeSubnetsInput, ...func(*ec2.Options)) (*ec2.DescribeSubnetsOutput, error)
	routes    func(context.Context, *ec2.DescribeRouteTablesInput, ...func(*ec2.Options)) (*ec2.DescribeRouteTablesOutput, error)
	spot      func(context.Context, *ec2.DescribeSpotPriceHistoryInput, ...func(*ec2.Options)) (*ec2.DescribeSpotPriceHistoryOutput, error)
	terminate func(context.Context, *ec2.TerminateInstancesInput, ...func(*ec2.Options)) (*ec2.TerminateInstancesOutput, error)
}

func (f *Fleet) client(region string) *client {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.clients[region]; c != nil {
		return c
	}
	sdk := ec2.NewFromConfig(f.aws, func(o *ec2.Options) { o.Region, o.Retryer = region, aws.NopRetryer{} })
	c := &client{
		run: sdk.RunInstances, images: sdk.DescribeImages, describe: sdk.DescribeInstances, types: sdk.DescribeInstanceTypes, console: sdk.GetConsoleOutput,
		subnets: sdk.DescribeSubnets, routes: sdk.DescribeRouteTables, spot: sdk.DescribeSpotPriceHistory, terminate: sdk.TerminateInstances,
	}
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

// ByToken implements fleet.Fleet. Several instances can only result from a token that
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
func (f *Fleet) Terminate(ctx context.Context, at fleet.Place, ids ...string) error {
	if len(ids) == 0 || len(ids) > fleet.MaxTerminate {
		return fmt.Errorf("terminate %d instances in %s: want 1 to %d", len(ids), at, fleet.MaxTerminate)
	}
	err := f.do(ctx, at, func(c *client, as func(*ec2.Options)) error {
		_, err := c.terminate(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids}, as)
		return err
	})
	switch {
	case err == nil:
		return nil
	case len(ids) == 1:
		return fmt.Errorf("terminate instance %s in %s: %w", ids[0], at, err)
	}
	return fmt.Errorf("terminate instance %s and %d more in %s: %w", ids[0], len(ids)-1, at, err)
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
