package sqsqueue_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/sqsqueue"
)

// message is one of an SQS event.
func message(id, body, receives string) events.SQSMessage {
	return events.SQSMessage{
		MessageId: id, ReceiptHandle: "r-" + id, Body: body, EventSource: "aws:sqs",
		Attributes: map[string]string{"ApproximateReceiveCount": receives},
	}
}

func TestEventThatIsNoneOfSQSIsAnError(t *testing.T) {
	good := message("m1", "{}", "1")
	for name, c := range map[string]struct {
		change func(*events.SQSMessage)
		want   string
	}{
		"OfAnotherSource": {func(m *events.SQSMessage) { m.EventSource = "aws:sns" }, "record 1 is no message of SQS"},
		"WithoutID":       {func(m *events.SQSMessage) { m.MessageId = "" }, "record 1 is no message of SQS"},
		"WithoutCount":    {func(m *events.SQSMessage) { m.Attributes = nil }, `message "m1" does not say how often`},
	} {
		m := good
		c.change(&m)
		if got, err := sqsqueue.Deliveries(events.SQSEvent{Records: []events.SQSMessage{good, m}}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Deliveries of a message %s = %v, %v; want an error that says %s", name, got, err, c.want)
		}
	}
}

func TestDeliveriesAreTheMessages(t *testing.T) {
	got, err := sqsqueue.Deliveries(events.SQSEvent{Records: []events.SQSMessage{message("m1", "a", "1"), message("m2", "\x00", "5")}})
	want := []queue.Delivery{{ID: "m1", Body: []byte("a"), Receives: 1, Receipt: "r-m1"}, {ID: "m2", Body: []byte("\x00"), Receives: 5, Receipt: "r-m2"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Deliveries: %v (-want +got):\n%s", err, diff)
	}
}

// Null instead of a list would be no answer that SQS's event source knows.
func TestNothingFailedIsAnEmptyList(t *testing.T) {
	if b, err := json.Marshal(sqsqueue.Response(nil)); err != nil || string(b) != `{"batchItemFailures":[]}` {
		t.Errorf("Response of nothing = %s, %v; want an empty list", b, err)
	}
}

func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"Records":[{"messageId":"m1","receiptHandle":"r","body":"{}","attributes":{"ApproximateReceiveCount":"1"},"eventSource":"aws:sqs"}]}`))
	f.Add([]byte(`{"Records":[{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e events.SQSEvent
		if json.Unmarshal(b, &e) != nil {
			return
		}
		batch, err := sqsqueue.Deliveries(e)
		if (err == nil) != (len(batch) == len(e.Records) && len(batch) > 0) {
			t.Errorf("Deliveries(%s) = %v, %v; want all messages or an error", b, batch, err)
		}
		for i, d := range batch {
			if d.ID == "" || string(d.Body) != e.Records[i].Body {
				t.Errorf("Deliveries(%s)[%d] = %+v, want the message", b, i, d)
			}
		}
	})
}
