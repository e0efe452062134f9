package bootstrap

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

var update = flag.Bool("update", false, "write the golden files again")

// secrets lets cmp compare what must not be printed.
var secrets = cmp.Comparer(func(a, b secret.Text) bool { return a.Reveal() == b.Reveal() })

func document() Document {
	return Document{
		API:    "https://garo.example.org",
		Runner: "abcdefghijklmnopqrstuvwxyz",
		Index:  2,
		KeyID:  "k1",
		Token:  secret.New("dGhlLWJvb3QtdG9rZW4tb2YtdGhpcy1tYWNoaW5lLTE"),
		HardS:  21600,
		Agent: map[string]string{
			"amd64": strings.Repeat("0a", 32),
			"arm64": strings.Repeat("f9", 32),
		},
	}
}

func largest() Document {
	d := document()
	d.API = "https://" + strings.Repeat("a", maxAPI-len("https:///")) + "/"
	d.Runner = strings.Repeat("r", 64)
	d.Index = maxIndex
	d.KeyID = strings.Repeat("k", 16)
	d.Token = secret.New(strings.Repeat("T", 128))
	d.HardS = MaxHardS
	return d
}

func TestGoldenUserDataIsAsReleased(t *testing.T) {
	for _, c := range []struct {
		name string
		doc  Document
	}{{"usual", document()}, {"largest", largest()}} {
		for script := 1; script < len(scripts); script++ {
			got, err := Render(script, c.doc)
			if err != nil {
				t.Fatalf("Render(%d, %s): %v", script, c.name, err)
			}
			if len(got) >= MaxUserData {
				t.Errorf("Render(%d, %s) = %d bytes, want less than %d", script, c.name, len(got), MaxUserData)
			}
			file := filepath.Join("testdata", fmt.Sprintf("script%d-%s.golden", script, c.name))
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v (go test -update writes it)", err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("Render(%d, %s) differs from %s (-want +got):\n%s", script, c.name, file, diff)
			}
		}
	}
}

// A script that was once released may stand in the record of a launch that is
// resumed tomorrow. To change it, add the next one, and its hash here.
func TestReleasedScriptsNeverChange(t *testing.T) {
	want := []string{
		1: "050b747464607376a102332784d79bbcdae956ae13f803bf1bcf496c524c81a0",
		2: "f7f3f8870c0476fa62a6999c9c8f4b3b6e834cfde50df714b3f6453d86b0adb2",
	}
	if len(scripts) != len(want) || Current != len(want)-1 {
		t.Fatalf("%d scripts, Current %d; want %d and the last", len(scripts)-1, Current, len(want)-1)
	}
	for n := 1; n < len(want); n++ {
		if got := fmt.Sprintf("%x", sha256.Sum256([]byte(scripts[n]))); got != want[n] {
			t.Errorf("script %d has SHA-256 %s, want %s", n, got, want[n])
		}
	}
}

func TestParseIsTheInverseOfRender(t *testing.T) {
	one := document()
	one.API, one.Index = "http://[::1]:8080/base/", 0
	delete(one.Agent, "arm64")
	none := document()
	none.Agent = map[string]string{}
	for _, d := range []Document{document(), largest(), one, none} {
		b, err := Render(Current, d)
		if err != nil {
			t.Fatalf("Render: %v", err)
		}
		got, err := Parse(b)
		if err != nil {
			t.Fatalf("Parse: %v", err)
		}
		if diff := cmp.Diff(d, got, secrets); diff != "" {
			t.Errorf("Parse(Render(d)) differs from d (-want +got):\n%s", diff)
		}
	}
}

func TestIllegalFieldIsNotRendered(t *testing.T) {
	for name, spoil := range map[string]func(*Document){
		"NoAPI":            func(d *Document) { d.API = "" },
		"APIOfOtherScheme": func(d *Document) { d.API = "file:///etc/passwd" },
		"APIWithCommand":   func(d *Document) { d.API = "https://x/$(reboot)" },
		"APIWithQuote":     func(d *Document) { d.API = `https://x/"` },
		"APIWithNewline":   func(d *Document) { d.API = "https://x/\n" },
		"APIWithUser":      func(d *Document) { d.API = "https://x@evil.example" },
		"APIWithQuery":     func(d *Document) { d.API = "https://x/?a=b" },
		"APITooLong":       func(d *Document) { d.API = "https://" + strings.Repeat("a", maxAPI) },
		"NoRunner":         func(d *Document) { d.Runner = "" },
		"RunnerWithSlash":  func(d *Document) { d.Runner = "../x" },
		"RunnerTooLong":    func(d *Document) { d.Runner = strings.Repeat("r", 65) },
		"NegativeIndex":    func(d *Document) { d.Index = -1 },
		"IndexTooLarge":    func(d *Document) { d.Index = maxIndex + 1 },
		"NoKeyID":          func(d *Document) { d.KeyID = "" },
		"KeyIDWithQuote":   func(d *Document) { d.KeyID = "k'" },
		"NoToken":          func(d *Document) { d.Token = secret.Text{} },
		"TokenWithSpace":   func(d *Document) { d.Token = secret.New("a b") },
		"TokenTooLong":     func(d *Document) { d.Token = secret.New(strings.Repeat("T", 129)) },
		"NoHardLimit":      func(d *Document) { d.HardS = 0 },
		"HardLimitTooLong": func(d *Document) { d.HardS = MaxHardS + 1 },
		"OtherMachine":     func(d *Document) { d.Agent["s390x"] = d.Agent["amd64"] },
		"HashInCapitals":   func(d *Document) { d.Agent["amd64"] = strings.Repeat("0A", 32) },
		"HashTooShort":     func(d *Document) { d.Agent["amd64"] = "0a" },
		"EmptyHash":        func(d *Document) { d.Agent["amd64"] = "" },
	} {
		t.Run(name, func(t *testing.T) {
			d := document()
			spoil(&d)
			b, err := Render(Current, d)
			if err == nil {
				t.Fatalf("Render = %d bytes, want an error", len(b))
			}
			if strings.Contains(err.Error(), document().Token.Reveal()) {
				t.Errorf("the error has the token: %v", err)
			}
		})
	}
	for _, script := range []int{-1, 0, len(scripts)} {
		if _, err := Render(script, document()); err == nil {
			t.Errorf("Render(%d) succeeded, want an error", script)
		}
	}
}

