package terraformtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// list is what IAM writes as one string or as several.
type list []string

func (l *list) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*l = list{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(l))
}

// policy is an IAM policy, as far as ours use its grammar
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html).
// Anything else in one is an error, so that nothing is evaluated half.
type policy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Sid       string
	Effect    string
	Principal principal
	Action    list
	Resource  list
	Condition map[string]map[string]list
}

// principal is everybody, or services and roles.
type principal struct {
	Everybody    bool
	Service, AWS list
}

func (p *principal) UnmarshalJSON(b []byte) error {
	if string(b) == `"*"` {
		p.Everybody = true
		return nil
	}
	var named struct{ Service, AWS list }
	if err := strict(b, &named); err != nil {
		return err
	}
	p.Service, p.AWS = named.Service, named.AWS
	return nil
}

func strict(b []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

func parsePolicy(b []byte) (policy, error) {
	var p policy
	if err := strict(b, &p); err != nil {
		return policy{}, err
	}
	if p.Version != "2012-10-17" || len(p.Statement) == 0 {
		return policy{}, fmt.Errorf("version %q with %d statements: want 2012-10-17 and at least one", p.Version, len(p.Statement))
	}
	for _, s := range p.Statement {
		if s.Effect != "Allow" && s.Effect != "Deny" || len(s.Action) == 0 {
			return policy{}, fmt.Errorf("statement %q: effect %q of %q", s.Sid, s.Effect, s.Action)
		}
		for operator := range s.Condition {
			if operators[strings.TrimSuffix(strings.TrimPrefix(operator, "ForAllValues:"), "IfExists")] == nil {
				return policy{}, fmt.Errorf("statement %q: operator %s is not known here", s.Sid, operator)
			}
		}
	}
	return p, nil
}

// call is one thing that somebody wants to do to one resource. A call of the API
// can be several: RunInstances is asked for each thing that it takes or makes.
type call struct {
	action, resource string
	keys             map[string][]string // condition keys; a key that is absent is not in the request
	principal        string              // of trust and resource policies
}

// with returns the call with a condition key changed; no value: without it.
func (c call) with(key string, values ...string) call {
	keys := map[string][]string{}
	maps.Copy(keys, c.keys)
	keys[key] = values
	if len(values) == 0 {
		delete(keys, key)
	}
	c.keys = keys
	return c
}

func (c call) on(resource string) call {
	c.resource = resource
	return c
}

func (c call) to(action string) call {
	c.action = action
	return c
}

// matches is IAM's pattern: * is any text and ? one character.
func matches(pattern, text string) bool {
	// path.Match stops at slashes and knows brackets; neither means anything to IAM.
	swap := strings.NewReplacer("/", "\x01", "[", "\x02", "]", "\x03", `\`, "\x04")
	ok, err := path.Match(swap.Replace(pattern), swap.Replace(text))
	return ok && err == nil
}

// operators compare one value of the request with one of the policy
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html).
var operators = map[string]func(want, got string) bool{
	"StringEquals":  func(want, got string) bool { return want == got },
	"StringLike":    matches,
	"StringNotLike": matches, // see holds
	"ArnEquals":     matches,
	"Bool":          strings.EqualFold,
	"NumericEquals": func(want, got string) bool {
		w, err := strconv.ParseFloat(want, 64)
		g, err2 := strconv.ParseFloat(got, 64)
		return err == nil && err2 == nil && w == g
	},
	"NumericLessThanEquals": func(want, got string) bool {
		w, err := strconv.ParseFloat(want, 64)
		g, err2 := strconv.ParseFloat(got, 64)
		return err == nil && err2 == nil && g <= w
	},
	"Null": func(want, got string) bool { return want == got },
}

func (s statement) holds(c call) bool {
	for operator, keys := range s.Condition {
		name, all := strings.CutPrefix(operator, "ForAllValues:")
		name, ifExists := strings.CutSuffix(name, "IfExists")
		compare := operators[name]
		for key, wants := range keys {
			got, there := c.keys[key]
			if name == "Null" {
				got, there = []string{strconv.FormatBool(!there)}, true
			}
			fits := func(g string) bool { return slices.ContainsFunc(wants, func(w string) bool { return compare(w, g) }) }
			switch {
			case name == "StringNotLike": // holds for none of the values, and where there is none
				if slices.ContainsFunc(got, func(g string) bool { return slices.ContainsFunc(wants, func(w string) bool { return matches(w, g) }) }) {
					return false
				}
			case all: // holds for no value too
				if slices.ContainsFunc(got, func(g string) bool { return !fits(g) }) {
					return false
				}
			case ifExists && !there:
			case !there || !slices.ContainsFunc(got, fits):
				return false
			}
		}
	}
	return true
}

// applies reports whether a statement is about the call. A trust policy's has no
// resource, and an identity policy's no principal.
func (s statement) applies(c call) bool {
	like := func(patterns list, text string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, text) })
	}
	return slices.ContainsFunc(s.Action, func(a string) bool { return matches(strings.ToLower(a), strings.ToLower(c.action)) }) &&
		(len(s.Resource) == 0 || like(s.Resource, c.resource)) &&
		(s.Principal.Everybody || len(s.Principal.AWS)+len(s.Principal.Service) == 0 && c.principal == "" ||
			slices.Contains(slices.Concat(s.Principal.AWS, s.Principal.Service), c.principal) && c.principal != "") &&
		s.holds(c)
}

// allows is IAM's decision: no deny, and at least one allow.
func (p policy) allows(c call) bool {
	allowed := false
	for _, s := range p.Statement {
		if s.applies(c) {
			if s.Effect == "Deny" {
				return false
			}
			allowed = true
		}
	}
	return allowed
}

// The evaluation is IAM's: each row was checked against its documents.
func TestPolicyEvaluation(t *testing.T) {
	const resource = "arn:aws:ec2:eu-west-2:1:instance/i-1"
	one := call{action: "ec2:TerminateInstances", resource: resource, keys: map[string][]string{"k": {"v"}}}
	for _, c := range []struct {
		name, statement string
		call            call
		want            bool
	}{
		{"Exact", `{"Effect":"Allow","Action":"ec2:TerminateInstances","Resource":"` + resource + `"}`, one, true},
		{"ActionInAnotherCase", `{"Effect":"Allow","Action":"EC2:terminateinstances","Resource":"*"}`, one, true},
		{"ActionByPattern", `{"Effect":"Allow","Action":["s3:*","ec2:Term*"],"Resource":"*"}`, one, true},
		{"OtherAction", `{"Effect":"Allow","Action":"ec2:RunInstances","Resource":"*"}`, one, false},
		{"PatternOverSlashes", `{"Effect":"Allow","Action":"*","Resource":"arn:aws:ec2:*"}`, one, true},
		{"BracketsAreNoPattern", `{"Effect":"Allow","Action":"*","Resource":"arn:aws:ec2:eu-west-2:1:instance/[ij]-1"}`, one, false},
		{"QuestionMarkIsOneCharacter", `{"Effect":"Allow","Action":"*","Resource":"arn:aws:ec2:eu-west-?:1:instance/i-1"}`, one, true},
		{"OtherResource", `{"Effect":"Allow","Action":"*","Resource":"arn:aws:ec2:eu-west-2:1:volume/*"}`, one, false},
		{"ConditionHolds", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"k":["u","v"]}}}`, one, true},
		{"ConditionFails", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"k":"V"}}}`, one, false},
		{"AbsentKeyFails", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringLike":{"other":"*"}}}`, one, false},
		{"EveryKeyCounts", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"k":"v","other":"x"}}}`, one, false},
		{"EveryOperatorCounts", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"k":"v"},"StringLike":{"k":"w*"}}}`, one, false},
		{"NullWantsAbsence", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Null":{"other":"true"}}}`, one, true},
		{"NullFindsPresence", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Null":{"k":"true"}}}`, one, false},
		{"AllValues", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"ForAllValues:StringLike":{"k":"v*"}}}`, one.with("k", "v1", "v2"), true},
		{"OneOfAllValuesFails", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"ForAllValues:StringLike":{"k":"v*"}}}`, one.with("k", "v1", "w"), false},
		{"AllOfNoValues", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"ForAllValues:StringLike":{"k":"v*"}}}`, one.with("k"), true},
		{"Number", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"NumericEquals":{"k":"1"}}}`, one.with("k", "1.0"), true},
		{"OtherNumber", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"NumericEquals":{"k":"1"}}}`, one.with("k", "2"), false},
		{"AtMost", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"NumericLessThanEquals":{"k":"8"}}}`, one.with("k", "8"), true},
		{"AboveTheMost", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"NumericLessThanEqualsIfExists":{"k":"8"}}}`, one.with("k", "9"), false},
		{"AbsentIfExists", `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"NumericLessThanEqualsIfExists":{"k":"8"}}}`, one.with("k"), true},
		{"DenyWins", `{"Effect":"Deny","Action":"*","Resource":"*"},{"Effect":"Allow","Action":"*","Resource":"*"}`, one, false},
		{"PrincipalNamed", `{"Effect":"Allow","Action":"*","Principal":{"AWS":["a","b"]}}`, call{action: "sts:AssumeRole", principal: "b"}, true},
		{"PrincipalNotNamed", `{"Effect":"Allow","Action":"*","Principal":{"AWS":"a"}}`, call{action: "sts:AssumeRole", principal: "c"}, false},
		{"PrincipalEverybody", `{"Effect":"Allow","Action":"*","Principal":"*"}`, call{action: "sts:AssumeRole", principal: "c"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := parsePolicy([]byte(`{"Version":"2012-10-17","Statement":[` + c.statement + `]}`))
			if err != nil {
				t.Fatal(err)
			}
			if got := p.allows(c.call); got != c.want {
				t.Errorf("allows(%+v) = %t, want %t", c.call, got, c.want)
			}
		})
	}
	for name, text := range map[string]string{
		"UnknownOperator": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringNotEquals":{"k":"v"}}}]}`,
		"NotAction":       `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","NotAction":"*","Resource":"*"}]}`,
		"NoEffect":        `{"Version":"2012-10-17","Statement":[{"Action":"*","Resource":"*"}]}`,
		"OldVersion":      `{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`,
	} {
		if _, err := parsePolicy([]byte(text)); err == nil {
			t.Errorf("%s: parsePolicy = nil, want an error", name)
		}
	}
}
