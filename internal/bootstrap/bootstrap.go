// Package bootstrap renders and reads the user data of a machine: a fixed script
// and one base64url JSON document behind it. Nothing is ever put into the script:
// the document is data that the agent decodes, so no field of it can become shell.
//
// A released script is never edited, only superseded by one with the next number,
// because a launch that is repeated a day later must be the same to the byte. A
// test holds the hash of each.
package bootstrap

import (
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// MaxUserData is EC2's limit, in bytes, before its base64
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html).
const MaxUserData = 16 << 10

// Current is the number of the script that new machines get.
const Current = 1

// Document is what a machine is told at its launch. All of it can be read by
// whatever runs on the machine; Token is worth nothing once it was used.
type Document struct {
	API    string            // base URL of the API
	Runner string            // the runner's id
	Index  int               // the placement that was launched
	KeyID  string            // the key that Token comes from
	Token  secret.Text       // T: opens one boot
	HardS  int               // seconds until the power-off timer fires
	Agent  map[string]string // SHA-256 (hex) of the agent, by GOARCH
}
