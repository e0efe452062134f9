// Package startup is how the Lambda functions begin: what their three mains
// have in common, with the table, the queue and the parameters that each of them
// works with.
//
// It promises that a function which cannot start says why in one line of the log,
// and that what is slow starts at once and in parallel, before the first event. A
// wrong environment ends the process: only a new deployment corrects it. What has to
// be fetched does not: it may be there in a moment, or once somebody has written it,
// and the next event that needs it fetches it again. So nothing that fails here can
// keep a function from working later.
package startup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/awshttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/ssmparam"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/bundle"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/settings"
	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/sqsqueue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
)

const (
	// fetchLimit is how long a function waits for what it fetches before the first
	// event. Lambda restarts a process that takes more than 10 s
	// (https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-ib).
	fetchLimit = 5 * time.Second
	// exchange is how long one HTTP exchange with AWS may take. Answers take
	// milliseconds; what takes seconds is lost, and there must be time to ask again
	// within the 10 s of a call of the API.
	exchange = 3 * time.Second
	// maxAccounts is how many registrations are fetched in advance: SSM gives 40
	// reads a second to all processes that start together.
	maxAccounts = 10
)

// Process is what a function is started with.
type Process struct {
	Environ []string  // in the form of os.Environ
	Dir     string    // where the function's zip is unpacked
	Out     io.Writer // for the log
}

// Main starts a function and has it handle events for as long as the process
// lives. name is the program's. start returns what lambda.Start takes; its error
// ends the process.
func Main(name string, start func(context.Context, Process) (any, error)) {
	useMemory(os.Getenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"))
	handler, err := begin(context.Background(), name, os.Stdout, start)
	if err != nil {
		os.Exit(1)
	}
	// Lambda's Go runtime prints the error of an invocation by way of package log: so
	// it becomes an entry like all others.
	slog.SetDefault(newLog(os.Stdout, slog.LevelInfo))
	lambda.Start(handler)
}

// useMemory lets the heap grow to five times what is live before garbage is collected,
// where Go's default is two: the functions have a few megabytes that are live, so that
// it would run every 4 MB, which is a fifth of the processor time of a cold start
// (docs/performance.md). From three quarters of the function's memory on it is
// collected as often as it takes to stay below. mb is how Lambda says what there is;
// anywhere else it is empty, and Go's defaults stay.
func useMemory(mb string) {
	n, err := strconv.ParseInt(mb, 10, 32)
	if err != nil {
		return
	}
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(n << 20 / 4 * 3)
}

func begin(ctx context.Context, name string, out io.Writer, start func(context.Context, Process) (any, error)) (any, error) {
	dir, err := bundle.Dir()
	var handler any
	if err == nil {
		handler, err = start(ctx, Process{Environ: os.Environ(), Dir: dir, Out: out})
	}
	if err != nil {
		newLog(out, slog.LevelInfo).ErrorContext(ctx, name+" cannot start", "error", err)
	}
	return handler, err
}

// Base is what every function works with.
type Base struct {
	Log        *slog.Logger
	AWS        aws.Config // of the SDK's clients, with an HTTP client that they share
	Parameters *ssmparam.Parameters
	Store      store.Store // whose commits are counted
	Queue      *sqsqueue.Sender
	// Metrics has what was counted since the last event.
	Metrics *metrics.Tally

	controlPlane, queueURL string
}

// Open returns what a function works with, and calls nothing yet.
func Open(out io.Writer, c settings.Common) (*Base, error) {
	log := newLog(out, c.LogLevel)
	for _, typo := range c.Typos {
		log.Warn("environment", "typo", typo)
	}
	cfg, err := sdk()
	if err != nil {
		return nil, err
	}
	tally := new(metrics.Tally)
	return &Base{
		Log: log, AWS: cfg, Parameters: ssmparam.New(ssmparam.Config{AWS: cfg, Prefix: c.Parameters, Log: log}),
		Store: metrics.Counted(dynamostore.New(cfg, c.Table, nil), tally.Add), Queue: sqsqueue.NewSender(cfg, c.QueueURL),
		Metrics: tally, controlPlane: c.ControlPlane, queueURL: c.QueueURL,
	}, nil
}

// Handler returns a function as Lambda's runtime takes it. f is what lambda.Start takes.
// After each event, however it ended, one line of the log has what was counted
// meanwhile, if anything was, and what measure then adds to it. nil: nothing.
func (b *Base) Handler(f any, measure func() metrics.Figures) lambda.Handler {
	return measured{lambda.NewHandler(f), func(ctx context.Context) {
		counted := b.Metrics.Take()
		if counted == nil {
			return
		}
		if measure != nil {
			maps.Copy(counted, measure())
		}
		counted.Log(ctx, b.Log, b.controlPlane, time.Now())
	}}
}

// measured is a handler, and what is done after each of its events.
type measured struct {
	lambda.Handler
	after func(context.Context)
}

// Invoke implements lambda.Handler.
func (m measured) Invoke(ctx context.Context, event []byte) ([]byte, error) {
	defer m.after(ctx)
	return m.Handler.Invoke(ctx, event)
}

// Fetch does all at once that can be done before the first event: the tasks, the
// connections to the table and the queue, and the accounts' registrations, each with
// next for its id, such as taking on its role (nil: nothing). It returns when all is
// done, or after five seconds. It logs what fails: the first event that needs it
// fetches it again.
func (b *Base) Fetch(ctx context.Context, next func(ctx context.Context, id string) error, tasks ...Task) {
	fetch(ctx, b.Log, append(tasks, registrations(b.Log, b.Parameters, next), table(b.Store), connection(b.AWS, b.queueURL))...)
}

// newLog calls the time as Lambda does: it takes a line without a timestamp for one
// of level info, and drops it, alarms included, when it is to keep less than that
// (https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html).
func newLog(out io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			a.Key = "timestamp"
		}
		return a
	}}))
}

