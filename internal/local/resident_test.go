package local_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/sqlitestore"
)

// proc returns the resident memory of a process, and the processor time that it
// has used, as Linux counts them.
func proc(b testing.TB, pid int) (rss int64, used time.Duration) {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			rss = kb << 10
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])) // from the third one on
	for _, f := range fields[11:13] {                                                   // utime and stime
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		used += time.Duration(ticks) * time.Second / 100 // USER_HZ is 100 wherever Go runs
	}
	return rss, used
}

// watch reports the memory of a process, and the share of one processor that it
// uses over some time.
func watch(b *testing.B, p *process, over time.Duration) {
	b.Helper()
	_, before := proc(b, p.Process.Pid)
	began := time.Now()
	time.Sleep(over)
	rss, after := proc(b, p.Process.Pid)
	b.ReportMetric(float64(rss)/(1<<20), "rss-MB")
	b.ReportMetric(100*(after-before).Seconds()/time.Since(began).Seconds(), "cpu-%")
}

// BenchmarkIdle is what garo local needs when nobody asks for anything: with
// nothing on record, and with 100,000 finished requests.
func BenchmarkIdle(b *testing.B) {
	garo := build(b)
	for _, n := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("finished=%d", n), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "data")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				b.Fatal(err)
			}
			s, err := sqlitestore.Open(b.Context(), filepath.Join(dir, local.StoreFile))
			if err != nil {
				b.Fatal(err)
			}
			fill(b, s, n)
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				p := launch(b, garo, dir, "--quiet")
				time.Sleep(2 * time.Second) // to settle, and for a first round of the reaper
				watch(b, p, 10*time.Second)
				p.kill(b)
			}
		})
	}
}

// BenchmarkThousandMachines is what garo local needs with a thousand machines
// that are online and idle, and how long it takes until they are.
func BenchmarkThousandMachines(b *testing.B) {
	const machines = 1000
	garo := build(b)
	for b.Loop() {
		dir := filepath.Join(b.TempDir(), "data")
		p := launch(b, garo, dir, "--quiet", "--boot-time", "1s", "--jobs", "0")
		c := client.Must(client.New(client.Config{URL: p.url, Token: func(context.Context) (client.Token, error) { return client.NewToken(p.token), nil }}))
		began := time.Now()
		for range machines {
			if _, err := c.Start(b.Context(), apitype.Start{Repo: repository, Mode: store.Ephemeral}); err != nil {
				b.Fatal(err)
			}
		}
		until(b, "a thousand machines", func() bool {
			time.Sleep(200 * time.Millisecond)
			n := 0
			for _, r := range read(b, filepath.Join(dir, local.StoreFile)).runners {
				if r.State == store.RunnerOnline {
					n++
				}
			}
			return n == machines
		})
		b.ReportMetric(time.Since(began).Seconds(), "s-until-online")
		watch(b, p, 25*time.Second) // more than one heartbeat of each
		stopping := time.Now()
		if err := p.Process.Signal(os.Interrupt); err != nil {
			b.Fatal(err)
		}
		if err := p.Wait(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(stopping).Seconds(), "s-to-stop")
	}
}
