package github_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
)

var (
	acme  = simgithub.Organization{ID: "55", Name: "acme", Groups: []simgithub.Group{{ID: 7, Name: "garo"}, {ID: 8, Name: "big", Inherited: true}, {ID: 10, Name: "narrow", Repositories: []string{"101"}}}}
	group = github.Scope{Organization: true, ID: "55", Name: "acme", Group: "garo", Account: account}
)

func TestCallsOfAScopeStayInIt(t *testing.T) {
	for name, c := range map[string]struct {
		in   github.Scope
		root string
	}{
		"Repository":   {repo, "/repositories/101/actions/runners"},
		"Organization": {group, "/organizations/55/actions/runner"},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var paths []string
			s := open(t, simgithub.Config{Organizations: []simgithub.Organization{acme}, Fault: func(_ string, r *http.Request) (f simgithub.Fault) {
				mu.Lock()
				defer mu.Unlock()
				paths = append(paths, r.URL.Path)
				return f
			}})
			gh := client(t, s.Handler())
			for _, in := range []github.Scope{repo, group} { // the same name is another runner in another scope
				if _, err := gh.Mint(t.Context(), in, "r", []string{"x"}); err != nil {
					t.Fatal(err)
				}
			}
			paths = nil
			m, err := gh.Mint(t.Context(), c.in, "r2", []string{"x"})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := gh.Get(t.Context(), c.in, m.RunnerID); err != nil || got.Name != "r2" {
				t.Errorf("Get = %+v, %v", got, err)
			}
			if got, err := gh.Find(t.Context(), c.in, "r2"); err != nil || got.ID != m.RunnerID {
				t.Errorf("Find = %+v, %v", got, err)
			}
			if got := collect(t, gh, c.in, ""); len(got) != 2 {
				t.Errorf("List = %+v, want the two of the scope", got)
			}
			if _, err := gh.Deprecation(t.Context(), c.in, simgithub.ProgramVersion); err != nil {
				t.Errorf("Deprecation: %v", err)
			}
			if _, err := gh.Downloads(t.Context(), c.in); err != nil {
				t.Errorf("Downloads: %v", err)
			}
			if err := gh.Delete(t.Context(), c.in, m.RunnerID); err != nil {
				t.Errorf("Delete: %v", err)
			}
			for _, p := range paths {
				if !strings.HasPrefix(p, c.root) {
					t.Errorf("called %s, want all below %s", p, c.root)
				}
			}
		})
	}
}

func TestRunnerOfAnOrganizationIsInItsGroup(t *testing.T) {
	s := open(t, simgithub.Config{Organizations: []simgithub.Organization{acme}})
	gh := client(t, s.Handler())
	if _, err := gh.Mint(t.Context(), group, "r", []string{"x"}); err != nil {
		t.Fatal(err)
	}
	got := s.Registrations()[0]
	if got.OrganizationID != "55" || got.Group != 7 || got.RepositoryID != "" {
		t.Errorf("registered %+v, want it in group 7 of organization 55", got)
	}
}

func TestGroupIsLookedUpOnceAnHourAndAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, simgithub.Config{Organizations: []simgithub.Organization{acme}})
		gh := client(t, s.Handler())
		n := 0
		mint := func(lookups int, want error) {
			t.Helper()
			n++
			if _, err := gh.Mint(t.Context(), group, fmt.Sprint("r", n), []string{"x"}); !errors.Is(err, want) {
				t.Errorf("Mint %d = %v, want %v", n, err, want)
			}
			if got := s.Calls()[simgithub.OpGroups]; got != lookups {
				t.Errorf("the group was looked up %d times by registration %d, want %d", got, n, lookups)
			}
		}
		mint(1, nil)
		mint(1, nil)
		time.Sleep(time.Hour - time.Second)
		mint(1, nil)
		time.Sleep(time.Second)
		mint(2, nil)
		moved := acme
		moved.Groups = []simgithub.Group{{ID: 9, Name: "garo"}}
		s.SetOrganization(moved) // deleted, and made again
		mint(2, github.ErrRefused)
		mint(3, nil)
		if last := s.Registrations(); last[len(last)-1].Group != 9 {
			t.Errorf("registered in group %d, want that which has the name now", last[len(last)-1].Group)
		}
	})
}

func TestGroupThatIsNoneRefusesTheRegistration(t *testing.T) {
	of := func(change func(*github.Scope)) github.Scope {
		in := group
		change(&in)
		return in
	}
	for name, c := range map[string]struct {
		in   github.Scope
		want error
	}{
		"Missing":             {of(func(s *github.Scope) { s.Group = "none" }), github.ErrNoGroup},
		"InAnotherCase":       {of(func(s *github.Scope) { s.Group = "GARO" }), github.ErrNoGroup},
		"Default":             {of(func(s *github.Scope) { s.Group = "Default" }), github.ErrNoGroup},
		"OfTheEnterprise":     {of(func(s *github.Scope) { s.Group = "big" }), github.ErrNoGroup},
		"WithoutName":         {of(func(s *github.Scope) { s.Group = "" }), github.ErrNoGroup},
		"UnknownOrganization": {of(func(s *github.Scope) { s.ID = "56" }), github.ErrNotFound},
		"NoID":                {of(func(s *github.Scope) { s.ID = "acme" }), github.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, simgithub.Config{Organizations: []simgithub.Organization{acme}})
			_, err := client(t, s.Handler()).Mint(t.Context(), c.in, "r", []string{"x"})
			failed(t, "Mint", err, c.want)
			if n := s.Calls()[simgithub.OpMint]; n != 0 {
				t.Errorf("%d registrations were tried, want none", n)
			}
		})
	}
}

