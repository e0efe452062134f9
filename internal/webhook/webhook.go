// Package webhook reads what GitHub delivers, and signs as GitHub does.
//
// It promises that nothing is read before its signature was found right, over the bytes
// as they came and in constant time, and that only the fields that are needed are read:
// what GitHub adds is its own affair. A field that is needed and is not as it has to be
// makes the whole delivery unreadable, and the error names it.
package webhook

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The headers of a delivery
// (https://docs.github.com/en/webhooks/webhook-events-and-payloads#delivery-headers).
const (
	SignatureHeader = "X-Hub-Signature-256"
	EventHeader     = "X-GitHub-Event"
	DeliveryHeader  = "X-GitHub-Delivery"
)

// The events that are read.
const (
	Ping         = "ping"
	WorkflowJob  = "workflow_job"
	Installation = "installation"
)

const signaturePrefix = "sha256="

// Sign returns the value of SignatureHeader for a body.
func Sign(key secret.Text, body []byte) string {
	h := hmac.New(sha256.New, []byte(key.Reveal()))
	h.Write(body)
	return signaturePrefix + hex.EncodeToString(h.Sum(nil))
}

// Signature is the value of a SignatureHeader that has the right form.
type Signature struct{ sum []byte }

var hexForm = form.Form{{Text: signaturePrefix, Of: form.Digit + "af", Min: 2 * sha256.Size, Max: 2 * sha256.Size}}

// ParseSignature returns the signature in a header. false: it is none.
func ParseSignature(header string) (Signature, bool) {
	if !hexForm.Fits(header) {
		return Signature{}, false
	}
	sum, err := hex.DecodeString(strings.TrimPrefix(header, signaturePrefix))
	return Signature{sum}, err == nil
}

// By reports whether the signature is that of body by a key. It compares in constant
// time. An empty key has signed nothing.
func (s Signature) By(key secret.Text, body []byte) bool {
	if key.Empty() {
		return false
	}
	h := hmac.New(sha256.New, []byte(key.Reveal()))
	h.Write(body)
	return hmac.Equal(h.Sum(nil), s.sum)
}

// Delivery is what is read of one.
type Delivery struct {
	Event  string // as the header says
	Action string // empty: the event has none
	// Installation is GitHub's number of the App's installation. Empty: no App sends it.
	Installation string
	// Repository and Seen are those of a workflow job.
	Repository store.Repository
	Seen       store.Sighting
}

// UnreadableError tells which field of a delivery is not as it has to be.
type UnreadableError struct{ Field, Text string }

func (e *UnreadableError) Error() string { return e.Field + ": " + e.Text }

// payload is the fields that are read. A pointer tells null and absent from zero.
type payload struct {
	Action       string `json:"action"`
	Installation *struct {
		ID int64 `json:"id"`
	} `json:"installation"`
	Repository *struct {
		ID       int64  `json:"id"`
		FullName string `json:"full_name"`
		HTMLURL  string `json:"html_url"`
		Owner    struct {
			ID    int64  `json:"id"`
			Login string `json:"login"`
		} `json:"owner"`
	} `json:"repository"`
	Job *struct {
		ID          int64      `json:"id"`
		RunID       int64      `json:"run_id"`
		Attempt     int        `json:"run_attempt"`
		Name        string     `json:"name"`
		Status      string     `json:"status"`
		Conclusion  string     `json:"conclusion"`
		Labels      []string   `json:"labels"`
		Workflow    string     `json:"workflow_name"`
		HeadBranch  string     `json:"head_branch"`
		HTMLURL     string     `json:"html_url"`
		CreatedAt   *time.Time `json:"created_at"`
		StartedAt   *time.Time `json:"started_at"`
		CompletedAt *time.Time `json:"completed_at"`
		RunnerID    int64      `json:"runner_id"`
		RunnerName  string     `json:"runner_name"`
	} `json:"workflow_job"`
}

