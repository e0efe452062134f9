package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// table is rows in columns, for people and for other programs: a cell is never empty.
type table struct {
	head []string
	rows [][]string
	// spare are the columns that a terminal which is too narrow for all does without,
	// the least needed first.
	spare []string
}

func (t *table) add(cells ...string) {
	for n, c := range cells {
		cells[n] = dash(c)
	}
	t.rows = append(t.rows, cells)
}

// print writes the table: on a terminal in its width, elsewhere whole. Columns called
// STATE have the colours of states.
func (t *table) print(w io.Writer) error {
	_, err := io.WriteString(w, t.text(widthOf(w), paintFor(w)))
	return err
}

// text returns the table in a width; 0: as wide as it takes. What is still too wide
// without the spare columns is cut at the end of the line.
func (t *table) text(width int, p paint) string {
	lines := append([][]string{t.head}, t.rows...)
	widths := make([]int, len(t.head))
	total := 2 * (len(widths) - 1)
	for n := range widths {
		for _, l := range lines {
			widths[n] = max(widths[n], utf8.RuneCountInString(l[n]))
		}
		total += widths[n]
	}
	out := map[int]bool{}
	for _, name := range t.spare {
		if width == 0 || total <= width {
			break
		}
		for n, h := range t.head {
			if h == name {
				out[n] = true
				total -= widths[n] + 2
			}
		}
	}
	var b strings.Builder
	for row, l := range lines {
		at := 0
		var line strings.Builder
		for n, cell := range l {
			if out[n] {
				continue
			}
			if at > 0 {
				line.WriteString("  ")
				at += 2
			}
			fill := strings.Repeat(" ", widths[n]-utf8.RuneCountInString(cell))
			if width > 0 && at+widths[n] > width {
				cell, fill = cut(cell, width-at), ""
			}
			at += widths[n]
			if row > 0 && t.head[n] == "STATE" {
				cell = p.state(cell)
			}
			line.WriteString(cell + fill)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// cut returns what of s fits into a width, and shows that there is more.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	return string([]rune(s)[:width-1]) + "…"
}

// widthOf returns the columns of the terminal that w is; 0: it is none. COLUMNS says
// otherwise, as it does to other programs.
func widthOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// age says how long something took, or how old it is, in the largest unit of which there
// are two or more, or in seconds: 45s, 90m, 28d.
func age(d time.Duration) string {
	d = max(0, d)
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// sinceTime reads what people say for a time that has passed: an age such as 90m, 1d or
// 2w, or a time or a day as RFC 3339 has it.
func sinceTime(s string, now time.Time) (time.Time, error) {
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.ParseInLocation(form, s, time.Local); err == nil {
			return at, nil
		}
	}
	units := map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	if n := len(s) - 1; n > 0 && units[s[n:]] > 0 {
		// More than a century is no age of a record.
		if count, err := strconv.ParseUint(s[:n], 10, 16); err == nil && count < 36500 {
			return now.Add(-time.Duration(count) * units[s[n:]]), nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, usage("--since %q: want an age such as 90m, 1d or 2w, or a time such as 2026-03-01T12:00:00Z", s)
}
