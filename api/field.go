package api

import (
	"slices"
	"strings"
	"unicode"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The forms of what a caller may say. All are ASCII: what only looks like an
// allowed name is refused, and nothing is repaired.
var (
	ownerForm    = form.Form{{Of: alnum, Min: 1, Max: 1}, {Of: base64url, Max: 99}}
	repoForm     = form.Form{{Of: alnum, Min: 1, Max: 1}, {Of: base64url, Max: 99}, {Text: "/", Of: base64url + "..", Min: 1, Max: 100}}
	regionWord   = form.Form{{Of: form.Lower, Min: 1, Max: 16}}
	regionNumber = form.Form{{Of: form.Digit, Min: 1, Max: 2}}
	typeForm     = form.Form{{Of: words, Min: 1, Max: 32}, {Text: ".", Of: words, Min: 1, Max: 32}}
	amiForm      = form.Form{{Text: "ami-", Of: form.Lower + form.Digit, Min: 1, Max: 40}}
	pathForm     = form.Form{{Text: "/", Of: base64url + "..//", Min: 1, Max: 255}}
	subnetForm   = form.Form{{Text: "subnet-", Of: words, Min: 1, Max: 40}}
	groupForm    = form.Form{{Text: "sg-", Of: words, Min: 1, Max: 40}}
	keyForm      = form.Form{{Of: "!~", Min: 1, Max: 128}}
	instanceForm = form.Form{{Text: "i-", Of: words, Min: 1, Max: 40}}
	secretForm   = form.Form{{Of: base64url, Min: 1, Max: 128}}
	bootForm     = form.Form{{Of: base64url, Min: 43, Max: 43}} // an HMAC-SHA-256 in base64, as package keys makes it
	sessionForm  = form.Form{{Text: keys.SessionPrefix, Of: base64url, Min: 43, Max: 43}}
	nonceForm    = form.Form{{Of: base64url, Min: 26, Max: 128}} // 26 of base32 are 128 bits
	lockForm     = form.Form{{Of: words + "..__,,:://", Min: 1}} // what store.Request.LockKey is made of
	archForm     = form.Form{{Of: form.Lower + form.Digit, Min: 1, Max: 16}}
	eventForm    = form.Form{{Of: form.Lower + "__", Min: 1, Max: 64}}
	shownForm    = form.Form{{Of: base64url + "..", Min: 1, Max: 64}}
	cursorForm   = form.Form{
		{Of: form.Digit, Min: 4, Max: 4}, {Text: "-", Of: form.Digit, Min: 2, Max: 2}, {Text: "-", Of: form.Digit, Min: 2, Max: 2},
		{Text: "T", Of: form.Digit, Min: 2, Max: 2}, {Text: ":", Of: form.Digit, Min: 2, Max: 2}, {Text: ":", Of: form.Digit, Min: 2, Max: 2},
		{Text: ".", Of: form.Digit, Min: 9, Max: 9}, {Text: "Z#", Of: form.Lower + "27", Min: 26, Max: 26},
	}
)

const (
	alnum     = form.Letter + form.Digit
	base64url = alnum + "__--"
	words     = form.Lower + form.Digit + "--"
)

func isImage(s string) bool { return amiForm.Fits(s) || pathForm.Fits(s) }

// isRegion reports whether s is two to five words with hyphens between them, the last
// of them one or two digits.
func isRegion(s string) bool {
	parts := strings.Split(s, "-")
	last := len(parts) - 1
	return 1 <= last && last <= 4 && len(parts[0]) >= 2 && regionNumber.Fits(parts[last]) &&
		!slices.ContainsFunc(parts[:last], func(s string) bool { return !regionWord.Fits(s) })
}

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
		fits        func(string) bool
		want        string
	}{
		{"repo", b.Repo, repoForm.Fits, "Want owner/name."},
		{"account_id", b.AccountID, form.AWSAccount.Fits, "Want the twelve digits of an AWS account."},
		{"region", b.Region, isRegion, "Want the name of an AWS region, such as eu-west-2."},
		{"image_id", b.ImageID, isImage, "Want ami-… or the path of an SSM parameter."},
		{"idempotency_key", b.IdempotencyKey, keyForm.Fits, "Want at most 128 printable ASCII characters, no space."},
	} {
		if f.value != "" && !f.fits(f.value) {
			return nil, invalid(f.name, "%s", f.want)
		}
	}
	if b.Type != "" && b.Type != store.Spot && b.Type != store.OnDemand {
		return nil, invalid("type", "Want spot or ondemand.")
	}
	if b.Mode != "" && b.Mode != store.Shared && b.Mode != store.Ephemeral {
		return nil, invalid("mode", "Want shared or ephemeral.")
	}
	if err := checkMachine(b); err != nil {
		return nil, err
	}
	if b.Timeout < 0 || b.Timeout > maxSeconds {
		return nil, invalid("timeout", "Want 1 to %d seconds.", maxSeconds)
	}
	if b.GiveUp < 0 || b.GiveUp > maxSeconds {
		return nil, invalid("give_up", "Want 1 to %d seconds.", maxSeconds)
	}
	return checkLabels(b.Labels)
}

// checkMachine refuses what a body says of the machine and cannot be meant.
func checkMachine(b apitype.Start) error {
	for _, err := range []error{
		checkList("instance_types", b.InstanceTypes, typeForm, store.MaxPlacements, "Want instance types such as m7i.large."),
		checkList("subnets", b.Subnets, subnetForm, maxNetworks, "Want subnet-…"),
		checkList("security_groups", b.SecurityGroups, groupForm, maxNetworks, "Want sg-…"),
	} {
		if err != nil {
			return err
		}
	}
	if len(b.Regions) > 0 && b.Region != "" {
		return invalid("regions", "Name region or regions, not both.")
	}
	if slices.ContainsFunc(b.Regions, func(s string) bool { return !isRegion(s) }) {
		return invalid("regions", "Want names of AWS regions, such as eu-west-2.")
	}
	if len(b.Regions) > store.MaxRegions || len(slices.Compact(slices.Sorted(slices.Values(b.Regions)))) < len(b.Regions) {
		return invalid("regions", "Name at most %d, each once.", store.MaxRegions)
	}
	if b.RootVolumeGB < 0 || b.RootVolumeGB > store.MaxVolumeGB {
		return invalid("root_volume_gb", "Want 1 to %d GiB.", store.MaxVolumeGB)
	}
	if field, err := machineOf(b).CheckRequires(); err != nil {
		return invalid(field, "Wrong: %v.", err)
	}
	if err := store.CheckTags(b.Tags); err != nil {
		return invalid("tags", "Wrong: %v.", err)
	}
	return nil
}

// checkList refuses a list that is too long, or has a value of another form, or twice.
func checkList(name string, values []string, f form.Form, most int, want string) error {
	if len(values) > most {
		return invalid(name, "Name at most %d.", most)
	}
	for i, v := range values {
		if !f.Fits(v) {
			return invalid(name, "%s", want)
		}
		if slices.Contains(values[:i], v) {
			return invalid(name, "Name each once.")
		}
	}
	return nil
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
