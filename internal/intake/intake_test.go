package intake_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// accounts are registrations by id; one that is nil cannot be read.
type accounts map[string]*store.Account

var errAway = errors.New("away")

func (a accounts) Account(_ context.Context, id string) (store.Account, error) {
	r, ok := a[id]
	switch {
	case !ok:
		return store.Account{}, store.ErrNoAccount
	case r == nil:
		return store.Account{}, errAway
	}
	return *r, nil
}

func (a accounts) List(context.Context) ([]string, error) {
	var ids []string
	for id := range a {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

func account(id string, repositories ...string) *store.Account {
	a := &store.Account{
		ID: id, Owners: []store.Named{{ID: "7", Name: "acme"}},
		Regions:       map[string]store.Region{"eu-west-2": {Subnets: []string{"subnet-a", "subnet-b"}, SecurityGroups: []string{"sg-1"}, Images: []string{"ami-1"}}},
		InstanceTypes: []string{"m7i.large"}, DefaultInstanceTypes: []string{"m7i.large"},
		Markets: []string{store.Spot, store.OnDemand}, Modes: []string{store.Ephemeral}, MaxRunners: 1,
	}
	for _, name := range repositories {
		a.Repositories = append(a.Repositories, store.Named{ID: "42", Name: name})
	}
	return a
}

func newIntake(t *testing.T, a accounts) intake.Intake {
	t.Helper()
	ring, err := keys.NewRing(secret.New(strings.Repeat("i", 32)), "1", map[string]secret.Text{"1": secret.New(strings.Repeat("k", 32))})
	if err != nil {
		t.Fatal(err)
	}
	return intake.Intake{Accounts: a, Keys: ring, Limits: store.DefaultLimits()}
}

func TestPlace(t *testing.T) {
	named := func(a store.Account) (store.Repository, bool) { return intake.Named(a, "acme/shop") }
	for name, c := range map[string]struct {
		accounts accounts
		account  string
		want     string // the account's id
		field    string // of the refusal
		invalid  bool
		outage   bool
	}{
		"TheOnlyOneThatServes": {accounts: accounts{"1": account("1"), "2": account("2", "acme/shop")}, want: "2"},
		"TheNamedOne":          {accounts: accounts{"1": account("1", "acme/shop"), "2": account("2", "acme/shop")}, account: "1", want: "1"},
		"OneOfTwoIsToBeNamed":  {accounts: accounts{"1": account("1", "acme/shop"), "2": account("2", "acme/shop")}, field: "account_id", invalid: true},
		"NoneServes":           {accounts: accounts{"1": account("1")}, field: "account_id"},
		"TheNamedOneDoesNot":   {accounts: accounts{"1": account("1"), "2": account("2", "acme/shop")}, account: "1", field: "account_id"},
		"TheNamedOneIsUnknown": {accounts: accounts{}, account: "1", field: "account_id"},
		"OneCannotBeRead":      {accounts: accounts{"1": account("1", "acme/shop"), "2": nil}, outage: true},
	} {
		t.Run(name, func(t *testing.T) {
			a, repo, err := newIntake(t, c.accounts).Place(t.Context(), c.account, named)
			r, refused := errors.AsType[*intake.Refusal](err)
			switch {
			case c.outage:
				if !errors.Is(err, errAway) || refused {
					t.Errorf("Place = %v, want the outage", err)
				}
			case c.field != "":
				if !refused || r.Field != c.field || r.Invalid != c.invalid || r.Text == "" {
					t.Errorf("Place = %+v, want a refusal of %s, invalid %v", err, c.field, c.invalid)
				}
			case err != nil || a.ID != c.want || repo != (store.Repository{ID: "42", Name: "acme/shop", OwnerID: "7", Owner: "acme"}):
				t.Errorf("Place = %s, %+v, %v; want account %s and the repository with its ids", a.ID, repo, err, c.want)
			}
		})
	}
}

func TestAccountsThatDoNotServeAndUnknownOnesAreRefusedAlike(t *testing.T) {
	named := func(a store.Account) (store.Repository, bool) { return intake.Named(a, "acme/shop") }
	_, _, unknown := newIntake(t, accounts{}).Place(t.Context(), "1", named)
	_, _, other := newIntake(t, accounts{"1": account("1")}).Place(t.Context(), "1", named)
	if d := cmp.Diff(unknown, other); d != "" {
		t.Errorf("the refusals differ:\n%s", d)
	}
}

func TestCompleteTakesTheAccountsDefaults(t *testing.T) {
	in := newIntake(t, nil)
	repo := store.Repository{ID: "42", OwnerID: "7"}
	got, err := in.Complete(*account("1"), repo, intake.Wish{Caller: "operator ann", Labels: []string{"large"}})
	want := store.Request{
		Caller: "operator ann", Repository: repo, Account: "1", Region: "eu-west-2", Type: store.Spot, Mode: store.Ephemeral,
		Labels: []string{"large"}, TimeoutS: 3600,
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("Complete: %v (-want +got):\n%s", err, d)
	}

	w := intake.Wish{Region: "us-east-1", Type: store.OnDemand, Mode: store.Shared, TimeoutS: 60, Machine: store.Machine{Subnets: []string{"subnet-b", "subnet-a"}}}
	got, err = in.Complete(*account("1"), repo, w)
	if err != nil || got.Region != w.Region || got.Type != w.Type || got.Mode != w.Mode || got.TimeoutS != 60 || !slices.IsSorted(got.Machine.Subnets) {
		t.Errorf("Complete = %+v, %v; want what was wished for, subnets sorted", got, err)
	}
	if w.Machine.Subnets[0] != "subnet-b" {
		t.Error("Complete sorted the caller's own list")
	}

	two := account("1")
	two.Regions["us-east-1"] = store.Region{}
	_, err = in.Complete(*two, repo, intake.Wish{})
	if r, ok := errors.AsType[*intake.Refusal](err); !ok || r.Field != "region" || !r.Invalid {
		t.Errorf("Complete with two regions = %v, want that one is to be named", err)
	}
}

func TestAllowed(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(*store.Request)
		field string
	}{
		"AllThatIsRegistered": {func(*store.Request) {}, ""},
		"AnotherRepository":   {func(r *store.Request) { r.Repository = store.Repository{ID: "43", OwnerID: "8"} }, "account_id"},
		"AnotherServer":       {func(r *store.Request) { r.Repository.Server = "ghe.acme" }, "account_id"},
		"AnotherMode":         {func(r *store.Request) { r.Mode = store.Shared }, "mode"},
		"AnotherType":         {func(r *store.Request) { r.Machine.InstanceTypes = []string{"m7i.metal"} }, "instance_types"},
		"AnEventOfAWorkflow":  {func(r *store.Request) { r.Origin.Event = "merge_group" }, ""},
		"TooLong":             {func(r *store.Request) { r.TimeoutS = 24 * 3600 }, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			r := store.Request{Repository: store.Repository{ID: "42", OwnerID: "7"}, Region: "eu-west-2", Type: store.Spot, Mode: store.Ephemeral, TimeoutS: 3600}
			c.edit(&r)
			got := intake.Allowed(store.DefaultLimits(), *account("1", "acme/shop"), r)
			if (got == nil) != (c.field == "") || got != nil && (got.Field != c.field || got.Invalid || got.Reason == "" || got.Text == "") {
				t.Errorf("Allowed = %+v, want the field %q", got, c.field)
			}
		})
	}
}

