package agent

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Admitter is a Program whose job waits, before its first step, to be told whether it may
// run.
type Admitter interface {
	// Admit tells it, once. why is for the job's log.
	Admit(allowed bool, why string) error
}

// asks takes the program's question. Whatever becomes of it, there is an answer in time:
// the job waits.
func (a *Agent) asks(job apitype.Admission) {
	if !a.s.Asks || a.question != nil {
		return
	}
	a.question, a.answerBy = &job, time.Now().Add(store.AdmitWithin)
}

// admission asks the API whether the job may run.
func (a *Agent) admission(ctx context.Context) {
	ctx, cancel := context.WithDeadline(ctx, a.answerBy)
	defer cancel()
	var out apitype.Admitted
	ans := a.post(ctx, a.path("admission"), a.question, &out)
	switch {
	case ans.status == http.StatusOK:
		a.answered()
		a.admit(out.Allowed, out.Reason)
	case ans.status == http.StatusTooEarly:
		a.askAt = a.early(ans)
	case ans.repeatable() && ans.status != http.StatusGone:
		a.backOff(ans)
	default:
		a.admit(false, "The control plane refuses the question of this machine.")
	}
}

// unanswered refuses the job: an outage fails jobs rather than let strangers in.
func (a *Agent) unanswered(context.Context) {
	a.say(apitype.Event{Event: store.EventNote, Detail: "nobody said in time whether the job of run " + a.question.RunID + " may run: it is refused"})
	a.admit(false, "The control plane did not say in time whether this job may run on this machine. Run it again.")
}

// admit answers the program. One that cannot be answered gives up on its own.
func (a *Agent) admit(allowed bool, why string) {
	a.log.Info("admission", slog.String("run", a.question.RunID), slog.Bool("allowed", allowed), slog.String("reason", why))
	a.question, a.askAt = nil, time.Time{}
	if p, ok := a.program.(Admitter); ok {
		if err := p.Admit(allowed, why); err != nil {
			a.log.Error("the job was not told whether it may run", slog.Any("error", err))
		}
	}
}
