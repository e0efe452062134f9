package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
)

// ownTag reports whether a key is one of those that GARO sets, or may come to set.
func ownTag(key string) bool {
	return key == "Name" || strings.HasPrefix(strings.ToLower(key), "garo:")
}

// What EC2 lets a tag have
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions).
// Of its characters these are what every service of AWS takes.
var (
	tagKeyForm   = form.Form{{Of: tagText, Min: 1, Max: 128}}
	tagValueForm = form.Form{{Of: tagText, Max: 256}}
)

const tagText = form.Letter + form.Digit + "  ++--==..__::/@"

// maxTags leaves room for GARO's own five among the fifty that EC2 lets a resource have.
const maxTags = 40

// CheckTags returns why tags cannot be a request's or a registration's; nil: they can.
func CheckTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return fmt.Errorf("%d tags: want at most %d", len(tags), maxTags)
	}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		if err := checkTagKey(k); err != nil {
			return err
		}
		if !tagValueForm.Fits(tags[k]) {
			return fmt.Errorf("the value of %q: want at most 256 letters, digits, spaces and + - = . _ : / @", k)
		}
	}
	return nil
}

func checkTagKey(k string) error {
	switch {
	case !tagKeyForm.Fits(k):
		return fmt.Errorf("key %.140q: want 1 to 128 letters, digits, spaces and + - = . _ : / @", k)
	case ownTag(k):
		return fmt.Errorf("key %q: GARO sets this one itself", k)
	case strings.HasPrefix(strings.ToLower(k), "aws:"):
		return fmt.Errorf("key %q: keys in aws: are for AWS", k)
	}
	return nil
}
