package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// version changes when a worker of before could no longer act on a message.
	version = 1
	// maxBody is the most bytes of an encoded message. The longest lock key, of
	// 16 labels of 64 characters, makes less than 2 KiB.
	maxBody = 4 << 10
	// maxTrace is the most characters of a trace: those of AWS and W3C have 35
	// and 32.
	maxTrace = 128
)

const (
	digits     = "0123456789"
	lockChars  = "abcdefghijklmnopqrstuvwxyz" + digits + "._,:/-" // what store.Request.LockKey is made of
	nameChars  = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" + digits + "._-"
	traceChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" + digits + "._:/=+-"
)

// body is the form of a message in the queue. All its text is of characters that
// JSON and SQS carry as they are.
type body struct {
	Version int    `json:"v"`
	Kind    Kind   `json:"kind"`
	ID      string `json:"id"`
	Account string `json:"account,omitempty"`
	Lock    string `json:"lock,omitempty"`
	N       int    `json:"n,omitempty"`
	Trace   string `json:"trace,omitempty"`

	Repository     string          `json:"repository,omitempty"`
	RepositoryName string          `json:"repository_name,omitempty"`
	Owner          string          `json:"owner,omitempty"` // the number of the repository's owner
	Job            string          `json:"job,omitempty"`
	Run            string          `json:"run,omitempty"`
	Status         store.JobStatus `json:"status,omitempty"`
	Runner         string          `json:"runner,omitempty"`
	Registration   int64           `json:"registration,omitempty"`
}

var fieldNames = []string{"v", "kind", "id", "account", "lock", "n", "trace",
	"repository", "repository_name", "owner", "job", "run", "status", "runner", "registration"}

// Encode returns the body of m: one JSON object in ASCII. It refuses what Decode
// would refuse.
func Encode(m Message) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	s := m.Seen
	b, err := json.Marshal(body{version, m.Kind, m.ID, m.Account, m.Lock, m.N, m.Trace,
		s.Repository.ID, s.Repository.Name, s.Repository.OwnerID, s.Job, s.Run, s.Status, s.Runner, s.Registration})
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	if len(b) > maxBody {
		return nil, fmt.Errorf("encode message: %d bytes, want at most %d", len(b), maxBody)
	}
	return b, nil
}

// Decode is the inverse of Encode. It takes nothing for granted: a field that is
// unknown, doubled, empty or malformed, and anything behind the object, is an
// error that says which, and quotes at most 40 characters of it.
func Decode(b []byte) (Message, error) {
	m, err := decode(b)
	if err == nil {
		err = m.check()
	}
	if err != nil {
		return Message{}, fmt.Errorf("decode message: %w", err)
	}
	return m, nil
}

func decode(b []byte) (Message, error) {
	if len(b) > maxBody {
		return Message{}, fmt.Errorf("%d bytes, want at most %d", len(b), maxBody)
	}
	f, err := split(b)
	if err != nil {
		return Message{}, err
	}
	// First, since the fields of another version may be anything.
	if v, ok := f["v"]; !ok || string(v) != strconv.Itoa(version) {
		return Message{}, fmt.Errorf("version %+.40q is not known", v)
	}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if !slices.Contains(fieldNames, name) {
			return Message{}, fmt.Errorf("field %+.40q is not known", name)
		}
	}
	var m Message
	for _, field := range []struct {
		name string
		to   *string
	}{{"kind", (*string)(&m.Kind)}, {"id", &m.ID}, {"account", &m.Account}, {"lock", &m.Lock}, {"trace", &m.Trace},
		{"repository", &m.Seen.Repository.ID}, {"repository_name", &m.Seen.Repository.Name}, {"owner", &m.Seen.Repository.OwnerID},
		{"job", &m.Seen.Job}, {"run", &m.Seen.Run}, {"status", (*string)(&m.Seen.Status)}, {"runner", &m.Seen.Runner}} {
		raw, ok := f[field.name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, field.to); err != nil || *field.to == "" { // null too leaves it empty
			return Message{}, fmt.Errorf("%s %+.40q: want text that is not empty", field.name, raw)
		}
	}
	if raw, ok := f["n"]; ok {
		if m.N, err = strconv.Atoi(string(raw)); err != nil || m.N == 0 {
			return Message{}, fmt.Errorf("n %+.40q: want a whole number that is not 0", raw)
		}
	}
	if raw, ok := f["registration"]; ok {
		if m.Seen.Registration, err = strconv.ParseInt(string(raw), 10, 64); err != nil || m.Seen.Registration <= 0 {
			return Message{}, fmt.Errorf("registration %+.40q: want a whole number above 0", raw)
		}
	}
	return m, nil
}

