package store_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// organization is account, with runners in a group of the owner of its repositories.
func organization() store.Account {
	a := account()
	a.Repositories, a.Owners = []store.Named{{ID: "42", Name: "alphagov/x"}}, []store.Named{{ID: "7", Name: "alphagov"}}
	a.Scope = store.Scope{Kind: store.OrganizationScope, ID: "7", Name: "alphagov", Group: "garo"}
	a.Modes = []string{store.Ephemeral}
	return a
}

// The keys are those of versions before scopes, to the byte: they name the locks of live
// runners.
func TestLockKeysOfRepositoriesStayAsTheyWere(t *testing.T) {
	r := store.Request{
		ID: "r1", Mode: store.Shared, Account: "123456789012", Region: "eu-west-2", Type: store.Spot, Spec: "default", Labels: []string{"a", "b"},
		Repository: store.Repository{ID: "42", Name: "alphagov/x", OwnerID: "7", Owner: "alphagov"},
	}
	const want = "123456789012/eu-west-2/42/spot/default/a,b"
	if got := r.LockKey(); got != want {
		t.Errorf("LockKey = %q, want %q", got, want)
	}
	r.Scope = r.Where()
	if got := r.LockKey(); got != want {
		t.Errorf("LockKey with the scope of its repository = %q, want %q", got, want)
	}
	r.Scope, r.Repository.Server = store.Scope{}, "ghe.test"
	if got, want := r.LockKey(), "123456789012/eu-west-2/ghe.test:42/spot/default/a,b"; got != want {
		t.Errorf("LockKey on another server = %q, want %q", got, want)
	}
}

func TestKeysOfScopesTellThemApart(t *testing.T) {
	repo := store.Scope{Kind: store.RepositoryScope, ID: "42", Name: "alphagov/x"}
	org := store.Scope{Kind: store.OrganizationScope, ID: "42", Name: "alphagov", Group: "garo"}
	edited := func(s store.Scope, edit func(*store.Scope)) store.Scope {
		edit(&s)
		return s
	}
	for name, c := range map[string]struct {
		a, b       store.Scope
		keys, same bool
	}{
		"Itself":                    {org, org, true, true},
		"RenamedOrganization":       {org, edited(org, func(s *store.Scope) { s.Name = "other" }), true, true},
		"RenamedRepository":         {repo, edited(repo, func(s *store.Scope) { s.Name = "other/y" }), true, true},
		"TheSameIDOfAnotherKind":    {org, repo, false, false},
		"AnotherGroup":              {org, edited(org, func(s *store.Scope) { s.Group = "big" }), true, false},
		"AnotherOrganization":       {org, edited(org, func(s *store.Scope) { s.ID = "43" }), false, false},
		"AnotherServer":             {org, edited(org, func(s *store.Scope) { s.Server = "ghe.test" }), false, false},
		"ARepositoryOfThatServer":   {edited(org, func(s *store.Scope) { s.Server = "ghe.test" }), edited(repo, func(s *store.Scope) { s.Server = "ghe.test" }), false, false},
		"TwoWithoutAnID":            {store.Scope{}, store.Scope{}, true, false},
		"ARepositoryWithoutItsKind": {repo, edited(repo, func(s *store.Scope) { s.Kind = "" }), true, true},
	} {
		t.Run(name, func(t *testing.T) {
			if (c.a.Key() == c.b.Key()) != c.keys || c.a.Same(c.b) != c.same || c.b.Same(c.a) != c.same {
				t.Errorf("keys %q and %q, Same %v; want equal keys %v, Same %v", c.a.Key(), c.b.Key(), c.a.Same(c.b), c.keys, c.same)
			}
			if strings.Contains(c.a.Key()+c.b.Key(), "/") {
				t.Error("a key holds what separates the parts of a lock key")
			}
		})
	}
}

// Records of a repository's scope are as versions before scopes write and read them.
func TestRecordWithoutAScopeIsOfItsRepository(t *testing.T) {
	const was = `{"id": "r1", "repository": {"server": "ghe.test", "id": "42", "name": "alphagov/x", "owner_id": "7", "owner": "alphagov"}}`
	want := store.Scope{Server: "ghe.test", Kind: store.RepositoryScope, ID: "42", Name: "alphagov/x"}
	var r store.Request
	var run store.Runner
	for _, into := range []any{&r, &run} {
		if err := json.Unmarshal([]byte(was), into); err != nil {
			t.Fatal(err)
		}
	}
	if r.Where() != want || run.Where() != want {
		t.Errorf("Where = %+v and %+v, want %+v", r.Where(), run.Where(), want)
	}
	for _, record := range []any{r, run} {
		b, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "scope") {
			t.Errorf("the record %s names a scope", b)
		}
	}
}

func TestRunnerRegistersWhereItsRequestSays(t *testing.T) {
	s := intended(accepted("r1", store.Ephemeral))
	s.req.Scope = organization().Registers()
	run := s.c().Begin(t0, lim, intent()).Runner
	d := store.Case{Runner: run}.Configure(t0, 1, "sealed", 501, "")
	if h := d.Runner.History; h[len(h)-1].Reason != "registered at GitHub: config 1, in the runner group garo of alphagov" {
		t.Errorf("the story ends with %+v, want the group", h[len(h)-1])
	}
	if run.Scope != s.req.Scope || run.Where().Key() != "@7" || run.Repository != s.req.Repository {
		t.Errorf("runner of %+v registers in %+v, want the request's repository and scope", run.Repository, run.Scope)
	}
}

