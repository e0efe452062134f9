package simgithub

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
)

// The files that a just-in-time config holds, for the runner program to write.
var configFiles = []string{".runner", ".credentials", ".credentials_rsaparams"}

// newConfig makes a config in GitHub's form: base64 of a JSON object from file
// names to base64 of their contents. The key in it is random, and no RSA key.
func newConfig(random io.Reader, id int64, name, repository, folder string) (string, error) {
	const modulus = 256 // bytes: RSA with 2048 bits
	key := make([]byte, 2*modulus+5*modulus/2)
	if _, err := io.ReadFull(random, key); err != nil {
		return "", fmt.Errorf("random key: %w", err)
	}
	cut := func(n int) string {
		part := key[:n]
		key = key[n:]
		return base64.StdEncoding.EncodeToString(part)
	}
	client := fmt.Sprintf("%x-%x-%x-%x-%x", key[0:4], key[4:6], key[6:8], key[8:10], key[10:16])
	files := map[string]any{
		".runner": map[string]string{
			"AgentId":       strconv.FormatInt(id, 10),
			"AgentName":     name,
			"DisableUpdate": "True",
			"Ephemeral":     "True",
			"GitHubUrl":     "https://github.com/" + repository,
			"PoolId":        "1",
			"PoolName":      "Default",
			"ServerUrl":     "https://pipelines.actions.githubusercontent.com/" + client,
			"WorkFolder":    folder,
		},
		".credentials": map[string]any{
			"Scheme": "OAuth",
			"Data": map[string]string{
				"AuthorizationUrl":        "https://vstoken.actions.githubusercontent.com/_apis/oauth2/token/" + client,
				"ClientId":                client,
				"RequireFipsCryptography": "True",
			},
		},
		".credentials_rsaparams": map[string]string{
			"exponent": "AQAB",
			"modulus":  cut(modulus),
			"d":        cut(modulus),
			"p":        cut(modulus / 2),
			"q":        cut(modulus / 2),
			"dp":       cut(modulus / 2),
			"dq":       cut(modulus / 2),
			"inverseQ": cut(modulus / 2),
		},
	}
	encoded := make(map[string][]byte, len(files))
	for file, content := range files {
		b, err := json.Marshal(content)
		if err != nil {
			return "", fmt.Errorf("encode %s: %w", file, err)
		}
		encoded[file] = b
	}
	b, err := json.Marshal(encoded)
	if err != nil {
		return "", fmt.Errorf("encode the config: %w", err)
	}
	return base64.StdEncoding.EncodeToString(b), nil
}

// isConfig reports whether s has the form of a config.
func isConfig(s string) bool {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return false
	}
	var files map[string][]byte
	if json.Unmarshal(b, &files) != nil {
		return false
	}
	for _, file := range configFiles {
		var content map[string]any
		if json.Unmarshal(files[file], &content) != nil || len(content) == 0 {
			return false
		}
	}
	return true
}

// digest is what is kept of a config.
func digest(config string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(config))) }
