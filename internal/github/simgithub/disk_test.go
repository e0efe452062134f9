package simgithub

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/diskmap"
)

var _ Disk = (*diskmap.Map)(nil)

// disk opens the file of a data directory, until the test ends.
func disk(t *testing.T, path string) *diskmap.Map {
	t.Helper()
	d, err := diskmap.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestRestartLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "fleet.db")
		before := open(t, Config{Disk: disk(t, path)})
		busy := before.mint("busy", "a")
		xBusy := before.connect(busy.Config)
		running := before.queue("1", "a")
		take(t, xBusy)
		idle := before.mint("idle", "b")
		before.connect(idle.Config)
		assigned := before.queue("2", "b")
		queued := before.queue("3", "c")
		gone := before.mint("gone", "d")
		xGone := before.connect(gone.Config)
		over := before.queue("4", "d")
		if err := xGone.Done(t.Context(), take(t, xGone)); err != nil {
			t.Fatal(err)
		}
		// The process is killed here: no session is closed.

		after := open(t, Config{Disk: disk(t, path)})
		got := after.Registrations()
		if len(got) != 2 || got[0].Name != "busy" || got[0].Online || !got[0].Busy || got[1].Name != "idle" || got[1].Online || got[1].Busy {
			t.Errorf("registrations = %+v, want busy and idle, offline", got)
		}
		for id, want := range map[string]JobState{running: Running, assigned: Assigned, queued: Queued} {
			if j := after.job(id); j.State != want {
				t.Errorf("job = %+v, want it %s", j, want)
			}
		}
		if n := len(after.Jobs()); n != 3 {
			t.Errorf("%d jobs, want 3: job %s is over", n, over)
		}
		after.connectFails(gone.Config, ErrDeleted)
		x := after.connect(busy.Config)
		if j := take(t, x); j.ID != running || j.RunID != "1" || j.Duration != time.Minute {
			t.Errorf("Wait of the busy runner = %+v, want the job that it runs", j)
		}
		if err := x.Done(t.Context(), Job{ID: running}); err != nil {
			t.Errorf("Done: %v", err)
		}
		x = after.connect(idle.Config)
		defer x.Close()
		if j := take(t, x); j.ID != assigned {
			t.Errorf("Wait of the idle runner = %+v, want the job that was assigned to it", j)
		}
		if m := after.mint("new", "c"); m.Runner.ID <= gone.Runner.ID {
			t.Errorf("new runner has id %d, want one above all that were given out", m.Runner.ID)
		}
		after.call("POST", "/repos/acme/shop/actions/runners/generate-jitconfig", mintBody("IDLE", "x"), 409, nil)
	})
}

func TestJobOnADeletedRunnerIsLostByARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "fleet.db")
		before := open(t, Config{Disk: disk(t, path), Rules: Rules{BusyLag: time.Minute}})
		_, x := before.online("r", "a")
		id := before.queue("1", "a")
		take(t, x)
		before.call("DELETE", "/repos/acme/shop/actions/runners/1", "", 204, nil)

		after := open(t, Config{Disk: disk(t, path)})
		if j := after.job(id); j.State != Running {
			t.Errorf("job = %+v, want it running", j)
		}
		time.Sleep(10 * time.Minute)
		if j := after.job(id); j.State != Lost || j.RunnerName != "r" {
			t.Errorf("job = %+v, want it lost", j)
		}
		if n := len(after.Registrations()); n != 0 {
			t.Errorf("%d registrations, want none", n)
		}
	})
}

func TestJobIsLostAsSoonHoweverOftenGitHubStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "fleet.db")
		before := open(t, Config{Disk: disk(t, path)})
		_, x := before.online("r", "a")
		id := before.queue("1", "a")
		take(t, x)
		var after *world
		for range 5 { // it is killed, and no session is closed
			after = open(t, Config{Disk: disk(t, path)})
			after.Jobs()
			time.Sleep(2*time.Minute - 1)
		}
		if j := after.job(id); j.State != Running {
			t.Errorf("job = %+v, want it running until ten minutes are over", j)
		}
		time.Sleep(5 * time.Nanosecond)
		if j := after.job(id); j.State != Lost {
			t.Errorf("job = %+v, want it lost", j)
		}
	})
}

func TestAutoJobIsQueuedOnceInSpiteOfARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "fleet.db")
		before := open(t, Config{Disk: disk(t, path), Rules: Rules{AutoJobs: time.Minute}})
		m := before.mint("r", "garo-x")
		before.connect(m.Config)
		after := open(t, Config{Disk: disk(t, path), Rules: Rules{AutoJobs: time.Minute}})
		x := after.connect(m.Config)
		take(t, x)
		if n := len(after.Jobs()); n != 1 {
			t.Errorf("%d jobs, want 1", n)
		}
		x.Close()
	})
}

func TestNoConfigIsOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.db")
	d, err := diskmap.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	m := open(t, Config{Disk: d}).mint("r", "a")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) == 0 {
		t.Fatalf("files = %v, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), m.Config[100:150]) {
			t.Errorf("%s has the config in it", f)
		}
	}
}

func TestDiskThatFailsIsTriedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.db")
	broken, err := diskmap.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	w := open(t, Config{Disk: broken})
	if err := broken.Close(); err != nil {
		t.Fatal(err)
	}
	w.call("POST", "/repos/acme/shop/actions/runners/generate-jitconfig", mintBody("r1", "a"), 500, nil)
	if _, err := w.Queue(shop, Job{Labels: []string{"a"}}); err == nil {
		t.Error("Queue with a broken disk: no error")
	}
	m := w.Registrations()[0]
	if _, err := w.Connect(t.Context(), m.Config.Reveal()); err == nil || errors.Is(err, ErrConflict) || w.Registrations()[0].Online {
		t.Errorf("Connect = %v, want an outage that leaves the runner offline", err)
	}
	w.disk = disk(t, path)
	w.mint("r2", "a")

	after := open(t, Config{Disk: disk(t, path)})
	if n := len(after.Registrations()); n != 2 {
		t.Errorf("after a restart %d registrations, want both", n)
	}
	if n := len(after.Jobs()); n != 1 {
		t.Errorf("after a restart %d jobs, want 1", n)
	}
}

func TestDamagedDiskIsNotOpened(t *testing.T) {
	for _, bucket := range []string{bucketLast, bucketRunners, bucketJobs} {
		d := disk(t, filepath.Join(t.TempDir(), "fleet.db"))
		if err := d.Put(bucket, "x", []string{"damaged"}); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{Disk: d}); err == nil {
			t.Errorf("New with a damaged %s: no error", bucket)
		}
	}
}
