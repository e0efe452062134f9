package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

// Health returns what the last runs of the reaper recorded, for an operator.
func (c *Client) Health(ctx context.Context) (apitype.ReaperHealth, error) {
	var out apitype.ReaperHealth
	_, err := c.call(ctx, http.MethodGet, "/health", nil, &out)
	return out, wrap("health", err)
}

// StartCheck has the control plane examine itself, for an operator. WaitCheck waits for
// what it finds.
func (c *Client) StartCheck(ctx context.Context, body apitype.CheckStart) (apitype.Check, error) {
	var out apitype.Check
	_, err := c.call(ctx, http.MethodPost, "/checks", body, &out)
	return out, wrap("start a check", err)
}

// LastCheck is the id under which the last check that ended is found.
const LastCheck = "last"

// Check returns where a check stands, for an operator.
func (c *Client) Check(ctx context.Context, id string) (apitype.Check, error) {
	out, _, err := c.check(ctx, id)
	return out, err
}

func (c *Client) check(ctx context.Context, id string) (apitype.Check, time.Duration, error) {
	var out apitype.Check
	wait, err := c.call(ctx, http.MethodGet, "/checks/"+url.PathEscape(id), nil, &out)
	return out, wait, wrap("check "+id, err)
}

// WaitCheck polls a check until it is done, or given up: apitype.CheckUnknown, which is no
// error. progress, if not nil, is called with each answer.
func (c *Client) WaitCheck(ctx context.Context, id string, progress func(apitype.Check)) (apitype.Check, error) {
	for {
		now, wait, err := c.check(ctx, id)
		if err != nil {
			return now, err
		}
		if progress != nil {
			progress(now)
		}
		if now.State == apitype.CheckDone || now.State == apitype.CheckUnknown {
			return now, nil
		}
		if wait <= 0 {
			wait = pollEvery
		}
		if err := sleep.For(ctx, wait); err != nil {
			return now, wrap("wait for check "+id, err)
		}
	}
}
