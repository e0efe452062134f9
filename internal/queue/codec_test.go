package queue

import (
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	testID    = "abcdefghijklmnopqrstuvwxya"
	testTrace = "1-0123abcd-0123456789abcdef01234567"
	testLock  = "123456789012/eu-west-2/1001/spot/default/gpu,large"
)

var testSeen = Seen{
	Repository: store.Repository{ID: "1001", Name: "acme/shop", OwnerID: "77"}, Job: "21", Run: "20",
	Status: store.JobInProgress, Runner: "garo-prod-abc-1", Registration: 9,
}

// golden is what is in queues while a new version is rolled out.
var golden = []struct {
	name    string
	message Message
	body    string
}{
	{"start", Message{Kind: Start, ID: testID, Account: "123456789012", Lock: testLock, Trace: testTrace},
		`{"v":1,"kind":"start","id":"abcdefghijklmnopqrstuvwxya","account":"123456789012","lock":"123456789012/eu-west-2/1001/spot/default/gpu,large","trace":"1-0123abcd-0123456789abcdef01234567"}`},
	{"start of an ephemeral request", Message{Kind: Start, ID: testID, Account: "123456789012", Lock: testID},
		`{"v":1,"kind":"start","id":"abcdefghijklmnopqrstuvwxya","account":"123456789012","lock":"abcdefghijklmnopqrstuvwxya"}`},
	{"resume", Message{Kind: Resume, ID: testID, Trace: testTrace},
		`{"v":1,"kind":"resume","id":"abcdefghijklmnopqrstuvwxya","trace":"1-0123abcd-0123456789abcdef01234567"}`},
	{"start of a workflow job", Message{Kind: Start, ID: testID, Account: "123456789012", Lock: testID + "/2"},
		`{"v":1,"kind":"start","id":"abcdefghijklmnopqrstuvwxya","account":"123456789012","lock":"abcdefghijklmnopqrstuvwxya/2"}`},
	{"job that began", Message{Kind: Job, ID: testID, Account: "123456789012", Trace: testTrace, Seen: testSeen},
		`{"v":1,"kind":"job","id":"abcdefghijklmnopqrstuvwxya","account":"123456789012","trace":"1-0123abcd-0123456789abcdef01234567","repository":"1001","repository_name":"acme/shop","owner":"77","job":"21","run":"20","status":"in_progress","runner":"garo-prod-abc-1","registration":9}`},
	{"job to be read", Message{Kind: Job, ID: testID, Account: "123456789012", Seen: Seen{Repository: store.Repository{ID: "1001", Name: "acme/shop"}, Job: "21", Run: "20"}},
		`{"v":1,"kind":"job","id":"abcdefghijklmnopqrstuvwxya","account":"123456789012","repository":"1001","repository_name":"acme/shop","job":"21","run":"20"}`},
	{"next", Message{Kind: Next, ID: testID, N: 2, Trace: testTrace},
		`{"v":1,"kind":"next","id":"abcdefghijklmnopqrstuvwxya","n":2,"trace":"1-0123abcd-0123456789abcdef01234567"}`},
	{"check", Message{Kind: Check, ID: testID, Trace: testTrace},
		`{"v":1,"kind":"check","id":"abcdefghijklmnopqrstuvwxya","trace":"1-0123abcd-0123456789abcdef01234567"}`},
}

func TestGolden(t *testing.T) {
	for _, c := range golden {
		if got, err := Encode(c.message); err != nil || string(got) != c.body {
			t.Errorf("Encode(%s) = %s, %v; want %s", c.name, got, err, c.body)
		}
		if got, err := Decode([]byte(c.body)); err != nil || got != c.message {
			t.Errorf("Decode(%s) = %+v, %v; want %+v", c.name, got, err, c.message)
		}
	}
}

func TestLongestMessageFits(t *testing.T) {
	label := strings.Repeat("l", 64)
	m := golden[0].message
	m.Lock = "123456789012/ap-southeast-99/12345678901234567890/ondemand/0123456789ab/" + label + strings.Repeat(","+label, 15)
	m.Trace = strings.Repeat("t", maxTrace)
	b, err := Encode(m)
	if err != nil || len(b) > 2<<10 {
		t.Errorf("Encode = %d bytes, %v; want at most 2 KiB", len(b), err)
	}
	if got, err := Decode(b); err != nil || got != m {
		t.Errorf("Decode = %+v, %v; want the same message", got, err)
	}
}

