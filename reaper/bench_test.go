package reaper_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/sqlitestore"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

// crowd records n runners as one that went the long way is, each with its lock, pulse and
// request, and has their machines run.
func (w *world) crowd(n int, edit ...func(*store.Runner)) {
	w.t.Helper()
	w.online("one", shared)
	c := w.caseOf(id("one"))
	in := w.fleet.shown(here)[0]
	for i := range n {
		run, lock, pulse, q := c.Runner, c.Lock, c.Pulse, c.Request
		run.ID, q.ID = id(numbered(i)), id(numbered(i))
		lock.Key, pulse.Key, run.Lock = run.ID, run.ID, run.ID
		lock.Runner, pulse.Runner, run.Request, q.Runner = run.ID, run.ID, q.ID, run.ID
		run.InstanceID, run.Boot.InstanceID = fmt.Sprintf("i-%08d", i), fmt.Sprintf("i-%08d", i)
		for _, e := range edit {
			e(&run)
		}
		for _, m := range []*store.Meta{run.Base(), lock.Base(), pulse.Base(), q.Base()} {
			m.Version = 0
		}
		w.put(&run, &lock, &pulse, &q)
		in := in
		in.ID, in.ClientToken = run.InstanceID, run.ClientToken()
		in.Tags = map[string]string{fleet.TagControlPlane: controlPlane, fleet.TagRunner: run.ID}
		w.fleet.add(here, in)
	}
	quota := get[store.Quota](w, account)
	quota.Live += n
	w.put(&quota)
}

// inTime is a world in real time.
func inTime(b *testing.B) *world {
	w := &world{
		t: b, store: storetest.NewMemory(), queue: &recorder{}, fleet: newEC2(), hub: newHub(),
		accounts: accounts{account: {ID: account, Regions: map[string]store.Region{region: {}}}},
		lim:      store.DefaultLimits(), log: &bytes.Buffer{},
	}
	w.fleet.page = 1000
	w.config = reaper.Config{
		Store: w.store, Queue: w.queue, Accounts: w.accounts, Fleet: w.fleet, GitHub: w.hub,
		Limits: w.lim, ControlPlane: controlPlane, Log: slog.New(slog.DiscardHandler),
	}
	return w
}

// cpu returns the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkQuietRun makes runs over runners that live and have nothing to be done.
func BenchmarkQuietRun(b *testing.B) {
	for _, live := range []int{100, 1000, 10_000, 50_000} {
		for _, kind := range []string{"memory", "sqlite"} {
			b.Run(fmt.Sprintf("live=%d/store=%s", live, kind), func(b *testing.B) {
				w := inTime(b)
				w.crowd(live)
				now := time.Now() // for ever: nobody sends heartbeats
				w.config.Now = func() time.Time { return now }
				if kind == "sqlite" {
					s, err := sqlitestore.Open(b.Context(), filepath.Join(b.TempDir(), "garo.db"))
					if err != nil {
						b.Fatal(err)
					}
					defer s.Close()
					w.copyTo(s)
					w.config.Store = s
				}
				run := func() {
					ctx, cancel := context.WithTimeout(b.Context(), 50*time.Second)
					defer cancel()
					r, err := reaper.New(w.config).Run(ctx)
					if err != nil || r.Runners < live || r.Late {
						b.Fatalf("Run looked at %d runners, late %v, %v; want %d", r.Runners, r.Late, err, live)
					}
				}
				run() // which sweeps, and sees to the one whose way the others did not go
				b.ReportAllocs()
				used := cpu(b)
				for b.Loop() {
					run()
				}
				b.ReportMetric(float64((cpu(b)-used).Microseconds())/float64(b.N)/float64(live), "cpu-µs/runner")
				b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/float64(live), "µs/runner")
			})
		}
	}
}

// copyTo puts all that the index leads to into another store.
func (w *world) copyTo(s store.Store) {
	w.t.Helper()
	to := store.NewWriter(s, "copy", time.Now)
	for ref, err := range w.store.Due(w.t.Context(), time.Now().Add(24*time.Hour)) {
		if err != nil {
			w.t.Fatal(err)
		}
		items, err := w.store.Get(w.t.Context(), ref)
		if err != nil {
			w.t.Fatal(err)
		}
		if run, ok := items[0].(*store.Runner); ok {
			around, err := w.store.Get(w.t.Context(), run.Around(store.KindLock, store.KindPulse, store.KindRequest)...)
			if err != nil {
				w.t.Fatal(err)
			}
			items = append(items, around...)
		}
		var changes []store.Change
		for _, it := range items {
			it.Base().Version = 0
			changes = append(changes, store.Put(it))
		}
		if err := to.Commit(w.t.Context(), changes...); err != nil {
			w.t.Fatal(err)
		}
	}
}
