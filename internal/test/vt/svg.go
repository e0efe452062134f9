package vt

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

const (
	cellWide = 8  // pixels, for letters of 13
	lineHigh = 18 // pixels
	margin   = 14 // pixels around the text
)

// style has the colours of a terminal in light and in dark, both with a contrast of 4.5 and
// more, as WCAG's AA wants it (https://www.w3.org/TR/WCAG21/#contrast-minimum).
const style = `
svg { --back: #ffffff; --text: #1f2328; --c31: #b3261e; --c32: #116329; --c33: #7d4e00; --c34: #0550ae; --c35: #8250df; --c36: #1b6b7a; --edge: #d0d7de }
@media (prefers-color-scheme: dark) { svg { --back: #0d1117; --text: #e6edf3; --c31: #ff7b72; --c32: #56d364; --c33: #e3b341; --c34: #79c0ff; --c35: #d2a8ff; --c36: #76e3ea; --edge: #30363d } }
rect { fill: var(--back); stroke: var(--edge) }
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: var(--text); white-space: pre }
g { visibility: hidden }
`

// SVG returns a picture that shows frames one after another, each for a time and the last
// one longer, and then begins again. still is the one that is shown to who wants no motion.
// It loads nothing. The error is for no frames.
func SVG(title string, frames []Frame, each, last time.Duration, still int) ([]byte, error) {
	if len(frames) == 0 {
		return nil, fmt.Errorf("picture of %s: no frames", title)
	}
	wide, high := 2*margin+cellWide*len(frames[0][0]), 2*margin+lineHigh*len(frames[0])
	whole := each*time.Duration(len(frames)-1) + last
	var b, rules bytes.Buffer
	for n := range frames {
		from := 100 * float64(each*time.Duration(n)) / float64(whole)
		to := 100 * float64(each*time.Duration(n+1)) / float64(whole)
		if n == len(frames)-1 {
			to = 100
		}
		fmt.Fprintf(&rules, "#f%d { animation: k%d %gs step-end infinite }\n@keyframes k%d { 0%% { visibility: %s } %.3f%% { visibility: visible } %.3f%% { visibility: hidden } }\n",
			n, n, whole.Seconds(), n, map[bool]string{true: "visible", false: "hidden"}[n == 0], from, to)
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`, wide, high, wide, high, escape(title))
	fmt.Fprintf(&b, "\n<title>%s</title>\n<style>%s#f%d { visibility: visible }\n@media (prefers-reduced-motion: no-preference) {\n%s}\n</style>\n", escape(title), style, still, rules.String())
	fmt.Fprintf(&b, `<rect x="0.5" y="0.5" width="%d" height="%d" rx="8"/>`+"\n", wide-1, high-1)
	for n, f := range frames {
		fmt.Fprintf(&b, `<g id="f%d">`+"\n", n)
		for y, line := range f {
			draw(&b, line, margin+lineHigh*y+13)
		}
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes(), nil
}

// draw writes the words of a line, each run of one colour where its columns are, whatever
// the width of the reader's letters.
func draw(b *bytes.Buffer, line []Cell, y int) {
	for from := 0; from < len(line); {
		to := from
		var text strings.Builder
		for to < len(line) && line[to].Colour == line[from].Colour && !gap(line, from, to) {
			text.WriteRune(line[to].Rune)
			to++
		}
		if word := strings.TrimRight(text.String(), " "); word != "" {
			colour := ""
			if line[from].Colour != 0 {
				colour = fmt.Sprintf(` style="fill: var(--c%d)"`, line[from].Colour)
			}
			fmt.Fprintf(b, `<text x="%d" y="%d" textLength="%d"%s>%s</text>`+"\n", margin+cellWide*from, y, cellWide*len([]rune(word)), colour, escape(word))
		}
		from = max(to, from+1)
	}
}

// gap reports whether a run that began at from ends before at: it is a space alone, or two
// spaces come.
func gap(line []Cell, from, at int) bool {
	space := func(n int) bool { return n >= len(line) || line[n].Rune == ' ' }
	return space(from) || space(at) && space(at+1)
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}
