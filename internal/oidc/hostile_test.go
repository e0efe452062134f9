package oidc_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc/oidctest"
)

func TestIssuerIsComparedToTheLetter(t *testing.T) {
	refusedCold(t, "issuer is not configured", func(w *world) map[string]string {
		rows := map[string]string{}
		for name, iss := range map[string]string{
			"Suffix":           github + ".evil.example",
			"SuffixWithoutDot": github + "evil",
			"Prefix":           "https://evil.example/" + github,
			"PrefixOfTheHost":  "https://eviltoken.actions.githubusercontent.com",
			"Subdomain":        "https://evil.token.actions.githubusercontent.com",
			"ParentDomain":     "https://actions.githubusercontent.com",
			"Shortened":        github[:len(github)-1],
			"UpperCase":        "https://TOKEN.actions.githubusercontent.com",
			"UpperCaseScheme":  "HTTPS://token.actions.githubusercontent.com",
			"WithoutTLS":       "http://token.actions.githubusercontent.com",
			"WithoutScheme":    "token.actions.githubusercontent.com",
			"UserInfo":         "https://user@token.actions.githubusercontent.com",
			"UserInfoHost":     github + "@evil.example",
			"Port":             github + ":443",
			"TrailingSlash":    github + "/",
			"TrailingDot":      github + ".",
			"DotSegments":      github + "/./",
			"Enterprise":       github + "/octocat-inc",
			"EnterpriseServer": "https://ghes.example.org/_services/token",
			"DataResidency":    "https://token.actions.octocorp.ghe.com",
			"Query":            github + "?",
			"Fragment":         github + "#",
			"Backslash":        github + `\@evil.example`,
			"Percent":          "https://token%2Eactions.githubusercontent.com",
			"LeadingSpace":     " " + github,
			"TrailingSpace":    github + " ",
			"TrailingNUL":      github + "\x00",
			"TrailingLine":     github + "\n",
			"CyrillicTwin":     "https://t\u043eken.actions.githubusercontent.com",
			"FullWidthDot":     "https://token\uff0eactions.githubusercontent.com",
			"ZeroWidth":        "https://to\u200bken.actions.githubusercontent.com",
			"SoftHyphen":       "https://to\u00adken.actions.githubusercontent.com",
			"KelvinSign":       "https://to\u212aen.actions.githubusercontent.com",
			"RightToLeft":      "\u202e" + github,
		} {
			rows[name] = w.with(map[string]any{"iss": iss})
		}
		return rows
	})
	refusedCold(t, "claim iss", func(w *world) map[string]string {
		return map[string]string{
			"Missing": w.with(map[string]any{"iss": removed{}}),
			"Empty":   w.with(map[string]any{"iss": ""}),
			"Null":    w.with(map[string]any{"iss": nil}),
			"Array":   w.with(map[string]any{"iss": []string{github}}),
			"Object":  w.with(map[string]any{"iss": map[string]string{"url": github}}),
			"Number":  w.with(map[string]any{"iss": 1}),
			"Long":    w.with(map[string]any{"iss": strings.Repeat("x", 1025)}),
			"Capital": w.with(map[string]any{"iss": removed{}, "ISS": github}),
		}
	})
}

// refusedCold checks that each token is refused for a reason that has those
// words, by a verifier that has no key and must not fetch any.
func refusedCold(t *testing.T, words string, rows func(w *world) map[string]string) {
	t.Helper()
	inWorld(t, func(w *world) {
		w.Helper()
		for name, token := range rows(w) {
			w.row(name, func() { w.refused(token, words) })
		}
		w.fetched(0)
	})
}

// refusedWarm is refusedCold for what only a key can tell. Nothing is fetched
// beyond it.
func refusedWarm(t *testing.T, words string, rows func(w *world) map[string]string) {
	t.Helper()
	inWorld(t, func(w *world) {
		w.Helper()
		w.prefetch()
		for name, token := range rows(w) {
			w.row(name, func() { w.refused(token, words) })
		}
		w.fetched(1)
	})
}

// row runs f, and says which row it was if it fails. (A bubble cannot have
// subtests.)
func (w *world) row(name string, f func()) {
	w.Helper()
	failed := w.Failed()
	f()
	if w.Failed() && !failed {
		w.Errorf("in row %s", name)
	}
}

