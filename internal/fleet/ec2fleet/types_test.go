package ec2fleet_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/ec2proxy"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestTypesAreReadPageByPage(t *testing.T) {
	page := func(token string, items ...string) reply {
		return reply{200, `<DescribeInstanceTypesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><instanceTypeSet>` + strings.Join(items, "") +
			`</instanceTypeSet><nextToken>` + token + `</nextToken></DescribeInstanceTypesResponse>`, nil}
	}
	item := func(name, more string) string {
		return `<item><instanceType>` + name + `</instanceType><currentGeneration>true</currentGeneration><bareMetal>false</bareMetal>
<vCpuInfo><defaultVCpus>4</defaultVCpus></vCpuInfo><memoryInfo><sizeInMiB>16384</sizeInMiB></memoryInfo>
<processorInfo><supportedArchitectures><item>x86_64</item></supportedArchitectures></processorInfo>
<supportedUsageClasses><item>on-demand</item><item>spot</item><item>capacity-block</item></supportedUsageClasses>` + more + `</item>`
	}
	w := &wire{answers: []reply{
		page("more", item("g6.xlarge", `<gpuInfo><gpus><item><count>1</count></item></gpus></gpuInfo>`)),
		page("", item("m7i.xlarge", ""), item("inf2.xlarge", `<inferenceAcceleratorInfo><accelerators/></inferenceAcceleratorInfo>`)),
	}}
	rules := store.Requirements{VCPUs: store.Range{Min: 2, Max: 4}, Arch: []string{store.X86}}
	got, err := w.fleet().Types(t.Context(), here, rules)
	one := store.InstanceType{Name: "m7i.xlarge", VCPUs: 4, MemoryMiB: 16384, Arch: []string{store.X86}, Markets: []string{store.OnDemand, store.Spot}}
	gpu, special := one, one
	gpu.Name, gpu.GPUs = "g6.xlarge", 1
	special.Name, special.Special = "inf2.xlarge", true
	if err != nil || !reflect.DeepEqual(got, []store.InstanceType{gpu, one, special}) {
		t.Errorf("Types = %+v, %v", got, err)
	}
	if len(w.calls) != 2 || w.calls[1].Get("NextToken") != "more" || w.calls[0].Get("MaxResults") != "100" {
		t.Fatalf("calls = %v, want two pages of 100", w.calls)
	}
	filters := map[string]string{}
	for _, n := range []string{"1", "2", "3", "4"} {
		var values []string
		for _, v := range []string{"1", "2", "3"} {
			if s := w.calls[0].Get("Filter." + n + ".Value." + v); s != "" {
				values = append(values, s)
			}
		}
		filters[w.calls[0].Get("Filter."+n+".Name")] = strings.Join(values, " ")
	}
	want := map[string]string{"current-generation": "true", "bare-metal": "false", "processor-info.supported-architecture": "x86_64", "vcpu-info.default-vcpus": "2 3 4"}
	if !reflect.DeepEqual(filters, want) {
		t.Errorf("filters = %v, want %v", filters, want)
	}
	w = &wire{answers: []reply{ec2Error(403, "UnauthorizedOperation", "You are not authorized to perform this operation.")}}
	_, err = w.fleet().Types(t.Context(), here, rules)
	wantError(t, "Types", err, fleet.ErrRefused, "UnauthorizedOperation")
}

// The rows are moto's, which has them from EC2.
func TestTypesOfARegionAreChosenFrom(t *testing.T) {
	c := start(t, ec2proxy.Config{})
	a := store.Account{MachineOptions: store.MachineOptions{InstanceRequirements: &store.Requirements{VCPUs: store.Range{Min: 2, Max: 8}, Arch: []string{store.ARM64}, Exclude: []string{"t*"}}}}
	all, err := c.part(assume.Worker, externalID).Types(t.Context(), here, *a.InstanceRequirements)
	if err != nil || len(all) < 30 {
		t.Fatalf("Types = %d, %v; want those of arm64 with 2 to 8 vCPUs", len(all), err)
	}
	got := a.Choose(store.Machine{CPU: 8}, store.Spot, all, func(string) store.MicroUSD { return 0 })
	if len(got) < 10 || len(got) > store.MaxPlacements || !slices.Contains(got, "c7g.2xlarge") {
		t.Errorf("chosen are %q, want up to %d, c7g.2xlarge among them", got, store.MaxPlacements)
	}
	_, err = c.part(assume.Reaper, externalID).Types(t.Context(), here, *a.InstanceRequirements)
	wantError(t, "Types by the reaper", err, fleet.ErrRefused, "UnauthorizedOperation")
}
