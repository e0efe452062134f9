// Package worker takes queued requests to launched, configured runners: it finds
// a runner to share or launches one, registers it at GitHub, and seals its config
// into the record. When the machine says that its runner program listens, it asks
// GitHub whether it shows the runner online, which makes the request ready.
//
// It promises that a request gets at most one usable machine, however often its
// message comes and wherever a worker dies. Every step is recorded before the
// next begins, and every call to EC2 or GitHub that has an effect is made under a
// claim on the runner; so a successor continues at the first step that is not
// recorded, with the same client token and the same bytes. Waiting is not failing:
// a message that has to wait is sent again with a delay, or by the reaper, and only
// crashes count against it.
package worker

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Fleet is what the worker asks of a fleet.Fleet: it launches, and ends nothing.
type Fleet interface {
	Image(ctx context.Context, at fleet.Place, image string) (string, error)
	RootVolume(ctx context.Context, at fleet.Place, ami string) (store.Root, error)
	Types(ctx context.Context, at fleet.Place, rules store.Requirements) ([]store.InstanceType, error)
	Launch(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error)
	ByToken(ctx context.Context, at fleet.Place, runner, token string) (fleet.Instance, error)
	Console(ctx context.Context, at fleet.Place, id string) (string, error)
}

// GitHub is what the worker asks of a github.API.
type GitHub interface {
	Mint(ctx context.Context, scope github.Scope, name string, labels []string) (github.Minted, error)
	Get(ctx context.Context, scope github.Scope, id int64) (github.Runner, error)
	List(ctx context.Context, scope github.Scope, prefix string) iter.Seq2[github.Runner, error]
}

// Workflows is what the worker asks of a github.Jobs.
type Workflows interface {
	Run(ctx context.Context, repo github.Repository, id int64) (github.Run, error)
	RunJobs(ctx context.Context, repo github.Repository, run int64) ([]github.Job, error)
	Job(ctx context.Context, repo github.Repository, id int64) (github.Job, error)
	Cancel(ctx context.Context, repo github.Repository, run int64) error
}

// Config is what a Worker is made of. Every field without a default is needed.
type Config struct {
	Store    store.Store
	Queue    queue.Sender
	Accounts store.Accounts
	Fleet    Fleet
	GitHub   GitHub
	// Workflows tells of workflow jobs. nil: nobody does, and their requests wait.
	Workflows Workflows
	Keys      *keys.Ring
	// Doctor carries out checks. nil: there are none.
	Doctor Doctor
	// FreshKeys reads the keys again: another process may know of a rotation already.
	// nil: Keys are all that there ever are.
	FreshKeys    func(context.Context) (*keys.Ring, error)
	Identity     identity.Trust // by whose word machines boot; regions that it has not are refused
	Limits       store.Limits
	ControlPlane string            // 1 to 16 of a-z, 0-9 and hyphen: names what is ours in EC2 and GitHub
	APIURL       string            // where machines call
	Agents       map[string]string // SHA-256 of the agent that the API serves, by GOARCH
	ProgramKey   string            // store.ProgramKey of the runner programs that the API offers
	Now          func() time.Time  // default time.Now
	Random       io.Reader         // default crypto/rand.Reader; must be safe for concurrent use
	Log          *slog.Logger      // default: discards
}

// Worker handles batches of messages. It is safe for concurrent use.
type Worker struct {
	Config
	capacity  capacity
	asked     asked
	ring      ring
	runs      runs
	open      *intake.Gauge
	points    points
	throttles throttles
	offers    offers
}

// New returns a Worker.
func New(c Config) *Worker {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Worker{Config: c, ring: ring{keys: c.Keys}, runs: runs{Now: c.Now, Keep: time.Hour}, open: intake.NewGauge(c.Store, c.Now)}
}

const (
	// Timeout is how long one batch may take. Four launches of a few seconds and
	// their commits fit; the queue hides messages for longer.
	Timeout = 30 * time.Second
	// claimSlack: a Lambda can be killed late, by 0.7 s as measured by others;
	// its claim holds until it is surely gone.
	claimSlack = 2 * time.Second
	// lastLaunch is what must be left of the invocation to begin a RunInstances
	// call: its answer can take seconds, and must still be recorded.
	lastLaunch = 8 * time.Second
	// readConsole bounds the reading of what a machine printed that did not boot: its
	// error is better with it, and others wait meanwhile.
	readConsole = 2 * time.Second
	// lastCommit is what must be left to try a commit again after a conflict.
	lastCommit = 5 * time.Second
	// early is how much before its due_at a request is taken up: clocks differ,
	// and a queue's delay is in whole seconds.
	early = 2 * time.Second
)

// errLater ends the work on a message whose time is up in this invocation; a
// message that continues it has been sent.
var errLater = errors.New("continues later")

// invocation is one batch on its way.
type invocation struct {
	*Worker
	id       string
	session  *store.Writer
	deadline time.Time

	mu      sync.Mutex
	driving map[string]bool // the runners that a goroutine of this invocation takes on
}

