//go:build linux

package host

import (
	"bytes"
	"os"
	"slices"
)

// tail reads the lines of a growing file.
type tail struct {
	name string
	file *os.File
	rest []byte // an unfinished line
}

// maxLine is where a line is cut: no line that matters is longer.
const maxLine = 4 << 10

// lines returns the whole lines that came since the last call.
func (t *tail) lines() []string {
	if t.file == nil {
		f, err := os.Open(t.name)
		if err != nil {
			return nil
		}
		t.file = f
	}
	var out []string
	b := make([]byte, 32<<10)
	for {
		n, err := t.file.Read(b)
		t.rest = append(t.rest, b[:n]...)
		for {
			line, rest, whole := bytes.Cut(t.rest, []byte("\n"))
			if !whole {
				break
			}
			out = append(out, string(line[:min(len(line), maxLine)]))
			t.rest = rest
		}
		t.rest = slices.Clone(t.rest[:min(len(t.rest), maxLine)])
		if err != nil || n == 0 {
			return out
		}
	}
}

func (t *tail) close() {
	if t.file != nil {
		_ = t.file.Close()
	}
}
