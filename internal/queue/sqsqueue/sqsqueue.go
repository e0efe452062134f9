// Package sqsqueue is the queue in Amazon SQS: a standard queue with a dead letter
// queue, as Terraform makes them. Sender is for the API, the worker and the reaper,
// and links nothing but SendMessage and SendMessageBatch; Queue is the whole contract, for a process that
// polls on its own. Deliveries and Response are for a Lambda function that SQS's event
// source invokes: each message fails alone, since the source deletes what is not
// answered as failed, and delivers the rest again.
//
// The SDK's own retries are on: a message is a hint, so one that was sent twice does
// no harm, and one that was received by a call whose answer was lost comes again
// after its visibility timeout.
//
// # Where SQS is weaker than the contract says
//
//   - It counts in whole seconds. A delay is rounded up, and a wait down. What is
//     then 0 the SDK leaves out, so the queue's own delay and wait must be 0 too.
//   - A receive that does not wait asks some of the servers alone, and may find
//     nothing where there is something.
//   - Delete and Release by a stale receipt change nothing, as a rule: SQS does not
//     promise it (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_DeleteMessage.html).
//     Nothing is lost by that, since the reaper retries overdue work.
//   - A message is moved to the dead letter queue when it would be received the next
//     time, and Dead sees it from then on.
package sqsqueue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

const (
	// maxBatch is how many messages one receive returns, and maxWait how long one
	// waits
	// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html).
	maxBatch = 10
	maxWait  = 20 * time.Second
)

// Sender is a queue.Sender and a queue.BatchSender. It is safe for concurrent use, and has nothing to close.
type Sender struct {
	url     string
	send    func(context.Context, *sqs.SendMessageInput, ...func(*sqs.Options)) (*sqs.SendMessageOutput, error)
	sendAll func(context.Context, *sqs.SendMessageBatchInput, ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error)
}

var (
	_ queue.Sender      = (*Sender)(nil)
	_ queue.BatchSender = (*Sender)(nil)
)

// NewSender returns the sender of the queue with that URL. It calls nobody. cfg's
// HTTPClient should be that of package awshttp.
func NewSender(cfg aws.Config, url string) *Sender {
	return sender(sqs.NewFromConfig(cfg), url)
}

func sender(client *sqs.Client, url string) *Sender {
	return &Sender{url, client.SendMessage, client.SendMessageBatch}
}

// Send implements queue.Sender. A delay is rounded up to whole seconds.
func (s *Sender) Send(ctx context.Context, m queue.Message, delay time.Duration) error {
	body, err := queue.Encode(m)
	if err != nil {
		return err
	}
	if delay < 0 || delay > queue.MaxDelay {
		return fmt.Errorf("send message: delay %v, want 0 to %v", delay, queue.MaxDelay)
	}
	_, err = s.send(ctx, &sqs.SendMessageInput{QueueUrl: &s.url, MessageBody: new(string(body)), DelaySeconds: seconds(delay)})
	if err != nil {
		return explain("send message to", s.url, err)
	}
	return nil
}

// seconds returns d rounded up.
func seconds(d time.Duration) int32 { return int32((d + time.Second - 1) / time.Second) }

// Queue is a queue.Queue. It is safe for concurrent use, and has nothing to close.
type Queue struct {
	*Sender
	dead string // the URL of the dead letter queue

	// Method values, and no interface: see the package dynamostore.
	receive func(context.Context, *sqs.ReceiveMessageInput, ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error)
	remove  func(context.Context, *sqs.DeleteMessageInput, ...func(*sqs.Options)) (*sqs.DeleteMessageOutput, error)
	change  func(context.Context, *sqs.ChangeMessageVisibilityInput, ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityOutput, error)
}

var _ queue.Queue = (*Queue)(nil)

// New returns the queue with that URL, whose redrive policy names the queue with
// the URL dead after queue.MaxReceives. It calls nobody. The timeout of cfg's
// HTTPClient, which should be that of package awshttp, must be well above the 20 s
// that a receive may wait.
func New(cfg aws.Config, url, dead string) *Queue {
	client := sqs.NewFromConfig(cfg)
	return &Queue{
		sender(client, url), dead,
		client.ReceiveMessage, client.DeleteMessage, client.ChangeMessageVisibility,
	}
}

// Receive implements queue.Queue. It returns at most 10 messages, whatever max is.
func (q *Queue) Receive(ctx context.Context, max int, wait time.Duration) ([]queue.Delivery, error) {
	if max < 1 {
		return nil, fmt.Errorf("receive messages: %d, want at least 1", max)
	}
	deadline := time.Now().Add(wait)
	for {
		out, err := q.receive(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &q.url, MaxNumberOfMessages: int32(min(max, maxBatch)), WaitTimeSeconds: int32(min(wait, maxWait) / time.Second),
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameApproximateReceiveCount},
		})
		if err != nil {
			return nil, explain("receive messages from", q.url, err)
		}
		if wait = time.Until(deadline); len(out.Messages) == 0 && wait >= time.Second {
			continue
		}
		got := make([]queue.Delivery, len(out.Messages))
		for n, m := range out.Messages {
			got[n] = queue.Delivery{
				ID: aws.ToString(m.MessageId), Body: []byte(aws.ToString(m.Body)),
				Receives: int(attribute(m, types.MessageSystemAttributeNameApproximateReceiveCount)),
				Receipt:  aws.ToString(m.ReceiptHandle),
			}
		}
		return got, nil
	}
}

// attribute returns a number that SQS tells of a message. One that it does not
// tell, or that is no number, is 0.
func attribute(m types.Message, name types.MessageSystemAttributeName) int64 {
	n, _ := strconv.ParseInt(m.Attributes[string(name)], 10, 64)
	return n
}

