package pagetest

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/test/npmtest"
)

// diagram is a picture in a document, in the language that GitHub draws.
var diagram = regexp.MustCompile("(?s)\n```mermaid\n(.*?)\n```\n")

// TestDiagramsRender has Mermaid draw every picture in every document, as GitHub does.
func TestDiagramsRender(t *testing.T) {
	pictures := map[string][][]byte{}
	root := filepath.Join("..", "..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if n := bytes.Count(text, []byte("```mermaid")); n > 0 {
			for _, found := range diagram.FindAllSubmatch(text, -1) {
				pictures[path] = append(pictures[path], found[1])
			}
			if len(pictures[path]) != n {
				t.Errorf("%s has %d pictures, and %d of them are closed", path, n, len(pictures[path]))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pictures) == 0 {
		t.Fatal("no document has a picture")
	}
	w := newWorld(t)
	dir, err := npmtest.Install(t.Context(), "mermaid", "mermaid")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("install mermaid: %v", err)
		}
		t.Logf("NOT RUN, for lack of mermaid: %v", err)
		return
	}
	mermaid, err := os.ReadFile(filepath.Join(dir, "node_modules", "@mermaid-js", "tiny", "dist", "mermaid.tiny.js"))
	if err != nil {
		t.Fatal(err)
	}
	b := w.browser(1200, 900, "light")
	b.do(chromedp.Navigate("about:blank"))
	eval[bool](b, string(mermaid)+"; mermaid.initialize({startOnLoad: false}); true")
	for path, texts := range pictures {
		for n, text := range texts {
			source, err := json.Marshal(string(text))
			if err != nil {
				t.Fatal(err)
			}
			// A picture that Mermaid cannot read throws, with the line.
			said := eval[string](b, `mermaid.render("picture", `+string(source)+`).then((r) => {
				document.body.innerHTML = r.svg;
				const box = document.querySelector("svg").getBoundingClientRect();
				return box.width > 100 && box.height > 100 ? "" : "it is empty";
			}, (e) => String(e))`)
			if said != "" {
				t.Errorf("%s: picture %d: %s", path, n+1, said)
			}
		}
	}
}
