package startup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/settings"
	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

// logged returns a log and what was written to it.
func logged() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, nil)), &b
}

func TestFunctionThatCannotStartLogsOneLine(t *testing.T) {
	var out bytes.Buffer
	_, err := begin(t.Context(), "garo-test", &out, func(context.Context, Process) (any, error) {
		return nil, errors.New("GARO_TABLE is not set\nGARO_URL is not set")
	})
	var line struct {
		Level, Msg, Error string
		Timestamp         time.Time
	}
	if jerr := json.Unmarshal(out.Bytes(), &line); jerr != nil || err == nil {
		t.Fatalf("begin = %v and logs %s, %v; want an error and one JSON object", err, out.String(), jerr)
	}
	if line.Level != "ERROR" || line.Msg != "garo-test cannot start" || line.Error != "GARO_TABLE is not set\nGARO_URL is not set" || line.Timestamp.IsZero() {
		t.Errorf("line = %+v, want every mistake, and a timestamp", line)
	}
}

func TestFunctionIsStartedWithTheProcesssOwn(t *testing.T) {
	t.Setenv("GARO_TEST", "1")
	got, err := begin(t.Context(), "garo-test", io.Discard, func(_ context.Context, p Process) (any, error) {
		if !slices.Contains(p.Environ, "GARO_TEST=1") || p.Dir == "" || p.Out != io.Discard {
			t.Errorf("process = %+v, want the environment, the program's directory and the output", p)
		}
		return "handler", nil
	})
	if got != "handler" || err != nil {
		t.Errorf("begin = %v, %v; want what start returns", got, err)
	}
}

func TestLogTellsOfTyposAndKeepsToItsLevel(t *testing.T) {
	var out bytes.Buffer
	for name, value := range map[string]string{"AWS_REGION": "eu-west-2", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"} {
		t.Setenv(name, value)
	}
	base, err := Open(&out, settings.Common{LogLevel: slog.LevelWarn, Typos: []string{"GARO_TABEL is read by no function"}})
	if err != nil {
		t.Fatal(err)
	}
	log := base.Log
	log.Info("quiet")
	log.Error("loud", "alarm", "panic")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"level":"WARN"`) || !strings.Contains(lines[0], "GARO_TABEL") || !strings.Contains(lines[1], `"alarm":"panic"`) ||
		strings.Count(out.String(), `{"timestamp":"2`) != 2 {
		t.Errorf("log = %q, want the typo and the error, each as JSON with a timestamp", lines)
	}
}

func TestSDKIsConfiguredByTheEnvironmentAlone(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=AKIDTEST/") || r.Header.Get("X-Amz-Security-Token") != "session" {
			t.Errorf("call with %v, want the environment's credentials", r.Header)
		}
		fmt.Fprint(w, "{}")
	}))
	defer server.Close()
	for name, value := range map[string]string{
		"AWS_REGION": "eu-west-2", "AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "session",
		"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_DYNAMODB": server.URL, "AWS_ENDPOINT_URL_SQS": server.URL, "AWS_MAX_ATTEMPTS": "1",
	} {
		t.Setenv(name, value)
	}
	cfg, err := sdk()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dynamodb.NewFromConfig(cfg).ListTables(t.Context(), nil); err != nil {
		t.Errorf("DynamoDB at its own address: %v", err)
	}
	if _, err := sqs.NewFromConfig(cfg).ListQueues(t.Context(), nil); err != nil {
		t.Errorf("SQS at its own address: %v", err)
	}
	t.Setenv("AWS_ENDPOINT_URL_DYNAMODB", "")
	if cfg, err = sdk(); err != nil || *cfg.BaseEndpoint != "http://127.0.0.1:1" || cfg.RetryMaxAttempts != 1 {
		t.Errorf("sdk = %+v, %v; want the address of all services, and one attempt", cfg, err)
	}
	for _, name := range []string{"AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "")
			if _, err := sdk(); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("sdk without %s = %v, want an error that names it", name, err)
			}
		})
	}
	t.Run("AWS_MAX_ATTEMPTS", func(t *testing.T) {
		t.Setenv("AWS_MAX_ATTEMPTS", "x")
		if _, err := sdk(); err == nil || !strings.Contains(err.Error(), "AWS_MAX_ATTEMPTS") {
			t.Errorf("sdk with a malformed variable = %v, want an error that names it", err)
		}
	})
}

func TestKeptValueIsMadeAnewAfterFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		var fails error
		k := Kept[int]{Make: func(context.Context) (int, error) { n++; return n, fails }}
		expect := func(when string, want int, wantErr error) {
			t.Helper()
			if got, err := k.Get(t.Context()); !errors.Is(err, wantErr) || wantErr == nil && (got != want || err != nil) {
				t.Errorf("Get %s = %d, %v; want %d, %v", when, got, err, want, wantErr)
			}
		}
		fails = errors.New("no keys")
		expect("without keys", 0, fails)
		fails = nil
		expect("with keys", 2, nil)
		time.Sleep(keep - time.Second)
		expect("within five minutes", 2, nil)
		time.Sleep(time.Second)
		fails = errors.New("no keys any more")
		expect("when keys were withdrawn", 0, fails)
		fails = nil
		expect("after that", 4, nil)
		expect("again", 4, nil)
	})
}

func TestTasksAreDoneTogetherAndNoneForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, told := logged()
		second := func(context.Context) error { time.Sleep(time.Second); return nil }
		began := time.Now()
		fetch(t.Context(), log, Task{"a", second}, Task{"b", second}, Task{"c", func(context.Context) error { return errors.New("not there") }})
		if took := time.Since(began); took != time.Second {
			t.Errorf("two tasks of a second took %v, want a second", took)
		}
		if !strings.Contains(told.String(), "what=c") || !strings.Contains(told.String(), "not there") || strings.Contains(told.String(), "what=a") {
			t.Errorf("log = %s, want the one that failed", told)
		}
		began = time.Now()
		fetch(t.Context(), log, Task{"slow", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		if took := time.Since(began); took != fetchLimit || !strings.Contains(told.String(), "what=slow") {
			t.Errorf("a task without an end took %v and is reported as %s; want %v", took, told, fetchLimit)
		}
	})
}

// accounts registers as many as it says.
type accounts struct {
	n    int
	err  error
	mu   sync.Mutex
	read []string
}

func (a *accounts) List(context.Context) (ids []string, err error) {
	for i := range a.n {
		ids = append(ids, fmt.Sprintf("%012d", i))
	}
	return ids, a.err
}

func (a *accounts) Account(_ context.Context, id string) (store.Account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.read = append(a.read, id)
	if id == "000000000001" {
		return store.Account{}, errors.New("markets: want spot or ondemand")
	}
	return store.Account{ID: id}, nil
}

func TestTenRegistrationsAreReadInAdvance(t *testing.T) {
	log, told := logged()
	a := &accounts{n: 12}
	var mu sync.Mutex
	var next []string
	if err := registrations(log, a, func(_ context.Context, id string) error {
		mu.Lock()
		defer mu.Unlock()
		next = append(next, id)
		return nil
	}).Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(a.read) != maxAccounts || len(next) != maxAccounts-1 || slices.Contains(next, "000000000001") {
		t.Errorf("read %q, and continued with %q; want ten, and not to continue with a bad one", a.read, next)
	}
	if !strings.Contains(told.String(), "account 000000000001") || !strings.Contains(told.String(), "markets") {
		t.Errorf("log = %s, want the bad registration", told)
	}
	if err := registrations(log, &accounts{n: 1}, nil).Do(t.Context()); err != nil {
		t.Errorf("without anything to continue with: %v", err)
	}
	if err := registrations(log, &accounts{err: errors.New("no list")}, nil).Do(t.Context()); err == nil {
		t.Error("no error for accounts that cannot be listed")
	}
}

