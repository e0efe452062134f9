package store_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// realTypes are rows of EC2's answer to DescribeInstanceTypes in us-east-1, as moto 5.2.5
// carries it (moto/ec2/resources/instance_types.json.gz), with the fields that count here.
func realTypes(t *testing.T) []store.InstanceType {
	t.Helper()
	text, err := os.ReadFile("testdata/instance-types.json")
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		InstanceTypes []struct {
			InstanceType                         string
			CurrentGeneration, BareMetal         bool
			SupportedUsageClasses                []string
			ProcessorInfo                        struct{ SupportedArchitectures []string }
			VCpuInfo                             struct{ DefaultVCpus int }
			MemoryInfo                           struct{ SizeInMiB int }
			GpuInfo                              struct{ Gpus []struct{ Count int } }
			InferenceAcceleratorInfo, NeuronInfo *struct{}
		}
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatal(err)
	}
	var all []store.InstanceType
	for _, r := range answer.InstanceTypes {
		one := store.InstanceType{
			Name: r.InstanceType, VCPUs: r.VCpuInfo.DefaultVCpus, MemoryMiB: r.MemoryInfo.SizeInMiB, Arch: r.ProcessorInfo.SupportedArchitectures,
			Special: r.BareMetal || !r.CurrentGeneration || r.InferenceAcceleratorInfo != nil || r.NeuronInfo != nil,
		}
		for _, g := range r.GpuInfo.Gpus {
			one.GPUs += g.Count
		}
		for _, u := range r.SupportedUsageClasses {
			one.Markets = append(one.Markets, strings.ReplaceAll(u, "-", ""))
		}
		all = append(all, one)
	}
	return all
}

// usual are rules as an account may have them.
func usual() *store.Requirements {
	return &store.Requirements{
		VCPUs: store.Range{Min: 2, Max: 16}, MemoryGB: store.Range{Max: 64}, Arch: []string{store.X86, store.ARM64}, GPU: store.Range{Max: 1}, Exclude: []string{"t*", "*-flex.*"},
	}
}

func TestInstanceTypesAreChosenByWhatTheyHave(t *testing.T) {
	all := realTypes(t)
	nobodyKnows := func(string) store.MicroUSD { return 0 }
	for name, c := range map[string]struct {
		m      store.Machine
		market string
		rules  func(*store.Requirements)
		price  func(string) store.MicroUSD
		first  string // of those that are chosen, with spaces between
		never  string // names that none may begin with
	}{
		"NothingAsked":     {store.Machine{}, store.Spot, nil, nobodyKnows, "m7a.large m7i.large r7i.large c7a.xlarge", "c5 t3 t4 g p5 inf2 m1 mac2 m7i-flex c7g"},
		"EightCoresOfARM":  {store.Machine{CPU: 8, Arch: store.ARM64}, store.Spot, nil, nobodyKnows, "c7g.2xlarge c8g.2xlarge m7g.2xlarge r8g.2xlarge", "m7g.metal g5g c7a"},
		"Memory":           {store.Machine{MemoryGB: 32}, store.OnDemand, nil, nobodyKnows, "m7i.2xlarge", "g6 c7a"},
		"MemoryOfARM":      {store.Machine{MemoryGB: 16, Arch: store.ARM64}, store.OnDemand, nil, nobodyKnows, "r7g.large m7g.xlarge m8g.xlarge", "g5g t4g"},
		"GPU":              {store.Machine{GPU: 1}, store.OnDemand, nil, nobodyKnows, "g4ad.xlarge g4dn.xlarge g6.xlarge g6.2xlarge", "g6.12 p5 g5g m7"},
		"GPUOfARM":         {store.Machine{GPU: 1, Arch: store.ARM64}, store.OnDemand, nil, nobodyKnows, "g5g.xlarge", "g6"},
		"GPUWithoutAMDs":   {store.Machine{GPU: 1}, store.OnDemand, func(q *store.Requirements) { q.Exclude = []string{"g4ad.*"} }, nobodyKnows, "g4dn.xlarge g6.xlarge", "g4ad"},
		"AlwaysWithGPU":    {store.Machine{}, store.OnDemand, func(q *store.Requirements) { q.GPU.Min = 1 }, nobodyKnows, "g4ad.xlarge g4dn.xlarge", "m7 c"},
		"BurstablesToo":    {store.Machine{}, store.Spot, func(q *store.Requirements) { q.Exclude = nil }, nobodyKnows, "t3a.micro m7a.large m7i-flex.large m7i.large t3.large", "t4g"},
		"ExactlyOneSize":   {store.Machine{}, store.Spot, func(q *store.Requirements) { q.VCPUs, q.MemoryGB = store.Range{4, 4}, store.Range{8, 8} }, nobodyKnows, "c7a.xlarge c7i.xlarge", "m7 c7g"},
		"OfOneVCPU":        {store.Machine{Arch: store.ARM64}, store.Spot, func(q *store.Requirements) { q.VCPUs.Min = 1 }, nobodyKnows, "c8gd.medium c6g.large", ""},
		"OnDemandAlone":    {store.Machine{CPU: 16, Arch: store.ARM64}, store.OnDemand, func(q *store.Requirements) { q.MemoryGB.Max = 128 }, nobodyKnows, "hpc7g.4xlarge", ""},
		"NotAsSpot":        {store.Machine{CPU: 16, Arch: store.ARM64}, store.Spot, func(q *store.Requirements) { q.MemoryGB.Max = 128 }, nobodyKnows, "", ""},
		"MoreThanThereIs":  {store.Machine{CPU: 16}, store.Spot, nil, nobodyKnows, "", ""},
		"CheapestFirst":    {store.Machine{CPU: 4}, store.OnDemand, nil, prices("m7i.xlarge 201600 c7i.xlarge 178500 c7a.xlarge 205320 m7i.2xlarge 403200"), "c7i.xlarge m7i.xlarge c7a.xlarge m7i.2xlarge m7a.xlarge c7a.2xlarge", ""},
		"LargerAndCheaper": {store.Machine{CPU: 4}, store.OnDemand, nil, prices("m7i.xlarge 201600 m7i.2xlarge 150000"), "m7i.2xlarge m7i.xlarge c7a.xlarge c7i.xlarge", ""},
		"EqualPrice":       {store.Machine{CPU: 4}, store.OnDemand, nil, prices("m7i.2xlarge 1 m7i.xlarge 1"), "m7i.xlarge m7i.2xlarge c7a.xlarge", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := store.Account{MachineOptions: store.MachineOptions{InstanceRequirements: usual()}}
			if c.rules != nil {
				c.rules(a.InstanceRequirements)
			}
			got := a.Choose(c.m, c.market, all, c.price)
			if got == nil || len(got) > store.MaxPlacements || !strings.HasPrefix(strings.Join(got, " ")+" ", strings.TrimSpace(c.first)+" ") || c.first == "" && len(got) > 0 {
				t.Errorf("chosen are %q, want %q first", got, c.first)
			}
			for begin := range strings.FieldsSeq(c.never) {
				if slices.ContainsFunc(got, func(n string) bool { return strings.HasPrefix(n, begin) }) {
					t.Errorf("chosen are %q, want none of %s…", got, begin)
				}
			}
			slices.Reverse(all)
			if again := a.Choose(c.m, c.market, all, c.price); !slices.Equal(got, again) {
				t.Errorf("in another order EC2's answer leads to %q, and to %q", again, got)
			}
		})
	}
}

