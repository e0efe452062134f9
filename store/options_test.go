package store_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// optioned is an account that sets all that there is to set.
func optioned() store.Account {
	a := account()
	r := a.Regions["eu-west-2"]
	r.RootVolume = store.Volume{SizeGB: 50, Type: "gp3", IOPS: 4000, Throughput: 250, InitializationRate: 200}
	r.AssociatePublicIP, r.CapacityReservation = new(false), "cr-0123456789abcdef0"
	a.Regions["eu-west-2"] = r
	a.MachineOptions = store.MachineOptions{
		MaxRootVolumeGB: 200, Tags: map[string]string{"team": "build", "cost centre": "42"}, RequestTags: []string{"team", "job"},
		SpotMaxPrice: "0.25", CPUCredits: store.Standard, Tenancy: store.Dedicated,
		BootLimitS: 400, BootLimitsS: map[string]int{"m7i.large": 600},
		FallbackRegions: []string{"eu-west-1"},
	}
	return a
}

func TestOptionsAreTheRegionsAndTheRequests(t *testing.T) {
	r := accepted("r1", store.Shared)
	r.Machine.RootVolumeGB, r.Machine.Tags = 100, map[string]string{"team": "web", "job": "7"}
	got, tags := optioned().Options(r)
	want := store.LaunchOptions{
		RootVolume:   store.Volume{SizeGB: 100, Type: "gp3", IOPS: 4000, Throughput: 250, InitializationRate: 200},
		TagInterface: true, SpotMaxPrice: "0.25", CPUCredits: "standard", Tenancy: "dedicated", CapacityReservation: "cr-0123456789abcdef0", PublicIP: new(false),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Options = %+v, want %+v", got, want)
	}
	if want := map[string]string{"team": "web", "cost centre": "42", "job": "7"}; !maps.Equal(tags, want) {
		t.Errorf("tags = %v, want %v", tags, want)
	}
	a := optioned()
	r.Region = "eu-west-1"
	r.Machine = store.Machine{}
	got, tags = a.Options(r)
	if got.RootVolume != (store.Volume{}) || got.PublicIP != nil || got.CapacityReservation != "" || tags["team"] != "build" {
		t.Errorf("in a region that sets nothing Options = %+v, %v; want the account's alone", got, tags)
	}
	if tags["team"] = "changed"; a.Tags["team"] != "build" {
		t.Error("the account's tags are those of the launch")
	}
	if got, tags := account().Options(accepted("r1", store.Shared)); !reflect.DeepEqual(got, store.LaunchOptions{}) || len(tags) != 0 {
		t.Errorf("without options Options = %+v, %v; want nothing", got, tags)
	}
}

// An image's own size is the least.
func TestRootVolumeIsAtLeastTheImages(t *testing.T) {
	for _, c := range []struct{ asked, image, want int }{{100, 8, 100}, {5, 8, 8}, {8, 8, 8}, {0, 8, 0}} {
		o := store.LaunchOptions{RootVolume: store.Volume{SizeGB: c.asked, Type: "gp3"}}.On(store.Root{Device: "/dev/sda1", SizeGB: c.image})
		if o.RootDevice != "/dev/sda1" || o.RootVolume.SizeGB != c.want || o.RootVolume.Type != "gp3" {
			t.Errorf("%d GiB on an image of %d: %+v, want %d on /dev/sda1", c.asked, c.image, o, c.want)
		}
	}
}

