// Package settings reads what the Lambda functions get from their
// environment, and names what SSM parameters say.
//
// It promises that a function either has all that it needs, in its form, or
// learns of every mistake at once: which variable, what is wrong with it, and
// what to write instead. Values are checked here and nowhere else. A variable
// that begins with GARO_ and that no function reads is reported as a likely typo. It
// is a mistake only beside others: an older version must work beside the
// environment of a newer one, while one is rolled out or back.
//
// docs/configuration.md is written from the lists in this package, and Terraform
// is held to them.
package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
)

// Common is what every function is given.
type Common struct {
	// ControlPlane is the name in tags, registrations and metrics.
	ControlPlane string
	Table        string     // name of the DynamoDB table
	QueueURL     string     // of the SQS queue
	Parameters   string     // the path of our SSM parameters, without a slash at its end
	LogLevel     slog.Level // the least that is logged
	// Typos has a sentence for each variable that no function reads.
	Typos []string
}

// API holds the settings of garo-api.
type API struct {
	Common
	URL      string                           // where clients and machines call, without a slash at its end
	Issuers  []string                         // of ID tokens; at least one
	Programs map[string]apitype.RunnerProgram // by GOARCH; nil: every image has the runner program
}

// Worker holds the settings of garo-worker.
type Worker struct {
	Common
	URL       string // where machines call, without a slash at its end
	GitHubURL string // where GitHub's REST API is
	// ProgramSums are the SHA-256 of the runner programs that the API offers, by
	// GOARCH; empty: it offers none.
	ProgramSums map[string]string
}

// Reaper holds the settings of garo-reaper.
type Reaper struct {
	Common
	GitHubURL string // where GitHub's REST API is
	PricesURL string // where AWS's price list is
	Shards    int    // how many runs share the work of a minute; at least 1
}

// ReadAPI reads garo-api's environment, in the form of os.Environ.
func ReadAPI(environ []string) (API, error) {
	r := newReader(environ)
	c := API{
		Common: r.common(), URL: r.url(envURL),
		Issuers: parsed(r, envIssuers, parseIssuers), Programs: parsed(r, envRunnerPrograms, parsePrograms),
	}
	return c, r.err()
}

// ReadWorker reads garo-worker's environment, in the form of os.Environ.
func ReadWorker(environ []string) (Worker, error) {
	r := newReader(environ)
	c := Worker{
		Common: r.common(), URL: r.url(envURL), GitHubURL: r.url(envGitHubURL),
		ProgramSums: map[string]string{},
	}
	for arch, p := range parsed(r, envRunnerPrograms, parsePrograms) {
		c.ProgramSums[arch] = p.SHA256
	}
	return c, r.err()
}

// ReadReaper reads garo-reaper's environment, in the form of os.Environ.
func ReadReaper(environ []string) (Reaper, error) {
	r := newReader(environ)
	c := Reaper{Common: r.common(), GitHubURL: r.url(envGitHubURL), PricesURL: r.url(envPricesURL), Shards: parsed(r, envReaperShards, parseShards)}
	return c, r.err()
}

// maxShards is how many shards the reaper may have: GitHub grants a credential 900 points
// a minute, and a sixteenth of the third that is spent at once is three deletions.
const maxShards = 16

func parseShards(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxShards || strconv.Itoa(n) != s {
		return 0, errForm
	}
	return n, nil
}

// reader reads variables, and keeps what is wrong with them.
type reader struct {
	set   map[string]string
	typos []string
	errs  []error
}

func newReader(environ []string) *reader {
	r := &reader{set: map[string]string{}}
	for _, e := range environ {
		if name, value, _ := strings.Cut(e, "="); strings.HasPrefix(name, prefix) {
			r.set[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.set)) {
		if _, ok := variable(name); !ok {
			r.typos = append(r.typos, fmt.Sprintf("%.60s is read by no function: %s", name, suggest(name)))
		}
	}
	return r
}

// err is every mistake, and with those what may have led to them.
func (r *reader) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	for _, t := range r.typos {
		r.errs = append(r.errs, errors.New(t))
	}
	return errors.Join(r.errs...)
}

