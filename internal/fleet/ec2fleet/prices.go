package ec2fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// linux are the products that EC2 has spot prices of for Linux machines: it calls them by
// the second name in accounts that were opened before every one had a VPC
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSpotPriceHistory.html).
var linux = []string{"Linux/UNIX", "Linux/UNIX (Amazon VPC)"}

// SpotPrices implements fleet.Fleet. It asks for the history from now on, whose first entry
// is the last change before that: the price of now.
func (f *Fleet) SpotPrices(ctx context.Context, at fleet.Place, names, subnets []string) (map[string]store.MicroUSD, map[string]string, error) {
	zones, err := f.zones(ctx, at, subnets)
	if err != nil {
		return nil, nil, fmt.Errorf("look at %d subnets in %s: %w", len(subnets), at, err)
	}
	hour, since := map[string]store.MicroUSD{}, map[string]time.Time{}
	chunks := slices.Collect(slices.Chunk(names, mostValues))
	if len(names) == 0 {
		chunks = [][]string{nil} // of all
	}
	for _, some := range chunks {
		in := &ec2.DescribeSpotPriceHistoryInput{
			ProductDescriptions: linux, StartTime: aws.Time(time.Now()), MaxResults: aws.Int32(mostOnAPage),
			Filters: []types.Filter{{Name: aws.String("availability-zone"), Values: values(zones)}},
		}
		for _, t := range some {
			in.InstanceTypes = append(in.InstanceTypes, types.InstanceType(t))
		}
		for more := len(zones) > 0; more; more = aws.ToString(in.NextToken) != "" {
			var out *ec2.DescribeSpotPriceHistoryOutput
			err := f.do(ctx, at, func(c *client, as func(*ec2.Options)) (err error) {
				out, err = c.spot(ctx, in, as)
				return err
			})
			if err != nil {
				return nil, nil, fmt.Errorf("read the spot prices of %d instance types in %s: %w", len(names), at, err)
			}
			for _, p := range out.SpotPriceHistory {
				key, from := store.SpotKey(string(p.InstanceType), aws.ToString(p.AvailabilityZone)), aws.ToTime(p.Timestamp)
				if usd, ok := store.ParseUSD(strings.TrimSpace(aws.ToString(p.SpotPrice))); ok && !from.Before(since[key]) {
					hour[key], since[key] = usd, from
				}
			}
			in.NextToken = out.NextToken
		}
	}
	return hour, zones, nil
}

// zones returns the zones of subnets. It asks by filter: by id, one that is unknown would hide
// all others.
func (f *Fleet) zones(ctx context.Context, at fleet.Place, subnets []string) (map[string]string, error) {
	zones := map[string]string{}
	for some := range slices.Chunk(subnets, mostValues) {
		in := &ec2.DescribeSubnetsInput{Filters: []types.Filter{{Name: aws.String("subnet-id"), Values: some}}}
		var out *ec2.DescribeSubnetsOutput
		err := f.do(ctx, at, func(c *client, as func(*ec2.Options)) (err error) {
			out, err = c.subnets(ctx, in, as) // without MaxResults, all are on one page
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, s := range out.Subnets {
			zones[aws.ToString(s.SubnetId)] = aws.ToString(s.AvailabilityZone)
		}
	}
	return zones, nil
}

// values returns those of a map, each once, sorted.
func values(m map[string]string) []string {
	var all []string
	for _, v := range m {
		all = append(all, v)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