func TestRequestsChooseOptionsWithinTheRegistration(t *testing.T) {
	for name, c := range map[string]struct {
		edit         func(*store.Request, *store.Account)
		field, value string
	}{
		"Nothing":       {func(*store.Request, *store.Account) {}, "", ""},
		"AllOfIt":       {func(r *store.Request, _ *store.Account) { r.Machine.RootVolumeGB = 200 }, "", ""},
		"TooLarge":      {func(r *store.Request, _ *store.Account) { r.Machine.RootVolumeGB = 201 }, "root_volume_gb", "201"},
		"NotAllowed":    {func(r *store.Request, a *store.Account) { r.Machine.RootVolumeGB, a.MaxRootVolumeGB = 1, 0 }, "root_volume_gb", "1"},
		"ItsTag":        {func(r *store.Request, _ *store.Account) { r.Machine.Tags = map[string]string{"job": "1"} }, "", ""},
		"TheAccounts":   {func(r *store.Request, _ *store.Account) { r.Machine.Tags = map[string]string{"cost centre": "1"} }, "tags", "cost centre"},
		"AnotherTag":    {func(r *store.Request, _ *store.Account) { r.Machine.Tags = map[string]string{"job": "1", "x": "1"} }, "tags", "x"},
		"OtherCase":     {func(r *store.Request, _ *store.Account) { r.Machine.Tags = map[string]string{"Job": "1"} }, "tags", "Job"},
		"OursNeverFits": {func(r *store.Request, _ *store.Account) { r.Machine.Tags = map[string]string{"garo:runner": "x"} }, "tags", "garo:runner"},
	} {
		r, a := accepted("r1", store.Shared), optioned()
		c.edit(&r, &a)
		if field, value, ok := a.Permits(r); field != c.field || value != c.value || ok != (c.field == "") {
			t.Errorf("%s: Permits = %q, %q, %v; want %q, %q", name, field, value, ok, c.field, c.value)
		}
	}
}

func TestOptionsOfARegistrationAreRead(t *testing.T) {
	text := registration(t, func(m map[string]any) {
		b, err := json.Marshal(optioned())
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		m["external_id"] = "garo-external-1"
	})
	got, err := store.ParseAccount("123456789012", text)
	if want := optioned(); err != nil || !reflect.DeepEqual(got.MachineOptions, want.MachineOptions) || !reflect.DeepEqual(got.Regions, want.Regions) {
		t.Errorf("ParseAccount = %+v, %+v, %v; want %+v, %+v", got.MachineOptions, got.Regions, err, want.MachineOptions, want.Regions)
	}
}

