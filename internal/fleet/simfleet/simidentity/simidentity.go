// Package simidentity signs instance identity documents as AWS does, with a key of its
// own, for machines that are simulated. Whatever is to believe them has to trust its
// certificate, which no program of production does.
package simidentity

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
)

// Signer signs in place of AWS. It is safe for concurrent use.
type Signer struct {
	Key *rsa.PrivateKey
	// Certificate is its certificate, in DER.
	Certificate []byte
}

// New makes a signer, with a key that nobody else has. That takes a tenth of a second.
func New() *Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // 2048 bits are enough for it
	}
	// In a simulation it is the year 2000; nobody looks at the dates of a certificate that is pinned.
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err) // the template has all that it takes
	}
	return &Signer{key, der}
}

// Own is the signer of this process.
var Own = sync.OnceValue(New)

// PEM is the certificate.
func (s *Signer) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate}))
}

// Trust trusts what s signs, in AWS's regions, and nothing else.
func (s *Signer) Trust() identity.Trust { return identity.Only(s.PEM()) }

// Sign returns the message about a machine that the instance metadata service has.
func (s *Signer) Sign(d identity.Document) string { return Encode(s.Message(Content(d))) }

// Content is a document as AWS writes it, with more than we read.
func Content(d identity.Document) []byte {
	content, err := json.MarshalIndent(struct {
		identity.Document
		Architecture    string   `json:"architecture"`
		BillingProducts []string `json:"billingProducts"` // null, as AWS writes none
		KernelID        *string  `json:"kernelId"`
		PrivateIP       string   `json:"privateIp"`
		Version         string   `json:"version"`
	}{d, "x86_64", nil, nil, "10.0.0.209", "2017-09-30"}, "", "  ")
	if err != nil {
		panic(err) // strings always marshal
	}
	return content
}

// Encode returns a message as the instance metadata service has it: base64, in lines.
func Encode(message []byte) string {
	var lines []string
	for line := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(message)), 76) {
		lines = append(lines, string(line))
	}
	return strings.Join(lines, "\n")
}

// Message signs content, in the form that AWS's messages have: BER with indefinite
// lengths, the content in pieces, no certificate.
func (s *Signer) Message(content []byte) []byte {
	return Signed(content, nil, s.SignerInfo(content))
}

// Signed is a message with these certificates and signers.
func Signed(content, certificates []byte, signers ...[]byte) []byte {
	parts := [][]byte{{0x02, 0x01, 0x01}, DER(0x31, sha256ID), BER(0x30, data, BER(0xa0, BER(0x24, DER(0x04, content))))}
	if certificates != nil {
		parts = append(parts, BER(0xa0, certificates))
	}
	return BER(0x30, signedData, BER(0xa0, BER(0x30, append(parts, DER(0x31, signers...))...)))
}

// SignerInfo is what s says of content.
func (s *Signer) SignerInfo(content []byte) []byte {
	sum := sha256.Sum256(content)
	return s.SignerInfoOf(
		DER(0x30, contentType, DER(0x31, data)),
		DER(0x30, signingTime, DER(0x31, DER(0x17, []byte("210903212547Z")))),
		DER(0x30, messageDigest, DER(0x31, DER(0x04, sum[:]))),
	)
}

// SignerInfoOf is the signature of attributes.
func (s *Signer) SignerInfoOf(attributes ...[]byte) []byte {
	sum := sha256.Sum256(DER(0x31, attributes...))
	signature, err := rsa.SignPKCS1v15(nil, s.Key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err) // the key is large enough for the digest
	}
	issuer := DER(0x30, DER(0x30), []byte{0x02, 0x01, 0x01})
	return DER(0x30, []byte{0x02, 0x01, 0x01}, issuer, sha256ID, DER(0xa0, attributes...), sha256WithRSA, DER(0x04, signature))
}

// Object identifiers, whole, and identifiers of algorithms.
var (
	data          = []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01}
	signedData    = []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02}
	contentType   = []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03}
	messageDigest = []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04}
	signingTime   = []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x05}
	sha256ID      = []byte{0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00}
	sha256WithRSA = []byte{0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00}
)

// DER is an element of a definite length.
func DER(tag byte, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	n := len(body)
	switch {
	case n < 1<<7:
		return append([]byte{tag, byte(n)}, body...)
	case n < 1<<8:
		return append([]byte{tag, 0x81, byte(n)}, body...)
	}
	return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, body...)
}

// BER is an element of an indefinite length.
func BER(tag byte, parts ...[]byte) []byte {
	return slices.Concat([]byte{tag, 0x80}, slices.Concat(parts...), []byte{0, 0})
}
