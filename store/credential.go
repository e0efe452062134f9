package store

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// GitHubCredential names the SSM parameter that holds a token, or a GitHub App.
type GitHubCredential struct {
	// Parameter holds a personal access token, or the App's private key when
	// AppID is set. Empty: /github/runner/pat.
	Parameter      string `json:"parameter,omitempty"`
	AppID          int64  `json:"app_id,omitempty"`
	InstallationID int64  `json:"installation_id,omitempty"`
}

// GitHubCredentials are those of one registration, the main one first: its App's webhooks
// are the ones that arrive. Each may do all that the others may, in all repositories. Empty:
// one, a token in DefaultParameter. In JSON, one is an object and several are a list.
type GitHubCredentials []GitHubCredential

// DefaultParameter is where a credential is that does not say.
const DefaultParameter = "/github/runner/pat"

// maxCredentials bounds those of a registration: five register thirteen runners a second,
// which is more than EC2 launches for any account, and three more than one scope takes.
const maxCredentials = 5

// UnmarshalJSON implements json.Unmarshaler. It refuses fields that it does not know.
func (c *GitHubCredentials) UnmarshalJSON(b []byte) error {
	one := []GitHubCredential{{}}
	var into any = &one[0]
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '[' {
		one, into = nil, &one
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("github: %w", err)
	}
	*c = one
	return nil
}

// MarshalJSON implements json.Marshaler.
func (c GitHubCredentials) MarshalJSON() ([]byte, error) {
	switch len(c) {
	case 0:
		return []byte("{}"), nil
	case 1:
		return json.Marshal(c[0])
	}
	return json.Marshal([]GitHubCredential(c))
}

// check tells want of every fault of the credentials.
func (c GitHubCredentials) check(want func(ok bool, format string, args ...any)) {
	want(c == nil || len(c) > 0, "github: want at least one credential")
	want(len(c) <= maxCredentials, "github: %d credentials: want at most %d", len(c), maxCredentials)
	for i, of := range c {
		field := "github"
		if len(c) > 1 {
			field = fmt.Sprintf("github[%d]", i)
		}
		want(of.AppID >= 0 && of.InstallationID >= 0 && (of.AppID == 0) == (of.InstallationID == 0), "%s: app_id and installation_id go together", field)
		for j, other := range c[:i] {
			want(cmp.Or(of.Parameter, DefaultParameter) != cmp.Or(other.Parameter, DefaultParameter), "%s.parameter: it is that of github[%d]: each credential has one of its own", field, j)
			want(of.AppID == 0 || of.AppID != other.AppID, "%s.app_id: %d is that of github[%d]: name another App, since an App is installed once for an owner", field, of.AppID, j)
		}
	}
}

// Credentials are the account's, the main one first, each with its parameter: one at least.
func (a Account) Credentials() []GitHubCredential {
	all := slices.Clone([]GitHubCredential(a.GitHub))
	if len(all) == 0 {
		all = []GitHubCredential{{}}
	}
	for i := range all {
		all[i].Parameter = cmp.Or(all[i].Parameter, DefaultParameter)
	}
	return all
}

// CredentialName names one of the account's credentials, as the accounts do that share it:
// GitHub counts the calls of an App's installation together.
func (a Account) CredentialName(c GitHubCredential) string {
	if c.AppID != 0 {
		return fmt.Sprintf("%s/app/%d/%d", a.Server, c.AppID, c.InstallationID)
	}
	return a.ID + cmp.Or(c.Parameter, DefaultParameter)
}

// CredentialNames names all of the account's credentials, in their order.
func (a Account) CredentialNames() []string {
	var names []string
	for _, c := range a.Credentials() {
		names = append(names, a.CredentialName(c))
	}
	return names
}

// InstalledAs reports whether one of the account's Apps has the installation of that id.
func (a Account) InstalledAs(id string) bool {
	return slices.ContainsFunc(a.GitHub, func(c GitHubCredential) bool {
		return c.AppID != 0 && strconv.FormatInt(c.InstallationID, 10) == id
	})
}

// App returns the App whose webhooks are for the account: the first. Its zero value: the
// account has none.
func (a Account) App() GitHubCredential {
	if i := slices.IndexFunc(a.GitHub, func(c GitHubCredential) bool { return c.AppID != 0 }); i >= 0 {
		return a.GitHub[i]
	}
	return GitHubCredential{}
}

// Pace is how the account's machines are launched: as its Pacing says, and not so fast
// that GitHub cannot register them in time.
func (a Account) Pace(lim Limits) Pacing {
	p := a.Pacing
	p.register, p.inHand = lim.LeaseEach, lim.InHand
	if n := len(a.GitHub); n > 1 {
		p.register = max(lim.LeaseEach/time.Duration(n), lim.scopeEach())
	}
	// A little less than a lease may be ahead: what is expected is not promised.
	p.lead = lim.LeaseAhead * 2 / 3
	return p
}
