package oidc

import (
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form/formtest"
)

func TestFormsAreTheirRegularExpressions(t *testing.T) {
	formtest.Same(t, "ID", idForm.Fits, `\A[0-9]{1,20}\z`)
	formtest.Same(t, "Owner", ownerForm.Fits, `\A[A-Za-z0-9_-]{1,100}\z`)
	formtest.Same(t, "Repo", repoForm.Fits, `\A[A-Za-z0-9_-]{1,100}/[A-Za-z0-9._-]{1,100}\z`)
	formtest.Same(t, "Kid", kidForm.Fits, `\A[!-~]{1,128}\z`)
}
