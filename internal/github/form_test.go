package github

import (
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form/formtest"
)

func TestFormsAreTheirRegularExpressions(t *testing.T) {
	formtest.Same(t, "ID", ids.Fits, `^[1-9][0-9]{0,17}$`)
	formtest.Same(t, "Version", versionForm.Fits, `^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$`)
	formtest.Same(t, "Words", words.Fits, `^[a-z/=_.~-]+$`)
}
