package sqsqueue

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

// errUnanswered is of a message that SQS's answer to a batch does not name.
var errUnanswered = errors.New("the answer does not name the message")

// SendAll implements queue.BatchSender, by one SendMessageBatch. SQS answers for each
// message, with status 200 also when it took none: what is not named as taken may not
// have been
// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html).
func (s *Sender) SendAll(ctx context.Context, all ...queue.Outgoing) []error {
	if len(all) > queue.MaxBatch {
		return queue.Each(len(all), fmt.Errorf("send %d messages: want at most %d", len(all), queue.MaxBatch))
	}
	errs := make([]error, len(all))
	var entries []types.SendMessageBatchRequestEntry
	for i, m := range all {
		body, err := queue.Encode(m.Message)
		switch {
		case err != nil:
			errs[i] = err
		case m.Delay < 0 || m.Delay > queue.MaxDelay:
			errs[i] = fmt.Errorf("send message: delay %v, want 0 to %v", m.Delay, queue.MaxDelay)
		default:
			errs[i] = errUnanswered
			entries = append(entries, types.SendMessageBatchRequestEntry{
				Id: new(strconv.Itoa(i)), MessageBody: new(string(body)), DelaySeconds: seconds(m.Delay),
			})
		}
	}
	if len(entries) > 0 {
		s.sendEntries(ctx, entries, errs)
	}
	for i, err := range errs {
		if errors.Is(err, errUnanswered) {
			errs[i] = explain("send message to", s.url, err)
		}
	}
	for _, err := range errs {
		if err != nil {
			return errs
		}
	}
	return nil
}

// sendEntries makes the call, and puts what became of each message into errs.
func (s *Sender) sendEntries(ctx context.Context, entries []types.SendMessageBatchRequestEntry, errs []error) {
	set := func(id *string, err error) {
		if i, no := strconv.Atoi(aws.ToString(id)); no == nil && i >= 0 && i < len(errs) {
			errs[i] = err
		}
	}
	out, err := s.sendAll(ctx, &sqs.SendMessageBatchInput{QueueUrl: &s.url, Entries: entries})
	if err != nil {
		err = explain(fmt.Sprintf("send %d messages to", len(entries)), s.url, err)
		for _, e := range entries {
			set(e.Id, err)
		}
		return
	}
	for _, r := range out.Successful {
		set(r.Id, nil)
	}
	for _, r := range out.Failed {
		set(r.Id, fmt.Errorf("send message to queue %s: %s: %s", s.url, aws.ToString(r.Code), aws.ToString(r.Message)))
	}
}