func TestAudienceIsOursAlone(t *testing.T) {
	refusedCold(t, "audience is not ours alone", func(w *world) map[string]string {
		rows := map[string]string{}
		for name, aud := range map[string]any{
			"OfAnotherStage": "https://garo.staging.example.org",
			"OwnersURL":      "https://github.com/acme",
			"Empty":          "",
			"UpperCase":      strings.ToUpper(audience),
			"TrailingSlash":  audience + "/",
			"Prefix":         audience[:len(audience)-1],
			"Suffix":         audience + ".evil.example",
			"List":           audience + "," + audience,
			"Missing":        removed{},
			"Null":           nil,
			"Number":         1,
			"Object":         map[string]any{"0": audience},
			"NoneOfThem":     []string{},
			"OneOfTwo":       []string{audience, "sts.amazonaws.com"},
			"SecondOfTwo":    []string{"sts.amazonaws.com", audience},
			"Twice":          []string{audience, audience},
			"AnotherInArray": []string{"sts.amazonaws.com"},
			"NullInArray":    []any{nil},
			"NestedArray":    []any{[]string{audience}},
			"WithANull":      []any{audience, nil},
		} {
			rows[name] = w.with(map[string]any{"aud": aud})
		}
		return rows
	})
	inWorld(t, func(w *world) { w.verify(w.with(map[string]any{"aud": []string{audience}})) })
}

func TestOnlyRS256IsTaken(t *testing.T) {
	public := &ours.PublicKey
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := jose.JSONWebKey{Key: public, KeyID: oidctest.KeyID(ours)}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	refusedCold(t, "header alg is not RS256", func(w *world) map[string]string {
		rows := map[string]string{
			"Missing": w.headed(head(map[string]any{"alg": removed{}})),
			"Null":    w.headed(head(map[string]any{"alg": nil})),
			"Array":   w.headed(head(map[string]any{"alg": []string{"RS256"}})),
			"Capital": w.headed(head(map[string]any{"alg": removed{}, "ALG": "RS256"})),
			"PS256":   signWith(t, jose.PS256, ours, w.payload(nil)),
			"RS384":   signWith(t, jose.RS384, ours, w.payload(nil)),
			"RS512":   signWith(t, jose.RS512, ours, w.payload(nil)),
		}
		for _, alg := range []string{"", "none", "None", "NONE", "nOnE", "rs256", "RS256 ", "RS1", "RSA", "EdDSA", "RS256\u0000"} {
			signed := b64(head(map[string]any{"alg": alg})) + "." + b64(w.payload(nil))
			rows["Unsigned "+alg] = signed + "."
			rows["Signed "+alg] = w.headed(head(map[string]any{"alg": alg}))
		}
		// With the public key, which everybody has, as the secret.
		for name, secret := range map[string][]byte{
			"PKIX": pkix, "PKCS1": x509.MarshalPKCS1PublicKey(public), "Modulus": public.N.Bytes(), "JWK": jwk, "Empty": nil,
			"PEM":      pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix}),
			"PKCS1PEM": pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(public)}),
		} {
			signed := b64(head(map[string]any{"alg": "HS256"})) + "." + b64(w.payload(nil))
			mac := hmac.New(sha256.New, secret)
			mac.Write([]byte(signed))
			rows["HS256 "+name] = signed + "." + b64(string(mac.Sum(nil)))
			signed = b64(head(map[string]any{"alg": "HS512"})) + "." + b64(w.payload(nil))
			mac = hmac.New(sha512.New, secret)
			mac.Write([]byte(signed))
			rows["HS512 "+name] = signed + "." + b64(string(mac.Sum(nil)))
		}
		ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		rows["ES256"] = signWith(t, jose.ES256, ec, w.payload(nil))
		return rows
	})
	// Says RS256, and is signed otherwise.
	refusedWarm(t, "signature is not by the issuer's key", func(w *world) map[string]string {
		signed := b64(goodHeader) + "." + b64(w.payload(nil))
		sum := sha256.Sum256([]byte(signed))
		pss, err := rsa.SignPSS(rand.Reader, ours, crypto.SHA256, sum[:], nil)
		if err != nil {
			t.Fatal(err)
		}
		sum512 := sha512.Sum512([]byte(signed))
		rs512, err := rsa.SignPKCS1v15(nil, ours, crypto.SHA512, sum512[:])
		if err != nil {
			t.Fatal(err)
		}
		unhashed, err := rsa.SignPKCS1v15(nil, ours, 0, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		mac := hmac.New(sha256.New, pkix)
		mac.Write([]byte(signed))
		return map[string]string{
			"PSS":            signed + "." + b64(string(pss)),
			"SHA512":         signed + "." + b64(string(rs512)),
			"NoDigestInfo":   signed + "." + b64(string(unhashed)),
			"HMAC":           signed + "." + b64(string(mac.Sum(nil))),
			"AnotherKey":     sign(theirs, goodHeader, w.payload(nil)),
			"Empty":          signed + ".",
			"Zeros":          signed + "." + b64(strings.Repeat("\x00", 256)),
			"One":            signed + "." + b64(strings.Repeat("\x00", 255)+"\x01"),
			"Modulus":        signed + "." + b64(string(public.N.Bytes())),
			"LeadingZero":    lengthen(w.token()),
			"Shortened":      shorten(w.token()),
			"OfAnotherToken": signed + w.token()[strings.LastIndex(w.token(), "."):],
		}
	})
}