// prices reads names and what an hour costs.
func prices(list string) func(string) store.MicroUSD {
	known := map[string]store.MicroUSD{}
	words := strings.Fields(list)
	for i := 0; i < len(words); i += 2 {
		n, err := json.Number(words[i+1]).Int64()
		if err != nil {
			panic(err)
		}
		known[words[i]] = store.MicroUSD(n)
	}
	return func(name string) store.MicroUSD { return known[name] }
}

func TestInstanceTypesAreChosenOnlyWhereNobodyNamesThem(t *testing.T) {
	for name, c := range map[string]struct {
		m        store.Machine
		defaults []string
		rules    *store.Requirements
		arch     string // empty: they are named
	}{
		"NoRules":            {store.Machine{}, []string{"m7i.large"}, nil, ""},
		"Defaults":           {store.Machine{}, []string{"m7i.large"}, usual(), ""},
		"NoDefaults":         {store.Machine{}, nil, usual(), store.X86},
		"Named":              {store.Machine{InstanceTypes: []string{"m7i.large"}}, nil, usual(), ""},
		"Needs":              {store.Machine{CPU: 4}, []string{"m7i.large"}, usual(), store.X86},
		"NeedsAnArch":        {store.Machine{Arch: store.ARM64}, []string{"m7i.large"}, usual(), store.ARM64},
		"ArchOfTheRules":     {store.Machine{CPU: 4}, nil, &store.Requirements{Arch: []string{store.ARM64, store.X86}}, store.ARM64},
		"ArchWithoutAnyRule": {store.Machine{CPU: 4}, nil, &store.Requirements{}, store.X86},
	} {
		a := store.Account{DefaultInstanceTypes: c.defaults, MachineOptions: store.MachineOptions{InstanceRequirements: c.rules}}
		if _, arch, ok := a.Chooses(c.m); arch != c.arch || ok != (c.arch != "") {
			t.Errorf("%s: chosen %t for %q, want %q", name, ok, arch, c.arch)
		}
	}
}

