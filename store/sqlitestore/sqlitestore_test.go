package sqlitestore

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

// childFile is the variable that makes the test binary commit to a file until it
// is killed.
const childFile = "GARO_TEST_COMMIT_TO"

func TestMain(m *testing.M) {
	if path := os.Getenv(childFile); path != "" {
		commitForEver(path)
	}
	os.Exit(m.Run())
}

func open(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// shared returns a handle as a caller of New opens it.
func shared(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, forWriting))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return db
}

func file(t testing.TB) string { return filepath.Join(t.TempDir(), "garo.db") }

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, file(t)) })
}

func TestStoreInASharedHandle(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := New(t.Context(), shared(t, file(t)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		return s
	})
}

// turns gives every call to the other one of two stores, as two processes with
// one file would get them.
type turns struct {
	*Store
	other *Store
	n     atomic.Int64
}

func (s *turns) next() *Store {
	if s.n.Add(1)%2 == 0 {
		return s.Store
	}
	return s.other
}

func (s *turns) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	return s.next().Get(ctx, refs...)
}

func (s *turns) Commit(ctx context.Context, changes ...store.Change) error {
	return s.next().Commit(ctx, changes...)
}

func TestTwoStoresOfOneFile(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		path := file(t)
		return &turns{Store: open(t, path), other: open(t, path)}
	})
}

func TestOpenIsSafeAtOnceOnANewFile(t *testing.T) {
	path := file(t)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			s, err := Open(t.Context(), path)
			if err != nil {
				t.Errorf("Open: %v", err)
				return
			}
			if err := s.Commit(t.Context(), store.Put(accepted(fmt.Sprintf("r%d", n)))); err != nil {
				t.Errorf("Commit: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	wg.Wait()
	want(t, open(t, path), 8, "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7")
}

// want checks that those requests are there, and how many items there are in all.
func want(t *testing.T, s *Store, total int, requests ...string) {
	t.Helper()
	for _, id := range requests {
		got, err := store.Read[store.Request](t.Context(), s, id)
		if err != nil || got.Version != 1 {
			t.Errorf("request %s = version %d, %v; want version 1", id, got.Version, err)
		}
	}
	var n int
	if err := s.DB().QueryRowContext(t.Context(), "SELECT count(*) FROM items").Scan(&n); err != nil || n != total {
		t.Errorf("the file has %d items, %v; want %d", n, err, total)
	}
}

func TestAnyPathCanBeOpened(t *testing.T) {
	for _, name := range []string{"a b.db", "50%25.db", "what?x=1.db", "a#b.db", "a&_query_only=1.db", "ü.db", "file:x.db"} {
		path := filepath.Join(t.TempDir(), name)
		s := open(t, path)
		if err := s.Commit(t.Context(), store.Put(accepted("r"))); err != nil {
			t.Errorf("Commit to %q: %v", name, err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("Open(%q): %v", name, err)
		}
	}
	t.Chdir(t.TempDir())
	open(t, "relative.db")
	if _, err := os.Stat("relative.db"); err != nil {
		t.Error(err)
	}
}

func TestOpenNamesTheFileThatItCannotOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "such", "directory", "garo.db")
	_, err := Open(t.Context(), path)
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Open = %v, want an error that names %s", err, path)
	}
}

