package sqlitestore

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// row is a stored item; the zero value stands for an absent one.
type row struct {
	version int64
	item    []byte
}

// commit is a Commit, or an Exec, on its way to the file.
type commit struct {
	members []member
	stmt    *sql.Stmt // of an Exec; it has no members
	args    []any
	done    chan struct{} // closed by the leader, after the fields below are set
	lost    map[store.Ref]row
	err     error
}

// member is one change, encoded so that the leader needs nothing of the caller's.
type member struct {
	ref     store.Ref
	version int64 // as it was read
	put     []any // the arguments of putSQL; nil: a check alone
	item    []byte
}

const putSQL = `INSERT INTO items (kind, id, version, due_at, repository, state, cursor, open, found, ttl, item)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version, due_at = excluded.due_at,
		repository = excluded.repository, state = excluded.state, cursor = excluded.cursor,
		open = excluded.open, found = excluded.found, ttl = excluded.ttl, item = excluded.item`

// Commit implements store.Store. Commits that come while another is being
// written share the next transaction, which is where most of the time of a small
// commit goes: sixteen callers at once get 2.5 times as many through, sixty-four
// nearly four times (BenchmarkCommit). Each still succeeds or conflicts by
// itself. When SQLite itself fails, all that shared the transaction fail and
// nothing was written.
func (s *Store) Commit(ctx context.Context, changes ...store.Change) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	c, err := encode(changes)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if err := s.enter(ctx, c); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if c.lost != nil {
		if err := conflict(changes, c.lost); err != nil {
			return err
		}
	}
	for _, ch := range changes {
		if !ch.CheckOnly {
			ch.Item.Base().Version++
		}
	}
	return nil
}

// Exec runs a statement that was prepared on DB, for a queue in the same file. It
// shares its transaction with the commits and statements that wait beside it, and
// comes after those commits. When it returns nil, what it wrote is kept as a
// commit is. When SQLite fails, all that shared the transaction fail.
func (s *Store) Exec(ctx context.Context, stmt *sql.Stmt, args ...any) error {
	return s.enter(ctx, &commit{stmt: stmt, args: args, done: make(chan struct{})})
}

// encode checks that the contract allows the commit, and encodes it.
func encode(changes []store.Change) (*commit, error) {
	if err := store.Validate(changes); err != nil {
		return nil, err
	}
	c := &commit{done: make(chan struct{}), members: make([]member, 0, len(changes))}
	for _, ch := range changes {
		m := member{ref: ch.Item.Ref(), version: ch.Item.Base().Version}
		if !ch.CheckOnly {
			if err := m.encode(ch.Item); err != nil {
				return nil, err
			}
		}
		c.members = append(c.members, m)
	}
	return c, nil
}

// encode sets what is to be stored: the next version of i.
func (m *member) encode(i store.Item) error {
	base := i.Base()
	base.Version++
	var err error
	m.item, err = store.Encode(i)
	base.Version--
	if err != nil {
		return err
	}
	var due, repository, state, cursor, open, found, ttl any
	if !base.DueAt.IsZero() {
		due = stamp(base.DueAt)
	}
	if base.TTL != 0 {
		ttl = base.TTL
	}
	if part := store.OpenIn(i); part != "" {
		open = part
	}
	if word := store.FoundBy(i); word != "" {
		found = word
	}
	switch i := i.(type) {
	case *store.Request:
		repository, state, cursor = i.Repository.ID, string(i.State), store.Cursor(i)
	case *store.Runner:
		repository, state, cursor = i.Repository.ID, string(i.State), store.Cursor(i)
	case *store.Usage:
		repository, cursor = i.Repository.ID, store.Cursor(i)
	case *store.Lock:
		state = string(i.State)
	}
	m.put = []any{string(m.ref.Kind), m.ref.ID, m.version + 1, due, repository, state, cursor, open, found, ttl, string(m.item)}
	return nil
}

// stamp has a fixed width, so that texts sort as their times do.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000Z") }