// Read returns what a delivery says whose event is that of the header. What it is not
// about is not read: of any other event nothing is, and no error either. The error is an
// *UnreadableError.
func Read(event string, body []byte) (Delivery, error) {
	d := Delivery{Event: event}
	if event != WorkflowJob && event != Installation {
		return d, nil
	}
	var p payload
	if err := json.Unmarshal(body, &p); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return d, &UnreadableError{cmp.Or(e.Field, "body"), "it is a " + e.Value}
		}
		if _, ok := errors.AsType[*time.ParseError](err); ok {
			return d, &UnreadableError{"workflow_job", "a time is not in the form of RFC 3339"}
		}
		return d, &UnreadableError{"body", "it is not one JSON object"}
	}
	if d.Action = p.Action; d.Action == "" {
		return d, &UnreadableError{"action", "it is missing"}
	}
	if p.Installation != nil {
		if d.Installation = number(p.Installation.ID); d.Installation == "" {
			return d, &UnreadableError{"installation.id", "it is no number above 0"}
		}
	}
	if event == Installation {
		return d, nil
	}
	return d, d.readJob(p)
}

// The names that GitHub gives: owners may have an underscore on GitHub Enterprise
// (https://docs.github.com/en/enterprise-cloud@latest/admin/managing-iam/iam-configuration-reference/username-considerations-for-external-authentication).
var fullName = form.Form{{Of: nameClass, Min: 1, Max: 100}, {Text: "/", Of: nameClass + "..", Min: 1, Max: 100}}

const nameClass = form.Letter + form.Digit + "__--"

// readJob reads the workflow job and its repository.
func (d *Delivery) readJob(p payload) error {
	if p.Repository == nil || p.Job == nil {
		return &UnreadableError{"repository, workflow_job", "one of them is missing"}
	}
	r, j := p.Repository, p.Job
	host, err := url.Parse(r.HTMLURL)
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"repository.id", r.ID > 0}, {"repository.owner.id", r.Owner.ID > 0},
		{"repository.full_name", fullName.Fits(r.FullName)}, {"repository.html_url", err == nil && host.Host != ""},
		{"workflow_job.id", j.ID > 0}, {"workflow_job.run_id", j.RunID > 0}, {"workflow_job.run_attempt", j.Attempt >= 0},
		{"workflow_job.labels", j.Labels != nil}, {"workflow_job.runner_id", j.RunnerID >= 0},
	} {
		if !f.ok {
			return &UnreadableError{f.name, "it is missing, or has another form"}
		}
	}
	d.Repository = store.Repository{
		Server: server(host.Host), ID: number(r.ID), Name: r.FullName, OwnerID: number(r.Owner.ID), Owner: r.Owner.Login,
	}
	d.Seen = store.Sighting{
		Status: store.JobStatus(j.Status), Runner: j.RunnerName, Registration: j.RunnerID,
		Job: store.WorkflowJob{
			ID: number(j.ID), RunID: number(j.RunID), Attempt: j.Attempt, Name: j.Name, Labels: j.Labels, Workflow: j.Workflow,
			HeadBranch: j.HeadBranch, URL: j.HTMLURL, CreatedAt: at(j.CreatedAt), StartedAt: at(j.StartedAt), CompletedAt: at(j.CompletedAt),
			Conclusion: j.Conclusion,
		},
	}
	return nil
}

// server names a GitHub server as registrations do, by the host of its web pages: nothing
// for github.com. Under ghe.com the issuer of ID tokens, which registrations name, is at
// another host
// (https://docs.github.com/en/enterprise-cloud@latest/admin/data-residency/feature-overview-for-github-enterprise-cloud-with-data-residency).
func server(host string) string {
	switch {
	case host == "github.com":
		return ""
	case strings.HasSuffix(host, ".ghe.com"):
		return "token.actions." + host
	}
	return host
}

func number(n int64) string {
	if n <= 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func at(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// String says what a delivery is, for a log line.
func (d Delivery) String() string {
	return strings.TrimSuffix(fmt.Sprintf("%s.%s", d.Event, d.Action), ".")
}
