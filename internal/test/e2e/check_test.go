//go:build linux

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// log is what all functions print.
type log struct {
	mu       sync.Mutex
	b        strings.Builder
	expected []string
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// expect says that the functions must log an ERROR with these words.
func (l *log) expect(words string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expected = append(l.expected, words)
}

// alarmed is the words of an alarm's line.
func alarmed(a store.Alarm) string { return `"alarm":"` + string(a) + `"` }

// hide notes a secret.
func (w *world) hide(what, secret string) {
	if secret == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets[secret] = what
}

// check is made of every world in its end: each ERROR in the logs is one that the
// test expects, and there is no secret where none may be.
func (w *world) check() {
	logged := w.log.String()
	met := map[string]bool{}
	for line := range strings.Lines(logged) {
		var entry struct{ Level string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			w.Errorf("a function prints a line that is no log entry: %s", line)
		}
		if entry.Level != "ERROR" {
			continue
		}
		i := slices.IndexFunc(w.log.expected, func(words string) bool { return strings.Contains(line, words) })
		if i < 0 {
			w.Errorf("a function logs an error that nobody expects: %s", line)
		} else {
			met[w.log.expected[i]] = true
		}
	}
	for _, words := range w.log.expected {
		if !met[words] {
			w.Errorf("no function logs an error with %s", words)
		}
	}
	if len(w.crashes) > 0 {
		w.Errorf("invocations of the worker fail: %v", w.crashes)
	}

	table := w.scan()
	var tags, userData strings.Builder
	for _, region := range []string{home, away} {
		for _, i := range w.instances(w.runners, region) {
			for _, t := range i.Tags {
				tags.WriteString(*t.Key + "=" + *t.Value + "\n")
			}
		}
	}
	for _, c := range w.aws.Calls("RunInstances") {
		if !c.Params.Has("UserData") {
			continue // a machine that the test has planted
		}
		b, err := base64.StdEncoding.DecodeString(c.Params.Get("UserData"))
		if err != nil {
			w.Errorf("user data: %v", err)
		}
		// Its last word tells the machine what it is, the boot token included.
		word := string(b[bytes.LastIndexByte(b, ' ')+1:])
		document, err := base64.RawURLEncoding.DecodeString(word)
		if err != nil {
			w.Errorf("the last word of user data: %v", err)
		}
		userData.Write(append(b, document...))
		w.bootTokens = append(w.bootTokens, word)
	}
	for _, r := range w.github.Minted() {
		w.hide("a config", r.Config.Reveal())
	}
	for _, secret := range slices.Sorted(maps.Keys(w.secrets)) {
		for where, text := range map[string]string{"the table": table, "the logs": logged, "tags": tags.String(), "user data": userData.String()} {
			if strings.Contains(text, secret) {
				w.Errorf("%s: in %s", w.secrets[secret], where)
			}
		}
	}
	for _, token := range w.bootTokens {
		if !strings.Contains(userData.String(), token) {
			w.Errorf("a machine boots with a token that is in no user data")
		}
		for where, text := range map[string]string{"the table": table, "the logs": logged, "tags": tags.String()} {
			if strings.Contains(text, token) {
				w.Errorf("a boot token: in %s", where)
			}
		}
	}
	if w.Failed() {
		w.Logf("the functions logged:\n%s", logged)
	}
}

// scan returns all that the table has, as text.
func (w *world) scan() string {
	var all strings.Builder
	pages := dynamodb.NewScanPaginator(w.dynamo, &dynamodb.ScanInput{TableName: &w.table})
	for pages.HasMorePages() {
		page, err := pages.NextPage(w.lasting)
		if err != nil {
			w.Errorf("scan the table: %v", err)
			return ""
		}
		for _, item := range page.Items {
			var plain map[string]any
			if err := attributevalue.UnmarshalMap(item, &plain); err != nil {
				w.Errorf("read an item: %v", err)
			}
			b, err := json.Marshal(plain)
			if err != nil {
				w.Errorf("read an item: %v", err)
			}
			all.Write(b)
		}
	}
	if all.Len() == 0 {
		w.Errorf("the table is empty")
	}
	return all.String()
}

// wantAtRest checks that nothing is left of what was: all records ended, the quota
// given back, no registration at GitHub and no machine.
func (w *world) wantAtRest() {
	w.Helper()
	for item, err := range w.store.List(w.Context(), store.Filter{Kind: store.KindRequest}) {
		if err != nil {
			w.Fatal(err)
		}
		if r := item.(*store.Request); !r.State.Final() {
			w.Errorf("request %s is %s, want it ended", r.ID, r.State)
		}
	}
	for _, r := range w.runnersKept() {
		if !r.State.Final() || r.State == store.RunnerEnded && len(r.Names) > 0 { // one that failed never got to use its name
			w.Errorf("runner %s is %s with the names %v, want it ended and none left", r.ID, r.State, r.Names)
		}
	}
	if q, err := store.Read[store.Quota](w.Context(), w.store, w.runners); err != nil || q.Version == 0 || q.Live != 0 {
		w.Errorf("quota = %+v, %v; want none in use", q, err)
	}
	if left := w.github.Registrations(); len(left) > 0 {
		w.Errorf("GitHub has %d registrations, want none", len(left))
	}
	for _, region := range []string{home, away} {
		for _, i := range w.instances(w.runners, region) {
			if i.State.Name != types.InstanceStateNameTerminated {
				w.Errorf("instance %s is %s, want it terminated", *i.InstanceId, i.State.Name)
			}
		}
	}
}
