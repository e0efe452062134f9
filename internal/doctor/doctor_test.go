package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/doctor"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	account = "111111111111"
	region  = "eu-west-2"
)

// world is what a doctor examines: everything works until a test breaks it.
type world struct {
	account  store.Account
	accounts error // of reading registrations
	keys     error
	vouches  bool
	strange  []string // how strangers get the role
	fault    func(op string) error
	subnet   fleet.Subnet
	noSubnet bool
	ami      *fleet.AMI // nil: as the simulation has it
	records  []store.Item
	listing  error
	api      http.HandlerFunc
	vets     int // how often EC2 was asked
}

func newWorld() *world {
	return &world{
		account: store.Account{
			ID: account, MaxRunners: 10, Markets: []string{store.Spot, store.OnDemand},
			Regions: map[string]store.Region{region: {
				Subnets: []string{"subnet-a", "subnet-b"}, SecurityGroups: []string{"sg-1"}, Images: []string{"ami-1"}, RootVolume: store.Volume{SizeGB: 30},
			}},
			InstanceTypes: []string{"m7i.large", "m6i.large"}, DefaultInstanceTypes: []string{"m7i.large", "m6i.large"},
		},
		vouches: true, subnet: fleet.Subnet{Zone: "eu-west-2a", Free: 200, Out: "nat-1"},
		api: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
			fmt.Fprint(w, `{"status":"ok"}`)
		},
	}
}

func (w *world) Account(_ context.Context, id string) (store.Account, error) {
	switch {
	case w.accounts != nil:
		return store.Account{}, w.accounts
	case id != account:
		return store.Account{}, fmt.Errorf("account %s: %w", id, store.ErrNoAccount)
	}
	return w.account, nil
}

func (w *world) List(context.Context) ([]string, error) {
	if w.accounts != nil {
		return nil, w.accounts
	}
	return []string{account}, nil
}

// records are those of the world.
type records struct{ w *world }

func (r records) List(_ context.Context, f store.Filter) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		for _, i := range r.w.records {
			if f.Matches(i) && !yield(i, nil) {
				return
			}
		}
		if r.w.listing != nil {
			yield(nil, r.w.listing)
		}
	}
}

// ec2 is a simulated EC2 in which some things are as the test says.
type ec2 struct {
	simfleet.Inspected
	w *world
}

func (e ec2) Strangers(ctx context.Context, id string) ([]string, error) {
	let, err := e.Inspected.Strangers(ctx, id)
	return append(let, e.w.strange...), err
}

func (e ec2) AMI(ctx context.Context, at fleet.Place, id string) (fleet.AMI, error) {
	ami, err := e.Inspected.AMI(ctx, at, id)
	if err == nil && e.w.ami != nil {
		ami = *e.w.ami
	}
	return ami, err
}

func (e ec2) Vet(ctx context.Context, at fleet.Place, l fleet.Launch) error {
	e.w.vets++
	return e.Inspected.Vet(ctx, at, l)
}

// examine returns what a doctor finds of all parts. It takes no real time.
func (w *world) examine(t *testing.T, account, region string) (all []store.Finding) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sim, err := simfleet.OpenWorld(simfleet.WorldConfig{
			Fault: func(op string, _ fleet.Place, _ fleet.Launch) error {
				if w.fault == nil {
					return nil
				}
				return w.fault(op)
			},
			Subnet: func(fleet.Place, string) (fleet.Subnet, bool) { return w.subnet, !w.noSubnet },
		})
		if err != nil {
			t.Fatal(err)
		}
		long := secret.New(strings.Repeat("k", keys.MinLen))
		d := doctor.New(doctor.Config{
			Accounts: w, Fleet: ec2{simfleet.Inspected{World: sim}, w}, Records: records{w}, Vouches: func(string) bool { return w.vouches },
			Keys: func(context.Context) (*keys.Ring, error) {
				if w.keys != nil {
					return nil, w.keys
				}
				return keys.NewRing(long, "k1", map[string]secret.Text{"k1": long})
			},
			ControlPlane: "test", APIURL: "https://garo.test", HTTP: memhttp.Client(w.api),
		})
		for _, p := range d.Parts(t.Context(), account, region) {
			found := d.Examine(t.Context(), p)
			if len(found) == 0 {
				t.Errorf("nothing is found of %+v", p)
			}
			all = append(all, found...)
		}
		if got := sim.Instances(); len(got) > 0 {
			t.Errorf("%d machines were launched, want none", len(got))
		}
	})
	return all
}