func TestOrderAndSpaceAreFree(t *testing.T) {
	got, err := Decode([]byte(" {\"n\" : 3,\n\t\"id\":\"" + testID + `","kind":"next", "v":1} ` + "\n"))
	if want := (Message{Kind: Next, ID: testID, N: 3}); err != nil || got != want {
		t.Errorf("Decode = %+v, %v; want %+v", got, err, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const id = `"id":"` + testID + `"`
	long := strings.Repeat("x", 200)
	for _, c := range []struct{ name, body, want string }{
		{"nothing", "", "not one JSON value"},
		{"half an object", `{"v":1,"kind":`, "not one JSON value"},
		{"trailing text", `{"v":1,"kind":"resume",` + id + `} x`, "not one JSON value"},
		{"a second object", `{"v":1,"kind":"resume",` + id + `}{}`, "not one JSON value"},
		{"a list", `[1]`, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"text", `"` + long + `"`, "not a JSON object"},
		{"more than 4 KiB", `{"v":1,"kind":"resume",` + id + `}` + strings.Repeat(" ", maxBody), "bytes, want at most 4096"},

		{"an empty object", `{}`, `version "" is not known`},
		{"no version", `{"kind":"resume",` + id + `}`, `version "" is not known`},
		{"another version, whatever its fields", `{"v":2,"what":{"ever":[1]}}`, `version "2" is not known`},
		{"a version as text", `{"v":"1","kind":"resume",` + id + `}`, `version "\"1\"" is not known`},
		{"a version with a fraction", `{"v":1.0,"kind":"resume",` + id + `}`, `version "1.0" is not known`},
		{"a long version", `{"v":"` + long + `"}`, "version"},

		{"an unknown field", `{"v":1,"kind":"resume",` + id + `,"more":1}`, `field "more" is not known`},
		{"a long unknown field", `{"v":1,"` + long + `":1}`, "field"},
		{"a field in capitals", `{"v":1,"Kind":"resume",` + id + `}`, `field "Kind" is not known`},
		{"a doubled field", `{"v":1,"kind":"resume",` + id + `,` + id + `}`, `field "id" comes twice`},
		{"a doubled field, once escaped", `{"v":1,"kind":"resume",` + id + `,"i\u0064":"x"}`, `field "id" comes twice`},
		{"a long doubled field", `{"` + long + `":1,"` + long + `":1}`, "comes twice"},

		{"no kind", `{"v":1,` + id + `}`, `kind "" is not known`},
		{"an unknown kind", `{"v":1,"kind":"stop",` + id + `}`, `kind "stop" is not known`},
		{"a check with an account", `{"v":1,"kind":"check",` + id + `,"account":"123456789012"}`, "account and lock are no fields of check"},
		{"a check with a number", `{"v":1,"kind":"check",` + id + `,"n":2}`, "n is no field of check"},
		{"a kind in capitals", `{"v":1,"kind":"Resume",` + id + `}`, `kind "Resume" is not known`},
		{"a kind that is no text", `{"v":1,"kind":1,` + id + `}`, `kind "1": want text`},
		{"a long kind", `{"v":1,"kind":"` + long + `",` + id + `}`, "kind"},

		{"no id", `{"v":1,"kind":"resume"}`, `id "": want 26`},
		{"an empty id", `{"v":1,"kind":"resume","id":""}`, `id "\"\"": want text`},
		{"an id that is null", `{"v":1,"kind":"resume","id":null}`, `id "null": want text`},
		{"an id that is a list", `{"v":1,"kind":"resume","id":["` + testID + `"]}`, "id "},
		{"a malformed id", `{"v":1,"kind":"resume","id":"ABCDEFGHIJKLMNOPQRSTUVWXYA"}`, `id "ABCDEFGHIJKLMNOPQRSTUVWXYA": want 26`},
		{"a long id", `{"v":1,"kind":"resume","id":"` + long + `"}`, "id "},

		{"a start without account", `{"v":1,"kind":"start",` + id + `,"lock":"` + testID + `"}`, `account "": want twelve digits`},
		{"a start with a malformed account", `{"v":1,"kind":"start",` + id + `,"account":"12345678901a","lock":"` + testID + `"}`, `account "12345678901a": want twelve digits`},
		{"a start with a long account", `{"v":1,"kind":"start",` + id + `,"account":"` + long + `","lock":"` + testID + `"}`, "account "},
		{"a start without lock", `{"v":1,"kind":"start",` + id + `,"account":"123456789012"}`, `lock "": want`},
		{"a start with another account's lock", `{"v":1,"kind":"start",` + id + `,"account":"210987654321","lock":"` + testLock + `"}`, `lock "123456789012/eu-west-2/`},
		{"a start with another request's lock", `{"v":1,"kind":"start",` + id + `,"account":"123456789012","lock":"bbcdefghijklmnopqrstuvwxya"}`, `lock "bbcdefghijklmnopqrstuvwxya": want`},
		{"a start with a lock of other characters", `{"v":1,"kind":"start",` + id + `,"account":"123456789012","lock":"123456789012/é"}`, `lock "123456789012/\u00e9": want`},
		{"a start with a number", `{"v":1,"kind":"start",` + id + `,"account":"123456789012","lock":"` + testID + `","n":2}`, "n is no field of start"},

		{"a resume with an account", `{"v":1,"kind":"resume",` + id + `,"account":"123456789012"}`, "no fields of resume"},
		{"a resume with a lock", `{"v":1,"kind":"resume",` + id + `,"lock":"` + testID + `"}`, "no fields of resume"},
		{"a resume with a number", `{"v":1,"kind":"resume",` + id + `,"n":2}`, "n is no field of resume"},
		{"a resume with number 0", `{"v":1,"kind":"resume",` + id + `,"n":0}`, `n "0": want`},

		{"a start with a launch of another request", `{"v":1,"kind":"start",` + id + `,"account":"123456789012","lock":"bbcdefghijklmnopqrstuvwxya/2"}`, "lock "},
		{"a start with a launch that is no number", `{"v":1,"kind":"start",` + id + `,"account":"123456789012","lock":"` + testID + `/x"}`, "lock "},
		{"a start with what was seen of a job", `{"v":1,"kind":"start",` + id + `,"account":"123456789012","lock":"` + testID + `","job":"21"}`, "no field of start"},
		{"a job without account", `{"v":1,"kind":"job",` + id + `}`, `account "": want`},
		{"a job with a lock", `{"v":1,"kind":"job",` + id + `,"account":"123456789012","lock":"` + testID + `"}`, "lock is no field of job"},
		{"a job without repository", `{"v":1,"kind":"job",` + id + `,"account":"123456789012"}`, `repository "": want`},
		{"a job without its number", `{"v":1,"kind":"job",` + id + `,"account":"123456789012","repository":"1","repository_name":"a/b","run":"2"}`, `job "": want`},
		{"a job of a run that is no number", `{"v":1,"kind":"job",` + id + `,"account":"123456789012","repository":"1","repository_name":"a/b","job":"2","run":"x"}`, `run "x": want`},
		{"a job of a repository without owner", `{"v":1,"kind":"job",` + id + `,"account":"123456789012","repository":"1","repository_name":"b","job":"2","run":"2"}`, `repository_name "b": want`},
		{"a job that is queued", `{"v":1,"kind":"job",` + id + `,"account":"123456789012","repository":"1","repository_name":"a/b","job":"2","run":"2","status":"queued"}`, `status "queued": want`},
		{"a job on a runner with a space", `{"v":1,"kind":"job",` + id + `,"account":"123456789012","repository":"1","repository_name":"a/b","job":"2","run":"2","runner":"a b"}`, `runner "a b": want`},
		{"a job on registration 0", `{"v":1,"kind":"job",` + id + `,"account":"123456789012","repository":"1","repository_name":"a/b","job":"2","run":"2","registration":0}`, `registration "0": want`},

		{"a next without number", `{"v":1,"kind":"next",` + id + `}`, "n 0: want at least 2"},
		{"a next of config 1", `{"v":1,"kind":"next",` + id + `,"n":1}`, "n 1: want at least 2"},
		{"a next of a negative config", `{"v":1,"kind":"next",` + id + `,"n":-2}`, "n -2: want at least 2"},
		{"a next of a fraction", `{"v":1,"kind":"next",` + id + `,"n":2.5}`, `n "2.5": want`},
		{"a next of a power", `{"v":1,"kind":"next",` + id + `,"n":2e1}`, `n "2e1": want`},
		{"a next of text", `{"v":1,"kind":"next",` + id + `,"n":"2"}`, `n "\"2\"": want`},
		{"a next of null", `{"v":1,"kind":"next",` + id + `,"n":null}`, `n "null": want`},
		{"a next of more than fits", `{"v":1,"kind":"next",` + id + `,"n":` + strings.Repeat("9", 80) + `}`, "n "},
		{"a next with a lock", `{"v":1,"kind":"next",` + id + `,"n":2,"lock":"` + testID + `"}`, "no fields of next"},

		{"an empty trace", `{"v":1,"kind":"resume",` + id + `,"trace":""}`, `trace "\"\"": want text`},
		{"a trace with a line break", `{"v":1,"kind":"resume",` + id + `,"trace":"a\nb"}`, `trace "a\nb": want`},
		{"a trace that is no UTF-8", `{"v":1,"kind":"resume",` + id + `,"trace":"a` + "\xff" + `"}`, `trace "a\ufffd": want`},
		{"a long trace", `{"v":1,"kind":"resume",` + id + `,"trace":"` + long + `"}`, "trace "},
	} {
		got, err := Decode([]byte(c.body))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Decode(%s) = %+v, %v; want an error that says %s", c.name, got, err, c.want)
			continue
		}
		if got != (Message{}) {
			t.Errorf("Decode(%s) = %+v with its error, want no message", c.name, got)
		}
		if strings.Contains(err.Error(), long[:41]) || strings.Contains(err.Error(), strings.Repeat("9", 41)) {
			t.Errorf("Decode(%s): %v; it quotes more than 40 characters", c.name, err)
		}
	}
}

// Runners of others have names that no message can carry, and they must stay others'.
func TestANameThatAMessageCannotCarryIsNobodysOfOurs(t *testing.T) {
	for name, want := range map[string]string{
		"GitHub Actions 12": "GitHub_Actions_12", "garö-prod-1": "gar_-prod-1", "": "", strings.Repeat("x", 300): strings.Repeat("x", maxName), "garo-prod-abc-1": "garo-prod-abc-1",
	} {
		repo := store.Repository{Server: "ghe.example", ID: "1001", Name: "acme/shop", Owner: "acme", OwnerID: "77"}
		m := JobOf(testID, "123456789012", repo, store.Sighting{Job: store.WorkflowJob{ID: "21", RunID: "20"}, Status: store.JobCompleted, Runner: name}, testTrace)
		if b, err := Encode(m); err != nil || m.Seen.Runner != want {
			t.Errorf("JobOf on %q = %s, %v; want the runner %q", name, b, err, want)
		}
	}
}

// What cannot be decoded must not be sent either: it would only come back.
func TestEncodeRefuses(t *testing.T) {
	start := golden[0].message
	for name, change := range map[string]func(*Message){
		"no kind":                  func(m *Message) { m.Kind = "" },
		"no id":                    func(m *Message) { m.ID = "" },
		"a malformed id":           func(m *Message) { m.ID = "x" },
		"no account":               func(m *Message) { m.Account = "" },
		"no lock":                  func(m *Message) { m.Lock = "" },
		"another account's lock":   func(m *Message) { m.Account = "210987654321" },
		"a number":                 func(m *Message) { m.N = 2 },
		"a lock with a quote":      func(m *Message) { m.Lock += `"` },
		"a lock beyond 4 KiB":      func(m *Message) { m.Lock += strings.Repeat("x", maxBody) },
		"a trace with a space":     func(m *Message) { m.Trace = "a b" },
		"a trace that is too long": func(m *Message) { m.Trace = strings.Repeat("t", maxTrace+1) },
		"next without a number":    func(m *Message) { *m = Message{Kind: Next, ID: testID} },
		"next of config 1":         func(m *Message) { *m = Message{Kind: Next, ID: testID, N: 1} },
		"resume with a lock":       func(m *Message) { *m = Message{Kind: Resume, ID: testID, Lock: testID} },
	} {
		m := start
		change(&m)
		if b, err := Encode(m); err == nil {
			t.Errorf("Encode with %s = %s, want an error", name, b)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range golden {
		f.Add([]byte(c.body))
	}
	f.Add([]byte(`{"v":1,"kind":"next","id":"` + testID + `","n":-9223372036854775808}`))
	f.Add([]byte(`{"v":1,"v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			// 40 characters of input are 400 at most when each is escaped.
			if len(err.Error()) > 500 {
				t.Errorf("Decode(%q): the error has %d characters", b, len(err.Error()))
			}
			return
		}
		again, err := Encode(m)
		if err != nil {
			t.Fatalf("Encode(Decode(%q)): %v", b, err)
		}
		for _, c := range again {
			if c < ' ' || c > '~' {
				t.Fatalf("Encode(%+v) = %q, want printable ASCII", m, again)
			}
		}
		if got, err := Decode(again); err != nil || got != m {
			t.Errorf("Decode(Encode(%+v)) = %+v, %v", m, got, err)
		}
	})
}