// lengthen puts a zero byte before the signature, which makes no other number.
func lengthen(token string) string {
	i := strings.LastIndex(token, ".") + 1
	s, err := base64.RawURLEncoding.DecodeString(token[i:])
	if err != nil {
		panic(err)
	}
	return token[:i] + b64("\x00"+string(s))
}

// shorten takes the last byte off the signature.
func shorten(token string) string {
	i := strings.LastIndex(token, ".") + 1
	s, err := base64.RawURLEncoding.DecodeString(token[i:])
	if err != nil {
		panic(err)
	}
	return token[:i] + b64(string(s[:len(s)-1]))
}

func signWith(t *testing.T, alg jose.SignatureAlgorithm, key any, payload string) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: oidctest.KeyID(ours)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestHeaderBringsNoKey(t *testing.T) {
	refusedCold(t, "is not taken", func(w *world) map[string]string {
		jwk := jose.JSONWebKey{Key: &theirs.PublicKey, KeyID: oidctest.KeyID(ours), Algorithm: "RS256", Use: "sig"}
		rows := map[string]string{}
		for name, h := range map[string]map[string]any{
			"JKU":       {"jku": "https://evil.example/jwks"},
			"JKUOfOurs": {"jku": github + "/.well-known/jwks"},
			"JKUNull":   {"jku": nil},
			"JWK":       {"jwk": jwk},
			"X5U":       {"x5u": "https://evil.example/cert.pem"},
			"X5C":       {"x5c": []string{"MIIB"}},
			"Crit":      {"crit": []string{"exp"}},
			"CritEmpty": {"crit": []string{}},
			"B64":       {"b64": false, "crit": []string{"b64"}},
			"B64Alone":  {"b64": false},
		} {
			rows[name+" ByThem"] = sign(theirs, head(h), w.payload(nil))
			rows[name+" ByUs"] = w.headed(head(h))
		}
		return rows
	})
	refusedCold(t, "header typ", func(w *world) map[string]string {
		return map[string]string{
			"AccessToken": w.headed(head(map[string]any{"typ": "at+jwt"})),
			"LogoutToken": w.headed(head(map[string]any{"typ": "logout+jwt"})),
			"Number":      w.headed(head(map[string]any{"typ": 1})),
		}
	})
	inWorld(t, func(w *world) {
		w.verify(w.headed(head(map[string]any{"typ": removed{}})))
		w.verify(w.headed(head(map[string]any{"typ": "jwt", "x5t": "t", "new": []any{1}})))
	})
}

func TestKeyIDIsLookedUpAndNothingElse(t *testing.T) {
	refusedCold(t, "header kid is missing or not of its form", func(w *world) map[string]string {
		rows := map[string]string{}
		for name, kid := range map[string]any{
			"Missing": removed{}, "Empty": "", "Null": nil, "Number": 1, "Array": []string{oidctest.KeyID(ours)},
			"Object": map[string]string{"kid": oidctest.KeyID(ours)}, "Space": " " + oidctest.KeyID(ours),
			"NUL": oidctest.KeyID(ours) + "\x00", "Line": oidctest.KeyID(ours) + "\n", "Unicode": "k\u00e9y",
			"Long": strings.Repeat("k", 129), "VeryLong": strings.Repeat("k", 4000),
		} {
			rows[name] = w.headed(head(map[string]any{"kid": kid}))
		}
		return rows
	})
	refusedWarm(t, "issuer has no key of that id", func(w *world) map[string]string {
		rows := map[string]string{}
		for name, kid := range map[string]string{
			"PathTraversal": "../../../../dev/null", "URL": "https://evil.example/key", "SQL": "x'OR'1'='1", "Shell": "$(id)",
			"UpperCase": strings.ToUpper(oidctest.KeyID(ours)), "Prefix": oidctest.KeyID(ours)[:42], "Suffix": oidctest.KeyID(ours) + "x",
			"Index": "0", "Theirs": oidctest.KeyID(theirs), "Pointer": "#/keys/0",
		} {
			rows[name] = w.headed(head(map[string]any{"kid": kid}))
		}
		return rows
	})
}

