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
		// What a job makes the machine fetch must not get at user data, nor, unless jobs
		// have a role, a container that is one hop further.
		MetadataOptions: &types.InstanceMetadataOptionsRequest{
			HttpEndpoint:            types.InstanceMetadataEndpointStateEnabled,
			HttpTokens:              types.HttpTokensStateRequired,
			HttpPutResponseHopLimit: new(int32(max(1, l.Options.HopLimit))),
		},
		TagSpecifications: tagsOf(l),
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
				MaxPrice:                     said(l.Options.SpotMaxPrice),
			},
		}
	}
	addOptions(in, l)
	return in
}

// tagsOf returns the tags of a launch, on what it makes. A spot request is not tagged: it
// ends with its instance, and EC2 refuses its tags in an on-demand launch.
func tagsOf(l fleet.Launch) []types.TagSpecification {
	var tags []types.Tag
	for _, k := range slices.Sorted(maps.Keys(l.Tags)) {
		tags = append(tags, types.Tag{Key: &k, Value: new(l.Tags[k])})
	}
	on := []types.ResourceType{types.ResourceTypeInstance, types.ResourceTypeVolume}
	if l.Options.TagInterface {
		on = append(on, types.ResourceTypeNetworkInterface)
	}
	var all []types.TagSpecification
	for _, kind := range on {
		all = append(all, types.TagSpecification{ResourceType: kind, Tags: tags})
	}
	return all
}

// addOptions adds what a registration sets to the call of a launch.
func addOptions(in *ec2.RunInstancesInput, l fleet.Launch) {
	o := l.Options
	if v := o.RootVolume; o.RootDevice != "" {
		in.BlockDeviceMappings = []types.BlockDeviceMapping{{DeviceName: &o.RootDevice, Ebs: &types.EbsBlockDevice{
			VolumeSize: positive(v.SizeGB), VolumeType: types.VolumeType(v.Type), Iops: positive(v.IOPS), Throughput: positive(v.Throughput),
			VolumeInitializationRate: positive(v.InitializationRate), Encrypted: new(true), DeleteOnTermination: new(true),
		}}}
	}
	if o.CPUCredits != "" && burstable(l.InstanceType) {
		in.CreditSpecification = &types.CreditSpecificationRequest{CpuCredits: &o.CPUCredits}
	}
	if o.Tenancy != "" {
		in.Placement = &types.Placement{Tenancy: types.Tenancy(o.Tenancy)}
	}
	if l.Market == store.OnDemand {
		in.CapacityReservationSpecification = reservation(o.CapacityReservation)
	}
	if o.PublicIP != nil { // which EC2 takes for a network interface alone
		in.NetworkInterfaces = []types.InstanceNetworkInterfaceSpecification{{
			DeviceIndex: new(int32(0)), SubnetId: in.SubnetId, Groups: in.SecurityGroupIds, AssociatePublicIpAddress: o.PublicIP, DeleteOnTermination: new(true),
		}}
		in.SubnetId, in.SecurityGroupIds = nil, nil
	}
}

// reservation returns how a capacity reservation is named in a call; nil: it is not.
func reservation(s string) *types.CapacityReservationSpecification {
	switch {
	case s == "":
		return nil
	case strings.HasPrefix(s, "cr-"):
		return &types.CapacityReservationSpecification{CapacityReservationTarget: &types.CapacityReservationTarget{CapacityReservationId: &s}}
	case strings.HasPrefix(s, "arn:"):
		return &types.CapacityReservationSpecification{CapacityReservationTarget: &types.CapacityReservationTarget{CapacityReservationResourceGroupArn: &s}}
	}
	return &types.CapacityReservationSpecification{CapacityReservationPreference: types.CapacityReservationPreference(s)}
}

// burstable reports whether an instance type has CPU credits: those of the families that
// are called t and a number
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/burstable-performance-instances.html).
func burstable(instanceType string) bool {
	return len(instanceType) > 1 && instanceType[0] == 't' && instanceType[1] >= '0' && instanceType[1] <= '9'
}

// said is s, and nil for what was not said.
func said(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// positive is n as EC2 takes it, and nil for what was not said.
func positive(n int) *int32 {
	if n <= 0 {
		return nil
	}
	return new(int32(n))
}
