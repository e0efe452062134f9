package promise

import (
	"bytes"
	"fmt"
	"slices"
)

// Hidden is the promise of secretPromises.
const Hidden Promise = "no secret can be read anywhere"

// secretPromises are about what others can read.
type secretPromises struct{ *History }

// Secret is a secret, or as much of it as nobody could guess.
type Secret struct{ What, Text string }

// secrets returns all secrets of the world.
func (p secretPromises) secrets() []Secret {
	out := slices.Clone(p.Secrets)
	for _, g := range p.GitHub.Minted() {
		c := g.Config.Reveal()
		out = append(out, Secret{"the config of " + g.Name, c[len(c)/2 : len(c)/2+64]}) // all begin alike
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.runners {
		for i := range r.Index + 1 {
			if t, err := p.Keys.Boot(r.Launch.KeyID, r.ID, i); err == nil {
				out = append(out, Secret{fmt.Sprintf("boot token %d of runner %s", i, r.ID), t.Reveal()})
			}
		}
		if s, err := p.Keys.Session(r.Launch.KeyID, r.ID, r.Boot.NonceHash); err == nil {
			out = append(out, Secret{"the session token of runner " + r.ID, s.Reveal()})
		}
	}
	return out
}

// readable returns the places where a secret can be read, of which one is the log.
func (p secretPromises) readable(log []byte) (found []string) {
	secrets := p.secrets()
	var begins [1 << 16]bool
	by := map[string][]Secret{}
	for _, c := range secrets {
		begins[int(c.Text[0])<<8|int(c.Text[1])] = true
		by[c.Text[:4]] = append(by[c.Text[:4]], c)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range append(p.texts, text{"the log", log}) {
		for i := 0; i+4 <= len(t.b); i++ {
			if !begins[int(t.b[i])<<8|int(t.b[i+1])] {
				continue
			}
			for _, c := range by[string(t.b[i:i+4])] {
				if bytes.HasPrefix(t.b[i:], []byte(c.Text)) {
					found = append(found, t.where+" shows "+c.What)
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
