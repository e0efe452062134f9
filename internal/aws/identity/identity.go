// Package identity reads AWS's word for an instance: the instance identity document
// that AWS signs, as the instance metadata service has it at
// /latest/dynamic/instance-identity/rsa2048.
//
// It promises that a document which it returns was signed, whole and as it is, with
// the key of the certificate that AWS publishes for one region. What the message says
// of certificates, and anything beside it, counts for nothing. It allocates no more
// than a few times the size of the message, which is bounded.
//
// rsa2048.json has the certificates by region, as of November 2026: those of "RSA-2048"
// in the EC2 User Guide, AWS public certificates for instance identity document
// signatures
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/regions-certs.html). Nothing but
// a change of that file changes whom a program of ours trusts.
package identity

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// MaxSize is how many characters a message may have: AWS's have 2,000, and would have
// 4,000 with a certificate inside.
const MaxSize = 8 << 10

// bits is the only size of key that is believed, as the name of the item says.
const bits = 2048

// Document is what AWS says of an instance: what we read of it.
type Document struct {
	AccountID    string `json:"accountId"`
	Region       string `json:"region"`
	InstanceID   string `json:"instanceId"`
	ImageID      string `json:"imageId"`
	InstanceType string `json:"instanceType"`
}

// Trust says whose signature counts in which region. The zero value trusts nobody. It
// is safe for concurrent use.
type Trust struct{ certificates map[string]string } // PEM, by region

//go:embed rsa2048.json
var published []byte

var ofAWS = sync.OnceValue(func() map[string]string {
	var all map[string]string
	if err := json.Unmarshal(published, &all); err != nil {
		panic("rsa2048.json: " + err.Error()) // a test reads it
	}
	return all
})

// AWS is the trust of production: the certificates that AWS publishes, and no others.
func AWS() Trust { return Trust{ofAWS()} }

// Regions returns the regions for which AWS publishes a certificate, sorted.
func Regions() []string { return slices.Sorted(maps.Keys(ofAWS())) }

// Only trusts one certificate, in PEM, in every region that AWS has: what vouches for
// machines that are none of AWS's.
func Only(certificate string) Trust {
	all := map[string]string{}
	for region := range ofAWS() {
		all[region] = certificate
	}
	return Trust{all}
}

// Has reports whether a machine in a region can be vouched for.
func (t Trust) Has(region string) bool { return t.certificates[region] != "" }

// Verify returns the document inside a message, in base64 as the instance metadata
// service has it, that was signed for a region. Any error means that AWS did not say
// so.
func (t Trust) Verify(region, message string) (Document, error) {
	d, err := t.verify(region, message)
	if err != nil {
		return Document{}, fmt.Errorf("verify instance identity document: %w", err)
	}
	return d, nil
}

func (t Trust) verify(region, text string) (d Document, err error) {
	switch {
	case text == "":
		return d, errors.New("there is none")
	case len(text) > MaxSize:
		return d, fmt.Errorf("it has %d characters, and at most %d are read", len(text), MaxSize)
	}
	key, err := t.key(region)
	if err != nil {
		return d, err
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text) // which passes over ends of lines
	if err != nil {
		return d, errors.New("it is not base64")
	}
	m, err := parse(raw)
	if err != nil {
		return d, err
	}
	sum := sha256.Sum256(m.signed)
	if rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], m.signature) != nil {
		return d, fmt.Errorf("it is not signed with AWS's certificate of %s", region)
	}
	if err := json.Unmarshal(m.content, &d); err != nil {
		return d, errors.New("what is signed is no document")
	}
	return d, nil
}

// key returns the key of a region's certificate. It is pinned, so that its dates and
// what it may be used for do not count: some of AWS's say nothing of the latter.
func (t Trust) key(region string) (*rsa.PublicKey, error) {
	text := t.certificates[region]
	if text == "" {
		return nil, fmt.Errorf("AWS publishes no certificate for the region %.32q that this version has", region)
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("the certificate of %s is not PEM", region)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the certificate of %s: %w", region, err)
	}
	key, ok := certificate.PublicKey.(*rsa.PublicKey)
	if !ok || key.N.BitLen() != bits {
		return nil, fmt.Errorf("the certificate of %s has no RSA key of %d bits", region, bits)
	}
	return key, nil
}