func TestFormIsCheckedBeforeAnythingIsDecoded(t *testing.T) {
	refusedCold(t, "longer than 8192 bytes", func(w *world) map[string]string {
		return map[string]string{
			"MillionDots":     strings.Repeat(".", 1_000_000),
			"HugePayload":     sign(ours, goodHeader, w.payload(map[string]any{"x": strings.Repeat("x", 1<<20)})),
			"HugeHeader":      w.headed(head(map[string]any{"x": strings.Repeat("x", 1<<20)})),
			"HugeSignature":   b64(goodHeader) + "." + b64(w.payload(nil)) + "." + strings.Repeat("A", 10<<20),
			"OneByteTooMany":  w.token() + strings.Repeat("A", 8193-len(w.token())),
			"DotsWithinToken": strings.Repeat("a.", 5000),
		}
	})
	refusedCold(t, "not of three segments", func(w *world) map[string]string {
		signed := w.token()[:strings.LastIndex(w.token(), ".")]
		return map[string]string{
			"Empty": "", "OneDot": ".", "ThreeDots": "...", "EightThousandDots": strings.Repeat(".", 8192),
			"Word": "token", "TwoSegments": signed, "FourSegments": w.token() + ".x", "TrailingDot": w.token() + ".", "LeadingDot": "." + w.token(),
			"Encrypted":        b64(`{"alg":"RSA-OAEP","enc":"A256GCM"}`) + ".a.b.c.d",
			"JSONForm":         `{"payload":"` + b64(w.payload(nil)) + `","protected":"` + b64(goodHeader) + `","signature":"eA"}`,
			"TwoTokens":        w.token() + "," + w.token(),
			"OperatorsToken":   "garo_op_" + strings.Repeat("x", 43),
			"NotEvenPrintable": strings.Repeat("\x00", 8192),
		}
	})
	refusedCold(t, "line breaks", func(w *world) map[string]string {
		return map[string]string{
			"Within": w.token()[:9] + "\n" + w.token()[9:], "AtTheEnd": w.token() + "\n", "Return": "\r" + w.token(), "Both": w.token() + "\r\n",
		}
	})
	refusedCold(t, "is not base64url", func(w *world) map[string]string {
		good := w.token()
		head, rest, _ := strings.Cut(good, ".")
		return map[string]string{
			"Padded":       head + "=." + rest,
			"PaddedEnd":    good + "==",
			"StandardPlus": head + "." + "+" + rest,
			"Slash":        head + "/." + rest,
			"Space":        " " + good,
			"Tab":          good + "\t",
			"Unicode":      "\uff45" + good,
			"Bearer":       "Bearer " + good,
			"OneCharacter": "A." + rest,
			"SpareBits":    spareBit(good),
		}
	})
}

// spareBit sets a bit of the last character that no byte of the signature has: a
// reader that does not look sees the same token.
func spareBit(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(token) - 1
	return token[:last] + string(alphabet[strings.IndexByte(alphabet, token[last])|1])
}