func TestEverythingIsOK(t *testing.T) {
	w := newWorld()
	all := w.examine(t, "", "")
	seen := map[string]bool{}
	for _, f := range all {
		seen[f.Check] = true
		if f.Result != store.ResultOK || f.Evidence == "" || f.Remedy != "" {
			t.Errorf("%+v, want ok with evidence", f)
		}
	}
	for _, check := range []string{doctor.Keys, doctor.Registrations, doctor.API, doctor.Clock, doctor.Registration, doctor.Role, doctor.ExternalID,
		doctor.Recorded, doctor.RegionCheck, doctor.Image, doctor.Subnet, doctor.DryRun} {
		if !seen[check] {
			t.Errorf("check %s was not made", check)
		}
	}
	if w.vets != 5 {
		t.Errorf("%d dry runs, want one for each market and subnet, and one for the other type", w.vets)
	}
}

// refused is an answer of EC2.
func refused(kind error, code string) error {
	return &fleet.Error{Kind: kind, Code: code, Text: "EC2's words."}
}

// on returns a fault of one operation.
func on(op string, err error) func(string) error {
	return func(o string) error {
		if o == op {
			return err
		}
		return nil
	}
}

// Each check is made to fail once, and says why and what to do.
func TestEachCheckFails(t *testing.T) {
	runner := func(code string) store.Item {
		return &store.Runner{ID: "r", Account: account, CreatedAt: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), Attempts: []store.Attempt{
			{Code: "launched"}, {Code: "InsufficientInstanceCapacity"}, {Code: code, At: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), Placement: store.Placement{Market: "spot", InstanceType: "m7i.large", Subnet: "subnet-a"}},
		}}
	}
	away := errors.New("connection reset")
	public := false
	for _, c := range []struct {
		name             string
		breaks           func(*world)
		check            string
		want             store.Result
		evidence, remedy string // what is in them
	}{
		{"KeysUnreadable", func(w *world) { w.keys = errors.New("parameter /garo/keys: access denied") }, doctor.Keys, store.ResultFailed, "/garo/keys: access denied", "right to read"},
		{"RegistrationsUnreadable", func(w *world) { w.accounts = away }, doctor.Registrations, store.ResultFailed, "connection reset", "parameters below accounts"},
		{"APIAway", func(w *world) { w.api = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) } }, doctor.API, store.ResultFailed, "No answer", "GARO_URL"},
		{"AnotherServer", func(w *world) { w.api = http.NotFound }, doctor.API, store.ResultFailed, "Status 404", "GARO_URL"},
		{"ClockOff", func(w *world) {
			w.api = func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Date", time.Now().Add(-20*time.Second).UTC().Format(http.TimeFormat))
				fmt.Fprint(rw, `{"status":"ok"}`)
			}
		}, doctor.Clock, store.ResultFailed, "19s apart", "NTP"},
		{"NoDate", func(w *world) {
			w.api = func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, `{"status":"ok"}`) }
		}, doctor.Clock, store.ResultSkipped, "no time", ""},
		{"RegistrationFaulty", func(w *world) { w.accounts = fmt.Errorf("%w: max_runners", store.ErrUnusable) }, doctor.Registration, store.ResultFailed, "max_runners", "Correct"},
		{"RegistrationAway", func(w *world) { w.accounts = away }, doctor.Registration, store.ResultWarn, "connection reset", "again"},
		{"AccountClosed", func(w *world) { w.account.Closed = true }, doctor.Registration, store.ResultWarn, "closed", "take closed out"},
		{"RoleRefused", func(w *world) { w.fault = on(simfleet.OpTakeOn, refused(fleet.ErrRefused, "AccessDenied")) }, doctor.Role, store.ResultFailed, "AccessDenied: EC2's words.", "modules/account"},
		{"RoleAway", func(w *world) { w.fault = on(simfleet.OpTakeOn, away) }, doctor.Role, store.ResultWarn, "connection reset", "again"},
		{"RoleForStrangers", func(w *world) { w.strange = []string{fleet.WithoutExternalID, fleet.WithAWrongOne} }, doctor.ExternalID, store.ResultFailed, "without an external id and with a wrong external id", "trust policy"},
		{"RoleForStrangersUnknown", func(w *world) { w.fault = on(simfleet.OpStrangers, away) }, doctor.ExternalID, store.ResultWarn, "connection reset", "again"},
		{"ExternalIDWithoutARole", func(w *world) { w.fault = on(simfleet.OpTakeOn, away) }, doctor.ExternalID, store.ResultSkipped, "cannot be assumed", ""},
		{"QuotaRefused", func(w *world) { w.records = []store.Item{runner("VcpuLimitExceeded")} }, doctor.Recorded, store.ResultWarn, "VcpuLimitExceeded: 1 in a day. Last: VcpuLimitExceeded at 2000-01-01T00:00:00Z, for spot m7i.large in subnet-a", "vCPU quota"},
		{"SpotRoleMissing", func(w *world) {
			w.records = []store.Item{runner("AuthFailure.ServiceLinkedRoleCreationNotPermitted")}
		}, doctor.Recorded, store.ResultWarn, "AuthFailure.ServiceLinkedRole", "create-service-linked-role"},
		{"VolumeKeyRefused", func(w *world) { w.records = []store.Item{runner("InvalidKMSKey.InvalidState")} }, doctor.Recorded, store.ResultWarn, "InvalidKMSKey", "EBS encryption"},
		{"RecordsAway", func(w *world) { w.listing = away }, doctor.Recorded, store.ResultWarn, "connection reset", "again"},
		{"NoCertificate", func(w *world) { w.vouches = false }, doctor.RegionCheck, store.ResultFailed, "certificate", "another region"},
		{"NoSubnet", func(w *world) { w.account.Regions = map[string]store.Region{region: {}} }, doctor.RegionCheck, store.ResultFailed, "no subnet", "Complete"},
		{"NoImage", func(w *world) { w.account.Regions = map[string]store.Region{region: {Subnets: []string{"subnet-a"}}} }, doctor.DryRun, store.ResultSkipped, "no image", ""},
		{"SubnetUnknown", func(w *world) { w.noSubnet = true }, doctor.Subnet, store.ResultFailed, "does not show it", "subnets"},
		{"SubnetsRefused", func(w *world) { w.fault = on(simfleet.OpSubnets, refused(fleet.ErrRefused, "UnauthorizedOperation")) }, doctor.Subnet, store.ResultFailed, "UnauthorizedOperation", "modules/account"},
		{"SubnetWithoutWayOut", func(w *world) { w.subnet.Out = "" }, doctor.Subnet, store.ResultFailed, "no default route", "NAT gateway"},
		{"SubnetWithoutPublicAddress", func(w *world) { w.subnet.Out = "igw-1" }, doctor.Subnet, store.ResultFailed, "no public address", "associate_public_ip"},
		{"PublicAddressTakenAway", func(w *world) {
			w.subnet = fleet.Subnet{Free: 100, Out: "igw-1", Public: true}
			w.account.Regions[region] = store.Region{Subnets: []string{"subnet-a"}, Images: []string{"ami-1"}, AssociatePublicIP: &public}
		}, doctor.Subnet, store.ResultFailed, "no public address", "associate_public_ip"},
		{"SubnetFull", func(w *world) { w.subnet.Free = 0 }, doctor.Subnet, store.ResultFailed, "no free address", "larger"},
		{"SubnetNearlyFull", func(w *world) { w.subnet.Free = 19 }, doctor.Subnet, store.ResultWarn, "19 free", "larger"},
		{"ImageGone", func(w *world) { w.fault = on(simfleet.OpAMI, refused(fleet.ErrRefused, "InvalidAMIID.NotFound")) }, doctor.Image, store.ResultFailed, "InvalidAMIID.NotFound", "images"},
		{"ImageParameterGone", func(w *world) { w.fault = on(simfleet.OpImage, refused(fleet.ErrRefused, "ImageParameter")) }, doctor.Image, store.ResultFailed, "ImageParameter", "parameter"},
		{"ImageFailed", func(w *world) { w.ami = &fleet.AMI{State: "failed", RootDevice: "/dev/xvda"} }, doctor.Image, store.ResultFailed, "state is failed", "images"},
		{"ImageWithoutRoot", func(w *world) { w.ami = &fleet.AMI{State: "available"} }, doctor.Image, store.ResultFailed, "no root device", "images"},
		{"ImageOfAnotherArchitecture", func(w *world) {
			w.ami = &fleet.AMI{State: "available", RootDevice: "/dev/xvda", Architecture: "arm64"}
		}, doctor.Image, store.ResultFailed, "made for arm64, and the default instance type m7i.large is not", "architecture"},
		{"ImageDeprecated", func(w *world) {
			w.ami = &fleet.AMI{State: "available", RootDevice: "/dev/xvda", DeprecatedAt: time.Date(1999, 6, 1, 0, 0, 0, 0, time.UTC)}
		}, doctor.Image, store.ResultWarn, "1999-06-01", "newer image"},
		{"RootVolumeUnknown", func(w *world) { w.fault = on(simfleet.OpRoot, refused(fleet.ErrRefused, "NoRootVolume")) }, doctor.DryRun, store.ResultFailed, "NoRootVolume", "registration"},
		{"LaunchRefused", func(w *world) { w.fault = on(simfleet.OpVet, refused(fleet.ErrRefused, "UnauthorizedOperation")) }, doctor.DryRun, store.ResultFailed, "UnauthorizedOperation: EC2's words.", "permissions boundary"},
		{"GroupUnknown", func(w *world) { w.fault = on(simfleet.OpVet, refused(fleet.ErrRefused, "InvalidGroup.NotFound")) }, doctor.DryRun, store.ResultFailed, "InvalidGroup", "security_groups"},
		{"LaunchOverQuota", func(w *world) { w.fault = on(simfleet.OpVet, refused(fleet.ErrCapacity, "VcpuLimitExceeded")) }, doctor.DryRun, store.ResultWarn, "VcpuLimitExceeded", "Service Quotas"},
		{"LaunchThrottled", func(w *world) { w.fault = on(simfleet.OpVet, refused(fleet.ErrThrottled, "RequestLimitExceeded")) }, doctor.DryRun, store.ResultSkipped, "too often", ""},
		{"LaunchAway", func(w *world) { w.fault = on(simfleet.OpVet, away) }, doctor.DryRun, store.ResultWarn, "connection reset", "again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			c.breaks(w)
			all := w.examine(t, account, "")
			i := slices.IndexFunc(all, func(f store.Finding) bool { return f.Check == c.check })
			if i < 0 {
				t.Fatalf("nothing is found by %s: %+v", c.check, all)
			}
			f := all[i]
			if f.Result != c.want || !strings.Contains(f.Evidence, c.evidence) || !strings.Contains(f.Remedy, c.remedy) || (c.remedy == "") != (f.Remedy == "") {
				t.Errorf("found %+v, want %s, %q in the evidence and %q in the remedy", f, c.want, c.evidence, c.remedy)
			}
		})
	}
}

