package local

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
	"github.com/alphagov/github-actions-runner-orchestration/internal/webhook"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// AppFile has the secrets of a GitHub App's webhook, as garo app create keeps them.
const AppFile = "app/webhook.json"

// Job is a job of a workflow that the simulated GitHub is to queue.
type Job struct {
	Repository string        `json:"repository"` // owner/name
	RunsOn     []string      `json:"runs_on"`
	Length     time.Duration `json:"length"` // nanoseconds
	// Lost: no webhook says that it is queued. Late is how much later than it happens GitHub
	// tells of anything, and Twice has it tell everything again after that.
	Lost  bool          `json:"lost,omitempty"`
	Late  time.Duration `json:"late,omitempty"`
	Twice bool          `json:"twice,omitempty"`
	// Back: GitHub gives it to no runner until its Release, as with max-parallel.
	Back bool `json:"-"`
}

// QueuedJob is what became of a Job.
type QueuedJob struct {
	ID      string `json:"id"`      // GitHub's number of it
	Request string `json:"request"` // the id of the request for it, whether there is one or not
	State   string `json:"state"`   // at GitHub
	Runner  string `json:"runner,omitempty"`
}

// teller has the simulated GitHub tell of its jobs by webhooks, as GitHub does: soon after
// each change, and not again. It is safe for concurrent use.
type teller struct {
	s    *System
	key  secret.Text // that it signs with
	ring *keys.Ring
	in   store.Accounts

	mu   sync.Mutex
	as   map[string]Job    // how to tell of a job, by its id
	told map[string]string // the last action, by the job's id
}

func newTeller(s *System, ring *keys.Ring, in store.Accounts) *teller {
	// The operator's token is a secret of this directory already: what is made of it, is too.
	return &teller{s: s, ring: ring, in: in, key: secret.New(keys.HashToken("webhook " + s.Token.Reveal())), as: map[string]Job{}, told: map[string]string{}}
}

