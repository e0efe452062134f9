package simgithub

import (
	"encoding/json"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/diskmap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
)

var acme = Organization{ID: "55", Name: "acme", Groups: []Group{
	{ID: 7, Name: "garo", Repositories: []string{"101"}}, {ID: 8, Name: "open"}, {ID: 9, Name: "enterprise", Inherited: true},
}}

// withOrganization has two repositories of acme, and one of others.
func withOrganization(t *testing.T, cfg Config) *world {
	t.Helper()
	cfg.Organizations = []Organization{acme}
	cfg.Repositories = append(slices.Clone(repositories), github.Repository{ID: "201", Name: "others/shop"})
	return open(t, cfg)
}

// inGroup registers a runner of acme and opens its session.
func (w *world) inGroup(name string, group int, labels ...string) (int64, *Session) {
	w.t.Helper()
	var m minted
	w.call("POST", "/organizations/55/actions/runners/generate-jitconfig", groupBody(name, group, labels...), 201, &m)
	return m.Runner.ID, w.connect(m.Config)
}

func TestJobComesToARunnerWhoseGroupAdmitsItsRepository(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := withOrganization(t, Config{})
		_, narrow := w.inGroup("narrow", 7, "x")
		_, wide := w.inGroup("wide", 8, "x")
		queue := func(repository string) {
			t.Helper()
			if _, err := w.Queue(repository, Job{RunID: "1", Labels: []string{"x"}, Duration: time.Minute}); err != nil {
				t.Fatal(err)
			}
		}
		queue("others/shop")
		idle(t, narrow, time.Hour)
		idle(t, wide, time.Hour)
		queue("acme/other")
		idle(t, narrow, time.Hour)
		if j := take(t, wide); j.RepositoryID != "102" {
			t.Errorf("the group for all got %+v, want the job of acme/other", j)
		}
		queue("acme/shop")
		if j := take(t, narrow); j.RepositoryID != "101" {
			t.Errorf("the group for one got %+v, want the job of acme/shop", j)
		}
	})
}

// A group admits a public repository if it allows public ones, and not for its being selected.
func TestJobOfAPublicRepositoryNeedsAGroupThatAllowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := withOrganization(t, Config{})
		own := Organization{ID: "55", Name: "acme", Public: []string{"101"}, Groups: []Group{
			{ID: 7, Name: "garo", Repositories: []string{"101", "102"}}, {ID: 8, Name: "open", Repositories: []string{"101"}, Public: true},
		}}
		w.SetOrganization(own)
		_, private := w.inGroup("private", 7, "x")
		if _, err := w.Queue("acme/shop", Job{RunID: "1", Labels: []string{"x"}, Duration: time.Minute}); err != nil {
			t.Fatal(err)
		}
		idle(t, private, time.Hour)
		_, public := w.inGroup("public", 8, "x")
		if j := take(t, public); j.RepositoryID != "101" {
			t.Errorf("the group that allows public repositories got %+v, want the job of acme/shop", j)
		}
		var l struct {
			Total        int `json:"total_count"`
			Repositories []struct {
				ID      int64
				Private bool
			}
		}
		w.call("GET", "/organizations/55/actions/runner-groups/7/repositories", "", 200, &l)
		if l.Total != 2 || len(l.Repositories) != 2 || l.Repositories[0].ID != 101 || l.Repositories[0].Private || !l.Repositories[1].Private {
			t.Errorf("listed %+v, want acme/shop as public and acme/other as private", l)
		}
	})
}

func TestRunnersOfAnOrganizationAreNotOfItsRepositories(t *testing.T) {
	w := withOrganization(t, Config{})
	mine, _ := w.online("r", "x")
	theirs, _ := w.inGroup("r", 7, "x") // names are of a scope
	for path, want := range map[string]int64{"/repositories/101/actions/runners": mine, "/organizations/55/actions/runners": theirs} {
		var l struct{ Runners []runner }
		w.call("GET", path, "", 200, &l)
		if len(l.Runners) != 1 || l.Runners[0].ID != want {
			t.Errorf("%s = %+v, want runner %d alone", path, l.Runners, want)
		}
	}
	w.call("GET", "/repositories/101/actions/runners/2", "", 404, nil)
	w.call("DELETE", "/organizations/55/actions/runners/1", "", 404, nil)
}

func TestRunnerGroupsAreChecked(t *testing.T) {
	w := withOrganization(t, Config{})
	const mint = "/organizations/55/actions/runners/generate-jitconfig"
	for name, group := range map[string]int{"Unknown": 6, "OfTheEnterprise": 9} {
		t.Run(name, func(t *testing.T) { w.call("POST", mint, groupBody("r", group, "x"), 422, nil) })
	}
	w.call("POST", mint, groupBody("r", 1, "x"), 201, nil) // the default one is allowed
	w.Change(func(r *Rules) { r.GroupLimit = 1 })
	w.call("POST", mint, groupBody("r2", 7, "x"), 201, nil) // each has room of its own
	w.call("POST", mint, groupBody("r3", 7, "x"), 422, nil)
}

func TestRunnerOfAnOrganizationSurvivesARestart(t *testing.T) {
	file := t.TempDir() + "/github"
	disk := func() Disk {
		d, err := diskmap.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		return d
	}
	first := disk()
	withOrganization(t, Config{Disk: first}).inGroup("r", 7, "x")
	if err := first.(*diskmap.Map).Close(); err != nil {
		t.Fatal(err)
	}
	got := withOrganization(t, Config{Disk: disk()}).Registrations()
	if len(got) != 1 || got[0].OrganizationID != "55" || got[0].Group != 7 {
		t.Errorf("registrations = %+v, want the one in group 7 of acme", got)
	}
}

func TestTokenForOrganizationsOpensNoRepository(t *testing.T) {
	key, public := newKey(t)
	w := withOrganization(t, Config{Rules: Rules{App: App{ID: 7, Installation: 9, Key: public}}})
	token := func(body string) string {
		t.Helper()
		var made struct{ Token string }
		got := w.as(prove(t, key, 7, 0, 0), "POST", "/app/installations/9/access_tokens", body)
		if err := json.Unmarshal(got.body, &made); err != nil || got.status != 201 {
			t.Fatalf("token = %d %s", got.status, got.body)
		}
		return made.Token
	}
	org, repo := token(`{"permissions":{"organization_self_hosted_runners":"write"}}`), token(tokenBody(101))
	for name, c := range map[string]struct {
		path, token string
		want        int
	}{
		"Organization":      {"/orgs/acme/actions/runners", org, 200},
		"Groups":            {"/organizations/55/actions/runner-groups", org, 200},
		"Admitted":          {"/organizations/55/actions/runner-groups/7/repositories", org, 200},
		"AdmittedOfNoGroup": {"/organizations/55/actions/runner-groups/6/repositories", org, 404},
		"AdmittedOfNobody":  {"/organizations/55/actions/runner-groups/7/repositories", repo, 404},
		"Repository":        {"/repositories/101/actions/runners", org, 404},
		"OfTheRepository":   {"/repositories/101/actions/runners", repo, 200},
		"GroupsOfNobody":    {"/organizations/55/actions/runner-groups", repo, 404},
		"NoGroupsOfARepo":   {"/repositories/101/actions/runner-groups", repo, 404},
		"OtherOrganization": {"/orgs/others/actions/runners", org, 404},
	} {
		t.Run(name, func(t *testing.T) {
			if got := w.as(c.token, "GET", c.path, "").status; got != c.want {
				t.Errorf("%s = %d, want %d", c.path, got, c.want)
			}
		})
	}
	w.reported() // groups of a repository are no call of ours
}
