package bootstrap

import (
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form/formtest"
)

func TestFormsAreTheirRegularExpressions(t *testing.T) {
	formtest.Same(t, "API", isAPI, `\Ahttps?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/?\z`)
	formtest.Same(t, "Runner", runnerForm.Fits, `\A[a-z0-9-]{1,64}\z`)
	formtest.Same(t, "KeyID", keyIDForm.Fits, `\A[a-z0-9]{1,16}\z`)
	formtest.Same(t, "Token", tokenForm.Fits, `\A[A-Za-z0-9_-]{1,128}\z`)
}