func TestNeedsAreHeldAgainstTheRules(t *testing.T) {
	for name, c := range map[string]struct {
		m            store.Machine
		rules        *store.Requirements
		field, value string
	}{
		"AllOfIt":       {store.Machine{CPU: 16, MemoryGB: 64, GPU: 1, Arch: store.ARM64}, usual(), "", ""},
		"Nothing":       {store.Machine{}, nil, "", ""},
		"NoRules":       {store.Machine{CPU: 1}, nil, "cpu", "1"},
		"NoRulesArch":   {store.Machine{Arch: store.X86}, nil, "arch", store.X86},
		"TooManyCPUs":   {store.Machine{CPU: 17}, usual(), "cpu", "17"},
		"TooFewCPUs":    {store.Machine{CPU: 1}, usual(), "cpu", "1"},
		"TooMuchMemory": {store.Machine{MemoryGB: 65}, usual(), "memory", "65"},
		"AnyMemory":     {store.Machine{MemoryGB: 1024}, &store.Requirements{VCPUs: store.Range{Max: 8}}, "", ""},
		"TooManyGPUs":   {store.Machine{GPU: 2}, usual(), "gpu", "2"},
		"NoGPUs":        {store.Machine{GPU: 1}, &store.Requirements{VCPUs: store.Range{Max: 8}}, "gpu", "1"},
		"OtherArch":     {store.Machine{Arch: store.ARM64}, &store.Requirements{VCPUs: store.Range{Max: 8}}, "arch", store.ARM64},
		"X86ByDefault":  {store.Machine{Arch: store.X86}, &store.Requirements{VCPUs: store.Range{Max: 8}}, "", ""},
		"NotX86":        {store.Machine{Arch: store.X86}, &store.Requirements{Arch: []string{store.ARM64}}, "arch", store.X86},
	} {
		a := store.Account{
			Regions: map[string]store.Region{"eu-west-2": {Subnets: []string{"s"}, Images: []string{"i"}}}, Markets: []string{store.Spot}, Modes: []string{store.Ephemeral},
			MachineOptions: store.MachineOptions{InstanceRequirements: c.rules},
		}
		field, value, ok := a.Permits(store.Request{Region: "eu-west-2", Type: store.Spot, Mode: store.Ephemeral, Machine: c.m})
		if field != c.field || value != c.value || ok != (c.field == "") {
			t.Errorf("%s: %q %q %t, want %q %q", name, field, value, ok, c.field, c.value)
		}
	}
}

func TestPlanHasTheChosenTypesInTheirOrder(t *testing.T) {
	a := store.Account{
		Regions: map[string]store.Region{"eu-west-2": {Subnets: []string{"s1", "s2"}, Images: []string{"i"}}}, Markets: []string{store.Spot, store.OnDemand}, Modes: []string{store.Ephemeral}, SpotFallback: true,
		InstanceTypes: []string{"m7i.large"}, DefaultInstanceTypes: []string{"m7i.large"}, MachineOptions: store.MachineOptions{InstanceRequirements: usual()},
	}
	r := store.Request{Region: "eu-west-2", Type: store.Spot, Mode: store.Ephemeral, Machine: store.Machine{CPU: 8}}
	plan, err := a.Plan(r, 0, []string{"c7a.2xlarge", "m7i.2xlarge"})
	var got []string
	for _, p := range plan {
		got = append(got, p.Market+" "+p.InstanceType+" "+p.Subnet)
	}
	want := []string{
		"spot c7a.2xlarge s1", "spot c7a.2xlarge s2", "spot m7i.2xlarge s1", "spot m7i.2xlarge s2",
		"ondemand c7a.2xlarge s1", "ondemand c7a.2xlarge s2", "ondemand m7i.2xlarge s1", "ondemand m7i.2xlarge s2",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Plan = %q, %v; want %q", got, err, want)
	}
	r.Machine.CPU = 32
	if _, err := a.Plan(r, 0, []string{"c7a.8xlarge"}); err == nil || !strings.Contains(err.Error(), "cpu 32") {
		t.Errorf("Plan of more than the rules allow = %v, want an error that names it", err)
	}
}

func TestLabelsOfChosenMachinesSayTheirArchitecture(t *testing.T) {
	a := store.Account{
		ID: "111122223333", Repositories: []store.Named{{ID: "7", Name: "acme/shop"}}, MachineOptions: store.MachineOptions{InstanceRequirements: usual()},
		RunsOn: []store.Offer{{Labels: []string{"big"}, Machine: store.Machine{CPU: 8, Arch: store.ARM64}}},
	}
	repo := store.Repository{ID: "7", Name: "acme/shop"}
	if m := a.Match(repo, []string{"big", "ARM64"}); m.Offer == nil {
		t.Errorf("a job that names arm64 gets no machine: %s", m.Why)
	}
	if m := a.Match(repo, []string{"big", "X64"}); m.Offer != nil || m.Why == "" {
		t.Errorf("a job that names x64 gets %+v, want none, and why", m.Offer)
	}
}