// Nothing but its labels binds a job to where its runner registers: the next launch is where
// the registration says by now. The answer to POST /start says what to name.
func TestOnlyAWorkflowJobFollowsTheRegistration(t *testing.T) {
	job, asked := plain("r1", "21"), accepted("r1", store.Ephemeral)
	org := organization()
	if got := job.Following(org); got.Scope != org.Registers() || got.LockKey() != job.LockKey() || got.Pool() == job.Pool() {
		t.Errorf("the job's request registers in %+v by lock %s, want the organization, the same lock and another pool", got.Scope, got.LockKey())
	}
	if back := job.Following(org).Following(account()); back.Scope != (store.Scope{}) {
		t.Errorf("it registers in %+v, want its repository again", back.Scope)
	}
	if got := asked.Following(org); got.Scope != asked.Scope {
		t.Errorf("the request registers in %+v, want where it was accepted", got.Scope)
	}
}

func TestRegisters(t *testing.T) {
	if got := account().Registers(); got != (store.Scope{}) {
		t.Errorf("Registers = %+v, want each in its repository", got)
	}
	a := organization()
	a.Server = "ghe.test"
	if got, want := a.Registers(), (store.Scope{Server: "ghe.test", Kind: store.OrganizationScope, ID: "7", Name: "alphagov", Group: "garo"}); got != want {
		t.Errorf("Registers = %+v, want %+v", got, want)
	}
}

func TestOrganizationServesItsOwnRepositoriesAlone(t *testing.T) {
	a := organization()
	for name, c := range map[string]struct {
		repo store.Repository
		want bool
	}{
		"ItsOwn":             {store.Repository{ID: "42", OwnerID: "7"}, true},
		"AnyOther":           {store.Repository{ID: "43", OwnerID: "7"}, true},
		"MovedToAnother":     {store.Repository{ID: "42", OwnerID: "8"}, false},
		"WithoutAKnownOwner": {store.Repository{ID: "42"}, false},
	} {
		if got := a.Serves(c.repo); got != c.want {
			t.Errorf("%s: Serves = %v, want %v", name, got, c.want)
		}
	}
}

func TestRegistrationOfAScope(t *testing.T) {
	type object = map[string]any
	org := func(edit func(object)) func(object) {
		return func(m object) {
			m["scope"] = object{"kind": "organization", "id": "7", "name": "alphagov", "runner_group": "garo"}
			m["modes"], m["owners"] = []any{"ephemeral"}, []any{object{"id": "7", "name": "alphagov"}}
			edit(m)
		}
	}
	in := func(field string, v any) func(object) {
		return org(func(m object) { m["scope"].(object)[field] = v })
	}
	for name, c := range map[string]struct {
		edit func(object)
		says string // "" if it is allowed
	}{
		"Organization":           {org(func(object) {}), ""},
		"OwnersAlone":            {org(func(m object) { m["repositories"] = nil }), ""},
		"RepositoriesAlone":      {org(func(m object) { m["owners"] = nil }), ""},
		"Repository":             {func(m object) { m["scope"] = object{"kind": "repository"} }, ""},
		"Empty":                  {func(m object) { m["scope"] = object{} }, ""},
		"RepositoryWithAGroup":   {func(m object) { m["scope"] = object{"kind": "repository", "runner_group": "garo"} }, "scope: id, name and runner_group"},
		"NoKind":                 {in("kind", ""), "scope: id, name and runner_group"},
		"Enterprise":             {in("kind", "enterprise"), "scope.kind"},
		"UnknownField":           {in("group", "garo"), `unknown field "group"`},
		"Server":                 {in("server", "ghe.test"), "scope.server"},
		"NoID":                   {in("id", ""), "scope.id"},
		"IDThatIsALogin":         {in("id", "alphagov"), "scope.id"},
		"NoName":                 {in("name", ""), "scope.name"},
		"NameOfARepository":      {in("name", "alphagov/x"), "scope.name"},
		"NoGroup":                {in("runner_group", ""), "scope.runner_group"},
		"GroupWithASpace":        {in("runner_group", "garo "), "scope.runner_group"},
		"DefaultGroup":           {in("runner_group", "default"), "the default one"},
		"GroupsID":               {in("runner_group", 7), "runner_group"},
		"Shared":                 {org(func(m object) { m["modes"] = []any{"ephemeral", "shared"} }), "modes"},
		"AnotherOwner":           {org(func(m object) { m["owners"] = []any{object{"id": "8", "name": "other"}} }), "owners"},
		"RepositoryOfAnother":    {org(func(m object) { m["repositories"] = []any{object{"id": "42", "name": "other/x"}} }), "repositories"},
		"OwnerThatOnlyBeginsSo":  {org(func(m object) { m["repositories"] = []any{object{"id": "42", "name": "alphagov2/x"}} }), "repositories"},
		"RepositoryScopeIsAsNow": {func(object) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := store.ParseAccount("123456789012", registration(t, c.edit))
			switch {
			case c.says == "" && err != nil:
				t.Errorf("ParseAccount = %v, want nil", err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("ParseAccount = %v, want an error with %q", err, c.says)
			}
		})
	}
}
