package keys

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

func ring(t testing.TB, current string, kids ...string) *Ring {
	t.Helper()
	by := map[string]secret.Text{}
	for _, k := range append(kids, current) {
		by[k] = secret.New(strings.Repeat(k, MinLen))
	}
	r, err := NewRing(secret.New(strings.Repeat("i", MinLen)), current, by)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNewRingRefuses(t *testing.T) {
	good := secret.New(strings.Repeat("k", MinLen))
	for name, c := range map[string]struct {
		id      secret.Text
		current string
		by      map[string]secret.Text
	}{
		"short id key":         {secret.New("short"), "a", map[string]secret.Text{"a": good}},
		"short key":            {good, "a", map[string]secret.Text{"a": secret.New("short")}},
		"no current key":       {good, "b", map[string]secret.Text{"a": good}},
		"no keys":              {good, "", nil},
		"key id with a dot":    {good, "a", map[string]secret.Text{"a": good, "a.b": good}},
		"key id that is long":  {good, "a", map[string]secret.Text{"a": good, strings.Repeat("a", 17): good}},
		"key id with capitals": {good, "a", map[string]secret.Text{"a": good, "B": good}},
	} {
		if _, err := NewRing(c.id, c.current, c.by); err == nil {
			t.Errorf("NewRing with %s: no error", name)
		}
	}
}

// Every use, and every field of it, must make another value.
func TestDerivedValuesAreAllDifferent(t *testing.T) {
	r := ring(t, "a", "b")
	seen := map[string]string{}
	add := func(name, v string) {
		t.Helper()
		if other, ok := seen[v]; ok {
			t.Errorf("%s and %s are the same value", name, other)
		}
		seen[v] = name
	}
	must := func(s secret.Text, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s.Reveal()
	}
	add("request", r.RequestID("1", "2", "3", "4", "5"))
	add("request, shifted fields", r.RequestID("12", "", "3", "4", "5"))
	add("request, joined fields", r.RequestID("1", "23", "", "4", "5"))
	add("request of a job", r.JobRequestID("1", "2"))
	add("request of a job, joined fields", r.JobRequestID("12", ""))
	add("request, other repository", r.RequestID("9", "2", "3", "4", "5"))
	add("request, other run", r.RequestID("1", "9", "3", "4", "5"))
	add("request, other attempt", r.RequestID("1", "2", "9", "4", "5"))
	add("request, other check run", r.RequestID("1", "2", "3", "9", "5"))
	add("request, other key", r.RequestID("1", "2", "3", "4", "9"))
	add("label", strings.TrimPrefix(r.OwnLabel("1"), "garo-"))
	add("label of another lock", strings.TrimPrefix(r.OwnLabel("2"), "garo-"))
	add("boot", must(r.Boot("a", "run", 0)))
	add("boot of another index", must(r.Boot("a", "run", 1)))
	add("boot of another runner", must(r.Boot("a", "nur", 0)))
	add("boot of another key", must(r.Boot("b", "run", 0)))
	add("session", must(r.Session("a", "run", "h")))
	add("session of another nonce", must(r.Session("a", "run", "g")))
	add("session of another runner", must(r.Session("a", "nur", "h")))
	add("session of another key", must(r.Session("b", "run", "h")))
	add("status", r.Status("req", time.Unix(1e9, 0)).Reveal())
	add("status until later", r.Status("req", time.Unix(1e9+1, 0)).Reveal())
	add("status of another request", r.Status("qer", time.Unix(1e9, 0)).Reveal())
}

func TestIDsHaveOneForm(t *testing.T) {
	r := ring(t, "a")
	id, err := NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{id, r.RequestID("1", "", "", "", ""), strings.TrimPrefix(r.OwnLabel("x"), "garo-")} {
		if !ValidID(s) {
			t.Errorf("ValidID(%q) = false", s)
		}
	}
	for _, s := range []string{"", id[1:], id + "a", strings.ToUpper(id), id[:25] + "1", id[:25] + "/", id[:25] + "b", strings.Repeat("é", 13)} {
		if s != id && ValidID(s) {
			t.Errorf("ValidID(%q) = true", s)
		}
	}
}

func TestStatusTokenOpensItsRequestUntilItEnds(t *testing.T) {
	old, now := ring(t, "a"), ring(t, "b", "a")
	until := time.Unix(1_000_000, 0)
	token := old.Status("req", until).Reveal()
	for _, c := range []struct {
		name, token, request string
		ring                 *Ring
		at                   time.Time
		want                 bool
	}{
		{"in time", token, "req", old, until.Add(-time.Second), true},
		{"after a rotation", token, "req", now, until.Add(-time.Second), true},
		{"after the key is gone", token, "req", ring(t, "c"), until.Add(-time.Second), false},
		{"at its end", token, "req", old, until, false},
		{"of another request", token, "qer", old, until.Add(-time.Second), false},
		{"with a longer life", strings.Replace(token, "1000000", "9000000", 1), "req", old, until, false},
		{"with another prefix", strings.Replace(token, StatusPrefix, SessionPrefix, 1), "req", old, until.Add(-time.Second), false},
		{"cut short", token[:len(token)-1], "req", old, until.Add(-time.Second), false},
		{"with more behind", token + "A", "req", old, until.Add(-time.Second), false},
		{"empty", "", "req", old, until, false},
		{"prefix alone", StatusPrefix, "req", old, until, false},
	} {
		if got := c.ring.StatusOpens(c.token, c.request, c.at); got != c.want {
			t.Errorf("StatusOpens(token %s) = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestSealedConfigOpensForItsRunnerAndNumberAlone(t *testing.T) {
	r := ring(t, "a", "b")
	sealed, err := r.Seal(rand.Reader, "a", "run", 1, secret.New("jit config"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(sealed, "jit") {
		t.Errorf("Seal = %s, want it encrypted", sealed)
	}
	if got, err := r.Open("a", "run", 1, sealed); err != nil || got.Reveal() != "jit config" {
		t.Errorf("Open = %q, %v; want the config", got.Reveal(), err)
	}
	other := "A"
	if strings.HasPrefix(sealed, other) {
		other = "B"
	}
	for name, open := range map[string]func() (secret.Text, error){
		"another runner": func() (secret.Text, error) { return r.Open("a", "nur", 1, sealed) },
		"another number": func() (secret.Text, error) { return r.Open("a", "run", 2, sealed) },
		"another key":    func() (secret.Text, error) { return r.Open("b", "run", 1, sealed) },
		"a changed byte": func() (secret.Text, error) { return r.Open("a", "run", 1, other+sealed[1:]) },
		"no base64":      func() (secret.Text, error) { return r.Open("a", "run", 1, "%") },
		"nothing":        func() (secret.Text, error) { return r.Open("a", "run", 1, "") },
	} {
		if got, err := open(); err == nil {
			t.Errorf("Open for %s = %q, want an error", name, got.Reveal())
		}
	}
	if _, err := r.Open("z", "run", 1, sealed); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("Open by an unknown key = %v, want ErrUnknownKey", err)
	}
}

func FuzzStatusOpens(f *testing.F) {
	r := ring(f, "a")
	f.Add(r.Status("req", time.Unix(1e9, 0)).Reveal())
	f.Add("garo_st_a.1.x")
	f.Add("garo_st_...")
	f.Fuzz(func(t *testing.T, token string) {
		if r.StatusOpens(token, "other", time.Unix(0, 0)) {
			t.Errorf("StatusOpens(%q) = true for a request that it was not made for", token)
		}
	})
}

func FuzzValidID(f *testing.F) {
	f.Add("abcdefghijklmnopqrstuvwxya")
	f.Fuzz(func(t *testing.T, s string) {
		if ValidID(s) && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") != "" {
			t.Errorf("ValidID(%q) = true", s)
		}
	})
}

func TestSealedExternalIDOpensForItsAccountAlone(t *testing.T) {
	r := ring(t, "a")
	kid := r.Current()
	sealed, err := r.SealExternalID(rand.Reader, kid, "111122223333", secret.New("canary"))
	if err != nil || strings.Contains(sealed, "canary") {
		t.Fatalf("SealExternalID = %q, %v", sealed, err)
	}
	if got, err := r.OpenExternalID(kid, "111122223333", sealed); err != nil || !got.Equal("canary") {
		t.Errorf("OpenExternalID = %q, %v; want what was sealed", got.Reveal(), err)
	}
	for what, open := range map[string]func() (secret.Text, error){
		"AnotherAccount": func() (secret.Text, error) { return r.OpenExternalID(kid, "111122223334", sealed) },
		"AsAConfig":      func() (secret.Text, error) { return r.Open(kid, "111122223333", 0, sealed) },
		"Cut":            func() (secret.Text, error) { return r.OpenExternalID(kid, "111122223333", sealed[:8]) },
	} {
		if got, err := open(); err == nil {
			t.Errorf("%s: opened to %q, want an error", what, got.Reveal())
		}
	}
	_, serr := r.SealExternalID(rand.Reader, "gone", "111122223333", secret.New("canary"))
	_, oerr := r.OpenExternalID("gone", "111122223333", sealed)
	if !errors.Is(serr, ErrUnknownKey) || !errors.Is(oerr, ErrUnknownKey) || r.Has("gone") || !r.Has(kid) {
		t.Errorf("with a key that is gone: %v and %v, Has %t; want ErrUnknownKey", serr, oerr, r.Has("gone"))
	}
}
