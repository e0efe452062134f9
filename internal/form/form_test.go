package form_test

import (
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form/formtest"
)

func TestFits(t *testing.T) {
	f := form.Form{{Text: "v", Of: form.Digit, Min: 1, Max: 2}, {Text: "."}, {Of: form.Lower + "--", Min: 0}}
	for s, want := range map[string]bool{
		"v1.": true, "v12.a-b": true, "v12." + strings.Repeat("z", 1000): true,
		"": false, "v": false, "v.": false, "v123.": false, "v1": false, "v1.A": false, "v1.a\n": false, "v1.é": false, "xv1.": false, " v1.": false,
	} {
		if got := f.Fits(s); got != want {
			t.Errorf("%q fits: %v, want %v", s, got, want)
		}
	}
	if !(form.Form{}).Fits("") || (form.Form{}).Fits("a") {
		t.Error("a form without parts fits something, want nothing but the empty text")
	}
}

func TestFormsAreTheirRegularExpressions(t *testing.T) {
	formtest.Same(t, "SHA256", form.SHA256.Fits, `\A[0-9a-f]{64}\z`)
	formtest.Same(t, "GitHubID", form.GitHubID.Fits, `\A[0-9]{1,20}\z`)
	formtest.Same(t, "AWSAccount", form.AWSAccount.Fits, `\A[0-9]{12}\z`)
}

func TestFitsAllocatesNothing(t *testing.T) {
	s := strings.Repeat("a", 64)
	if n := testing.AllocsPerRun(100, func() { form.SHA256.Fits(s) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