// split returns the fields of the one JSON object that b is. encoding/json would
// match names without case and let the last of two fields win.
func split(b []byte) (map[string]json.RawMessage, error) {
	if err := json.Unmarshal(b, new(json.RawMessage)); err != nil {
		return nil, fmt.Errorf("not one JSON value: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	f := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		if _, twice := f[name]; !ok || twice {
			return nil, fmt.Errorf("field %+.40q comes twice", name)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, err
		}
		f[name] = raw
	}
	return f, nil
}

// check returns what is wrong with m.
func (m Message) check() error {
	switch {
	case m.Kind != Start && m.Kind != Resume && m.Kind != Next && m.Kind != Job && m.Kind != Check:
		return fmt.Errorf("kind %+.40q is not known", m.Kind)
	case !keys.ValidID(m.ID):
		return fmt.Errorf("id %+.40q: want %d of a-z and 2-7", m.ID, keys.IDLen)
	}
	if err := m.checkOwn(); err != nil {
		return err
	}
	if len(m.Trace) > maxTrace || !made(m.Trace, traceChars) {
		return fmt.Errorf("trace %+.40q: want at most %d of letters, digits and ._:/=+-", m.Trace, maxTrace)
	}
	return nil
}

// checkOwn returns what is wrong with the fields that not every kind has.
func (m Message) checkOwn() error {
	ofRequest := m.Kind == Start || m.Kind == Job
	switch {
	case ofRequest && !(len(m.Account) == 12 && made(m.Account, digits)):
		return fmt.Errorf("account %+.40q: want twelve digits", m.Account)
	case m.Kind == Start && !m.locked():
		return fmt.Errorf("lock %+.40q: want the request's id, a launch of it, or a key of its account", m.Lock)
	case !ofRequest && (m.Account != "" || m.Lock != ""):
		return fmt.Errorf("account and lock are no fields of %s", m.Kind)
	case m.Kind == Job && m.Lock != "":
		return fmt.Errorf("lock is no field of %s", m.Kind)
	case m.Kind == Job:
		return m.Seen.check()
	case m.Seen != Seen{}:
		return fmt.Errorf("what was seen of a workflow job is no field of %s", m.Kind)
	case m.Kind == Next && m.N < 2: // config 1 comes with the launch
		return fmt.Errorf("n %d: want at least 2", m.N)
	case m.Kind != Next && m.N != 0:
		return fmt.Errorf("n is no field of %s", m.Kind)
	}
	return nil
}

// locked reports whether the lock of a start can be that of its request.
func (m Message) locked() bool {
	if n, ok := strings.CutPrefix(m.Lock, m.ID+"/"); ok { // of a workflow job
		return form.GitHubID.Fits(n)
	}
	return m.Lock == m.ID || strings.HasPrefix(m.Lock, m.Account+"/") && made(m.Lock, lockChars)
}

// maxName is the most characters of a name: GitHub's for owners, repositories and
// runners have 39, 100 and 64.
const maxName = 160

// check returns what is wrong with what was seen of a workflow job.
func (s Seen) check() error {
	for _, f := range []struct{ name, id string }{{"repository", s.Repository.ID}, {"owner", s.Repository.OwnerID}, {"job", s.Job}, {"run", s.Run}} {
		if !form.GitHubID.Fits(f.id) && !(f.id == "" && f.name == "owner") {
			return fmt.Errorf("%s %+.40q: want GitHub's number", f.name, f.id)
		}
	}
	if owner, name, ok := strings.Cut(s.Repository.Name, "/"); !ok || owner == "" || name == "" || len(s.Repository.Name) > maxName || !made(s.Repository.Name, nameChars+"/") {
		return fmt.Errorf("repository_name %+.40q: want owner/name", s.Repository.Name)
	}
	if s.Repository.Server != "" || s.Repository.Owner != "" {
		return errors.New("the repository's server and owner are no fields of a message")
	}
	if s.Status != "" && !s.Status.Begun() {
		return fmt.Errorf("status %+.40q: want %s, %s or none", s.Status, store.JobInProgress, store.JobCompleted)
	}
	if len(s.Runner) > maxName || !made(s.Runner, nameChars) {
		return fmt.Errorf("runner %+.40q: want at most %d of letters, digits and ._-", s.Runner, maxName)
	}
	if s.Registration < 0 {
		return fmt.Errorf("registration %d: want GitHub's number", s.Registration)
	}
	return nil
}

// made reports whether all of s is of these characters.
func made(s, chars string) bool { return strings.Trim(s, chars) == "" }