func TestPartsAreWhatWasAskedFor(t *testing.T) {
	w := newWorld()
	w.account.Regions["eu-west-1"] = store.Region{}
	d := doctor.New(doctor.Config{Accounts: w})
	for _, c := range []struct {
		account, region string
		want            []store.Part
	}{
		{"", "", []store.Part{{}, {Account: account}, {Account: account, Region: "eu-west-1"}, {Account: account, Region: region}}},
		{account, "", []store.Part{{}, {Account: account}, {Account: account, Region: "eu-west-1"}, {Account: account, Region: region}}},
		{account, "mars-1", []store.Part{{}, {Account: account}, {Account: account, Region: "mars-1"}}},
		{"222222222222", "", []store.Part{{}, {Account: "222222222222"}}},
	} {
		if got := d.Parts(t.Context(), c.account, c.region); !slices.Equal(got, c.want) {
			t.Errorf("parts of %q %q = %+v, want %+v", c.account, c.region, got, c.want)
		}
	}
}

func TestDryRunsKeepToEC2sPaceAndStopInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		sim, err := simfleet.OpenWorld(simfleet.WorldConfig{Launches: simfleet.EC2Rate})
		if err != nil {
			t.Fatal(err)
		}
		r := w.account.Regions[region]
		r.Subnets = []string{"a", "b", "c", "d", "e", "f", "g"}
		w.account.Regions[region] = r
		d := doctor.New(doctor.Config{Accounts: w, Fleet: ec2{simfleet.Inspected{World: sim}, w}, Records: records{w}, Vouches: func(string) bool { return true }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		found := d.Examine(ctx, store.Part{Account: account, Region: region})
		throttled := slices.ContainsFunc(found, func(f store.Finding) bool { return f.Result == store.ResultSkipped })
		if took := time.Since(began); w.vets != 8 || took != 3500*time.Millisecond || throttled {
			t.Errorf("%d dry runs in %s, throttled %t; want eight, half a second apart", w.vets, took, throttled)
		}
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		found = d.Examine(short, store.Part{Account: account, Region: region})
		if last := found[len(found)-1]; last.Result != store.ResultSkipped || last.Evidence != "There was no time left." {
			t.Errorf("the last finding without time = %+v, want that there was none left", last)
		}
	})
}