func TestWrongOptionsAreNamed(t *testing.T) {
	many := map[string]any{}
	for _, c := range "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		many[string(c)] = "1"
	}
	volume := func(v map[string]any) func(map[string]any) {
		return func(m map[string]any) { m["regions"].(map[string]any)["eu-west-2"].(map[string]any)["root_volume"] = v }
	}
	region := func(name string, v any) func(map[string]any) {
		return func(m map[string]any) { m["regions"].(map[string]any)["eu-west-2"].(map[string]any)[name] = v }
	}
	set := func(name string, v any) func(map[string]any) { return func(m map[string]any) { m[name] = v } }
	for name, c := range map[string]struct {
		edit func(map[string]any)
		want string
	}{
		"VolumeType":      {volume(map[string]any{"type": "st1"}), "regions.eu-west-2.root_volume.type"},
		"VolumeField":     {volume(map[string]any{"size": 1}), `unknown field "size"`},
		"Size":            {volume(map[string]any{"size_gb": -1}), "root_volume.size_gb"},
		"SizeOfAnyType":   {volume(map[string]any{"size_gb": 65537}), "root_volume.size_gb"},
		"SizeOfGP2":       {volume(map[string]any{"size_gb": 16385, "type": "gp2"}), "root_volume.size_gb: 16385: want 1 to 16384"},
		"SmallIO2":        {volume(map[string]any{"size_gb": 3, "type": "io2", "iops": 100}), "root_volume.size_gb: 3: want 4 to"},
		"IOPSWithoutType": {volume(map[string]any{"iops": 3000}), "root_volume.iops: 3000: want none"},
		"IOPSOfGP2":       {volume(map[string]any{"iops": 3000, "type": "gp2"}), "root_volume.iops: 3000: want none"},
		"FewIOPS":         {volume(map[string]any{"iops": 2999, "type": "gp3"}), "root_volume.iops: 2999: want 3000 to 80000"},
		"IO1WithoutIOPS":  {volume(map[string]any{"type": "io1"}), "root_volume.iops: type io1 needs them"},
		"Throughput":      {volume(map[string]any{"throughput": 2001, "type": "gp3"}), "root_volume.throughput: 2001: want 125 to 2000"},
		"ThroughputOfIO2": {volume(map[string]any{"throughput": 125, "type": "io2", "iops": 100}), "root_volume.throughput: 125: want none"},
		"Initialization":  {volume(map[string]any{"initialization_rate": 99}), "root_volume.initialization_rate: 99: want 100 to 300"},
		"Reservation":     {region("capacity_reservation", "always"), `regions.eu-west-2.capacity_reservation: "always"`},
		"ReservationARN":  {region("capacity_reservation", "arn:aws:ec2:eu-west-2:1:capacity-reservation/cr-1"), "capacity_reservation"},
		"PublicIP":        {region("associate_public_ip", "yes"), "associate_public_ip"},
		"MaxRootVolume":   {set("max_root_volume_gb", 65537), "max_root_volume_gb: 65537"},
		"NegativeMax":     {set("max_root_volume_gb", -1), "max_root_volume_gb: -1"},
		"Hops":            {set("hop_limit", 3), "hop_limit: 3: want 1, or 2"},
		"HopsWithoutRole": {set("hop_limit", 2), "hop_limit: 2: only with jobs_role"},
		"RequireNothing":  {set("instance_requirements", map[string]any{}), "instance_requirements.vcpus.max: want"},
		"RequireOther":    {set("instance_requirements", map[string]any{"vcpus": map[string]any{"max": 8}, "cores": 1}), `unknown field "cores"`},
		"RequireTooMuch":  {set("instance_requirements", map[string]any{"vcpus": map[string]any{"max": 4096}}), "instance_requirements.vcpus: 0 to 4096"},
		"RequireUpended":  {set("instance_requirements", map[string]any{"vcpus": map[string]any{"max": 8}, "memory_gb": map[string]any{"min": 9, "max": 8}}), "instance_requirements.memory_gb: 9 to 8"},
		"RequireGPUs":     {set("instance_requirements", map[string]any{"vcpus": map[string]any{"max": 8}, "gpu": map[string]any{"min": 1}}), "instance_requirements.gpu.max: want"},
		"RequireArch":     {set("instance_requirements", map[string]any{"vcpus": map[string]any{"max": 8}, "arch": []any{"amd64"}}), `instance_requirements.arch: "amd64"`},
		"RequireTwice":    {set("instance_requirements", map[string]any{"vcpus": map[string]any{"max": 8}, "arch": []any{"arm64", "arm64"}}), `instance_requirements.arch: "arm64"`},
		"RequirePattern":  {set("instance_requirements", map[string]any{"vcpus": map[string]any{"max": 8}, "exclude": []any{"t[34]*"}}), `instance_requirements.exclude: "t[34]*"`},
		"OfferOfNeeds":    {set("runs_on", []any{map[string]any{"labels": []any{"big"}, "region": "eu-west-2", "cpu": 4}}), `runs_on[0].cpu: "4" is not one of the account's`},
		"OfferOfBoth":     {set("runs_on", []any{map[string]any{"labels": []any{"big"}, "cpu": 4, "instance_types": []any{"m7i.large"}}}), "runs_on[0].cpu: name instance_types"},
		"OurTag":          {set("tags", map[string]any{"GARO:x": "1"}), `tags: key "GARO:x": GARO sets`},
		"NameTag":         {set("tags", map[string]any{"Name": "1"}), `tags: key "Name": GARO sets`},
		"AWSTag":          {set("tags", map[string]any{"aws:x": "1"}), `tags: key "aws:x": keys in aws:`},
		"EmptyKey":        {set("tags", map[string]any{"": "1"}), `tags: key ""`},
		"LongKey":         {set("tags", map[string]any{strings.Repeat("k", 129): "1"}), "tags: key"},
		"LongValue":       {set("tags", map[string]any{"k": strings.Repeat("v", 257)}), `tags: the value of "k"`},
		"StrangeValue":    {set("tags", map[string]any{"k": "a\nb"}), `tags: the value of "k"`},
		"ManyTags":        {set("tags", many), "tags: 52 tags: want at most 40"},
		"RequestTag":      {set("request_tags", []any{"garo:runner"}), `request_tags: key "garo:runner"`},
		"Price":           {set("spot_max_price", "$1"), `spot_max_price: "$1"`},
		"PriceOfNothing":  {set("spot_max_price", "0.001"), `spot_max_price: "0.001"`},
		"PriceAsANumber":  {set("spot_max_price", 0.25), "spot_max_price"},
		"Credits":         {set("cpu_credits", "some"), `cpu_credits: "some"`},
		"Fallback":        {set("fallback_regions", []any{"us-east-1"}), `fallback_regions: "us-east-1"`},
		"FallbackTwice":   {set("fallback_regions", []any{"eu-west-1", "eu-west-1"}), `fallback_regions: "eu-west-1"`},
		"BootLimit":       {set("boot_limit", 59), "boot_limit: 59: want 60 to 3600"},
		"BootLimitOfType": {set("boot_limits", map[string]any{"m7i.large": 3601}), "boot_limits.m7i.large: 3601"},
		"BootLimitOfNone": {set("boot_limits", map[string]any{"p5.48xlarge": 600}), `boot_limits: "p5.48xlarge" is not in instance_types`},
		"Tenancy":         {set("tenancy", "host"), `tenancy: "host"`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := store.ParseAccount("123456789012", registration(t, c.edit)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("ParseAccount = %v, want an error with %q", err, c.want)
			}
		})
	}
	for _, good := range []func(map[string]any){
		volume(map[string]any{"size_gb": 1}), volume(map[string]any{"size_gb": 65536, "type": "io2", "iops": 256000}), volume(map[string]any{"type": "gp3", "iops": 80000, "throughput": 2000}),
		set("spot_max_price", "1"), set("spot_max_price", "0.0011"), region("capacity_reservation", "open"), region("capacity_reservation", "arn:aws:resource-groups:eu-west-2:1:group/x"),
		set("tags", map[string]any{"a b+c-d=e._:/@": ""}),
	} {
		if _, err := store.ParseAccount("123456789012", registration(t, good)); err != nil {
			t.Errorf("ParseAccount = %v, want no error", err)
		}
	}
}

