//go:build linux

package machinetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/runnertest"
)

// listener is what the runner program's listener does here: it takes its jobs from
// the broker. The answer to a poll refuses its version, and nothing before that.
const listener = `
broker=BROKER
fetch() { curl -s --noproxy '*' --retry 10 --retry-connrefused "$@"; }
connected
case $(config | fetch --output .session --write-out '%{http_code}' --data-binary @- "$broker/session") in
200) ;;
410) forgotten ;;
*) exit 1 ;;
esac
session=$(cat .session)
listening
until code=$(curl -s --noproxy '*' --dump-header .headers --output _work/_temp/job.sh --write-out '%{http_code}' "$broker/session/$session/job") && [ "$code" != 204 ]; do
	sleep 0.2
done
case $code in
200) ;;
426) refused ;;
*) forgotten ;;
esac
export BROKER=$broker
job build "$(sed -n 's/^X-Run: *\([0-9]*\).*/\1/p' .headers)" '/bin/bash ../_temp/job.sh; fetch -X POST "$BROKER/session/$session/done"'
`

// tarball returns the runner program as GitHub packs it.
func tarball(brokerURL string) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	now := time.Now()
	type entry struct {
		name, text string
		mode       int64
		kind       byte
	}
	entries := []entry{
		{"./", "", 0o755, tar.TypeDir},
		{"./bin/", "", 0o755, tar.TypeDir},
		{"./externals/", "", 0o755, tar.TypeDir},
		{"./externals/npm", "../bin/Runner.Listener", 0o777, tar.TypeSymlink},
		{"./externals/large", strings.Repeat("0123456789abcdef", 64<<10), 0o644, tar.TypeReg},
	}
	for _, f := range runnertest.Files(strings.Replace(listener, "BROKER", brokerURL, 1)) {
		entries = append(entries, entry{"./" + f.Name, f.Text, 0o755, tar.TypeReg})
	}
	for _, f := range entries {
		h := &tar.Header{Name: f.name, Mode: f.mode, Typeflag: f.kind, ModTime: now, Uid: 1001, Gid: 127}
		if f.kind == tar.TypeSymlink {
			h.Linkname = f.text
			f.text = ""
		}
		h.Size = int64(len(f.text))
		if err := t.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(t, f.text); err != nil {
			return nil, err
		}
	}
	err := errors.Join(t.Close(), z.Close())
	return b.Bytes(), err
}

func sum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// broker is the side of GitHub that runner programs talk to.
type broker struct {
	world *world

	mu       sync.Mutex
	last     int
	sessions map[string]*simgithub.Session
	jobs     map[string]string // what the job of a run does: a shell script
	said     map[string]string // what a job told, by a word of its own
	released bool
	mute     bool // no job and no end is ever told
}

// release lets the jobs continue that wait.
func (w *world) release() {
	w.broker.mu.Lock()
	defer w.broker.mu.Unlock()
	w.broker.released = true
}

func (b *broker) setMute() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mute = true
}

// opened is how many sessions runner programs have opened.
func (b *broker) opened() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sessions)
}

func tooOld(r *simgithub.Rules) { r.TooOld = true }

// run gives a workflow run a number, and its job what to do.
func (b *broker) run(script string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	run := fmt.Sprint(7000 + b.last)
	b.jobs[run] = script
	return run
}

// job queues a job that one label leads to, and returns the id of its run.
func (w *world) job(label, script string) string {
	w.Helper()
	run := w.broker.run(script)
	if _, err := w.github.Queue(repository, simgithub.Job{RunID: run, Labels: []string{label}}); err != nil {
		w.Fatalf("queue a job: %v", err)
	}
	return run
}

// told waits for what a job tells under a word, with: curl --data-binary @FILE "$BROKER/said/WORD".
func (w *world) told(word string) string {
	w.Helper()
	var text string
	eventually(w.T, "a job tells of "+word, func() bool {
		w.broker.mu.Lock()
		defer w.broker.mu.Unlock()
		var ok bool
		text, ok = w.broker.said[word]
		return ok
	})
	return text
}

func (b *broker) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /session", func(res http.ResponseWriter, req *http.Request) {
		config, err := io.ReadAll(req.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		x, err := b.world.github.Connect(req.Context(), string(config))
		switch {
		case errors.Is(err, simgithub.ErrDeleted):
			res.WriteHeader(http.StatusGone)
			return
		case err != nil:
			http.Error(res, err.Error(), http.StatusConflict)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.last++
		id := fmt.Sprint(b.last)
		b.sessions[id] = x
		if m := b.world.from(req); m != nil {
			go func() { // a machine that is off is offline
				<-m.ended
				x.Close()
			}()
		}
		_, _ = io.WriteString(res, id)
	})
	mux.HandleFunc("GET /session/{id}/job", func(res http.ResponseWriter, req *http.Request) {
		ctx, cancel := context.WithTimeout(req.Context(), 2*time.Second)
		defer cancel()
		job, err := b.session(req).Wait(ctx)
		b.mu.Lock()
		mute := b.mute
		b.mu.Unlock()
		switch {
		case mute:
			<-ctx.Done()
			res.WriteHeader(http.StatusNoContent)
			return
		case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
			res.WriteHeader(http.StatusNoContent)
			return
		case errors.Is(err, simgithub.ErrTooOld):
			res.WriteHeader(http.StatusUpgradeRequired)
			return
		case err != nil:
			res.WriteHeader(http.StatusGone)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		res.Header().Set("X-Run", job.RunID)
		_, _ = io.WriteString(res, b.jobs[job.RunID])
	})
	mux.HandleFunc("POST /session/{id}/done", func(res http.ResponseWriter, req *http.Request) {
		x := b.session(req)
		job, err := x.Wait(req.Context())
		if err == nil {
			err = x.Done(req.Context(), job)
		}
		if err != nil {
			b.world.Logf("a job's end: %v", err)
			res.WriteHeader(http.StatusGone)
		}
	})
	mux.HandleFunc("GET /go", func(res http.ResponseWriter, _ *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.released {
			_, _ = io.WriteString(res, "go")
		}
	})
	mux.HandleFunc("POST /said/{word}", func(_ http.ResponseWriter, req *http.Request) {
		text, err := io.ReadAll(req.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.said[req.PathValue("word")] = string(text)
	})
	return mux
}

func (b *broker) session(req *http.Request) *simgithub.Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.sessions[req.PathValue("id")]
	if x == nil {
		panic(http.ErrAbortHandler)
	}
	return x
}
