package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/intake"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/webhook"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// offered is a registration that serves a job, and what it makes of its labels.
type offered struct {
	account store.Account
	match   store.Match
}

// offers returns what serves a job: the one registration whose offer does, or else the
// first one that can say why none does. two is true if several have an offer: GARO does
// not choose between them, since nobody could tell which machines a job gets.
func offers(accounts []store.Account, d webhook.Delivery) (found offered, two bool) {
	for _, a := range accounts {
		m := a.Match(d.Repository, d.Seen.Job.Labels)
		switch {
		case found.account.ID == "", m.Offer != nil && found.match.Offer == nil, m.Why != "" && found.match.Offer == nil && found.match.Why == "":
			found = offered{a, m}
		case m.Offer != nil:
			two = true
		}
	}
	return found, two
}

// job takes what a delivery says of a workflow job.
func (s *server) job(ctx context.Context, c *call, d webhook.Delivery, by registered) (apitype.Delivered, error) {
	c.about("repository", d.Repository.ID)
	c.about("job", d.Seen.Job.ID)
	accounts := by.serving(d)
	if len(accounts) == 0 {
		if by.faulty != nil {
			return apitype.Delivered{}, outage(by.faulty)
		}
		c.deny("repository is not registered")
		return apitype.Delivered{Answer: apitype.DeliveryIgnored, Reason: "no account is registered for this repository, by this sender"}, nil
	}
	o, two := offers(accounts, d)
	c.about("account", o.account.ID)
	if two {
		o.match = store.Match{Why: "several accounts have a runs_on that fits: leave one of them"}
	}
	d.Seen.Job = trimmed(d.Seen.Job)
	id := s.Keys.JobRequestID(d.Repository.Key(), d.Seen.Job.ID)
	status := store.JobStatus(d.Action)
	switch {
	case status.Begun() && (o.match.Offer != nil || mayBeOurs(d.Seen)):
		d.Seen.Status = status
		return s.tell(ctx, c, o.account, id, d)
	case status.Begun(), o.match.Offer == nil && o.match.Why == "":
		return ignored(c, "no runs_on of account "+o.account.ID+" is for these labels")
	case status == store.JobQueued || status.Held():
		return s.queued(ctx, c, o, id, d)
	}
	return ignored(c, "this action of workflow_job is not known")
}

// mayBeOurs reports whether the job is on a machine of ours by its name, which proves
// nothing, and not by the own label of a request, whose machine tells of it itself.
func mayBeOurs(seen store.Sighting) bool {
	return strings.HasPrefix(seen.Runner, store.Ours) && !named(seen.Job.Labels, store.Ours)
}

// named reports whether one of the labels begins so.
func named(labels []string, prefix string) bool {
	return slices.ContainsFunc(labels, func(l string) bool { return strings.HasPrefix(strings.ToLower(l), prefix) })
}

// tell has a worker hear what a delivery says of a job, or read it if that says no status.
func (s *server) tell(ctx context.Context, c *call, a store.Account, id string, d webhook.Delivery) (apitype.Delivered, error) {
	c.about("request", id)
	if err := s.Queue.Send(ctx, queue.JobOf(id, a.ID, d.Repository, d.Seen, c.trace), 0); err != nil {
		return apitype.Delivered{}, outage(fmt.Errorf("tell of job %s: %w", d.Seen.Job.ID, err))
	}
	c.allow("told")
	return apitype.Delivered{Answer: apitype.DeliveryTold, ID: id}, nil
}

// queued makes the record of a job that is not known yet. One that is known is read again,
// whatever the delivery says of it: deliveries come late, twice and in any order.
func (s *server) queued(ctx context.Context, c *call, o offered, id string, d webhook.Delivery) (apitype.Delivered, error) {
	a := o.account
	w := intake.OfJob(o.match, d.Seen.Job, c.trace)
	r, err := s.intake.Complete(a, d.Repository, w)
	no, _ := errors.AsType[*intake.Refusal](err) // Complete has no other error
	if err == nil && o.match.Offer != nil {
		no = intake.Allowed(s.Limits, a, r)
	}
	now := s.Now()
	answer, why := apitype.DeliveryAccepted, ""
	var decision store.Decision
	switch {
	case a.Closed:
		return ignored(c, "account "+a.ID+" is closed")
	case o.match.Offer == nil, no != nil:
		answer, why = apitype.DeliveryIgnored, o.match.Why
		if no != nil {
			why = no.Error()
		}
		decision = s.intake.Ignore(now, r, w, why)
		err = c.apply(ctx, decision)
	default:
		decision = s.intake.Accept(now, r, w)
		err = s.admitJob(ctx, c, a, decision)
	}
	c.about("request", decision.Request.ID)
	if no, ok := errors.AsType[*intake.Refusal](err); ok {
		c.deny(no.Reason)
		if err := s.intake.Open.Overflow(ctx, c.store, a, d.Repository); err != nil { // then it is found in its turn
			s.Log.LogAttrs(ctx, slog.LevelWarn, "job without room not remembered", slog.String("trace", c.trace), slog.Any("error", err))
		}
		return apitype.Delivered{Answer: apitype.DeliveryLater, ID: id, Reason: no.Text}, nil
	}
	if was, ok, _ := intake.Replayed(decision, err); ok {
		return s.known(ctx, c, a, was, d)
	}
	if err != nil {
		return apitype.Delivered{}, err
	}
	c.allow(answer)
	return apitype.Delivered{Answer: answer, ID: id, Reason: why}, nil
}

// admitJob commits and sends a job's request if its repository has room for one more. The
// job of one that has not is found when there is: GitHub would not deliver again what is
// answered with an error.
func (s *server) admitJob(ctx context.Context, c *call, a store.Account, d store.Decision) error {
	return s.intake.Open.Admit(ctx, a, d.Request.Repository, func() error { return c.apply(ctx, d) }, func(err error) {
		s.Log.LogAttrs(ctx, slog.LevelWarn, "open requests not counted", slog.String("trace", c.trace), slog.Any("error", err))
	})
}

// known answers a delivery that calls a job queued which has a record.
func (s *server) known(ctx context.Context, c *call, a store.Account, was store.Request, d webhook.Delivery) (apitype.Delivered, error) {
	if s.Now().Sub(was.SentAt) < readAgain {
		c.allow("known")
		return apitype.Delivered{Answer: apitype.DeliveryKnown, ID: was.ID}, nil
	}
	d.Seen.Status, d.Seen.Runner, d.Seen.Registration = "", "", 0
	return s.tell(ctx, c, a, was.ID, d)
}

// trimmed is what a record keeps of a job, whose texts anybody with a workflow makes up.
func trimmed(j store.WorkflowJob) store.WorkflowJob {
	for _, text := range []*string{&j.Name, &j.Workflow, &j.HeadBranch, &j.URL, &j.Conclusion} {
		*text = printable(*text, maxJobText)
	}
	labels := j.Labels[:min(len(j.Labels), maxJobLabels)]
	j.Labels = make([]string, len(labels))
	for i, l := range labels {
		j.Labels[i] = printable(l, maxJobText)
	}
	return j
}
