package local_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/sqlitestore"
)

// asleep opens a system whose worker and reaper do not run, with the roomy
// registration.
func asleep(b *testing.B, dir string) *local.System {
	b.Helper()
	write(b, dir, "123456789012.json", roomy)
	s, err := local.Open(b.Context(), local.Config{Dir: dir, URL: "http://bench.localhost", Limits: store.DefaultLimits()})
	if err != nil {
		b.Fatal(err)
	}
	percent := debug.SetGCPercent(local.GCPercent) // as garo local does
	b.Cleanup(func() {
		debug.SetGCPercent(percent)
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// cpu returns the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// slice is how many calls are made, or bare commits, before it is the other's turn:
// a fraction of a second, so that what else the machine does meets both.
const slice = 500

// against runs f b.N times on as many goroutines, in turn with bare SQLite commits.
// It reports how often a second each is done, their ratio, and the processor time of
// each: that is less moved by what else runs here.
func against(b *testing.B, goroutines int, f func(goroutine int, n int64) error) {
	b.Helper()
	bare := newYardstick(b)
	var next atomic.Int64
	var took, used time.Duration
	b.ResetTimer()
	for done := 0; done < b.N; done += slice {
		end := int64(min(b.N, done+slice))
		var wg sync.WaitGroup
		began, before := time.Now(), cpu(b)
		for g := range goroutines {
			wg.Go(func() {
				for n := next.Add(1); n <= end; n = next.Add(1) {
					if err := f(g, n); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		took, used = took+time.Since(began), used+cpu(b)-before
		next.Store(end)
		b.StopTimer()
		bare.commit(b, slice)
		b.StartTimer()
	}
	b.StopTimer()
	rate := float64(b.N) / took.Seconds()
	b.ReportMetric(rate, "starts/s")
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(bare.rate(), "bare-commits/s")
	b.ReportMetric(float64(bare.used.Microseconds())/float64(bare.n), "bare-cpu-µs/commit")
	b.ReportMetric(rate/bare.rate(), "ratio")
}

// caller is a client that costs next to nothing, since it shares the processors
// with what is measured: one connection, and one call after another.
type caller struct {
	conn net.Conn
	r    *bufio.Reader
}

func dial(b *testing.B, addr net.Addr) caller {
	b.Helper()
	conn, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", addr.String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return caller{conn, bufio.NewReader(conn)}
}

// startBody is the body of the nth POST /start. They take turns over the repositories.
func startBody(n int64) string {
	return fmt.Sprintf(`{"repo":"octo/cat%d","type":"spot","labels":["bench"],"mode":"shared","idempotency_key":"%d"}`, (n%repositories+repositories)%repositories, n)
}

// start makes the nth POST /start.
func (c caller) start(token string, n int64) error {
	body := startBody(n)
	_, err := fmt.Fprintf(c.conn, "POST /start HTTP/1.1\r\nHost: bench.localhost\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", token, len(body), body)
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("POST /start = %s, want 202", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// yardstick is what SQLite itself does in a file of its own, with the store's schema
// and settings: one prepared statement that inserts the row of a request, again and
// again.
type yardstick struct {
	insert     *sql.Stmt
	item       string
	n          int
	took, used time.Duration
}

func newYardstick(b *testing.B) *yardstick {
	b.Helper()
	s, err := sqlitestore.Open(b.Context(), filepath.Join(b.TempDir(), "bare.db"))
	if err != nil {
		b.Fatal(err)
	}
	r := finished(0)
	item, err := store.Encode(&r)
	if err != nil {
		b.Fatal(err)
	}
	insert, err := s.DB().PrepareContext(b.Context(), `INSERT INTO items (kind, id, version, due_at, repository, state, cursor, open, item)
		VALUES ('request', ?, 1, ?, '1001', 'accepted', ?, '1001', ?)`)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := errors.Join(insert.Close(), s.Close()); err != nil {
			b.Error(err)
		}
	})
	return &yardstick{insert: insert, item: string(item)}
}

// commit makes n commits.
func (y *yardstick) commit(b *testing.B, n int) {
	b.Helper()
	began, before := time.Now(), cpu(b)
	for range n {
		y.n++
		at := began.Add(time.Duration(y.n)).UTC().Format(time.RFC3339Nano)
		if _, err := y.insert.ExecContext(b.Context(), fmt.Sprintf("r%d", y.n), at, at, y.item); err != nil {
			b.Fatal(err)
		}
	}
	y.took, y.used = y.took+time.Since(began), y.used+cpu(b)-before
}

// rate is how many it made a second.
func (y *yardstick) rate() float64 { return float64(y.n) / y.took.Seconds() }

// BenchmarkStartsOverTCP is how many starts a second are accepted through a
// socket, beside what bare SQLite commits on the same disk: of the front door
// alone, and with workers, reaper and machines at work on them. The more clients
// call at once, the more of their commits share a transaction.
func BenchmarkStartsOverTCP(b *testing.B) {
	for _, c := range []struct {
		name    string
		clients int
		serve   func(ctx context.Context, s *local.System, l net.Listener)
	}{
		{"door/clients=16", 16, door},
		{"door/clients=64", 64, door},
		{"door/clients=128", 128, door},
		{"whole/clients=64", 64, func(ctx context.Context, s *local.System, l net.Listener) { _ = s.Serve(ctx, l) }}, // it ends with ctx
	} {
		b.Run(c.name, func(b *testing.B) {
			s := asleep(b, b.TempDir())
			l, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var served sync.WaitGroup
			served.Go(func() { c.serve(ctx, s, l) })
			clients := make([]caller, c.clients)
			for i := range clients {
				clients[i] = dial(b, l.Addr())
			}
			against(b, c.clients, func(goroutine int, n int64) error {
				return clients[goroutine].start(s.Token.Reveal(), n)
			})
			cancel()
			served.Wait()
		})
	}
}

// door serves the API, and nothing works behind it.
func door(ctx context.Context, s *local.System, l net.Listener) {
	server := http.Server{Handler: s.Handler(), ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	_ = server.Serve(l) // it ends with ctx
}

// letters makes an id of a number: ids have no 0, 1, 8 or 9.
var letters = strings.NewReplacer("0", "a", "1", "b", "8", "h", "9", "i")

// finished returns a request as the nth of them is long after its end.
func finished(n int) store.Request {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Second)
	entry := func(state, reason string) store.Entry { return store.Entry{At: at, State: state, Reason: reason} }
	return store.Request{
		ID: letters.Replace(fmt.Sprintf("%026d", n)), State: store.Ready, CreatedAt: at, Caller: "operator local", Trace: "ovbykzxhvunwybksgbmu6gxamy",
		Repository: store.Repository{ID: "1001", Name: repository, OwnerID: "1", Owner: "acme"},
		Account:    local.BuiltIn, Region: local.Region, Type: store.Spot, Labels: []string{"bench"}, Mode: store.Shared, Spec: "default",
		OwnLabel: "garo-abcdefghijklmnopqrstuvwxyz", BodyHash: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", TimeoutS: 3600,
		Runner: "kaoj7gn7lrlzp7nj5ae36tgkza", Sends: 1, SentAt: at, GiveUpAt: at.Add(15 * time.Minute), ReadyAt: at, EndedAt: at,
		History: store.History{entry("accepted", ""), entry("waiting", "launches runner kaoj7gn7lrlzp7nj5ae36tgkza"), entry("ready", "runner online")},
	}
}

// fill records n finished requests.
func fill(b *testing.B, s *sqlitestore.Store, n int) {
	b.Helper()
	session := store.NewWriter(s, "fill", time.Now)
	for from := 0; from < n; from += store.MaxChanges {
		var changes []store.Change
		for i := from; i < min(n, from+store.MaxChanges); i++ {
			r := finished(i)
			changes = append(changes, store.Put(&r))
		}
		if err := session.Commit(b.Context(), changes...); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHandlers is what the two calls cost that every caller makes, without a
// socket.
func BenchmarkHandlers(b *testing.B) {
	s := asleep(b, b.TempDir())
	c := s.Client()
	do := func(method, path, body string, want int) string {
		req, err := http.NewRequestWithContext(b.Context(), method, "http://bench.localhost"+path, strings.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.Token.Reveal())
		req.Header.Set("Content-Type", "application/json")
		if body == "" {
			req.Body = http.NoBody
		}
		resp, err := c.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want {
			b.Fatalf("%s %s = %s %s, %v; want %d", method, path, resp.Status, answer, err, want)
		}
		return string(answer)
	}
	n := int64(0)
	b.Run("start", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n++
			do(http.MethodPost, "/start", startBody(n), http.StatusAccepted)
		}
	})
	b.Run("start-again", func(b *testing.B) {
		do(http.MethodPost, "/start", startBody(0), http.StatusAccepted)
		b.ReportAllocs()
		for b.Loop() {
			do(http.MethodPost, "/start", startBody(0), http.StatusAccepted)
		}
	})
	b.Run("status", func(b *testing.B) {
		var started apitype.Started
		if err := json.Unmarshal([]byte(do(http.MethodPost, "/start", startBody(-1), http.StatusAccepted)), &started); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			do(http.MethodGet, "/status/"+started.ID, "", http.StatusOK)
		}
	})
}

// repositories is how many the starts of a benchmark are for: some hundred open
// requests of each, as after a burst.
const repositories = 20

// roomy is a registration that has room for all that a benchmark starts: its open
// requests are as many as a registration may allow.
var roomy = func() string {
	var repos []string
	for i := range repositories {
		repos = append(repos, fmt.Sprintf(`{"id": "%d", "name": "octo/cat%d"}`, 2000+i, i))
	}
	return `{
	"id": "123456789012", "external_id": "a-made-up-one",
	"repositories": [` + strings.Join(repos, ", ") + `],
	"regions": {"us-east-1": {"subnets": ["subnet-x"], "security_groups": ["sg-x"], "images": ["ami-x"]}},
	"instance_types": ["c7g.large"], "default_instance_types": ["c7g.large"], "markets": ["spot"], "modes": ["shared", "ephemeral"],
	"max_runners": 1000000, "max_open_requests": 25000, "pacing": {"burst": 1000000, "interval_ms": 1}, "github": {}
}`
}()

// BenchmarkWorker is what one request costs the worker, from its message to the
// message's end: one that shares a live runner, and one that launches a machine
// and registers it. Messages come in batches of ten, as they do from SQS.
func BenchmarkWorker(b *testing.B) {
	for _, mode := range []string{store.Shared, store.Ephemeral} {
		b.Run(map[string]string{store.Shared: "share", store.Ephemeral: "launch"}[mode], func(b *testing.B) {
			dir := b.TempDir()
			write(b, dir, "123456789012.json", roomy)
			s, err := local.Open(b.Context(), local.Config{
				Dir: dir, URL: "http://bench.localhost", Limits: store.DefaultLimits(),
				NeverBoots: func(int) bool { return mode == store.Ephemeral }, // what machines do is no work of the worker's
			})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			c := client.Must(client.New(client.Config{
				URL: "http://bench.localhost", HTTP: s.Client(), Token: func(context.Context) (client.Token, error) { return s.Token, nil },
			}))
			start := func() {
				if _, err := c.Start(b.Context(), apitype.Start{Repo: "octo/cat0", Mode: mode}); err != nil {
					b.Fatal(err)
				}
			}
			take := func() {
				if err := s.Take(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			start()
			take()
			if mode == store.Shared {
				until(b, "the shared runner", func() bool { return online(b, s) == 1 })
			}
			for range b.N {
				start()
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range (b.N + local.Batch - 1) / local.Batch {
				take()
			}
			b.StopTimer()
			settled := 0
			for i, err := range s.Store.List(b.Context(), store.Filter{Kind: store.KindRequest}) {
				if err != nil {
					b.Fatal(err)
				}
				if i.(*store.Request).Runner != "" {
					settled++
				}
			}
			if settled != b.N+1 {
				b.Fatalf("%d of %d requests have a runner: the figures are of something else", settled, b.N+1)
			}
		})
	}
}

// online returns how many runners are.
func online(b *testing.B, s *local.System) (n int) {
	b.Helper()
	for _, err := range s.Store.List(b.Context(), store.Filter{Kind: store.KindRunner, States: []string{string(store.RunnerOnline)}}) {
		if err != nil {
			b.Fatal(err)
		}
		n++
	}
	return n
}

// BenchmarkReaper is a run of the reaper over a hundred live runners: what is
// long over must not make it longer.
func BenchmarkReaper(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("finished=%d", n), func(b *testing.B) {
			const live = 100
			s := asleep(b, b.TempDir())
			c := client.Must(client.New(client.Config{
				URL: "http://bench.localhost", HTTP: s.Client(), Token: func(context.Context) (client.Token, error) { return s.Token, nil },
			}))
			for range live {
				if _, err := c.Start(b.Context(), apitype.Start{Repo: "octo/cat0", Mode: store.Ephemeral}); err != nil {
					b.Fatal(err)
				}
			}
			for range live / local.Batch {
				if err := s.Take(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			until(b, "the machines", func() bool { return online(b, s) == live })
			fill(b, s.Store, n)
			if _, err := s.Reap(b.Context(), false); err != nil { // the first one sweeps, which is due every five minutes
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				report, err := s.Reap(b.Context(), false)
				if err != nil || report.Runners != live {
					b.Fatalf("the reaper looked at %d runners, %v; want %d", report.Runners, err, live)
				}
			}
		})
	}
}
