package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// hearing is what GitHub says of one workflow job, on its way into the records.
type hearing struct {
	*invocation
	queue.Message
	account store.Account
	repo    store.Repository
	read    bool // GitHub was asked for this message
	known   bool // there is a request, or there was when it came
}

// told is a job message of a batch, and what came out.
type told struct {
	queue.Message
	err *error
}

// jobs takes up the job messages of a batch: those about one workflow run one after
// another, so that the answer that the first one has from GitHub serves them all, and
// runs side by side. Each registration is read once.
func (in *invocation) jobs(ctx context.Context, all []*told) {
	type registration struct {
		store.Account
		err error
	}
	accounts := map[string]registration{}
	var runs []string
	messages := map[string][]*told{} // by run
	for _, m := range all {
		if _, read := accounts[m.Account]; !read {
			a, err := in.Accounts.Account(ctx, m.Account)
			accounts[m.Account] = registration{a, err}
		}
		run := m.Seen.Repository.Key() + "/" + m.Seen.Run
		if messages[run] == nil {
			runs = append(runs, run)
		}
		messages[run] = append(messages[run], m)
	}
	var wg sync.WaitGroup
	for _, run := range runs {
		wg.Go(func() {
			for _, m := range messages[run] {
				a := accounts[m.Account]
				in.guard(m.err, func() error { return in.job(ctx, m.Message, a.Account, a.err) })
			}
		})
	}
	wg.Wait()
}

// job takes up a job message of an account, or of one that could not be read. What it
// says is believed if it proves itself; else GitHub is asked.
func (in *invocation) job(ctx context.Context, m queue.Message, account store.Account, err error) error {
	switch {
	case errors.Is(err, store.ErrNoAccount), err == nil && account.Closed:
		in.Log.Info("a job of an account that is not served", "account", m.Account, "job", m.Seen.Job, "trace", m.Trace)
		return nil
	case err != nil:
		return fmt.Errorf("account %s: %w", m.Account, err)
	}
	h := &hearing{invocation: in, Message: m, account: account, repo: m.Seen.Repository}
	h.repo.Server = account.Server
	h.repo.Owner, _, _ = strings.Cut(h.repo.Name, "/")
	if !account.Serves(h.repo) {
		in.Log.Info("a job of a repository that is not served", "account", m.Account, "repository", h.repo.Name, "job", m.Seen.Job, "trace", m.Trace)
		return nil
	}
	return h.hear(ctx, m.Seen.Sighting())
}

// hear lets a sighting have its effect. Who loses a commit decides again.
func (h *hearing) hear(ctx context.Context, s store.Sighting) error {
	for try := 1; ; try++ {
		again, err := h.once(ctx, &s)
		if err != nil || !again {
			return err
		}
		if h.left() < lastCommit {
			h.send(ctx, h.Message, h.Now().Add(time.Second+h.jitter(2*time.Second)))
			return errLater
		}
		if err := h.backoff(ctx, try); err != nil {
			return err
		}
	}
}

// once is one try of hear. again: it lost its commit, or had no answer. GitHub is asked
// at most once, and s is what it said.
func (h *hearing) once(ctx context.Context, s *store.Sighting) (again bool, err error) {
	c, on, err := h.load(ctx, *s)
	if err != nil {
		return false, err
	}
	h.known = h.known || c.Request.Version != 0
	if _, heard := store.Heard(c, h.Now(), h.Limits, *s, on); heard == store.HeardUnsure || s.Status == "" {
		if h.read || !h.known && s.Runner != "" {
			return false, nil // a job that we know nothing of, on a runner of others
		}
		if *s, err = h.ask(ctx, *s); err != nil {
			return false, err
		}
		if c, on, err = h.load(ctx, *s); err != nil {
			return false, err
		}
	}
	if c.Request.Version == 0 {
		d, ours, err := h.unknown(ctx, s, on)
		if err != nil {
			return false, err
		}
		if c.Request = (store.Request{}); ours {
			c.Request = d.Request
		}
		if ours && !on {
			return h.accept(ctx, d)
		}
	}
	d, heard := store.Heard(c, h.Now(), h.Limits, *s, on)
	if len(d.Changes) > 0 {
		if err := h.session.Commit(ctx, d.Changes...); err != nil {
			if !errors.Is(err, store.ErrConflict) {
				h.Log.Warn("commit without an answer", "job", h.Seen.Job, "trace", h.Trace, "error", err)
			}
			return true, ctx.Err()
		}
	}
	h.heard(ctx, c, d, heard, *s)
	return false, h.idle(ctx, d.Request, *s)
}

// load reads the request of the job and, if it is on a runner of ours by its name, that
// runner. on reports that the sighting proves it.
func (h *hearing) load(ctx context.Context, s store.Sighting) (c store.Case, on bool, err error) {
	refs := []store.Ref{{Kind: store.KindRequest, ID: h.ID}}
	runner, named := store.RunnerNamed(h.ControlPlane, s.Runner)
	if named {
		refs = append(refs, store.Ref{Kind: store.KindRunner, ID: runner})
	}
	items, err := h.Store.Get(ctx, refs...)
	if err != nil {
		return c, false, fmt.Errorf("read request %s: %w", h.ID, err)
	}
	c = c.With(items...)
	if !named {
		return c, false, nil
	}
	if on = s.Proves(h.ControlPlane, c.Runner) && c.Runner.Account == h.account.ID && serves(c.Runner, h.repo); !on {
		c.Runner = store.Runner{}
	}
	return c, on, nil
}

