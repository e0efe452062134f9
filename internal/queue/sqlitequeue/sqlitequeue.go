// Package sqlitequeue keeps the queue in a SQLite file, for one machine. It is a
// queue.Queue whose receipts are exact, and what Send accepted outlives a process
// that is killed, if the file is in WAL mode.
//
// One statement sends, receives a whole batch, deletes or releases: none needs a
// transaction of several, so a database with a single connection is enough and
// may be shared with the store. A receipt is the message and its receive count,
// and only the newest matches the row.
package sqlitequeue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
)

const (
	// poll bounds the wait between two looks: what another process, or another
	// Queue on the same file, sends is seen this late. Within one Queue, and for
	// what becomes visible by time, nobody waits for it.
	poll = time.Second
	// keepDead is how long dead messages are kept, as SQS keeps them at most.
	keepDead = 14 * 24 * time.Hour
)

// alive says that a message is not dead: in the same words everywhere, or SQLite
// does not use the index.
var alive = fmt.Sprintf("receives < %d", queue.MaxReceives)

// Times are nanoseconds since 1970. Ids are never used twice (autoincrement), so
// that the receipt of a message that is gone fits no later one. Dead messages are
// not in the index: they never slow a receive down.
var schema = fmt.Sprintf(`
create table if not exists queue (
	id         integer primary key autoincrement,
	body       text    not null,
	sent_at    integer not null,
	visible_at integer not null,
	receives   integer not null default 0
) strict;
create index if not exists queue_visible on queue (visible_at, id) where %s`, alive)

var (
	sendSQL = `insert into queue (body, sent_at, visible_at) values (?, ?, ?)`
	takeSQL = `update queue set visible_at = ?, receives = receives + 1
		where id in (select id from queue where ` + alive + ` and visible_at <= ? order by visible_at, id limit ?)
		returning id, body, receives`
	nextSQL    = `select visible_at from queue where ` + alive + ` order by visible_at limit 1`
	removeSQL  = `delete from queue where id = ? and receives = ?`
	releaseSQL = `update queue set visible_at = ? where id = ? and receives = ?`
	deadSQL    = `select id, body, receives, sent_at from queue where not (` + alive + `) and visible_at <= ? order by sent_at, id`
	forgetSQL  = `delete from queue where not (` + alive + `) and visible_at < ?`
)

// Queue is a queue.Queue. It is safe for concurrent use, also by several
// processes. It has nothing to close: it ends with its database.
type Queue struct {
	db         *sql.DB
	visibility time.Duration
	now        func() time.Time
	exec       Exec

	send, take, next, remove, release, dead *sql.Stmt

	mu    sync.Mutex
	woken chan struct{} // closed, and made again, when something may have become visible
}

var _ queue.Queue = (*Queue)(nil)

// Exec runs a statement that was prepared on the queue's database, and returns nil
// once what it wrote is kept. It may have many share one transaction.
type Exec func(ctx context.Context, stmt *sql.Stmt, args ...any) error

// alone runs a statement in a transaction of its own.
func alone(ctx context.Context, stmt *sql.Stmt, args ...any) error {
	_, err := stmt.ExecContext(ctx, args...)
	return err
}

// New returns the queue in db, with that visibility timeout. It makes its table if
// there is none, and forgets messages that died more than 14 days ago. The
// database stays the caller's, with its modes and its limit of connections. exec
// may be nil: each statement is a transaction. now may be nil: time.Now.
func New(ctx context.Context, db *sql.DB, exec Exec, visibility time.Duration, now func() time.Time) (*Queue, error) {
	if exec == nil {
		exec = alone
	}
	if now == nil {
		now = time.Now
	}
	q := &Queue{db: db, visibility: visibility, now: now, exec: exec, woken: make(chan struct{})}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, fmt.Errorf("create the queue's table: %w", err)
	}
	if _, err := db.ExecContext(ctx, forgetSQL, now().Add(-keepDead).UnixNano()); err != nil {
		return nil, fmt.Errorf("forget dead messages: %w", err)
	}
	for _, s := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&q.send, sendSQL}, {&q.take, takeSQL}, {&q.next, nextSQL},
		{&q.remove, removeSQL}, {&q.release, releaseSQL}, {&q.dead, deadSQL},
	} {
		stmt, err := db.PrepareContext(ctx, s.sql)
		if err != nil {
			return nil, fmt.Errorf("prepare %q: %w", s.sql, err)
		}
		*s.to = stmt
	}
	return q, nil
}

// Send implements queue.Sender.
func (q *Queue) Send(ctx context.Context, m queue.Message, delay time.Duration) error {
	body, err := queue.Encode(m)
	if err != nil {
		return err
	}
	if delay < 0 || delay > queue.MaxDelay {
		return fmt.Errorf("send message: delay %v, want 0 to %v", delay, queue.MaxDelay)
	}
	now := q.now()
	if err := q.exec(ctx, q.send, string(body), now.UnixNano(), now.Add(delay).UnixNano()); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	q.wake()
	return nil
}

