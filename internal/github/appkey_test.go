package github_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
)

// The App's key, and the one that it had before; of the least length that is
// allowed.
var firstKey, secondKey = newKey(), newKey()

func newKey() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	return k
}

func pkcs1(k *rsa.PrivateKey) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}))
}

func pkcs8(k any) string {
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
}

func TestKeyThatIsNoneMakesNoCallAndIsNotShown(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := pkcs1(firstKey)
	body := strings.Split(good, "\n")[1]
	for name, key := range map[string]string{
		"Empty":      "",
		"Token":      "canary-ghp",
		"NotRSA":     pkcs8(ec),
		"PublicKey":  string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&firstKey.PublicKey)})),
		"WrongType":  strings.ReplaceAll(good, "RSA PRIVATE", "CANARY"),
		"WrongForm":  strings.ReplaceAll(good, "RSA PRIVATE", "PRIVATE"),
		"Truncated":  good[:len(good)/2],
		"Damaged":    strings.Replace(good, body, strings.ToLower(body), 1),
		"TextBehind": good + "canary",
		"TwoKeys":    good + good,
	} {
		t.Run(name, func(t *testing.T) {
			s, p := withApp(t, simgithub.Config{})
			p.set(account, keyName, key)
			creds, _ := holding(t, s.Handler(), appCredential, p)
			_, err := creds.Token(t.Context(), repo.Access())
			failed(t, "Token", err, github.ErrDenied)
			if !strings.Contains(err.Error(), keyName) || key != "" && strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), body) {
				t.Errorf("Token = %v, want the parameter's name and nothing of what it holds", err)
			}
			if len(s.Calls()) != 0 {
				t.Errorf("calls = %v, want none", s.Calls())
			}
		})
	}
}

func TestProofIsTakenWhenClocksDiffer(t *testing.T) {
	for off, want := range map[time.Duration]bool{-8 * time.Minute: true, 0: true, 59 * time.Second: true, 2 * time.Minute: false, -10 * time.Minute: false} {
		s, p := withApp(t, simgithub.Config{})
		creds, err := github.NewCredentials(github.CredentialsConfig{
			BaseURL: "https://github.test", HTTP: memhttp.Client(s.Handler()), Account: registered(appCredential), Parameter: p.get,
			Now: func() time.Time { return time.Now().Add(off) },
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := creds.Token(t.Context(), repo.Access()); (err == nil) != want {
			t.Errorf("Token with a clock %v ahead of GitHub's: %v, want success: %v", off, err, want)
		}
	}
}
