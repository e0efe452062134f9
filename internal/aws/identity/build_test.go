package identity_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
)

// What messages are made of when they are made otherwise than AWS does.

var (
	sha256OID    = []byte{0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01}
	sha512OID    = []byte{0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03}
	sha1ID       = simidentity.DER(0x30, []byte{0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00})
	sha256ID     = simidentity.DER(0x30, sha256OID, []byte{5, 0})
	withRSA      = simidentity.DER(0x30, oidRSA(0x0b), []byte{5, 0})
	oidDataWhole = oidData(1)
	version      = []byte{2, 1, 1}
)

// oidRSA is an algorithm of PKCS #1.
func oidRSA(n byte) []byte {
	return []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, n}
}

// oidData is a kind of content of PKCS #7.
func oidData(n byte) []byte {
	return []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, n}
}

// attribute is one of PKCS #9.
func attribute(n byte, values ...[]byte) []byte {
	return simidentity.DER(0x30, []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, n}, simidentity.DER(0x31, values...))
}

func kindOf(oid []byte) []byte { return attribute(3, oid) }

func digestOf(content []byte) []byte {
	sum := sha256.Sum256(content)
	return attribute(4, simidentity.DER(4, sum[:]))
}

func twoDigests(a, b []byte) []byte {
	x, y := sha256.Sum256(a), sha256.Sum256(b)
	return attribute(4, simidentity.DER(4, x[:]), simidentity.DER(4, y[:]))
}

// withContent is the part of a message that has the content.
func withContent(octets []byte) []byte {
	return simidentity.BER(0x30, oidDataWhole, simidentity.BER(0xa0, octets))
}

// message is a message with such a part.
func message(content []byte, signers ...[]byte) []byte {
	return simidentity.BER(0x30, oidData(2), simidentity.BER(0xa0, simidentity.BER(0x30, version, simidentity.DER(0x31, sha256ID), content, simidentity.DER(0x31, signers...))))
}

// definite is a message in DER.
func definite(content []byte, signers ...[]byte) []byte {
	der := simidentity.DER
	return der(0x30, oidData(2), der(0xa0, der(0x30, version, der(0x31, sha256ID), der(0x30, oidDataWhole, der(0xa0, der(4, content))), der(0x31, signers...))))
}

// long is an element whose length has a byte more than it needs.
func long(tag byte, body []byte) []byte {
	return append([]byte{tag, 0x83, 0, byte(len(body) >> 8), byte(len(body))}, body...)
}

// signerOf puts a signer together.
func signerOf(attributes, signature []byte) []byte {
	return simidentity.DER(0x30, version, simidentity.DER(0x30, simidentity.DER(0x30), version), sha256ID, attributes, withRSA, simidentity.DER(4, signature))
}

// bare signs the content itself, without attributes.
func bare(t *testing.T, s *simidentity.Signer, content []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(content)
	signature, err := rsa.SignPKCS1v15(nil, s.Key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signerOf(nil, signature)
}

// sha1Signer signs with SHA-1, as AWS does for /latest/dynamic/instance-identity/pkcs7.
func sha1Signer(t *testing.T, s *simidentity.Signer, content []byte) []byte {
	t.Helper()
	digest := sha1.Sum(content)
	attributes := [][]byte{kindOf(oidDataWhole), attribute(4, simidentity.DER(4, digest[:]))}
	sum := sha1.Sum(simidentity.DER(0x31, attributes...))
	signature, err := rsa.SignPKCS1v15(nil, s.Key, crypto.SHA1, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	withSHA1 := simidentity.DER(0x30, oidRSA(0x05), []byte{5, 0})
	issuer := simidentity.DER(0x30, simidentity.DER(0x30), version)
	return simidentity.DER(0x30, version, issuer, sha1ID, simidentity.DER(0xa0, attributes...), withSHA1, simidentity.DER(4, signature))
}

// sha1Signed is a message that says SHA-1 throughout.
func sha1Signed(t *testing.T, s *simidentity.Signer, content []byte) []byte {
	t.Helper()
	whole := message(withContent(simidentity.DER(4, content)), sha1Signer(t, s, content))
	return bytes.Replace(whole, simidentity.DER(0x31, sha256ID), simidentity.DER(0x31, sha1ID), 1)
}

// attributesOf is the set that is signed in place of content.
func attributesOf(content []byte) []byte {
	return simidentity.DER(0x31, kindOf(oidDataWhole), digestOf(content))
}

// forged has AWS's signature of one content, and the attributes of another.
func forged(s, thief *simidentity.Signer, signed, shown []byte) []byte {
	info := s.SignerInfo(signed)
	return slices.Concat(thief.SignerInfo(shown)[:len(info)-256], info[len(info)-256:])
}

// loose has attributes of an indefinite length.
func loose(s *simidentity.Signer, content []byte) []byte {
	info := s.SignerInfo(content)
	return signerOf(simidentity.BER(0xa0, kindOf(oidDataWhole), digestOf(content)), info[len(info)-256:])
}

// cut leaves out the last byte of the signature.
func cut(info []byte) []byte {
	signature := info[len(info)-256:]
	attributes := bytes.Index(info, []byte{0xa0})
	end := bytes.Index(info, withRSA)
	return signerOf(info[attributes:end], signature[:255])
}

// behind puts something behind the signature.
func behind(info, more []byte) []byte { return simidentity.DER(0x30, info[4:], more) }

// certificateOf is a certificate of an RSA key of so many bits; 0: of another kind.
func certificateOf(t *testing.T, bits int) string {
	t.Helper()
	var key crypto.Signer
	var err error
	if bits == 0 {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		key, err = rsa.GenerateKey(rand.Reader, bits)
	}
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
