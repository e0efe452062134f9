package ec2fleet_test

import (
	"encoding/base64"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var update = flag.Bool("update", false, "write the golden files")

// instance is one in an answer of EC2's, with what we read of it.
func instance(id, state, more string) string {
	return fmt.Sprintf(`<item><instanceId>%s</instanceId><instanceState><code>16</code><name>%s</name></instanceState><clientToken>garo-r1-0</clientToken>
<launchTime>2026-01-02T03:04:05.000Z</launchTime><instanceType>c7g.large</instanceType><subnetId>subnet-1</subnetId>
<tagSet><item><key>garo:runner</key><value>r1</value></item></tagSet>%s</item>`, id, state, more)
}

var launched = "<RunInstancesResponse><instancesSet>" + instance("i-0abc", "pending", "") + "</instancesSet></RunInstancesResponse>"

// described is a page of DescribeInstances, each instance in a reservation of its own.
func described(next string, instances ...string) reply {
	var body strings.Builder
	body.WriteString("<DescribeInstancesResponse><reservationSet>")
	for _, i := range instances {
		body.WriteString("<item><instancesSet>" + i + "</instancesSet></item>")
	}
	body.WriteString("</reservationSet>")
	if next != "" {
		body.WriteString("<nextToken>" + next + "</nextToken>")
	}
	return reply{200, body.String() + "</DescribeInstancesResponse>", nil}
}

// golden compares a call with a file, one parameter a line.
func golden(t *testing.T, name string, call map[string][]string) {
	t.Helper()
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(call)) {
		fmt.Fprintf(&b, "%s=%s\n", k, strings.Join(call[k], " "))
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the call is\n%s\nand %s is\n%s", b.String(), path, want)
	}
}

func TestLaunchGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*fleet.Launch)
	}{
		{"ondemand.golden", func(*fleet.Launch) {}},
		{"spot.golden", func(l *fleet.Launch) { l.Market, l.InstanceProfile = store.Spot, "builder" }},
		{"profilearn.golden", func(l *fleet.Launch) {
			l.SecurityGroups, l.InstanceProfile = nil, "arn:aws:iam::111111111111:instance-profile/builder"
		}},
		{"rootvolume.golden", func(l *fleet.Launch) {
			l.Options.RootVolume = store.Volume{SizeGB: 100, Type: "gp3", IOPS: 6000, Throughput: 500, InitializationRate: 300}
			l.Options.RootDevice = "/dev/sda1"
		}},
		{"rootsize.golden", func(l *fleet.Launch) {
			l.Options = store.LaunchOptions{RootVolume: store.Volume{SizeGB: 100}}.On(store.Root{Device: "/dev/xvda", SizeGB: 8})
		}},
		{"tags.golden", func(l *fleet.Launch) { l.Tags["cost centre"], l.Options.TagInterface = "42", true }},
		{"publicip.golden", func(l *fleet.Launch) { l.Options.PublicIP, l.Options.TagInterface = new(true), true }},
		{"privateip.golden", func(l *fleet.Launch) { l.Options.PublicIP, l.SecurityGroups = new(false), nil }},
		{"reservation.golden", func(l *fleet.Launch) { l.Options = market("cr-0123456789abcdef0") }},
		{"reservationgroup.golden", func(l *fleet.Launch) {
			l.Options = market("arn:aws:resource-groups:eu-west-2:111111111111:group/builds")
			l.InstanceType = "t4g.large"
		}},
		{"hops.golden", func(l *fleet.Launch) { l.InstanceProfile, l.Options.HopLimit = "builder", 2 }},
		{"reservationopen.golden", func(l *fleet.Launch) { l.Options.CapacityReservation = "open" }},
		{"spotmarket.golden", func(l *fleet.Launch) { l.Options, l.Market = market("cr-0123456789abcdef0"), store.Spot }},
	} {
		w := &wire{answers: []reply{{200, launched, nil}}}
		f := w.fleet()
		for range 20 { // the same bytes each time
			l := launch()
			c.edit(&l)
			if _, err := f.Launch(t.Context(), here, l); err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, w.calls[len(w.calls)-1])
		}
		data, err := base64.StdEncoding.DecodeString(w.calls[0].Get("UserData"))
		if err != nil || string(data) != string(launch().UserData) {
			t.Errorf("UserData decodes to %q, %v; want %q", data, err, launch().UserData)
		}
	}
}