func TestLaunchDescribesItsOptions(t *testing.T) {
	l := store.Launch{Tags: map[string]string{"Name": "garo x", "garo:runner": "r", "team": "build", "job": "1"}}
	l.Options, _ = optioned().Options(accepted("r1", store.Shared))
	want := map[string]string{
		"root_volume": "50 GiB, gp3, 4000 IOPS, 250 MiB/s, 200 MiB/s initialization", "tags": "job=1, team=build", "spot_max_price": "0.25",
		"cpu_credits": "standard", "tenancy": "dedicated", "capacity_reservation": "cr-0123456789abcdef0", "associate_public_ip": "false",
	}
	if got := l.Describe(); !maps.Equal(got, want) {
		t.Errorf("Describe = %q, want %q", got, want)
	}
	if got := (store.Launch{Tags: map[string]string{"Name": "x", "garo:runner": "r"}}).Describe(); len(got) != 0 {
		t.Errorf("Describe of nothing = %q, want nothing", got)
	}
}

// A launch of the version before options is read as one without, and written as it was.
func TestLaunchOfTheVersionBeforeHasNoOptions(t *testing.T) {
	const before = `{"image":"ami-1","security_groups":["sg-1"],"tags":{"Name":"x"},"script":2,"api_url":"u","agent_sha256":{"arm64":"a"},"hard_s":1,"key_id":"k1","vouched":true}`
	var l store.Launch
	if err := json.Unmarshal([]byte(before), &l); err != nil || !reflect.DeepEqual(l.Options, store.LaunchOptions{}) {
		t.Fatalf("options = %+v, %v; want none", l.Options, err)
	}
	if b, err := json.Marshal(l); err != nil || string(b) != before {
		t.Errorf("it is written as %s, %v; want %s", b, err, before)
	}
}

