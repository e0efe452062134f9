package github_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

func TestDownloadsNameVersionAndHash(t *testing.T) {
	got, err := client(t, open(t, simgithub.Config{}).Handler()).Downloads(t.Context(), repo)
	if err != nil || len(got) != 2 {
		t.Fatalf("Downloads = %+v, %v; want two", got, err)
	}
	for i, arch := range []string{"x64", "arm64"} {
		d := got[i]
		if d.OS != "linux" || d.Architecture != arch || d.Version != "2.336.0" || len(d.SHA256) != 64 ||
			d.URL != "https://github.com/actions/runner/releases/download/v2.336.0/actions-runner-linux-"+arch+"-2.336.0.tar.gz" {
			t.Errorf("download %d = %+v, want that of Linux on %s with its version and hash", i, d, arch)
		}
	}
	_, err = client(t, open(t, simgithub.Config{}).Handler()).Downloads(t.Context(), hidden)
	failed(t, "Downloads for a repository that does not show", err, github.ErrNotFound)
}

// downloads answers with one download in which one text is replaced.
func downloads(old, new string) http.Handler {
	const one = `[{"os":"win","architecture":"x64","download_url":"https://a.test/actions-runner-win-x64-2.1.3.zip",` +
		`"filename":"actions-runner-win-x64-2.1.3.zip","temp_download_token":"canary","sha256_checksum":"0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"}]`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(strings.Replace(one, old, new, 1)))
	})
}

func TestDownloadsThatMakeNoSenseAreNotTrusted(t *testing.T) {
	want := github.Download{OS: "win", Architecture: "x64", URL: "https://a.test/actions-runner-win-x64-2.1.3.zip", Version: "2.1.3", SHA256: strings.Repeat("0123456789abcdef", 4)}
	got, err := client(t, downloads("", "")).Downloads(t.Context(), repo)
	if diff := cmp.Diff([]github.Download{want}, got); diff != "" || err != nil {
		t.Errorf("Downloads: %v, -want +got:\n%s", err, diff)
	}
	want.SHA256 = ""
	got, err = client(t, downloads(`,"sha256_checksum"`, `,"x"`)).Downloads(t.Context(), repo)
	if diff := cmp.Diff([]github.Download{want}, got); diff != "" || err != nil {
		t.Errorf("Downloads without a hash: %v, -want +got:\n%s", err, diff)
	}
	for name, h := range map[string]http.Handler{
		"NoOS":           downloads(`"win"`, `""`),
		"NoArchitecture": downloads(`"x64"`, `""`),
		"WithoutTLS":     downloads(`https://a.test`, `http://a.test`),
		"UserInURL":      downloads(`https://a.test`, `https://canary@a.test`),
		"NoHost":         downloads(`https://a.test`, `https://`),
		"NoURL":          downloads(`https://a.test`, `%`),
		"NoVersion":      downloads(`"filename":"actions-runner-win-x64-2.1.3.zip"`, `"filename":"canary.zip"`),
		"ShortHash":      downloads(`0123456789ABCDEF`, ``),
		"StrangeHash":    downloads(`0123456789ABCDEF`, `canary!!9abcdef0`),
		"Null":           downloads(`[{`, `[null,{`),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := client(t, h).Downloads(t.Context(), repo)
			failed(t, "Downloads", err, github.ErrUnknown)
			if got != nil {
				t.Errorf("Downloads = %+v, want nothing", got)
			}
		})
	}
}

func TestDeprecationTellsTheEndOfAVersion(t *testing.T) {
	runtime := time.Date(2026, 11, 5, 8, 4, 55, 0, time.UTC)
	registration := runtime.AddDate(0, 0, -7)
	s := open(t, simgithub.Config{Rules: simgithub.Rules{Deprecations: map[string]simgithub.Deprecation{
		"2.300.0": {Runtime: runtime}, "2.301.0": {Runtime: runtime, Registration: registration}, "2.302.0": {Registration: registration},
	}}})
	c := client(t, s.Handler())
	for version, want := range map[string]time.Time{"2.300.0": runtime, "2.301.0": registration, "2.302.0": registration, simgithub.ProgramVersion: {}} {
		if d, err := c.Deprecation(t.Context(), repo, version); err != nil || !d.Ends().Equal(want) {
			t.Errorf("%s ends at %v, %v; want %v", version, d.Ends(), err, want)
		}
	}
	_, err := c.Deprecation(t.Context(), repo, "9.9.9")
	failed(t, "Deprecation of a version that GitHub does not know", err, github.ErrNotFound)
	for _, v := range []string{"", "../downloads", "2.300", "2.300.0/x", "2.300.0?x"} {
		_, err := c.Deprecation(t.Context(), repo, v)
		failed(t, "Deprecation of what is no version", err, github.ErrRefused)
	}
	_, err = clientAt(t, "https://github.test/api/v3", memhttp.Client(s.Handler())).Deprecation(t.Context(), repo, "2.300.0")
	failed(t, "Deprecation on an Enterprise Server", err, github.ErrNotFound)
	for _, body := range []string{`{}`, `{"runner_version":"2.300.1"}`, `{"runner_version":"2.300.0","runtime_deprecates_at":"canary"}`, `[]`} {
		c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(body)) }))
		_, err := c.Deprecation(t.Context(), repo, "2.300.0")
		failed(t, "Deprecation in "+body, err, github.ErrUnknown)
	}
}

func TestRatesTellWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, simgithub.Config{Rules: simgithub.Rules{Token: secret.New(token), Limit: simgithub.Limit{Calls: 10}}})
		c := client(t, s.Handler())
		collect(t, c, repo, "")
		time.Sleep(20 * time.Minute)
		collect(t, c, repo, "")
		got, err := c.Rates(t.Context(), repo)
		left := github.Rate{Limit: 10, Remaining: 8, Reset: time.Now().Add(40 * time.Minute)}
		if diff := cmp.Diff(github.Rates{Core: left, Registration: left}, got); diff != "" || err != nil {
			t.Errorf("Rates: %v, -want +got:\n%s", err, diff)
		}
	})
	c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"resources":{"core":{"limit":5,"remaining":4,"reset":1800000000}}}`))
	}))
	got, err := c.Rates(t.Context(), repo)
	if want := (github.Rates{Core: github.Rate{Limit: 5, Remaining: 4, Reset: time.Unix(1_800_000_000, 0)}}); !got.Core.Reset.Equal(want.Core.Reset) || got.Core.Limit != 5 || got.Core.Remaining != 4 || got.Registration != (github.Rate{}) || err != nil {
		t.Errorf("Rates of a server that tells one limit = %+v, %v; want %+v", got, err, want)
	}
	for _, body := range []string{`{}`, `{"resources":{}}`, `{"resources":{"core":null}}`, `{"resources":[]}`} {
		c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(body)) }))
		_, err := c.Rates(t.Context(), repo)
		failed(t, "Rates in "+body, err, github.ErrUnknown)
	}
}
