//go:build linux

package host

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// packed returns a .tar.gz of entries whose names say what they are.
func packed(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range entries {
		text := ""
		if h.Typeflag == tar.TypeReg {
			text = "text of " + h.Name
			h.Size = int64(len(text))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var usual = []tar.Header{
	{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700},
	{Name: "./run.sh", Typeflag: tar.TypeReg, Mode: 0o755, Uid: 1001},
	{Name: "./bin/node/data", Typeflag: tar.TypeReg, Mode: 0o640},
	{Name: "./bin/npm", Typeflag: tar.TypeSymlink, Linkname: "node/data"},
	{Name: "./bin/same", Typeflag: tar.TypeLink, Linkname: "./run.sh"},
}

func named(url string, b []byte) apitype.RunnerProgram {
	return apitype.RunnerProgram{Version: "2.336.0", URL: url, SHA256: fmt.Sprintf("%x", sha256.Sum256(b))}
}

// stock is a machine whose image has no runner program.
func stock(t *testing.T) *box {
	t.Helper()
	b := newBox(t)
	if err := os.Remove(b.cfg.Runner); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRunnerProgramIsInstalled(t *testing.T) {
	b := stock(t)
	archive := packed(t, usual...)
	// The server that is named leads to another one, as GitHub's does.
	store := httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
		http.ServeContent(res, req, "", time.Time{}, bytes.NewReader(archive))
	}))
	defer store.Close()
	front := httptest.NewServer(http.RedirectHandler(store.URL, http.StatusFound))
	defer front.Close()
	m := b.open()
	if _, err := m.Install(t.Context(), named(front.URL, archive), apitype.Outfit{}); err != nil {
		t.Fatalf("Install: %v", err)
	}
	for name, mode := range map[string]os.FileMode{"run.sh": 0o755, "bin/node/data": 0o640, "bin/same": 0o755, "bin": 0o755 | os.ModeDir, ".": 0o755 | os.ModeDir} {
		info, err := os.Stat(filepath.Join(b.cfg.Runner, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != mode {
			t.Errorf("mode of %s = %v, want %v", name, info.Mode(), mode)
		}
	}
	if got := b.read("runner/bin/npm"); got != "text of ./bin/node/data" {
		t.Errorf("what the link leads to = %q", got)
	}
	if entries, err := os.ReadDir(b.dir); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), "runner.") }) {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if _, err := m.Install(t.Context(), apitype.RunnerProgram{}, apitype.Outfit{}); err != nil { // it is there now
		t.Errorf("Install again: %v", err)
	}
}

// An image may have settings for a runner program, and none itself.
func TestSettingsOfTheImageStayWhenTheProgramIsInstalled(t *testing.T) {
	b := newBox(t)
	b.write("runner/.env", "WORD=kept\n", 0o644)
	b.write("runner/.path", "/opt/bin\n", 0o644)
	b.write("runner/other", "x", 0o644)
	archive := packed(t, usual...)
	server := httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
		http.ServeContent(res, req, "", time.Time{}, bytes.NewReader(archive))
	}))
	defer server.Close()
	if _, err := b.open().Install(t.Context(), named(server.URL, archive), apitype.Outfit{}); err != nil {
		t.Fatalf("Install: %v", err)
	}
	if env, path, other := b.read("runner/.env"), b.read("runner/.path"), b.read("runner/other"); env != "WORD=kept\n" || path != "/opt/bin\n" || other != "" {
		t.Errorf(".env = %q, .path = %q, other = %q; want the first two", env, path, other)
	}
}

func TestDownloadGoesOnWhereItWasCut(t *testing.T) {
	b := stock(t)
	archive := packed(t, usual...)
	var ranges []string
	server := httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
		ranges = append(ranges, req.Header.Get("Range"))
		if len(ranges) == 1 {
			res.Header().Set("Content-Length", fmt.Sprint(len(archive)))
			_, _ = res.Write(archive[:100])
			_ = http.NewResponseController(res).Flush()
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(res, req, "", time.Time{}, bytes.NewReader(archive))
	}))
	defer server.Close()
	if _, err := b.open().Install(t.Context(), named(server.URL, archive), apitype.Outfit{}); err != nil {
		t.Fatalf("Install: %v", err)
	}
	if want := []string{"", "bytes=100-"}; !slices.Equal(ranges, want) {
		t.Errorf("ranges asked for = %q, want %q", ranges, want)
	}
}