// A run's event is allowed, or its registration names it: strangers cause some of them in
// every public repository.
func TestEventsAreAnAllowList(t *testing.T) {
	refusal := func(a store.Account, event string) *intake.Refusal {
		r := store.Request{Repository: store.Repository{ID: "42", OwnerID: "7"}, Region: "eu-west-2", Type: store.Spot, Mode: store.Ephemeral, TimeoutS: 3600, Origin: store.Origin{Event: event}}
		return intake.Allowed(store.DefaultLimits(), a, r)
	}
	for _, event := range []string{"push", "pull_request", "schedule", "workflow_dispatch", "merge_group", "release", "deployment", "repository_dispatch", ""} {
		if no := refusal(*account("1", "acme/shop"), event); no != nil {
			t.Errorf("event %q: %+v, want it allowed by a registration that says nothing", event, no)
		}
	}
	for event, field := range map[string]string{
		"issues": "allow.events", "discussion_comment": "allow.events", "fork": "allow.events", "watch": "allow.events", "deployment_status": "allow.events",
		"pull_request_review": "allow.events", "Push": "allow.events", "push ": "allow.events", "workflow_call": "allow.events", "unheard_of": "allow.events",
		"issue_comment": "allow.issue_comment", "pull_request_target": "allow.pull_request_target", "workflow_run": "allow.workflow_run",
	} {
		public := *account("1", "acme/shop")
		public.Allow.PublicRepositories = true
		no := refusal(public, event)
		if no == nil || no.Invalid || !strings.Contains(no.Text, "event "+event) || !strings.Contains(no.Text, "("+field+")") {
			t.Errorf("event %q of an account that is opted in as public only: %+v, want a refusal that names the event and %s", event, no, field)
		}
		public.Allow.Events = []string{event}
		if no := refusal(public, event); no != nil {
			t.Errorf("event %q, which is opted in: %+v, want it allowed", event, no)
		}
	}
}

