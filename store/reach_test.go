package store_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestIntentKeepsHowItsAccountIsReached(t *testing.T) {
	a := store.Account{
		ID: "123456789012", RoleARN: "arn:aws:iam::123456789012:role/garo", DefaultRegion: "eu-west-1",
		ExternalID: secret.New("canary"), GitHub: store.GitHubCredentials{{Parameter: "/ci/app", AppID: 1, InstallationID: 2}, {Parameter: "/ci/other", AppID: 3, InstallationID: 4}},
	}
	in := intent()
	in.Reach = store.ReachOf(a, "eu-west-2", "k1", "sealed")
	s := intended(accepted("r1", store.Shared))
	s.quota.ToldAt = t0
	q := s.c().Begin(t0, lim, in).Quota
	until := at(6 * time.Hour).Add(lim.NameLife)
	same(t, "reach", *q.Reach, store.Reach{
		RoleARN: a.RoleARN, Region: "eu-west-1", Sealed: "sealed", KeyID: "k1", GitHub: a.GitHub[0], More: a.GitHub[1:], Until: until,
	})
	if !q.ToldAt.IsZero() {
		t.Errorf("told at %s, want people to hear again of an account that worked since", q.ToldAt)
	}
	if b, err := json.Marshal(q); err != nil || strings.Contains(string(b), "canary") {
		t.Errorf("the record is %s, %v; want no external id in it", b, err)
	}
	for now, want := range map[time.Time]bool{until.Add(-time.Second): true, until: false} {
		if _, ok := q.Reached(now); ok != want {
			t.Errorf("Reached at %s = %t, want %t", now, ok, want)
		}
	}
	back := q.Reach.Account(a.ID, a.ExternalID)
	if back.ID != a.ID || back.RoleARN != a.RoleARN || !back.ExternalID.Equal("canary") || !slices.Equal(back.GitHub, a.GitHub) || !back.Closed {
		t.Errorf("Account = %+v, want the role, the external id and the credentials, closed", back)
	}

	// A launch with a shorter life leaves the longer one what it needs.
	in.Launch.HardS = 60
	s = intended(accepted("r2", store.Shared))
	s.quota = q
	if got := s.c().Begin(at(time.Second), lim, in).Quota.Reach.Until; !got.Equal(until) {
		t.Errorf("until %s, want %s", got, until)
	}
}

// Records of the version before have none, and that version reads ours.
func TestQuotaIsReadByOldAndNew(t *testing.T) {
	old, err := store.Decode(store.Ref{Kind: store.KindQuota, ID: "123456789012"}, []byte(`{"version":4,"account":"123456789012","live":2,"limit":10}`))
	if err != nil {
		t.Fatal(err)
	}
	q := old.(*store.Quota)
	if _, ok := q.Reached(t0); ok || q.Live != 2 {
		t.Errorf("quota %+v, want 2 live, and nothing known of its role", q)
	}
	q.Reach, q.ToldAt = &store.Reach{
		Sealed: "sealed", GitHub: store.GitHubCredential{Parameter: "/ci/one"}, More: []store.GitHubCredential{{Parameter: "/ci/two"}}, Until: at(time.Hour),
	}, t0
	b, err := store.Encode(q)
	if err != nil {
		t.Fatal(err)
	}
	var before struct { // as the version before knows it
		Account string `json:"account"`
		Live    int    `json:"live"`
		Reach   struct {
			GitHub store.GitHubCredential `json:"github"`
		} `json:"reach"`
	}
	if err := json.Unmarshal(b, &before); err != nil || before.Live != 2 || before.Account != "123456789012" || before.Reach.GitHub.Parameter != "/ci/one" {
		t.Errorf("read as %+v, %v; want account, number and the first credential", before, err)
	}
}

func TestUnreachedAccountIsToldOnceADay(t *testing.T) {
	for name, c := range map[string]struct {
		live int
		told time.Time
		gone bool
		want store.Alarm
	}{
		"First":               {live: 2, want: store.AlarmAccess},
		"FirstOfNobody":       {want: store.AlarmAccess},
		"GoneAndNobodyLives":  {gone: true},
		"GoneAndSomeLive":     {live: 1, gone: true, want: store.AlarmAccess},
		"AgainWithinADay":     {live: 2, told: at(-24*time.Hour + 1)},
		"AgainAfterADay":      {live: 2, told: at(-24 * time.Hour), want: store.AlarmAccess},
		"GoneAgainAfterADay":  {live: 2, told: at(-24 * time.Hour), gone: true, want: store.AlarmAccess},
		"NobodyAgainIsNotFor": {told: at(-time.Hour), gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			q := store.Quota{Meta: store.Meta{Version: 3}, Account: "123456789012", Live: c.live, ToldAt: c.told}
			d := q.Unreached(t0, c.gone)
			changes := ""
			want := q
			if c.want != "" {
				changes, want.ToldAt = "put quota", t0
			}
			if got := told(d.Changes); got != changes || d.Alarm != c.want {
				t.Errorf("changes %q and alarm %q, want %q and %q", got, d.Alarm, changes, c.want)
			}
			same(t, "quota", d.Quota, want)
		})
	}
}

func TestUnseenRunnerIsOverWhenItsOwnTimerMustHaveEndedIt(t *testing.T) {
	refused := errors.New("AccessDenied")
	r := store.Runner{ID: "x1", State: store.RunnerEnding, Hard: at(6 * time.Hour), CalledAt: at(10 * time.Minute), Launch: store.Launch{HardS: 6 * 3600}}
	by := at(6*time.Hour + 10*time.Minute).Add(lim.BootLimit + lim.GoneAge) // its last call may have been the one that launched it
	if _, over := r.Unseen(by.Add(-time.Second), lim, refused); over {
		t.Error("over before its timer, want it to stay")
	}
	why, over := r.Unseen(by, lim, refused)
	if !over || !strings.Contains(why, "could not be seen") || !strings.Contains(why, "AccessDenied") || !strings.Contains(why, by.Format(time.RFC3339)) {
		t.Errorf("Unseen = %q, %t; want it over, and said that nobody saw it, why, and by when its timer was to end it", why, over)
	}
	for _, state := range store.RunnerStates {
		if r.State = state; state != store.RunnerEnding {
			if _, over := r.Unseen(by.Add(time.Hour), lim, refused); over {
				t.Errorf("a runner that is %s counts as over", state)
			}
		}
	}
}

func TestLostKeySpendsNoTryOfItsRequest(t *testing.T) {
	s := intended(accepted("r1", store.Ephemeral))
	s.req.Tries = len(lim.Waits) // the last one
	began := *s.c().Begin(t0, lim, intent()).Case
	began.Runner.Version, began.Request.Version = 1, 2 // as it is read again
	d := began.Abandon(at(time.Second), lim, "", store.Said{}, store.NewEnd(store.EndKeyLost))
	if d.Request.State != store.Accepted || d.Runner.State != store.RunnerFailed || d.Quota.Live != s.quota.Live {
		t.Errorf("request %s (%v), runner %s, %d live; want accepted again, failed, and its place given back", d.Request.State, d.Request.Error, d.Runner.State, d.Quota.Live)
	}
	unclear := began
	unclear.Runner.Unclear = true
	d = unclear.Abandon(at(time.Second), lim, "", store.Said{}, store.NewEnd(store.EndKeyLost))
	if d.Runner.State != store.RunnerDraining || d.Request.State != store.Accepted || d.Quota.Live != s.quota.Live+1 {
		t.Errorf("runner %s, request %s, %d live; want its machine, if there is one, to be looked for", d.Runner.State, d.Request.State, d.Quota.Live)
	}
}