func TestGroupOnAFarPageIsFound(t *testing.T) {
	many := simgithub.Organization{ID: "55", Name: "acme"}
	for i := range 150 {
		many.Groups = append(many.Groups, simgithub.Group{ID: int64(i + 2), Name: fmt.Sprint("g", i), Repositories: []string{"101"}})
	}
	s := open(t, simgithub.Config{Organizations: []simgithub.Organization{many}})
	in := group
	in.Group = "g149"
	got, err := client(t, s.Handler()).Group(t.Context(), in)
	if want := (github.Group{ID: 151, Name: "g149", Selected: true}); err != nil || got != want {
		t.Errorf("Group = %+v, %v; want %+v", got, err, want)
	}
	if n := s.Calls()[simgithub.OpGroups]; n != 2 {
		t.Errorf("%d calls, want one for each page", n)
	}
}

func TestRepositoriesOfAGroupAreReadToTheSecondPage(t *testing.T) {
	for name, c := range map[string]struct {
		selected, read, calls int
		whole                 bool
	}{
		"None":      {0, 0, 1, true},
		"OnePage":   {100, 100, 1, true},
		"TwoPages":  {200, 200, 2, true},
		"ThirdPage": {201, 200, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			own := simgithub.Organization{ID: "55", Name: "acme", Public: []string{"1001"}, Groups: []simgithub.Group{{ID: 7, Name: "garo", Repositories: []string{}}}}
			s := open(t, simgithub.Config{})
			for i := range c.selected {
				id := fmt.Sprint(1000 + i)
				own.Groups[0].Repositories = append(own.Groups[0].Repositories, id)
				if err := s.Create(github.Repository{ID: id, Name: "acme/r" + id}); err != nil {
					t.Fatal(err)
				}
			}
			s.SetOrganization(own)
			all, whole, err := client(t, s.Handler()).Admits(t.Context(), group, github.Group{ID: 7, Name: "garo"})
			if err != nil || len(all) != c.read || whole != c.whole {
				t.Fatalf("%d admitted, whole %t, %v; want %d, %t", len(all), whole, err, c.read, c.whole)
			}
			for i, a := range all {
				if want := (github.Admitted{ID: fmt.Sprint(1000 + i), Public: i == 1}); a != want {
					t.Errorf("admitted %+v, want %+v", a, want)
				}
			}
			if n := s.Calls()[simgithub.OpAdmits]; n != c.calls {
				t.Errorf("%d calls, want %d", n, c.calls)
			}
		})
	}
}

func TestRepositoriesOfAGroupThatAreNotAllShown(t *testing.T) {
	for name, c := range map[string]struct {
		body  string
		whole bool
		want  error
	}{
		"Whole":     {`{"total_count":1,"repositories":[{"id":1}]}`, true, nil},
		"Hidden":    {`{"total_count":2,"repositories":[{"id":1}]}`, false, nil},
		"WithoutID": {`{"total_count":1,"repositories":[{}]}`, false, github.ErrUnknown},
		"NoAnswer":  {`null`, false, github.ErrUnknown},
		"OfAnother": {`[]`, false, github.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			gh := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, c.body) }))
			all, whole, err := gh.Admits(t.Context(), group, github.Group{ID: 7, Name: "garo"})
			if !errors.Is(err, c.want) || whole != c.whole || (err == nil) != (len(all) == 1) {
				t.Errorf("Admits = %+v, %t, %v; want whole %t, %v", all, whole, err, c.whole, c.want)
			}
		})
	}
}

func TestGroupWithoutAnIDIsNotAskedFor(t *testing.T) {
	s := open(t, simgithub.Config{Organizations: []simgithub.Organization{acme}})
	_, _, err := client(t, s.Handler()).Admits(t.Context(), group, github.Group{Name: "garo"})
	failed(t, "Admits", err, github.ErrRefused)
	if n := len(s.Calls()); n != 0 {
		t.Errorf("%d kinds of calls were made, want none", n)
	}
}

func TestAppsTokenHasOnlyTheRightOfItsScope(t *testing.T) {
	for name, c := range map[string]struct {
		in   github.Scope
		want string
	}{
		"Repository":   {repo, `{"repository_ids":[101],"permissions":{"administration":"write"}}`},
		"Organization": {group, `{"permissions":{"organization_self_hosted_runners":"write"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := withApp(t, simgithub.Config{Organizations: []simgithub.Organization{acme}})
			h := s.Handler()
			var asked []string
			creds, gh := holding(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				if strings.HasSuffix(r.URL.Path, "/access_tokens") {
					asked = append(asked, strings.TrimSpace(string(b)))
				}
				r.Body = io.NopCloser(bytes.NewReader(b))
				h.ServeHTTP(w, r)
			}), appCredential, p)
			if _, err := gh.Mint(t.Context(), c.in, "r", []string{"x"}); err != nil {
				t.Fatal(err)
			}
			if len(asked) != 1 || asked[0] != c.want {
				t.Errorf("asked for tokens with %q, want one with %s", asked, c.want)
			}
			for _, in := range []github.Scope{repo, group} { // what one opens, the other does not
				if in != c.in {
					if _, err := gh.Get(t.Context(), in, 1); !errors.Is(err, github.ErrNotFound) {
						t.Errorf("Get in %s = %v", in.Name, err)
					}
				}
			}
			if len(asked) != 2 {
				t.Errorf("%d tokens for two scopes, want one for each", len(asked))
			}
			_, err := creds.Token(t.Context(), github.Access{Account: account, Repository: "101", Name: "acme/shop"})
			failed(t, "Token without a right", err, github.ErrDenied)
		})
	}
}
