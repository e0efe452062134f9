// Package sqlitestore keeps items in one SQLite file, for a control plane on one
// machine. Any number of processes may use the file at once.
//
// There is one table, items, with a row for each item: its name, its version,
// what it is found by, and the item itself as JSON. The sqlite3 program reads it:
//
//	sqlite3 garo.db "SELECT id, state, due_at, item ->> 'error' FROM items WHERE kind = 'request'"
//
// A commit that returned nil survives the end of the process, kill -9 included:
// the file is in WAL mode with synchronous=NORMAL. When the machine itself loses
// power, the last commits may be lost, in whole and in order, but the file stays
// sound. That is the price of not waiting for the disk in every commit, and
// right for a store whose machines are simulated.
package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"modernc.org/sqlite" // the driver "sqlite" too
)

// readers is how many connections read beside the one that writes. Two read as
// much as a handle shared with the writer would, and leave the writer nearly
// three times as many commits; more take from the writer what they gain
// (BenchmarkReadsDuringWrites, on two cores).
const readers = 2

// Store is a store.Store. Make it with Open or New, and close it once its last
// call has returned: it has no goroutine of its own.
type Store struct {
	write, read *sql.DB
	opened      []*sql.DB // what Close closes
	getForWrite *sql.Stmt
	getForRead  *sql.Stmt
	put         *sql.Stmt
	due         *sql.Stmt
	open        *sql.Stmt
	list        *sql.Stmt
	find        *sql.Stmt
	live        *sql.Stmt
	edge        *sql.Stmt

	turn  chan struct{} // full while a commit leads a batch
	mu    sync.Mutex
	queue []*commit // what the next leader takes
}

// Open opens the file, and makes it when it is not there. It fails for a file
// that a newer version of this program has changed.
func Open(ctx context.Context, path string) (*Store, error) {
	write, err := sql.Open("sqlite", dsn(path, forWriting))
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	// SQLite has one writer at a time. Anyone who waits for it here waits in line;
	// in SQLite it would sleep and poll.
	write.SetMaxOpenConns(1)
	read, err := sql.Open("sqlite", dsn(path, "&_query_only=1"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), write.Close())
	}
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	s := &Store{write: write, read: read, opened: []*sql.DB{read, write}}
	err = connect(ctx, write)
	if err == nil {
		err = s.begin(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), s.Close())
	}
	return s, nil
}

// connect makes the first connection. When two turn a new file to WAL mode at
// once, SQLite does not let one of them wait for the other: it fails, and has to
// try again. The other needs milliseconds.
func connect(ctx context.Context, db *sql.DB) error {
	const busy = 5 // SQLITE_BUSY, in the low byte of https://www.sqlite.org/rescode.html
	for tries := 0; ; tries++ {
		err := db.PingContext(ctx)
		if e, ok := errors.AsType[*sqlite.Error](err); !ok || e.Code()&0xff != busy || tries == 100 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// forWriting is for connections that write: the file is turned to WAL mode, in
// which others read on meanwhile, and a transaction that reads before it writes
// has the lock from its beginning.
const forWriting = "&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_txlock=immediate"

// dsn names the file to the driver, whatever characters are in its path. A
// writer of another process is waited for up to 5 s: a batch takes milliseconds,
// and the sqlite3 program in a person's hands seldom more.
func dsn(path, more string) string {
	name := url.URL{Scheme: "file", Opaque: url.PathEscape(path)}
	return name.String() + "?_busy_timeout=5000" + more
}

// New returns a store in a database that the caller has opened, so that it can
// be shared; Close leaves it open. Reads and writes go through this one handle.
// Its transactions must begin as immediate ones (_txlock=immediate). Its
// user_version belongs to the store.
func New(ctx context.Context, db *sql.DB) (*Store, error) {
	s := &Store{write: db, read: db}
	if err := s.begin(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), s.Close())
	}
	return s, nil
}

// DB returns the handle that writes go through, so that a queue in the same file
// takes its turn with the store instead of polling SQLite's lock. It has one
// connection: anyone who calls the store inside a transaction of it waits for ever.
func (s *Store) DB() *sql.DB { return s.write }

func (s *Store) begin(ctx context.Context) error {
	s.turn = make(chan struct{}, 1)
	if err := migrate(ctx, s.write, migrations); err != nil {
		return err
	}
	for _, p := range []struct {
		into  **sql.Stmt
		db    *sql.DB
		query string
	}{
		{&s.getForWrite, s.write, getSQL},
		{&s.getForRead, s.read, getSQL},
		{&s.put, s.write, putSQL},
		{&s.due, s.read, dueSQL},
		{&s.open, s.read, openSQL},
		{&s.list, s.read, listSQL},
		{&s.find, s.read, findSQL},
		{&s.live, s.read, liveSQL},
		{&s.edge, s.read, edgeSQL},
	} {
		stmt, err := p.db.PrepareContext(ctx, p.query)
		if err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		*p.into = stmt
	}
	return nil
}

// Close releases the file, if Open opened it.
func (s *Store) Close() error {
	var errs []error
	for _, stmt := range []*sql.Stmt{s.getForWrite, s.getForRead, s.put, s.due, s.open, s.list, s.find, s.live, s.edge} {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	for _, db := range s.opened {
		errs = append(errs, db.Close())
	}
	return errors.Join(errs...)
}

const expireSQL = `DELETE FROM items WHERE rowid IN (SELECT rowid FROM items WHERE ttl < ? LIMIT ?)`

// Expire deletes the items whose TTL has passed, and returns how many they were.
func (s *Store) Expire(ctx context.Context, now time.Time) (int, error) {
	const step = 1000 // so that no commit waits for more than some milliseconds
	for total := 0; ; {
		done, err := s.write.ExecContext(ctx, expireSQL, now.Unix(), step)
		if err != nil {
			return total, fmt.Errorf("expire: %w", err)
		}
		n, err := done.RowsAffected()
		if err != nil {
			return total, fmt.Errorf("expire: %w", err)
		}
		if total += int(n); n < step {
			return total, nil
		}
	}
}
