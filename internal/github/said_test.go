package github_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
)

// refusing answers with a status and a body.
func refusing(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	})
}

// saying returns what an error keeps of a refusal's body.
func saying(t testing.TB, body string) string {
	t.Helper()
	c, err := newClient(refusing(http.StatusForbidden, body))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Mint(t.Context(), repo, "garo-prod-Abc123Def456Ghi-17", []string{"x"})
	e, ok := errors.AsType[*github.Error](err)
	if !ok {
		t.Fatalf("Mint = %v, want a *github.Error", err)
	}
	if e.Said != "" && !strings.Contains(err.Error(), "GitHub says: "+e.Said) {
		t.Errorf("error %q does not show what GitHub says: %q", err, e.Said)
	}
	return e.Said
}

func TestEachRefusalOfARegistrationHasItsKindAndGitHubsWords(t *testing.T) {
	for name, c := range map[string]struct {
		rules func(*simgithub.Rules)
		kind  error
		said  string
	}{
		"OwnerForbidsRunners": {refuse(simgithub.RunnersForbidden), github.ErrForbidden, "Forbidden: Repository level self-hosted runners are disabled on this repository"},
		"NoPermission":        {refuse(simgithub.NoPermission), github.ErrDenied, "Resource not accessible by personal access token"},
		"NoAccess":            {refuse(simgithub.NoAccess), github.ErrNotFound, "Not Found"},
		"ActionsDisabled":     {refuse(simgithub.ActionsDisabled), github.ErrConflict, "Conflict: GitHub Actions is disabled on this repository"},
		"LabelRefused":        {refuse(simgithub.LabelRefused), github.ErrRefused, "Validation Failed: labels: garo-gpu is not allowed"},
		"GroupFull":           {func(r *simgithub.Rules) { r.GroupLimit = 1 }, github.ErrFull, "Invalid Argument - Runner group 1 has reached max limit of 1 runners."},
		"NameExists":          {func(*simgithub.Rules) {}, github.ErrNameTaken, "Already exists - A runner with the name garo-1 already exists."},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, simgithub.Config{})
			client := client(t, s.Handler())
			if _, err := client.Mint(t.Context(), repo, "garo-1", []string{"x"}); err != nil {
				t.Fatal(err)
			}
			s.Change(c.rules)
			runner := "garo-1"
			if c.kind != github.ErrNameTaken {
				runner = "garo-2"
			}
			_, err := client.Mint(t.Context(), repo, runner, []string{"x"})
			e, ok := errors.AsType[*github.Error](err)
			if !ok || e.Kind != c.kind || e.Said != c.said {
				t.Fatalf("Mint = %v, want %v with %q", err, c.kind, c.said)
			}
			if wait := time.Until(e.RetryAt); (c.kind == github.ErrFull) != (wait > 50*time.Second && wait <= time.Minute) {
				t.Errorf("RetryAt is %v ahead, want a minute for a full group and none else", wait)
			}
		})
	}
	if !errors.Is(github.ErrForbidden, github.ErrRefused) || !errors.Is(github.ErrFull, github.ErrLimited) || errors.Is(github.ErrConflict, github.ErrRefused) {
		t.Error("want forbidden among the refusals, full among the limits, and a conflict among neither")
	}
}

func refuse(f simgithub.Refusal) func(*simgithub.Rules) {
	return func(r *simgithub.Rules) { r.RefuseMint = &f }
}

