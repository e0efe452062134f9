package repotest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// packageDocs returns the packages that have not exactly one package comment, or
// one that does not begin as the Go tools show it: "Package x" or "Command x".
// A package of tests alone has its comment in a test.
func packageDocs(all []file) []string {
	type sources struct{ files, docs, tests, testDocs []string }
	packages := map[string]*sources{} // by directory and name
	var order, problems []string
	for _, f := range all {
		if path.Ext(f.path) != ".go" || strings.Contains("/"+f.path, "/testdata/") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), f.path, f.text, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		dir, test := path.Dir(f.path), strings.HasSuffix(f.path, "_test.go")
		name := "Package " + parsed.Name.Name
		if parsed.Name.Name == "main" {
			name = "Command " + path.Base(dir)
		} else if test {
			name = strings.TrimSuffix(name, "_test")
		}
		p := packages[dir+": "+name]
		if p == nil {
			p = new(sources)
			packages[dir+": "+name] = p
			order = append(order, dir+": "+name)
		}
		files, docs := &p.files, &p.docs
		if test {
			files, docs = &p.tests, &p.testDocs
		}
		*files = append(*files, f.path)
		if doc := docText(parsed); doc != "" {
			*docs = append(*docs, f.path)
			if first, _, _ := strings.Cut(doc, "\n"); !strings.HasPrefix(first+" ", name+" ") && !test {
				problems = append(problems, fmt.Sprintf("%s: package comment begins %q, want %q", f.path, first, name))
			}
		}
	}
	for _, key := range order {
		p := packages[key]
		docs := p.docs
		if len(p.files) == 0 {
			docs = p.testDocs
		}
		if len(docs) != 1 {
			problems = append(problems, fmt.Sprintf("%s: package comments in %q, want exactly one", key, docs))
		}
	}
	return problems
}

func docText(f *ast.File) string {
	if f.Doc == nil {
		return ""
	}
	return f.Doc.Text()
}

// undone finds what is left for later in Go code, and skips a test that is.
// (The words are put together here, so that this file does not find itself.)
var (
	undone = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME)\b`)
	skips  = regexp.MustCompile(`\b[tbf]\.Skip(f|Now)?\(`)
)

// skipsFor is the one file that may skip tests: those that need a program which
// is not installed, and not in CI.
const skipsFor = "internal/test/awstest/need.go"

// leftovers returns the places in Go files that put something off, skipped tests
// among them.
func leftovers(all []file) []string {
	var problems []string
	for _, f := range all {
		if path.Ext(f.path) != ".go" {
			continue
		}
		found := undone.FindAllStringIndex(f.text, -1)
		if f.path != skipsFor {
			found = append(found, skips.FindAllStringIndex(f.text, -1)...)
		}
		for _, at := range found {
			problems = append(problems, fmt.Sprintf("%s: %s: do it now, or write an issue", f.line(at[0]), f.text[at[0]:at[1]]))
		}
	}
	return problems
}

// maxMethods is how many methods a type may have. One with more is several types
// that share their fields.
const maxMethods = 40

var mayBeCrowded = []string{
	"internal/sim.",
	"reaper.run",
	"store.Runner",
	"worker.invocation",
}

// crowded returns the types with too many methods, tests aside.
func crowded(all []file) []string {
	methods := map[string]int{} // by directory and type
	for _, f := range all {
		if path.Ext(f.path) != ".go" || strings.HasSuffix(f.path, "_test.go") || strings.Contains("/"+f.path, "/testdata/") {
			continue
		}
		for _, m := range method.FindAllStringSubmatch(f.text, -1) {
			methods[path.Dir(f.path)+"."+m[1]]++
		}
	}
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		spared := slices.ContainsFunc(mayBeCrowded, func(s string) bool { return name == s || strings.HasSuffix(s, ".") && strings.HasPrefix(name, s) })
		if n := methods[name]; n > maxMethods && !spared {
			problems = append(problems, fmt.Sprintf("%s: %d methods, and a type may have %d: split it", name, n, maxMethods))
		}
	}
	return problems
}

var method = regexp.MustCompile(`(?m)^func \((?:\w+ )?\*?(\w+)`)

// strangers are texts that mean something on one machine or to one person only.
var strangers = []struct {
	text *regexp.Regexp
	in   string // the one file that may have it
}{
	{text: regexp.MustCompile(`\.\./` + `shared`), in: ".ci/run"},
	{text: regexp.MustCompile(`(^|[^\w.$}/-])/wo` + `rk/`)},
	{text: regexp.MustCompile(`\b(DES` + `IGN|FAU` + `LTS|ATT` + `ACKS|STAND` + `INS|PE` + `ERS|STY` + `LE)\.md\b`)},
	{text: regexp.MustCompile(`(?i)\bthis (coding|working) ses` + `sion\b|\bthe bri` + `ef says\b`)},
}

// foreign returns the places that speak of anything but the project.
func foreign(all []file) []string {
	var problems []string
	for _, f := range all {
		for _, s := range strangers {
			if f.path == s.in {
				continue
			}
			for _, at := range s.text.FindAllStringIndex(f.text, -1) {
				problems = append(problems, fmt.Sprintf("%s: %q means nothing to a reader of this repository", f.line(at[0]), f.text[at[0]:at[1]]))
			}
		}
	}
	return problems
}

// markdown splits a document into its prose, and the code in it: fenced lines
// and what stands between backticks. Offsets stay those of the document.
func markdown(f file) (prose, code file) {
	p, c := []byte(f.text), []byte(f.text)
	fenced, span, at := false, false, 0
	for l := range strings.SplitAfterSeq(f.text, "\n") {
		fence := strings.HasPrefix(strings.TrimSpace(l), "```")
		if fence {
			fenced, span = !fenced, false
		}
		if strings.TrimSpace(l) == "" {
			span = false // no code span reaches over an empty line
		}
		for i := range len(l) {
			switch {
			case l[i] == '\n':
			case fence:
				p[at+i], c[at+i] = ' ', ' '
			case fenced:
				p[at+i] = ' '
			case l[i] == '`':
				span = !span
				p[at+i], c[at+i] = ' ', '\n' // a span is a line of its own
			case span:
				p[at+i] = ' '
			default:
				c[at+i] = ' '
			}
		}
		at += len(l)
	}
	return file{f.path, string(p)}, file{f.path, string(c)}
}