// A wish that comes twice has one record, and another one under its key is recognised.
func TestTheSameWishGetsTheSameRecord(t *testing.T) {
	in, s := newIntake(t, nil), storetest.NewMemory()
	session := store.NewWriter(s, "test", func() time.Time { return now })
	w := intake.Wish{Trace: "t1", Key: "k", Origin: store.Origin{RunID: "1001", RunAttempt: "1"}}
	record := func(w intake.Wish) (store.Decision, error) {
		r, err := in.Complete(*account("1"), store.Repository{ID: "42", OwnerID: "7"}, w)
		if err != nil {
			t.Fatal(err)
		}
		d := in.Accept(now, r, w)
		return d, session.Commit(t.Context(), d.Changes...)
	}
	first, err := record(w)
	if err != nil || len(first.Changes) != 1 || len(first.Sends) != 1 || first.Request.OwnLabel == "" || first.Request.State != store.Accepted {
		t.Fatalf("Accept = %+v, %v; want one record and one message", first, err)
	}

	w.Trace = "t2"
	again, err := record(w)
	was, ok, err := intake.Replayed(again, err)
	if !ok || err != nil || was.ID != first.Request.ID || was.Trace != "t1" {
		t.Errorf("Replayed = %s, %v, %v; want the first record", was.ID, ok, err)
	}

	longer := w
	longer.GiveUp = time.Hour
	other, err := record(longer)
	if _, _, err := intake.Replayed(other, err); !errors.Is(err, intake.ErrMismatch) {
		t.Errorf("another wish under the same key: %v, want ErrMismatch", err)
	}

	w.Key = "another"
	if d, err := record(w); err != nil || d.Request.ID == first.Request.ID {
		t.Errorf("a wish under another key has id %s, %v; want its own record", d.Request.ID, err)
	}

	if _, ok, err := intake.Replayed(first, errAway); ok || !errors.Is(err, errAway) {
		t.Errorf("Replayed after an outage = %v, %v; want the outage", ok, err)
	}
}

// A part of the wish that the hash leaves out would be lost without a word: another
// wish under the same key would get the first one's record.
func TestEveryPartOfAWishTellsWishesApart(t *testing.T) {
	in := newIntake(t, nil)
	hash := func(w intake.Wish) string {
		r, err := in.Complete(*account("1"), store.Repository{ID: "42", OwnerID: "7"}, w)
		if err != nil {
			t.Fatal(err)
		}
		return in.Accept(now, r, w).Request.SaidHash
	}
	others := map[string]intake.Wish{
		"Account": {Account: "1"}, "Region": {Region: "us-east-1"}, "Regions": {Regions: []string{"us-east-1"}}, "Type": {Type: store.OnDemand}, "Mode": {Mode: store.Shared}, "Labels": {Labels: []string{"a"}},
		"Machine": {Machine: store.Machine{Image: "ami-2"}}, "TimeoutS": {TimeoutS: 60}, "GiveUp": {GiveUp: time.Minute},
	}
	same := map[string]intake.Wish{ // who asks, and under which name
		"Caller": {Caller: "operator ann"}, "Origin": {Origin: store.Origin{RunID: "1"}}, "Key": {Key: "k"}, "Trace": {Trace: "t"},
		"Job": {Job: store.WorkflowJob{ID: "21"}},
	}
	plain := hash(intake.Wish{})
	for _, f := range reflect.VisibleFields(reflect.TypeFor[intake.Wish]()) {
		other, ok := others[f.Name]
		alike, asks := same[f.Name]
		switch {
		case ok && hash(other) == plain:
			t.Errorf("another %s is the same wish", f.Name)
		case asks && hash(alike) != plain:
			t.Errorf("another %s is another wish", f.Name)
		case !ok && !asks:
			t.Errorf("is a wish with another %s the same? Nothing here says so", f.Name)
		}
	}
}

