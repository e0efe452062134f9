package ssmparam_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/ssmparam"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	one = "111111111111"
	two = "222222222222"
)

func TestAccountIsReadStrictlyAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ssm.put("/garo/accounts/"+one, registration(one))
		for range 3 {
			a, err := w.Account(t.Context(), one)
			if err != nil || a.ID != one || !a.ExternalID.Equal("canary-external-id") || a.MaxRunners != 10 {
				t.Fatalf("Account = %+v, %v; want the registration", a, err)
			}
		}
		w.wantCalls(t, 1, 0)
	})
}

func TestBadRegistrationIsNamedOnceAndHarmsNoOther(t *testing.T) {
	for _, c := range []struct {
		name, text string
		says       string
	}{
		{"UnknownField", strings.Replace(registration(one), `"max_runners"`, `"max_runnners"`, 1), "max_runnners"},
		{"AnotherAccounts", registration(two), `id "222222222222"`},
		{"Cut", registration(one)[:100], "unexpected EOF"},
		{"Twice", registration(one) + registration(one), "more than one JSON value"},
		{"Empty", "", "EOF"},
		{"NoExternalID", strings.Replace(registration(one), "canary-external-id", "", 1), "external_id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.ssm.put("/garo/accounts/"+one, c.text)
				w.ssm.put("/garo/accounts/"+two, registration(two))
				for range 3 {
					a, err := w.Account(t.Context(), one)
					if err == nil || errors.Is(err, store.ErrNoAccount) || a.ID != "" {
						t.Fatalf("Account = %+v, %v; want an error, and not that it is not registered", a, err)
					}
					for _, want := range []string{"/garo/accounts/" + one, c.says} {
						if !strings.Contains(err.Error(), want) {
							t.Errorf("Account = %v, want an error with %s", err, want)
						}
					}
					if _, err := w.Account(t.Context(), two); err != nil {
						t.Errorf("Account of the other = %v, want its registration", err)
					}
					time.Sleep(6 * time.Minute)
				}
				if ids, err := w.List(t.Context()); err != nil || !slices.Equal(ids, []string{one, two}) {
					t.Errorf("List = %v, %v; want both", ids, err)
				}
				if n := strings.Count(w.log.String(), "alarm=access"); n != 1 || !strings.Contains(w.log.String(), "/garo/accounts/"+one) {
					t.Errorf("%d alarms, want one with the parameter's name:\n%s", n, w.log)
				}
				if strings.Contains(w.log.String(), "canary") {
					t.Errorf("the log has the external id:\n%s", w.log)
				}
				w.ssm.put("/garo/accounts/"+one, c.text+" ")
				time.Sleep(6 * time.Minute)
				_, _ = w.Account(t.Context(), one)
				if n := strings.Count(w.log.String(), "alarm=access"); n != 2 {
					t.Errorf("%d alarms after another bad version, want 2:\n%s", n, w.log)
				}
				w.ssm.put("/garo/accounts/"+one, registration(one))
				time.Sleep(6 * time.Minute)
				if _, err := w.Account(t.Context(), one); err != nil {
					t.Errorf("Account once it is fixed = %v", err)
				}
			})
		})
	}
}

func wantNoAccount(t *testing.T, w *world, id string) {
	t.Helper()
	if a, err := w.Account(t.Context(), id); !errors.Is(err, store.ErrNoAccount) || a.ID != "" {
		t.Errorf("Account(%q) = %+v, %v; want that it is not registered", id, a, err)
	}
}

func TestIDsThatCannotBeAreNotLookedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ssm.put("/garo/keys", "secret")
		for _, id := range []string{"", "1", "11111111111", "1111111111111", "../keys", "11111111111x", "11111111111 "} {
			wantNoAccount(t, w, id)
		}
		w.wantCalls(t, 0, 0)
	})
}

