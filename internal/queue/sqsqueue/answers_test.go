package sqsqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/awshttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

const (
	testURL = "https://sqs.eu-west-2.amazonaws.com/123456789012/garo"
	deadURL = testURL + "-dead"
)

// answer is one answer of SQS, in the form in which it comes over the wire.
type answer struct {
	status int
	code   string // of the header that carries the code that SQS had before it spoke JSON
	body   string
	wait   time.Duration
}

// call is one call, as SQS gets it.
type call struct {
	op, contentType string
	in              map[string]any
}

// service answers calls with a script, and repeats its last line for ever.
type service struct {
	script []answer
	calls  []call
}

func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	a := s.script[min(len(s.calls), len(s.script)-1)]
	c := call{op: strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS."), contentType: r.Header.Get("Content-Type")}
	if err := json.Unmarshal(body, &c.in); err != nil {
		return nil, err
	}
	s.calls = append(s.calls, c)
	select {
	case <-time.After(a.wait):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	h := http.Header{"Content-Type": {"application/x-amz-json-1.0"}}
	if a.code != "" {
		h.Set("X-Amzn-Query-Error", a.code+";Sender")
	}
	return &http.Response{StatusCode: a.status, Header: h, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

// over returns the queue that speaks to s. It tries each call once.
func over(s *service) *Queue {
	return New(aws.Config{
		Region: "eu-west-2", Credentials: credentials.NewStaticCredentialsProvider("AKID", "wJalrXUtnFEMI", ""),
		HTTPClient: &http.Client{Transport: awshttp.Transport{Base: s}}, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
	}, testURL, deadURL)
}

func failed(status int, queryCode, jsonCode, message string) answer {
	return answer{status: status, code: queryCode, body: fmt.Sprintf(`{"__type":"com.amazonaws.sqs#%s","message":%q}`, jsonCode, message)}
}

var message1 = queue.Message{Kind: queue.Resume, ID: "abcdefghijklmnopqrstuvwxya", Trace: "t"}

func TestErrorsSayWhatToDo(t *testing.T) {
	gone := failed(400, "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "The specified queue does not exist.")
	for _, c := range []struct {
		name string
		answer
		says string
	}{
		{"no queue", gone, "GARO_QUEUE_URL"},
		{"no queue, of the JSON protocol alone", failed(400, "", "QueueDoesNotExist", "The specified queue does not exist."), "GARO_QUEUE_URL"},
		{"no queue address", failed(400, "InvalidAddress", "InvalidAddress", "The address is not valid for this endpoint."), "GARO_QUEUE_URL"},
		{"not allowed", failed(403, "AccessDenied", "AccessDeniedException", "User: arn:aws:sts::123456789012:assumed-role/garo-api is not authorized"), "compare its policy"},
		{"no key", failed(400, "KMS.AccessDeniedException", "KmsAccessDenied", "The ciphertext refers to a key that you may not use."), "the queue's key"},
		{"unknown credentials", failed(403, "InvalidClientTokenId", "InvalidClientTokenId", "The security token included in the request is invalid."), "AWS does not know these credentials"},
		{"expired credentials", failed(403, "ExpiredToken", "ExpiredToken", "The security token included in the request is expired"), "have expired"},
		{"an outage", answer{status: 503, body: "<html>secret-of-the-answer</html>"}, "503"},
	} {
		q := over(&service{script: []answer{c.answer}})
		ctx, d := t.Context(), queue.Delivery{ID: "m-1", Receipt: "secret-receipt"}
		_, receive := q.Receive(ctx, 1, 0)
		_, dead := q.Dead(ctx)
		for op, err := range map[string]error{
			"Send": q.Send(ctx, message1, 0), "Receive": receive, "Delete": q.Delete(ctx, d), "Release": q.Release(ctx, d, 0), "Dead": dead,
		} {
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), " queue "+testURL) {
				t.Errorf("%s with %s = %v, want an error about queue %s that says %q", op, c.name, err, testURL, c.says)
				continue
			}
			for _, secret := range []string{"secret-", "wJalrXUtnFEMI"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%s with %s: %v; it tells %s", op, c.name, err, secret)
				}
			}
		}
	}
}

func TestStaleReceiptIsNoError(t *testing.T) {
	for _, c := range []struct {
		name string
		answer
		stale bool
	}{
		{"a handle that is not one", failed(404, "ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", "The input receipt handle is not a valid receipt handle."), true},
		{"a handle, by the JSON protocol alone", failed(400, "", "ReceiptHandleIsInvalid", "The specified receipt handle isn't valid."), true},
		{"a handle that has expired", failed(400, "InvalidParameterValue", "InvalidParameterValueException", "Value AQEB for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."), true},
		{"a message that is gone", failed(400, "InvalidParameterValue", "InvalidParameterValueException", "Value AQEB for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for visibility timeout change."), true},
		{"a message that nobody holds", failed(400, "AWS.SimpleQueueService.MessageNotInflight", "MessageNotInflight", "The specified message isn't in flight."), true},
		{"another parameter", failed(400, "InvalidParameterValue", "InvalidParameterValueException", "Value 50000 for parameter VisibilityTimeout is invalid."), false},
		{"an outage", answer{status: 500, body: "{}"}, false},
	} {
		q := over(&service{script: []answer{c.answer}})
		d := queue.Delivery{ID: "m-1", Receipt: "AQEB"}
		for op, err := range map[string]error{"Delete": q.Delete(t.Context(), d), "Release": q.Release(t.Context(), d, time.Minute)} {
			if (err == nil) != c.stale {
				t.Errorf("%s with %s = %v, want no error: %v", op, c.name, err, c.stale)
			}
		}
	}
}

func TestWhatIsSent(t *testing.T) {
	s := &service{script: []answer{{status: 200, body: `{}`}}}
	sender := over(s).Sender
	for _, delay := range []time.Duration{0, time.Millisecond, 1500 * time.Millisecond, queue.MaxDelay} {
		if err := sender.Send(t.Context(), message1, delay); err != nil {
			t.Fatal(err)
		}
	}
	for n, want := range []any{nil, 1.0, 2.0, 900.0} { // 0 is left out
		c := s.calls[n]
		if c.op != "SendMessage" || c.contentType != "application/x-amz-json-1.0" || c.in["QueueUrl"] != testURL || c.in["DelaySeconds"] != want {
			t.Errorf("call %d = %+v, want SendMessage in JSON to %s with a delay of %v", n, c, testURL, want)
		}
		if m, err := queue.Decode([]byte(c.in["MessageBody"].(string))); err != nil || m != message1 {
			t.Errorf("call %d sends %v, %v; want %v", n, m, err, message1)
		}
	}
	long := message1
	long.Trace = strings.Repeat("t", 5000)
	if err := sender.Send(t.Context(), long, 0); err == nil || len(s.calls) != 4 {
		t.Errorf("Send of 5 KB = %v after %d calls, want an error and no call", err, len(s.calls)-4)
	}
}

func TestLongWaitsAreSeveralReceives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		empty := func(seconds int) answer {
			return answer{status: 200, body: `{}`, wait: time.Duration(seconds) * time.Second}
		}
		s := &service{script: []answer{empty(20), empty(20), empty(5)}}
		began := time.Now()
		got, err := over(s).Receive(t.Context(), 25, 45500*time.Millisecond)
		if len(got) != 0 || err != nil || time.Since(began) != 45*time.Second {
			t.Errorf("Receive = %v, %v after %v; want nothing after 45 s", got, err, time.Since(began))
		}
		for n, want := range []any{20.0, 20.0, 5.0} {
			if in := s.calls[n].in; in["WaitTimeSeconds"] != want || in["MaxNumberOfMessages"] != 10.0 {
				t.Errorf("call %d = %v, want to wait %v s for 10", n, in, want)
			}
		}
		if len(s.calls) != 3 {
			t.Errorf("%d calls, want 3", len(s.calls))
		}
	})
}

func TestCancelEndsALongWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{script: []answer{{status: 200, body: `{}`, wait: 20 * time.Second}}}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(25*time.Second, cancel)
		if _, err := over(s).Receive(ctx, 1, time.Minute); !errors.Is(err, context.Canceled) || len(s.calls) != 2 {
			t.Errorf("Receive = %v after %d calls, want context.Canceled after 2", err, len(s.calls))
		}
	})
}

func TestPoisonIsDeliveredAsItIs(t *testing.T) {
	s := &service{script: []answer{{status: 200, body: `{"Messages":[{"MessageId":"m","ReceiptHandle":"h","Body":"\u0001 no JSON","Attributes":{"ApproximateReceiveCount":"3"}},{"MessageId":"n","ReceiptHandle":"i","Attributes":{"ApproximateReceiveCount":"x"}}]}`}}}
	got, err := over(s).Receive(t.Context(), 10, 0)
	if err != nil || len(got) != 2 {
		t.Fatalf("Receive = %v, %v; want two deliveries", got, err)
	}
	if d := got[0]; d.ID != "m" || d.Receipt != "h" || string(d.Body) != "\x01 no JSON" || d.Receives != 3 {
		t.Errorf("delivery = %+v, want it as it was sent", d)
	}
	if d := got[1]; d.Receives != 0 || len(d.Body) != 0 {
		t.Errorf("delivery = %+v, want no body and no count", d)
	}
}

