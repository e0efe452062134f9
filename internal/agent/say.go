package agent

import (
	"strings"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// maxDetail is the most that the API takes, in bytes.
const maxDetail = 4 << 10

// say puts an event into the outbox. It is sent once it is saved.
func (m *memory) say(e apitype.Event) {
	e.Counter = m.count()
	e.Detail = m.plain(e.Detail)
	m.s.Outbox = append(m.s.Outbox, e)
}

// plain makes a text fit to be shown: without secrets, and not too long.
func (m *memory) plain(text string) string {
	text = m.masked(text)
	for len(text) > maxDetail {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}

// withOutput is a text and, as much as there is room for, the end of what the
// runner program printed: masked before it is cut, so that no half of a secret
// is left.
func (m *memory) withOutput(text, output string) string {
	output = strings.TrimSpace(m.masked(output))
	if output == "" {
		return text
	}
	text += "; it printed: "
	if over := len(text) + len(output) - maxDetail; over > 0 {
		output = strings.ToValidUTF8(output[min(over, len(output)):], "")
	}
	return text + output
}

// masked is a text without secrets.
func (m *memory) masked(text string) string {
	for _, hidden := range []string{m.cfg.Document.Token.Reveal(), m.s.Nonce, m.s.Session, m.s.Config, m.config} {
		if hidden != "" {
			text = strings.ReplaceAll(text, hidden, secret.New(hidden).String())
		}
	}
	return strings.ToValidUTF8(text, "?")
}
