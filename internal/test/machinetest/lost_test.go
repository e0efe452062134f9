//go:build linux

package machinetest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// losing lets each different call take effect once before its answer is sent: the
// first one is lost, of a download after its first half.
type losing struct {
	next http.Handler

	mu     sync.Mutex
	seen   map[string]bool
	lost   int
	ranges []string // what downloads were gone on with
}

func (l *losing) ServeHTTP(res http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	key := fmt.Sprint(req.Method, req.URL.Path, string(body))
	l.mu.Lock()
	first := !l.seen[key] && !strings.Contains(key, `"heartbeat"`)
	l.seen[key] = true
	if first {
		l.lost++
	}
	if part := req.Header.Get("Range"); part != "" {
		l.ranges = append(l.ranges, part)
	}
	l.mu.Unlock()
	if !first {
		l.next.ServeHTTP(res, req)
		return
	}
	kept := httptest.NewRecorder()
	l.next.ServeHTTP(kept, req)
	if strings.HasSuffix(req.URL.Path, ".tar.gz") {
		res.Header().Set("Content-Length", fmt.Sprint(kept.Body.Len()))
		_, _ = res.Write(kept.Body.Bytes()[:kept.Body.Len()/2])
		_ = http.NewResponseController(res).Flush()
	}
	panic(http.ErrAbortHandler)
}

func TestEveryAnswerIsLostOnce(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]string{
		store.Ephemeral: "booting, online, job_started R1, job_done",
		store.Shared:    "booting, online, job_started R1, job_done, online, job_started R2, job_done",
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			l := &losing{seen: map[string]bool{}}
			w := newWorld(t, options{
				image:  image{systemd: true},
				api:    func(next http.Handler) http.Handler { l.next = next; return l },
				limits: func(l *store.Limits) { l.Idle = 15 * time.Second },
			})
			if w == nil {
				return
			}
			started := w.ask(mode)
			runs := []string{w.job(started.OwnLabel, "true")}
			if mode == store.Shared {
				runs = append(runs, w.job(started.OwnLabel, "true"))
			}
			code := store.EndDone
			if mode == store.Shared {
				code = store.EndIdle
			}
			s := w.wantEnd(started.ID, code)
			if s.Runner.Jobs != len(runs) {
				t.Errorf("%d jobs recorded, want %d", s.Runner.Jobs, len(runs))
			}
			for i, run := range runs {
				want = strings.Replace(want, fmt.Sprintf("R%d", i+1), run, 1)
			}
			if heard := w.heard(); !strings.HasPrefix(heard, want) {
				t.Errorf("the API heard: %s\nwant: %s", heard, want)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if len(l.ranges) != 1 {
				t.Errorf("downloads gone on with: %q, want one", l.ranges)
			}
			if l.lost < 7 {
				t.Errorf("%d answers lost, want those of agent, boot, runner program and every event", l.lost)
			}
			if got := len(w.fleet.all()); got != 1 {
				t.Errorf("%d launches, want 1", got)
			}
		})
	}
}
