package ec2proxy

import (
	"context"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Role is what the trust policy of a role demands.
type Role struct {
	ExternalID string // empty: none
	// SourceIdentity is the pattern of those that may be set, with * for any
	// characters; empty: none, since a trust policy must allow it.
	SourceIdentity string
}

// Session is a role that was taken on by way of the proxy.
type Session struct {
	RoleARN        string
	Account        string // of the role
	Name           string
	ExternalID     string // as sent
	SourceIdentity string // it stays the same through all roles that are taken on from here
	Policy         string // as sent; empty: none
	Duration       time.Duration
	Expires        time.Time

	policy policy
}

const (
	// chained is the longest session of a role that another role takes on, and of
	// roles for which nobody set more.
	// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
	chained  = time.Hour
	shortest = 15 * time.Minute
	longest  = 12 * time.Hour
	// maxPolicy is the most characters of a session policy.
	maxPolicy = 2048
)

var (
	roleARN = regexp.MustCompile(`^arn:aws[a-z-]*:iam::(\d{12}):role/[\w+=,.@/-]+$`)
	name64  = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

	accessKeyID = regexp.MustCompile(`<AccessKeyId>(\w+)</AccessKeyId>`)
)

// assumeRole refuses what STS refuses, and remembers the session.
func (p *Proxy) assumeRole(ctx context.Context, c *Call, who caller) (answer, error) {
	s, r := p.session(c, who)
	if r != nil {
		return answer{}, r
	}
	a, err := p.forward(ctx, c, c.Params)
	if err != nil || a.status != http.StatusOK {
		return a, err
	}
	m := accessKeyID.FindSubmatch(a.body)
	if m == nil {
		return answer{}, refuse("InternalFailure", "moto answered without credentials")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions[string(m[1])] = s
	return a, nil
}

// session is what an AssumeRole asks for, if it may be had.
func (p *Proxy) session(c *Call, who caller) (Session, *refusal) {
	s, r := parseSession(c)
	if r == nil {
		r = s.check(who)
	}
	if r != nil {
		return Session{}, r
	}
	s.Expires = c.At.Add(s.Duration)
	if s.Policy != "" {
		var err error
		if s.policy, err = parsePolicy(s.Policy); err != nil {
			return Session{}, refuse("MalformedPolicyDocument", "%v", err)
		}
	}
	if !s.inherit(c.Session.SourceIdentity) || !p.trusts(s) {
		return Session{}, refuse("AccessDenied", "User: %s is not authorized to perform: sts:AssumeRole on resource: %s", who.arn, s.RoleARN)
	}
	return s, nil
}

// parseSession reads the parameters of an AssumeRole.
func parseSession(c *Call) (Session, *refusal) {
	s := Session{
		RoleARN:        c.Params.Get("RoleArn"),
		Name:           c.Params.Get("RoleSessionName"),
		ExternalID:     c.Params.Get("ExternalId"),
		SourceIdentity: c.Params.Get("SourceIdentity"),
		Policy:         c.Params.Get("Policy"),
		Duration:       time.Hour,
	}
	m := roleARN.FindStringSubmatch(s.RoleARN)
	if m == nil {
		return Session{}, refuse("ValidationError", "%s is invalid", s.RoleARN)
	}
	s.Account = m[1]
	if text := c.Params.Get("DurationSeconds"); text != "" {
		n, err := strconv.Atoi(text)
		if s.Duration = time.Duration(n) * time.Second; err != nil || s.Duration < shortest || s.Duration > longest {
			return Session{}, refuse("ValidationError", "value '%s' at 'durationSeconds' failed to satisfy constraint: between 900 and 43200", text)
		}
	}
	return s, nil
}

// check holds a session to the limits of STS.
func (s Session) check(who caller) *refusal {
	switch {
	case s.Duration > chained && strings.Contains(who.arn, ":assumed-role/"):
		return refuse("ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	case s.Duration > chained:
		return refuse("ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	case !name64.MatchString(s.Name):
		return refuse("ValidationError", "value '%s' at 'roleSessionName' failed to satisfy constraint", s.Name)
	case s.SourceIdentity != "" && !name64.MatchString(s.SourceIdentity):
		return refuse("ValidationError", "value '%s' at 'sourceIdentity' failed to satisfy constraint", s.SourceIdentity)
	case len(s.Policy) > maxPolicy:
		return refuse("ValidationError", "value at 'policy' failed to satisfy constraint: at most %d characters", maxPolicy)
	}
	return nil
}

// inherit takes on the source identity of the session that asks; empty: it has none.
// It reports false if another one was asked for.
func (s *Session) inherit(was string) bool {
	if was == "" {
		return true
	}
	if s.SourceIdentity != "" && s.SourceIdentity != was {
		return false
	}
	s.SourceIdentity = was
	return true
}

// trusts reports whether the trust policy of a session's role lets it begin.
func (p *Proxy) trusts(s Session) bool {
	if p.cfg.Roles == nil {
		return true
	}
	role, ok := p.cfg.Roles[s.RoleARN]
	if !ok || role.ExternalID != "" && s.ExternalID != role.ExternalID {
		return false
	}
	return s.SourceIdentity == "" || like(role.SourceIdentity, s.SourceIdentity)
}

// permits refuses a call with credentials that are over, or whose session policy
// does not allow it.
func (s Session) permits(c *Call) *refusal {
	expired, denied := refuse("ExpiredToken", "The security token included in the request is expired"), refuse("AccessDenied", "")
	switch c.Service {
	case "ec2":
		expired, denied.code = refuse("RequestExpired", "Request has expired."), "UnauthorizedOperation"
	case "sts":
	default:
		expired.code, denied.code = "ExpiredTokenException", "AccessDeniedException"
	}
	if !s.Expires.IsZero() && !c.At.Before(s.Expires) {
		return expired
	}
	action := c.Service + ":" + c.Action
	// https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html: nobody can be denied it.
	if s.Policy != "" && action != "sts:GetCallerIdentity" && !s.policy.allows(action) {
		denied.text = "You are not authorized to perform this operation: no session policy allows the " + action + " action"
		return denied
	}
	return nil
}

// Sessions returns the roles that were taken on so far, in no order.
func (p *Proxy) Sessions() []Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Session
	for _, s := range p.sessions {
		all = append(all, s)
	}
	return all
}
