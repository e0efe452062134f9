package diskmap

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func openMap(t testing.TB, path string) *Map {
	t.Helper()
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func put(t testing.TB, m *Map, bucket, key string, v any) {
	t.Helper()
	if err := m.Put(bucket, key, v); err != nil {
		t.Error(err)
	}
}

// load returns a bucket as key=value lines.
func load(t testing.TB, m *Map, bucket string) []string {
	t.Helper()
	var got []string
	if err := m.Load(bucket, func(key string, value []byte) error {
		got = append(got, key+"="+string(value))
		return nil
	}); err != nil {
		t.Error(err)
	}
	return got
}

func wantBucket(t testing.TB, m *Map, bucket string, want ...string) {
	t.Helper()
	if got := load(t, m, bucket); !slices.Equal(got, want) {
		t.Errorf("Load(%q) = %q, want %q", bucket, got, want)
	}
}

func TestMapKeepsWhatWasPutLast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.db")
	m := openMap(t, path)
	wantBucket(t, m, "a")
	put(t, m, "a", "z", map[string]int{"n": 1})
	put(t, m, "a", "é", "text")
	put(t, m, "a", "Z", nil)
	put(t, m, "a", "", []byte{1, 2})
	put(t, m, "b", "z", 2)
	put(t, m, "a", "z", []int{3})
	want := []string{`="AQI="`, `Z=null`, `z=[3]`, `é="text"`}
	wantBucket(t, m, "a", want...)
	wantBucket(t, m, "b", "z=2")
	if err := m.Delete("b", "z"); err != nil {
		t.Error(err)
	}
	if err := m.Delete("b", "z"); err != nil {
		t.Errorf("Delete of what is gone = %v, want no error", err)
	}
	wantBucket(t, m, "b")
	wantBucket(t, m, "a", want...)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}

	m = openMap(t, path)
	wantBucket(t, m, "a", want...)
	wantBucket(t, m, "b")
}

func TestNilMapKeepsNothing(t *testing.T) {
	var m *Map
	put(t, m, "a", "k", math.NaN())
	if err := m.Delete("a", "k"); err != nil {
		t.Error(err)
	}
	wantBucket(t, m, "a")
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestLoadStopsAtTheFirstError(t *testing.T) {
	m := openMap(t, filepath.Join(t.TempDir(), "fleet.db"))
	for i := range 3 {
		put(t, m, "a", fmt.Sprint(i), i)
	}
	stop := errors.New("stop")
	calls := 0
	err := m.Load("a", func(string, []byte) error { calls++; return stop })
	if err != stop || calls != 1 {
		t.Errorf("Load = %v after %d calls, want the first one's error", err, calls)
	}
}

func TestLoadMayUseTheMap(t *testing.T) {
	m := openMap(t, filepath.Join(t.TempDir(), "fleet.db"))
	put(t, m, "a", "1", "x")
	put(t, m, "a", "2", "y")
	err := m.Load("a", func(key string, value []byte) error {
		if err := m.Put("b", key, json.RawMessage(value)); err != nil {
			return err
		}
		clear(value)
		return m.Delete("a", key)
	})
	if err != nil {
		t.Error(err)
	}
	wantBucket(t, m, "a")
	wantBucket(t, m, "b", `1="x"`, `2="y"`)
}

func TestErrorsNameTheKeyAndNotTheValue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.db")
	m := openMap(t, path)
	err := m.Put("disk", "i-1", map[string]any{"session": "canary", "n": math.Inf(1)})
	if err == nil || !strings.Contains(err.Error(), "put disk/i-1: ") || strings.Contains(err.Error(), "canary") {
		t.Errorf("Put of what is no JSON = %v, want an error that names disk/i-1", err)
	}
	wantBucket(t, m, "disk")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"put disk/i-1: ":    m.Put("disk", "i-1", "canary"),
		"delete disk/i-1: ": m.Delete("disk", "i-1"),
		"load disk: ":       m.Load("disk", func(string, []byte) error { return nil }),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), name) || strings.Contains(err.Error(), "canary") {
			t.Errorf("on a closed map: %v, want an error that begins %q", err, name)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"a directory":             dir,
		"a missing directory":     filepath.Join(dir, "none", "fleet.db"),
		"a file of another kind":  text,
		"a path through that one": filepath.Join(text, "fleet.db"),
	} {
		if m, err := Open(path); err == nil {
			t.Errorf("Open of %s: no error", name)
			_ = m.Close()
		}
	}
}

