package simgithub

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// versions are those of GitHub's API that exist.
var versions = []string{"2022-11-28", "2026-03-10"}

// manners returns what is wrong with a request's form, for GitHub or for a
// client of ours; empty: nothing.
func manners(r *http.Request, t target, body []byte) string {
	hasBody := t.op == OpMint || t.op == OpToken
	accept := r.Header.Get("Accept")
	switch {
	case !slices.Contains(versions, r.Header.Get("X-GitHub-Api-Version")):
		return "X-GitHub-Api-Version: want one of " + strings.Join(versions, ", ")
	case r.Header.Get("User-Agent") == "":
		return "User-Agent: GitHub demands one"
	case !strings.HasPrefix(accept, "application/vnd.github") || !strings.HasSuffix(accept, "json"):
		return "Accept: want application/vnd.github+json"
	case len(r.Header["Authorization"]) > 1:
		return "Authorization: there are two"
	case len(body) > maxBody:
		return fmt.Sprintf("body: above %d bytes", maxBody)
	case !hasBody && len(body) > 0:
		return "body: this operation has none"
	case hasBody && !isJSON(r.Header.Get("Content-Type")):
		return "Content-Type: want application/json"
	case !slices.Contains([]string{OpList, OpGroups, OpAdmits, OpRun, OpRuns, OpRunJobs, OpDeliveries}, t.op) && r.URL.RawQuery != "":
		return "query: this operation has none"
	}
	return ""
}

// isJSON reports whether a media type is that of JSON, in UTF-8.
func isJSON(contentType string) bool {
	kind, params, err := mime.ParseMediaType(contentType)
	charset := params["charset"]
	return err == nil && kind == "application/json" && (charset == "" || strings.EqualFold(charset, "utf-8"))
}

// parseMint reads the body of a call that mints, and takes nothing that GitHub
// does not document.
func parseMint(body []byte) (q mintRequest, wrong string) {
	q.folder = "_work"
	wrong = parseObject(body, map[string]any{"name": &q.name, "runner_group_id": &q.group, "labels": &q.labels, "work_folder": &q.folder},
		"name", "runner_group_id", "labels")
	return q, wrong
}

// parseObject reads a JSON object into fields, and says what is wrong with it.
func parseObject(body []byte, fields map[string]any, required ...string) (wrong string) {
	values, err := object(body)
	if err != nil {
		return "body: " + err.Error()
	}
	for _, v := range values {
		to, ok := fields[v.key]
		if !ok {
			return "body: unknown field " + v.key
		}
		if string(v.value) == "null" || json.Unmarshal(v.value, to) != nil {
			return "body: wrong type of " + v.key
		}
		delete(fields, v.key)
	}
	for _, r := range required {
		if fields[r] != nil {
			return "body: no " + r
		}
	}
	return ""
}

// member is a field of a JSON object.
type member struct {
	key   string
	value json.RawMessage
}

// object splits a JSON object into its members, in their order: exactly one
// object, whose keys differ.
func object(body []byte) (out []member, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, errors.New("not a JSON object")
		}
		m := member{key: key.(string)}
		if err := d.Decode(&m.value); err != nil {
			return nil, errors.New("not a JSON object")
		}
		if slices.ContainsFunc(out, func(x member) bool { return x.key == m.key }) {
			return nil, errors.New("field " + m.key + " is there twice")
		}
		out = append(out, m)
	}
	if _, err := d.Token(); err != nil {
		return nil, errors.New("not a JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	return out, nil
}
