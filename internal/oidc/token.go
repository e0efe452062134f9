package oidc

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
)

const (
	// maxToken bounds a token, in bytes. GitHub's have 2 KiB.
	maxToken = 8 << 10
	// maxText bounds one claim, in bytes: the longest are names of workflow files,
	// at a ref of 255 bytes, in a repository of 200.
	maxText = 1 << 10
	// skew is how far clocks may be apart. Both sides have theirs set by the
	// network; a minute is far more than they differ by.
	skew = time.Minute
	// maxAge is how old a token may be, whatever it says of its end. GitHub's live
	// for minutes, no job for more than a day without a new one.
	maxAge = 24 * time.Hour
	// maxTime is the end of the year 9999, in seconds since 1970.
	maxTime = 253402300799
)

// kidForm is far wider than GitHub's UUIDs and thumbprints.
var kidForm = form.Form{{Of: "!~", Min: 1, Max: 128}}

// strict takes one way alone to write any bytes, but for line breaks.
var strict = base64.RawURLEncoding.Strict()

// object is a JSON object whose values are not decoded yet.
type object map[string]json.RawMessage

// open returns the id of the key that token says it is signed with, and its
// claims, none of which is verified.
func open(token string) (kid string, payload object, err error) {
	switch {
	case len(token) > maxToken:
		return "", nil, refuse(CauseForm, "longer than %d bytes", maxToken)
	case strings.Count(token, ".") != 2:
		return "", nil, refuse(CauseForm, "not of three segments")
	case strings.ContainsAny(token, "\r\n"):
		return "", nil, refuse(CauseForm, "line breaks")
	}
	segments := strings.Split(token, ".")
	var raw [3][]byte
	for i, s := range segments {
		if raw[i], err = strict.DecodeString(s); err != nil {
			return "", nil, refuse(CauseForm, "segment %d is not base64url", i+1)
		}
	}
	header, ok := readObject(raw[0])
	if !ok {
		return "", nil, refuse(CauseForm, "header is not a JSON object with each name once")
	}
	if kid, err = header.checkHeader(); err != nil {
		return "", nil, err
	}
	if payload, ok = readObject(raw[1]); !ok {
		return "", nil, refuse(CauseForm, "payload is not a JSON object with each name once")
	}
	return kid, payload, nil
}

// readObject reads one JSON object and nothing else. Of two members with the
// same name, readers differ in which they take: such an object is refused.
func readObject(b []byte) (object, bool) {
	var o object
	if !utf8.Valid(b) || json.Unmarshal(b, &o) != nil || o == nil || len(o) != members(b) {
		return nil, false
	}
	return o, true
}

// members counts the members of a JSON object that is well formed, and not those
// inside their values: each has one colon. A decoder that tells the names one by one
// takes three times as long.
func members(object []byte) (n int) {
	depth, text := 0, false
	for i := 0; i < len(object); i++ {
		switch c := object[i]; {
		case text && c == '\\':
			i++ // what is escaped does not end the text
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case c == ':' && depth == 1:
			n++
		}
	}
	return n
}

// checkHeader returns the key id of a token's header.
func (o object) checkHeader() (kid string, err error) {
	// They bring a key along, or change what the signature is over. GitHub sends
	// none of them.
	for _, name := range []string{"jku", "jwk", "x5u", "x5c", "crit", "b64"} {
		if _, ok := o[name]; ok {
			return "", refuse(CauseForm, "header %s is not taken", name)
		}
	}
	alg, err := o.text("alg")
	if err != nil || alg != "RS256" {
		return "", refuse(CauseAlgorithm, "header alg is not RS256")
	}
	typ, err := o.text("typ")
	if err != nil || typ != "" && !strings.EqualFold(typ, "JWT") {
		return "", refuse(CauseForm, "header typ is not JWT")
	}
	kid, err = o.text("kid")
	if err != nil || !kidForm.Fits(kid) {
		return "", refuse(CauseForm, "header kid is missing or not of its form")
	}
	return kid, nil
}

// text returns a claim, or nothing if it is not there.
func (o object) text(name string) (string, error) {
	raw, ok := o[name]
	if !ok {
		return "", nil
	}
	var s string
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", refuse(CauseClaim, "claim %s is not text", name)
	}
	if len(s) > maxText {
		return "", refuse(CauseClaim, "claim %s is longer than %d bytes", name, maxText)
	}
	return s, nil
}

// needed returns a claim that must be there.
func (o object) needed(name string) (string, error) {
	s, err := o.text(name)
	if err == nil && s == "" {
		err = refuse(CauseClaim, "claim %s is missing", name)
	}
	return s, err
}

// isFor reports whether the audience is this one and no other.
func (o object) isFor(audience string) bool {
	var one string
	raw := o["aud"]
	if len(raw) > 0 && raw[0] == '[' {
		var all []json.RawMessage
		if json.Unmarshal(raw, &all) != nil || len(all) != 1 {
			return false
		}
		raw = all[0]
	}
	return len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &one) == nil && one == audience
}

// times returns when the token was made and when it ends. It refuses one that is
// not in its time.
func (o object) times(now time.Time) (issued, expires time.Time, err error) {
	at := map[string]time.Time{}
	for _, name := range []string{"exp", "iat", "nbf"} {
		raw, ok := o[name]
		if !ok && name == "nbf" {
			continue
		}
		n, err := strconv.ParseInt(string(raw), 10, 64)
		switch {
		case !ok:
			return issued, expires, refuse(CauseClaim, "claim %s is missing", name)
		case err != nil || n < 0 || n > maxTime:
			return issued, expires, refuse(CauseClaim, "claim %s is not a time in whole seconds", name)
		}
		at[name] = time.Unix(n, 0).UTC()
	}
	issued, expires = at["iat"], at["exp"]
	switch {
	case now.After(expires.Add(skew)):
		err = refuse(CauseExpired, "expired")
	case issued.After(now.Add(skew)):
		err = refuse(CauseNotYet, "claim iat is in the future")
	case at["nbf"].After(now.Add(skew)):
		err = refuse(CauseNotYet, "claim nbf is in the future")
	case now.Sub(issued) > maxAge:
		err = refuse(CauseExpired, "older than a day")
	}
	return issued, expires, err
}
