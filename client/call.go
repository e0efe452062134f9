package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

// maxAnswer is far above a full page: what is larger is no answer of this API.
const maxAnswer = 8 << 20

// call makes one call, as often as it takes, and decodes its answer into out. It
// returns what the answer's Retry-After says.
func (c *Client) call(ctx context.Context, method, path string, body, out any) (time.Duration, error) {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return 0, err
		}
	}
	for try := 0; ; try++ {
		wait, again, err := c.try(ctx, method, path, payload, out)
		if err == nil || !again || try == maxTries-1 || ctx.Err() != nil {
			return wait, err
		}
		c.again(err)
		if stop := sleep.For(ctx, max(wait, c.backoff(try))); stop != nil {
			return 0, errors.Join(stop, err)
		}
	}
}

// try makes one call. again reports whether another one may help.
func (c *Client) try(ctx context.Context, method, path string, payload []byte, out any) (wait time.Duration, again bool, err error) {
	token, err := c.token(ctx)
	if err != nil {
		return 0, false, fmt.Errorf("token: %w", err)
	}
	var body io.Reader
	if payload != nil {
		body = bytes.NewReader(payload)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, body)
	if err != nil {
		return 0, false, err
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("Accept", "application/json, "+apitype.ProblemMedia)
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, true, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, true, fmt.Errorf("%w: read it: %w", ErrNoAnswer, err)
	}
	wait = retryAfter(resp.Header)
	if resp.StatusCode/100 != 2 {
		e := newError(resp, answer)
		return wait, e.Retryable(), e
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return 0, false, errors.New("unexpected answer: something else than this API answers there, check the URL")
	}
	return wait, false, nil
}