func TestMadeUpAccountsCostTwoReadsInTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ssm.put("/garo/accounts/"+one, registration(one))
		for n := range 1000 {
			wantNoAccount(t, w, fmt.Sprintf("9%011d", n))
		}
		w.wantCalls(t, 1, 1)
		if _, err := w.Account(t.Context(), one); err != nil {
			t.Errorf("Account = %v meanwhile, want the registration", err)
		}
		w.wantCalls(t, 1, 0)
		w.ssm.put("/garo/accounts/"+two, registration(two))
		time.Sleep(10 * time.Second)
		if _, err := w.Account(t.Context(), two); err != nil {
			t.Errorf("Account of one registered since = %v, want it", err)
		}
		for n := range 1000 {
			wantNoAccount(t, w, fmt.Sprintf("8%011d", n))
		}
		w.wantCalls(t, 2, 1)
	})
}

func TestOutageIsNoUnregisteredAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for _, code := range []string{"ThrottlingException", "AccessDeniedException"} {
			w.ssm.fail(400, code)
			if _, err := w.Account(t.Context(), one); err == nil || errors.Is(err, store.ErrNoAccount) {
				t.Errorf("Account after %s = %v, want an outage", code, err)
			}
			if ids, err := w.List(t.Context()); err == nil {
				t.Errorf("List after %s = %v, want an error", code, ids)
			}
		}
	})
}

func TestOldListDecidesNothingWhileSSMIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ssm.put("/garo/accounts/"+one, registration(one))
		if _, err := w.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute)
		w.ssm.fail(500, "InternalServerError")
		if ids, err := w.List(t.Context()); err != nil || !slices.Equal(ids, []string{one}) {
			t.Errorf("List while SSM is away = %v, %v; want the last one", ids, err)
		}
		if _, err := w.Account(t.Context(), two); err == nil || errors.Is(err, store.ErrNoAccount) {
			t.Errorf("Account = %v, want an outage: it may be registered since", err)
		}
		time.Sleep(time.Hour)
		if ids, err := w.List(t.Context()); err == nil {
			t.Errorf("List an hour later = %v, want an error", ids)
		}
	})
}

func TestDeniedListCountsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ssm.put("/garo/accounts/"+one, registration(one))
		if _, err := w.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.ssm.fail(400, "AccessDeniedException")
		time.Sleep(5 * time.Minute)
		if ids, err := w.List(t.Context()); err == nil || !strings.Contains(err.Error(), "/garo/accounts/") {
			t.Errorf("List = %v, %v; want an error that names the path", ids, err)
		}
	})
}

func TestListHasEveryPageAndNamesWhatIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var want []string
		for n := range 23 {
			id := fmt.Sprintf("3%011d", n)
			w.ssm.put("/garo/accounts/"+id, registration(id))
			want = append(want, id)
		}
		w.ssm.put("/garo/accounts/backup", "x")
		w.ssm.put("/garo/accounts/"+one+"/old", "x")
		w.ssm.put("/garo/keys", "x")
		for range 3 {
			ids, err := w.List(t.Context())
			if err != nil || !slices.Equal(ids, want) {
				t.Errorf("List = %v, %v; want %v", ids, err, want)
			}
			ids[0] = "changed by the caller"
		}
		w.wantCalls(t, 0, 3)
		time.Sleep(5*time.Minute - time.Second)
		_, _ = w.List(t.Context())
		w.wantCalls(t, 0, 0)
		time.Sleep(time.Second)
		_, _ = w.List(t.Context())
		w.wantCalls(t, 0, 3)
		if n := strings.Count(w.log.String(), "/garo/accounts/backup"); n != 1 {
			t.Errorf("what is no registration is logged %d times, want once:\n%s", n, w.log)
		}
	})
}

func TestFirstAccountIsListedAfterTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		if ids, err := w.List(t.Context()); err != nil || len(ids) != 0 {
			t.Errorf("List = %v, %v; want none", ids, err)
		}
		w.ssm.put("/garo/accounts/"+one, registration(one))
		time.Sleep(10 * time.Second)
		if ids, err := w.List(t.Context()); err != nil || !slices.Equal(ids, []string{one}) {
			t.Errorf("List ten seconds later = %v, %v; want the first account", ids, err)
		}
		w.ssm.put("/garo/accounts/"+two, registration(two))
		time.Sleep(10 * time.Second)
		if _, err := w.Account(t.Context(), two); err != nil {
			t.Errorf("Account of the second = %v, want its registration: who names it need not wait for a list", err)
		}
	})
}

// key returns text that can be a key, with a canary in it.
func key(n string) string { return "canary-" + strings.Repeat(n, 32) }

func TestKeys(t *testing.T) {
	text := func(id, current string, more ...string) string {
		return fmt.Sprintf(`{"id": %q, "current": %q, "keys": {%s}}`, id, current, strings.Join(more, ", "))
	}
	k := func(id, value string) string { return fmt.Sprintf("%q: %q", id, value) }
	for _, c := range []struct {
		name, text, says string
	}{
		{"One", text(key("i"), "k1", k("k1", key("1"))), ""},
		{"TwoDuringARotation", text(key("i"), "k1", k("k1", key("1")), k("k0", key("0"))), ""},
		{"Three", text(key("i"), "k1", k("k1", key("1")), k("k0", key("0")), k("k2", key("2"))), "3 keys"},
		{"None", text(key("i"), "k1"), `"k1"`},
		{"CurrentIsMissing", text(key("i"), "k2", k("k1", key("1"))), `"k2"`},
		{"ShortIDKey", text("canary", "k1", k("k1", key("1"))), "id key: 6 bytes"},
		{"ShortKey", text(key("i"), "k1", k("k1", "canary")), "key k1: 6 bytes"},
		{"UnknownField", `{"ids": "canary"}`, "ids"},
		{"KeyIsANumber", `{"id": 12345}`, ".id"},
		{"NoObject", `"canary"`, "want a JSON object"},
		{"PlainText", key("i"), "want a JSON object"},
		{"More", text(key("i"), "k1", k("k1", key("1"))) + "{}", "more than one"},
		{"Nothing", "", "want a JSON object"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.ssm.put("/garo/keys", c.text)
				ring, err := w.Keys(t.Context())
				if c.says == "" {
					if err != nil || ring.Current() != "k1" {
						t.Errorf("Keys = %v, %v; want a ring whose current key is k1", ring, err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "/garo/keys") {
					t.Fatalf("Keys = %v, want an error with /garo/keys and %s", err, c.says)
				}
				if strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "12345") {
					t.Errorf("the error has the content: %v", err)
				}
			})
		})
	}
}

func TestKeyOfBeforeARotationIsKnownStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ssm.put("/garo/keys", fmt.Sprintf(`{"id": %q, "current": "k0", "keys": {"k0": %q}}`, key("i"), key("0")))
		before, err := w.Keys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		token, err := before.Boot("k0", "runner", 0)
		if err != nil {
			t.Fatal(err)
		}
		w.ssm.put("/garo/keys", fmt.Sprintf(`{"id": %q, "current": "k1", "keys": {"k1": %q, "k0": %q}}`, key("i"), key("1"), key("0")))
		time.Sleep(5 * time.Minute)
		after, err := w.Keys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if again, err := after.Boot("k0", "runner", 0); err != nil || !again.Equal(token.Reveal()) || after.Current() != "k1" {
			t.Errorf("after the rotation the token of k0 is the same: %v, %v; current %s, want k1", again.Equal(token.Reveal()), err, after.Current())
		}
	})
}

func TestMissingKeysAreAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if _, err := newWorld().Keys(t.Context()); !errors.Is(err, ssmparam.ErrNoParameter) || !strings.Contains(err.Error(), "/garo/keys") {
			t.Errorf("Keys = %v, want that /garo/keys is missing", err)
		}
	})
}

