package apitype_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// The API refuses a body with a field that it does not know, and a deploy brings new
// agents to machines that still reach the API of the version before. These are the
// bodies that it reads.
func TestMachinesSendNothingThatTheVersionBeforeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		sent, read any
		repeated   int // fields without which the agent repeats a call that is refused
	}{
		"Boot": {
			apitype.Boot{Token: "t", Nonce: "n", InstanceID: "i"}, // and Identity
			new(struct {
				Token      string `json:"token"`
				Nonce      string `json:"nonce"`
				InstanceID string `json:"instance_id"`
			}),
			1,
		},
		"Event": {
			apitype.Event{Event: "draining", Counter: 1, RunID: "7", Reason: "idle", Detail: "d"},
			new(struct {
				Event   string `json:"event"`
				Counter int64  `json:"counter"`
				RunID   string `json:"run_id"`
				Reason  string `json:"reason"`
				Detail  string `json:"detail"`
			}),
			0,
		},
		"Next": {apitype.Next{N: 2}, new(struct {
			N int `json:"n"`
		}), 0},
	} {
		body, err := json.Marshal(c.sent)
		if err != nil {
			t.Fatal(err)
		}
		strict := json.NewDecoder(bytes.NewReader(body))
		strict.DisallowUnknownFields()
		if err := strict.Decode(c.read); err != nil {
			t.Errorf("%s: the version before refuses %s: %v", name, body, err)
		}
		if sent, read := reflect.TypeOf(c.sent).NumField(), reflect.TypeOf(c.read).Elem().NumField(); sent != read+c.repeated {
			t.Errorf("%s has %d fields, and the version before reads %d: what may be left out above is refused when it is sent", name, sent, read)
		}
	}
}