// Its rule, and what GitHub says of it, may be otherwise by the time it is heard of again.
func TestAWorkflowJobHasOneRecord(t *testing.T) {
	in := newIntake(t, nil)
	record := func(w intake.Wish, repo string) store.Request {
		r, err := in.Complete(*account("1"), store.Repository{ID: repo, OwnerID: "7"}, w)
		if err != nil {
			t.Fatal(err)
		}
		return in.Accept(now, r, w).Request
	}
	first := record(intake.Wish{Mode: store.Ephemeral, Labels: []string{"large"}, Job: store.WorkflowJob{ID: "21", Attempt: 1}}, "42")
	again := record(intake.Wish{Mode: store.Ephemeral, Labels: []string{"small"}, Type: store.OnDemand, Job: store.WorkflowJob{ID: "21", Attempt: 2}}, "42")
	if again.ID != first.ID {
		t.Errorf("the same job has records %s and %s, want one", first.ID, again.ID)
	}
	stored := first
	stored.Version = 1
	if was, ok, err := intake.Replayed(store.Decision{Case: &store.Case{Request: again}}, &store.ConflictError{Current: []store.Item{&stored}}); !ok || err != nil || was.ID != first.ID {
		t.Errorf("Replayed = %v, %v; want the record that there is", ok, err)
	}
	for name, r := range map[string]store.Request{
		"another job":        record(intake.Wish{Mode: store.Ephemeral, Job: store.WorkflowJob{ID: "22"}}, "42"),
		"another repository": record(intake.Wish{Mode: store.Ephemeral, Job: store.WorkflowJob{ID: "21"}}, "43"),
		"no job":             record(intake.Wish{Mode: store.Ephemeral, Origin: store.Origin{CheckRunID: "21"}}, "42"),
	} {
		if r.ID == first.ID {
			t.Errorf("%s has the same record", name)
		}
	}
	if first.OwnLabel != "" || !slices.Equal(first.RunnerLabels(), []string{"large"}) || first.LockKey() != first.ID+"/1" {
		t.Errorf("own label %q, labels %q, lock %q; want none, those of the job, and the first launch's", first.OwnLabel, first.RunnerLabels(), first.LockKey())
	}
}

// One account's mistake, or its end, stops nobody who has another.
func TestFaultyAndClosedAccountsStopNobodyElse(t *testing.T) {
	closed := account("111111111111", "acme/shop")
	closed.Closed = true
	serves := func(a store.Account) (store.Repository, bool) { return intake.Named(a, "acme/shop") }
	in := newIntake(t, accounts{"111111111111": closed, "222222222222": account("222222222222", "acme/shop")})
	if a, _, err := in.Place(t.Context(), "", serves); err != nil || a.ID != "222222222222" {
		t.Errorf("Place beside a closed account = %s, %v; want the other one", a.ID, err)
	}
	var refusal *intake.Refusal
	if _, _, err := in.Place(t.Context(), "111111111111", serves); !errors.As(err, &refusal) || refusal.Reason != intake.NotServed().Reason {
		t.Errorf("Place in a closed account = %v, want it not served", err)
	}
	in.Accounts = faulty{accounts{"111111111111": nil, "222222222222": account("222222222222", "acme/shop")}}
	if a, _, err := in.Place(t.Context(), "", serves); err != nil || a.ID != "222222222222" {
		t.Errorf("Place beside a faulty registration = %s, %v; want the other one", a.ID, err)
	}
	for _, id := range []string{"111111111111", ""} {
		in.Accounts = faulty{accounts{"111111111111": nil, "222222222222": account("222222222222", "acme/other")}}
		if _, _, err := in.Place(t.Context(), id, serves); !errors.Is(err, store.ErrUnusable) {
			t.Errorf("Place in %q = %v, want the fault: the account may well serve the repository", id, err)
		}
	}
}