func TestTableIsReadAndNotWritten(t *testing.T) {
	memory := storetest.NewMemory()
	if err := table(memory).Do(t.Context()); err != nil {
		t.Errorf("a table without the item: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := table(memory).Do(ctx); err == nil {
		t.Error("no error for a table that cannot be read")
	}
}

func TestConnectionIsUsedAgain(t *testing.T) {
	var mu sync.Mutex
	connections, paths := map[string]bool{}, []string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		connections[r.RemoteAddr] = true
		paths = append(paths, r.URL.Path)
		http.Error(w, strings.Repeat("no such page ", 1000), http.StatusNotFound)
	}))
	defer server.Close()
	for name, value := range map[string]string{"AWS_REGION": "eu-west-2", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"} {
		t.Setenv(name, value)
	}
	cfg, err := sdk()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := connection(cfg, server.URL+"/123456789012/queue?x").Do(t.Context()); err != nil {
			t.Errorf("Connection: %v", err)
		}
	}
	if len(connections) != 1 || !slices.Equal(paths, []string{"/", "/"}) {
		t.Errorf("connections %v for %q, want one, and nothing asked of the queue", connections, paths)
	}
	server.Close()
	if err := connection(cfg, server.URL).Do(t.Context()); err == nil {
		t.Error("no error for a host that is not there")
	}
}

func TestFunctionUsesTheMemoryThatItHas(t *testing.T) {
	const none = 1<<63 - 1 // what Go calls no limit
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(none)
	defer func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) }()
	for _, c := range []struct {
		mb      string
		percent int
		limit   int64
	}{
		{"", 100, none}, {"much", 100, none}, {"256", 400, 192 << 20}, {"10240", 400, 7680 << 20},
	} {
		debug.SetGCPercent(100)
		debug.SetMemoryLimit(none)
		useMemory(c.mb)
		if limit, percent := debug.SetMemoryLimit(-1), debug.SetGCPercent(100); percent != c.percent || limit != c.limit {
			t.Errorf("with %q MB: %d %% and a limit of %d bytes, want %d %% and %d", c.mb, percent, limit, c.percent, c.limit)
		}
	}
}

func TestEventLeavesOneLineOfMetricsWhateverCameOfIt(t *testing.T) {
	failed := errors.New("failed")
	for name, c := range map[string]struct {
		event func(*metrics.Tally) error
		want  []string // in the one line; nil: there is none
		err   error
	}{
		"Counted":  {func(m *metrics.Tally) error { m.Add(metrics.Figures{metrics.Ready: {1}}); return nil }, []string{`"Ready":[1]`, `"GitHubLeft":[50]`, `"ControlPlane":"prod"`}, nil},
		"Failed":   {func(m *metrics.Tally) error { m.Add(metrics.Figures{metrics.Failed: {1}}); return failed }, []string{`"Failed":[1]`}, failed},
		"Panicked": {func(m *metrics.Tally) error { m.Add(metrics.Figures{metrics.Accepted: {1}}); panic("oh") }, []string{`"Accepted":[1]`}, nil},
		"Nothing":  {func(*metrics.Tally) error { return nil }, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			b := &Base{Log: newLog(&out, slog.LevelInfo), Metrics: new(metrics.Tally), controlPlane: "prod"}
			h := b.Handler(func() error { return c.event(b.Metrics) }, func() metrics.Figures { return metrics.Figures{metrics.GitHubLeft: {50}} })
			err := func() (err error) {
				defer func() {
					if recover() != nil {
						err = nil // Lambda's runtime ends the process with it
					}
				}()
				_, err = h.Invoke(t.Context(), []byte("{}"))
				return err
			}()
			if (err == nil) != (c.err == nil) {
				t.Errorf("Invoke = %v, want %v", err, c.err)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if c.want == nil {
				if out.Len() > 0 {
					t.Errorf("log = %s, want none", out.String())
				}
				return
			}
			for _, want := range c.want {
				if len(lines) != 1 || !strings.Contains(lines[0], want) {
					t.Errorf("log = %q, want one line with %s", lines, want)
				}
			}
			if b.Metrics.Take() != nil {
				t.Error("something is left for the next event")
			}
		})
	}
}
