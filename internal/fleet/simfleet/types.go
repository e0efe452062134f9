package simfleet

import (
	"context"
	"slices"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// both are the markets of most instance types.
var both = []string{store.Spot, store.OnDemand}

// InstanceTypes are those that a World has, as DescribeInstanceTypes has them in EC2.
var InstanceTypes = []store.InstanceType{
	{Name: "t3a.micro", VCPUs: 2, MemoryMiB: 1 << 10, Arch: []string{store.X86}, Markets: both},
	{Name: "t3a.small", VCPUs: 2, MemoryMiB: 2 << 10, Arch: []string{store.X86}, Markets: both},
	{Name: "m7g.large", VCPUs: 2, MemoryMiB: 8 << 10, Arch: []string{store.ARM64}, Markets: both},
	{Name: "m7a.large", VCPUs: 2, MemoryMiB: 8 << 10, Arch: []string{store.X86}, Markets: both},
	{Name: "c7g.xlarge", VCPUs: 4, MemoryMiB: 8 << 10, Arch: []string{store.ARM64}, Markets: both},
	{Name: "m7a.xlarge", VCPUs: 4, MemoryMiB: 16 << 10, Arch: []string{store.X86}, Markets: both},
	{Name: "g6.xlarge", VCPUs: 4, MemoryMiB: 16 << 10, GPUs: 1, Arch: []string{store.X86}, Markets: both},
	{Name: "m7a.2xlarge", VCPUs: 8, MemoryMiB: 32 << 10, Arch: []string{store.X86}, Markets: both},
	{Name: "m7g.metal", VCPUs: 64, MemoryMiB: 256 << 10, Arch: []string{store.ARM64}, Markets: both, Special: true},
}

// Types implements fleet.Fleet: it leaves the choice to the rules.
func (w *World) Types(ctx context.Context, at fleet.Place, _ store.Requirements) ([]store.InstanceType, error) {
	if err := w.begin(ctx, OpTypes, at, fleet.Launch{}); err != nil {
		return nil, err
	}
	return slices.Clone(InstanceTypes), nil
}
