package store_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// account is registered for everything that accepted asks for.
func account() store.Account {
	return store.Account{
		ID:           "123456789012",
		Repositories: []store.Named{{ID: "42", Name: "alphagov/x"}},
		Owners:       []store.Named{{ID: "8", Name: "other"}},
		Regions: map[string]store.Region{
			"eu-west-2": {Subnets: []string{"s1", "s2", "s3"}, SecurityGroups: []string{"g1", "g2"}, Images: []string{"ami-1", "/ami/2"}},
			"eu-west-1": {Subnets: []string{"t1"}, Images: []string{"ami-9"}},
		},
		InstanceTypes: []string{"c7i.large", "m7i.large", "c7i.xlarge"}, DefaultInstanceTypes: []string{"c7i.large", "m7i.large"},
		Markets: []string{store.Spot, store.OnDemand}, Modes: []string{store.Shared, store.Ephemeral}, MaxRunners: 10,
	}
}

func TestHardAndMaxTimeout(t *testing.T) {
	for _, c := range []struct {
		name             string
		hardS, timeoutS  int
		hard, maxTimeout time.Duration
	}{
		{"Defaults", 0, 0, 6 * time.Hour, 3 * time.Hour},
		{"OwnHard", 7200, 0, 2 * time.Hour, time.Hour},
		{"HardAboveTheMost", 100 * 3600, 0, 24 * time.Hour, 12 * time.Hour},
		{"OwnTimeout", 0, 600, 6 * time.Hour, 10 * time.Minute},
		{"TimeoutAboveHalfOfHard", 7200, 3601, 2 * time.Hour, time.Hour},
	} {
		a := store.Account{HardS: c.hardS, MaxTimeoutS: c.timeoutS}
		if hard, timeout := a.Hard(lim), a.MaxTimeout(lim); hard != c.hard || timeout != c.maxTimeout {
			t.Errorf("%s: Hard %v, MaxTimeout %v; want %v, %v", c.name, hard, timeout, c.hard, c.maxTimeout)
		}
	}
}

func TestPermits(t *testing.T) {
	for _, c := range []struct {
		name         string
		edit         func(*store.Request, *store.Account)
		field, value string
	}{
		{"Everything", func(*store.Request, *store.Account) {}, "", ""},
		{"AllThatIsAllowed", func(r *store.Request, _ *store.Account) {
			r.Type, r.Mode = store.OnDemand, store.Ephemeral
			r.Machine = store.Machine{InstanceTypes: []string{"c7i.xlarge"}, Image: "/ami/2", Subnets: []string{"s3"}, SecurityGroups: []string{"g2", "g1"}}
		}, "", ""},
		{"Region", func(r *store.Request, _ *store.Account) { r.Region = "us-east-1" }, "region", "us-east-1"},
		{"Type", func(_ *store.Request, a *store.Account) { a.Markets = []string{store.OnDemand} }, "type", "spot"},
		{"Mode", func(_ *store.Request, a *store.Account) { a.Modes = []string{store.Ephemeral} }, "mode", "shared"},
		{"InstanceType", func(r *store.Request, _ *store.Account) {
			r.Machine.InstanceTypes = []string{"c7i.large", "p5.48xlarge"}
		}, "instance_types", "p5.48xlarge"},
		{"SubnetOfAnotherRegion", func(r *store.Request, _ *store.Account) { r.Machine.Subnets = []string{"s1", "t1"} }, "subnets", "t1"},
		{"SecurityGroup", func(r *store.Request, _ *store.Account) { r.Machine.SecurityGroups = []string{"g3"} }, "security_groups", "g3"},
		{"Image", func(r *store.Request, _ *store.Account) { r.Machine.Image = "ami-9" }, "image_id", "ami-9"},
		{"DefaultsAreTheAccountsOwn", func(_ *store.Request, a *store.Account) { a.InstanceTypes = nil }, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, a := accepted("r1", store.Shared), account()
			c.edit(&r, &a)
			field, value, ok := a.Permits(r)
			if field != c.field || value != c.value || ok != (c.field == "") {
				t.Errorf("Permits = %q, %q, %v; want %q, %q", field, value, ok, c.field, c.value)
			}
		})
	}
}

