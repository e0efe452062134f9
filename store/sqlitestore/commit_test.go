package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// encoded returns the changes as they wait for a leader.
func encoded(t *testing.T, changes ...store.Change) *commit {
	t.Helper()
	c, err := encode(changes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBatchDecidesEachCommitUponThoseBeforeIt(t *testing.T) {
	s := open(t, file(t))
	update := accepted("r")
	update.Version, update.Tries = 1, 7
	batch := []*commit{
		encoded(t, store.Put(accepted("r")), store.Put(accepted("first"))),
		encoded(t, store.Put(accepted("r")), store.Put(accepted("second"))),         // lost to the first
		encoded(t, store.Put(accepted("third")), store.Check(accepted("r"))),        // so is its check
		encoded(t, store.Put(update), store.Put(accepted("fourth"))),                // upon the first
		encoded(t, store.Check(accepted("absent")), store.Put(accepted("fifth"))),   // which touches no other record
		encoded(t, store.Put(accepted("absent")), store.Check(accepted("nothing"))), // after it was checked
	}
	if err := s.apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	for n, lost := range []bool{false, true, true, false, false, false} {
		if got := batch[n].lost != nil; got != lost {
			t.Errorf("commit %d lost: %v, want %v", n, got, lost)
		}
	}
	for _, n := range []int{1, 2} {
		if got := batch[n].lost[accepted("r").Ref()].version; got != 1 || len(batch[n].lost) != 1 {
			t.Errorf("commit %d lost to %d items, the request in version %d; want 1 item in version 1", n, len(batch[n].lost), got)
		}
	}
	want(t, s, 5, "first", "fourth", "fifth", "absent")
	if r, err := store.Read[store.Request](t.Context(), s, "r"); err != nil || r.Version != 2 || r.Tries != 7 {
		t.Errorf("request r = version %d, tries %d, %v; want 2, 7", r.Version, r.Tries, err)
	}
}

func TestBatchThatSQLiteRefusesWritesNothing(t *testing.T) {
	s := open(t, file(t))
	good, lost, bad := encoded(t, store.Put(accepted("good"))), encoded(t, store.Put(accepted("good"))), encoded(t, store.Put(accepted("bad")))
	bad.members[0].put[2] = nil // version is NOT NULL
	s.queue = []*commit{good, lost, bad}
	s.turn <- struct{}{}
	s.lead(t.Context())
	for n, c := range []*commit{good, lost, bad} {
		<-c.done
		if c.err == nil || c.lost != nil {
			t.Errorf("commit %d = %v, lost to %v; want an error alone", n, c.err, c.lost)
		}
	}
	want(t, s, 0)
	if err := s.Commit(t.Context(), store.Put(accepted("good"))); err != nil {
		t.Errorf("Commit after the failure: %v", err)
	}
}

func TestLeaderThatIsCancelledStillWritesTheBatch(t *testing.T) {
	s := open(t, file(t))
	c := encoded(t, store.Put(accepted("r")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.queue = []*commit{c}
	s.turn <- struct{}{}
	s.lead(ctx)
	<-c.done
	if c.err != nil {
		t.Errorf("commit = %v, want nil", c.err)
	}
	want(t, s, 1, "r")
}

func TestCommitThatIsCancelledInTheQueueHasNoEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, file(t))
		s.turn <- struct{}{} // somebody leads
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error)
		go func() { result <- s.Commit(ctx, store.Put(accepted("cancelled"))) }()
		go func() { result <- s.Commit(t.Context(), store.Put(accepted("patient"))) }()
		synctest.Wait()
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("the cancelled commit = %v, want context.Canceled", err)
		}
		<-s.turn
		if err := <-result; err != nil {
			t.Errorf("the other commit = %v, want nil", err)
		}
		want(t, s, 1, "patient")
	})
}

