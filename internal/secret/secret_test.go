package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const canary = "canary-7c1f"

func TestTextNeverPrintsItself(t *testing.T) {
	s := New(canary)
	holder := struct {
		S Text
		P *Text
	}{s, &s}
	var out []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		out = append(out, fmt.Sprintf(verb, s), fmt.Sprintf(verb, holder), fmt.Sprintf(verb, &s))
	}
	out = append(out, errors.New(fmt.Sprint(s)).Error())
	b, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, string(b))
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s, "h", holder)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s, "h", holder)
	out = append(out, log.String())
	for _, o := range out {
		if strings.Contains(o, canary) || strings.Contains(o, fmt.Sprintf("%x", canary)) {
			t.Errorf("a secret was printed: %s", o)
		}
	}
	if !strings.Contains(log.String(), "***") {
		t.Errorf("log = %s, want *** in it", log.String())
	}
}

func TestEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"x", "x", true}, {"x", "y", false}, {"x", "xx", false}, {"", "", false}, {"x", "", false}} {
		if got := New(c.a).Equal(c.b); got != c.want {
			t.Errorf("New(%q).Equal(%q) = %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

func TestJSONReadsTheSecret(t *testing.T) {
	var v struct{ S Text }
	if err := json.Unmarshal([]byte(`{"S":"`+canary+`"}`), &v); err != nil || v.S.Reveal() != canary {
		t.Errorf("Unmarshal = %q, %v; want the secret", v.S.Reveal(), err)
	}
}
