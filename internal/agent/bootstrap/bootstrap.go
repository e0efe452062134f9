// Package bootstrap renders and reads the user data of a machine: a fixed script
// and one base64url JSON document behind it. Nothing is ever put into the script:
// the document is one word of letters, digits, _ and -, so no field of it can
// become shell, and the script takes from it only what one strict pattern matches.
//
// A released script is never edited, only superseded by one with the next number,
// because a launch that is repeated a day later must be the same to the byte. A
// test holds the hash of each.
package bootstrap

import (
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// MaxUserData is EC2's limit, in bytes, before its base64
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html).
const MaxUserData = 16 << 10

// Current is the number of the script that new machines get.
const Current = 2

var (
	//go:embed script1.sh
	script1 string
	//go:embed script2.sh
	script2 string // takes the image's proxies
)

// scripts are the released scripts by number, each with the call that waits for
// its one argument: the document.
var scripts = []string{1: script1 + "\nmain ", 2: script2 + "\nmain "}

// Document is what a machine is given at its launch. All of it can be read by
// whatever runs on the machine; Token is worth nothing once it was used.
type Document struct {
	API    string            // base URL of the API
	Runner string            // the runner's id
	Index  int               // the placement that was launched
	KeyID  string            // the key that Token comes from
	Token  secret.Text       // T: opens one boot
	HardS  int               // seconds until the power-off timer fires
	Agent  map[string]string // SHA-256 (hex) of the agent, by GOARCH
}

// MaxHardS is the most that HardS may be: no machine lives longer than a day.
const MaxHardS = 24 * 60 * 60

// wire is the document as it is sent. The script reads it without a JSON parser,
// so that its fields, their order and their spelling are fixed for a script: all
// of them, always, and no white space.
type wire struct {
	V      int    `json:"v"`
	API    string `json:"api"`
	Runner string `json:"runner"`
	Index  int    `json:"index"`
	KeyID  string `json:"key_id"`
	Token  string `json:"token"`
	HardS  int    `json:"hard_s"`
	AMD64  string `json:"amd64"` // SHA-256 of the agent; empty: there is none
	ARM64  string `json:"arm64"`
}

// What each field may be. None of these characters means anything to a shell, to
// JSON or to the script's pattern.
var (
	hostForm    = form.Form{{Of: alnum + "..--", Min: 1}}
	ip6Form     = form.Form{{Text: "[", Of: form.Digit + "AFaf::..", Min: 1}, {Text: "]"}}
	portForm    = form.Form{{Of: form.Digit, Min: 1, Max: 5}}
	segmentForm = form.Form{{Of: alnum + "..__~~--", Min: 1}}
	runnerForm  = form.Form{{Of: form.Lower + form.Digit + "--", Min: 1, Max: 64}}
	keyIDForm   = form.Form{{Of: form.Lower + form.Digit, Min: 1, Max: 16}}
	tokenForm   = form.Form{{Of: alnum + "__--", Min: 1, Max: 128}}
)

const alnum = form.Letter + form.Digit

// isAPI reports whether s is the URL of a server, without user, query or fragment.
func isAPI(s string) bool {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return false
	}
	host, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') { // not one of an IPv6 address
		if !portForm.Fits(host[i+1:]) {
			return false
		}
		host = host[:i]
	}
	if !hostForm.Fits(host) && !ip6Form.Fits(host) {
		return false
	}
	return path == "" || !slices.ContainsFunc(strings.Split(strings.TrimSuffix(path, "/"), "/"), func(s string) bool { return !segmentForm.Fits(s) })
}

const (
	maxAPI   = 512 // far above any real name, and bounds user data
	maxIndex = 999 // three digits; a plan has two
)

// architectures are those that an agent is built for.
var architectures = []string{"amd64", "arm64"}

