// Package secret holds text that must never be shown: a Text prints as *** in
// every format, in logs and in JSON, and gives its content to Reveal alone.
package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Text is a secret. The zero value is the empty secret. A Text can be read from
// JSON, and writes "***" there, so that no record can hold one by accident.
type Text struct{ s string }

// New makes s a secret.
func New(s string) Text { return Text{s} }

// Reveal returns the secret itself: for the call that has to send it, only.
func (t Text) Reveal() string { return t.s }

// Empty reports whether there is no secret.
func (t Text) Empty() bool { return t.s == "" }

// Equal compares in constant time. The empty secret equals nothing, not even itself.
func (t Text) Equal(other string) bool {
	return t.s != "" && subtle.ConstantTimeCompare([]byte(t.s), []byte(other)) == 1
}

const shown = "***"

// String implements fmt.Stringer.
func (t Text) String() string { return shown }

// Format prints *** whatever the verb and flags are.
func (t Text) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(shown)) }

// LogValue implements slog.LogValuer.
func (t Text) LogValue() slog.Value { return slog.StringValue(shown) }

// MarshalText implements encoding.TextMarshaler.
func (t Text) MarshalText() ([]byte, error) { return []byte(shown), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Text) UnmarshalText(b []byte) error {
	t.s = string(b)
	return nil
}
