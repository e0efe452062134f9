package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/lambdatest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/startup"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

const (
	account      = "123456789012"
	id           = "abcdefghijklmnopqrstuvwxya"
	registration = `{
		"id": "` + account + `", "external_id": "a-made-up-one", "repositories": [{"id": "2002", "name": "octo/cat"}],
		"regions": {"us-east-1": {"subnets": ["subnet-x"], "security_groups": ["sg-x"], "images": ["ami-x"]}},
		"instance_types": ["c7g.large"], "default_instance_types": ["c7g.large"],
		"markets": ["ondemand"], "modes": ["ephemeral"], "max_runners": 3, "github": {}
	}`
)

var ring = `{"id": "` + strings.Repeat("i", 32) + `", "current": "k1", "keys": {"k1": "` + strings.Repeat("k", 32) + `"}}`

// unpacked returns a directory with what the function's zip has beside the program.
func unpacked(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "agents.json"), []byte(`{"arm64": "`+strings.Repeat("0f", 32)+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// started returns the function.
func started(t *testing.T, aws *lambdatest.AWS) lambda.Handler {
	t.Helper()
	f, err := start(t.Context(), aws.Process(unpacked(t)))
	if err != nil {
		t.Fatal(err)
	}
	return lambda.NewHandler(f)
}

// message is one of an SQS event.
func message(id, body, receives string) events.SQSMessage {
	return events.SQSMessage{
		MessageId: id, ReceiptHandle: "r-" + id, Body: body, EventSource: "aws:sqs",
		Attributes: map[string]string{"ApproximateReceiveCount": receives},
	}
}

func event(t *testing.T, messages ...events.SQSMessage) []byte {
	t.Helper()
	b, err := json.Marshal(events.SQSEvent{Records: messages})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFunctionAnswersWhatHasToComeAgain(t *testing.T) {
	aws := lambdatest.New(t)
	aws.Put("/garo/keys", ring)
	aws.Put("/garo/accounts/"+account, registration)
	f := started(t, aws)
	want := []string{
		"AssumeRole", "GET /", "GetItem garo-test", "GetParameter /garo/accounts/" + account, "GetParameter /garo/keys", "GetParametersByPath /garo/accounts",
	}
	if got := aws.Calls(); !slices.Equal(got, want) {
		t.Errorf("calls at the start = %q, want %q", got, want)
	}
	absent, err := queue.Encode(queue.Message{Kind: queue.Resume, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Invoke(t.Context(), event(t, message("m1", "no message", "1"), message("m2", string(absent), "2")))
	if want := `{"batchItemFailures":[{"itemIdentifier":"m1"},{"itemIdentifier":"m2"}]}`; err != nil || string(got) != want {
		t.Errorf("Invoke = %s, %v; want %s: nothing of them can be done", got, err, want)
	}
	if log := aws.Log(); !strings.Contains(log, `"delivery":"m1","receives":1`) || !strings.Contains(log, `"alarm":"unknown_message"`) {
		t.Errorf("log = %s, want both messages in it", log)
	}
	if got := aws.Calls(); slices.ContainsFunc(got, func(c string) bool { return strings.Contains(c, "Parameter") || c == "AssumeRole" }) {
		t.Errorf("calls of a batch = %q, want none for what is kept", got)
	}
}

func TestBatchFailsWholeWithoutKeys(t *testing.T) {
	aws := lambdatest.New(t)
	f := started(t, aws)
	got, err := f.Invoke(t.Context(), event(t, message("m1", "{}", "1")))
	if err == nil || !strings.Contains(err.Error(), "parameter /garo/keys") {
		t.Errorf("Invoke = %s, %v; want an error that names the parameter", got, err)
	}
	if log := aws.Log(); !strings.Contains(log, `"alarm":"access","messages":1`) {
		t.Errorf("log = %s, want one alarm", log)
	}
}

func TestFunctionThatCannotStartSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		set  map[string]string
		dir  string
		want string
	}{
		"Environment": {set: map[string]string{"GARO_CONTROL_PLANE": "Prod"}, want: `GARO_CONTROL_PLANE "Prod"`},
		"NoAgents":    {dir: t.TempDir(), want: "make build"},
		"NoRegion":    {set: map[string]string{"AWS_REGION": ""}, want: "AWS_REGION"},
	} {
		t.Run(name, func(t *testing.T) {
			aws := lambdatest.New(t)
			for name, value := range c.set {
				t.Setenv(name, value)
			}
			if c.dir == "" {
				c.dir = unpacked(t)
			}
			if _, err := start(t.Context(), aws.Process(c.dir)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("start = %v, want an error that says %s", err, c.want)
			}
		})
	}
}

func TestEventThatIsNoneOfSQSIsAnError(t *testing.T) {
	f := &function{}
	for _, event := range []string{`{}`, `{"version": "2.0"}`, `{"Records": []}`} {
		if got, err := lambda.NewHandler(f.handle).Invoke(t.Context(), []byte(event)); err == nil || !strings.Contains(err.Error(), "SQS queue") {
			t.Errorf("Invoke with %s = %s, %v; want an error that says what the function is for", event, got, err)
		}
	}
}

func TestBatchEndsBeforeLambdaDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &function{worker: &startup.Kept[*worker.Worker]{Make: func(ctx context.Context) (*worker.Worker, error) {
			<-ctx.Done() // what takes too long
			return worker.New(worker.Config{Store: storetest.NewMemory()}), nil
		}}}
		ctx, cancel := context.WithTimeout(t.Context(), worker.Timeout)
		defer cancel()
		got, err := f.handle(ctx, events.SQSEvent{Records: []events.SQSMessage{message("m1", "no message", "1")}})
		if err != nil || fmt.Sprint(got.BatchItemFailures) != "[{m1}]" || ctx.Err() != nil {
			t.Errorf("handle = %v, %v, Lambda's context %v; want an answer in time", got, err, ctx.Err())
		}
	})
}