// enter puts c into the queue, and returns when a leader has written the batch
// that it is in. One of those who wait leads; the others wait for it.
func (s *Store) enter(ctx context.Context, c *commit) error {
	if err := ctx.Err(); err != nil {
		return err // if its turn is there too, either may be chosen below
	}
	s.mu.Lock()
	s.queue = append(s.queue, c)
	s.mu.Unlock()
	select {
	case <-c.done:
	case s.turn <- struct{}{}:
		s.lead(ctx)
	case <-ctx.Done():
		if s.withdraw(c) {
			return ctx.Err()
		}
	}
	<-c.done // what a leader has taken is done within one transaction
	return c.err
}

// withdraw reports whether c was still in the queue; it no longer is.
func (s *Store) withdraw(c *commit) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.queue)
	s.queue = slices.DeleteFunc(s.queue, func(o *commit) bool { return o == c })
	return len(s.queue) < before
}

// lead writes all that is in the queue. The caller has the turn, and loses it.
func (s *Store) lead(ctx context.Context) {
	// Those whom the last batch has answered may be about to commit again: they run
	// first, if there are any, and share this transaction. Nobody else is waited for.
	runtime.Gosched()
	s.mu.Lock()
	batch := s.queue
	s.queue = nil
	s.mu.Unlock()
	defer func() {
		<-s.turn
		for _, c := range batch {
			close(c.done)
		}
	}()
	if len(batch) == 0 {
		return // another leader has taken what was there
	}
	// The leader's own end must not undo what others have put into its hands.
	if err := s.apply(context.WithoutCancel(ctx), batch); err != nil {
		for _, c := range batch {
			c.lost, c.err = nil, err
		}
	}
}

// apply decides the batch in its order, each commit upon the results of those
// before it, and writes what is left at the end: one read and one write an item.
func (s *Store) apply(ctx context.Context, batch []*commit) error {
	if len(batch) == 1 && batch[0].stmt != nil { // alone, it is a transaction already
		_, err := batch[0].stmt.ExecContext(ctx, batch[0].args...)
		return err
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	var refs []store.Ref
	for _, c := range batch {
		for _, m := range c.members {
			refs = append(refs, m.ref)
		}
	}
	if len(refs) > 0 {
		now, err := get(ctx, tx.StmtContext(ctx, s.getForWrite), refs)
		if err != nil {
			return err
		}
		written := settle(batch, now)
		put := tx.StmtContext(ctx, s.put)
		for _, ref := range refs {
			m, ok := written[ref]
			if !ok {
				continue
			}
			if _, err := put.ExecContext(ctx, m.put...); err != nil {
				return fmt.Errorf("write %s: %w", ref, err)
			}
			delete(written, ref)
		}
	}
	for _, c := range batch {
		if c.stmt == nil {
			continue
		}
		if _, err := tx.StmtContext(ctx, c.stmt).ExecContext(ctx, c.args...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// settle decides which commits of the batch are lost, when the rows are as now
// says, and returns what the others leave behind. It keeps now up to date.
func settle(batch []*commit, now map[store.Ref]row) map[store.Ref]member {
	written := make(map[store.Ref]member, len(now))
	for _, c := range batch {
		for _, m := range c.members {
			if now[m.ref].version != m.version {
				if c.lost == nil {
					c.lost = map[store.Ref]row{}
				}
				c.lost[m.ref] = now[m.ref]
			}
		}
		if c.lost != nil {
			continue
		}
		for _, m := range c.members {
			if m.put != nil {
				now[m.ref] = row{version: m.version + 1, item: m.item}
				written[m.ref] = m
			}
		}
	}
	return written
}

// conflict returns the error for a commit that lost to those rows, or nil when
// one of them is its own work: then all of it was written before, and only the
// answer was lost.
func conflict(changes []store.Change, lost map[store.Ref]row) error {
	out := &store.ConflictError{}
	for _, c := range changes {
		ref := c.Item.Ref()
		now, ok := lost[ref]
		if !ok {
			continue
		}
		current, err := decode(ref, now)
		if err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		if c.Wrote(current.Base()) {
			return nil
		}
		out.Current = append(out.Current, current)
	}
	return out
}

func decode(ref store.Ref, r row) (store.Item, error) {
	if r.version == 0 {
		return store.New(ref)
	}
	return store.Decode(ref, r.item)
}
