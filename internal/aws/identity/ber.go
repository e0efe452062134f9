package identity

import (
	"bytes"
	"slices"
)

// Tags of BER (ITU-T X.690) that a message has.
const (
	tagInteger  = 0x02
	tagOctets   = 0x04
	tagNull     = 0x05
	tagOID      = 0x06
	tagSequence = 0x30
	tagSet      = 0x31
	tagContext0 = 0xa0
	tagContext1 = 0xa1

	constructed = 0x20
	manyBytes   = 0x1f // the tag's number is in the bytes that follow
	indefinite  = 0x80 // two bytes of zero mark the end
)

const (
	// maxDepth is far more than a message has: six levels, and four more in the names
	// of a certificate.
	maxDepth = 16
	// maxLength is of how many bytes a length may be: two are enough for a message.
	maxLength = 3
)

// element is one element of BER.
type element struct {
	whole      []byte // from its tag to its end
	body       []byte
	indefinite bool
}

// next reads the first element of b. ok is false if there is none that is whole. It
// looks at each byte once for each level of indefinite length, and allocates nothing.
func next(b []byte, depth int) (e element, ok bool) {
	if len(b) < 2 || depth > maxDepth || b[0] == 0 || b[0]&manyBytes == manyBytes {
		return e, false
	}
	if b[1] == indefinite {
		return until(b, depth)
	}
	length, at := int(b[1]), 2
	if length > indefinite {
		n := length - indefinite
		if n > maxLength || len(b) < at+n {
			return e, false
		}
		length = 0
		for _, x := range b[at : at+n] {
			length = length<<8 | int(x)
		}
		at += n
	}
	if length > len(b)-at {
		return e, false
	}
	return element{whole: b[:at+length], body: b[at : at+length]}, true
}

// until is next of an element whose length is indefinite.
func until(b []byte, depth int) (e element, ok bool) {
	if b[0]&constructed == 0 {
		return e, false
	}
	for at := 2; len(b)-at >= 2; {
		if b[at] == 0 && b[at+1] == 0 {
			return element{whole: b[:at+2], body: b[2:at], indefinite: true}, true
		}
		in, ok := next(b[at:], depth+1)
		if !ok {
			return e, false
		}
		at += len(in.whole)
	}
	return e, false
}

// reader takes the elements of b, in order. Once one is not as it has to be, bad is
// true, and nothing is taken any more.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) done() bool { return len(r.b) == 0 }

// end says that nothing follows.
func (r *reader) end() { r.bad = r.bad || !r.done() }

// take takes an element that has a tag.
func (r *reader) take(tag byte) element {
	e, ok := next(r.b, 0)
	if r.bad || !ok || r.b[0] != tag {
		r.bad = true
		return element{}
	}
	r.b = r.b[len(e.whole):]
	return e
}

// in takes an element, and reads what is in it. It is bad if the element is.
func (r *reader) in(tag byte) reader {
	e := r.take(tag)
	return reader{b: e.body, bad: r.bad}
}

// skip takes an element if the next one has that tag.
func (r *reader) skip(tag byte) {
	if !r.done() && r.b[0] == tag {
		r.take(tag)
	}
}

// oid takes an object identifier, which has to be one of ids.
func (r *reader) oid(ids ...[]byte) {
	e := r.take(tagOID)
	r.bad = r.bad || !slices.ContainsFunc(ids, func(id []byte) bool { return bytes.Equal(id, e.body) })
}

// algorithm takes the identifier of an algorithm, which has to be one of ids, without
// parameters. It reports whether it is.
func (r *reader) algorithm(ids ...[]byte) bool {
	a := r.in(tagSequence)
	a.oid(ids...)
	if !a.done() {
		a.bad = len(a.take(tagNull).body) > 0 || a.bad
	}
	a.end()
	r.bad = r.bad || a.bad
	return !r.bad
}

// octets takes a string of octets, which BER may have cut into pieces.
func (r *reader) octets() []byte {
	if r.done() || r.b[0] != tagOctets|constructed {
		return r.take(tagOctets).body
	}
	pieces := r.in(tagOctets | constructed)
	all := make([]byte, 0, len(pieces.b))
	for !pieces.bad && !pieces.done() {
		all = append(all, pieces.take(tagOctets).body...)
	}
	r.bad = r.bad || pieces.bad
	return all
}