// plan writes placements as market/type/subnet.
func plan(places []store.Placement) []string {
	var out []string
	for _, p := range places {
		out = append(out, p.Market+"/"+p.InstanceType+"/"+p.Subnet)
	}
	return out
}

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name   string
		edit   func(*store.Request, *store.Account)
		spread uint
		want   []string // nil: refused
	}{
		{"TypesBeforeSubnets", func(*store.Request, *store.Account) {}, 0, []string{
			"spot/c7i.large/s1", "spot/c7i.large/s2", "spot/c7i.large/s3", "spot/m7i.large/s1", "spot/m7i.large/s2", "spot/m7i.large/s3"}},
		{"SpreadRotatesTheSubnets", func(r *store.Request, _ *store.Account) { r.Machine.InstanceTypes = []string{"c7i.xlarge"} }, 5, []string{
			"spot/c7i.xlarge/s3", "spot/c7i.xlarge/s1", "spot/c7i.xlarge/s2"}},
		{"NamedSubnetsAlone", func(r *store.Request, _ *store.Account) {
			r.Machine = store.Machine{InstanceTypes: []string{"m7i.large", "c7i.large"}, Subnets: []string{"s2"}}
		}, 1, []string{"spot/m7i.large/s2", "spot/c7i.large/s2"}},
		{"OnDemandAsAsked", func(r *store.Request, a *store.Account) {
			r.Type, a.SpotFallback, r.Machine = store.OnDemand, true, store.Machine{InstanceTypes: []string{"c7i.large"}, Subnets: []string{"s1"}}
		}, 0, []string{"ondemand/c7i.large/s1"}},
		{"FallbackComesLast", func(r *store.Request, a *store.Account) {
			a.SpotFallback, r.Machine = true, store.Machine{Subnets: []string{"s1"}}
		}, 0, []string{"spot/c7i.large/s1", "spot/m7i.large/s1", "ondemand/c7i.large/s1", "ondemand/m7i.large/s1"}},
		{"NoFallbackToAMarketThatIsNotAllowed", func(r *store.Request, a *store.Account) {
			a.SpotFallback, a.Markets, r.Machine = true, []string{store.Spot}, store.Machine{InstanceTypes: []string{"c7i.large"}, Subnets: []string{"s1"}}
		}, 0, []string{"spot/c7i.large/s1"}},
		{"RegionIsNoLongerOffered", func(_ *store.Request, a *store.Account) { delete(a.Regions, "eu-west-2") }, 0, nil},
		{"TypeIsNoLongerAllowed", func(r *store.Request, _ *store.Account) { r.Machine.InstanceTypes = []string{"p5.48xlarge"} }, 0, nil},
		{"DefaultTypeIsNotAllowed", func(_ *store.Request, a *store.Account) { a.InstanceTypes = []string{"c7i.large"} }, 0, nil},
		{"SubnetIsNoLongerAllowed", func(r *store.Request, _ *store.Account) { r.Machine.Subnets = []string{"s9"} }, 0, nil},
		{"GroupIsNoLongerAllowed", func(r *store.Request, _ *store.Account) { r.Machine.SecurityGroups = []string{"g9"} }, 0, nil},
		{"ImageIsNoLongerAllowed", func(r *store.Request, _ *store.Account) { r.Machine.Image = "ami-7" }, 0, nil},
		{"MarketIsNoLongerAllowed", func(_ *store.Request, a *store.Account) { a.Markets = []string{store.OnDemand} }, 0, nil},
		{"ModeIsNoLongerAllowed", func(_ *store.Request, a *store.Account) { a.Modes = []string{store.Ephemeral} }, 0, nil},
		{"NoTypeAtAll", func(_ *store.Request, a *store.Account) { a.DefaultInstanceTypes = nil }, 0, nil},
		{"NoSubnetAtAll", func(_ *store.Request, a *store.Account) {
			a.Regions["eu-west-2"] = store.Region{SecurityGroups: []string{"g1"}}
		}, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, a := accepted("r1", store.Shared), account()
			c.edit(&r, &a)
			got, err := a.Plan(r, c.spread, nil)
			if (err == nil) != (c.want != nil) || !slices.Equal(plan(got), c.want) {
				t.Errorf("Plan = %v, %v; want %v", plan(got), err, c.want)
			}
		})
	}
}

