package api

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form/formtest"
)

func TestFormsAreTheirRegularExpressions(t *testing.T) {
	formtest.Same(t, "Owner", ownerForm.Fits, `\A[A-Za-z0-9][A-Za-z0-9_-]{0,99}\z`)
	formtest.Same(t, "Repo", repoForm.Fits, `\A[A-Za-z0-9][A-Za-z0-9_-]{0,99}/[A-Za-z0-9._-]{1,100}\z`)
	formtest.Same(t, "Region", isRegion, `\A[a-z]{2,16}(-[a-z]{1,16}){0,3}-[0-9]{1,2}\z`)
	formtest.Same(t, "Type", typeForm.Fits, `\A[a-z0-9-]{1,32}\.[a-z0-9-]{1,32}\z`)
	formtest.Same(t, "Image", isImage, `\A(ami-[a-z0-9]{1,40}|/[A-Za-z0-9._/-]{1,255})\z`)
	formtest.Same(t, "Subnet", subnetForm.Fits, `\Asubnet-[a-z0-9-]{1,40}\z`)
	formtest.Same(t, "Group", groupForm.Fits, `\Asg-[a-z0-9-]{1,40}\z`)
	formtest.Same(t, "Key", keyForm.Fits, `\A[!-~]{1,128}\z`)
	formtest.Same(t, "Instance", instanceForm.Fits, `\Ai-[a-z0-9-]{1,40}\z`)
	formtest.Same(t, "Secret", secretForm.Fits, `\A[A-Za-z0-9_-]{1,128}\z`)
	formtest.Same(t, "Nonce", nonceForm.Fits, `\A[A-Za-z0-9_-]{26,128}\z`)
	formtest.Same(t, "Lock", lockForm.Fits, `\A[a-z0-9._,:/-]+\z`)
	formtest.Same(t, "Arch", archForm.Fits, `\A[a-z0-9]{1,16}\z`)
	formtest.Same(t, "Event", eventForm.Fits, `\A[a-z_]{1,64}\z`)
	formtest.Same(t, "Shown", shownForm.Fits, `\A[A-Za-z0-9_.-]{1,64}\z`)
	formtest.Same(t, "AmazonTrace", amazonTrace.Fits, `\A1-[0-9a-f]{8}-[0-9a-f]{24}\z`)
	formtest.Same(t, "W3CTrace", w3cTrace.Fits, `\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\z`)
	formtest.Same(t, "Cursor", cursorForm.Fits, `\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z#[a-z2-7]{26}\z`)
}

// A header brings a trace if the expression for it matches, and then the one that it
// finds first.
func TestTraceIsThatOfTheRegularExpressions(t *testing.T) {
	amazon := regexp.MustCompile(`(?:\A|;)Root=(1-[0-9a-f]{8}-[0-9a-f]{24})(?:;|\z)`)
	w3c := regexp.MustCompile(`\A[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\z`)
	want := func(h http.Header) string {
		if m := amazon.FindStringSubmatch(h.Get("X-Amzn-Trace-Id")); m != nil {
			return m[1]
		}
		if m := w3c.FindStringSubmatch(h.Get("Traceparent")); m != nil {
			return m[1]
		}
		return "own"
	}
	root := rapid.StringMatching(`Root=1-[0-9a-f]{8}-[0-9a-f]{24}`)
	field := rapid.OneOf(root, root, rapid.SampledFrom([]string{"", " ", ";", "Root=", "Root=1-", "Self=1", "a", "\n", "é"}))
	parent := rapid.OneOf(rapid.StringMatching(`[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}`), rapid.StringMatching(`[0-9a-g]{2,3}-[0-9a-f]{31,32}-?[0-9a-f]{16}-[0-9a-fA]{2}`))
	brought := 0
	rapid.Check(t, func(t *rapid.T) {
		h := http.Header{}
		h.Set("X-Amzn-Trace-Id", strings.Join(rapid.SliceOfN(field, 0, 3).Draw(t, "fields"), rapid.SampledFrom([]string{";", ";", ""}).Draw(t, "between")))
		h.Set("Traceparent", parent.Draw(t, "parent"))
		if w := want(h); traceOf(h, "own") != w {
			t.Fatalf("trace of %v is %s, want %s", h, traceOf(h, "own"), w)
		} else if w != "own" {
			brought++
		}
	})
	if brought == 0 {
		t.Error("no header brought a trace")
	}
}