func TestCommitThatIsCancelledWithALeaderTellsItsOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, file(t))
		s.turn <- struct{}{}
		ctx, cancel := context.WithCancel(t.Context())
		r := accepted("r")
		result := make(chan error)
		go func() { result <- s.Commit(ctx, store.Put(r)) }()
		synctest.Wait()
		s.mu.Lock()
		batch := s.queue
		s.queue = nil // a leader has taken it
		s.mu.Unlock()
		cancel()
		synctest.Wait()
		select {
		case err := <-result:
			t.Fatalf("Commit = %v before anybody knows", err)
		default:
		}
		if err := s.apply(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		close(batch[0].done)
		if err := <-result; err != nil || r.Version != 1 {
			t.Errorf("Commit = %v, version %d; want nil, 1: it was written", err, r.Version)
		}
		<-s.turn
	})
}

func TestWaitingCommitsShareOneTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, file(t))
		frames(t, s) // from here on the log is written from its start
		s.turn <- struct{}{}
		for n := range 50 {
			go func() {
				if err := s.Commit(t.Context(), store.Put(accepted(fmt.Sprintf("r%d", n)))); err != nil {
					t.Errorf("Commit: %v", err)
				}
			}()
		}
		synctest.Wait()
		<-s.turn
		synctest.Wait()
		want(t, s, 50, "r0", "r49")
		// A transaction for each of them writes more than four pages each.
		if got := frames(t, s); got > 100 {
			t.Errorf("50 commits that waited together wrote %d pages, want 100 at most", got)
		}
	})
}

// frames returns how many pages are in the write-ahead log, and has them copied
// to the file, so that the next transaction begins the log again.
func frames(t *testing.T, s *Store) int {
	t.Helper()
	var busy, pages, moved int
	if err := s.DB().QueryRowContext(t.Context(), "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &pages, &moved); err != nil {
		t.Fatal(err)
	}
	return pages
}

// TestStatementsShareTheTransactionOfCommits is for a queue in the same file.
func TestStatementsShareTheTransactionOfCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, file(t))
		if _, err := s.DB().ExecContext(t.Context(), "CREATE TABLE note (n INTEGER NOT NULL)"); err != nil {
			t.Fatal(err)
		}
		insert, err := s.DB().PrepareContext(t.Context(), "INSERT INTO note VALUES (?)")
		if err != nil {
			t.Fatal(err)
		}
		defer insert.Close()
		frames(t, s) // from here on the log is written from its start
		s.turn <- struct{}{}
		for n := range 50 {
			go func() {
				if err := s.Exec(t.Context(), insert, n); err != nil {
					t.Errorf("Exec: %v", err)
				}
			}()
			go func() {
				if err := s.Commit(t.Context(), store.Put(accepted(fmt.Sprintf("r%d", n)))); err != nil {
					t.Errorf("Commit: %v", err)
				}
			}()
		}
		synctest.Wait()
		<-s.turn
		synctest.Wait()
		want(t, s, 50, "r0", "r49")
		var notes int
		if err := s.DB().QueryRowContext(t.Context(), "SELECT count(*) FROM note").Scan(&notes); err != nil || notes != 50 {
			t.Errorf("%d notes, %v; want 50", notes, err)
		}
		// As transactions of their own, the statements write one page each.
		if got := frames(t, s); got > 40 {
			t.Errorf("50 commits and 50 statements that waited together wrote %d pages, want 40 at most", got)
		}
		if err := s.Exec(t.Context(), insert, nil); err == nil {
			t.Error("Exec of what SQLite refuses = nil, want an error")
		}
	})
}

func TestStatementThatIsCancelledInTheQueueHasNoEffect(t *testing.T) {
	s := open(t, file(t))
	del, err := s.DB().PrepareContext(t.Context(), "DELETE FROM items WHERE id = ?")
	if err != nil {
		t.Fatal(err)
	}
	defer del.Close()
	if err := s.Commit(t.Context(), store.Put(accepted("r"))); err != nil {
		t.Fatal(err)
	}
	s.turn <- struct{}{} // somebody leads
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Exec(ctx, del, "r"); !errors.Is(err, context.Canceled) {
		t.Errorf("Exec = %v, want context.Canceled", err)
	}
	<-s.turn
	want(t, s, 1, "r")
}
