package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/doctor"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// TestEachCredentialIsExamined has an account with two: each registers under a name of its own.
func TestEachCredentialIsExamined(t *testing.T) {
	w := newWorld()
	w.account.GitHub = store.GitHubCredentials{{Parameter: "/one"}, {Parameter: "/two"}}
	var about []string
	for _, f := range w.examine(t, account, "") {
		if f.Check == doctor.Credential || f.Check == doctor.Registers {
			about = append(about, fmt.Sprint(f.Check, " ", f.Result, " ", f.About))
		}
	}
	var want []string
	for _, check := range []string{doctor.Credential, doctor.Registers} {
		for _, parameter := range []string{"/one", "/two"} {
			want = append(want, fmt.Sprint(check, " ok ", "acme/shop, ", account, parameter))
		}
	}
	if !slices.Equal(about, want) {
		t.Errorf("findings %q, want %q", about, want)
	}
}

func TestEverythingIsOK(t *testing.T) {
	w := newWorld()
	w.account.RunsOn, w.account.GitHub = []store.Offer{{Labels: []string{"x"}}}, store.GitHubCredentials{{AppID: 1}}
	w.deliveries = []github.Delivery{{OK: true, At: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)}}
	w.sweep = store.Sweep{Meta: store.Meta{Version: 1}, Versions: map[string]store.ProgramVersion{"2.336.0": {}}}
	all := w.examine(t, "", "")
	seen := map[string]bool{}
	for _, f := range all {
		seen[f.Check] = true
		if f.Result != store.ResultOK || f.Evidence == "" || f.Remedy != "" {
			t.Errorf("%+v, want ok with evidence", f)
		}
	}
	for _, check := range []string{doctor.Keys, doctor.Registrations, doctor.API, doctor.Clock, doctor.Registration, doctor.Role, doctor.ExternalID,
		doctor.Recorded, doctor.Credential, doctor.Permissions, doctor.Registers, doctor.Webhook, doctor.RunnerVersion, doctor.Waiting, doctor.Reaper, doctor.Brake, doctor.RegionCheck, doctor.Image, doctor.Subnet, doctor.DryRun} {
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

var organization = store.Scope{Kind: store.OrganizationScope, ID: "1", Name: "acme", Group: "garo"}

// selects has the account register in a runner group that admits these repositories alone, of
// which 9 is public.
func (w *world) selects(repositories ...string) {
	w.account.Scope = organization
	w.admits = simgithub.Organization{ID: "1", Name: "acme", Public: []string{"9"}, Groups: []simgithub.Group{{ID: 2, Name: "garo", Repositories: repositories}}}
}

// epoch is when the bubbles of testing/synctest begin.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// waits is a request that waits for so long.
func waits(id string, ago time.Duration) store.Item {
	return &store.Request{ID: id, State: store.Accepted, CreatedAt: epoch.Add(-ago), Wait: store.WaitQuota}
}

// onGitHub is a fault of one operation of GitHub.
func onGitHub(op string, fault simgithub.Fault) func(string, *http.Request) simgithub.Fault {
	return func(o string, _ *http.Request) simgithub.Fault {
		if o == op {
			return fault
		}
		return simgithub.Fault{}
	}
}

// twice has GitHub answer the first registration as it does when it gets a call twice.
func twice(op string, _ *http.Request) simgithub.Fault {
	if op != simgithub.OpMint {
		return simgithub.Fault{}
	}
	return answers(409, `{"message":"Already exists - A runner with the name *** already exists."}`)
}

// answers is another answer of GitHub.
func answers(status int, body string) simgithub.Fault {
	return simgithub.Fault{Instead: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	})}
}

// offers makes the account one that a GitHub App serves.
func (w *world) offers() {
	w.account.RunsOn, w.account.GitHub = []store.Offer{{Labels: []string{"x"}}}, store.GitHubCredentials{{AppID: 1}}
}

