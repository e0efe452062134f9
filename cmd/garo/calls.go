package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
)

const (
	defaultDir = ".garo"
	defaultURL = "http://127.0.0.1:8080"
	// greeting is how long the API may take to answer at all.
	greeting = 10 * time.Second
)

// direct follows no redirect: it would carry the token to a place that nobody named.
var direct = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// target is which API a command calls, and how it prints.
type target struct {
	url       string
	tokenFile string
	json      bool
}

func (t *target) flags(c *cobra.Command) {
	urlFile, tokenFile := filepath.Join(defaultDir, local.URLFile), filepath.Join(defaultDir, local.TokenFile)
	c.Flags().StringVar(&t.url, "url", "", "address of the API (default GARO_URL, or what "+urlFile+" says, or "+defaultURL+")")
	c.Flags().StringVar(&t.tokenFile, "token-file", "", "file with the token (default GARO_TOKEN itself, or "+tokenFile+")")
	c.Flags().BoolVar(&t.json, "json", false, "print JSON")
}

func (t *target) address() string {
	address := cmp.Or(t.url, os.Getenv("GARO_URL"))
	if address == "" {
		b, _ := os.ReadFile(filepath.Join(defaultDir, local.URLFile)) // there is none unless garo local runs here
		address = cmp.Or(strings.TrimSpace(string(b)), defaultURL)
	}
	return strings.TrimSuffix(address, "/")
}

// errNoToken marks errors of a token that is not there.
var errNoToken = errors.New("no token")

func noToken(format string, args ...any) error {
	return marked{fmt.Errorf(format, args...), errNoToken}
}

func (t *target) token() (client.Token, error) {
	if v := strings.TrimSpace(os.Getenv("GARO_TOKEN")); v != "" && t.tokenFile == "" {
		return client.NewToken(v), nil
	}
	path := cmp.Or(t.tokenFile, filepath.Join(defaultDir, local.TokenFile))
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return client.Token{}, noToken("%s is not there: give --token-file or GARO_TOKEN, or start garo local in this directory", path)
	case err != nil:
		return client.Token{}, noToken("%w: give another --token-file, or GARO_TOKEN", err)
	case len(bytes.TrimSpace(b)) == 0:
		return client.Token{}, noToken("%s is empty: want the operator's token in it", path)
	}
	return client.NewToken(strings.TrimSpace(string(b))), nil
}

// client returns a client of the API, once that has answered at all: the client
// would call in vain for half a minute before it says so.
func (t *target) client(ctx context.Context) (*client.Client, error) {
	token, err := t.token()
	if err != nil {
		return nil, err
	}
	if err := t.greet(ctx); err != nil {
		return nil, err
	}
	return client.New(client.Config{
		URL:   t.address(),
		Token: client.Static(token),

		UserAgent: "garo/" + versionText(),
		Retrying:  away(os.Stderr),
	})
}

// away returns what tells people, once, that the API is asked again: that lasts for
// half a minute.
func away(w io.Writer) func(error) {
	var once sync.Once
	return func(err error) {
		once.Do(func() { fmt.Fprintf(w, "garo: the API does not answer, and is asked again: %v\n", err) })
	}
}

// greet fails if nobody answers at the address, or somebody else. An API that is
// in trouble is one all the same.
func (t *target) greet(ctx context.Context) error {
	const hint = "give --url or GARO_URL, or start garo local in this directory"
	short, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	u, err := url.Parse(t.address())
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return usage("%q is no address of an API: %s", t.address(), hint)
	}
	req, err := http.NewRequestWithContext(short, http.MethodGet, t.address()+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := direct.Do(req)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if cause, ok := errors.AsType[*url.Error](err); ok {
		return marked{fmt.Errorf("no answer from %s: %w: %s", t.address(), cause.Err, hint), client.ErrNoAnswer}
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= http.StatusInternalServerError {
		return nil
	}
	var health apitype.Health
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<10)).Decode(&health) != nil || health.Status == "" {
		return marked{fmt.Errorf("what answers at %s is no API of GARO: %s", t.address(), hint), client.ErrNoAnswer}
	}
	return nil
}

// told adds to what the API says what can be done about it from here.
func told(err error) error {
	if errors.Is(err, client.ErrUnauthenticated) {
		return fmt.Errorf("%w (is it this API's token? give --token-file or GARO_TOKEN)", err)
	}
	return err
}

// toldOf explains the error of a call about one request.
func toldOf(err error) error {
	if errors.Is(err, client.ErrNotFound) {
		return fmt.Errorf("%w (garo list shows the ids that there are)", err)
	}
	return told(err)
}

// reap makes a local system run its reaper, and decodes the report.
func (t *target) reap(ctx context.Context, dryRun bool, report any) error {
	if err := t.greet(ctx); err != nil {
		return err
	}
	path := "/local/reap"
	if dryRun {
		path += "?dry_run=true"
	}
	return t.locally(ctx, http.MethodPost, path, nil, report, "run the reaper",
		errors.New("this is no local system: in AWS the reaper runs by its schedule, and its log is in CloudWatch"))
}

// locally makes a call that a local system offers beside the API. what names the call, and
// nowhere is what it means that there is no such call.
func (t *target) locally(ctx context.Context, method, path string, in, out any, what string, nowhere error) error {
	token, err := t.token()
	if err != nil {
		return err
	}
	var sent io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, t.address()+path, sent)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	resp, err := direct.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20)) // a report on 100,000 items stays below
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed:
		return nowhere
	case resp.StatusCode == http.StatusUnauthorized:
		return told(client.ErrUnauthenticated)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s: %s", what, resp.Status, bytes.TrimSpace(body))
	}
	return json.Unmarshal(body, out)
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