// secrets are what deliveries may be signed with: the teller's, and that of an App.
func (t *teller) secrets(context.Context) ([]secret.Text, error) {
	all := []secret.Text{t.key}
	b, err := os.ReadFile(filepath.Join(t.s.cfg.Dir, AppFile))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	var doc struct {
		Secrets []secret.Text `json:"secrets"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, errors.New(AppFile + " is not as garo app create writes it")
	}
	return append(all, doc.Secrets...), nil
}

// repository finds a repository that an account is registered for, by its name or its id.
func (t *teller) repository(ctx context.Context, what string) (store.Repository, error) {
	ids, err := t.in.List(ctx)
	if err != nil {
		return store.Repository{}, err
	}
	for _, id := range ids {
		a, err := t.in.Account(ctx, id)
		if err != nil {
			return store.Repository{}, err
		}
		if i := slices.IndexFunc(a.Repositories, func(n store.Named) bool { return n.ID == what || n.Name == what }); i >= 0 {
			repo, _ := intake.Named(a, a.Repositories[i].Name)
			repo.OwnerID = cmp.Or(repo.OwnerID, "1") // everybody's who has no number here
			return repo, t.s.GitHub.Know(github.Repository{ID: repo.ID, Name: repo.Name})
		}
	}
	return store.Repository{}, fmt.Errorf("no account is registered for the repository %s: name acme/shop, or put a registration into the folder accounts of --dir", what)
}

// queue queues a job.
func (t *teller) queue(ctx context.Context, j Job) (QueuedJob, error) {
	repo, err := t.repository(ctx, j.Repository)
	if err != nil {
		return QueuedJob{}, err
	}
	t.mu.Lock() // before it can be told of
	defer t.mu.Unlock()
	id, err := t.s.GitHub.Queue(repo.ID, simgithub.Job{
		RunID: strconv.FormatInt(time.Now().UnixMicro(), 10), Labels: j.RunsOn, Duration: j.Length, Back: j.Back,
	})
	if err != nil {
		return QueuedJob{}, err
	}
	t.as[id] = j
	return QueuedJob{ID: id, Request: t.ring.JobRequestID(repo.Key(), id), State: string(simgithub.Queued)}, nil
}

// jobs returns what became of workflow jobs, in the order in which they were queued.
func (t *teller) jobs(ctx context.Context) []QueuedJob {
	out := []QueuedJob{}
	for _, j := range t.s.GitHub.Jobs() {
		if repo, err := t.repository(ctx, j.RepositoryID); err == nil && plain(j) {
			out = append(out, QueuedJob{ID: j.ID, Request: t.ring.JobRequestID(repo.Key(), j.ID), State: string(j.State), Runner: j.RunnerName})
		}
	}
	return out
}

// plain reports whether a job names no request's own label.
func plain(j simgithub.Job) bool {
	return !slices.ContainsFunc(j.Labels, func(l string) bool { return strings.HasPrefix(l, store.Ours) })
}

// lookEvery is how often jobs are looked at: GitHub tells within a second or two.
const lookEvery = 200 * time.Millisecond

// run tells until ctx ends, and waits for what is under way.
func (t *teller) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for first := true; ; first = false {
		for _, j := range t.s.GitHub.Jobs() {
			if plain(j) {
				t.tell(ctx, &wg, j, first)
			}
		}
		if sleep.For(ctx, lookEvery) != nil {
			return
		}
	}
}

// actionOf is what GitHub tells of a job that is in a state.
func actionOf(s simgithub.JobState) string {
	switch s {
	case simgithub.Queued, simgithub.Assigned:
		return string(store.JobQueued)
	case simgithub.Running:
		return string(store.JobInProgress)
	}
	return string(store.JobCompleted)
}

// tell delivers what changed of a job. What was over when this process began was delivered by
// one before it.
func (t *teller) tell(ctx context.Context, wg *sync.WaitGroup, j simgithub.Job, first bool) {
	action := actionOf(j.State)
	t.mu.Lock()
	as, was := t.as[j.ID], t.told[j.ID]
	t.told[j.ID] = action
	t.mu.Unlock()
	if was == action || first && action == string(store.JobCompleted) || as.Lost && action == string(store.JobQueued) {
		return
	}
	repo, err := t.repository(ctx, j.RepositoryID)
	if err != nil {
		t.s.cfg.Log.Warn("webhook", "job", j.ID, "error", err)
		return
	}
	body := webhook.Body(delivery(repo, j, action))
	wg.Go(func() {
		times := 1
		if as.Twice {
			times = 2
		}
		for range times {
			if sleep.For(ctx, as.Late) != nil {
				return
			}
			t.post(ctx, body)
		}
	})
}

// post makes one delivery. GitHub does not repeat one that fails.
func (t *teller) post(ctx context.Context, body []byte) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/github/webhook", bytes.NewReader(body))
	if err != nil {
		t.s.cfg.Log.Error("webhook", "error", err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(webhook.EventHeader, webhook.WorkflowJob)
	req.Header.Set(webhook.SignatureHeader, webhook.Sign(t.key, body))
	res, err := t.s.Client().Do(req)
	if err != nil {
		t.s.cfg.Log.Warn("webhook", "error", err)
		return
	}
	_ = res.Body.Close()
}

// delivery is what GitHub tells of a job.
func delivery(repo store.Repository, j simgithub.Job, action string) webhook.Delivery {
	d := webhook.Delivery{Action: action, Repository: repo}
	d.Seen = store.Sighting{Status: store.JobStatus(action), Job: store.WorkflowJob{
		ID: j.ID, RunID: j.RunID, Attempt: 1, Name: "job " + j.ID, Labels: j.Labels, Workflow: "local", HeadBranch: "main",
		URL: "https://" + cmp.Or(repo.Server, "github.com") + "/" + repo.Name + "/actions/runs/" + j.RunID + "/job/" + j.ID, CreatedAt: j.QueuedAt, StartedAt: j.StartedAt,
	}}
	if action != string(store.JobQueued) {
		d.Seen.Runner, d.Seen.Registration = j.RunnerName, j.RunnerID
	}
	if action == string(store.JobCompleted) {
		d.Seen.Job.CompletedAt, d.Seen.Job.Conclusion = j.EndedAt, "success"
		switch {
		case j.State == simgithub.Cancelled:
			d.Seen.Job.Conclusion = "cancelled"
		case j.State == simgithub.Lost || j.Refused:
			d.Seen.Job.Conclusion = "failure"
		}
	}
	return d
}
