// Package diskmap keeps JSON values by bucket and key in one SQLite file, for
// simulated machines that must survive kill -9: what Put or Delete did when it
// returned is there after the process was killed. (A machine that loses its power
// may lose the last of it, but is never left with a damaged file.)
package diskmap

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	_ "modernc.org/sqlite" // the driver of Open
)

// Map is such a file, opened. A nil *Map is valid: it keeps nothing and returns
// no error. It is safe for concurrent use, also by several processes.
type Map struct {
	db               *sql.DB
	put, drop, items *sql.Stmt
}

const schema = `
create table if not exists item (
	bucket text not null,
	key    text not null,
	value  text not null,
	primary key (bucket, key)
) strict, without rowid`

// Open opens the file at path. If there is none it makes one that its owner alone
// can read: what machines save may be secret.
func Open(path string) (*Map, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("open disk map: %w", err)
	}
	m, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("open disk map %s: %w", path, err)
	}
	return m, nil
}

func open(path string) (*Map, error) {
	// busy_timeout: a write takes a millisecond, so anyone who finds the file locked
	// for 5 s meets no other writer but a fault.
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)"},
	}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	// Writers take turns in any case, and here they do so without polling a lock.
	db.SetMaxOpenConns(1)
	m := &Map{db: db}
	if _, err := db.Exec(schema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	for _, s := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&m.put, `insert into item (bucket, key, value) values (?, ?, ?) on conflict do update set value = excluded.value`},
		{&m.drop, `delete from item where bucket = ? and key = ?`},
		{&m.items, `select key, value from item where bucket = ? order by key`},
	} {
		if *s.to, err = db.Prepare(s.sql); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return m, nil
}

// Put keeps the JSON of v under the key, in place of what was there.
func (m *Map) Put(bucket, key string, v any) error {
	if m == nil {
		return nil
	}
	value, err := json.Marshal(v)
	if err == nil {
		_, err = m.put.Exec(bucket, key, string(value))
	}
	if err != nil {
		return fmt.Errorf("put %s/%s: %w", bucket, key, err)
	}
	return nil
}

// Delete forgets a key. That it is not there is no error.
func (m *Map) Delete(bucket, key string) error {
	if m == nil {
		return nil
	}
	if _, err := m.drop.Exec(bucket, key); err != nil {
		return fmt.Errorf("delete %s/%s: %w", bucket, key, err)
	}
	return nil
}

// Load calls each for every key of the bucket as it is when Load begins, in the
// order of the keys' bytes, until one returns an error, which Load returns as it
// is. The value is JSON and each's to keep; each may use the Map.
func (m *Map) Load(bucket string, each func(key string, value []byte) error) error {
	if m == nil {
		return nil
	}
	items, err := m.read(bucket)
	if err != nil {
		return fmt.Errorf("load %s: %w", bucket, err)
	}
	for _, i := range items {
		if err := each(i.key, i.value); err != nil {
			return err
		}
	}
	return nil
}

type item struct {
	key   string
	value []byte
}

// read reads the whole bucket: while rows are open, nothing else could use the
// one connection.
func (m *Map) read(bucket string) ([]item, error) {
	rows, err := m.items.Query(bucket)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var items []item
	for rows.Next() {
		var i item
		if err := rows.Scan(&i.key, &i.value); err != nil {
			return nil, err
		}
		items = append(items, i)
	}
	return items, rows.Err()
}

// Close closes the file. Nothing may use the Map after that.
func (m *Map) Close() error {
	if m == nil {
		return nil
	}
	if err := m.db.Close(); err != nil {
		return fmt.Errorf("close disk map: %w", err)
	}
	return nil
}