// sdk returns the configuration of the SDK's clients. Lambda puts credentials and region into the environment; nothing else
// is asked, so that a program contains no other way to come by credentials.
func sdk() (aws.Config, error) {
	env, err := config.NewEnvConfig()
	if err != nil {
		return aws.Config{}, fmt.Errorf("configure the AWS SDK: %w", err)
	}
	if env.Region == "" || !env.Credentials.HasKeys() {
		return aws.Config{}, errors.New("configure the AWS SDK: AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not all set: Lambda sets them")
	}
	cfg := aws.Config{
		Region: env.Region, Credentials: credentials.StaticCredentialsProvider{Value: env.Credentials},
		HTTPClient: awshttp.Client(exchange), ConfigSources: []any{env},
		RetryMode: env.RetryMode, RetryMaxAttempts: env.RetryMaxAttempts,
	}
	if env.BaseEndpoint != "" {
		cfg.BaseEndpoint = &env.BaseEndpoint
	}
	return cfg, nil
}

// keep is how long a Kept value is used: as long as parameters are.
const keep = 5 * time.Minute

// Kept is a value that is made when it is first needed, and again once it is five
// minutes old: what is made of the control plane's keys, so that a rotation counts
// without a new deployment. Make is needed. It is safe for concurrent use if Make
// is; who comes while it is made makes another.
type Kept[T any] struct {
	Make func(context.Context) (T, error)

	mu    sync.Mutex // never held during Make
	value T
	made  time.Time // zero: never
}

// Get returns the value. An error is Make's: a value that is too old serves no more.
func (k *Kept[T]) Get(ctx context.Context) (T, error) {
	k.mu.Lock()
	value, made := k.value, k.made
	k.mu.Unlock()
	if !made.IsZero() && time.Since(made) < keep {
		return value, nil
	}
	value, err := k.Make(ctx)
	if err != nil {
		return value, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.value, k.made = value, time.Now()
	return value, nil
}

// Task is something that is done before the first event.
type Task struct {
	Name string
	Do   func(context.Context) error
}

func fetch(ctx context.Context, log *slog.Logger, tasks ...Task) {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	began := time.Now()
	together(ctx, log, tasks)
	log.DebugContext(ctx, "fetched in advance", "took_ms", time.Since(began).Milliseconds())
}

func together(ctx context.Context, log *slog.Logger, tasks []Task) {
	var wg sync.WaitGroup
	for _, task := range tasks {
		wg.Go(func() {
			if err := task.Do(ctx); err != nil {
				log.WarnContext(ctx, "not fetched in advance", "what", task.Name, "error", err)
			}
		})
	}
	wg.Wait()
}

func registrations(log *slog.Logger, accounts store.Accounts, next func(ctx context.Context, id string) error) Task {
	return Task{"registrations", func(ctx context.Context) error {
		ids, err := accounts.List(ctx)
		if err != nil {
			return err
		}
		var tasks []Task
		for _, id := range ids[:min(len(ids), maxAccounts)] {
			tasks = append(tasks, Task{"account " + id, func(ctx context.Context) error {
				if _, err := accounts.Account(ctx, id); err != nil || next == nil {
					return err
				}
				return next(ctx, id)
			}})
		}
		together(ctx, log, tasks)
		return nil
	}}
}

// table reads an item that is not there: it opens the connection to the table,
// and shows whether there is one.
func table(records store.Store) Task {
	return Task{"table", func(ctx context.Context) error {
		_, err := records.Get(ctx, store.Ref{Kind: store.KindRequest, ID: "none"})
		return err
	}}
}

// connection opens a connection to the host of an address. What is answered does
// not matter.
func connection(cfg aws.Config, address string) Task {
	return Task{"connection to " + address, func(ctx context.Context) error {
		u, err := url.Parse(address)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.ResolveReference(&url.URL{Path: "/"}).String(), nil)
		if err != nil {
			return err
		}
		resp, err := cfg.HTTPClient.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body) // else the connection is not used again
		_ = resp.Body.Close()
		return err
	}}
}
