package sim

import (
	"bytes"
	"encoding/json"
	"sync"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
)

// forger signs for himself.
var forger = sync.OnceValue(simidentity.New)

// stolenWord is what a thief brings as AWS's word for a machine.
func stolenWord(m simfleet.Fact, kind string) string {
	says, s := m.Document(), simidentity.Own()
	switch kind {
	case setting.NoWord:
		return ""
	case setting.SiblingsWord:
		says.InstanceID = setting.Sibling
	case setting.AccountsWord:
		says.AccountID = "999988887777"
	case setting.RegionsWord:
		says.Region = "eu-central-1"
	case setting.ForgedWord:
		content, thief := simidentity.Content(says), forger()
		return simidentity.Encode(simidentity.Signed(content, thief.Certificate, thief.SignerInfo(content)))
	}
	return s.Sign(says)
}

// Steal boots with the token in a machine's user data, as a thief who says that he is an
// instance and brings a word of AWS. It returns the status; 0: there was no answer.
func (w *World) Steal(m simfleet.Fact, claims, kind string) int {
	doc, err := bootstrap.Parse(w.Fleet.UserData(m.ID))
	if err != nil {
		return 0 // it is planted
	}
	body, err := json.Marshal(apitype.Boot{Token: doc.Token.Reveal(), Nonce: setting.Nonce(kind), InstanceID: claims, Identity: stolenWord(m, kind)})
	if err != nil {
		w.Error(err)
		return 0
	}
	res, err := w.Thief().Post(doc.API+"/runners/"+doc.Runner+"/boot", "application/json", bytes.NewReader(body))
	if err != nil {
		return 0
	}
	_ = res.Body.Close() // nothing is read of it
	return res.StatusCode
}
