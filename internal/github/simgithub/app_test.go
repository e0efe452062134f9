package simgithub

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// newKey returns the key of an App, of the least length that is allowed.
func newKey(t *testing.T) (*rsa.PrivateKey, *rsa.PublicKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return key, &key.PublicKey
}

// prove returns the JSON web token of an App, from a minute ago to nine minutes
// ahead but for what is added.
func prove(t *testing.T, key *rsa.PrivateKey, app int64, from, to time.Duration) string {
	t.Helper()
	now := time.Now()
	return signed(t, key, `{"alg":"RS256","typ":"JWT"}`, fmt.Sprintf(`{"iat":%d,"exp":%d,"iss":"%d"}`,
		now.Add(-time.Minute+from).Unix(), now.Add(9*time.Minute+to).Unix(), app))
}

func signed(t *testing.T, key *rsa.PrivateKey, header, claims string) string {
	t.Helper()
	part := base64.RawURLEncoding.EncodeToString
	s := part([]byte(header)) + "." + part([]byte(claims))
	sum := sha256.Sum256([]byte(s))
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return s + "." + part(sig)
}

func tokenBody(repositories ...int) string {
	ids := strings.Join(strings.Fields(strings.Trim(fmt.Sprint(repositories), "[]")), ",")
	return `{"repository_ids":[` + ids + `],"permissions":{"administration":"write"}}`
}

// as makes a request with another credential, and returns its status.
func (w *world) as(bearer, method, path, body string) reply {
	w.t.Helper()
	r := request(w.t.Context(), method, path, body)
	r.Header.Set("Authorization", "Bearer "+bearer)
	return w.send(r)
}

func decodeReply(t *testing.T, r reply, into any) {
	t.Helper()
	if err := json.Unmarshal(r.body, into); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
}

const tokensPath = "/app/installations/9/access_tokens"

func openApp(t *testing.T) (*world, *rsa.PrivateKey) {
	t.Helper()
	key, public := newKey(t)
	return open(t, Config{Rules: Rules{App: App{ID: 7, Installation: 9, Key: public}}}), key
}

func TestInstallationTokenOpensItsRepositoryForAnHour(t *testing.T) {
	key, public := newKey(t)
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{Rules: Rules{App: App{ID: 7, Installation: 9, Key: public}}})
		var granted struct {
			Token   string
			Expires time.Time `json:"expires_at"`
		}
		got := w.as(prove(t, key, 7, 0, 0), "POST", tokensPath, tokenBody(101))
		decodeReply(t, got, &granted)
		if got.status != 201 || time.Until(granted.Expires) != time.Hour {
			t.Fatalf("token = %d %s, want one for an hour", got.status, got.body)
		}
		try := func(when, path string, want int) {
			t.Helper()
			if got := w.as(granted.Token, "GET", path, ""); got.status != want {
				t.Errorf("%s GET %s = %d, want %d", when, path, got.status, want)
			}
		}
		try("at once", "/repos/acme/shop/actions/runners", 200)
		try("at once", "/repositories/101/actions/runners", 200)
		try("at once", "/repos/acme/other/actions/runners", 404)
		try("at once", "/rate_limit", 200)
		if got := w.as(granted.Token, "POST", tokensPath, tokenBody(101)); got.status != 401 {
			t.Errorf("a token for a token = %d, want 401", got.status)
		}
		time.Sleep(time.Hour - time.Second)
		try("a second before its end", "/repos/acme/shop/actions/runners", 200)
		time.Sleep(time.Second)
		try("at its end", "/repos/acme/shop/actions/runners", 401)

		decodeReply(t, w.as(prove(t, key, 7, 0, 0), "POST", tokensPath, tokenBody(101)), &granted)
		if n := len(w.grants); n != 1 {
			t.Errorf("%d tokens are kept, want the one that is not over", n)
		}
		w.RevokeTokens()
		try("after it was revoked", "/repos/acme/shop/actions/runners", 401)
		if got := w.as(prove(t, key, 7, 0, 0), "GET", "/repos/acme/shop/actions/runners", ""); got.status != 401 {
			t.Errorf("the App's own proof lists runners with %d, want 401", got.status)
		}
		if n := w.Calls()[OpToken]; n != 3 {
			t.Errorf("%d calls for tokens were counted, want 3", n)
		}
	})
}

