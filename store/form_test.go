package store

import (
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form/formtest"
)

func TestFormsAreTheirRegularExpressions(t *testing.T) {
	formtest.Same(t, "Host", isHost, `\A[a-z0-9.-]{1,253}(:[0-9]{1,5})?\z`)
	formtest.Same(t, "Label", labelForm.Fits, `\A[a-z0-9._-]{1,64}\z`)
	formtest.Same(t, "Variable", variableForm.Fits, `\A[A-Za-z_][A-Za-z0-9_]*\z`)
}