func TestGitHubsWordsAreReadAsGitHubSendsThem(t *testing.T) {
	long := strings.Repeat("é words ", 100)
	for name, c := range map[string]struct{ body, want string }{
		"Message":           {`{"message":"Not Found","documentation_url":"https://x.test","status":"404"}`, "Not Found"},
		"ErrorsAsText":      {`{"errors":"are disabled"}`, "are disabled"},
		"ErrorsAsList":      {`{"message":"Validation Failed","errors":["one","two"]}`, "Validation Failed: one: two"},
		"ErrorsAsObject":    {`{"message":"Validation Failed","errors":[{"resource":"Runner","field":"labels","code":"invalid"},{"message":"too many"}]}`, "Validation Failed: labels: invalid: too many"},
		"ControlCharacters": {`{"message":"a\u0000b\u001b[31m\r\nc\u202Ed\u2028e\u00a0 f"}`, "a b [31m c d e f"},
		"OurOwnNames":       {`{"message":"Runner garo-prod-Abc123Def456Ghi-17 of acme/shop: garo-prod-Abc123Def456Ghi-17."}`, "Runner garo-prod-Abc123Def456Ghi-17 of acme/shop: garo-prod-Abc123Def456Ghi-17."},
		"LongWords":         {`{"message":"needs organization_self_hosted_runners, see https://docs.github.com/rest/actions/self-hosted-runners"}`, "needs organization_self_hosted_runners, see https://docs.github.com/rest/actions/self-hosted-runners"},
		"TooLong":           {`{"message":"` + long + `"}`, strings.Join(strings.Fields(long), " ")},
		"HTML":              {`<html>502 Bad Gateway</html>`, ""},
		"NoObject":          {`["a"]`, ""},
		"Null":              {`null`, ""},
		"Empty":             {``, ""},
		"Numbers":           {`{"message":1,"errors":2}`, ""},
		"Nested":            {`{"errors":[[["a"]]]}`, ""},
		"Huge":              {`{"message":"` + strings.Repeat("a ", 20_000) + `"}`, ""},
		"Truncated":         {`{"message":"a`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if r := []rune(c.want); len(r) > 300 {
				c.want = string(r[:299]) + "…"
			}
			if got := saying(t, c.body); got != c.want {
				t.Errorf("said %q, want %q", got, c.want)
			}
		})
	}
}

// secrets are what no error may show, as GitHub forms them.
var secrets = map[string]string{
	"our own token": token,
	"personal":      "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
	"fine-grained":  "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz",
	"installation":  "ghs_0011223344",
	"old":           "0123456789abcdef0123456789abcdef01234567",
	"JWT":           "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiI3In0.c2ln",
	"bearer":        "Bearer abc123",
	"config":        base64.StdEncoding.EncodeToString([]byte(`{".runner":"eyJBZ2VudElkIjoiMSJ9",".credentials":"eyJTY2hlbWUiOiJPQXV0aCJ9"}`)),
	"key":           "MIIEpAIBAAKCAQEAx1+2/3",
}

func TestGitHubsWordsHoldNoSecret(t *testing.T) {
	for name, s := range secrets {
		for _, text := range []string{s, "it is " + s + ".", `"` + s + `"`, s + s, "a\u200b" + s, strings.Repeat("word ", 55) + s} {
			for _, v := range []any{map[string]any{"message": text}, map[string]any{"errors": text}, map[string]any{"errors": []any{map[string]any{"message": text}}}} {
				b, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				if got := saying(t, string(b)); strings.Contains(got, s) || strings.Contains(got, s[:min(len(s), 16)]) {
					t.Errorf("%s: said %q", name, got)
				}
			}
		}
	}
}

func TestAnswerWithAConfigIsNeverReadIntoAnError(t *testing.T) {
	body := `{"message":"canary","errors":["canary"],"runner":{"id":1,"name":"another"},"encoded_jit_config":"canary","token":"canary"}`
	for _, status := range []int{200, 201, 202, 204, 206, 301, 302, 304} {
		for call, err := range calls(t, client(t, refusing(status, body))) {
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("%s with status %d shows its answer: %v", call, status, err)
			}
		}
	}
}

func FuzzGitHubsWords(f *testing.F) {
	f.Add("Not Found", "errors")
	f.Add("\xff\u202e\x00", "")
	for _, s := range secrets {
		f.Add(s, "token "+s)
	}
	f.Add(strings.Repeat("é", 400), "a")
	f.Fuzz(func(t *testing.T, message, more string) {
		b, err := json.Marshal(map[string]any{"message": message, "errors": []string{more, token}})
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{string(b), message, `{"message":` + more + `}`} {
			got := saying(t, body)
			if !utf8.ValidString(got) || utf8.RuneCountInString(got) > 300 || strings.Contains(got, token) {
				t.Errorf("%q is said as %q", body, got)
			}
			for _, r := range got {
				if !unicode.IsGraphic(r) {
					t.Errorf("%q is said as %q, with %U in it", body, got, r)
				}
			}
			for _, run := range strings.FieldsFunc(got, func(r rune) bool {
				return r > '~' || !strings.ContainsRune("+/=_.~-", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
			}) {
				if len(run) >= 20 && strings.ContainsAny(run, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") && strings.TrimRight(run, ".") != "garo-prod-Abc123Def456Ghi-17" {
					t.Errorf("%q is said as %q, with %q in it, which may be a credential", body, got, run)
				}
			}
		}
	})
}
