package ec2fleet

import (
	"context"
	"fmt"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// typesOnAPage is EC2's most for one page of DescribeInstanceTypes
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceTypes.html).
const typesOnAPage = 100

// Types implements fleet.Fleet. EC2 leaves out older generations, bare metal and, where
// the rules are narrow enough for its filters, other numbers of vCPUs: of a thousand types,
// each of which it describes with some kilobytes, a few dozen stay.
func (f *Fleet) Types(ctx context.Context, at fleet.Place, rules store.Requirements) ([]store.InstanceType, error) {
	in := &ec2.DescribeInstanceTypesInput{MaxResults: new(int32(typesOnAPage)), Filters: []types.Filter{
		{Name: new("current-generation"), Values: []string{"true"}},
		{Name: new("bare-metal"), Values: []string{"false"}},
	}}
	if len(rules.Arch) > 0 {
		in.Filters = append(in.Filters, types.Filter{Name: new("processor-info.supported-architecture"), Values: rules.Arch})
	}
	if least := max(1, rules.VCPUs.Min); rules.VCPUs.Max-least < mostValues {
		var numbers []string
		for n := least; n <= rules.VCPUs.Max; n++ {
			numbers = append(numbers, strconv.Itoa(n))
		}
		in.Filters = append(in.Filters, types.Filter{Name: new("vcpu-info.default-vcpus"), Values: numbers})
	}
	var all []store.InstanceType
	for {
		var out *ec2.DescribeInstanceTypesOutput
		err := f.do(ctx, at, func(c *client, as func(*ec2.Options)) (err error) {
			out, err = c.types(ctx, in, as)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list the instance types of %s: %w", at, err)
		}
		for _, t := range out.InstanceTypes {
			all = append(all, toType(t))
		}
		if aws.ToString(out.NextToken) == "" {
			return all, nil
		}
		in.NextToken = out.NextToken
	}
}

// toType returns an instance type as the rules know it.
func toType(t types.InstanceTypeInfo) store.InstanceType {
	out := store.InstanceType{
		Name:    string(t.InstanceType),
		Special: aws.ToBool(t.BareMetal) || !aws.ToBool(t.CurrentGeneration) || t.InferenceAcceleratorInfo != nil || t.NeuronInfo != nil || t.FpgaInfo != nil || t.MediaAcceleratorInfo != nil,
	}
	if t.VCpuInfo != nil {
		out.VCPUs = int(aws.ToInt32(t.VCpuInfo.DefaultVCpus))
	}
	if t.MemoryInfo != nil {
		out.MemoryMiB = int(aws.ToInt64(t.MemoryInfo.SizeInMiB))
	}
	if t.GpuInfo != nil {
		for _, g := range t.GpuInfo.Gpus {
			out.GPUs += int(aws.ToInt32(g.Count))
		}
	}
	if t.ProcessorInfo != nil {
		for _, a := range t.ProcessorInfo.SupportedArchitectures {
			out.Arch = append(out.Arch, string(a))
		}
	}
	for _, u := range t.SupportedUsageClasses {
		switch u {
		case types.UsageClassTypeSpot:
			out.Markets = append(out.Markets, store.Spot)
		case types.UsageClassTypeOnDemand:
			out.Markets = append(out.Markets, store.OnDemand)
		}
	}
	return out
}