var (
	makeCall   = regexp.MustCompile(`(?m)(?:^|[;&|(])[ \t]*(?:\$[ \t]+)?make((?:[ \t]+[\w./=-]+)+)`)
	makeTarget = regexp.MustCompile(`(?m)^([\w./ -]+):(?:[^=]|$)`)
)

// makeTargets returns the places in documents that call make for a target that
// the Makefile does not have.
func makeTargets(all []file) []string {
	var targets, problems []string
	for _, m := range makeTarget.FindAllStringSubmatch(find(all, "Makefile").text, -1) {
		targets = append(targets, strings.Fields(m[1])...)
	}
	for _, f := range all {
		if path.Ext(f.path) != ".md" {
			continue
		}
		_, code := markdown(f)
		for _, at := range makeCall.FindAllStringSubmatchIndex(code.text, -1) {
			for word := range strings.FieldsSeq(code.text[at[2]:at[3]]) {
				if !strings.HasPrefix(word, "-") && !strings.Contains(word, "=") && !slices.Contains(targets, word) {
					problems = append(problems, fmt.Sprintf("%s: the Makefile has no target %s", f.line(at[2]), word))
				}
			}
		}
	}
	return problems
}

var link = regexp.MustCompile(`\]\(([^)\s]+)[^)]*\)|(?m)^\[[^\]]+\]:[ \t]+(\S+)`)

// links returns the links in documents that lead to no file, directory or heading
// here. Those to other sites are left alone.
func links(all []file) []string {
	exists, at := map[string]bool{".": true}, map[string]map[string]bool{}
	for _, f := range all {
		for p := f.path; p != "."; p = path.Dir(p) {
			exists[p] = true
		}
		if path.Ext(f.path) == ".md" {
			at[f.path] = anchors(f)
		}
	}
	var problems []string
	for _, f := range all {
		if path.Ext(f.path) != ".md" {
			continue
		}
		prose, _ := markdown(f)
		for _, m := range link.FindAllStringSubmatchIndex(prose.text, -1) {
			start, end := m[2], m[3]
			if start < 0 {
				start, end = m[4], m[5]
			}
			target, anchor, _ := strings.Cut(strings.Trim(prose.text[start:end], "<>"), "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			to := f.path
			if target != "" {
				to = path.Join(path.Dir(f.path), target)
			}
			if !exists[to] {
				problems = append(problems, fmt.Sprintf("%s: link to %s leads nowhere", f.line(start), target))
			} else if has := at[to]; anchor != "" && has != nil && !has[anchor] {
				problems = append(problems, fmt.Sprintf("%s: %s has no heading #%s", f.line(start), to, anchor))
			}
		}
	}
	return problems
}

var title = regexp.MustCompile("(?m)^#{1,6} (.+)$")

// anchors returns what links can name in a document: its headings, as GitHub makes names
// of them (https://docs.github.com/en/get-started/writing-on-github: "Section links").
func anchors(f file) map[string]bool {
	all := map[string]bool{}
	prose, _ := markdown(f)
	for _, m := range title.FindAllStringSubmatchIndex(prose.text, -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(f.text[m[2]:m[3]]))
		for n := 1; all[name]; n++ {
			name = fmt.Sprintf("%s-%d", strings.TrimSuffix(name, fmt.Sprintf("-%d", n-1)), n)
		}
		all[name] = true
	}
	return all
}

