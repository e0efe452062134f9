package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/alphagov/github-actions-runner-orchestration/client"
)

const (
	defaultDir = ".garo"
	defaultURL = "http://127.0.0.1:8080"
)

// target is which API a command calls, and how it prints.
type target struct {
	url       string
	tokenFile string
	json      bool
}

func (t *target) flags(c *cobra.Command) {
	c.Flags().StringVar(&t.url, "url", "", "address of the API (default GARO_URL, or "+defaultURL+")")
	c.Flags().StringVar(&t.tokenFile, "token-file", "", "file with the token (default GARO_TOKEN's content, or "+defaultDir+"/token)")
	c.Flags().BoolVar(&t.json, "json", false, "print JSON")
}

func (t *target) address() string {
	return strings.TrimSuffix(cmp.Or(t.url, os.Getenv("GARO_URL"), defaultURL), "/")
}

func (t *target) token() (client.Token, error) {
	if t.tokenFile == "" {
		if v := os.Getenv("GARO_TOKEN"); v != "" {
			return client.NewToken(strings.TrimSpace(v)), nil
		}
	}
	path := cmp.Or(t.tokenFile, filepath.Join(defaultDir, "token"))
	b, err := os.ReadFile(path)
	if err != nil {
		return client.Token{}, fmt.Errorf("read the token: %w: give --token-file or GARO_TOKEN", err)
	}
	return client.NewToken(strings.TrimSpace(string(b))), nil
}

func (t *target) client() *client.Client {
	return client.New(client.Config{
		URL:   t.address(),
		Token: func(context.Context) (client.Token, error) { return t.token() },
	})
}

// post calls something that is not part of the API: what a local system offers
// beside it.
func (t *target) post(ctx context.Context, path string, into any) error {
	token, err := t.token()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.address()+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20)) // a report on 100,000 items stays below
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed:
		return errors.New("this is no local system: in AWS the reaper runs by its schedule, and its log is in CloudWatch")
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answered %s: %s", path, resp.Status, bytes.TrimSpace(body))
	}
	return json.Unmarshal(body, into)
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