// check reports the first field of d that no machine may be told.
func (d Document) check() error {
	switch {
	case len(d.API) > maxAPI || !isAPI(d.API):
		return errors.New("api is not the URL of a server, or is too long")
	case !runnerForm.Fits(d.Runner):
		return errors.New("runner is not an id")
	case d.Index < 0 || d.Index > maxIndex:
		return fmt.Errorf("index %d is not within 0 and %d", d.Index, maxIndex)
	case !keyIDForm.Fits(d.KeyID):
		return errors.New("key id is not 1 to 16 of a-z and 0-9")
	case !tokenForm.Fits(d.Token.Reveal()):
		return errors.New("token is not base64url")
	case d.HardS < 1 || d.HardS > MaxHardS:
		return fmt.Errorf("hard limit of %d s is not within 1 and %d", d.HardS, MaxHardS)
	}
	for _, arch := range slices.Sorted(maps.Keys(d.Agent)) {
		if !slices.Contains(architectures, arch) {
			return fmt.Errorf("agent for %q: there is none for this architecture", arch)
		}
		if !form.SHA256.Fits(d.Agent[arch]) {
			return fmt.Errorf("agent for %s: not a SHA-256 in hex", arch)
		}
	}
	return nil
}

// encode returns the word that stands for d. Equal documents give equal words.
func (d Document) encode() (string, error) {
	if err := d.check(); err != nil {
		return "", err
	}
	b, err := json.Marshal(wire{
		V: 1, API: d.API, Runner: d.Runner, Index: d.Index, KeyID: d.KeyID, Token: d.Token.Reveal(),
		HardS: d.HardS, AMD64: d.Agent["amd64"], ARM64: d.Agent["arm64"],
	})
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// Decode reads the word that the script keeps for the agent. It accepts only what
// Render writes, to the byte.
func Decode(word string) (Document, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(word)
	if err != nil {
		return Document{}, errors.New("decode document: not base64url")
	}
	var w wire
	if err := json.Unmarshal(b, &w); err != nil || w.V != 1 {
		return Document{}, errors.New("decode document: not a document of version 1")
	}
	d := Document{
		API: w.API, Runner: w.Runner, Index: w.Index, KeyID: w.KeyID, Token: secret.New(w.Token),
		HardS: w.HardS, Agent: map[string]string{},
	}
	for arch, hash := range map[string]string{"amd64": w.AMD64, "arm64": w.ARM64} {
		if hash != "" {
			d.Agent[arch] = hash
		}
	}
	again, err := d.encode()
	if err != nil {
		return Document{}, fmt.Errorf("decode document: %w", err)
	}
	if again != word { // unknown, repeated or reordered keys, white space, anything behind
		return Document{}, errors.New("decode document: not as it was rendered")
	}
	return d, nil
}

// Render returns the user data for a machine that runs the script of that number.
// The same arguments give the same bytes, for ever.
func Render(script int, d Document) ([]byte, error) {
	if script < 1 || script >= len(scripts) {
		return nil, fmt.Errorf("render user data: no script has the number %d", script)
	}
	word, err := d.encode()
	if err != nil {
		return nil, fmt.Errorf("render user data for runner %q: %w", d.Runner, err)
	}
	b := []byte(scripts[script] + word)
	if len(b) > MaxUserData {
		return nil, fmt.Errorf("render user data for runner %q: %d bytes, EC2 takes %d", d.Runner, len(b), MaxUserData)
	}
	return b, nil
}

// Parse is the inverse of Render, whatever the script's number was.
func Parse(userData []byte) (Document, error) {
	if len(userData) > MaxUserData {
		return Document{}, fmt.Errorf("parse user data: %d bytes, EC2 takes %d", len(userData), MaxUserData)
	}
	for _, script := range scripts[1:] {
		if word, ok := strings.CutPrefix(string(userData), script); ok {
			d, err := Decode(word)
			if err != nil {
				return Document{}, fmt.Errorf("parse user data: %w", err)
			}
			return d, nil
		}
	}
	return Document{}, errors.New("parse user data: it begins with no script of ours")
}