// program has a runner program be seen that ends so long from the begin of the world.
func (w *world) program(ends time.Duration) {
	w.sweep.Versions = map[string]store.ProgramVersion{"2.336.0": {EndsAt: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(ends)}, "2.335.0": {}}
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
		{"RequestsWait", func(w *world) {
			w.records = []store.Item{waits("q1", time.Minute), waits("q2", 6*time.Minute), waits("q3", 0)}
		}, doctor.Waiting, store.ResultWarn, "3 requests wait for a launch, the oldest for 6m0s: quota_reached", "garo status q2"},
		{"RequestsAway", func(w *world) { w.listing = away }, doctor.Waiting, store.ResultWarn, "connection reset", "again"},
		{"NotSweptYet", func(w *world) {}, doctor.Reaper, store.ResultSkipped, "swept nothing", ""},
		{"ReaperStands", func(w *world) {
			w.sweep.Version, w.sweep.UpdatedAt, w.sweep.DueAt = 1, epoch.Add(-15*time.Minute), epoch.Add(-10*time.Minute)
		}, doctor.Reaper, store.ResultFailed, "last here at 1999-12-31T23:45:00Z. It was to sweep again at 1999-12-31T23:50:00Z", "reaper_late"},
		{"SweepAway", func(w *world) { w.listing = away }, doctor.Reaper, store.ResultWarn, "connection reset", "again"},
		{"BrakeOn", func(w *world) {
			w.sweep = store.Sweep{Meta: store.Meta{Version: 1}, Key: account + "/" + region, BrakeAt: epoch}
		}, doctor.Brake, store.ResultFailed, "on since 2000-01-01T00:00:00Z", "garo reap --release " + account + "/" + region},
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
		{"CredentialRefused", func(w *world) { w.token = "other" }, doctor.Credential, store.ResultFailed, "credential refused", "permissions"},
		{"RegistersWithARefusedCredential", func(w *world) { w.token = "other" }, doctor.Registers, store.ResultSkipped, "refuses the credential", ""},
		{"CallsNearlySpent", func(w *world) { w.rates = &github.Rates{Core: github.Rate{Limit: 5000, Remaining: 400}} }, doctor.Credential, store.ResultWarn, "400 of 5000 calls", "what else uses"},
		{"CredentialAway", func(w *world) { w.github = onGitHub(simgithub.OpRateLimit, answers(502, "")) }, doctor.Credential, store.ResultWarn, "status 502", "again"},
		{"CredentialLimited", func(w *world) { w.github = onGitHub(simgithub.OpRateLimit, answers(429, "")) }, doctor.Credential, store.ResultSkipped, "rate limited", ""},
		{"RunsNotReadable", func(w *world) {
			w.account.RunsOn = []store.Offer{{Labels: []string{"x"}}}
			w.github = onGitHub(simgithub.OpRuns, answers(403, `{"message":"Resource not accessible"}`))
		}, doctor.Permissions, store.ResultFailed, "Resource not accessible", "Actions: read"},
		{"NoOrganization", func(w *world) { w.account.Scope = organization }, doctor.Group, store.ResultFailed, "Not Found", "organization permission"},
		{"NoGroup", func(w *world) { w.account.Scope, w.group = organization, "another" }, doctor.Group, store.ResultFailed, "no such runner group", "scope.runner_group"},
		{"GroupWithoutARepository", func(w *world) {
			w.selects("7")
			w.account.Repositories = append(w.account.Repositories, store.Named{ID: "8", Name: "acme/api"}, store.Named{ID: "10", Name: "acme/web"})
		}, doctor.Group, store.ResultFailed, "does not admit 2 repositories that the account serves: acme/api, acme/web.", "Select what is missing"},
		{"GroupWithoutManyRepositories", func(w *world) {
			w.selects("7")
			for i := range 21 {
				w.account.Repositories = append(w.account.Repositories, store.Named{ID: fmt.Sprint(100 + i), Name: fmt.Sprint("acme/r", i)})
			}
		}, doctor.Group, store.ResultFailed, "21 repositories that the account serves: acme/r0, acme/r1, acme/r2, acme/r3, acme/r4, acme/r5, acme/r6, acme/r7, acme/r8, acme/r9, acme/r10, acme/r11, acme/r12, acme/r13, acme/r14, acme/r15, acme/r16, acme/r17, acme/r18, acme/r19.", "Select what is missing"},
		{"GroupWithoutARepositoryOfAnOwner", func(w *world) {
			w.selects("7")
			w.account.Repositories, w.account.Owners = nil, []store.Named{{ID: "1", Name: "acme"}}
			for _, repo := range []store.Repository{{ID: "8", Name: "acme/api", OwnerID: "1"}, {ID: "8", Name: "acme/api", OwnerID: "1"}, {ID: "6", Name: "former/app", OwnerID: "2"}} {
				w.records = append(w.records, &store.Runner{ID: "r", Account: account, CreatedAt: epoch, Repository: repo})
			}
		}, doctor.Group, store.ResultFailed, "does not admit 1 repository that the account serves: acme/api.", "Select what is missing"},
		{"GroupKeepsPublicOnesOut", func(w *world) {
			w.selects("7", "9")
			w.account.Repositories = append(w.account.Repositories, store.Named{ID: "9", Name: "acme/open"})
		}, doctor.Group, store.ResultFailed, "no public repositories, and keeps out 1 repository that the account serves: acme/open.", "Take public repositories out"},
		{"GroupShownInPart", func(w *world) {
			w.selects("8")
			w.github = onGitHub(simgithub.OpAdmits, answers(200, `{"total_count":2,"repositories":[{"id":8}]}`))
		}, doctor.Group, store.ResultWarn, "GitHub showed 1 and not all. Not among them: 1 repository that the account serves: acme/shop.", "whether it is selected"},
		{"GroupNotReadable", func(w *world) {
			w.selects("7")
			w.github = onGitHub(simgithub.OpAdmits, answers(403, `{"message":"Resource not accessible"}`))
		}, doctor.Group, store.ResultWarn, "Resource not accessible", "organization permission"},
		{"GroupAway", func(w *world) {
			w.selects("7")
			w.github = onGitHub(simgithub.OpAdmits, answers(502, ""))
		}, doctor.Group, store.ResultWarn, "status 502", "again"},
		{"GroupLimited", func(w *world) {
			w.selects("7")
			w.github = onGitHub(simgithub.OpAdmits, answers(429, ""))
		}, doctor.Group, store.ResultSkipped, "rate limited", ""},
		{"NotPermittedToRegister", func(w *world) {
			w.github = onGitHub(simgithub.OpMint, answers(403, `{"message":"Resource not accessible"}`))
		}, doctor.Registers, store.ResultFailed, "Resource not accessible", "Administration: write"},
		{"RegistrationUnclear", func(w *world) { w.github = onGitHub(simgithub.OpMint, simgithub.Fault{Lose: true}) }, doctor.Registers, store.ResultWarn, "outcome unknown", "again"},
		{"RegistrationStays", func(w *world) {
			w.keeps, w.github = true, onGitHub(simgithub.OpDelete, answers(403, `{"message":"no"}`))
		}, doctor.Registers, store.ResultWarn, "could not be deleted", "rogue_runner"},
		{"OthersRegister", func(w *world) {
			w.lease = func() (time.Time, bool, error) { return time.Now().Add(time.Minute), true, nil }
		}, doctor.Registers, store.ResultSkipped, "other runners until", ""},
		{"OthersRegisterAndARoomComesSoon", func(w *world) {
			w.lease = func() (time.Time, bool, error) { return time.Now().Add(time.Second), false, nil }
		}, doctor.Registers, store.ResultSkipped, "other runners until", ""},
		{"RegisteredTwice", func(w *world) { w.github = twice }, doctor.Registers, store.ResultWarn, "taken", "again"},
		{"NoLease", func(w *world) { w.lease = func() (time.Time, bool, error) { return time.Time{}, false, away } }, doctor.Registers, store.ResultWarn, "connection reset", "again"},
		{"OwnersAlone", func(w *world) { w.account.Repositories = nil }, doctor.Credential, store.ResultSkipped, "owners alone", ""},
		{"NoOffers", func(w *world) {}, doctor.Webhook, store.ResultSkipped, "no runs_on", ""},
		{"NoApp", func(w *world) { w.account.RunsOn = []store.Offer{{Labels: []string{"x"}}} }, doctor.Webhook, store.ResultSkipped, "no App", ""},
		{"NothingDelivered", func(w *world) { w.offers() }, doctor.Webhook, store.ResultWarn, "delivered nothing", "Workflow job"},
		{"DeliveriesFailed", func(w *world) {
			w.offers()
			w.deliveries = []github.Delivery{{OK: true}, {At: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)}}
		}, doctor.Webhook, store.ResultWarn, "1 of the last 2 deliveries failed, the last at 2000-01-01T00:00:00Z", "401"},
		{"KeyOfTheAppRefused", func(w *world) {
			w.offers()
			w.delivery = &github.Error{Kind: github.ErrDenied, Op: "list deliveries"}
		}, doctor.Webhook, store.ResultFailed, "list deliveries", "private key"},
		{"DeliveriesAway", func(w *world) { w.offers(); w.delivery = away }, doctor.Webhook, store.ResultWarn, "connection reset", "again"},
		{"NoRunnerSeen", func(w *world) {}, doctor.RunnerVersion, store.ResultSkipped, "within a day", ""},
		{"RunnerEndsSoon", func(w *world) { w.program(3 * 24 * time.Hour) }, doctor.RunnerVersion, store.ResultWarn, "from 2000-01-04 on", "image"},
		{"RunnerEnded", func(w *world) { w.program(-time.Hour) }, doctor.RunnerVersion, store.ResultFailed, "since 1999-12-31", "image"},
		{"SweepsAway", func(w *world) { w.listing = away }, doctor.RunnerVersion, store.ResultWarn, "connection reset", "again"},
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

