package local_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/sqlitestore"
)

// callers is how many clients call at once: enough that neither side waits for
// the other, on the two processors that these figures are for.
const callers = 16

// asleep opens a system whose worker and reaper do not run.
func asleep(b *testing.B, dir string) *local.System {
	b.Helper()
	s, err := local.Open(b.Context(), local.Config{Dir: dir, URL: "http://bench.localhost", Limits: store.DefaultLimits()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// inParallel runs f b.N times on as many goroutines, and reports how often a second.
func inParallel(b *testing.B, goroutines int, unit string, f func(n int64) error) float64 {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range goroutines {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				if err := f(n); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	rate := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate, unit)
	return rate
}

// startCall makes the nth POST /start with a client, as bare as a client can be.
func startCall(ctx context.Context, c *http.Client, url, token string, n int64) error {
	body := fmt.Sprintf(`{"repo": "acme/shop", "type": "spot", "labels": ["bench"], "mode": "shared", "idempotency_key": "%d"}`, n)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/start", bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("POST /start = %s, want 202", resp.Status)
	}
	return nil
}

// bare returns how many commits a second SQLite makes in a file of its own, with
// the store's schema and settings: one prepared statement that inserts the row of
// a request, again and again.
func bare(b *testing.B, commits int) float64 {
	b.Helper()
	s, err := sqlitestore.Open(b.Context(), filepath.Join(b.TempDir(), "bare.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	r := finished(0)
	item, err := store.Encode(&r)
	if err != nil {
		b.Fatal(err)
	}
	insert, err := s.DB().PrepareContext(b.Context(), `INSERT INTO items (kind, id, version, due_at, repository, state, cursor, item)
		VALUES ('request', ?, 1, ?, '1001', 'accepted', ?, ?)`)
	if err != nil {
		b.Fatal(err)
	}
	defer insert.Close()
	began := time.Now()
	for n := range commits {
		at := began.Add(time.Duration(n)).UTC().Format(time.RFC3339Nano)
		if _, err := insert.ExecContext(b.Context(), fmt.Sprintf("r%d", n), at, at, string(item)); err != nil {
			b.Fatal(err)
		}
	}
	return float64(commits) / time.Since(began).Seconds()
}

// BenchmarkStartsOverTCP is how many starts a second are accepted through a
// socket, beside what bare SQLite commits on the same disk: of the front door
// alone, and with workers, reaper and machines at work on them.
func BenchmarkStartsOverTCP(b *testing.B) {
	for _, whole := range []bool{false, true} {
		b.Run(map[bool]string{false: "door", true: "whole"}[whole], func(b *testing.B) {
			s := asleep(b, b.TempDir())
			l, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var served sync.WaitGroup
			served.Go(func() {
				if whole {
					_ = s.Serve(ctx, l) // it ends with the benchmark
					return
				}
				server := http.Server{Handler: s.Handler(), ReadHeaderTimeout: time.Minute}
				defer context.AfterFunc(ctx, func() { _ = server.Close() })()
				_ = server.Serve(l)
			})
			c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
			rate := inParallel(b, callers, "starts/s", func(n int64) error {
				return startCall(ctx, c, "http://"+l.Addr().String(), s.Token.Reveal(), n)
			})
			c.CloseIdleConnections()
			cancel()
			served.Wait()
			commits := bare(b, max(b.N, 2000))
			b.ReportMetric(commits, "bare-commits/s")
			b.ReportMetric(rate/commits, "ratio")
		})
	}
}

// finished returns a request as the nth of them is long after its end.
func finished(n int) store.Request {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Second)
	entry := func(state, reason string) store.Entry { return store.Entry{At: at, State: state, Reason: reason} }
	return store.Request{
		ID: fmt.Sprintf("%026d", n), State: store.Ready, CreatedAt: at, Caller: "operator local", Trace: "ovbykzxhvunwybksgbmu6gxamy",
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
	session := store.NewSession(s, "fill", time.Now)
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
