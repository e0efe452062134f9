package sqlitequeue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	_ "modernc.org/sqlite"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/queuetest"
	"github.com/alphagov/github-actions-runner-orchestration/store/sqlitestore"
)

// openDB opens a database as the store has it.
func openDB(t testing.TB, path string, connections int) *sql.DB {
	t.Helper()
	// 30 s: only a machine that stands still makes a writer wait so long.
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=busy_timeout(30000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(connections)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	return db
}

func open(t testing.TB, db *sql.DB, visibility time.Duration, now func() time.Time) *Queue {
	t.Helper()
	q, err := New(t.Context(), db, nil, visibility, now)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// message returns message i: its trace says so.
func message(i int) queue.Message {
	return queue.Message{Kind: queue.Resume, ID: "abcdefghijklmnopqrstuvwxya", Trace: fmt.Sprintf("m%d", i)}
}

func send(t testing.TB, q *Queue, m queue.Message, delay time.Duration) {
	t.Helper()
	if err := q.Send(t.Context(), m, delay); err != nil {
		t.Fatal(err)
	}
}

func receive(t testing.TB, q *Queue, max int, wait time.Duration) []queue.Delivery {
	t.Helper()
	got, err := q.Receive(t.Context(), max, wait)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestQueue(t *testing.T) {
	const visibility = 40 * time.Second
	queuetest.Run(t, queuetest.Setup{
		Open: func(t *testing.T) queue.Queue {
			return open(t, openDB(t, filepath.Join(t.TempDir(), "q.db"), 1), visibility, nil)
		},
		Visibility: visibility,
		Bubble:     true,
	})
}

// TestQueueInTheStoresTransactions is the queue as garo local has it.
func TestQueueInTheStoresTransactions(t *testing.T) {
	const visibility = 40 * time.Second
	queuetest.Run(t, queuetest.Setup{
		Open: func(t *testing.T) queue.Queue {
			s, err := sqlitestore.Open(t.Context(), filepath.Join(t.TempDir(), "garo.db"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("close the store: %v", err)
				}
			})
			q, err := New(t.Context(), s.DB(), s.Exec, visibility, nil)
			if err != nil {
				t.Fatal(err)
			}
			return q
		},
		Visibility: visibility,
		Bubble:     true,
	})
}

// A local start should reach its worker in milliseconds: no receiver waits for a
// poll when it need not. In a bubble that is exact.
func TestNobodyWaitsForAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := open(t, openDB(t, filepath.Join(t.TempDir(), "q.db"), 1), 10100*time.Millisecond, nil)
		wait := func(what string, want time.Duration, act func()) (d queue.Delivery) {
			t.Helper()
			done := make(chan struct{})
			go func() {
				defer close(done)
				got, err := q.Receive(t.Context(), 1, time.Minute)
				if err != nil || len(got) != 1 {
					t.Errorf("Receive of what is %s = %v, %v; want one message", what, got, err)
					return
				}
				d = got[0]
			}()
			time.Sleep(300 * time.Millisecond)
			synctest.Wait()
			began := time.Now()
			act()
			<-done
			if took := time.Since(began); took != want {
				t.Errorf("Receive took %v from when the message was %s, want %v", took, what, want)
			}
			return d
		}
		d := wait("sent", 0, func() { send(t, q, message(1), 0) })
		d = wait("released", 0, func() {
			if err := q.Release(t.Context(), d, 0); err != nil {
				t.Error(err)
			}
		})
		wait("left alone", 9800*time.Millisecond, func() {})
		wait("sent with a delay", 2500*time.Millisecond, func() { send(t, q, message(2), 2500*time.Millisecond) })
	})
}

func TestReceiveEndsWhenItShould(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := open(t, openDB(t, filepath.Join(t.TempDir(), "q.db"), 1), time.Minute, nil)
		began := time.Now()
		got := receive(t, q, 1, 4300*time.Millisecond)
		if took := time.Since(began); len(got) > 0 || took != 4300*time.Millisecond {
			t.Errorf("Receive with 4.3 s from an empty queue = %v after %v", got, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 4300*time.Millisecond)
		defer cancel()
		began = time.Now()
		got, err := q.Receive(ctx, 1, time.Minute)
		if took := time.Since(began); len(got) > 0 || !errors.Is(err, context.DeadlineExceeded) || took != 4300*time.Millisecond {
			t.Errorf("Receive until its context ends at 4.3 s = %v, %v after %v", got, err, took)
		}
	})
}

func TestAnotherQueueOnTheFileIsSeenWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openDB(t, filepath.Join(t.TempDir(), "q.db"), 1)
		q, other := open(t, db, time.Minute, nil), open(t, db, time.Minute, nil)
		send(t, q, message(0), time.Minute) // what is known to come later must not hide it
		var got []queue.Delivery
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			got, err = q.Receive(t.Context(), 1, 30*time.Second)
		}()
		synctest.Wait()
		time.Sleep(10500 * time.Millisecond)
		began := time.Now()
		send(t, other, message(1), 0)
		<-done
		if took := time.Since(began); err != nil || len(got) != 1 || took > time.Second {
			t.Errorf("Receive = %v, %v after %v; want one message within 1s", got, err, took)
		}
	})
}

func TestMessagesOutliveTheirDatabaseHandle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "q.db")
	db := openDB(t, path, 1)
	q := open(t, db, time.Hour, nil)
	for i := range 3 {
		send(t, q, message(i), 0)
	}
	held := receive(t, q, 1, 0)[0]
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	q = open(t, openDB(t, path, 1), time.Hour, nil)
	if got := receive(t, q, 10, 0); len(got) != 2 || got[0].Receives != 1 {
		t.Errorf("Receive after a restart = %v, want the two messages that nobody holds", got)
	}
	if err := q.Delete(t.Context(), held); err != nil {
		t.Error(err)
	}
	later := open(t, openDB(t, path, 1), time.Hour, func() time.Time { return time.Now().Add(2 * time.Hour) })
	if got := receive(t, later, 10, 0); len(got) != 2 || got[0].Receives != 2 {
		t.Errorf("Receive two hours later = %v, want the two messages that were not deleted", got)
	}
}