// TestRowsAreForPeopleToRead holds the columns, which people query with the
// sqlite3 program.
func TestRowsAreForPeopleToRead(t *testing.T) {
	s := open(t, file(t))
	made := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	accepted := store.Case{Request: store.Request{Repository: store.Repository{ID: "42"}}}.Accept(made, store.Identity{
		ID: "r1", GiveUp: time.Minute, OwnLabel: func(string) string { return "" },
	})
	r := accepted.Fail(made, store.DefaultLimits(), store.Failure{Code: "no_capacity", Text: "none"}).Request
	run := store.Runner{ID: "x1", State: store.RunnerNew, CreatedAt: made, Repository: store.Repository{ID: "42"}}
	run.DueAt = made.Add(500 * time.Millisecond)
	if err := s.Commit(t.Context(), store.Put(&r), store.Put(&run), store.Put(&store.Lock{Key: "a/b", State: store.LockLive}), store.Put(&store.Quota{Account: "1"})); err != nil {
		t.Fatal(err)
	}
	rows, err := s.DB().QueryContext(t.Context(), `SELECT concat_ws(' ', kind, id, version, state, repository, due_at, cursor, ttl, item ->> '$.error.code') FROM items ORDER BY kind`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := each(rows, func() error {
		var line string
		err := rows.Scan(&line)
		got = append(got, line)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	wantRows := []string{
		"lock a/b 1 live",
		"quota 1 1",
		"request r1 1 failed 42 2026-03-01T12:00:00.000000000Z#r1 1774958400 no_capacity",
		"runner x1 1 new 42 2026-03-01T12:00:00.500000000Z 2026-03-01T12:00:00.000000000Z#x1",
	}
	if strings.Join(got, "\n") != strings.Join(wantRows, "\n") {
		t.Errorf("rows are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wantRows, "\n"))
	}
}

func TestExpireDeletesWhatItsTTLAllows(t *testing.T) {
	s := open(t, file(t))
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for start := 0; start < 2500; start += 50 { // more than Expire deletes at a time
		var changes []store.Change
		for n := range 50 {
			r := accepted(fmt.Sprintf("old%d", start+n))
			r.TTL = now.Unix() - 1
			changes = append(changes, store.Put(r))
		}
		if err := s.Commit(t.Context(), changes...); err != nil {
			t.Fatal(err)
		}
	}
	edge, keeps := accepted("edge"), accepted("keeps")
	edge.TTL = now.Unix()
	if err := s.Commit(t.Context(), store.Put(edge), store.Put(keeps)); err != nil {
		t.Fatal(err)
	}
	for _, wantN := range []int{2500, 0} {
		if n, err := s.Expire(t.Context(), now); err != nil || n != wantN {
			t.Errorf("Expire = %d, %v; want %d", n, err, wantN)
		}
	}
	want(t, s, 2, "edge", "keeps")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Expire(ctx, now); !errors.Is(err, context.Canceled) {
		t.Errorf("Expire after cancel = %v, want context.Canceled", err)
	}
}

// TestListLooksNoFurtherThanItMay counts the lists that it takes to come to the end: one
// index has all requests, whatever the filter is.
func TestListLooksNoFurtherThanItMay(t *testing.T) {
	s := open(t, file(t))
	for n := range 30 {
		if err := s.Commit(t.Context(), store.Put(accepted(fmt.Sprintf("r%02d", n)))); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []store.Filter{{States: []string{"failed"}, Look: 7}, {Repository: "7", Look: 7}, {States: []string{"failed"}, Limit: 3, Look: 10}} {
		lists, look := 0, f.Look
		for more := true; more; lists++ {
			more = false
			for i, err := range s.List(t.Context(), f) {
				stopped, ok := errors.AsType[*store.MoreError](err)
				if !ok {
					t.Fatalf("List(%+v) yields %v, %v; want nothing but a MoreError", f, i, err)
				}
				f.After, more = stopped.After, true
			}
		}
		if want := 30/look + 1; lists != want {
			t.Errorf("List of at most %d of 30 requests came to the end in %d lists, want %d", look, lists, want)
		}
	}
}

func TestNoGoroutineOutlivesClose(t *testing.T) {
	ignored := goleak.IgnoreCurrent()
	s, err := Open(t.Context(), file(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			if err := s.Commit(ctx, store.Put(accepted(fmt.Sprintf("r%d", n)))); err != nil {
				t.Errorf("Commit: %v", err)
			}
			for _, err := range s.List(ctx, store.Filter{}) {
				if err != nil {
					t.Errorf("List: %v", err)
				}
				break
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	goleak.VerifyNone(t, ignored)
}

func TestCloseLeavesASharedHandleOpen(t *testing.T) {
	db := shared(t, file(t))
	s, err := New(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := db.ExecContext(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the caller's handle after Close: %v", err)
	}
}

func TestClosedStoreFails(t *testing.T) {
	s, err := Open(t.Context(), file(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), store.Put(accepted("r"))); err == nil || errors.Is(err, store.ErrConflict) {
		t.Errorf("Commit after Close = %v, want an error that is no conflict", err)
	}
	if _, err := s.Get(t.Context(), accepted("r").Ref()); err == nil {
		t.Error("Get after Close = nil, want an error")
	}
}

func TestBrokenFileIsAnErrorEverywhere(t *testing.T) {
	s := open(t, file(t))
	if _, err := s.DB().ExecContext(t.Context(), "DROP TABLE items"); err != nil {
		t.Fatal(err)
	}
	_, get := s.Get(t.Context(), accepted("r").Ref())
	_, expire := s.Expire(t.Context(), time.Now())
	var due, list error
	for _, err := range s.Due(t.Context(), time.Now()) {
		due = err
	}
	for _, err := range s.List(t.Context(), store.Filter{}) {
		list = err
	}
	for what, err := range map[string]error{
		"Get": get, "Expire": expire, "Due": due, "List": list,
		"Commit": s.Commit(t.Context(), store.Put(accepted("r"))), "Check": s.Commit(t.Context(), store.Check(accepted("r"))),
	} {
		if err == nil || errors.Is(err, store.ErrConflict) {
			t.Errorf("%s = %v, want an error that is no conflict", what, err)
		}
	}
}

// TestWorksUnderFakeTime: tests of everything above run a store in a bubble.
func TestWorksUnderFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, file(t))
		for n := range 10 {
			go func() {
				time.Sleep(time.Duration(n/2) * time.Hour)
				if err := s.Commit(t.Context(), store.Put(accepted(fmt.Sprintf("r%d", n)))); err != nil {
					t.Errorf("Commit: %v", err)
				}
			}()
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		want(t, s, 10, "r0", "r9")
	})
}

func commitForEver(path string) {
	ctx := context.Background()
	s, err := Open(ctx, path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				id := fmt.Sprintf("r%d", next.Add(1))
				if err := s.Commit(ctx, store.Put(accepted(id)), store.Put(&store.Lock{Key: id})); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				fmt.Println(id)
			}
		})
	}
	wg.Wait()
}

func TestKilledProcessLosesNothingThatItCommitted(t *testing.T) {
	path := file(t)
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childFile+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var acknowledged []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		acknowledged = append(acknowledged, lines.Text())
		if len(acknowledged) == 500 {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); err == nil {
		t.Fatal("the process ended on its own")
	}
	if len(acknowledged) < 500 {
		t.Fatalf("only %d commits before the process ended", len(acknowledged))
	}
	s := open(t, path)
	for _, id := range acknowledged {
		got, err := s.Get(t.Context(), store.Ref{Kind: store.KindRequest, ID: id}, store.Ref{Kind: store.KindLock, ID: id})
		if err != nil || got[0].Base().Version != 1 || got[1].Base().Version != 1 {
			t.Fatalf("commit %s is not there after the kill: %v, %v", id, got, err)
		}
	}
	var halves int
	if err := s.DB().QueryRowContext(t.Context(), "SELECT count(*) FROM (SELECT id FROM items GROUP BY id HAVING count(*) <> 2)").Scan(&halves); err != nil || halves != 0 {
		t.Errorf("%d commits are half there, %v; want 0", halves, err)
	}
}