// unlisted returns the pages in docs that docs/README.md does not lead to, and those
// that do not begin with whom they are for.
func unlisted(all []file) []string {
	index := find(all, "docs/README.md")
	var problems []string
	for _, f := range all {
		if path.Dir(f.path) != "docs" || path.Ext(f.path) != ".md" {
			continue
		}
		if name := path.Base(f.path); f.path != index.path && !strings.Contains(index.text, "]("+name+")") {
			problems = append(problems, fmt.Sprintf("%s is not in %s", f.path, index.path))
		}
		if _, text, _ := strings.Cut(f.text, "\n\n"); !strings.HasPrefix(text, "For ") {
			problems = append(problems, f.path+": say in the first sentence whom the page is for: For …")
		}
	}
	return problems
}

var (
	decisionName = regexp.MustCompile(`^docs/adr/(\d{4})-[a-z0-9-]+\.md$`)
	heading      = regexp.MustCompile(`(?m)^## (.*)$`)
)

// decisions returns what is wrong with the decisions in docs/adr: a gap in their
// numbers, or a section that is missing, empty or out of order. The template is
// held to the same sections.
func decisions(all []file) []string {
	want := []string{"Context", "Decision", "Rejected", "Consequences"}
	var problems []string
	next := 1
	for _, f := range all { // in the order of their numbers, since names begin with them
		if path.Dir(f.path) != "docs/adr" {
			continue
		}
		m := decisionName.FindStringSubmatch(f.path)
		if m == nil && f.path != "docs/adr/template.md" {
			problems = append(problems, f.path+": want a name such as 0001-title-in-words.md")
			continue
		}
		if m != nil {
			if number := fmt.Sprintf("%04d", next); m[1] != number {
				problems = append(problems, fmt.Sprintf("%s: want number %s", f.path, number))
			}
			if !strings.HasPrefix(f.text, "# "+m[1]+": ") {
				problems = append(problems, fmt.Sprintf("%s: want it to begin %q and the title", f.path, "# "+m[1]+": "))
			}
			next++
		}
		var got []string
		parts := heading.FindAllStringSubmatchIndex(f.text, -1)
		for i, p := range parts {
			end := len(f.text)
			if i+1 < len(parts) {
				end = parts[i+1][0]
			}
			if strings.TrimSpace(f.text[p[1]:end]) != "" {
				got = append(got, f.text[p[2]:p[3]])
			}
		}
		if !slices.Equal(got, want) {
			problems = append(problems, fmt.Sprintf("%s: sections with text = %q, want %q", f.path, got, want))
		}
	}
	if next == 1 {
		problems = append(problems, "docs/adr: no decisions")
	}
	return problems
}

var (
	uses   = regexp.MustCompile(`(?m)^[ \t]*(?:-[ \t]+)?uses:[ \t]*["']?([^\s"'#]+)`)
	pinned = regexp.MustCompile(`^([\w.-]+/[\w./-]+@[0-9a-f]{40}|docker://\S+@sha256:[0-9a-f]{64}|\./\S*)$`)
)

// pinnedActions returns the actions that a workflow, or an action of ours, uses
// by a name that somebody else can move to other code.
func pinnedActions(all []file) []string {
	var problems []string
	for _, f := range all {
		base := path.Base(f.path)
		if ext := path.Ext(base); ext != ".yml" && ext != ".yaml" {
			continue
		}
		if path.Dir(f.path) != ".github/workflows" && strings.TrimSuffix(base, path.Ext(base)) != "action" {
			continue
		}
		for _, at := range uses.FindAllStringSubmatchIndex(f.text, -1) {
			if name := f.text[at[2]:at[3]]; !pinned.MatchString(name) {
				problems = append(problems, fmt.Sprintf("%s: %s: want owner/name@ and the 40 digits of a commit", f.line(at[2]), name))
			}
		}
	}
	return problems
}