// serves reports whether a runner can be given jobs of a repository, by where it registers.
func serves(r store.Runner, repo store.Repository) bool {
	in := r.Where()
	if in.Kind == store.OrganizationScope {
		return in.Server == repo.Server && in.ID == repo.OwnerID
	}
	return r.Repository.Same(repo)
}

// unknown decides the request of a job that has none, if it is ours. Of a webhook, which a
// message has in part, GitHub is asked.
func (h *hearing) unknown(ctx context.Context, s *store.Sighting, on bool) (d store.Decision, ours bool, err error) {
	if !on && (!s.Read || s.Status != store.JobQueued) {
		return d, false, nil
	}
	job := s.Job
	if !s.Read {
		read, err := h.ask(ctx, store.Sighting{Job: s.Job})
		if err != nil {
			return d, false, err
		}
		job = read.Job
	}
	m := h.account.Match(h.repo, job.Labels)
	if m.Offer == nil {
		return d, false, nil
	}
	w := intake.OfJob(m, job, h.Trace)
	r, err := h.intake().Complete(h.account, h.repo, w)
	if err == nil {
		if no := intake.Allowed(h.Limits, h.account, r); no != nil {
			err = no
		}
	}
	if err != nil {
		h.Log.Warn("a job that no machine can be had for", "account", h.account.ID, "repository", h.repo.Name, "job", job.ID, "trace", h.Trace, "error", err)
		return d, false, nil
	}
	d = h.intake().Accept(h.Now(), r, w)
	if d.Request.ID != h.ID {
		return d, false, fmt.Errorf("message for job %s names request %s, want %s", job.ID, h.ID, d.Request.ID)
	}
	return d, true, nil
}

func (w *Worker) intake() intake.Intake {
	return intake.Intake{Accounts: w.Accounts, Keys: w.keys(), Limits: w.Limits, Open: w.open}
}

// accept records the request of a queued job, and has a machine looked for. A repository
// that has too many open ones waits: its job is found again. again: somebody was faster,
// or nobody knows.
func (h *hearing) accept(ctx context.Context, d store.Decision) (again bool, err error) {
	err = h.open.Admit(ctx, h.account, h.repo, func() error { return h.session.Commit(ctx, d.Changes...) }, func(err error) {
		h.Log.Warn("open requests not counted", "repository", h.repo.Name, "error", err)
	})
	no, refused := errors.AsType[*intake.Refusal](err)
	switch {
	case err == nil:
		h.Log.Info("accepted a job whose webhook was lost", "request", h.ID, "job", d.Request.Job.ID, "repository", h.repo.Name, "trace", h.Trace)
		h.sendAll(ctx, d)
		return false, nil
	case refused:
		h.Log.Info("job left for later", "job", d.Request.Job.ID, "repository", h.repo.Name, "trace", h.Trace, "reason", no.Text)
		if err := h.open.Overflow(ctx, h.session, h.account, h.repo); err != nil { // then it is found in its turn
			h.Log.Warn("job without room not remembered", "repository", h.repo.Name, "trace", h.Trace, "error", err)
		}
		return false, nil
	case !errors.Is(err, store.ErrConflict):
		h.Log.Warn("commit without an answer", "request", h.ID, "trace", h.Trace, "error", err)
	}
	return true, ctx.Err()
}

// ask has GitHub tell about the job of a sighting, and uses the answer for the other jobs of
// the run. An earlier answer by which a job is queued that has begun since, as a webhook
// says, is no answer to that. errLater: it does not tell now, and the request that waits for the job has it read again.
func (h *hearing) ask(ctx context.Context, told store.Sighting) (store.Sighting, error) {
	job := told.Job
	s, run, first, err := h.invocation.read(ctx, h.account.ID, h.repo, job, newsFor)
	if err == nil && !first && told.Status.Begun() && !s.Status.Begun() {
		s, run, first, err = h.invocation.read(ctx, h.account.ID, h.repo, job, 0)
	}
	h.read = true
	if err != nil {
		h.Log.Warn("GitHub does not tell of the job", "job", job.ID, "run", job.RunID, "repository", h.repo.Name, "trace", h.Trace, "error", err)
		if ctx.Err() != nil {
			return s, ctx.Err()
		}
		return s, errLater
	}
	if first && h.known {
		h.others(ctx, run)
	}
	return s, nil
}

// heard tells what a sighting came to, and sends what follows.
func (h *hearing) heard(ctx context.Context, was store.Case, d store.Decision, heard store.Hearing, s store.Sighting) {
	log := h.Log.With("request", h.ID, "job", s.Job.ID, "trace", h.Trace)
	if d.Alarm != "" {
		h.alarm(d.Alarm, "a one-job runner took two jobs", "runner", d.Runner.ID, "took", d.Runner.Took.Job, "job", s.Job.ID, "repository", h.repo.Name, "trace", h.Trace)
	}
	if heard != store.HeardNothing {
		log.Info("job heard", "what", string(heard), "state", string(d.Request.State), "runner", d.Request.Runner)
	}
	h.sendAll(ctx, d)
	if r := was.Request; r.State == store.Waiting && d.Request.State != store.Waiting && r.Runner != d.Runner.ID {
		h.spared(ctx, r)
	}
}