func TestDeadMessagesAreForgottenAfterTwoWeeks(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "q.db"), 1)
	at := time.Now()
	now := func() time.Time { return at }
	q := open(t, db, time.Second, now)
	send(t, q, message(1), 0)
	for range queue.MaxReceives {
		receive(t, q, 1, 0)
		at = at.Add(time.Second)
	}
	send(t, q, message(2), 0)
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {14 * 24 * time.Hour, 1}, {time.Second, 0}} {
		at = at.Add(c.after)
		q = open(t, db, time.Second, now)
		if dead, err := q.Dead(t.Context()); err != nil || len(dead) != c.want {
			t.Errorf("Dead after %v more = %v, %v; want %d messages", c.after, dead, err, c.want)
		}
	}
	if got := receive(t, q, 10, 0); len(got) != 1 {
		t.Errorf("Receive = %v, want the old message that is not dead", got)
	}
}

// A receive must not read what is delayed, held or dead.
func TestReceiveUsesTheIndex(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "q.db"), 1)
	open(t, db, time.Minute, nil)
	var plan []string
	rows, err := db.QueryContext(t.Context(), "explain query plan "+takeSQL, 1, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, detail)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(plan, "; ")
	if !strings.Contains(got, "INDEX queue_visible (visible_at<?)") || strings.Contains(got, "SCAN") || strings.Contains(got, "TEMP B-TREE") {
		t.Errorf("plan of a receive: %s; want no scan and no sort", got)
	}
}

func TestDeadMessagesAreNotInTheIndex(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "q.db"), 1)
	open(t, db, time.Minute, nil)
	var partial bool
	err := db.QueryRowContext(t.Context(), `select partial from pragma_index_list('queue') where name = 'queue_visible'`).Scan(&partial)
	if err != nil || !partial {
		t.Errorf("index of the queue is partial = %v, %v; want true", partial, err)
	}
}

// Several connections, and another process that writes to the same file.
func TestManyConnectionsDeliverEachMessageOnce(t *testing.T) {
	const senders, each, receivers = 4, 50, 4
	path := filepath.Join(t.TempDir(), "q.db")
	q := open(t, openDB(t, path, 4), time.Hour, nil)
	other := openDB(t, path, 1)
	if _, err := other.ExecContext(t.Context(), `create table item (n integer)`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]int{}
	wg.Go(func() {
		for ctx.Err() == nil {
			tx, err := other.BeginTx(t.Context(), nil)
			if err != nil {
				t.Errorf("begin: %v", err)
				return
			}
			if _, err := tx.ExecContext(t.Context(), `insert into item values (1)`); err != nil {
				t.Errorf("insert: %v", err)
			}
			if err := tx.Commit(); err != nil {
				t.Errorf("commit: %v", err)
			}
		}
	})
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				if err := q.Send(ctx, message(s*each+i), 0); err != nil {
					t.Errorf("Send: %v", err)
				}
			}
		})
	}
	for range receivers {
		wg.Go(func() {
			for ctx.Err() == nil {
				got, err := q.Receive(ctx, 5, time.Minute)
				if err != nil && ctx.Err() == nil {
					t.Errorf("Receive: %v", err)
					cancel()
				}
				for _, d := range got {
					if err := q.Delete(t.Context(), d); err != nil {
						t.Errorf("Delete: %v", err)
					}
					m, err := queue.Decode(d.Body)
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					seen[m.Trace]++
					all := len(seen) == senders*each
					mu.Unlock()
					if all {
						cancel()
					}
				}
			}
		})
	}
	wg.Wait()
	if len(seen) != senders*each {
		t.Errorf("%d messages came, want %d", len(seen), senders*each)
	}
	for m, n := range seen {
		if n != 1 {
			t.Errorf("message %s came %d times, want once", m, n)
		}
	}
	if got := receive(t, q, 1, 0); len(got) > 0 {
		t.Errorf("Receive after all = %v, want nothing", got)
	}
}

func TestOutageIsAnError(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "q.db"), 1)
	q := open(t, db, time.Minute, nil)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	d := queue.Delivery{ID: "1", Receipt: "1/1"}
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"Send":    func() error { return q.Send(ctx, message(1), 0) },
		"Receive": func() error { _, err := q.Receive(ctx, 1, time.Minute); return err },
		"Delete":  func() error { return q.Delete(ctx, d) },
		"Release": func() error { return q.Release(ctx, d, 0) },
		"Dead":    func() error { _, err := q.Dead(ctx); return err },
		"New":     func() error { _, err := New(ctx, db, nil, time.Minute, nil); return err },
	} {
		if call() == nil {
			t.Errorf("%s on a closed database: no error", name)
		}
	}
}

// BenchmarkMessage is the whole life of a message, with none and with many
// others that wait for their time.
func BenchmarkMessage(b *testing.B) {
	for _, waiting := range []int{0, 5000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			q := open(b, openDB(b, filepath.Join(b.TempDir(), "q.db"), 1), time.Minute, nil)
			for i := range waiting {
				send(b, q, message(i), queue.MaxDelay)
			}
			for b.Loop() {
				send(b, q, message(0), 0)
				got := receive(b, q, 10, 0)
				if len(got) != 1 {
					b.Fatalf("Receive = %v, want one message", got)
				}
				if err := q.Delete(b.Context(), got[0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
