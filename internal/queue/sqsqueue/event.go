package sqsqueue

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/aws/aws-lambda-go/events"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

// Deliveries returns the messages of an event, with bodies as yet unchecked: one
// that cannot be read must not keep the others from being worked on. An event that
// is none of SQS's is an error, since nothing in it could be reported as failed
// (https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html#example-standard-queue-message-event).
func Deliveries(e events.SQSEvent) ([]queue.Delivery, error) {
	if len(e.Records) == 0 {
		return nil, errors.New("read event: it has no messages: the function is for an SQS queue")
	}
	var batch []queue.Delivery
	for i, m := range e.Records {
		if m.EventSource != "aws:sqs" || m.MessageId == "" {
			return nil, fmt.Errorf("read event: record %d is no message of SQS", i)
		}
		receives, err := strconv.Atoi(m.Attributes["ApproximateReceiveCount"])
		if err != nil {
			return nil, fmt.Errorf("read event: message %.40q does not say how often it was received", m.MessageId)
		}
		batch = append(batch, queue.Delivery{ID: m.MessageId, Body: []byte(m.Body), Receives: receives, Receipt: m.ReceiptHandle})
	}
	return batch, nil
}

// Response says which messages have to come again; SQS deletes the others. The
// event source mapping must ask for it: ReportBatchItemFailures
// (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting).
func Response(failed []string) events.SQSEventResponse {
	r := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
	for _, id := range failed {
		r.BatchItemFailures = append(r.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: id})
	}
	return r
}