func TestDeadAreGivenBack(t *testing.T) {
	page := func(from, to int) answer {
		var messages []string
		for n := from; n < to; n++ {
			messages = append(messages, fmt.Sprintf(`{"MessageId":"m%d","ReceiptHandle":"h%d","Body":"b","Attributes":{"ApproximateReceiveCount":"1","SentTimestamp":"%d"}}`, n, n, 1000-n))
		}
		return answer{status: 200, body: `{"Messages":[` + strings.Join(messages, ",") + `]}`}
	}
	s := &service{script: []answer{page(0, 10), page(10, 12), {status: 200, body: `{}`}}}
	dead, err := over(s).Dead(t.Context())
	if err != nil || len(dead) != 12 || dead[0].ID != "m11" || dead[11].ID != "m0" {
		t.Fatalf("Dead = %v, %v; want 12, the oldest first", dead, err)
	}
	if d := dead[0]; d.Receives != queue.MaxReceives || !d.SentAt.Equal(time.UnixMilli(989)) || string(d.Body) != "b" {
		t.Errorf("dead message = %+v, want %d receives, sent at 989 ms", d, queue.MaxReceives)
	}
	given := map[any]bool{}
	for n, c := range s.calls {
		if c.in["QueueUrl"] != deadURL {
			t.Errorf("call %d goes to %v, want the dead letter queue", n, c.in["QueueUrl"])
		}
		if n < 3 {
			if c.op != "ReceiveMessage" || c.in["VisibilityTimeout"] != 30.0 {
				t.Errorf("call %d = %s with visibility %v, want ReceiveMessage with 30 s", n, c.op, c.in["VisibilityTimeout"])
			}
			continue
		}
		if c.op != "ChangeMessageVisibility" || c.in["VisibilityTimeout"] != 0.0 {
			t.Errorf("call %d = %s with visibility %v, want it given back at once", n, c.op, c.in["VisibilityTimeout"])
		}
		given[c.in["ReceiptHandle"]] = true
	}
	if len(given) != 12 || len(s.calls) != 3+12 {
		t.Errorf("%d of 12 are given back, in %d calls; want each once", len(given), len(s.calls)-3)
	}
	// Whatever is in there, the look ends.
	s = &service{script: []answer{page(0, 10)}}
	if dead, err := over(s).Dead(t.Context()); err != nil || len(dead) != 500 {
		t.Errorf("Dead of an endless queue = %d, %v; want 500", len(dead), err)
	}
}

func TestMissingQueueSaysWhatToDo(t *testing.T) {
	for _, s := range standins {
		t.Run(s.name, func(t *testing.T) {
			server := s.start(t)
			url := server.URL + "/123456789012/nowhere"
			q := New(config(t, server), url, url)
			_, receive := q.Receive(t.Context(), 1, 0)
			for op, err := range map[string]error{"Send": q.Send(t.Context(), message1, 0), "Receive": receive} {
				if err == nil || !strings.Contains(err.Error(), "GARO_QUEUE_URL") || !strings.Contains(err.Error(), url) {
					t.Errorf("%s = %v, want an error that names the queue and GARO_QUEUE_URL", op, err)
				}
			}
		})
	}
}