func TestOperators(t *testing.T) {
	hash := keys.HashToken("garo_op_canary")
	for _, c := range []struct {
		name, text string
		want       []string
		says       string
	}{
		{"Two", fmt.Sprintf(`{"ann": %q, "bob@acme.test": %[1]q}`, hash), []string{"ann", "bob@acme.test"}, ""},
		{"None", `{}`, nil, ""},
		{"TokenInsteadOfItsHash", `{"ann": "garo_op_canary"}`, nil, `"ann": want the SHA-256`},
		{"UpperCase", fmt.Sprintf(`{"ann": %q}`, strings.ToUpper(hash)), nil, `"ann"`},
		{"NoName", fmt.Sprintf(`{"": %q}`, hash), nil, `name ""`},
		{"NameThatBreaksALine", fmt.Sprintf(`{"a\nb": %q}`, hash), nil, `name "a\nb"`},
		{"EveryFaultAtOnce", `{"ann": "canary", "b b": "canary"}`, nil, `name "b b"`},
		{"List", `["canary"]`, nil, "want a JSON object"},
		{"Deeper", `{"ann": {"hash": "canary"}}`, nil, "cannot unmarshal object"},
		{"More", `{} {}`, nil, "more than one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.ssm.put("/garo/operators", c.text)
				got, err := w.Operators(t.Context())
				if c.says == "" {
					if err != nil || !slices.Equal(slices.Sorted(maps.Keys(got)), c.want) || c.want != nil && got["ann"] != hash {
						t.Errorf("Operators = %v, %v; want %v", got, err, c.want)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "/garo/operators") || got != nil {
					t.Fatalf("Operators = %v, %v; want an error with /garo/operators and %s, alone", got, err, c.says)
				}
				if strings.Contains(err.Error(), "canary") {
					t.Errorf("the error has the content: %v", err)
				}
			})
		})
	}
}

func TestWithoutTheirParameterThereAreNoOperators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		if got, err := w.Operators(t.Context()); err != nil || len(got) != 0 {
			t.Errorf("Operators = %v, %v; want none", got, err)
		}
		w.ssm.fail(400, "AccessDeniedException")
		time.Sleep(time.Minute)
		if _, err := w.Operators(t.Context()); !errors.Is(err, ssmparam.ErrDenied) {
			t.Errorf("Operators = %v, want that they may not be read", err)
		}
	})
}

func TestWebhookSecretsAreReadStrictly(t *testing.T) {
	a, b := strings.Repeat("a", 32), strings.Repeat("b", 32)
	for _, c := range []struct {
		name, text string
		want       int
		says       string // of the error; empty: none
	}{
		{"One", `{"secrets": ["` + a + `"]}`, 1, ""},
		{"Two", `{"secrets": ["` + a + `", "` + b + `"]}`, 2, ""},
		{"Three", `{"secrets": ["` + a + `", "` + b + `", "` + a + `"]}`, 0, "want one, or two"},
		{"Short", `{"secrets": ["canary-short"]}`, 0, "at least 32"},
		{"None", `{"secrets": []}`, 0, "want one, or two"},
		{"List", `["` + a + `"]`, 0, "want a JSON object"},
		{"UnknownField", `{"secret": "` + a + `"}`, 0, "secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.ssm.put("/garo/webhook", c.text)
				got, err := w.WebhookSecrets(t.Context())
				if len(got) != c.want || (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "/garo/webhook") || strings.Contains(err.Error(), "canary")) {
					t.Errorf("WebhookSecrets = %d, %v; want %d and %q", len(got), err, c.want, c.says)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for range 3 {
			if got, err := w.WebhookSecrets(t.Context()); err != nil || len(got) != 0 {
				t.Errorf("WebhookSecrets without the parameter = %v, %v; want none", got, err)
			}
		}
		w.wantCalls(t, 1, 0)
	})
}
