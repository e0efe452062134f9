package ssmparam_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/ssmparam"
)

// fakeSSM answers as SSM does, without a network: each call takes 10 ms.
type fakeSSM struct {
	mu         sync.Mutex
	parameters map[string]string
	versions   map[string]int64
	code       string // of the error that all calls are answered with; empty: none
	status     int    // of that error
	calls      map[string]int
}

func newFakeSSM() *fakeSSM {
	return &fakeSSM{parameters: map[string]string{}, versions: map[string]int64{}, calls: map[string]int{}}
}

func (f *fakeSSM) put(name, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parameters[name] = value
	f.versions[name]++
}

func (f *fakeSSM) remove(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.parameters, name)
}

// fail has all calls answered with an error; an empty code ends that.
func (f *fakeSSM) fail(status int, code string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status, f.code = status, code
}

// called returns how many calls there were since it was last asked.
func (f *fakeSSM) called() (gets, lists int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gets, lists = f.calls["GetParameter"], f.calls["GetParametersByPath"]
	clear(f.calls)
	return gets, lists
}

func (f *fakeSSM) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case <-time.After(10 * time.Millisecond):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	action := strings.TrimPrefix(req.Header.Get("X-Amz-Target"), "AmazonSSM.")
	status, answer := f.answer(action, body)
	b, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: status, Request: req, Body: io.NopCloser(bytes.NewReader(b)), ContentLength: int64(len(b)),
		Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}},
	}, nil
}

func (f *fakeSSM) answer(action string, body []byte) (int, any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[action]++
	if f.code != "" {
		return f.status, map[string]string{"__type": f.code, "message": "as the test has it"}
	}
	var in struct {
		Name, Path, NextToken string
		WithDecryption        bool
		MaxResults            int
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return 400, map[string]string{"__type": "SerializationException"}
	}
	show := func(name string, decrypted bool) map[string]any {
		value := f.parameters[name]
		if !decrypted {
			value = "AQICAHi-encrypted"
		}
		return map[string]any{"Name": name, "Value": value, "Version": f.versions[name], "Type": "SecureString"}
	}
	switch action {
	case "GetParameter":
		if _, ok := f.parameters[in.Name]; !ok {
			return 400, map[string]string{"__type": "ParameterNotFound"}
		}
		return 200, map[string]any{"Parameter": show(in.Name, in.WithDecryption)}
	case "GetParametersByPath":
		var names []string
		for name := range f.parameters {
			if rest, ok := strings.CutPrefix(name, in.Path+"/"); ok && !strings.Contains(rest, "/") && name > in.NextToken {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		out := map[string]any{}
		if len(names) > in.MaxResults {
			names = names[:in.MaxResults]
			out["NextToken"] = names[len(names)-1]
		}
		page := []any{}
		for _, name := range names {
			page = append(page, show(name, in.WithDecryption))
		}
		out["Parameters"] = page
		return 200, out
	}
	return 400, map[string]string{"__type": "UnknownOperationException"}
}

// world is Parameters over a fake SSM, in a synctest bubble.
type world struct {
	*ssmparam.Parameters
	ssm *fakeSSM
	log *bytes.Buffer
}

func newWorld() *world {
	w := &world{ssm: newFakeSSM(), log: &bytes.Buffer{}}
	w.Parameters = ssmparam.New(ssmparam.Config{AWS: w.aws(), Prefix: "/garo", Log: w.logger()})
	return w
}

func (w *world) aws() aws.Config {
	return aws.Config{
		Region: "eu-west-2", HTTPClient: &http.Client{Transport: w.ssm},
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""),
	}
}

func (w *world) logger() *slog.Logger { return slog.New(slog.NewTextHandler(w.log, nil)) }

// wantCalls checks how many calls there were since the last check.
func (w *world) wantCalls(t *testing.T, gets, lists int) {
	t.Helper()
	if g, l := w.ssm.called(); g != gets || l != lists {
		t.Errorf("%d GetParameter and %d GetParametersByPath, want %d and %d", g, l, gets, lists)
	}
}

// registration is that of an account, as an operator writes it.
func registration(id string) string {
	return fmt.Sprintf(`{
  "id": %q, "external_id": "canary-external-id", "repositories": [{"id": "42", "name": "acme/shop"}],
  "regions": {"eu-west-2": {"subnets": ["subnet-1"], "security_groups": ["sg-1"], "images": ["ami-1"]}},
  "instance_types": ["c7g.large"], "default_instance_types": ["c7g.large"],
  "markets": ["spot"], "modes": ["shared"], "max_runners": 10, "github": {}
}`, id)
}
