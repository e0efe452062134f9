package ssmparam

import (
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form/formtest"
)

func TestFormIsItsRegularExpression(t *testing.T) {
	formtest.Same(t, "Operator", operatorForm.Fits, `\A[A-Za-z0-9@._-]{1,64}\z`)
}
