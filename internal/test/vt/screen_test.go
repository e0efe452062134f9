package vt_test

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/test/vt"
)

func TestScreenShowsWhatIsWritten(t *testing.T) {
	for name, tc := range map[string]struct {
		written []string
		want    string
	}{
		"lines":              {[]string{"one\r\ntwo"}, "one\ntwo\n\n"},
		"over what was":      {[]string{"one\r\ntwo", "\x1b[HONE\x1b[K\r\n\x1b[J"}, "ONE\n\n\n"},
		"shorter line":       {[]string{"longer", "\x1b[Ha\x1b[K"}, "a\n\n\n"},
		"clear":              {[]string{"one\r\ntwo\x1b[2J\x1b[Hx"}, "x\n\n\n"},
		"scrolls":            {[]string{"1\r\n2\r\n3\r\n4"}, "2\n3\n4\n"},
		"wider than it":      {[]string{"0123456789"}, "01234567\n\n\n"},
		"colours":            {[]string{"\x1b[32mbusy\x1b[0m \x1b[39mx\x1b[0m"}, "busy x\n\n\n"},
		"a rune in parts":    {[]string{"a\xe2", "\x80", "\xa6"}, "a…\n\n\n"},
		"a sequence in two":  {[]string{"old\x1b[", "Hnew"}, "new\n\n\n"},
		"an unended control": {[]string{"a\x1b"}, "a\n\n\n"},
	} {
		s := vt.New(8, 3)
		for _, w := range tc.written {
			if _, err := s.Write([]byte(w)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got := s.Text(); got != tc.want {
			t.Errorf("%s: the screen shows %q, want %q", name, got, tc.want)
		}
	}
}

func TestUnknownSequencesAreRefused(t *testing.T) {
	for _, said := range []string{"\x1b[5;5H", "\x1b[1m", "\x1b[38;5;1m", "\a", "\x1b]0;title\a"} {
		if _, err := vt.New(8, 3).Write([]byte(said)); err == nil {
			t.Errorf("%q is shown, want an error", said)
		}
	}
}

// frames are two drawings, of which the second has colour and what XML would read.
func frames(t *testing.T) []vt.Frame {
	t.Helper()
	s := vt.New(20, 2)
	for _, w := range []string{"\x1b[?25l\x1b[2J\x1b[Hfirst\x1b[K\r\n\x1b[J", "\x1b[H\x1b[32mbusy\x1b[0m  <a & b>\x1b[K\r\n\x1b[J"} {
		if _, err := s.Write([]byte(w)); err != nil {
			t.Fatal(err)
		}
	}
	if !s.Hidden || len(s.Frames) != 2 || s.Frames[0].Text() != "first\n\n" {
		t.Fatalf("cursor hidden = %v, %d frames; want a hidden one, and two", s.Hidden, len(s.Frames))
	}
	return s.Frames
}

func TestPictureIsXMLWithAFrameEach(t *testing.T) {
	picture, err := vt.SVG(`"two" & more`, frames(t), time.Second, 3*time.Second, 1)
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(string(picture)))
	count, text := map[string]int{}, ""
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, picture)
		}
		switch v := token.(type) {
		case xml.StartElement:
			count[v.Name.Local]++
		case xml.CharData:
			text += string(v)
		}
	}
	if count["g"] != 2 || count["text"] != 3 || count["script"]+count["image"]+count["a"] != 0 {
		t.Errorf("elements %v, want two frames, a word of the first and two of the second", count)
	}
	for _, want := range []string{"first", "busy", "<a & b>", `"two" & more`, "prefers-color-scheme: dark", "#f1 { visibility: visible }", "k0 4s step-end", "25.000% { visibility: visible } 100.000%"} {
		if !strings.Contains(text, want) {
			t.Errorf("the picture does not say %q:\n%s", want, picture)
		}
	}
	if !strings.Contains(string(picture), `textLength="32" style="fill: var(--c32)">busy<`) {
		t.Errorf("busy is not green, or not four columns wide:\n%s", picture)
	}
	if strings.Contains(strings.ReplaceAll(string(picture), "http://www.w3.org/2000/svg", ""), "http") {
		t.Error("the picture names an address, want one that loads nothing")
	}
}

func TestNoFramesAreNoPicture(t *testing.T) {
	if _, err := vt.SVG("nothing", nil, time.Second, time.Second, 0); err == nil {
		t.Error("a picture of nothing was made, want an error")
	}
}
