// Package keys derives everything secret from the control plane's keys: request
// ids, own labels, boot, session and status tokens, and the seals of configs and of
// external ids.
// Each use has a prefix of its own in what is signed, so that no value can stand
// for another. Nothing that is derived needs to be stored.
//
// There are two kinds of key. The id key is never rotated: request ids and own
// labels must come out the same next year, and open nothing. The others are
// rotated: the current one signs, and an older one is kept until nothing names
// it any more.
package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// The prefixes that tell bearer tokens apart.
const (
	OperatorPrefix = "garo_op_"
	StatusPrefix   = "garo_st_"
	SessionPrefix  = "garo_s_"
)

// MinLen is the least length of a key, in bytes: that of the HMAC's output.
const MinLen = 32

// Ring is the control plane's keys. It is safe for concurrent use.
type Ring struct {
	id      []byte
	current string
	byID    map[string][]byte
}

// NewRing returns a ring of the id key and the rotated keys by key id, of which
// current signs. Key ids are 1 to 16 of a-z and 0-9.
func NewRing(id secret.Text, current string, byID map[string]secret.Text) (*Ring, error) {
	r := &Ring{id: []byte(id.Reveal()), current: current, byID: map[string][]byte{}}
	if len(r.id) < MinLen {
		return nil, fmt.Errorf("id key: %d bytes, want at least %d", len(r.id), MinLen)
	}
	for kid, k := range byID {
		if kid == "" || len(kid) > 16 || strings.Trim(kid, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return nil, fmt.Errorf("key id %q: want 1 to 16 of a-z and 0-9", kid)
		}
		if len(k.Reveal()) < MinLen {
			return nil, fmt.Errorf("key %s: %d bytes, want at least %d", kid, len(k.Reveal()), MinLen)
		}
		r.byID[kid] = []byte(k.Reveal())
	}
	if r.byID[current] == nil {
		return nil, fmt.Errorf("current key %q is not among the keys", current)
	}
	return r, nil
}

// Current returns the id of the key that new machines and tokens are made with.
func (r *Ring) Current() string { return r.current }

// Has reports whether the ring has the key of that id.
func (r *Ring) Has(kid string) bool { return r.byID[kid] != nil }

// ErrUnknownKey is answered for a key id that the ring does not have, or no
// longer has.
var ErrUnknownKey = errors.New("key id is not known")

// mac signs the use and the fields. Each field has its length before it, so
// that no two lists of fields sign alike.
func mac(key []byte, use string, fields ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, f := range append([]string{use}, fields...) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(f)))
		h.Write(n[:])
		h.Write([]byte(f))
	}
	return h.Sum(nil)
}

func (r *Ring) macBy(kid, use string, fields ...string) ([]byte, error) {
	key, ok := r.byID[kid]
	if !ok {
		return nil, fmt.Errorf("key %q: %w", kid, ErrUnknownKey)
	}
	return mac(key, use, fields...), nil
}

var name = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// IDLen is the length of the ids of requests and runners: 128 bits in base32.
const IDLen = 26

// short returns the first 128 bits of sum as 26 characters of a-z and 2-7.
func short(sum []byte) string { return name.EncodeToString(sum[:16]) }

// NewID returns a random id in the form of all ids, 128 bits from random.
func NewID(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("random id: %w", err)
	}
	return short(b[:]), nil
}

// ValidID reports whether s has the form of an id.
func ValidID(s string) bool {
	if len(s) != IDLen {
		return false
	}
	b, err := name.DecodeString(s)
	return err == nil && short(b) == s
}

// RequestID returns the id of the request that one caller makes with one
// idempotency key: anyone who repeats the call finds the same record.
func (r *Ring) RequestID(repositoryID, runID, runAttempt, checkRunID, idempotencyKey string) string {
	return short(mac(r.id, "garo/request/1", repositoryID, runID, runAttempt, checkRunID, idempotencyKey))
}

// JobRequestID returns the id of the request for a workflow job, by its repository's Key
// and GitHub's number of the job: everyone who learns of the job finds the same record.
func (r *Ring) JobRequestID(repositoryKey, job string) string {
	return short(mac(r.id, "garo/job/1", repositoryKey, job))
}

// OwnLabel returns the label that only the runners of a lock key have.
func (r *Ring) OwnLabel(lockKey string) string {
	return "garo-" + short(mac(r.id, "garo/label/1", lockKey))
}

// Boot returns T: what the machine of a runner and placement index proves itself
// with, once.
func (r *Ring) Boot(kid, runner string, index int) (secret.Text, error) {
	sum, err := r.macBy(kid, "garo/boot/1", runner, strconv.Itoa(index))
	return secret.New(base64.RawURLEncoding.EncodeToString(sum)), err
}

// HashNonce returns the form in which a machine's nonce is stored: SHA-256, hex.
func HashNonce(nonce string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(nonce))) }

