package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// boot exchanges the boot token for a session and the first config.
func (a *Agent) boot(ctx context.Context) {
	word, ok := a.identity(ctx)
	if !ok {
		a.backOff(answer{})
		return
	}
	in := apitype.Boot{Token: a.cfg.Document.Token.Reveal(), Nonce: a.s.Nonce, InstanceID: a.cfg.InstanceID, Identity: word}
	var out apitype.Booted
	ans := a.post(ctx, a.path("boot"), in, &out)
	switch {
	case ans.status == http.StatusOK && complete(out):
		a.answered()
		a.log.Info("booted", slog.String("mode", out.Mode), slog.String("order", out.Order))
		a.s.Session, a.s.Lock, a.s.Mode = out.Session, out.Lock, out.Mode
		a.s.HeartbeatS, a.s.IdleS = out.HeartbeatS, out.IdleS
		a.s.Program = out.Programs[runtime.GOARCH]
		a.s.Environment, a.s.Outfit, a.s.Asks = out.Environment, out.Outfit, out.Asks
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
	case word != "" && refused(ans.status):
		a.log.Warn("the API knows no word of AWS: it is of a version before", slog.Int("status", ans.status))
		a.plain = true
	default:
		a.powerOff(fmt.Sprintf("the boot was refused with status %d", ans.status))
	}
}

// identity returns AWS's word for the machine, and whether the boot call can be made: not
// yet, while the metadata service does not answer and may do so in a moment.
func (a *Agent) identity(ctx context.Context) (word string, ok bool) {
	if a.cfg.Identity == nil || a.plain {
		return "", true
	}
	word, err := a.cfg.Identity(ctx)
	if err == nil {
		a.blind = 0
		return word, true
	}
	a.blind++
	a.log.Warn("the metadata service does not answer", slog.Int("times", a.blind), slog.Any("error", err))
	return "", a.blind >= identityTries
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
		// What is wrong with the event itself, no repetition fixes, and the next
		// ones wait behind it.
		a.log.Error("event given up", slog.String("event", e.Event), slog.Int("status", ans.status))
		a.answered()
		a.s.Outbox = a.s.Outbox[1:]
	default:
		a.unheard(ans)
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
		a.unheard(ans)
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
		a.unheard(ans)
	}
}

// unheard backs off after a call with the session that was not taken. A machine that
// the API has not known for as long as it may idle, since its key was taken away or its
// record is lost, powers off as soon as no runner program runs: nothing can come to it.
func (a *Agent) unheard(ans answer) {
	now := time.Now()
	switch {
	case ans.status != http.StatusUnauthorized:
		a.deniedAt = time.Time{}
	case a.deniedAt.IsZero():
		a.deniedAt = now
	case a.program == nil && a.s.End == "" && now.Sub(a.deniedAt) >= a.idleLimit(): // else it ends on its own, and says why
		a.powerOff("the API no longer knows the machine")
		return
	}
	a.backOff(ans)
}

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
		a.log.Error("power-off timer not set", slog.Time("at", a.s.Hard), slog.Any("error", err))
	}
}
