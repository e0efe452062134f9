package sqlitestore

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// accepted returns a request as POST /start records it.
func accepted(id string) *store.Request {
	r := store.Request{
		ID: id, Caller: "github octocat", Trace: "Root=1-67891233-abcdef012345678912345678",
		Repository: store.Repository{ID: "123456789", Name: "alphagov/example", OwnerID: "596977", Owner: "alphagov"},
		Origin:     store.Origin{RunID: "9876543210", RunAttempt: "1", CheckRunID: "44556677", Actor: "octocat", Event: "push", Ref: "refs/heads/main", Workflow: "ci"},
		Account:    "123456789012", Region: "eu-west-2", Type: store.Spot, Labels: []string{"large", "linux"}, Mode: store.Shared,
		TimeoutS: 3600,
	}
	return &store.Case{Request: r}.Accept(time.Now().UTC(), store.Identity{
		ID: id, Trace: r.Trace, BodyHash: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", GiveUp: 15 * time.Minute,
		OwnLabel: func(string) string { return "garo-abcdefghijklmnopqrstuvwxyz" },
	}).Request
}

// BenchmarkBareSQLite is what BenchmarkCommit is compared with: the same row,
// by one prepared statement, without a condition.
func BenchmarkBareSQLite(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "garo.db"))
	for n := 0; b.Loop(); n++ {
		c, err := encode([]store.Change{store.Put(accepted(fmt.Sprintf("r%d", n)))})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.put.ExecContext(b.Context(), c.members[0].put...); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}

// BenchmarkCommit creates requests, from one caller and from many at once.
func BenchmarkCommit(b *testing.B) {
	for _, callers := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "garo.db"))
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						if err := s.Commit(b.Context(), store.Put(accepted(fmt.Sprintf("r%d", n)))); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

// BenchmarkReadsDuringWrites reads a request while another caller writes without
// a pause: through the writing handle alone, and through a pool beside it.
func BenchmarkReadsDuringWrites(b *testing.B) {
	for _, pool := range []int{0, 1, 2, 4, 8} {
		b.Run(fmt.Sprintf("pool=%d", pool), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "garo.db")
			s := open(b, path)
			if pool == 0 {
				db, err := sql.Open("sqlite", dsn(path, forWriting))
				if err != nil {
					b.Fatal(err)
				}
				db.SetMaxOpenConns(1)
				b.Cleanup(func() { _ = db.Close() })
				if s, err = New(b.Context(), db); err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { _ = s.Close() })
			} else {
				s.read.SetMaxOpenConns(pool)
			}
			r := accepted("r")
			if err := s.Commit(b.Context(), store.Put(r)); err != nil {
				b.Fatal(err)
			}
			stop, writes := make(chan struct{}), 0
			var wg sync.WaitGroup
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					if err := s.Commit(b.Context(), store.Put(accepted(fmt.Sprintf("w%d", n)))); err != nil {
						b.Error(err)
						return
					}
					writes++
				}
			})
			b.ResetTimer()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := s.Get(b.Context(), r.Ref()); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
			close(stop)
			wg.Wait()
			b.ReportMetric(float64(writes)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}