func TestBootLimitsAreThoseOfThePlan(t *testing.T) {
	of := func(types ...string) (plan []store.Placement) {
		for _, name := range types {
			plan = append(plan, store.Placement{InstanceType: name})
		}
		return plan
	}
	for name, c := range map[string]struct {
		account int
		types   map[string]int
		plan    []string
		want    map[string]int
	}{
		"Default":        {0, nil, []string{"m7i.large", "c7i.large"}, nil},
		"Account":        {400, nil, []string{"m7i.large"}, map[string]int{"m7i.large": 400}},
		"Type":           {0, map[string]int{"m7i.large": 600, "x": 70}, []string{"m7i.large", "c7i.large"}, map[string]int{"m7i.large": 600}},
		"TypeOverIt":     {400, map[string]int{"m7i.large": 90}, []string{"m7i.large", "c7i.large"}, map[string]int{"m7i.large": 90, "c7i.large": 400}},
		"Metal":          {400, nil, []string{"m7i.metal-24xl", "c6g.metal", "m7i.metalx"}, map[string]int{"m7i.metal-24xl": 1800, "c6g.metal": 1800, "m7i.metalx": 400}},
		"MetalByItsType": {0, map[string]int{"c6g.metal": 2400}, []string{"c6g.metal"}, map[string]int{"c6g.metal": 2400}},
		"LongerAccount":  {3600, nil, []string{"c6g.metal"}, map[string]int{"c6g.metal": 3600}},
	} {
		a := store.Account{MachineOptions: store.MachineOptions{BootLimitS: c.account, BootLimitsS: c.types}}
		if got := a.BootLimits(of(c.plan...), lim); !maps.Equal(got, c.want) {
			t.Errorf("%s: BootLimits = %v, want %v", name, got, c.want)
		}
	}
}

// A runner has to boot by the limit of the placement that it is launched in.
func TestEachPlacementHasItsBootLimit(t *testing.T) {
	in := intent()
	in.Plan[1].InstanceType = "c6g.metal"
	in.Launch.BootLimitsS = map[string]int{"c7i.large": 120, "c6g.metal": 1800}
	s := intended(accepted("r1", store.Shared))
	d := s.c().Begin(t0, lim, in)
	if got := d.Lock.BootBy; !got.Equal(at(2 * time.Minute)) {
		t.Errorf("boot_by = %v, want two minutes after the intent", got)
	}
	s.take(d)
	s.run.Version = 1
	now := at(10 * time.Second)
	d = s.c().Advance(now, lim, 0, 1, store.Refusal{Code: "InsufficientInstanceCapacity"}, store.Pacing{})
	if got := d.Lock.BootBy; !got.Equal(now.Add(30 * time.Minute)) {
		t.Errorf("boot_by = %v, want half an hour after the metal machine's call", got)
	}
	s.take(d)
	s.run.State, s.run.InstanceID, s.run.CalledAt = store.RunnerEnding, "i-1", now
	by := at(6 * time.Hour).Add(10*time.Second + 30*time.Minute + lim.GoneAge)
	if _, over := s.run.Unseen(by.Add(-time.Second), lim, nil); over {
		t.Error("the runner is over before its machine's own timer has ended it")
	}
	if _, over := s.run.Unseen(by, lim, nil); !over {
		t.Error("the runner is never over")
	}
}