func TestPlanIsBounded(t *testing.T) {
	r, a := accepted("r1", store.Shared), account()
	for _, n := range "abcdefghij" {
		a.InstanceTypes = append(a.InstanceTypes, "t."+string(n))
	}
	a.DefaultInstanceTypes = a.InstanceTypes // 13 types in 3 subnets
	got, err := a.Plan(r, 0, nil)
	if err != nil || len(got) != store.MaxPlacements {
		t.Errorf("Plan has %d placements, %v; want %d", len(got), err, store.MaxPlacements)
	}
	a.SpotFallback = true
	got, err = a.Plan(r, 0, nil)
	if err != nil || len(got) != store.MaxPlacements || got[0].Market != store.Spot {
		t.Errorf("Plan with a fallback has %d placements, %v; want %d, spot first", len(got), err, store.MaxPlacements)
	}
	if !slices.ContainsFunc(got, func(p store.Placement) bool { return p.Market == store.OnDemand }) {
		t.Errorf("Plan = %v: the fallback was cut off", plan(got))
	}
}

func TestServes(t *testing.T) {
	for _, c := range []struct {
		name string
		repo store.Repository
		want bool
	}{
		{"TheRepository", store.Repository{ID: "42", OwnerID: "7"}, true},
		{"AnyOfTheOwner", store.Repository{ID: "99", OwnerID: "8"}, true},
		{"AnotherWithTheSameName", store.Repository{ID: "43", OwnerID: "7", Name: "alphagov/x", Owner: "other"}, false},
		{"AnOwnersIDAsRepository", store.Repository{ID: "8", OwnerID: "7"}, false},
		{"ARepositorysIDAsOwner", store.Repository{ID: "43", OwnerID: "42"}, false},
		{"WithoutIDs", store.Repository{}, false},
		{"TheSameIDOfAnotherServer", store.Repository{Server: "ghe.test", ID: "42", OwnerID: "8"}, false},
	} {
		a := account()
		a.Repositories = append(a.Repositories, store.Named{Name: "no id"})
		a.Owners = append(a.Owners, store.Named{Name: "no id"})
		if got := a.Serves(c.repo); got != c.want {
			t.Errorf("%s: Serves = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestServesTheRepositoriesOfItsServerAlone(t *testing.T) {
	a := account()
	a.Server = "ghe.test"
	if a.Serves(store.Repository{ID: "42", OwnerID: "7"}) || !a.Serves(store.Repository{Server: "ghe.test", ID: "42", OwnerID: "7"}) {
		t.Error("an account of another server serves github.com's repositories, or not its own")
	}
}

func TestRepositoriesOfTwoServersAreNeverTheSame(t *testing.T) {
	here := store.Repository{ID: "42", Name: "alphagov/x", OwnerID: "7", Owner: "alphagov"}
	for _, c := range []struct {
		name string
		edit func(*store.Repository)
		want bool
	}{
		{"Itself", func(*store.Repository) {}, true},
		{"Renamed", func(r *store.Repository) { r.Name, r.Owner, r.OwnerID = "other/y", "other", "8" }, true},
		{"AnotherID", func(r *store.Repository) { r.ID = "43" }, false},
		{"AnotherServer", func(r *store.Repository) { r.Server = "ghe.test" }, false},
	} {
		other := here
		c.edit(&other)
		if here.Same(other) != c.want || other.Same(here) != c.want || (here.Key() == other.Key()) != c.want {
			t.Errorf("%s: Same %v, keys %q and %q; want %v", c.name, here.Same(other), here.Key(), other.Key(), c.want)
		}
	}
	if (store.Repository{}).Same(store.Repository{}) {
		t.Error("two repositories without an id are the same")
	}
	if got := here.Key(); got != "42" {
		t.Errorf("Key on github.com = %q, want 42", got)
	}
}

func TestAdmits(t *testing.T) {
	for _, c := range []struct {
		name  string
		list  []string
		value string
		want  bool
	}{
		{"NoConditionAdmitsAll", nil, "x", true},
		{"Equal", []string{"a", "refs/heads/main"}, "refs/heads/main", true},
		{"Longer", []string{"refs/heads/main"}, "refs/heads/main2", false},
		{"Shorter", []string{"refs/heads/main"}, "refs/heads/mai", false},
		{"OtherCase", []string{"refs/heads/main"}, "refs/heads/Main", false},
		{"BelowAFolder", []string{"refs/tags/"}, "refs/tags/v1", true},
		{"TheFolderItself", []string{"refs/tags/"}, "refs/tags", false},
		{"BelowAnother", []string{"refs/tags/"}, "refs/heads/refs/tags/v1", false},
		{"ASlashAloneIsNoFolder", []string{"/"}, "/x", false},
		{"TheEmptyNameIsAName", []string{""}, "", true},
		{"TheEmptyNameIsNoFolder", []string{""}, "x", false},
		{"NoPatterns", []string{"refs/*", "refs/heads/.*"}, "refs/heads/main", false},
	} {
		if got := store.Admits(c.list, c.value); got != c.want {
			t.Errorf("%s: Admits(%q, %q) = %v, want %v", c.name, c.list, c.value, got, c.want)
		}
	}
}

// registration returns the JSON of a good registration, changed by edit.
func registration(t *testing.T, edit func(map[string]any)) []byte {
	t.Helper()
	b, err := json.Marshal(account())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	m["external_id"] = "garo-external-1"
	edit(m)
	if b, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseAccount(t *testing.T) {
	got, err := store.ParseAccount("123456789012", registration(t, func(map[string]any) {}))
	if err != nil {
		t.Fatal(err)
	}
	if got.ExternalID.Reveal() != "garo-external-1" || got.MaxRunners != 10 || len(got.Regions["eu-west-2"].Subnets) != 3 {
		t.Errorf("ParseAccount = %+v, want the registration", got)
	}
	region := func(m map[string]any) map[string]any {
		return m["regions"].(map[string]any)["eu-west-2"].(map[string]any)
	}
	for _, c := range []struct {
		name string
		edit func(map[string]any)
		says string // "" if it is allowed
	}{
		{"UnknownField", func(m map[string]any) { m["max_runnners"] = 3 }, "max_runnners"},
		{"AnotherAccountsID", func(m map[string]any) { m["id"] = "123456789013" }, "id "},
		{"IDThatIsNone", func(m map[string]any) { m["id"] = "12345678901" }, "id "},
		{"RoleThatIsNoARN", func(m map[string]any) { m["role_arn"] = "GitHubRunnerAssumeRole" }, "role_arn"},
		{"Role", func(m map[string]any) { m["role_arn"] = "arn:aws:iam::123456789012:role/x" }, ""},
		{"Server", func(m map[string]any) { m["server"] = "ghe.test" }, ""},
		{"ServerWithAScheme", func(m map[string]any) { m["server"] = "https://ghe.test" }, "server"},
		{"NoExternalID", func(m map[string]any) { delete(m, "external_id") }, "external_id"},
		{"Nobody", func(m map[string]any) { m["repositories"], m["owners"] = nil, nil }, "repositories, owners"},
		{"OwnersAlone", func(m map[string]any) { m["repositories"] = nil }, ""},
		{"RepositoryByNameAlone", func(m map[string]any) { m["repositories"] = []any{map[string]any{"name": "a/b"}} }, "repositories, owners"},
		{"OwnerWithoutAName", func(m map[string]any) { m["owners"] = []any{map[string]any{"id": "7"}} }, "repositories, owners"},
		{"OwnerByLogin", func(m map[string]any) { m["owners"] = []any{map[string]any{"id": "alphagov", "name": "alphagov"}} }, "repositories, owners"},
		{"NoRegion", func(m map[string]any) { m["regions"] = nil }, "regions"},
		{"NoSubnet", func(m map[string]any) { region(m)["subnets"] = nil }, "regions.eu-west-2.subnets"},
		{"NoImage", func(m map[string]any) { region(m)["images"] = nil }, "regions.eu-west-2.images"},
		{"DefaultRegion", func(m map[string]any) { m["default_region"] = "eu-west-1" }, ""},
		{"DefaultRegionThatIsNone", func(m map[string]any) { m["default_region"] = "us-east-1" }, "default_region"},
		{"NoDefaultType", func(m map[string]any) { m["default_instance_types"] = nil }, "default_instance_types"},
		{"DefaultTypeNotAllowed", func(m map[string]any) { m["default_instance_types"] = []any{"p5.48xlarge"} }, "p5.48xlarge"},
		{"NoMarket", func(m map[string]any) { m["markets"] = nil }, "markets"},
		{"UnknownMarket", func(m map[string]any) { m["markets"] = []any{"reserved"} }, "reserved"},
		{"NoMode", func(m map[string]any) { m["modes"] = nil }, "modes"},
		{"UnknownMode", func(m map[string]any) { m["modes"] = []any{"eternal"} }, "eternal"},
		{"NoRunner", func(m map[string]any) { m["max_runners"] = 0 }, "max_runners"},
		{"BudgetOfNothing", func(m map[string]any) { m["daily_budget"] = map[string]any{"usd": "0"} }, "daily_budget.usd"},
		{"BudgetInWords", func(m map[string]any) { m["daily_budget"] = map[string]any{"usd": "fifty", "wait": true} }, "daily_budget.usd"},
		{"BudgetWithoutAnAmount", func(m map[string]any) { m["daily_budget"] = map[string]any{"wait": true} }, "daily_budget.usd"},
		{"NegativeHard", func(m map[string]any) { m["hard"] = -1 }, "hard"},
		{"NegativeOpenRequests", func(m map[string]any) { m["max_open_requests"] = -1 }, "max_open_requests"},
		{"MoreOpenRequestsThanAreCounted", func(m map[string]any) { m["max_open_requests"] = 25_001 }, "max_open_requests"},
		{"UnknownOnForbidden", func(m map[string]any) { m["on_forbidden"] = "cancel" }, "on_forbidden"},
		{"UnknownOnFailure", func(m map[string]any) { m["on_failure"] = "cancel" }, "on_failure"},
		{"OnFailure", func(m map[string]any) { m["on_failure"] = "cancel_run" }, ""},
		{"OpenRequests", func(m map[string]any) { m["max_open_requests"] = 5 }, ""},
		{"Events", func(m map[string]any) { m["allow"] = map[string]any{"events": []string{"issues", "workflow_run"}} }, ""},
		{"UnknownEvent", func(m map[string]any) { m["allow"] = map[string]any{"events": []string{"isues"}} }, "allow.events"},
		{"EveryEvent", func(m map[string]any) { m["allow"] = map[string]any{"events": []string{"*"}} }, "allow.events"},
		{"EventThatIsAllowedAnyway", func(m map[string]any) { m["allow"] = map[string]any{"events": []string{"push"}} }, "allow.events"},
		{"EventTwice", func(m map[string]any) { m["allow"] = map[string]any{"events": []string{"fork", "fork"}} }, "allow.events"},
		{"HardOfADay", func(m map[string]any) { m["hard"] = 86400 }, ""},
		{"HardOfMore", func(m map[string]any) { m["hard"] = 86401 }, "hard"},
		{"NegativeTimeout", func(m map[string]any) { m["max_timeout"] = -1 }, "max_timeout"},
		{"NegativeBurst", func(m map[string]any) { m["pacing"] = map[string]any{"burst": -1} }, "pacing"},
		{"NegativeInterval", func(m map[string]any) { m["pacing"] = map[string]any{"interval_ms": -1} }, "pacing"},
		{"AppWithoutInstallation", func(m map[string]any) { m["github"] = map[string]any{"app_id": 1} }, "github"},
		{"InstallationWithoutApp", func(m map[string]any) { m["github"] = map[string]any{"installation_id": 1} }, "github"},
		{"App", func(m map[string]any) { m["github"] = map[string]any{"app_id": 1, "installation_id": 2} }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := store.ParseAccount("123456789012", registration(t, c.edit))
			switch {
			case c.says == "" && err != nil:
				t.Errorf("ParseAccount = %v, want nil", err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("ParseAccount = %v, want an error with %q", err, c.says)
			case c.says != "" && got.ID != "":
				t.Errorf("ParseAccount = %+v beside an error, want nothing", got)
			}
			if err != nil && strings.Contains(err.Error(), "garo-external") {
				t.Errorf("the error %q holds the external id", err)
			}
		})
	}
	for _, text := range []string{"", "{", "[]", string(registration(t, func(map[string]any) {})) + "{}"} {
		if _, err := store.ParseAccount("123456789012", []byte(text)); err == nil {
			t.Errorf("ParseAccount(%.20q) = nil, want an error", text)
		}
	}
	eleven := registration(t, func(m map[string]any) { m["id"] = "12345678901" })
	if _, err := store.ParseAccount("12345678901", eleven); err == nil {
		t.Error("ParseAccount of an id of eleven digits = nil, want an error")
	}
	every, err := store.ParseAccount("123456789012", []byte(`{}`))
	if err == nil || strings.Count(err.Error(), "\n") < 5 {
		t.Errorf("ParseAccount({}) = %+v, %v; want every fault at once", every, err)
	}
}