// faulty has a fault in each registration that is nil.
type faulty struct{ accounts }

func (f faulty) Account(ctx context.Context, id string) (store.Account, error) {
	a, err := f.accounts.Account(ctx, id)
	if errors.Is(err, errAway) {
		err = store.ErrUnusable
	}
	return a, err
}

// replays records a wish under one registration and repeats another under a second one.
func replays(t *testing.T, before, after store.Account, first, again intake.Wish, edit func(*store.Request)) error {
	t.Helper()
	in, s := newIntake(t, nil), storetest.NewMemory()
	repo := store.Repository{ID: "42", OwnerID: "7"}
	commit := func(a store.Account, w intake.Wish, edit func(*store.Request)) (store.Decision, error) {
		r, err := in.Complete(a, repo, w)
		if err != nil {
			t.Fatal(err)
		}
		d := in.Accept(now, r, w)
		edit(&d.Request)
		return d, store.NewWriter(s, w.Trace, func() time.Time { return now }).Commit(t.Context(), d.Changes...)
	}
	first.Trace, again.Trace = "t1", "t2"
	if _, err := commit(before, first, edit); err != nil {
		t.Fatal(err)
	}
	d, err := commit(after, again, func(*store.Request) {})
	_, _, err = intake.Replayed(d, err)
	return err
}

func TestReplayMatchesWhateverTheDefaultsBecame(t *testing.T) {
	asItIs := func(*store.Request) {}
	before, after := *account("1"), *account("1")
	after.Markets, after.Modes, after.MaxTimeoutS = []string{store.OnDemand, store.Spot}, []string{store.Shared}, 600
	after.Regions = map[string]store.Region{"eu-west-1": {}, "eu-west-2": {}}
	after.DefaultRegion = "eu-west-1"
	plain, spot, onDemand := intake.Wish{}, intake.Wish{Type: store.Spot}, intake.Wish{Type: store.OnDemand}
	for name, c := range map[string]struct {
		before, after store.Account
		first, again  intake.Wish
		edit          func(*store.Request)
		mismatch      bool
	}{
		"NothingWasSaid":                    {before, after, plain, plain, asItIs, false},
		"WhatWasSaidIsSaidAgain":            {before, after, spot, spot, asItIs, false},
		"WhatIsSaidIsAnother":               {before, after, spot, onDemand, asItIs, true},
		"WhatIsSaidWasNotSaid":              {before, after, plain, onDemand, asItIs, true},
		"WhatIsSaidIsTheDefault":            {before, before, plain, spot, asItIs, false},
		"WhatWasSaidIsTheDefault":           {before, before, spot, plain, asItIs, false},
		"AnOldRecordOfTheSameDefaults":      {before, before, plain, plain, func(r *store.Request) { r.SaidHash = "" }, false},
		"AnOldRecordOfAnotherWish":          {before, before, plain, onDemand, func(r *store.Request) { r.SaidHash = "" }, true},
		"OldRecordsDoNotTellTheirDefaults":  {before, after, plain, plain, func(r *store.Request) { r.SaidHash = "" }, true},
		"SubnetsInAnotherOrderAreTheSame":   {before, after, intake.Wish{Machine: store.Machine{Subnets: []string{"a", "b"}}}, intake.Wish{Machine: store.Machine{Subnets: []string{"b", "a"}}}, asItIs, false},
		"TypesInAnotherOrderAreAnotherWish": {before, after, intake.Wish{Machine: store.Machine{InstanceTypes: []string{"a", "b"}}}, intake.Wish{Machine: store.Machine{InstanceTypes: []string{"b", "a"}}}, asItIs, true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := replays(t, c.before, c.after, c.first, c.again, c.edit); errors.Is(err, intake.ErrMismatch) != c.mismatch {
				t.Errorf("the replay is answered %v, want a mismatch: %t", err, c.mismatch)
			}
		})
	}
}

