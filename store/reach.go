package store

import (
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// Reach is how the machines and the registrations of an account are reached while its
// own registration is gone or cannot be used: what the last launch was made with. An
// end needs that and no more; nothing is launched by it.
type Reach struct {
	// RoleARN is as in Account, and Region the one whose parameters are read.
	RoleARN string `json:"role_arn,omitempty"`
	Region  string `json:"region"`
	// Sealed is the external id, encrypted for the control plane by the key KeyID.
	Sealed string           `json:"sealed"`
	KeyID  string           `json:"key_id"`
	GitHub GitHubCredential `json:"github,omitzero"`
	// More are the account's other credentials. A version before them knows GitHub alone.
	More []GitHubCredential `json:"more_github,omitempty"`
	// Until is when nothing that was launched with it can need it any more.
	Until time.Time `json:"until"`
}

// ReachOf returns how an account is reached for a runner in a region. sealed is the
// external id, encrypted by the key keyID.
func ReachOf(a Account, region, keyID, sealed string) Reach {
	if a.DefaultRegion != "" {
		region = a.DefaultRegion
	}
	r := Reach{RoleARN: a.RoleARN, Region: region, Sealed: sealed, KeyID: keyID}
	if len(a.GitHub) > 0 {
		r.GitHub, r.More = a.GitHub[0], a.GitHub[1:]
	}
	return r
}

// Account returns the registration that stands for that of the account of that id. It is
// closed.
func (r Reach) Account(id string, externalID secret.Text) Account {
	return Account{
		ID: id, RoleARN: r.RoleARN, ExternalID: externalID, GitHub: append(GitHubCredentials{r.GitHub}, r.More...),
		DefaultRegion: r.Region, Regions: map[string]Region{r.Region: {}}, Closed: true,
	}
}

// Reached returns how the account's runners end if its registration goes. false: that
// is not known, or nothing needs it any more.
func (q Quota) Reached(now time.Time) (Reach, bool) {
	if q.Reach == nil || !now.Before(q.Reach.Until) {
		return Reach{}, false
	}
	return *q.Reach, true
}

// reach keeps how an account was reached for a launch whose machine may live until
// hard, and may leave names at GitHub.
func (q Quota) reach(r Reach, hard time.Time, lim Limits) Quota {
	r.Until = hard.Add(lim.NameLife)
	if q.Reach != nil {
		r.Until = maxTime(r.Until, q.Reach.Until)
	}
	q.Reach, q.ToldAt = &r, time.Time{}
	return q
}

// tellAgain is how often people hear of an account that stays as it is: once a day,
// since a person has to act, and one line each run would be 1,440 a day.
const tellAgain = 24 * time.Hour

// Unreached decides whether people have to hear that an account cannot be reached, or
// is registered no longer though runners of it live. gone says that it is the latter:
// nobody needs an account of which nothing lives.
func (q Quota) Unreached(now time.Time, gone bool) Decision {
	return decide(Case{Quota: q}, func(d *Decision) {
		if gone && q.Live == 0 || !q.ToldAt.IsZero() && now.Sub(q.ToldAt) < tellAgain {
			return
		}
		d.Quota.ToldAt = now
		d.Alarm = AlarmAccess
	})
}

// timer is when the timer of the runner's machine has powered it off at the latest, and
// EC2 has terminated it for that: the timer runs for as long as the machine may live,
// from a boot that is its boot limit after the last call at most. GoneAge is what EC2 takes
// to show it.
func (r Runner) timer(lim Limits) time.Time {
	return maxTime(r.Hard, r.CalledAt.Add(time.Duration(r.Launch.HardS)*time.Second)).Add(r.Launch.longestBoot(lim) + lim.GoneAge)
}

// Unseen returns why a runner counts as over whose account refuses to show its machine
// for a reason that people have to fix: the machine has a timer of its own, and a
// machine that powers itself off is terminated. false: it may still run.
func (r Runner) Unseen(now time.Time, lim Limits, refused error) (why string, over bool) {
	by := r.timer(lim)
	if r.State != RunnerEnding || now.Before(by) {
		return "", false
	}
	return fmt.Sprintf("its machine could not be seen; its own timer was to power it off by %s (%v)", by.UTC().Format(time.RFC3339), refused), true
}
