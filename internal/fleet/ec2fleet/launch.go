package ec2fleet

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

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
// that it must be the same in every process and at any time.
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
