package local_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/sqlitestore"
)

// history records n requests that ended long ago, as finished returns them, in one
// statement: a million takes half a minute. The oldest has failed.
func history(b *testing.B, s *sqlitestore.Store, n int) {
	b.Helper()
	if n == 0 {
		return
	}
	r := finished(0)
	r.Version = 1
	item, err := store.Encode(&r)
	if err != nil {
		b.Fatal(err)
	}
	const day = "2026-01-01T00:00:00" // of the first
	if _, err := s.DB().ExecContext(b.Context(), `
		WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?),
			made(i, id, at) AS (SELECT i, replace(replace(replace(replace(printf('%026d', i), '0', 'a'), '1', 'b'), '8', 'h'), '9', 'i'), strftime('%Y-%m-%dT%H:%M:%S', ?, '+' || i || ' seconds') FROM n)
		INSERT INTO items (kind, id, version, repository, state, cursor, ttl, item)
		SELECT 'request', id, 1, '1001', iif(i = 0, 'failed', 'ready'), at || '.000000000Z#' || id, 1900000000,
			replace(replace(iif(i = 0, replace(?, '"state":"ready"', '"state":"failed"'), ?), ?, at), ?, id)
		FROM made`, n, day, string(item), string(item), day, r.ID); err != nil {
		b.Fatal(err)
	}
}

// get makes a GET, which must be answered with 200.
func get(b *testing.B, s *local.System, path string) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://bench.localhost"+path, http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.Token.Reveal())
	resp, err := s.Client().Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b.Fatalf("GET %s = %s, want 200", path, resp.Status)
	}
}

// post makes the nth POST /start, without a socket.
func post(client *http.Client, token string, n int64) error {
	req, err := http.NewRequest(http.MethodPost, "http://bench.localhost/start", strings.NewReader(startBody(n)))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("POST /start = %s, want 202", resp.Status)
	}
	return nil
}

// BenchmarkStarts is how many starts a second the API's handler accepts, by how
// many call at once and how many records there are, beside bare SQLite commits.
func BenchmarkStarts(b *testing.B) {
	for _, records := range []int{0, 10_000, 100_000} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			s := asleep(b, b.TempDir())
			history(b, s.Store, records)
			var used atomic.Int64 // idempotency keys
			for _, clients := range []int{1, 16, 128} {
				b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
					against(b, clients, func(int, int64) error { return post(s.Client(), s.Token.Reveal(), used.Add(1)) })
				})
			}
		})
	}
}

// BenchmarkGrowth is what reads cost beside records that ended long ago.
func BenchmarkGrowth(b *testing.B) {
	for _, records := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			s := asleep(b, b.TempDir())
			history(b, s.Store, records)
			const open = 100
			for n := range int64(open) {
				if err := post(s.Client(), s.Token.Reveal(), n); err != nil {
					b.Fatal(err)
				}
			}
			middle := finished(records / 2)
			for _, c := range []struct{ name, path string }{
				{"first", "/requests"},
				{"after", "/requests?after=" + strings.ReplaceAll(store.Cursor(&middle), "#", "%23")},
				{"common-state", "/requests?state=ready"},
				{"rare-state", "/requests?state=failed"},
				{"no-such-state", "/requests?state=expired"},
				{"repository", "/requests?repository=1001"},
				{"no-such-repository", "/requests?repository=7"},
			} {
				b.Run("requests/"+c.name, func(b *testing.B) {
					for b.Loop() {
						get(b, s, c.path)
					}
				})
			}
			b.Run("due", func(b *testing.B) {
				for b.Loop() {
					found := 0
					for _, err := range s.Store.Due(b.Context(), time.Now().Add(time.Hour)) {
						if err != nil {
							b.Fatal(err)
						}
						found++
					}
					if found != open {
						b.Fatalf("%d items are due, want %d", found, open)
					}
				}
			})
			b.Run("list-100", func(b *testing.B) {
				for b.Loop() {
					for _, err := range s.Store.List(b.Context(), store.Filter{Limit: 100}) {
						if err != nil {
							b.Fatal(err)
						}
					}
				}
			})
			b.Run("expire-nothing", func(b *testing.B) {
				for b.Loop() {
					if n, err := s.Store.Expire(b.Context(), time.Now()); err != nil || n != 0 {
						b.Fatalf("Expire = %d, %v; want none", n, err)
					}
				}
			})
		})
	}
}
