package github

import (
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// Proof returns the token by which the App of that number proves itself for nine minutes
// from now. The error says nothing of the key.
func Proof(app int64, key secret.Text, now time.Time) (secret.Text, error) {
	return sign(app, key, now)
}
