package ec2proxy

import (
	"encoding/json"
	"fmt"
	"strings"
)

// policy is a session policy, as far as actions go: resources and conditions are
// not looked at, so that it allows too much rather than too little.
type policy struct{ Statement []statement }

type statement struct {
	Effect    string
	Action    words
	NotAction words
	Condition json.RawMessage
}

// words is one string, or a list of them.
type words []string

func (w *words) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*w = words{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(w))
}

// parsePolicy refuses what AWS refuses, and what allows could not decide.
func parsePolicy(text string) (policy, error) {
	var p policy
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return policy{}, fmt.Errorf("decode policy: %w", err)
	}
	if len(p.Statement) == 0 {
		return policy{}, fmt.Errorf("policy has no statement")
	}
	for i, s := range p.Statement {
		switch {
		case s.Effect != "Allow" && s.Effect != "Deny":
			return policy{}, fmt.Errorf("statement %d: effect %q is neither Allow nor Deny", i, s.Effect)
		case len(s.NotAction) > 0 || len(s.Action) == 0:
			return policy{}, fmt.Errorf("statement %d: want Action; this stand-in does not know NotAction", i)
		}
	}
	return p, nil
}

// allows reports whether an action, such as ec2:RunInstances, is allowed and not
// denied. A denial under a condition is passed over.
func (p policy) allows(action string) bool {
	allowed := false
	for _, s := range p.Statement {
		for _, pattern := range s.Action {
			if !like(strings.ToLower(pattern), strings.ToLower(action)) {
				continue
			}
			if s.Effect == "Allow" {
				allowed = true
			} else if len(s.Condition) == 0 {
				return false
			}
		}
	}
	return allowed
}

// like reports whether text matches a pattern where * is any characters and ? is one.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_action.html
func like(pattern, text string) bool {
	for pattern != "" {
		switch {
		case pattern[0] == '*':
			for i := 0; i <= len(text); i++ {
				if like(pattern[1:], text[i:]) {
					return true
				}
			}
			return false
		case text == "" || pattern[0] != '?' && pattern[0] != text[0]:
			return false
		}
		pattern, text = pattern[1:], text[1:]
	}
	return text == ""
}
