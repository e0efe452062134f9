package ec2fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

var _ fleet.Inspector = (*Fleet)(nil)

// wouldWork is EC2's answer to a DryRun of a call that the caller may make
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html).
const wouldWork = "DryRunOperation"

// TakeOn implements fleet.Inspector.
func (f *Fleet) TakeOn(ctx context.Context, account string) error {
	return f.sessions.Prove(ctx, account)
}

// Strangers implements fleet.Inspector.
func (f *Fleet) Strangers(ctx context.Context, account string) ([]string, error) {
	return f.sessions.Strangers(ctx, account)
}

// Vet implements fleet.Inspector: it is the call of Launch, with DryRun.
func (f *Fleet) Vet(ctx context.Context, at fleet.Place, l fleet.Launch) error {
	in := runInput(l)
	in.ClientToken, in.DryRun = nil, new(true) // the SDK makes one up, which nothing is bound to
	would := false
	err := f.do(ctx, at, func(c *client, as func(*ec2.Options)) error {
		_, err := c.run(ctx, in, as)
		if api, ok := errors.AsType[smithy.APIError](err); ok && api.ErrorCode() == wouldWork {
			would = true
			return nil
		}
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("ask for an instance in %s: %w", at, err)
	case !would:
		return fmt.Errorf("ask for an instance in %s: EC2 answers a dry run with success, which it never does: look for an instance with the tag %s=%s", at, fleet.TagRunner, l.Tags[fleet.TagRunner])
	}
	return nil
}

// AMI implements fleet.Inspector.
func (f *Fleet) AMI(ctx context.Context, at fleet.Place, id string) (fleet.AMI, error) {
	var out *ec2.DescribeImagesOutput
	err := f.do(ctx, at, func(c *client, as func(*ec2.Options)) (err error) {
		out, err = c.images(ctx, &ec2.DescribeImagesInput{ImageIds: []string{id}}, as)
		return err
	})
	switch {
	case err != nil:
		return fleet.AMI{}, fmt.Errorf("look at image %s in %s: %w", id, at, err)
	case len(out.Images) == 0:
		return fleet.AMI{}, fmt.Errorf("look at image %s in %s: %w", id, at, noImage(id))
	}
	i := out.Images[0]
	ami := fleet.AMI{State: string(i.State), Architecture: string(i.Architecture), RootDevice: aws.ToString(i.RootDeviceName)}
	ami.DeprecatedAt, _ = time.Parse(time.RFC3339, aws.ToString(i.DeprecationTime)) // none has none
	return ami, nil
}

// Subnets implements fleet.Inspector: of one VPC by two calls.
func (f *Fleet) Subnets(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Subnet, error) {
	all := map[string]fleet.Subnet{}
	if len(ids) == 0 {
		return all, nil
	}
	var found *ec2.DescribeSubnetsOutput
	err := f.do(ctx, at, func(c *client, as func(*ec2.Options)) (err error) {
		// By filter: by id, one that is unknown would hide all others.
		found, err = c.subnets(ctx, &ec2.DescribeSubnetsInput{Filters: []types.Filter{{Name: new("subnet-id"), Values: ids}}}, as)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look at %d subnets in %s: %w", len(ids), at, err)
	}
	tables := map[string][]types.RouteTable{} // by VPC
	for _, s := range found.Subnets {
		vpc := aws.ToString(s.VpcId)
		if _, known := tables[vpc]; !known {
			if tables[vpc], err = f.routeTables(ctx, at, vpc); err != nil {
				return nil, err
			}
		}
		id := aws.ToString(s.SubnetId)
		all[id] = fleet.Subnet{
			Zone: aws.ToString(s.AvailabilityZone), Free: int(aws.ToInt32(s.AvailableIpAddressCount)),
			Out: out(tables[vpc], id), Public: aws.ToBool(s.MapPublicIpOnLaunch),
		}
	}
	return all, nil
}

// routeTables returns the route tables of a VPC: it has 200 at most by default, and EC2
// answers with all of them when no page is asked for
// (https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html).
func (f *Fleet) routeTables(ctx context.Context, at fleet.Place, vpc string) ([]types.RouteTable, error) {
	var found *ec2.DescribeRouteTablesOutput
	err := f.do(ctx, at, func(c *client, as func(*ec2.Options)) (err error) {
		found, err = c.routes(ctx, &ec2.DescribeRouteTablesInput{Filters: []types.Filter{{Name: new("vpc-id"), Values: []string{vpc}}}}, as)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look at the route tables of %s in %s: %w", vpc, at, err)
	}
	return found.RouteTables, nil
}

// out returns what the default route of a subnet leads to: by the table that names the
// subnet, or else by the main one of its VPC
// (https://docs.aws.amazon.com/vpc/latest/userguide/subnet-route-tables.html).
func out(tables []types.RouteTable, subnet string) string {
	var own, main *types.RouteTable
	for n, t := range tables {
		for _, a := range t.Associations {
			switch {
			case aws.ToString(a.SubnetId) == subnet:
				own = &tables[n]
			case aws.ToBool(a.Main):
				main = &tables[n]
			}
		}
	}
	if own == nil {
		own = main
	}
	if own == nil {
		return ""
	}
	for _, r := range own.Routes {
		if to := aws.ToString(r.DestinationCidrBlock) + aws.ToString(r.DestinationIpv6CidrBlock); to != "0.0.0.0/0" && to != "::/0" || r.State != types.RouteStateActive {
			continue
		}
		for _, target := range []*string{r.GatewayId, r.NatGatewayId, r.TransitGatewayId, r.EgressOnlyInternetGatewayId, r.NetworkInterfaceId, r.VpcPeeringConnectionId, r.LocalGatewayId, r.CarrierGatewayId, r.CoreNetworkArn} {
			if id := strings.TrimSpace(aws.ToString(target)); id != "" {
				return id
			}
		}
	}
	return ""
}
