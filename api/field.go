package api

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The forms of what a caller may say. All are ASCII: what only looks like an
// allowed name is refused, and nothing is repaired.
var (
	ownerForm    = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_-]{0,99}\z`)
	repoForm     = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_-]{0,99}/[A-Za-z0-9._-]{1,100}\z`)
	accountForm  = regexp.MustCompile(`\A[0-9]{12}\z`)
	regionForm   = regexp.MustCompile(`\A[a-z]{2,16}(-[a-z]{1,16}){0,3}-[0-9]{1,2}\z`)
	typeForm     = regexp.MustCompile(`\A[a-z0-9-]{1,32}\.[a-z0-9-]{1,32}\z`)
	imageForm    = regexp.MustCompile(`\A(ami-[a-z0-9]{1,40}|/[A-Za-z0-9._/-]{1,255})\z`)
	subnetForm   = regexp.MustCompile(`\Asubnet-[a-z0-9-]{1,40}\z`)
	groupForm    = regexp.MustCompile(`\Asg-[a-z0-9-]{1,40}\z`)
	keyForm      = regexp.MustCompile(`\A[!-~]{1,128}\z`)
	instanceForm = regexp.MustCompile(`\Ai-[a-z0-9-]{1,40}\z`)
	secretForm   = regexp.MustCompile(`\A[A-Za-z0-9_-]{1,128}\z`)
	nonceForm    = regexp.MustCompile(`\A[A-Za-z0-9_-]{26,128}\z`) // 26 of base32 are 128 bits
	lockForm     = regexp.MustCompile(`\A[a-z0-9._,:/-]+\z`)       // what store.Request.LockKey is made of
	archForm     = regexp.MustCompile(`\A[a-z0-9]{1,16}\z`)
	sha256Form   = regexp.MustCompile(`\A[0-9a-f]{64}\z`)
	cursorForm   = regexp.MustCompile(`\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z#[a-z2-7]{26}\z`)
)

const (
	// maxSeconds is a day: GitHub drops a job that no runner took for so long
	// (https://docs.github.com/en/actions/reference/limits), and no machine may
	// live longer.
	maxSeconds = 86400
	// maxNetworks bounds subnets and security groups: more subnets than a region
	// has zones, more groups than an interface takes.
	maxNetworks = 16
	// maxLock bounds a lock key: sixteen labels of 64, and the rest. DynamoDB
	// takes keys of 2048 bytes.
	maxLock = 1500
)

// checkStart refuses a body of POST /start that cannot be meant, whatever the
// account allows. It returns the labels in their canonical form.
func checkStart(b apitype.Start) ([]string, error) {
	for _, f := range []struct {
		name, value string
		form        *regexp.Regexp
		want        string
	}{
		{"repo", b.Repo, repoForm, "Want owner/name."},
		{"account_id", b.AccountID, accountForm, "Want the twelve digits of an AWS account."},
		{"region", b.Region, regionForm, "Want the name of an AWS region, such as eu-west-2."},
		{"image_id", b.ImageID, imageForm, "Want ami-… or the path of an SSM parameter."},
		{"idempotency_key", b.IdempotencyKey, keyForm, "Want at most 128 printable ASCII characters, no space."},
	} {
		if f.value != "" && !f.form.MatchString(f.value) {
			return nil, invalid(f.name, "%s", f.want)
		}
	}
	if b.Type != "" && b.Type != store.Spot && b.Type != store.OnDemand {
		return nil, invalid("type", "Want spot or ondemand.")
	}
	if b.Mode != "" && b.Mode != store.Shared && b.Mode != store.Ephemeral {
		return nil, invalid("mode", "Want shared or ephemeral.")
	}
	for _, f := range []struct {
		name   string
		values []string
		form   *regexp.Regexp
		most   int
		want   string
	}{
		{"instance_types", b.InstanceTypes, typeForm, store.MaxPlacements, "Want instance types such as m7i.large."},
		{"subnets", b.Subnets, subnetForm, maxNetworks, "Want subnet-…"},
		{"security_groups", b.SecurityGroups, groupForm, maxNetworks, "Want sg-…"},
	} {
		if len(f.values) > f.most {
			return nil, invalid(f.name, "Name at most %d.", f.most)
		}
		for i, v := range f.values {
			if !f.form.MatchString(v) {
				return nil, invalid(f.name, "%s", f.want)
			}
			if slices.Contains(f.values[:i], v) {
				return nil, invalid(f.name, "It names one thing twice.")
			}
		}
	}
	if b.Timeout < 0 || b.Timeout > maxSeconds {
		return nil, invalid("timeout", "Want 1 to %d seconds.", maxSeconds)
	}
	if b.GiveUp < 0 || b.GiveUp > maxSeconds {
		return nil, invalid("give_up", "Want 1 to %d seconds.", maxSeconds)
	}
	return checkLabels(b.Labels)
}

func checkLabels(raw []string) ([]string, error) {
	if len(raw) > store.MaxLabels {
		return nil, invalid("labels", "Name at most %d.", store.MaxLabels)
	}
	for _, l := range raw {
		// Before ParseLabels lower-cases: some letters beyond ASCII are a plain
		// one in lower case, such as the Kelvin sign.
		if strings.ContainsFunc(l, func(r rune) bool { return r > unicode.MaxASCII }) {
			return nil, invalid("labels", "Labels are ASCII: a-z, 0-9, dot, underscore and hyphen.")
		}
	}
	labels, err := store.ParseLabels(raw)
	if err != nil {
		return nil, invalid("labels", "The %v.", err)
	}
	return labels, nil
}

// printable returns text that is only shown to people: what does not print, such
// as a control or bidi character, becomes a question mark, and what is longer
// than most runes is cut.
func printable(s string, most int) string {
	out := make([]rune, 0, min(len(s), most))
	for _, r := range s {
		if len(out) == most {
			break
		}
		if !unicode.IsPrint(r) {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}