// parsed is the value of a variable, or its default. One that is not set and
// has no default is a mistake if it is needed, and else the zero value.
func parsed[T any](r *reader, name string, parse func(string) (T, error)) (value T) {
	v, _ := variable(name)
	text := r.set[name]
	if text == "" {
		text = v.Default
	}
	if text == "" {
		if v.Needed {
			r.errs = append(r.errs, fmt.Errorf("%s is not set: want %s, such as %s", name, v.Want, v.Example))
		}
		return value
	}
	value, err := parse(text)
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s %.60q: %w: want %s, such as %s", name, text, err, v.Want, v.Example))
	}
	return value
}

func (r *reader) common() Common {
	return Common{
		ControlPlane: r.text(envControlPlane, controlPlaneForm.Fits),
		Table:        r.text(envTable, tableForm.Fits), QueueURL: r.url(envQueueURL), Parameters: r.text(envParameters, isPath),
		LogLevel: parsed(r, envLogLevel, parseLevel), Typos: r.typos,
	}
}

func (r *reader) text(name string, fits func(string) bool) string {
	return parsed(r, name, func(s string) (string, error) {
		if !fits(s) {
			return "", errForm
		}
		return s, nil
	})
}

func (r *reader) url(name string) string {
	return parsed(r, name, func(s string) (string, error) { return s, checkURL(s) })
}

var (
	errForm = errors.New("not in this form")

	// The names that DynamoDB takes
	// (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html).
	tableForm = form.Form{{Of: nameClass, Min: 3, Max: 255}}
	levelForm = form.Form{{Of: nameClass, Min: 1}}
	// What fits into names of GitHub's runners beside the ids in them.
	controlPlaneForm = form.Form{{Of: form.Lower + form.Digit + "--", Min: 1, Max: 16}}
)

const nameClass = form.Letter + form.Digit + "__..--"

// isPath reports whether s is a name that SSM takes, without a slash at the end
// (https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-su-create.html).
// It has fifteen levels, and ours are two of them at most.
func isPath(s string) bool {
	levels := strings.Split(s, "/")
	return levels[0] == "" && len(levels) > 1 && len(levels) <= 1+13 &&
		!slices.ContainsFunc(levels[1:], func(l string) bool { return !levelForm.Fits(l) })
}

// checkURL wants an address that is safe to call: without TLS it must be on this machine.
func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(s, "?#"):
		return errors.New("not a scheme, a host and a path")
	case strings.HasSuffix(s, "/"):
		return errors.New("a slash at the end")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())) {
		return errors.New("not https")
	}
	return nil
}

func parseIssuers(s string) ([]string, error) {
	issuers := strings.Split(s, ",")
	for i, issuer := range issuers {
		if err := checkURL(issuer); err != nil {
			return nil, fmt.Errorf("issuer %d: %w", i+1, err)
		}
		if slices.Contains(issuers[:i], issuer) {
			return nil, fmt.Errorf("issuer %d comes twice", i+1)
		}
	}
	return issuers, nil
}

func parseLevel(s string) (slog.Level, error) {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if s == strings.ToLower(l.String()) {
			return l, nil
		}
	}
	return 0, errForm
}

func parsePrograms(s string) (map[string]apitype.RunnerProgram, error) {
	var programs map[string]apitype.RunnerProgram
	d := json.NewDecoder(bytes.NewReader([]byte(s)))
	d.DisallowUnknownFields()
	if err := d.Decode(&programs); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more than one JSON value")
	}
	if len(programs) == 0 {
		return nil, errors.New("no program")
	}
	for _, arch := range slices.Sorted(maps.Keys(programs)) {
		p := programs[arch]
		if arch != "amd64" && arch != "arm64" {
			return nil, fmt.Errorf("architecture %.20q", arch)
		}
		if err := checkURL(p.URL); err != nil {
			return nil, fmt.Errorf("url of %s: %w", arch, err)
		}
		if !form.SHA256.Fits(p.SHA256) {
			return nil, fmt.Errorf("sha256 of %s: not 64 hex digits", arch)
		}
	}
	return programs, nil
}
