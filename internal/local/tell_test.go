package local_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/webhook"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// queuedJob is a delivery of a queued job of the built-in account.
func queuedJob(s *local.System, id int) (body []byte, signature string) {
	n := strconv.Itoa(id)
	body = webhook.Body(webhook.Delivery{
		Action: "queued", Repository: store.Repository{ID: "1001", Name: repository, OwnerID: "1", Owner: "acme"},
		Seen: store.Sighting{Status: store.JobQueued, Job: store.WorkflowJob{ID: n, RunID: "7", Attempt: 1, Name: "job " + n, Labels: []string{"garo"}, CreatedAt: time.Unix(1, 0)}},
	})
	return body, webhook.Sign(secret.New(keys.HashToken("webhook "+s.Token.Reveal())), body)
}

func deliver(t testing.TB, s *local.System, id int) apitype.Delivered {
	t.Helper()
	body, signature := queuedJob(s, id)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/github/webhook", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(webhook.EventHeader, webhook.WorkflowJob)
	req.Header.Set(webhook.SignatureHeader, signature)
	res, err := s.Client().Do(req)
	if err != nil {
		t.Error(err)
		return apitype.Delivered{}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	var out apitype.Delivered
	if err != nil || res.StatusCode/100 != 2 || json.Unmarshal(b, &out) != nil {
		t.Errorf("job %d: %s %s, %v; want 2xx", id, res.Status, b, err)
	}
	return out
}

// A thousand jobs that are queued at once, each told of twice, have a thousand requests.
func TestAThousandQueuedJobsAreEachTakenOnce(t *testing.T) {
	s, err := local.Open(t.Context(), local.Config{Dir: t.TempDir(), URL: "http://test.localhost", Limits: store.DefaultLimits()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	const jobs, callers = 1000, 20
	var mu sync.Mutex
	accepted := map[string]int{}
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for id := 1 + c; id <= 2*jobs; id += callers {
				got := deliver(t, s, 1+id%jobs)
				mu.Lock()
				if got.Answer == apitype.DeliveryAccepted {
					accepted[got.ID]++
				} else if got.Answer != apitype.DeliveryKnown {
					t.Errorf("job %d is %+v, want accepted or known", 1+id%jobs, got)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	n, err := s.Store.CountOpen(t.Context(), store.Repository{ID: "1001"}, 2*jobs)
	if err != nil || n != jobs || len(accepted) != jobs {
		t.Errorf("%d requests are open and %d jobs were accepted, %v; want %d each", n, len(accepted), err, jobs)
	}
	for id, times := range accepted {
		if times != 1 {
			t.Errorf("request %s was accepted %d times", id, times)
		}
	}
}

// Jobs that only name labels run, whatever becomes of their webhooks.
func TestPlainJobsOfTheSimulatedGitHubRun(t *testing.T) {
	s := run(t, local.Config{BootTime: 20 * time.Millisecond})
	queue := func(j local.Job) {
		t.Helper()
		b, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		if res := s.operator(t, http.MethodPost, bytes.NewReader(b)); res.StatusCode != http.StatusOK {
			t.Fatalf("queue %+v = %s", j, res.Status)
		}
	}
	queue(local.Job{Repository: repository, RunsOn: []string{"garo"}, Length: 10 * time.Millisecond})
	queue(local.Job{Repository: repository, RunsOn: []string{"garo"}, Length: 10 * time.Millisecond, Late: 100 * time.Millisecond, Twice: true})
	queue(local.Job{Repository: repository, RunsOn: []string{"g-linux-1"}, Length: 10 * time.Millisecond, Lost: true})
	eventually(t, "three jobs run", func() bool {
		var all []local.QueuedJob
		res := s.operator(t, http.MethodGet, nil)
		if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
			t.Fatal(err)
		}
		return len(all) == 3 && !slices.ContainsFunc(all, func(j local.QueuedJob) bool { return j.State != "done" })
	})
	for _, j := range s.GitHub.Jobs() {
		if j.Refused {
			t.Errorf("job %s was refused", j.ID)
		}
	}
}

// operator makes a call of /local/jobs.
func (r running) operator(t *testing.T, method string, body io.Reader) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost/local/jobs", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.Token.Reveal())
	rec := httptest.NewRecorder()
	r.Handler().ServeHTTP(rec, req)
	return rec.Result()
}

// BenchmarkDoor delivers queued jobs to the API of a local system, twenty at a time, and
// shows how long the slowest in a hundred takes.
func BenchmarkDoor(b *testing.B) {
	s := asleep(b, b.TempDir())
	took := make([]time.Duration, b.N)
	var next sync.Mutex
	i := 0
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for {
				next.Lock()
				n := i
				i++
				next.Unlock()
				if n >= b.N {
					return
				}
				began := time.Now()
				deliver(b, s, n+1)
				took[n] = time.Since(began)
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