// market is all that a registration can say of how a machine is bought.
func market(reservation string) store.LaunchOptions {
	return store.LaunchOptions{SpotMaxPrice: "0.25", CPUCredits: store.Standard, Tenancy: store.Dedicated, CapacityReservation: reservation}
}

// Every family of types is looked at: m7i has no credits, and trn1 is no T type.
func TestOnlyBurstableTypesGetCredits(t *testing.T) {
	for name, want := range map[string]string{"t2.micro": "standard", "t3a.small": "standard", "t4g.large": "standard", "trn1.2xlarge": "", "m7i.large": "", "t": ""} {
		w := &wire{answers: []reply{{200, launched, nil}}}
		l := launch()
		l.InstanceType, l.Options.CPUCredits = name, store.Standard
		if _, err := w.fleet().Launch(t.Context(), here, l); err != nil {
			t.Fatal(err)
		}
		if got := w.calls[0].Get("CreditSpecification.CpuCredits"); got != want {
			t.Errorf("%s is launched with credits %q, want %q", name, got, want)
		}
	}
}

func TestImageIsLookedAtOnce(t *testing.T) {
	image := func(root, mappings string) reply {
		return reply{200, "<DescribeImagesResponse><imagesSet><item><imageId>ami-1</imageId><rootDeviceName>" + root + "</rootDeviceName><blockDeviceMapping>" + mappings + "</blockDeviceMapping></item></imagesSet></DescribeImagesResponse>", nil}
	}
	const data = "<item><deviceName>/dev/sdb</deviceName><ebs><volumeSize>500</volumeSize></ebs></item><item><deviceName>/dev/sdc</deviceName><virtualName>ephemeral0</virtualName></item>"
	const disk = "<item><deviceName>/dev/sda1</deviceName><ebs><volumeSize>30</volumeSize></ebs></item>"
	w := &wire{answers: []reply{image("/dev/sda1", data+disk)}}
	f := w.fleet()
	for range 3 {
		if got, err := f.RootVolume(t.Context(), here, "ami-1"); err != nil || got != (store.Root{Device: "/dev/sda1", SizeGB: 30}) {
			t.Fatalf("RootVolume = %+v, %v; want /dev/sda1 of 30 GiB", got, err)
		}
	}
	elsewhere := here
	elsewhere.Region = "eu-west-1"
	if _, err := f.RootVolume(t.Context(), elsewhere, "ami-1"); err != nil || len(w.calls) != 2 {
		t.Errorf("after another region %d calls, %v; want one for each region", len(w.calls), err)
	}
	if c := w.calls[0]; c.Get("Action") != "DescribeImages" || c.Get("ImageId.1") != "ami-1" || c.Has("ImageId.2") {
		t.Errorf("the call is %v, want the one image", c)
	}

	for name, c := range map[string]struct {
		answer reply
		kind   error
		code   string
	}{
		"NoVolume": {image("/dev/sda1", data), fleet.ErrRefused, "NoRootVolume"},
		"NoRoot":   {image("", disk), fleet.ErrRefused, "NoRootVolume"},
		"NoImage":  {reply{200, "<DescribeImagesResponse><imagesSet/></DescribeImagesResponse>", nil}, fleet.ErrImage, "InvalidAMIID.NotFound"},
		"Gone":     {ec2Error(400, "InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist"), fleet.ErrImage, "InvalidAMIID.NotFound"},
		"Denied":   {ec2Error(403, "UnauthorizedOperation", "You are not authorized"), fleet.ErrRefused, "UnauthorizedOperation"},
		"Away":     {ec2Error(503, "Unavailable", ""), fleet.ErrUnknown, "Unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &wire{answers: []reply{c.answer}}
			f := w.fleet()
			for range 2 { // none of these is remembered
				_, err := f.RootVolume(t.Context(), here, "ami-1")
				wantError(t, "RootVolume", err, c.kind, c.code)
			}
			if len(w.calls) != 2 {
				t.Errorf("%d calls, want 2", len(w.calls))
			}
		})
	}
}

