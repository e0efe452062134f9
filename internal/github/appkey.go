package github

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

const (
	// proofFrom is how far back an App's proof begins, since GitHub refuses one
	// from the future and clocks differ; proofFor is how long it lives from now, of
	// the ten minutes that GitHub allows
	// (https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app).
	proofFrom = time.Minute
	proofFor  = 9 * time.Minute
)

var errKey = errors.New("it holds no RSA private key in PEM form")

// sign returns the JSON web token that proves who the App is, signed with RS256.
func sign(app int64, key secret.Text, now time.Time) (secret.Text, error) {
	private, err := parseKey(key)
	if err != nil {
		return secret.Text{}, err
	}
	claims, err := json.Marshal(struct {
		IssuedAt int64  `json:"iat"`
		Expires  int64  `json:"exp"`
		Issuer   string `json:"iss"`
	}{now.Add(-proofFrom).Unix(), now.Add(proofFor).Unix(), strconv.FormatInt(app, 10)})
	if err != nil {
		return secret.Text{}, err
	}
	part := base64.RawURLEncoding.EncodeToString
	unsigned := part([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + part(claims)
	sum := sha256.Sum256([]byte(unsigned))
	signature, err := rsa.SignPKCS1v15(nil, private, crypto.SHA256, sum[:])
	if err != nil {
		return secret.Text{}, errKey // the key is too short to sign with
	}
	return secret.New(unsigned + "." + part(signature)), nil
}

// parseKey reads a key as GitHub hands it out (PKCS #1), or as converted (PKCS #8).
func parseKey(key secret.Text) (*rsa.PrivateKey, error) {
	block, rest := pem.Decode([]byte(key.Reveal()))
	if block == nil || strings.TrimSpace(string(rest)) != "" {
		return nil, errKey
	}
	var parsed any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	private, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, errKey
	}
	return private, nil
}
