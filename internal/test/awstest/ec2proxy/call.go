package ec2proxy

import (
	"cmp"
	"fmt"
	"net/url"
	"path"
	"slices"
	"time"
)

// Call is one call that arrived.
type Call struct {
	Service string // such as ec2
	Action  string // such as RunInstances
	Account string // of the credentials
	Region  string // of the signature
	// Params are those of the query protocols, as they arrive: Filter.1.Name.
	Params url.Values
	Body   string // of the JSON protocols
	// Session is the role session of the credentials; zero: they are none that was
	// taken on by way of the proxy.
	Session Session
	At      time.Time
	// Answer is the error code that was answered; empty: none, or not yet; Lost: the
	// caller was left without an answer.
	Answer string

	accessKey string
	target    string // of the JSON protocols
}

// Lost stands for an answer that never reached the caller.
const Lost = "lost"

// Rule makes the calls that match it go another way. Of several, the one that was
// added first is used.
type Rule struct {
	// Action, Account and Region are what matches; empty: any.
	Action, Account, Region string
	// Params are patterns, as of path.Match, that parameters must have: InstanceType
	// c7g.*. An empty one wants its parameter absent.
	Params map[string]string
	Times  int // how many calls; 0: every one until the rule is removed

	Wait time.Duration // before anything else happens
	// Do is called then, before the call has an effect; it may take its time.
	Do func(Call)
	// Code is the error to answer; empty: none. It comes before the call has any
	// effect, unless After or Late says otherwise.
	Code   string
	Status int // of the error; 0: as EC2 has it for the code
	// Message is what the error says; empty: that it is by a rule.
	Message string
	// After lets the call take effect before Code is answered or, without Code,
	// before the connection is cut without an answer: the caller cannot know.
	After bool
	// Reset is After without a byte of an answer, as when the connection was
	// forgotten while nobody used it: package awshttp makes such a call again if it
	// was not the first one of its connection.
	Reset bool
	// Late is After for RunInstances, but the instance is launched only by
	// TakeEffect, or by the next call that has its client token.
	Late bool
}

// check refuses a rule that could not do what it says.
func (r *Rule) check() error {
	for name, pattern := range r.Params {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("rule for %s: parameter %s: pattern %q: %w", r.Action, name, pattern, err)
		}
	}
	if r.Late && r.Action != "RunInstances" {
		return fmt.Errorf("rule for %q: only RunInstances can take effect late", r.Action)
	}
	return nil
}

func (r *Rule) matches(c *Call) bool {
	if r.Action != "" && r.Action != c.Action || r.Account != "" && r.Account != c.Account || r.Region != "" && r.Region != c.Region {
		return false
	}
	for name, pattern := range r.Params {
		ok, _ := path.Match(pattern, c.Params.Get(name)) // checked when it was added
		if pattern == "" && c.Params.Has(name) || pattern != "" && !(ok && c.Params.Has(name)) {
			return false
		}
	}
	return true
}

// outcome returns the error that a call gets before it has any effect, and the one
// after that; nil: none.
func (r *Rule) outcome() (before *refusal, after error) {
	if r.Code != "" {
		before = &refusal{r.Code, cmp.Or(r.Message, "by a rule of the test"), r.Status}
	}
	switch {
	case !r.After && !r.Late && !r.Reset:
		return before, nil
	case before != nil:
		return nil, before
	}
	return nil, lostError{silent: r.Reset}
}

// Add puts a rule behind those that there are, and returns what removes it.
// It panics on a rule that could not do what it says.
func (p *Proxy) Add(r Rule) (remove func()) {
	if err := r.check(); err != nil {
		panic(err)
	}
	own := &r
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, own)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.rules = slices.DeleteFunc(p.rules, func(r *Rule) bool { return r == own })
	}
}

// rule returns the rule for a call, or an empty one.
func (p *Proxy) rule(c *Call) Rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range p.rules {
		if !r.matches(c) {
			continue
		}
		used := *r
		if r.Times == 1 {
			p.rules = slices.Delete(p.rules, i, i+1)
		} else if r.Times > 1 {
			r.Times--
		}
		return used
	}
	return Rule{}
}

// Calls returns what arrived so far, in that order: of the named actions, or of
// all.
func (p *Proxy) Calls(actions ...string) []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Call
	for _, c := range p.calls {
		if len(actions) == 0 || slices.Contains(actions, c.Action) {
			all = append(all, *c)
		}
	}
	return all
}
