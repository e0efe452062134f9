package store

import "fmt"

// GitHubCredential names the SSM parameter that holds a token, or a GitHub App.
type GitHubCredential struct {
	// Parameter holds a personal access token, or the App's private key when
	// AppID is set. Empty: /github/runner/pat.
	Parameter      string `json:"parameter,omitempty"`
	AppID          int64  `json:"app_id,omitempty"`
	InstallationID int64  `json:"installation_id,omitempty"`
}

// DefaultParameter is where a credential is that does not say.
const DefaultParameter = "/github/runner/pat"

// Credential names the credential that registers the account's runners, as the accounts
// do that share it: GitHub counts the calls of an App's installation together.
func (a Account) Credential() string {
	c := a.GitHub
	if c.AppID != 0 {
		return fmt.Sprintf("%s/app/%d/%d", a.Server, c.AppID, c.InstallationID)
	}
	if c.Parameter == "" {
		c.Parameter = DefaultParameter
	}
	return a.ID + c.Parameter
}

// Pace is how the account's machines are launched: as its Pacing says, and not so fast
// that GitHub cannot register them in time.
func (a Account) Pace(lim Limits) Pacing {
	p := a.Pacing
	p.register, p.inHand = lim.LeaseEach, lim.InHand
	// A little less than a lease may be ahead: what is expected is not promised.
	p.lead = lim.LeaseAhead * 2 / 3
	return p
}
