package settings

import (
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form/formtest"
)

func TestFormsAreTheirRegularExpressions(t *testing.T) {
	formtest.Same(t, "Table", tableForm.Fits, `\A[A-Za-z0-9_.-]{3,255}\z`)
	formtest.Same(t, "Path", isPath, `\A(/[A-Za-z0-9_.-]+){1,13}\z`)
	formtest.Same(t, "ControlPlane", controlPlaneForm.Fits, `\A[a-z0-9-]{1,16}\z`)
}
