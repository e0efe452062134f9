package ec2proxy

import (
	"net/url"
	"time"
)

// bound is how long a client token stands for its call after the instance is
// terminated, or the call failed: EC2 promises at least that.
// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
const bound = 24 * time.Hour

// scope is what a client token is unique in. Once a subnet or a zone is given,
// that is one zone.
type scope struct{ account, region, zone, token string }

// binding is what a client token stands for.
type binding struct {
	print    string // of the call
	instance string // empty: the call failed, or has not taken effect yet
	answer   []byte // of the call that launched it
	until    time.Time
	busy     chan struct{} // closed when the call that holds the token is over; nil: none does
	late     *Call         // the call, answered already, that is to take effect later
}

// fingerprint is equal for calls with equal parameters.
func fingerprint(params url.Values) string { return params.Encode() } // sorted by name

// tokens are the client tokens that were used.
type tokens map[scope]*binding

// find returns what a token stands for at a time, or nil. It refuses another call
// than the one that the token is bound to.
func (t tokens) find(s scope, print string, now time.Time) (*binding, *refusal) {
	b := t[s]
	if b == nil || !b.until.IsZero() && !now.Before(b.until) {
		return nil, nil
	}
	if b.print != print {
		return nil, refuse("IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).")
	}
	return b, nil
}

// terminated lets the token of an instance go, a day after its end.
func (t tokens) terminated(instance string, at time.Time) {
	for _, b := range t {
		if b.instance == instance && b.until.IsZero() {
			b.until = at.Add(bound)
		}
	}
}

// token64 reports whether EC2 takes a client token: at most 64 ASCII characters.
func token64(token string) bool {
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return false
		}
	}
	return len(token) <= 64
}
