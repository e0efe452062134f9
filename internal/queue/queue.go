// Package queue is the contract of the queue between the API and the worker, and
// the codec of its messages. A message is a hint: it may come late, twice, out of
// order or never, and the record decides what to do.
package queue

import (
	"context"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// MaxDelay is the longest delay of a message
// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-delay-queues.html).
const MaxDelay = 15 * time.Minute

// Kind says what a message asks for.
type Kind string

// The kinds of message.
const (
	Start  Kind = "start"  // ID names a request: find or launch a runner for it
	Resume Kind = "resume" // ID names a runner: continue with its launch
	Next   Kind = "next"   // ID names a runner: mint its config N
	Job    Kind = "job"    // ID names the request of a workflow job: hear what GitHub says of it
	Check  Kind = "check"  // ID names a check: carry it out. A worker of before cannot, and leaves it to the next
)

// Message is what the worker is asked to do.
type Message struct {
	Kind    Kind
	ID      string // of the request, the runner or the check
	Account string // of a request, and
	Lock    string // its lock key, so that one read fetches all; both empty for others
	N       int    // of Next: the config number that is wanted
	Seen    Seen   // of Job
	Trace   string
}

// Seen is what a webhook said of a workflow job, as far as it fits into a message. The
// worker asks GitHub for the rest.
type Seen struct {
	// Repository is where the job is, without its Server and Owner: the account's
	// registration has the one, and the other is in Name.
	Repository store.Repository
	Job, Run   string // GitHub's numbers
	// Status is what the webhook said. Empty: GitHub is to be asked.
	Status store.JobStatus
	// Runner and Registration are as store.Sighting has them.
	Runner       string
	Registration int64
}

// JobOf returns the message that tells of a workflow job what was seen of it. request is
// the id of the request for it, whether there is a record or not, and account is that of
// the registration that serves its repository.
func JobOf(request, account string, repo store.Repository, s store.Sighting, trace string) Message {
	return Message{Kind: Job, ID: request, Account: account, Trace: trace, Seen: Seen{
		Repository: store.Repository{ID: repo.ID, Name: repo.Name, OwnerID: repo.OwnerID},
		Job:        s.Job.ID, Run: s.Job.RunID, Status: s.Status, Runner: sendable(s.Runner), Registration: s.Registration,
	}}
}

// Sighting is what was seen, as far as the message has it.
func (s Seen) Sighting() store.Sighting {
	return store.Sighting{Job: store.WorkflowJob{ID: s.Job, RunID: s.Run}, Status: s.Status, Runner: s.Runner, Registration: s.Registration}
}

// sendable is the name of a runner as a message has it. One that it cannot have is no
// name of ours, and stays none.
func sendable(name string) string {
	name = strings.Map(func(r rune) rune {
		if !strings.ContainsRune(nameChars, r) {
			return '_'
		}
		return r
	}, name)
	return name[:min(len(name), maxName)]
}

// StartOf returns the message that asks for a runner for r.
func StartOf(r store.Request) Message {
	return Message{Kind: Start, ID: r.ID, Account: r.Account, Lock: r.LockKey(), Trace: r.Trace}
}

// Of returns the message of a decision: it asks for a runner for a request, or for news of
// a workflow job whose request is not accepted, for the next config of a runner that runs,
// to continue with any other runner, or to carry out a check.
func Of(s store.Send) Message {
	if c, ok := s.Item.(*store.Checkup); ok {
		return Message{Kind: Check, ID: c.ID, Trace: c.Trace}
	}
	if r, ok := s.Item.(*store.Request); ok {
		if r.OfJob() && r.State != store.Accepted {
			return JobOf(r.ID, r.Account, r.Repository, store.Sighting{Job: r.Job}, r.Trace)
		}
		return StartOf(*r)
	}
	r := s.Item.(*store.Runner)
	if (r.State == store.RunnerOnline || r.State == store.RunnerBusy) && r.Wanted > r.Config.N {
		return Message{Kind: Next, ID: r.ID, N: r.Wanted, Trace: r.Trace}
	}
	return Message{Kind: Resume, ID: r.ID, Trace: r.Trace}
}

// Delivery is a message on its way to a worker.
type Delivery struct {
	// ID names the delivery, to report it as failed.
	ID string
	// Body is the encoded message, as yet unchecked.
	Body []byte
	// Receives counts deliveries of this message, this one included.
	Receives int
	// Receipt acknowledges this delivery and no other.
	Receipt string
}

// Dead is a message that was received too often.
type Dead struct {
	ID       string
	Body     []byte
	Receives int
	SentAt   time.Time
}

// Sender puts messages into the queue. It is safe for concurrent use.
type Sender interface {
	// Send makes m visible to workers after delay, which is from 0 to MaxDelay or
	// an error. After any other error it may have been sent all the same.
	Send(ctx context.Context, m Message, delay time.Duration) error
}

// Outgoing is a message on its way into the queue, and its delay.
type Outgoing struct {
	Message
	Delay time.Duration
}

// BatchSender puts many messages into the queue. It is safe for concurrent use.
type BatchSender interface {
	// SendAll sends all messages, at most MaxBatch, in one call. It returns one error
	// for each that was not sent, or may not have been, in the order of the messages,
	// with nil for the others; nil says that all were sent. One message that is refused
	// holds up no other.
	SendAll(ctx context.Context, all ...Outgoing) []error
}

// MaxBatch is how many messages one SendAll takes. SQS takes ten, of 1 MiB together,
// which ten of ours never reach
// (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html).
const MaxBatch = 10

// Each returns what SendAll answers when one thing is wrong with all of n messages.
func Each(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// Queue is the whole contract, for a process that polls: in AWS, Lambda's event
// source does that part. It delivers at least once and in no order.
type Queue interface {
	Sender
	BatchSender

	// Receive returns at most max messages, at least 1, waiting up to wait for the
	// first one. None is no error; a context that ends is its error. Each is hidden from others until its visibility timeout
	// passes, and comes again unless it was deleted by then.
	Receive(ctx context.Context, max int, wait time.Duration) ([]Delivery, error)

	// Delete ends the message of a delivery. A receipt that is no longer the
	// newest one deletes nothing and is no error: the message may be lost to
	// nobody but the one who holds it.
	Delete(ctx context.Context, d Delivery) error

	// Release makes the message of a delivery visible again after delay; a stale
	// receipt changes nothing.
	Release(ctx context.Context, d Delivery, delay time.Duration) error

	// Dead returns the messages that were received MaxReceives times without
	// being deleted, and whose last visibility timeout has passed, oldest first.
	// Listing takes nothing away.
	Dead(ctx context.Context) ([]Dead, error)
}

// MaxReceives is after how many receives a message is dead. Receives count
// crashes and throttled workers alone, since waiting sends a new message.
const MaxReceives = 5
