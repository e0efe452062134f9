package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
	"github.com/alphagov/github-actions-runner-orchestration/reaper"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

const (
	// workers is how many batches are worked on at once, as many as the cap of the
	// queue's event source in AWS.
	workers = 20
	// batch is how many messages a worker takes at once.
	batch = 25
	// visibility hides a message for longer than a worker may take.
	visibility = worker.Timeout + 15*time.Second
	// poll is how long a worker waits for messages: SQS's longest poll.
	poll = 20 * time.Second
	// reaperTime is what a run of the reaper may take.
	reaperTime = 50 * time.Second
	// expireEvery is how often records past their time to live are deleted.
	expireEvery = time.Hour
	// grace is how long what is under way may continue when the system is to stop: a
	// launch and a registration. What is cut off is resumed after the next start, as
	// after any crash.
	grace = 3 * time.Second
)

// Run has workers take messages and the reaper make its rounds until ctx ends,
// and returns seconds later, when all of them have stopped.
func (s *System) Run(ctx context.Context) {
	under, cut := context.WithCancel(context.WithoutCancel(ctx)) // what is under way
	defer cut()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() { s.work(ctx, under) })
	}
	wg.Go(func() { s.rounds(ctx, under) })
	wg.Go(func() { s.teller.run(ctx) })
	<-ctx.Done()
	defer time.AfterFunc(grace, cut).Stop()
	wg.Wait()
}

// work is what Lambda's event source does for the worker: it takes batches, until
// ctx ends.
func (s *System) work(ctx, under context.Context) {
	for ctx.Err() == nil {
		if err := s.take(ctx, under); err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("queue", "error", err)
			_ = sleep.For(ctx, time.Second)
		}
	}
}

// take has the worker handle the next batch, if one comes, and deletes what did
// not fail.
func (s *System) take(ctx, under context.Context) error {
	ds, err := s.Queue.Receive(ctx, batch, poll)
	if err != nil || len(ds) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(under, worker.Timeout)
	defer cancel()
	failed := map[string]bool{}
	for _, id := range s.worker.Handle(ctx, ds) {
		failed[id] = true
	}
	var errs []error
	for _, d := range ds {
		if !failed[d.ID] {
			errs = append(errs, s.Queue.Delete(ctx, d))
		}
	}
	return errors.Join(errs...)
}

// rounds is what the schedule does for the reaper. The first one is at once: what
// was under way when an earlier process ended may wait for it.
func (s *System) rounds(ctx, under context.Context) {
	tick := time.NewTicker(s.cfg.Limits.ReaperPeriod)
	defer tick.Stop()
	var expired time.Time
	for ctx.Err() == nil {
		switch report, err := s.Reap(under, false); {
		case err != nil:
			s.cfg.Log.Warn("reaper", "error", err)
		case report.Late:
			s.cfg.Log.Warn("the reaper ended before it was done", "left", report.Left)
		}
		if now := time.Now(); now.Sub(expired) >= expireEvery {
			expired = now
			if _, err := s.Store.Expire(ctx, now); err != nil && ctx.Err() == nil {
				s.cfg.Log.Warn("expire records", "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// Reap makes one run of the reaper now.
func (s *System) Reap(ctx context.Context, dryRun bool) (reaper.Report, error) {
	select {
	case s.reaping <- struct{}{}:
		defer func() { <-s.reaping }()
	case <-ctx.Done():
		return reaper.Report{}, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, reaperTime)
	defer cancel()
	cfg := s.reaper
	cfg.DryRun = dryRun
	report, err := reaper.New(cfg).Run(ctx)
	hour := metrics.Figures{}
	if left, known := s.hour(); known {
		hour[metrics.GitHubLeft] = []float64{100 * left}
	}
	s.exporter.measured(report.Figures(), hour)
	return report, err
}

// Handler returns the API and, beside it and for the operator's token alone: GET /metrics,
// for Prometheus; POST /local/reap[?dry_run=true], which runs the reaper and answers with
// its report; POST /local/jobs, which queues a Job at the simulated GitHub; and GET
// /local/jobs.
func (s *System) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s.api)
	mux.HandleFunc("GET /metrics", s.serveMetrics)
	mux.HandleFunc("POST /local/jobs", s.queueJob)
	mux.HandleFunc("GET /local/jobs", s.listJobs)
	mux.HandleFunc("POST /local/reap", func(w http.ResponseWriter, r *http.Request) {
		if !s.operator(w, r) {
			return
		}
		report, err := s.Reap(r.Context(), r.URL.Query().Get("dry_run") == "true")
		if err != nil {
			s.cfg.Log.Warn("reaper", "error", err) // the report tells of it
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(report) // the client has gone; the run is done all the same
	})
	return mux
}

// operator reports whether a call has the operator's token, and refuses it otherwise.
func (s *System) operator(w http.ResponseWriter, r *http.Request) bool {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !s.Token.Equal(token) {
		http.Error(w, "this needs the operator's token", http.StatusUnauthorized)
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return true
}

// QueueJob queues a workflow job at the simulated GitHub, in a repository that an account
// is registered for. While the system runs, webhooks tell of it as j says.
func (s *System) QueueJob(ctx context.Context, j Job) (QueuedJob, error) {
	return s.teller.queue(ctx, j)
}

// queueJob queues a workflow job, and answers with what is known of it.
func (s *System) queueJob(w http.ResponseWriter, r *http.Request) {
	if !s.operator(w, r) {
		return
	}
	var j Job
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10))
	d.DisallowUnknownFields()
	err := d.Decode(&j)
	var queued QueuedJob
	if err == nil {
		queued, err = s.QueueJob(r.Context(), j)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	_ = json.NewEncoder(w).Encode(queued) // the client has gone; the job is queued all the same
}

// listJobs answers what became of the workflow jobs.
func (s *System) listJobs(w http.ResponseWriter, r *http.Request) {
	if s.operator(w, r) {
		_ = json.NewEncoder(w).Encode(s.teller.jobs(r.Context()))
	}
}

// Serve answers calls at the listener, and Runs, until ctx ends; it returns
// seconds later. Meanwhile the address is in URLFile, for scripts to wait for.
func (s *System) Serve(ctx context.Context, l net.Listener) error {
	urlFile := filepath.Join(s.cfg.Dir, URLFile)
	if err := writeFile(urlFile, s.cfg.URL+"\n"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second, // as the API's own limit: a client that sends slower is none of ours
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute, // a run of the reaper is answered too
		IdleTimeout:       2 * time.Minute,
	}
	served := make(chan error, 1)
	go func() {
		defer cancel() // nothing works behind a closed door
		served <- server.Serve(l)
	}()
	s.Run(ctx)
	stop, cancelStop := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancelStop()
	var err error
	if server.Shutdown(stop) != nil {
		err = server.Close() // anyone who still waits for an answer calls again
	}
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve: %w", serveErr))
	}
	return errors.Join(err, os.Remove(urlFile))
}