func TestParseRefusesWhatRenderDoesNotWrite(t *testing.T) {
	good, err := Render(Current, document())
	if err != nil {
		t.Fatal(err)
	}
	word := strings.TrimPrefix(string(good), scripts[Current])
	plain, err := base64.RawURLEncoding.DecodeString(word)
	if err != nil {
		t.Fatal(err)
	}
	doc := func(json string) string {
		return scripts[Current] + base64.RawURLEncoding.EncodeToString([]byte(json))
	}
	json := string(plain)
	for name, data := range map[string]string{
		"Empty":         "",
		"ScriptAlone":   scripts[Current],
		"OtherScript":   "#!/bin/sh\nmain " + word,
		"CutShort":      string(good[:len(good)-1]),
		"NewlineBehind": string(good) + "\n",
		"CommandBehind": string(good) + ";reboot",
		"Padded":        string(good) + "=",
		"NotBase64":     scripts[Current] + "!",
		"NotJSON":       doc("x"),
		"OtherVersion":  doc(strings.Replace(json, `"v":1`, `"v":2`, 1)),
		"UnknownKey":    doc(strings.Replace(json, `"v":1`, `"v":1,"x":1`, 1)),
		"RepeatedKey":   doc(strings.Replace(json, `"v":1`, `"v":1,"v":1`, 1)),
		"OtherOrder":    doc(strings.Replace(json, `"index":2,"key_id":"k1"`, `"key_id":"k1","index":2`, 1)),
		"WhiteSpace":    doc(strings.Replace(json, `"v":1`, `"v": 1`, 1)),
		"MissingKey":    doc(strings.Replace(json, `"index":2,`, ``, 1)),
		"WrongType":     doc(strings.Replace(json, `"index":2`, `"index":"2"`, 1)),
		"TwoDocuments":  doc(json + json),
		"Capital":       doc(strings.Replace(json, `"v":1`, `"V":1`, 1)),
		"IllegalField":  doc(strings.Replace(json, `"index":2`, `"index":-2`, 1)),
		"TooLong":       scripts[Current] + strings.Repeat("A", MaxUserData),
	} {
		t.Run(name, func(t *testing.T) {
			if d, err := Parse([]byte(data)); err == nil {
				t.Errorf("Parse = %+v, want an error", d)
			}
		})
	}
}

func FuzzUserDataIsTheScriptAndOneWord(f *testing.F) {
	d := document()
	f.Add(d.API, d.Runner, d.Index, d.KeyID, d.Token.Reveal(), d.HardS, "amd64", d.Agent["amd64"])
	f.Add("https://x/$(id)", "a b", -1, "'", "\"", 1, "arm64", "`id`")
	f.Fuzz(func(t *testing.T, api, runner string, index int, keyID, token string, hardS int, arch, hash string) {
		d := Document{API: api, Runner: runner, Index: index, KeyID: keyID, Token: secret.New(token), HardS: hardS, Agent: map[string]string{arch: hash}}
		b, err := Render(Current, d)
		if err != nil {
			return
		}
		word, ok := bytes.CutPrefix(b, []byte(scripts[Current]))
		if !ok || len(word) == 0 || strings.Trim(string(word), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			t.Fatalf("Render = %q, want the script and one word", b)
		}
		got, err := Parse(b)
		if err != nil {
			t.Fatalf("Parse(Render(d)): %v", err)
		}
		if diff := cmp.Diff(d, got, secrets); diff != "" {
			t.Fatalf("Parse(Render(d)) differs from d (-want +got):\n%s", diff)
		}
	})
}

func FuzzParseAcceptsOnlyWhatRenderWrites(f *testing.F) {
	good, err := Render(Current, document())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(good[len(scripts[Current]):]))
	f.Add("")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"v":1}`)))
	f.Fuzz(func(t *testing.T, word string) {
		d, err := Parse([]byte(scripts[Current] + word))
		if err != nil {
			return
		}
		again, err := Render(Current, d)
		if err != nil || string(again) != scripts[Current]+word {
			t.Fatalf("Parse accepted %q, which Render does not write: %v", word, err)
		}
	})
}
