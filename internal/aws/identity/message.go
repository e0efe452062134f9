package identity

import (
	"bytes"
	"crypto/sha256"
	"errors"
)

// message is a signed message (RFC 5652, SignedData) of the one form that AWS makes:
// one signer, SHA-256, and attributes that are signed in place of the content, whose
// digest is among them.
type message struct {
	content   []byte
	signed    []byte // what the signature is of: the attributes, in DER
	signature []byte
}

// Object identifiers, as BER has them.
var (
	oidData          = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01} // 1.2.840.113549.1.7.1
	oidSignedData    = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02} // 1.2.840.113549.1.7.2
	oidContentType   = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03} // 1.2.840.113549.1.9.3
	oidMessageDigest = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04} // 1.2.840.113549.1.9.4
	oidSHA256        = []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01} // 2.16.840.1.101.3.4.2.1
	oidRSA           = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01} // 1.2.840.113549.1.1.1: AWS said so in 2017
	oidSHA256WithRSA = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b} // 1.2.840.113549.1.1.11: and so since 2021
)

var (
	errShape      = errors.New("it is not one signed message of AWS's form")
	errSigners    = errors.New("it has not exactly one signer")
	errDigest     = errors.New("its digest is not SHA-256 with RSA")
	errAttributes = errors.New("it has no signed attributes, or not those of its content")
)

// parse reads a message. It believes nothing of it yet, but that the content is the one
// that the attributes name.
func parse(raw []byte) (m message, err error) {
	top := reader{b: raw}
	info := top.in(tagSequence)
	top.end()
	info.oid(oidSignedData)
	wrapped := info.in(tagContext0)
	info.end()
	data := wrapped.in(tagSequence)
	wrapped.end()
	if top.bad || info.bad || wrapped.bad {
		return m, errShape
	}
	data.take(tagInteger)
	digests := data.in(tagSet)
	if !digests.algorithm(oidSHA256) || !digests.done() {
		return m, errDigest
	}
	inner := data.in(tagSequence)
	inner.oid(oidData)
	holder := inner.in(tagContext0)
	inner.end()
	m.content = holder.octets()
	holder.end()
	data.skip(tagContext0) // certificates: whose signature counts is not theirs to say
	data.skip(tagContext1) // revocations
	signers := data.in(tagSet)
	data.end()
	if data.bad || inner.bad || holder.bad {
		return m, errShape
	}
	return m, m.signer(signers)
}

// signer reads who signed, which is one.
func (m *message) signer(signers reader) error {
	s := signers.in(tagSequence)
	if signers.end(); signers.bad {
		return errSigners
	}
	s.take(tagInteger)
	s.take(tagSequence) // the issuer and number of its certificate: the key decides
	if s.bad {
		return errShape
	}
	if !s.algorithm(oidSHA256) {
		return errDigest
	}
	attributes := s.take(tagContext0)
	if s.bad || attributes.indefinite {
		return errAttributes
	}
	if !s.algorithm(oidRSA, oidSHA256WithRSA) {
		return errDigest
	}
	m.signature = s.take(tagOctets).body
	if s.end(); s.bad {
		return errShape
	}
	// Signed is the set, and not the field of the signer that holds it (RFC 5652, 5.4).
	m.signed = append([]byte{tagSet}, attributes.whole[1:]...)
	return m.names(attributes.body)
}

// names reports whether the attributes are of this content: its kind and its digest
// are there, each once.
func (m *message) names(attributes []byte) error {
	sum := sha256.Sum256(m.content)
	kinds, sums := 0, 0
	for all := (reader{b: attributes}); !all.done(); {
		one := all.in(tagSequence)
		name := one.take(tagOID).body
		values := one.in(tagSet)
		one.end()
		if all.bad || one.bad || values.bad {
			return errAttributes
		}
		switch {
		case bytes.Equal(name, oidContentType):
			kinds++
			values.oid(oidData)
		case bytes.Equal(name, oidMessageDigest):
			sums++
			if digest := values.take(tagOctets); !bytes.Equal(digest.body, sum[:]) {
				return errAttributes
			}
		default:
			continue
		}
		if values.end(); values.bad {
			return errAttributes
		}
	}
	if kinds != 1 || sums != 1 {
		return errAttributes
	}
	return nil
}