// Whatever is in a path, the file is at that path and nowhere else.
func TestPathsAreTakenLiterally(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{"a b", "50%41", "what?mode=memory", "a#b", "file:x", "ü", "a:b"} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "fleet.db")
		m := openMap(t, path)
		put(t, m, "a", "k", 1)
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() == 0 {
			t.Errorf("Open(%q) did not write there: %v", path, err)
		}
		wantBucket(t, openMap(t, path), "a", "k=1")
	}
}

func TestFileIsItsOwnersAlone(t *testing.T) {
	dir := t.TempDir()
	m := openMap(t, filepath.Join(dir, "fleet.db"))
	put(t, m, "a", "k", 1)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries { // the write-ahead log too
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v; want 0600", e.Name(), info.Mode(), err)
		}
	}
	if len(entries) < 2 {
		t.Errorf("files = %v, want the database and its write-ahead log", entries)
	}
}

// Two Maps on one file stand for two processes.
func TestConcurrentUse(t *testing.T) {
	const writers, each = 4, 50
	path := filepath.Join(t.TempDir(), "fleet.db")
	maps := []*Map{openMap(t, path), openMap(t, path)}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				m := maps[i%2]
				put(t, m, "a", fmt.Sprintf("%d-%02d", w, i), i)
				if i%3 == 0 {
					if err := m.Delete("a", fmt.Sprintf("%d-%02d", w, i)); err != nil {
						t.Error(err)
					}
				}
				if i%10 == 0 {
					load(t, m, "a")
				}
			}
		})
	}
	wg.Wait()
	var want []string
	for w := range writers {
		for i := range each {
			if i%3 != 0 {
				want = append(want, fmt.Sprintf("%d-%02d=%d", w, i, i))
			}
		}
	}
	wantBucket(t, maps[0], "a", want...)
	wantBucket(t, maps[1], "a", want...)
}

func TestMapWorksInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := openMap(t, filepath.Join(t.TempDir(), "fleet.db"))
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Hour)
				put(t, m, "a", fmt.Sprint(i), time.Now().Hour())
			})
		}
		wg.Wait()
		wantBucket(t, m, "a", "0=0", "1=1", "2=2", "3=3")
	})
}

// victimEnv makes the test binary a process that uses the map in that file until
// it is killed.
const victimEnv = "GARO_TEST_DISKMAP_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(victimEnv); path != "" {
		fmt.Fprintln(os.Stderr, "victim:", victim(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// size is that of the victim's values: 300 of them are more than the 4 MB of log
// after which SQLite moves it into the file, so that this too can be killed.
const size = 16 << 10

// victim puts and deletes, on four goroutines, and says so after each call.
func victim(path string) error {
	m, err := Open(path)
	if err != nil {
		return err
	}
	errs := make(chan error)
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d-%d", w, i)
				if err := m.Put("a", key, strings.Repeat("x", size)); err != nil {
					errs <- err
					return
				}
				fmt.Println("put", key)
				if i%4 == 0 {
					if err := m.Delete("a", key); err != nil {
						errs <- err
						return
					}
					fmt.Println("deleted", key)
				}
			}
		}()
	}
	return <-errs
}

func TestKilledProcessLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.db")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), victimEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := map[string]string{} // by key: what the victim said last
	lines := bufio.NewScanner(out)
	for lines.Scan() { // also what it said before the kill reached it
		did, key, _ := strings.Cut(lines.Text(), " ")
		said[key] = did
		if len(said) >= 300 {
			_ = cmd.Process.Kill() // it may be dead already
		}
	}
	_ = cmd.Wait() // it was killed
	if len(said) < 300 {
		t.Fatalf("victim put %d keys, want 300", len(said))
	}

	kept := map[string]bool{}
	m := openMap(t, path)
	if err := m.Load("a", func(key string, value []byte) error {
		kept[key] = true
		if len(value) != size+len(`""`) {
			t.Errorf("%s has %d bytes, want %d and the quotes", key, len(value), size)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for key, did := range said {
		worker, number, _ := strings.Cut(key, "-")
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("victim said %q", key)
		}
		// The delete that its put is followed by may have been done, and not said.
		inFlight := n%4 == 0 && said[fmt.Sprintf("%s-%d", worker, n+1)] == ""
		if did == "put" && !kept[key] && !inFlight {
			t.Errorf("%s is lost", key)
		}
		if did == "deleted" && kept[key] {
			t.Errorf("%s is back after its delete", key)
		}
	}
}
