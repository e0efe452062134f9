// Package vt is a terminal for tests: it shows what a program writes, as people would
// see it, and draws pictures of that. It knows the control sequences that garo writes, and
// refuses others.
package vt

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Screen is a terminal of a fixed size. It scrolls, and wraps nothing: what is behind the
// last column is lost. It is not safe for concurrent use.
type Screen struct {
	// Hidden: the cursor was switched off.
	Hidden bool
	// Frames are what was shown at the end of each drawing, which is when what is below the
	// cursor was erased.
	Frames []Frame

	now      Frame
	row, col int
	colour   int    // of what is written next: 30 to 37; 0: the terminal's own
	left     []byte // the beginning of a sequence or a rune
}

// Frame is what a screen shows: its lines, from the top.
type Frame [][]Cell

// Cell is a character and its colour, as Screen has it.
type Cell struct {
	Rune   rune
	Colour int
}

// New returns an empty screen.
func New(width, height int) *Screen {
	s := &Screen{now: make(Frame, height)}
	for n := range s.now {
		s.now[n] = slices.Repeat([]Cell{{Rune: ' '}}, width)
	}
	return s
}

// Text is the frame in characters alone, without spaces at the ends of lines.
func (f Frame) Text() string {
	var b strings.Builder
	for _, line := range f {
		var text strings.Builder
		for _, c := range line {
			text.WriteRune(c.Rune)
		}
		b.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
	return b.String()
}

// Text is what the screen shows now.
func (s *Screen) Text() string { return s.now.Text() }

// Write shows what a program writes. A sequence that comes in parts is shown when it is
// whole. The error is about one that the screen does not know.
func (s *Screen) Write(p []byte) (int, error) {
	s.left = append(s.left, p...)
	for len(s.left) > 0 {
		n, err := s.take(s.left)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break
		}
		s.left = s.left[n:]
	}
	return len(p), nil
}

// take shows what p begins with, and returns how long that is; 0: it is not whole.
func (s *Screen) take(p []byte) (int, error) {
	switch p[0] {
	case '\r':
		s.col = 0
		return 1, nil
	case '\n':
		if s.row++; s.row == len(s.now) {
			s.row--
			s.now = append(s.now[1:], slices.Repeat([]Cell{{Rune: ' '}}, len(s.now[0])))
		}
		return 1, nil
	case '\x1b':
		return s.control(p)
	}
	if !utf8.FullRune(p) {
		return 0, nil
	}
	r, n := utf8.DecodeRune(p)
	if r < ' ' {
		return 0, fmt.Errorf("vt: control character %q", r)
	}
	if s.col < len(s.now[0]) {
		s.now[s.row][s.col] = Cell{Rune: r, Colour: s.colour}
	}
	s.col++
	return n, nil
}

// control obeys the control sequence that p begins with.
func (s *Screen) control(p []byte) (int, error) {
	end := slices.IndexFunc(p, func(b byte) bool { return b >= '@' && b != '[' })
	if end < 0 {
		return 0, nil
	}
	switch said := string(p[:end+1]); said {
	case "\x1b[H":
		s.row, s.col = 0, 0
	case "\x1b[K":
		s.erase(s.row, s.col)
	case "\x1b[J":
		s.erase(s.row, s.col)
		s.eraseFrom(s.row + 1)
		s.Frames = append(s.Frames, s.copy())
	case "\x1b[2J":
		s.eraseFrom(0)
	case "\x1b[?25l", "\x1b[?25h":
		s.Hidden = said == "\x1b[?25l"
	default:
		colour, ok := strings.CutPrefix(strings.TrimSuffix(said, "m"), "\x1b[")
		n, err := strconv.Atoi(colour)
		if !ok || err != nil || !strings.HasSuffix(said, "m") || n != 0 && n != 39 && (n < 30 || n > 37) {
			return 0, fmt.Errorf("vt: unknown sequence %q", said)
		}
		if s.colour = n; n == 39 { // the terminal's own
			s.colour = 0
		}
	}
	return end + 1, nil
}

func (s *Screen) erase(row, from int) {
	for n := from; n < len(s.now[row]); n++ {
		s.now[row][n] = Cell{Rune: ' '}
	}
}

func (s *Screen) eraseFrom(row int) {
	for ; row < len(s.now); row++ {
		s.erase(row, 0)
	}
}

func (s *Screen) copy() Frame {
	out := make(Frame, len(s.now))
	for n, line := range s.now {
		out[n] = slices.Clone(line)
	}
	return out
}