func TestOnlyTheAppsProofIsTaken(t *testing.T) {
	w, key := openApp(t)
	stranger, _ := newKey(t)
	claims := func(iss string) string {
		return fmt.Sprintf(`{"iat":%d,"exp":%d,"iss":%s}`, time.Now().Add(-time.Minute).Unix(), time.Now().Add(time.Minute).Unix(), iss)
	}
	good := prove(t, key, 7, 0, 0)
	parts := strings.Split(good, ".")
	for name, proof := range map[string]string{
		"AnotherKey":      prove(t, stranger, 7, 0, 0),
		"AnotherApp":      prove(t, key, 8, 0, 0),
		"FromTheFuture":   prove(t, key, 7, 2*time.Minute, 0),
		"Over":            prove(t, key, 7, 0, -10*time.Minute),
		"ForTooLong":      prove(t, key, 7, 0, 2*time.Minute),
		"NoSignature":     parts[0] + "." + parts[1] + ".",
		"OtherClaims":     parts[0] + ".e30." + parts[2],
		"AlgNone":         signed(t, key, `{"alg":"none"}`, claims(`"7"`)),
		"AlgHS256":        signed(t, key, `{"alg":"HS256"}`, claims(`"7"`)),
		"NumberForIssuer": signed(t, key, `{"alg":"RS256"}`, claims(`7`)),
		"NoTimes":         signed(t, key, `{"alg":"RS256"}`, `{"iss":"7"}`),
		"TwoParts":        parts[0] + "." + parts[1],
		"NoBase64":        "!." + parts[1] + "." + parts[2],
		"TheToken":        token,
		"Empty":           "",
	} {
		if got := w.as(proof, "POST", tokensPath, tokenBody(101)); got.status != 401 {
			t.Errorf("%s = %d, want 401", name, got.status)
		}
	}
	if got := w.as(good, "POST", tokensPath, tokenBody(101)); got.status != 201 {
		t.Errorf("the App's own = %d, want 201", got.status)
	}
	none := open(t, Config{})
	if got := none.as(good, "POST", tokensPath, tokenBody(101)); got.status != 401 {
		t.Errorf("where there is no App = %d, want 401", got.status)
	}
}

func TestWideTokensAreReported(t *testing.T) {
	w, key := openApp(t)
	for name, body := range map[string]string{
		"AllRepositories":   `{"permissions":{"administration":"write"}}`,
		"NoRepository":      `{"repository_ids":[],"permissions":{"administration":"write"}}`,
		"TwoRepositories":   tokenBody(101, 102),
		"AllPermissions":    `{"repository_ids":[101]}`,
		"MorePermissions":   `{"repository_ids":[101],"permissions":{"administration":"write","contents":"write"}}`,
		"OtherPermission":   `{"repository_ids":[101],"permissions":{"contents":"read"}}`,
		"RepositoryByName":  `{"repositories":["shop"],"permissions":{"administration":"write"}}`,
		"IDIsText":          `{"repository_ids":["101"],"permissions":{"administration":"write"}}`,
		"PermissionsAsList": `{"repository_ids":[101],"permissions":["administration"]}`,
		"NoObject":          `[]`,
	} {
		got := w.as(prove(t, key, 7, 0, 0), "POST", tokensPath, body)
		if reports := w.reported(); got.status != 422 || len(reports) != 1 {
			t.Errorf("%s = %d, reported %q; want 422 and one report", name, got.status, reports)
		}
	}
	if n := len(w.grants); n != 0 {
		t.Errorf("%d tokens, want none", n)
	}
	// What GitHub refuses is no fault of the client.
	if got := w.as(prove(t, key, 7, 0, 0), "POST", tokensPath, tokenBody(999)); got.status != 422 {
		t.Errorf("an unknown repository = %d, want 422", got.status)
	}
	if got := w.as(prove(t, key, 7, 0, 0), "POST", "/app/installations/8/access_tokens", tokenBody(101)); got.status != 404 {
		t.Errorf("another installation = %d, want 404", got.status)
	}
}

func TestPointsOfAMinuteAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{Rules: Rules{Limit: Limit{Points: 12}}})
		const path = "/repos/acme/shop/actions/runners"
		m := w.mint("r1", "x") // 5
		time.Sleep(30 * time.Second)
		w.mint("r2", "x") // 10
		if got := w.call("POST", path+"/generate-jitconfig", mintBody("r3", "x"), 403, nil); got.header.Get("Retry-After") != "60" {
			t.Errorf("headers = %v, want retry-after 60", got.header)
		}
		if n := len(w.Registrations()); n != 2 {
			t.Errorf("%d registrations, want 2: what is refused has no effect", n)
		}
		w.call("DELETE", fmt.Sprintf("%s/%d", path, m.Runner.ID), "", 204, nil) // another endpoint
		for range 12 {
			w.call("GET", path, "", 200, nil)
		}
		w.call("GET", path, "", 403, nil)
		time.Sleep(30 * time.Second) // the first 5 are a minute old
		w.mint("r3", "x")
		w.call("POST", path+"/generate-jitconfig", mintBody("r4", "x"), 403, nil)
		w.call("GET", path, "", 403, nil)
		time.Sleep(30 * time.Second) // and so are the reads
		w.call("GET", path, "", 200, nil)
		w.call("GET", "/rate_limit", "", 200, nil)
	})
}
