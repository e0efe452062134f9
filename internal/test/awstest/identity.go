package awstest

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
)

// Trusting writes into dir what makes go build put one certificate, in PEM, in the place
// of those of AWS, and returns the flag that says so. Nothing else makes a program of
// production trust it. root is the root of the repository.
func Trusting(root, dir, certificate string) (flag string, err error) {
	certificates := map[string]string{}
	for _, region := range identity.Regions() {
		certificates[region] = certificate
	}
	published, err := filepath.Abs(filepath.Join(root, "internal", "aws", "identity", "rsa2048.json"))
	if err != nil {
		return "", err
	}
	ours, overlay := filepath.Join(dir, "rsa2048.json"), filepath.Join(dir, "overlay.json")
	for path, content := range map[string]any{ours: certificates, overlay: map[string]any{"Replace": map[string]string{published: ours}}} {
		b, err := json.Marshal(content)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return "", err
		}
	}
	return "-overlay=" + overlay, nil
}
