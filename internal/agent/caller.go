package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

const (
	// callTimeout is as long as the API itself works on a call.
	callTimeout = 10 * time.Second
	// firstBackoff and lastBackoff bound the pause after a call that had no
	// answer: short for a lost packet, and four calls a minute in an outage.
	firstBackoff = time.Second
	lastBackoff  = 15 * time.Second
	// tooEarly is the pause after a 425 that says none.
	tooEarly = 2 * time.Second
	// longestPause is the most that an answer may ask for: twice as long, and a
	// machine counts as lost.
	longestPause = time.Minute
	// maxAnswer is far more than a config needs, which is the largest answer.
	maxAnswer = 256 << 10
)

// caller makes the calls to the API, one at a time, and says when the next one may
// be made. The credentials are those in the memory.
type caller struct {
	memory  *memory
	http    *http.Client
	api     string
	version string

	notBefore time.Time // any call; zero: at once
	fails     int       // calls in a row that had no answer
	deniedAt  time.Time // the first of the calls in a row whose session was refused; zero: the last one was not
}

func newCaller(m *memory) caller {
	document := m.cfg.Document
	c := caller{memory: m, api: strings.TrimRight(document.API, "/"), version: "unknown"}
	// The hash by which the machine was given its agent says exactly which one it is.
	if hash := document.Agent[runtime.GOARCH]; len(hash) >= 12 {
		c.version = hash[:12]
	}
	client := *m.cfg.HTTP
	client.Timeout = 0 // each call has a context with its own
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &client
	return c
}

// answer is what became of a call. Status 0: there was no answer.
type answer struct {
	status int
	pause  time.Duration // what Retry-After says; 0: nothing
	took   time.Duration // until the answer was there
}

// post makes one call, and decodes an answer with status 200 into out. An answer
// that cannot be read is none.
func (c *caller) post(ctx context.Context, path string, in, out any) answer {
	ans, err := c.try(ctx, path, in, out)
	if err != nil && ctx.Err() == nil {
		c.memory.log.Warn("call not answered", slog.String("call", path), slog.Any("error", err))
	} else if err == nil && ans.status != http.StatusOK {
		c.memory.log.Info("call refused", slog.String("call", path), slog.Int("status", ans.status))
	}
	return ans
}

func (c *caller) try(ctx context.Context, path string, in, out any) (answer, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return answer{}, fmt.Errorf("call %s: %w", path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.api+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("call %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "garo-agent/"+c.version)
	if c.memory.s.Session != "" {
		req.Header.Set("Authorization", "Bearer "+c.memory.s.Session)
	} else {
		req.Header.Set(apitype.OptionsHeader, strings.Join(apitype.OutfitParts, ","))
	}
	if c.memory.s.Lock != "" {
		req.Header.Set(apitype.LockHeader, c.memory.s.Lock)
	}
	asked := time.Now()
	res, err := c.http.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("call %s: %w", path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return answer{}, fmt.Errorf("call %s: %w", path, err)
	}
	if res.StatusCode == http.StatusOK && json.Unmarshal(b, out) != nil {
		return answer{}, fmt.Errorf("call %s: the answer is not understood", path)
	}
	ans := answer{status: res.StatusCode, took: time.Since(asked)}
	if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 {
		ans.pause = min(time.Duration(min(s, 3600))*time.Second, longestPause)
	}
	return ans, nil
}

func (c *caller) path(call string) string {
	return "/runners/" + c.memory.cfg.Document.Runner + "/" + call
}

// backOff waits after a call that had no answer, or one that may be another in a
// while: longer each time, and never quite as long as others do.
func (c *caller) backOff(ans answer) {
	d := min(firstBackoff<<min(c.fails, 4), lastBackoff)
	c.fails++
	d = d/2 + time.Duration(float64(d/2)*c.memory.fraction())
	c.notBefore = time.Now().Add(max(d, ans.pause))
}

// answered ends the backing off.
func (c *caller) answered() { c.fails, c.notBefore, c.deniedAt = 0, time.Time{}, time.Time{} }

// repeatable reports whether the same call may be answered otherwise later.
func (ans answer) repeatable() bool {
	switch ans.status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return ans.status < 400 || ans.status >= 500
}

// early is the pause after a 425: that of the answer, and no network is to blame.
func (c *caller) early(ans answer) time.Time {
	c.answered()
	if ans.pause == 0 {
		ans.pause = tooEarly
	}
	return time.Now().Add(ans.pause)
}