// An older version compares BodyHash alone, which it makes of the same fields in the same
// order: this is one that it made.
func TestBodyHashIsThatOfOlderVersions(t *testing.T) {
	in := newIntake(t, nil)
	w := intake.Wish{Labels: []string{"large"}, Machine: store.Machine{Subnets: []string{"subnet-b", "subnet-a"}}}
	r, err := in.Complete(*account("1"), store.Repository{ID: "42", OwnerID: "7"}, w)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := in.Accept(now, r, w).Request.BodyHash, "edfbb020664ceb458849bfd42249d920c81846cb60138aace07bc4d4094243e5"; got != want {
		t.Errorf("BodyHash = %s, want %s", got, want)
	}
}

// A request that names no region is tried in the account's fallback regions too, if its
// runner is its own.
func TestRegionsAreTheWishsOrTheAccounts(t *testing.T) {
	a := account("1", "acme/shop")
	a.Regions["eu-west-1"], a.Modes = a.Regions["eu-west-2"], []string{store.Shared, store.Ephemeral}
	a.DefaultRegion, a.FallbackRegions = "eu-west-2", []string{"eu-west-1"}
	repo := store.Repository{ID: "42", Name: "acme/shop"}
	for name, c := range map[string]struct {
		wish    intake.Wish
		region  string
		regions []string
		field   string
	}{
		"Fallback":      {intake.Wish{Mode: store.Ephemeral}, "eu-west-2", []string{"eu-west-2", "eu-west-1"}, ""},
		"NamedRegion":   {intake.Wish{Mode: store.Ephemeral, Region: "eu-west-2"}, "eu-west-2", nil, ""},
		"Shared":        {intake.Wish{}, "eu-west-2", nil, ""},
		"OwnOrder":      {intake.Wish{Mode: store.Ephemeral, Regions: []string{"eu-west-1", "eu-west-2"}}, "eu-west-1", []string{"eu-west-1", "eu-west-2"}, ""},
		"OneOfItsOwn":   {intake.Wish{Mode: store.Ephemeral, Regions: []string{"eu-west-1"}}, "eu-west-1", nil, ""},
		"SharedInMany":  {intake.Wish{Regions: []string{"eu-west-1", "eu-west-2"}}, "", nil, "regions"},
		"SharedByWords": {intake.Wish{Mode: store.Shared, Regions: []string{"eu-west-1"}}, "", nil, "regions"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := newIntake(t, accounts{"1": a}).Complete(*a, repo, c.wish)
			no, refused := errors.AsType[*intake.Refusal](err)
			if refused != (c.field != "") || refused && (no.Field != c.field || !no.Invalid) || r.Region != c.region || !slices.Equal(r.Regions, c.regions) {
				t.Errorf("Complete = %s of %q, %v; want %s of %q, refused for %q", r.Region, r.Regions, err, c.region, c.regions, c.field)
			}
		})
	}
}

func TestRequestToAnAccountOfAnOrganizationRegistersThere(t *testing.T) {
	a := account("1", "acme/shop")
	a.Owners, a.Server = nil, "ghe.acme"
	a.Scope = store.Scope{Kind: store.OrganizationScope, ID: "7", Name: "acme", Group: "garo"}
	repo, ok := intake.Named(*a, "acme/shop")
	if !ok || repo.OwnerID != "7" {
		t.Fatalf("Named = %+v, %v; want the organization as its owner", repo, ok)
	}
	r, err := newIntake(t, nil).Complete(*a, repo, intake.Wish{Caller: "operator ann"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (store.Scope{Server: "ghe.acme", Kind: store.OrganizationScope, ID: "7", Name: "acme", Group: "garo"}); r.Scope != want || r.Repository != repo {
		t.Errorf("the request registers in %+v for %+v, want %+v for %+v", r.Scope, r.Repository, want, repo)
	}
	if no := intake.Allowed(store.DefaultLimits(), *a, r); no != nil {
		t.Errorf("Allowed = %v, want nil", no)
	}
	r.Repository.OwnerID = "8"
	if no := intake.Allowed(store.DefaultLimits(), *a, r); no == nil || no.Field != "account_id" {
		t.Errorf("Allowed for a repository that has moved to another owner = %v, want it refused", no)
	}
}
