package assume_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const account = "111111111111"

// externalID must be in no error and in no log line.
const externalID = "canary-external-id"

// registered is a store.Accounts of registrations that a test changes.
type registered struct {
	mu       sync.Mutex
	accounts map[string]store.Account
	err      error
}

func (r *registered) Account(_ context.Context, id string) (store.Account, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.accounts[id]
	switch {
	case r.err != nil:
		return store.Account{}, r.err
	case !ok:
		return store.Account{}, fmt.Errorf("account %s: %w", id, store.ErrNoAccount)
	}
	return a, nil
}

func (r *registered) List(context.Context) ([]string, error) { return nil, nil }

func (r *registered) set(a store.Account) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accounts[a.ID] = a
}

// fakeAWS answers AssumeRole and GetParameter, each call in 10 ms. A session's
// access key is ASIA and its number.
type fakeAWS struct {
	life time.Duration // of sessions

	mu        sync.Mutex
	roles     []url.Values // the calls for a role
	keys      []string     // the access keys and regions of the calls for a parameter
	parameter map[string]string
	sts       func() *http.Response // nil: as it should be
	ssm       func(key string) *http.Response
}

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// stsError is an error of STS as it comes
// (https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html).
func stsError(status int, code, message string) *http.Response {
	return answer(status, fmt.Sprintf(`<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <Error>
    <Type>Sender</Type>
    <Code>%s</Code>
    <Message>%s</Message>
  </Error>
  <RequestId>f3a5ff6d-8fd5-4d4b-b8a2-0a5d1d3b8f1d</RequestId>
</ErrorResponse>`, code, message))
}

func ssmError(code string) *http.Response {
	return answer(400, fmt.Sprintf(`{"__type":%q,"message":"as the test has it"}`, code))
}

func (f *fakeAWS) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case <-time.After(10 * time.Millisecond):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var resp *http.Response
	if strings.HasPrefix(req.URL.Host, "sts.") {
		resp = f.assumeRole(req.URL.Host, body)
	} else {
		resp = f.getParameter(req, body)
	}
	resp.Request = req
	return resp, nil
}

func (f *fakeAWS) assumeRole(host string, body []byte) *http.Response {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return stsError(400, "MalformedQueryString", "")
	}
	form.Set("host", host)
	f.roles = append(f.roles, form)
	if f.sts != nil {
		if resp := f.sts(); resp != nil {
			return resp
		}
	}
	return answer(200, fmt.Sprintf(`<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIA%d</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%s</Expiration>
</Credentials></AssumeRoleResult></AssumeRoleResponse>`, len(f.roles), time.Now().Add(f.life).UTC().Format(time.RFC3339)))
}

func (f *fakeAWS) getParameter(req *http.Request, body []byte) *http.Response {
	_, signed, _ := strings.Cut(req.Header.Get("Authorization"), "Credential=")
	key, _, _ := strings.Cut(signed, "/")
	f.keys = append(f.keys, key+" "+strings.Split(req.URL.Host, ".")[1])
	if f.ssm != nil {
		if resp := f.ssm(key); resp != nil {
			return resp
		}
	}
	var in struct{ Name string }
	if err := json.Unmarshal(body, &in); err != nil {
		return ssmError("SerializationException")
	}
	value, ok := f.parameter[in.Name]
	if !ok {
		return ssmError("ParameterNotFound")
	}
	return answer(200, fmt.Sprintf(`{"Parameter":{"Name":%q,"Value":%q,"Version":1}}`, in.Name, value))
}

// called returns how many calls for a role and for a parameter there were.
func (f *fakeAWS) called() (roles, parameters int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.roles), len(f.keys)
}

// world is Sessions over a fake AWS, in a synctest bubble.
type world struct {
	*assume.Sessions
	aws      *fakeAWS
	accounts *registered
	log      *bytes.Buffer
}

func newWorld(part assume.Part) *world {
	w := &world{
		aws:      &fakeAWS{life: time.Hour, parameter: map[string]string{"/github/runner/pat": "canary-pat"}},
		accounts: &registered{accounts: map[string]store.Account{}},
		log:      &bytes.Buffer{},
	}
	w.accounts.set(store.Account{ID: account, ExternalID: secret.New(externalID), Regions: map[string]store.Region{"eu-west-2": {}}})
	w.Sessions = assume.New(assume.Config{
		AWS: aws.Config{
			Region: "eu-west-1", HTTPClient: &http.Client{Transport: w.aws},
			Credentials: credentials.NewStaticCredentialsProvider("AKIDOWN", "secret", ""),
		},
		Accounts: w.accounts, ControlPlane: "prod", Part: part,
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	return w
}

// key returns the access key of the session that a call is made with.
func (w *world) key(t *testing.T, id string) (string, error) {
	t.Helper()
	var key string
	err := w.Do(t.Context(), id, func(p aws.CredentialsProvider) error {
		creds, err := p.Retrieve(t.Context())
		key = creds.AccessKeyID
		return err
	})
	for _, shown := range []string{w.log.String(), fmt.Sprint(err)} {
		if strings.Contains(shown, externalID) {
			t.Errorf("the external id is shown: %s", shown)
		}
	}
	return key, err
}

func (w *world) wantKey(t *testing.T, want string) {
	t.Helper()
	if got, err := w.key(t, account); err != nil || got != want {
		t.Errorf("Do called with %s, %v; want %s", got, err, want)
	}
}

func apiError(code string) error {
	return &smithy.GenericAPIError{Code: code, Message: "as the test has it"}
}