func TestDownloadOfAnEarlierProcessIsUsed(t *testing.T) {
	archive := packed(t, usual...)
	for name, c := range map[string]struct {
		had    []byte
		ranges bool // whether the server knows them
	}{
		"WhenWhole":            {archive, true},
		"WhenTooLong":          {append(slices.Clone(archive), "more"...), true},
		"WhenRangesAreIgnored": {archive[:50], false},
	} {
		t.Run(name, func(t *testing.T) {
			b := stock(t)
			if err := os.WriteFile(b.cfg.Runner+".download", c.had, 0o600); err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
				if c.ranges {
					http.ServeContent(res, req, "", time.Time{}, bytes.NewReader(archive))
					return
				}
				_, _ = res.Write(archive)
			}))
			defer server.Close()
			if _, err := b.open().Install(t.Context(), named(server.URL, archive), apitype.Outfit{}); err != nil {
				t.Errorf("Install: %v", err)
			}
		})
	}
}

func TestRunnerProgramIsNotInstalled(t *testing.T) {
	archive := packed(t, usual...)
	outside := packed(t, tar.Header{Name: "../outside", Typeflag: tar.TypeReg, Mode: 0o644})
	through := packed(t, tar.Header{Name: "./link", Typeflag: tar.TypeSymlink, Linkname: ".."},
		tar.Header{Name: "./link/outside", Typeflag: tar.TypeReg, Mode: 0o644})
	device := packed(t, tar.Header{Name: "./device", Typeflag: tar.TypeChar, Mode: 0o644})
	for name, c := range map[string]struct {
		serve []byte // nil: 404
		named []byte
		want  string
	}{
		"IfItsHashIsWrong":    {archive, outside, "not the one that was promised"},
		"IfItIsNotThere":      {nil, archive, "status 404"},
		"IfItLeavesItsPlace":  {outside, outside, "escapes"},
		"IfALinkLeadsOutside": {through, through, "escapes"},
		"IfItHasADevice":      {device, device, "neither a file"},
		"IfItIsNoArchive":     {[]byte("<html>"), []byte("<html>"), "unpack"},
	} {
		t.Run(name, func(t *testing.T) {
			b := stock(t)
			server := httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
				if c.serve == nil {
					http.NotFound(res, req)
					return
				}
				http.ServeContent(res, req, "", time.Time{}, bytes.NewReader(c.serve))
			}))
			defer server.Close()
			_, err := b.open().Install(t.Context(), named(server.URL, c.named), apitype.Outfit{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Install = %v, want %q in it", err, c.want)
			}
			for _, left := range []string{"runner", "outside"} {
				if _, err := os.Lstat(filepath.Join(b.dir, left)); err == nil {
					t.Errorf("%s is there", left)
				}
			}
		})
	}
	t.Run("IfNoneIsNamed", func(t *testing.T) {
		if _, err := stock(t).open().Install(t.Context(), apitype.RunnerProgram{}, apitype.Outfit{}); err == nil || !strings.Contains(err.Error(), "names none") {
			t.Errorf("Install = %v, want that none is named", err)
		}
	})
	t.Run("IfItIsTakenBack", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		server := httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, _ *http.Request) {
			cancel()
			res.WriteHeader(http.StatusServiceUnavailable)
		}))
		defer server.Close()
		if _, err := stock(t).open().Install(ctx, named(server.URL, archive), apitype.Outfit{}); err == nil {
			t.Error("Install succeeded, want an error")
		}
	})
}

func TestDownloadNeverLeavesTLS(t *testing.T) {
	b := stock(t)
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	front := httptest.NewTLSServer(http.RedirectHandler(plain.URL+"/?signature=canary", http.StatusFound))
	defer front.Close()
	was := downloader.Transport
	downloader.Transport = front.Client().Transport
	defer func() { downloader.Transport = was }()
	_, err := b.open().Install(t.Context(), named(front.URL, nil), apitype.Outfit{})
	if err == nil || !strings.Contains(err.Error(), "redirect to "+strings.TrimPrefix(plain.URL, "http://")) || strings.Contains(err.Error(), "canary") {
		t.Errorf("Install = %v, want that the redirect is refused, without its query", err)
	}
}

func TestUserIsMadeIfThereIsNone(t *testing.T) {
	b := newBox(t)
	b.cfg.User = "garo-no-such-user"
	b.command("useradd", "exit 0") // and makes none
	if _, err := b.open().account(); err == nil {
		t.Error("account of a user that could not be made: no error")
	}
	if got, want := b.read("calls"), "useradd --create-home --shell /bin/bash garo-no-such-user\n"; got != want {
		t.Errorf("called %q, want %q", got, want)
	}
	b.command("useradd", "echo no room; exit 1")
	if _, err := b.open().account(); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("account = %v, want what useradd said", err)
	}
}