// A runner group is in order if it admits what the account serves, public ones too where they
// are allowed. What else it admits does not count.
func TestGroupThatAdmitsTheRepositoriesIsOK(t *testing.T) {
	for name, c := range map[string]struct {
		breaks   func(*world)
		evidence string
	}{
		"All":      {func(w *world) { w.account.Scope, w.group = organization, "garo" }, "It admits all repositories of the organization"},
		"Selected": {func(w *world) { w.selects("3", "9", "7") }, "each of the account's is among them: 1 repository."},
		"Public": {func(w *world) {
			w.selects("9", "7")
			w.admits.Groups[0].Public = true
			w.account.Repositories = append(w.account.Repositories, store.Named{ID: "9", Name: "acme/open"})
		}, "each of the account's is among them: 2 repositories."},
		"ShownInPart": {func(w *world) {
			w.selects("7")
			w.github = onGitHub(simgithub.OpAdmits, answers(200, `{"total_count":2,"repositories":[{"id":7}]}`))
		}, "each of the account's is among them: 1 repository."},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			c.breaks(w)
			all := w.examine(t, account, "")
			i := slices.IndexFunc(all, func(f store.Finding) bool { return f.Check == doctor.Group })
			if i < 0 || all[i].Result != store.ResultOK || !strings.Contains(all[i].Evidence, c.evidence) {
				t.Errorf("found %+v, want that the group is ok, with %q in the evidence", all, c.evidence)
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
		found := d.Examine(ctx, doctor.Visit{Part: store.Part{Account: account, Region: region}})
		throttled := slices.ContainsFunc(found, func(f store.Finding) bool { return f.Check == doctor.DryRun && f.Result == store.ResultSkipped })
		if took := time.Since(began); w.vets != 8 || took != 3500*time.Millisecond || throttled {
			t.Errorf("%d dry runs in %s, throttled %t; want eight, half a second apart", w.vets, took, throttled)
		}
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		found = d.Examine(short, doctor.Visit{Part: store.Part{Account: account, Region: region}})
		if last := found[len(found)-1]; last.Result != store.ResultSkipped || last.Evidence != "There was no time left." {
			t.Errorf("the last finding without time = %+v, want that there was none left", last)
		}
	})
}

