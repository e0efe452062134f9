package ec2fleet_test

import (
	"bytes"
	"context"
	"errors"
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

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/ec2fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var here = fleet.Place{Account: "111111111111", Region: "eu-west-2"}

// one is a store.Accounts that has any account with the same external id.
type one struct{ externalID string }

func (o one) Account(_ context.Context, id string) (store.Account, error) {
	return store.Account{ID: id, ExternalID: secret.New(o.externalID), DefaultRegion: "eu-west-2"}, nil
}

func (o one) List(context.Context) ([]string, error) { return nil, errors.New("not for this test") }

// wire is AWS as the SDK sees it: EC2 answers what the test says, STS with
// credentials, and SSM with the parameters.
type wire struct {
	mu         sync.Mutex
	answers    []reply // of EC2, in order; the last one again and again
	calls      []url.Values
	roles      int
	parameters map[string]string
	ssmCode    string
	log        bytes.Buffer
}

type reply struct {
	status int
	body   string
	err    error
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.answer(req.URL.Host, body)
	if r.err != nil {
		return nil, r.err
	}
	return &http.Response{StatusCode: r.status, Request: req, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(r.body))}, nil
}

func (w *wire) answer(host string, body []byte) reply {
	form, err := url.ParseQuery(string(body))
	switch service, _, _ := strings.Cut(host, "."); {
	case service == "sts":
		w.roles++
		return reply{200, fmt.Sprintf(`<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA%d</AccessKeyId>
<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
			w.roles, time.Now().Add(time.Hour).UTC().Format(time.RFC3339)), nil}
	case service == "ssm":
		for name, value := range w.parameters {
			if w.ssmCode == "" && strings.Contains(string(body), `"`+name+`"`) {
				return reply{200, fmt.Sprintf(`{"Parameter":{"Name":%q,"Value":%q,"Version":1}}`, name, value), nil}
			}
		}
		if w.ssmCode != "" {
			return reply{400, fmt.Sprintf(`{"__type":%q}`, w.ssmCode), nil}
		}
		return reply{400, `{"__type":"ParameterNotFound"}`, nil}
	case err != nil:
		return reply{err: err}
	}
	form.Set("host", host)
	w.calls = append(w.calls, form)
	r := w.answers[0]
	if len(w.answers) > 1 {
		w.answers = w.answers[1:]
	}
	return r
}

// fleet returns a Fleet over the wire, with the worker's session policy.
func (w *wire) fleet() *ec2fleet.Fleet {
	cfg := aws.Config{
		Region: "eu-west-1", HTTPClient: &http.Client{Transport: w},
		Credentials: credentials.NewStaticCredentialsProvider("AKIDOWN", "secret", ""),
	}
	return ec2fleet.New(cfg, assume.New(assume.Config{
		AWS: cfg, Accounts: one{"x"}, ControlPlane: "prod", Part: assume.Worker, Log: slog.New(slog.NewTextHandler(&w.log, nil)),
	}))
}

// ec2Error is an error of EC2 as it comes.
func ec2Error(status int, code, message string) reply {
	return reply{status, fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>80586c44-65e6-4676-80f1-e96a47206379</RequestID></Response>`, code, message), nil}
}

func launch() fleet.Launch {
	return fleet.Launch{
		ClientToken: "garo-r1-0", Market: store.OnDemand, InstanceType: "c7g.large", Subnet: "subnet-1", Image: "ami-1",
		SecurityGroups: []string{"sg-2", "sg-1"},
		Tags: map[string]string{
			"Name": "garo acme/shop", fleet.TagRequest: "q1", fleet.TagControlPlane: "prod", fleet.TagRunner: "r1", fleet.TagRepository: "acme/shop",
		},
		UserData: []byte("#!/bin/sh\necho hello\n"),
	}
}

func wantError(t *testing.T, what string, err, kind error, code string) *fleet.Error {
	t.Helper()
	e, ok := errors.AsType[*fleet.Error](err)
	if !ok || e.Kind != kind && e.Case != kind || e.Code != code || e.Text == "" {
		t.Fatalf("%s = %v, want a *fleet.Error of the kind %q with code %s and a text", what, err, kind, code)
	}
	return e
}
