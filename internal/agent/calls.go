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
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
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

// answer is what became of a call. Status 0: there was no answer.
type answer struct {
	status int
	pause  time.Duration // what Retry-After says; 0: nothing
	took   time.Duration // until the answer was there
}

// post makes one call, and decodes an answer with status 200 into out. An answer
// that cannot be read is none.
func (a *Agent) post(ctx context.Context, path string, in, out any) answer {
	ans, err := a.try(ctx, path, in, out)
	if err != nil && ctx.Err() == nil {
		a.log.Warn("call not answered", slog.String("call", path), slog.Any("err", err))
	} else if err == nil && ans.status != http.StatusOK {
		a.log.Info("call refused", slog.String("call", path), slog.Int("status", ans.status))
	}
	return ans
}

func (a *Agent) try(ctx context.Context, path string, in, out any) (answer, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return answer{}, fmt.Errorf("call %s: %w", path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.api+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("call %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "garo-agent/"+a.version)
	if a.s.Session != "" {
		req.Header.Set("Authorization", "Bearer "+a.s.Session)
	}
	if a.s.Lock != "" {
		req.Header.Set(apitype.LockHeader, a.s.Lock)
	}
	asked := time.Now()
	res, err := a.http.Do(req)
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

// backOff waits after a call that had no answer, or one that may be another in a
// while: longer each time, and never quite as long as others do.
func (a *Agent) backOff(ans answer) {
	d := min(firstBackoff<<min(a.fails, 4), lastBackoff)
	a.fails++
	d = d/2 + time.Duration(float64(d/2)*a.fraction())
	a.notBefore = time.Now().Add(max(d, ans.pause))
}

// answered ends the backing off.
func (a *Agent) answered() { a.fails, a.notBefore = 0, time.Time{} }

// repeatable reports whether the same call may be answered otherwise later.
func (ans answer) repeatable() bool {
	switch ans.status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return ans.status < 400 || ans.status >= 500
}

// early is the pause after a 425: that of the answer, and no network is to blame.
func (a *Agent) early(ans answer) time.Time {
	a.answered()
	if ans.pause == 0 {
		ans.pause = tooEarly
	}
	return time.Now().Add(ans.pause)
}

// boot exchanges the boot token for a session and the first config.
func (a *Agent) boot(ctx context.Context) {
	in := apitype.Boot{Token: a.cfg.Document.Token.Reveal(), Nonce: a.s.Nonce, InstanceID: a.cfg.InstanceID}
	var out apitype.Booted
	ans := a.post(ctx, a.path("boot"), in, &out)
	switch {
	case ans.status == http.StatusOK && complete(out):
		a.answered()
		a.log.Info("booted", slog.String("mode", out.Mode), slog.String("order", out.Order))
		a.s.Session, a.s.Lock, a.s.Mode = out.Session, out.Lock, out.Mode
		a.s.HeartbeatS, a.s.IdleS = out.HeartbeatS, out.IdleS
		a.s.Program = out.Programs[runtime.GOARCH]
		a.s.Environment = out.Environment
		if a.s.N = out.N; !a.s.Draining {
			a.s.Config = out.Config
		}
		a.beatLater()
		a.say(apitype.Event{Event: store.EventBooting, Detail: a.version})
		a.obey(out.Orders, ans.took)
	case ans.status == http.StatusTooEarly:
		a.notBefore = a.early(ans)
	case ans.repeatable():
		a.backOff(ans)
	default:
		a.powerOff(fmt.Sprintf("the boot was refused with status %d", ans.status))
	}
}

// complete reports whether a boot answer has all that the machine needs.
func complete(b apitype.Booted) bool {
	return b.Session != "" && b.Config != "" && b.N > 0 && b.Order != "" && (b.Mode == store.Shared || b.Mode == store.Ephemeral)
}

// report sends the oldest event that is not answered yet.
func (a *Agent) report(ctx context.Context) {
	e := a.s.Outbox[0]
	var out apitype.Orders
	ans := a.post(ctx, a.path("events"), e, &out)
	switch {
	case ans.status == http.StatusOK && out.Order != "":
		a.answered()
		a.s.Outbox = a.s.Outbox[1:]
		a.log.Info("reported", slog.String("event", e.Event), slog.String("reason", e.Reason), slog.String("order", out.Order))
		switch {
		case e.Event == store.EventIdle && a.s.Job != jobRuns:
			a.idleAt = time.Now().Add(max(a.idleLimit()/4, time.Second)) // shared again, most likely
		case (e.Event == store.EventOnline || e.Event == store.EventJobDone) && !a.idleAt.IsZero():
			a.idleAt = time.Now().Add(a.idleLimit()) // the API counts from when it heard of it
		}
		a.obey(out, ans.took)
	case ans.status == http.StatusGone:
		a.powerOff("the runner is ended")
	case refused(ans.status):
		// What is wrong with the event itself, no repetition mends, and the next
		// ones wait behind it.
		a.log.Error("event given up", slog.String("event", e.Event), slog.Int("status", ans.status))
		a.answered()
		a.s.Outbox = a.s.Outbox[1:]
	default:
		a.backOff(ans)
	}
}

// refused reports whether a status says that the call's body is wrong.
func refused(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// heartbeat gives a sign of life. One that is lost is not repeated: the next one
// comes instead, after the pause that any lost call is followed by.
func (a *Agent) heartbeat(ctx context.Context) {
	e := apitype.Event{Event: store.EventHeartbeat, Counter: a.count()}
	a.save()
	var out apitype.Orders
	ans := a.post(ctx, a.path("events"), e, &out)
	switch {
	case ans.status == http.StatusOK && out.Order != "":
		a.answered()
		a.beatLater()
		a.obey(out, ans.took)
	case ans.status == http.StatusGone:
		a.powerOff("the runner is ended")
	default:
		a.backOff(ans)
	}
}

// ask asks for the next config. The same call again is what makes the API look
// after it, so that it is repeated until there is an answer.
func (a *Agent) ask(ctx context.Context) {
	var out apitype.NextConfig
	ans := a.post(ctx, a.path("next"), apitype.Next{N: a.s.N + 1}, &out)
	granted := out.Order == string(store.OrderGo) && out.Config != "" && out.N > a.s.N
	switch {
	case ans.status == http.StatusOK && granted:
		a.answered()
		a.s.N, a.s.Config, a.s.Asking = out.N, out.Config, false
		a.log.Info("next config", slog.Int("n", out.N))
		a.obey(out.Orders, ans.took)
	case ans.status == http.StatusOK && out.Order != "" && out.Order != string(store.OrderGo):
		a.answered()
		a.drain("no further config")
		a.obey(out.Orders, ans.took)
	case ans.status == http.StatusTooEarly:
		a.askAt = a.early(ans)
	case ans.status == http.StatusGone:
		a.powerOff("the runner is ended")
	default:
		a.backOff(ans)
	}
}

func (a *Agent) path(call string) string { return "/runners/" + a.cfg.Document.Runner + "/" + call }

// obey does what an answer says. Only the orders that shorten the machine's life
// do anything; one that is not known is none. The time that is left counts from when
// the call was made: an answer may have been long on its way.
func (a *Agent) obey(o apitype.Orders, took time.Duration) {
	// Zero is no time at all, or a field that is missing: the order says which.
	if at := a.cfg.Now().Add(o.HardS.Duration() - took); o.HardS > 0 && at.Before(a.s.Hard.Add(-time.Second)) {
		a.s.Hard = at
		a.arm()
	}
	switch store.Order(o.Order) {
	case store.OrderStop, store.OrderGone:
		a.powerOff("ordered to stop")
	case store.OrderDrain:
		a.drain("ordered")
	}
}

// arm sets the machine's timer. Without it there is still the one that the start
// script set.
func (a *Agent) arm() {
	if err := a.cfg.Machine.SetTimer(a.s.Hard); err != nil {
		a.log.Error("power-off timer not set", slog.Time("at", a.s.Hard), slog.Any("err", err))
	}
}