// enter reports whether the caller is the first of this invocation to take the
// runner on: one batch can name it more than once.
func (in *invocation) first(runner string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	first := !in.driving[runner]
	in.driving[runner] = true
	return first
}

// Handle works on a batch and returns the ids of the deliveries that have to come
// again: those that failed by no fault of the record, and those that cannot be
// read. It returns before ctx's deadline, or Timeout if ctx has none, and leaves
// no goroutine behind.
func (w *Worker) Handle(ctx context.Context, batch []queue.Delivery) (failed []string) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(Timeout)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	in := &invocation{Worker: w, driving: map[string]bool{}, deadline: w.Now().Add(time.Until(deadline))} // the deadline by our own clock
	id, err := keys.NewID(w.Random)
	if err != nil {
		w.Log.Error("no invocation id", "error", err)
		for _, d := range batch {
			failed = append(failed, d.ID)
		}
		return failed
	}
	in.id = "worker-" + id[:12]
	in.session = store.NewWriter(w.Store, in.id, w.Now)

	errs := in.work(ctx, batch)
	for i, d := range batch {
		if errs[i] != nil && !errors.Is(errs[i], errLater) {
			failed = append(failed, d.ID)
			w.Log.Error("message comes again", "delivery", d.ID, "receives", d.Receives, "error", errs[i])
		}
	}
	return failed
}

// work works on all messages of a batch side by side, those about one runner one after
// another, and returns the error of each.
func (in *invocation) work(ctx context.Context, batch []queue.Delivery) []error {
	errs := make([]error, len(batch))
	var starts []*start
	var jobs []*told
	var runners []string              // those that resume and next messages name, and checks
	messages := map[string][]func(){} // what to do for each of them, one after another
	var wg sync.WaitGroup
	for i, d := range batch {
		m, err := queue.Decode(d.Body)
		switch {
		case err != nil:
			errs[i] = fmt.Errorf("message cannot be read: %w", err)
		case m.Kind == queue.Start:
			starts = append(starts, &start{Message: m, err: &errs[i]})
		case m.Kind == queue.Job:
			jobs = append(jobs, &told{Message: m, err: &errs[i]})
		default:
			if messages[m.ID] == nil {
				runners = append(runners, m.ID)
			}
			take := in.resume
			if m.Kind == queue.Check {
				take = in.check
			}
			messages[m.ID] = append(messages[m.ID], func() { in.guard(&errs[i], func() error { return take(ctx, m) }) })
		}
	}
	var brokenJobs error
	wg.Go(func() { in.guard(&brokenJobs, func() error { in.jobs(ctx, jobs); return nil }) })
	for _, id := range runners {
		wg.Go(func() {
			for _, handle := range messages[id] {
				handle()
			}
		})
	}
	var broken error
	in.guard(&broken, func() error { in.starts(ctx, starts); return nil })
	wg.Wait()
	for _, s := range starts {
		*s.err = cmp.Or(*s.err, broken)
	}
	for _, j := range jobs {
		*j.err = cmp.Or(*j.err, brokenJobs)
	}
	return errs
}

// guard turns a panic into the failure of one message.
func (in *invocation) guard(err *error, work func() error) {
	defer func() {
		if p := recover(); p != nil {
			in.alarm(store.AlarmPanic, "worker panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			*err = fmt.Errorf("panic: %v", p)
		}
	}()
	if e := work(); e != nil {
		*err = e
	}
}

func (w *Worker) alarm(code store.Alarm, msg string, args ...any) {
	code.Raise(context.Background(), w.Log, msg, args...)
}

// left is what is left of the invocation.
func (in *invocation) left() time.Duration { return in.deadline.Sub(in.Now()) }

// claim is the right to call EC2 and GitHub until this invocation is surely over.
func (in *invocation) claim() store.Claim {
	return store.Claim{By: in.id, Until: in.deadline.Add(claimSlack)}
}

// jitter returns a duration below d, from the injected source.
func (in *invocation) jitter(d time.Duration) time.Duration {
	var b [8]byte
	if _, err := io.ReadFull(in.Random, b[:]); err != nil || d <= 0 {
		return d / 2
	}
	return time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(d))
}

// backoff is the pause before try n (from 1) of a commit that lost: short, since
// the winner is done already, and random, so that the losers do not meet again.
func (in *invocation) backoff(ctx context.Context, n int) error {
	return sleep.For(ctx, in.jitter(min(300*time.Millisecond, 10*time.Millisecond<<min(n, 7))))
}

// sendAll sends the messages of a decision that is committed.
func (in *invocation) sendAll(ctx context.Context, d store.Decision) {
	for _, s := range d.Sends {
		in.send(ctx, queue.Of(s), s.Due)
	}
}

// send sends m, to be visible at due. A failure is logged, not returned: the
// record shows overdue work, and the reaper sends it again.
func (in *invocation) send(ctx context.Context, m queue.Message, due time.Time) {
	delay := min(max(0, due.Sub(in.Now())), queue.MaxDelay)
	if err := in.Queue.Send(ctx, m, delay); err != nil {
		in.Log.Warn("message not sent; the reaper will", "kind", string(m.Kind), "id", m.ID, "trace", m.Trace, "error", err)
	}
}
