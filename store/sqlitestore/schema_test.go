package sqlitestore

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func userVersion(t *testing.T, s *Store) int {
	t.Helper()
	var n int
	if err := s.DB().QueryRowContext(t.Context(), "PRAGMA user_version").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestFilesOfEarlierVersionsCanBeUsed opens what each released schema left
// behind: testdata/v<n>.sql is the dump of a file of version n.
func TestFilesOfEarlierVersionsCanBeUsed(t *testing.T) {
	for _, name := range []string{"testdata/v1.sql", "testdata/v2.sql"} {
		dump, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		path := file(t)
		if _, err := shared(t, path).ExecContext(t.Context(), string(dump)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s := open(t, path)
		if got := userVersion(t, s); got != len(migrations) {
			t.Errorf("%s: schema version %d after Open, want %d", name, got, len(migrations))
		}
		r, err := store.Read[store.Request](t.Context(), s, "r1")
		if err != nil || r.Version != 3 || r.State != store.Accepted || r.Account != "123456789012" {
			t.Errorf("%s: request = %+v, %v; want that of the dump", name, r, err)
		}
		if n, err := s.CountOpen(t.Context(), r.Repository, 2); err != nil || n != 1 {
			t.Errorf("%s: CountOpen = %d, %v; want the one of the dump", name, n, err)
		}
		r.Tries = 1
		if err := s.Commit(t.Context(), store.Put(&r)); err != nil || r.Version != 4 {
			t.Errorf("%s: Commit = %v, version %d; want nil, 4", name, err, r.Version)
		}
		for ref, err := range s.Due(t.Context(), r.DueAt) {
			if err != nil || ref != r.Ref() {
				t.Errorf("%s: Due yields %v, %v; want %v", name, ref, err, r.Ref())
			}
		}
		for _, f := range []store.Filter{{Repository: "42"}, {FoundBy: r.Origin.RunID}, {Name: "alphagov/Example"}} {
			listed := 0
			for i, err := range s.List(t.Context(), f) {
				if err != nil || i.Ref() != r.Ref() {
					t.Errorf("%s: List(%+v) yields %v, %v; want %s", name, f, i, err, r.Ref())
				}
				listed++
			}
			if listed != 1 {
				t.Errorf("%s: List(%+v) yields %d requests, want 1", name, f, listed)
			}
		}
	}
}

func TestMigrationsRunOnceInTheirOrder(t *testing.T) {
	path := file(t)
	s := open(t, path)
	if err := s.Commit(t.Context(), store.Put(accepted("r"))); err != nil {
		t.Fatal(err)
	}
	longer := append(migrations[:len(migrations):len(migrations)],
		"ALTER TABLE items ADD COLUMN note TEXT; UPDATE items SET note = 'old'",
		"UPDATE items SET note = note || 'er'")
	for range 2 { // the second time there is nothing to do
		if err := migrate(t.Context(), s.DB(), longer); err != nil {
			t.Fatal(err)
		}
	}
	var note string
	if err := s.DB().QueryRowContext(t.Context(), "SELECT note FROM items WHERE id = 'r'").Scan(&note); err != nil || note != "older" {
		t.Errorf("note = %q, %v; want older", note, err)
	}
	if got := userVersion(t, s); got != len(longer) {
		t.Errorf("schema version = %d, want %d", got, len(longer))
	}
}

func TestMigrationThatFailsChangesNothing(t *testing.T) {
	s := open(t, file(t))
	broken := append(migrations[:len(migrations):len(migrations)], "CREATE TABLE extra (x TEXT)", "CREATE NONSENSE")
	if err := migrate(t.Context(), s.DB(), broken); err == nil || !strings.Contains(err.Error(), fmt.Sprint("version ", len(broken))) {
		t.Errorf("migrate = %v, want an error that names version %d", err, len(broken))
	}
	if got := userVersion(t, s); got != len(migrations) {
		t.Errorf("schema version = %d, want %d as before", got, len(migrations))
	}
	if _, err := s.DB().ExecContext(t.Context(), "SELECT * FROM extra"); err == nil {
		t.Error("a part of the failed change is there")
	}
}

func TestNewerFileIsRefused(t *testing.T) {
	path := file(t)
	if _, err := open(t, path).DB().ExecContext(t.Context(), "PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), path)
	if err == nil || !strings.Contains(err.Error(), "schema version 99") || !strings.Contains(err.Error(), path) {
		t.Errorf("Open = %v, want an error that names the file and its schema version 99", err)
	}
}

func TestOtherTablesInTheFileAreLeftAlone(t *testing.T) {
	path := file(t)
	db := shared(t, path)
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE queue (body TEXT); INSERT INTO queue VALUES ('m')"); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	if err := s.Commit(t.Context(), store.Put(accepted("r"))); err != nil {
		t.Fatal(err)
	}
	var body string
	if err := s.DB().QueryRowContext(t.Context(), "SELECT body FROM queue").Scan(&body); err != nil || body != "m" {
		t.Errorf("the queue's row = %q, %v; want m", body, err)
	}
}

// TestReadsNeverScanTheTable holds what SQLite plans to do: whatever a filter means,
// the rows are found in an index, in its order.
func TestReadsNeverScanTheTable(t *testing.T) {
	s := open(t, file(t))
	for _, c := range []struct {
		name, query string
		args        []any
		want        string
	}{
		{"Due", dueSQL, []any{"2026", "", "", "", page}, "SEARCH items USING COVERING INDEX items_due ((due_at,kind,id)>(?,?,?) AND due_at<?)"},
		{"the edge of Look", edgeSQL, []any{"request", newest, 4999}, "SEARCH items USING COVERING INDEX items_list (kind=? AND cursor<?)"},
		{"Expire", expireSQL, []any{1, 1000}, "SEARCH items USING INTEGER PRIMARY KEY (rowid=?); LIST SUBQUERY 1; SEARCH items USING COVERING INDEX items_ttl (ttl<?)"},
	} {
		if got := planOf(t, s, c.query, c.args...); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.want)
		}
	}
	for _, after := range []string{newest, "2026"} {
		for _, edge := range []string{"", "2025"} {
			for _, one := range []string{"", "42"} {
				args := []any{"request", after, edge, one, one, "," + one + ",", one, one, one, page}
				if got, want := planOf(t, s, listSQL, args...), "SEARCH items USING INDEX items_list (kind=? AND cursor>? AND cursor<?)"; got != want {
					t.Errorf("List after %q, to %q, of %q: %s\nwant %s", after, edge, one, got, want)
				}
				if got, want := planOf(t, s, liveSQL, args...), "SEARCH items USING INDEX items_live (cursor>? AND cursor<?)"; got != want {
					t.Errorf("List of what lives after %q, to %q, of %q: %s\nwant %s", after, edge, one, got, want)
				}
				if got, want := planOf(t, s, findSQL, append([]any{"7001"}, args...)...), "SEARCH items USING INDEX items_found (kind=? AND found=? AND cursor>? AND cursor<?)"; got != want {
					t.Errorf("List of what is found after %q, to %q, of %q: %s\nwant %s", after, edge, one, got, want)
				}
			}
		}
	}
}

// planOf returns the steps of a statement, as SQLite says them.
func planOf(t *testing.T, s *Store, query string, args ...any) string {
	t.Helper()
	rows, err := s.DB().QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	if err := each(rows, func() error {
		var id, parent, unused int
		var step string
		err := rows.Scan(&id, &parent, &unused, &step)
		steps = append(steps, step)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(steps, "; ")
}