// What a worker that died has registered is deleted by the next try, and so is a name of this
// try that GitHub has already, since it got the call twice.
func TestRegistrationsOfACheckAreDeleted(t *testing.T) {
	for _, there := range []int{2, 3} { // so many names; the try is the third
		t.Run(fmt.Sprint(there), func(t *testing.T) { wantDeleted(t, there) })
	}
}

func wantDeleted(t *testing.T, there int) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		sim, err := simfleet.OpenWorld(simfleet.WorldConfig{})
		if err != nil {
			t.Fatal(err)
		}
		server, client := w.hub(t)
		d := doctor.New(doctor.Config{Accounts: w, Fleet: ec2{simfleet.Inspected{World: sim}, w}, GitHub: client, Records: records{w}, ControlPlane: "test"})
		check := strings.Repeat("c", keys.IDLen)
		in := github.Scope{ID: "7", Name: "acme/shop", Account: account}
		for n := 1; n <= there; n++ {
			if _, err := client.Mint(t.Context(), in, store.GitHubNameFor("test", check, n), []string{"x"}); err != nil {
				t.Fatal(err)
			}
		}
		d.Examine(t.Context(), doctor.Visit{Part: store.Part{Account: account}, Check: check, Try: 3})
		if left := server.Registrations(); len(left) != 0 || len(server.Minted()) != 3 {
			t.Errorf("%d of %d registrations are left, want none of three", len(left), len(server.Minted()))
		}
	})
}

// What could not be deleted at once is deleted a moment later.
func TestDeletionThatFailedOnceIsTriedAgain(t *testing.T) {
	w := newWorld()
	failed := false
	w.github = func(op string, _ *http.Request) simgithub.Fault {
		if op != simgithub.OpDelete || failed {
			return simgithub.Fault{}
		}
		failed = true
		return answers(502, "")
	}
	found := w.examine(t, account, "") // which looks for what is left
	i := slices.IndexFunc(found, func(f store.Finding) bool { return f.Check == doctor.Registers })
	if !failed || i < 0 || found[i].Result != store.ResultOK {
		t.Errorf("found %+v after a failed deletion (%t), want %s ok", found, failed, doctor.Registers)
	}
}