// SendAll implements queue.BatchSender: one statement, and so one commit, for all.
func (q *Queue) SendAll(ctx context.Context, all ...queue.Outgoing) []error {
	if len(all) > queue.MaxBatch {
		return queue.Each(len(all), fmt.Errorf("send %d messages: want at most %d", len(all), queue.MaxBatch))
	}
	errs, failed := make([]error, len(all)), false
	var values []any
	var sent []int
	now := q.now()
	for i, m := range all {
		body, err := queue.Encode(m.Message)
		if err == nil && (m.Delay < 0 || m.Delay > queue.MaxDelay) {
			err = fmt.Errorf("send message: delay %v, want 0 to %v", m.Delay, queue.MaxDelay)
		}
		if err != nil {
			errs[i], failed = err, true
			continue
		}
		values, sent = append(values, string(body), now.UnixNano(), now.Add(m.Delay).UnixNano()), append(sent, i)
	}
	if len(sent) > 0 {
		if _, err := q.db.ExecContext(ctx, sendSQL+strings.Repeat(`, (?, ?, ?)`, len(sent)-1), values...); err != nil {
			failed = true
			for _, i := range sent {
				errs[i] = fmt.Errorf("send %d messages: %w", len(sent), err)
			}
		}
		q.wake()
	}
	if !failed {
		return nil
	}
	return errs
}

// Receive implements queue.Queue. A message that is sent or released while it
// waits is returned at once.
func (q *Queue) Receive(ctx context.Context, max int, wait time.Duration) ([]queue.Delivery, error) {
	if max < 1 {
		return nil, fmt.Errorf("receive messages: %d, want at least 1", max)
	}
	deadline := q.now().Add(wait)
	for {
		woken := q.wakes() // before the look, so that no send falls in between
		got, err := q.look(ctx, max)
		left := deadline.Sub(q.now())
		if err != nil || len(got) > 0 || left <= 0 {
			return got, err
		}
		visible, err := q.nextVisible(ctx)
		if err != nil {
			return nil, err
		}
		timer := time.NewTimer(min(left, visible, poll))
		select {
		case <-timer.C:
		case <-woken:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// look receives what is visible. Once it has begun it does not heed ctx: what it
// hides from others it must also return.
func (q *Queue) look(ctx context.Context, max int) ([]queue.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("receive messages: %w", err)
	}
	now := q.now()
	rows, err := q.take.QueryContext(context.WithoutCancel(ctx), now.Add(q.visibility).UnixNano(), now.UnixNano(), max)
	if err != nil {
		return nil, fmt.Errorf("receive messages: %w", err)
	}
	defer rows.Close()
	var got []queue.Delivery
	for rows.Next() {
		var d queue.Delivery
		if err := rows.Scan(&d.ID, &d.Body, &d.Receives); err != nil {
			return nil, fmt.Errorf("receive messages: %w", err)
		}
		d.Receipt = fmt.Sprintf("%s/%d", d.ID, d.Receives)
		got = append(got, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("receive messages: %w", err)
	}
	return got, nil
}

// nextVisible returns how long it is until a message becomes visible: if there is
// none, longer than anybody waits without a look.
func (q *Queue) nextVisible(ctx context.Context) (time.Duration, error) {
	var at int64
	err := q.next.QueryRowContext(ctx).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return poll, nil
	}
	if err != nil {
		return 0, fmt.Errorf("receive messages: %w", err)
	}
	return time.Unix(0, at).Sub(q.now()), nil
}

// Delete implements queue.Queue.
func (q *Queue) Delete(ctx context.Context, d queue.Delivery) error {
	id, receives, _ := strings.Cut(d.Receipt, "/")
	if err := q.exec(ctx, q.remove, id, receives); err != nil {
		return fmt.Errorf("delete message %s: %w", d.ID, err)
	}
	return nil
}

// Release implements queue.Queue.
func (q *Queue) Release(ctx context.Context, d queue.Delivery, delay time.Duration) error {
	if delay < 0 {
		return fmt.Errorf("release message %s: delay %v, want at least 0", d.ID, delay)
	}
	id, receives, _ := strings.Cut(d.Receipt, "/")
	if err := q.exec(ctx, q.release, q.now().Add(delay).UnixNano(), id, receives); err != nil {
		return fmt.Errorf("release message %s: %w", d.ID, err)
	}
	q.wake()
	return nil
}

// Dead implements queue.Queue.
func (q *Queue) Dead(ctx context.Context) ([]queue.Dead, error) {
	rows, err := q.dead.QueryContext(ctx, q.now().UnixNano())
	if err != nil {
		return nil, fmt.Errorf("list dead messages: %w", err)
	}
	defer rows.Close()
	var dead []queue.Dead
	for rows.Next() {
		var d queue.Dead
		var sentAt int64
		if err := rows.Scan(&d.ID, &d.Body, &d.Receives, &sentAt); err != nil {
			return nil, fmt.Errorf("list dead messages: %w", err)
		}
		d.SentAt = time.Unix(0, sentAt).UTC()
		dead = append(dead, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list dead messages: %w", err)
	}
	return dead, nil
}

// wakes returns a channel that is closed when something may have become visible.
func (q *Queue) wakes() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.woken
}

func (q *Queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	close(q.woken)
	q.woken = make(chan struct{})
}