func TestInstanceIsShownAsItIs(t *testing.T) {
	const spot = "<instanceLifecycle>spot</instanceLifecycle>"
	for _, c := range []struct {
		name, state, more string
		market, reason    string
	}{
		{"Running", "running", "<reason></reason>", store.OnDemand, ""},
		{"RunningWithALeftOverReason", "running", "<stateReason><code>x</code><message>was stopped once</message></stateReason>", store.OnDemand, ""},
		{"Spot", "running", spot, store.Spot, ""},
		{"Interrupted", "terminated", spot + "<reason>Server.SpotInstanceTermination (2026-01-02 03:04:05 GMT)</reason><stateReason><code>Server.SpotInstanceTermination</code><message>Server.SpotInstanceTermination: Spot instance termination</message></stateReason>", store.Spot, "Server.SpotInstanceTermination: Spot instance termination"},
		{"EndedByUser", "shutting-down", "<reason>User initiated (2026-01-02 03:04:05 GMT)</reason>", store.OnDemand, "User initiated (2026-01-02 03:04:05 GMT)"},
		{"NeverStarted", "terminated", "<stateReason><code>Client.InternalError</code><message>Client.InternalError: Client error on launch</message></stateReason>", store.OnDemand, "Client.InternalError: Client error on launch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &wire{answers: []reply{described("", instance("i-1", c.state, c.more))}}
			got, err := w.fleet().Get(t.Context(), here, "i-1")
			i := got["i-1"]
			if err != nil || i.ID != "i-1" || i.State != fleet.State(c.state) || i.Market != c.market || i.Reason != c.reason {
				t.Errorf("Get = %+v, %v; want %s, %s with reason %q", i, err, c.state, c.market, c.reason)
			}
			if i.ClientToken != "garo-r1-0" || i.InstanceType != "c7g.large" || i.Subnet != "subnet-1" || i.Tags[fleet.TagRunner] != "r1" ||
				!i.LaunchedAt.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
				t.Errorf("Get = %+v, want all that EC2 shows", i)
			}
		})
	}
}

func TestListYieldsEveryPageAndThenTheError(t *testing.T) {
	w := &wire{answers: []reply{
		described("p2", instance("i-1", "running", ""), instance("i-2", "terminated", "")),
		described("p3"), // a page can be empty
		described("", instance("i-3", "running", "")),
	}}
	var got []string
	for i, err := range w.fleet().List(t.Context(), here, "prod") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, i.ID)
	}
	if !slices.Equal(got, []string{"i-1", "i-2", "i-3"}) || len(w.calls) != 3 {
		t.Errorf("List = %v in %d calls, want three instances in three", got, len(w.calls))
	}

	w = &wire{answers: []reply{described("p2", instance("i-1", "running", "")), ec2Error(503, "RequestLimitExceeded", "")}}
	n := 0
	for i, err := range w.fleet().List(t.Context(), here, "prod") {
		if n++; n == 1 && (err != nil || i.ID != "i-1") {
			t.Errorf("List yields %s, %v; want i-1", i.ID, err)
		}
		if n == 2 {
			wantError(t, "List", err, fleet.ErrThrottled, "RequestLimitExceeded")
		}
	}
	if n != 2 {
		t.Errorf("List yielded %d times, want 2: nothing follows an error", n)
	}
}

func TestListGolden(t *testing.T) {
	w := &wire{answers: []reply{described("p2"), described("")}}
	for range w.fleet().List(t.Context(), here, "prod") {
	}
	golden(t, "list.golden", w.calls[1])
}

func TestGetAsksForAtMostTwoHundredAtOnce(t *testing.T) {
	w := &wire{answers: []reply{described("", instance("i-1", "running", "")), described("", instance("i-2", "running", ""))}}
	var ids []string
	for n := range 201 {
		ids = append(ids, fmt.Sprintf("i-%d", n))
	}
	got, err := w.fleet().Get(t.Context(), here, ids...)
	if err != nil || len(got) != 2 || len(w.calls) != 2 {
		t.Fatalf("Get = %v, %v in %d calls; want two instances in two", got, err, len(w.calls))
	}
	if c := w.calls[0]; c.Get("Filter.1.Name") != "instance-id" || c.Get("Filter.1.Value.200") != "i-199" || c.Has("Filter.1.Value.201") {
		t.Errorf("the first call is %v, want a filter by 200 ids", c)
	}
	if got, err := w.fleet().Get(t.Context(), here); err != nil || len(got) != 0 || len(w.calls) != 2 {
		t.Errorf("Get of nothing = %v, %v with another call %v; want nothing, without one", got, err, len(w.calls) > 2)
	}
	w.answers = []reply{ec2Error(403, "UnauthorizedOperation", "")}
	_, err = w.fleet().Get(t.Context(), here, "i-1")
	wantError(t, "Get", err, fleet.ErrRefused, "UnauthorizedOperation")
}