// Delete implements queue.Queue.
func (q *Queue) Delete(ctx context.Context, d queue.Delivery) error {
	_, err := q.remove(ctx, &sqs.DeleteMessageInput{QueueUrl: &q.url, ReceiptHandle: &d.Receipt})
	if err != nil && !stale(err) {
		return explain("delete message "+d.ID+" from", q.url, err)
	}
	return nil
}

// Release implements queue.Queue. A delay is rounded up to whole seconds; SQS takes
// at most 12 hours.
func (q *Queue) Release(ctx context.Context, d queue.Delivery, delay time.Duration) error {
	if delay < 0 {
		return fmt.Errorf("release message %s: delay %v, want at least 0", d.ID, delay)
	}
	_, err := q.change(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &q.url, ReceiptHandle: &d.Receipt, VisibilityTimeout: seconds(delay)})
	if err != nil && !stale(err) {
		return explain("release message "+d.ID+" to", q.url, err)
	}
	return nil
}

// Limits of one Dead.
const (
	// looks bounds the calls, and with it the messages to 500: enough to see what is
	// wrong, where an alarm has told that something is.
	looks = 50
	// hold is how long a message that was looked at is kept from others at most:
	// what all looks take, and soon enough when the process dies in between.
	hold = 30 * time.Second
	// lookWait makes SQS ask all of its servers; a second is its shortest.
	lookWait = time.Second
)

// Dead implements queue.Queue, as far as SQS lets anybody look: there is no call
// that lists. It receives what is in the dead letter queue, at most 500 messages,
// until nothing comes, and gives it all back; a process that dies in between gives
// it back 30 s later. Two that look at the same time see a part each. (The SDK
// cannot ask for a visibility timeout of 0, which would hide nothing.)
func (q *Queue) Dead(ctx context.Context) ([]queue.Dead, error) {
	var dead []queue.Dead
	var taken []*string // receipts
	for range looks {
		out, err := q.receive(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &q.dead, MaxNumberOfMessages: maxBatch, VisibilityTimeout: seconds(hold), WaitTimeSeconds: seconds(lookWait),
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{
				types.MessageSystemAttributeNameApproximateReceiveCount, types.MessageSystemAttributeNameSentTimestamp,
			},
		})
		if err != nil {
			return nil, explain("list dead messages in", q.dead, err)
		}
		if len(out.Messages) == 0 {
			break
		}
		for _, m := range out.Messages {
			taken = append(taken, m.ReceiptHandle)
			dead = append(dead, queue.Dead{
				ID: aws.ToString(m.MessageId), Body: []byte(aws.ToString(m.Body)),
				// The dead letter queue may count from the start; that the message is in it
				// says that it was received so often.
				Receives: max(queue.MaxReceives, int(attribute(m, types.MessageSystemAttributeNameApproximateReceiveCount))),
				SentAt:   time.UnixMilli(attribute(m, types.MessageSystemAttributeNameSentTimestamp)).UTC(),
			})
		}
	}
	for _, receipt := range taken { // one by one: a batch leaves out a timeout of 0
		in := &sqs.ChangeMessageVisibilityInput{QueueUrl: &q.dead, ReceiptHandle: receipt, VisibilityTimeout: 0}
		if _, err := q.change(ctx, in); err != nil && !stale(err) {
			return nil, explain("give dead messages back to", q.dead, err)
		}
	}
	slices.SortFunc(dead, func(a, b queue.Dead) int { return cmp.Or(a.SentAt.Compare(b.SentAt), cmp.Compare(a.ID, b.ID)) })
	return dead, nil
}

// code returns the error code that AWS gave, without what may stand before it: the
// namespace of JSON, or the prefix that codes had before SQS spoke JSON and that it
// still sends (AWS.SimpleQueueService.NonExistentQueue).
func code(err error) string {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return ""
	}
	_, name, namespace := strings.Cut(api.ErrorCode(), "#")
	if !namespace {
		name = api.ErrorCode()
	}
	return strings.TrimPrefix(name, "AWS.SimpleQueueService.")
}

// stale reports whether SQS refused a receipt that is no longer the newest, or
// whose message is gone.
func stale(err error) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return false
	}
	switch code(err) {
	case "ReceiptHandleIsInvalid", "MessageNotInflight":
		return true
	case "InvalidParameterValue", "InvalidParameterValueException":
		return strings.Contains(api.ErrorMessage(), "ReceiptHandle") // and no other parameter
	}
	return false
}

// advice is what an operator can do about an error, by its code.
var advice = map[string]string{
	"NonExistentQueue":            missing,
	"QueueDoesNotExist":           missing,
	"InvalidAddress":              missing,
	"AccessDenied":                "the role may not do this: compare its policy with the one that Terraform makes",
	"AccessDeniedException":       "the role may not do this: compare its policy with the one that Terraform makes",
	"KmsAccessDenied":             "the role may not use the queue's key: compare the key's policy with the one that Terraform makes",
	"KMS.AccessDeniedException":   "the role may not use the queue's key: compare the key's policy with the one that Terraform makes",
	"InvalidClientTokenId":        "AWS does not know these credentials: check the role or profile that this process runs with",
	"UnrecognizedClientException": "AWS does not know these credentials: check the role or profile that this process runs with",
	"ExpiredToken":                "the credentials of this process have expired: get new ones",
}

const missing = "there is no such queue: compare GARO_QUEUE_URL and the region with Terraform's output, and apply Terraform"

// explain names the queue, and what to do if that is known.
func explain(op, url string, err error) error {
	if what, ok := advice[code(err)]; ok {
		return fmt.Errorf("%s queue %s: %s: %w", op, url, what, err)
	}
	return fmt.Errorf("%s queue %s: %w", op, url, err)
}
