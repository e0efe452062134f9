package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// checks are the calls about checks.
type checks struct{ *server }

// start records a check, and has a worker carry it out.
func (s checks) start(ctx context.Context, c *call, body apitype.CheckStart) (apitype.Check, error) {
	who, err := c.operator(ctx)
	if err != nil {
		return apitype.Check{}, err
	}
	switch {
	case body.AccountID != "" && !form.AWSAccount.Fits(body.AccountID):
		return apitype.Check{}, invalid("account_id", "Want the twelve digits of an AWS account.")
	case body.Region != "" && body.AccountID == "":
		return apitype.Check{}, invalid("region", "Say which account's: name account_id, too.")
	case body.Region != "" && !isRegion(body.Region):
		return apitype.Check{}, invalid("region", "Want the name of an AWS region, such as eu-west-2.")
	}
	if err := s.watched(ctx, c, body); err != nil {
		return apitype.Check{}, err
	}
	id, err := keys.NewID(s.Random)
	if err != nil {
		return apitype.Check{}, err
	}
	c.about("check", id)
	now := s.Now()
	check := store.Checkup{ID: id, Account: body.AccountID, Region: body.Region, Runner: body.RunnerID, Caller: printable(who.String(), 128), Trace: c.trace}
	d := store.AskCheckup(now, s.Limits, check)
	if err := c.apply(ctx, d); err != nil {
		return apitype.Check{}, err
	}
	c.status, c.retryAfter = http.StatusAccepted, pollAfter
	return checkOf(*d.Changes[0].Item.(*store.Checkup), now), nil
}

// watched refuses a check of a console that there cannot be.
func (s checks) watched(ctx context.Context, c *call, body apitype.CheckStart) error {
	switch {
	case body.RunnerID == "":
		return nil
	case !keys.ValidID(body.RunnerID):
		return invalid("runner_id", "Want the id of a runner, as GET /runners shows them.")
	case body.AccountID != "":
		return invalid("account_id", "Leave it out: the runner is in one account.")
	}
	c.about("runner", body.RunnerID)
	items, err := c.get(ctx, store.Ref{Kind: store.KindRunner, ID: body.RunnerID})
	if err == nil && items[0].Base().Version == 0 {
		err = invalid("runner_id", "There is no such runner.")
	}
	return err
}

// status answers where a check stands. A poll also sends its message again if nobody
// continues it.
func (s checks) status(ctx context.Context, c *call, _ none) (apitype.Check, error) {
	if _, err := c.operator(ctx); err != nil {
		return apitype.Check{}, err
	}
	id := c.PathValue("id")
	absent := &problem{code: apitype.CodeNotFound, detail: "There is no such check, or it is too old: garo doctor starts one."}
	if id == store.LastCheck {
		absent.detail = "No check has ended yet, or the last one is too old: garo doctor starts one."
	} else if !keys.ValidID(id) {
		return apitype.Check{}, absent
	}
	c.about("check", id)
	items, err := c.get(ctx, store.Ref{Kind: store.KindCheck, ID: id})
	if err != nil {
		return apitype.Check{}, err
	}
	check := *items[0].(*store.Checkup)
	if check.Version == 0 {
		return apitype.Check{}, absent
	}
	now := s.Now()
	if err := c.apply(ctx, check.Poll(now)); err != nil { // who was faster continues it
		s.Log.LogAttrs(ctx, slog.LevelDebug, "check not sent again", slog.String("check", id), slog.String("trace", c.trace), slog.Any("error", err))
	}
	if state := check.State(now); state != store.CheckDone && state != store.CheckUnknown {
		c.retryAfter = pollAfter
	}
	c.tagged = true
	return checkOf(check, now), nil
}

// checkOf returns what people see of a check.
func checkOf(c store.Checkup, now time.Time) apitype.Check {
	out := apitype.Check{
		ID: c.ID, State: string(c.State(now)), Result: string(c.Result()), AccountID: c.Account, Region: c.Region, RunnerID: c.Runner, Console: c.Console, Caller: c.Caller,
		CreatedAt: c.CreatedAt, StartedAt: c.StartedAt, EndedAt: c.EndedAt, GiveUpAt: c.GiveUpAt, Findings: make([]apitype.Finding, 0, len(c.Findings)),
	}
	for _, f := range c.Findings {
		out.Findings = append(out.Findings, apitype.Finding{
			Check: f.Check, AccountID: f.Account, Region: f.Region, About: f.About, Result: string(f.Result), Evidence: f.Evidence, Remedy: f.Remedy,
		})
	}
	return out
}