// Session returns S, the bearer token of a machine that has booted with the
// nonce of that hash.
func (r *Ring) Session(kid, runner, nonceHash string) (secret.Text, error) {
	sum, err := r.macBy(kid, "garo/session/1", runner, nonceHash)
	return secret.New(SessionPrefix + base64.RawURLEncoding.EncodeToString(sum)), err
}

// Status returns a token that reads and stops one request until a time.
func (r *Ring) Status(request string, until time.Time) secret.Text {
	exp := strconv.FormatInt(until.Unix(), 10)
	sum := mac(r.byID[r.current], "garo/status/1", request, exp)
	return secret.New(StatusPrefix + r.current + "." + exp + "." + base64.RawURLEncoding.EncodeToString(sum))
}

// StatusOpens reports whether token is a status token for the request at now.
func (r *Ring) StatusOpens(token, request string, now time.Time) bool {
	kid, rest, ok := strings.Cut(strings.TrimPrefix(token, StatusPrefix), ".")
	exp, _, ok2 := strings.Cut(rest, ".")
	until, err := strconv.ParseInt(exp, 10, 64)
	if !ok || !ok2 || err != nil || !strings.HasPrefix(token, StatusPrefix) {
		return false
	}
	sum, err := r.macBy(kid, "garo/status/1", request, exp)
	want := secret.New(StatusPrefix + kid + "." + exp + "." + base64.RawURLEncoding.EncodeToString(sum))
	return err == nil && want.Equal(token) && now.Before(time.Unix(until, 0))
}

// HashToken returns the form in which operators' tokens are kept, and in which
// any token may be logged: SHA-256, hex.
func HashToken(token string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(token))) }

func (r *Ring) aead(kid, runner string) (cipher.AEAD, error) {
	return r.aeadOf(kid, "garo/seal/1", runner)
}

func (r *Ring) aeadOf(kid, use, name string) (cipher.AEAD, error) {
	key, err := r.macBy(kid, use, name)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Seal encrypts a config for the record of a runner (AES-256-GCM): readers of
// the table cannot use it, and it opens for this runner and number alone.
func (r *Ring) Seal(random io.Reader, kid, runner string, n int, config secret.Text) (string, error) {
	aead, err := r.aead(kid, runner)
	if err != nil {
		return "", fmt.Errorf("seal config %d of runner %s: %w", n, runner, err)
	}
	sealed, err := seal(random, aead, config, strconv.Itoa(n))
	if err != nil {
		return "", fmt.Errorf("seal config %d of runner %s: %w", n, runner, err)
	}
	return sealed, nil
}

// seal encrypts text, which opens with the same words alone.
func seal(random io.Reader, aead cipher.AEAD, text secret.Text, with string) (string, error) {
	nonce := make([]byte, aead.NonceSize())
	if _, err := io.ReadFull(random, nonce); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(aead.Seal(nonce, nonce, []byte(text.Reveal()), []byte(with))), nil
}

// Open is the inverse of Seal.
func (r *Ring) Open(kid, runner string, n int, sealed string) (secret.Text, error) {
	aead, err := r.aead(kid, runner)
	if err != nil {
		return secret.Text{}, fmt.Errorf("open config %d of runner %s: %w", n, runner, err)
	}
	text, err := open(aead, sealed, strconv.Itoa(n))
	if err != nil {
		return secret.Text{}, fmt.Errorf("open config %d of runner %s: %w", n, runner, err)
	}
	return text, nil
}

// open is the inverse of seal.
func open(aead cipher.AEAD, sealed, with string) (secret.Text, error) {
	b, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil || len(b) < aead.NonceSize() {
		return secret.Text{}, errors.New("not sealed by GARO")
	}
	plain, err := aead.Open(nil, b[:aead.NonceSize()], b[aead.NonceSize():], []byte(with))
	return secret.New(string(plain)), err
}

// SealExternalID encrypts the external id of an account's role for the record of the
// account, as Seal does configs: it opens for this account alone.
func (r *Ring) SealExternalID(random io.Reader, kid, account string, id secret.Text) (string, error) {
	var sealed string
	aead, err := r.aeadOf(kid, "garo/external-id/1", account)
	if err == nil {
		sealed, err = seal(random, aead, id, "")
	}
	if err != nil {
		return "", fmt.Errorf("seal the external id of account %s: %w", account, err)
	}
	return sealed, nil
}

// OpenExternalID is the inverse of SealExternalID.
func (r *Ring) OpenExternalID(kid, account, sealed string) (secret.Text, error) {
	var id secret.Text
	aead, err := r.aeadOf(kid, "garo/external-id/1", account)
	if err == nil {
		id, err = open(aead, sealed, "")
	}
	if err != nil {
		return secret.Text{}, fmt.Errorf("open the external id of account %s: %w", account, err)
	}
	return id, nil
}