func TestJSONHasOneReading(t *testing.T) {
	// change returns good with the first old replaced, and fails if there is none.
	change := func(good, old, new string) string {
		out := strings.Replace(good, old, new, 1)
		if out == good {
			t.Fatalf("no %s in %s", old, good)
		}
		return out
	}
	refusedCold(t, "header is not a JSON object with each name once", func(w *world) map[string]string {
		rows := map[string]string{}
		for name, h := range map[string]string{
			"AlgTwice":    change(goodHeader, `{`, `{"alg":"none",`),
			"AlgLast":     change(goodHeader, `}`, `,"alg":"none"}`),
			"AlgEscaped":  change(goodHeader, `{`, `{"\u0061lg":"none",`),
			"KidTwice":    change(goodHeader, `{`, `{"kid":"x",`),
			"SameTwice":   change(goodHeader, `{`, `{"alg":"RS256",`),
			"Nothing":     "",
			"Array":       "[" + goodHeader + "]",
			"String":      `"RS256"`,
			"Null":        "null",
			"Trailing":    goodHeader + "{}",
			"TrailingNUL": goodHeader + "\x00",
			"BOM":         "\ufeff" + goodHeader,
			"NotUTF8":     change(goodHeader, `{`, "{\"x\":\"\xff\","),
			"UTF16":       "\xfe\xff\x00{\x00}",
			"Comma":       change(goodHeader, `}`, `,}`),
			"Comment":     change(goodHeader, `{`, `{/**/`),
			"Open":        strings.TrimSuffix(goodHeader, "}"),
			"SingleQuote": strings.ReplaceAll(goodHeader, `"`, `'`),
		} {
			rows[name] = w.headed(h)
		}
		return rows
	})
	refusedCold(t, "payload is not a JSON object with each name once", func(w *world) map[string]string {
		good := w.payload(nil)
		rows := map[string]string{}
		for name, p := range map[string]string{
			"IssTwice":    change(good, `{`, `{"iss":"https://evil.example",`),
			"IssLast":     change(good, `"workflow_sha"`, `"iss":"https://evil.example","workflow_sha"`),
			"IssEscaped":  change(good, `{`, `{"\u0069ss":"https://evil.example",`),
			"IDTwice":     change(good, `{`, `{"repository_id":"1002",`),
			"SameTwice":   change(good, `{`, `{"repository_id":"1001",`),
			"ExpTwice":    change(good, `{`, `{"exp":99999999999,`),
			"UnknownName": change(good, `{`, `{"x":1,"x":2,`),
			"Nothing":     "",
			"Array":       "[" + good + "]",
			"Number":      "1",
			"Null":        "null",
			"Trailing":    good + good,
			"NotUTF8":     change(good, `{`, "{\"x\":\"\xc3\x28\","),
			"NotUTF8Name": change(good, `{`, "{\"\xff\":1,"),
			"Open":        strings.TrimSuffix(good, "}"),
			"NaN":         change(good, `{`, `{"x":NaN,`),
			"LeadingZero": change(good, `{`, `{"x":01,`),
			"Compressed":  "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff",
		} {
			rows[name] = sign(ours, goodHeader, p)
		}
		return rows
	})
	refusedCold(t, "claim iss", func(w *world) map[string]string {
		return map[string]string{
			"Empty":      sign(ours, goodHeader, "{}"),
			"DeepArrays": sign(ours, goodHeader, `{"x":`+strings.Repeat("[", 2500)+strings.Repeat("]", 2500)+`}`),
			"DeepObject": sign(ours, goodHeader, `{"x":`+strings.Repeat(`{"a":`, 900)+"1"+strings.Repeat("}", 900)+`}`),
			"ManyNames":  sign(ours, goodHeader, `{`+manyNames(700)+`}`),
			"ManyZeros":  sign(ours, goodHeader, `{"x":[0`+strings.Repeat(",0", 2500)+`]}`),
		}
	})
}

func manyNames(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(`"%d":1`, i)
	}
	return strings.Join(names, ",")
}

func TestKeyOfAnotherIssuerIsNoKey(t *testing.T) {
	inWorld(t, func(w *world) {
		const other = "https://ghes.example.org/_services/token"
		theirKeys, err := oidctest.New(oidctest.Config{URL: "https://keys.example.org", Key: theirs})
		if err != nil {
			w.Fatal(err)
		}
		w.hosts["keys.example.org"] = theirKeys
		w.verifier = w.trust(oidc.Issuer{URL: github}, oidc.Issuer{URL: other, JWKS: "https://keys.example.org/.well-known/jwks"})
		w.prefetch()
		theirHeader := head(map[string]any{"kid": oidctest.KeyID(theirs)})
		if c := w.verify(w.token()); c.Issuer != github {
			w.Errorf("issuer = %s, want %s", c.Issuer, github)
		}
		if c := w.verify(sign(theirs, theirHeader, w.payload(map[string]any{"iss": other}))); c.Issuer != other {
			w.Errorf("issuer = %s, want %s", c.Issuer, other)
		}
		w.refused(sign(theirs, theirHeader, w.payload(nil)), "issuer has no key of that id")
		w.refused(sign(theirs, goodHeader, w.payload(nil)), "signature is not by the issuer's key")
		w.refused(sign(ours, goodHeader, w.payload(map[string]any{"iss": other})), "issuer has no key of that id")
		w.fetched(2)
	})
}
