package sqlitequeue

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store/sqlitestore"
)

// victimEnv makes the test binary a process that uses the queue in that file
// until it is killed.
const victimEnv = "GARO_TEST_QUEUE_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(victimEnv); path != "" {
		fmt.Fprintln(os.Stderr, "victim:", victim(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// victim sends messages on one goroutine and deletes them on another, more slowly,
// and says so after each call.
func victim(path string) error {
	ctx := context.Background()
	s, err := sqlitestore.Open(ctx, path) // what was sent is kept, whatever shares its transaction
	if err != nil {
		return err
	}
	q, err := New(ctx, s.DB(), s.Exec, time.Minute, nil)
	if err != nil {
		return err
	}
	errs := make(chan error, 2)
	go func() {
		for i := 0; ; i++ {
			if err := q.Send(ctx, message(i), 0); err != nil {
				errs <- err
				return
			}
			fmt.Println("sent", message(i).Trace)
		}
	}()
	go func() {
		for {
			got, err := q.Receive(ctx, 3, time.Minute)
			if err != nil {
				errs <- err
				return
			}
			for _, d := range got[:1] {
				m, err := queue.Decode(d.Body)
				if err == nil {
					err = q.Delete(ctx, d)
				}
				if err != nil {
					errs <- err
					return
				}
				fmt.Println("deleted", m.Trace)
			}
		}
	}()
	return <-errs
}

func TestKilledProcessLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "q.db")
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
	sent, deleted := map[string]bool{}, map[string]bool{}
	lines := bufio.NewScanner(out)
	for lines.Scan() { // also what it said before the kill reached it
		did, m, _ := strings.Cut(lines.Text(), " ")
		switch did {
		case "sent":
			sent[m] = true
		case "deleted":
			deleted[m] = true
		default:
			t.Errorf("victim said %q", lines.Text())
		}
		if len(sent) >= 200 && len(deleted) >= 20 {
			_ = cmd.Process.Kill() // it may be dead already
		}
	}
	_ = cmd.Wait() // it was killed
	if len(sent) < 200 || len(deleted) < 20 {
		t.Fatalf("victim sent %d and deleted %d messages, want 200 and 20", len(sent), len(deleted))
	}

	q := open(t, openDB(t, path, 1), time.Minute, func() time.Time { return time.Now().Add(time.Hour) })
	left := map[string]bool{}
	for {
		got := receive(t, q, 100, 0)
		if len(got) == 0 {
			break
		}
		for _, d := range got {
			m, err := queue.Decode(d.Body)
			if err != nil {
				t.Fatal(err)
			}
			left[m.Trace] = true
			if deleted[m.Trace] {
				t.Errorf("message %s comes again after its delete", m.Trace)
			}
		}
	}
	lost := 0
	for m := range sent {
		if !left[m] && !deleted[m] {
			lost++
		}
	}
	if lost > 1 { // one may have been deleted, and not said so any more
		t.Errorf("%d messages are lost of %d that were sent", lost, len(sent))
	}
}