func TestByTokenPrefersTheOneThatLives(t *testing.T) {
	other := strings.Replace(instance("i-0", "running", ""), "garo-r1-0", "garo-r1-1", 1)
	w := &wire{answers: []reply{
		described("p2", other, instance("i-1", "terminated", "")),
		described("", instance("i-2", "running", ""), instance("i-3", "terminated", "")),
	}}
	got, err := w.fleet().ByToken(t.Context(), here, "r1", "garo-r1-0")
	if err != nil || got.ID != "i-2" {
		t.Errorf("ByToken = %s, %v; want i-2", got.ID, err)
	}
	w = &wire{answers: []reply{described("", other)}}
	_, err = w.fleet().ByToken(t.Context(), here, "r1", "garo-r1-0")
	wantError(t, "ByToken", err, fleet.ErrNotFound, "InvalidInstanceID.NotFound")
	w = &wire{answers: []reply{described("p2", other), ec2Error(500, "InternalError", "")}}
	_, err = w.fleet().ByToken(t.Context(), here, "r1", "garo-r1-0")
	wantError(t, "ByToken after half of the pages", err, fleet.ErrUnknown, "InternalError")
}

func TestParameterOfAnImageThatIsGoneIsReadAgain(t *testing.T) {
	const path = "/images/runner"
	w := &wire{parameters: map[string]string{path: "ami-0123456789abcdef0"}}
	f := w.fleet()
	resolve := func(want string) {
		t.Helper()
		if got, err := f.Image(t.Context(), here, path); got != want || err != nil {
			t.Errorf("Image = %q, %v; want %s", got, err, want)
		}
	}
	resolve("ami-0123456789abcdef0")
	w.parameters[path] = "ami-0fedcba9876543210"
	resolve("ami-0123456789abcdef0") // it is kept
	w.answers = []reply{ec2Error(400, "InvalidAMIID.Unavailable", "The image ID 'ami-0123456789abcdef0' is no longer available")}
	l := launch()
	l.Image = "ami-0123456789abcdef0"
	_, err := f.Launch(t.Context(), here, l)
	wantError(t, "Launch", err, fleet.ErrImage, "InvalidAMIID.Unavailable")
	resolve("ami-0fedcba9876543210")
	resolve("ami-0fedcba9876543210")
}

func TestImageOfAParameter(t *testing.T) {
	const path = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
	for _, c := range []struct {
		name, value, code string
		want              string
		kind              error // of the error; nil beside an empty want: an outage
		says              string
	}{
		{"AMI", "ami-0123456789abcdef0", "", "ami-0123456789abcdef0", nil, ""},
		{"AMIAndALine", "ami-0123456789abcdef0\n", "", "ami-0123456789abcdef0", nil, ""},
		{"SomethingElse", `{"image_id":"ami-0123456789abcdef0"}`, "", "", fleet.ErrRefused, "no AMI id"},
		{"Missing", "", "ParameterNotFound", "", fleet.ErrRefused, "does not exist"},
		{"Denied", "", "AccessDeniedException", "", fleet.ErrRefused, "ssm:GetParameter"},
		{"Throttled", "", "ThrottlingException", "", fleet.ErrThrottled, ""},
		{"Away", "", "InternalServerError", "", fleet.ErrUnknown, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &wire{parameters: map[string]string{path: c.value}, ssmCode: c.code}
			f := w.fleet()
			for range 2 {
				got, err := f.Image(t.Context(), here, path)
				if c.want != "" {
					if err != nil || got != c.want {
						t.Errorf("Image = %q, %v; want %s", got, err, c.want)
					}
					w.ssmCode = "ThrottlingException" // it is kept
					continue
				}
				code := c.code
				if c.kind == fleet.ErrRefused {
					code = "ImageParameter"
				}
				e := wantError(t, "Image", err, c.kind, code)
				if !strings.Contains(e.Text, c.says) || got != "" {
					t.Errorf("Image = %q with text %q, want %q in it", got, e.Text, c.says)
				}
			}
		})
	}
}
