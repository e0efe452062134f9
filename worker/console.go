package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// readConsole reads what the machine of a runner printed, and ends the check.
func (in *invocation) readConsole(ctx context.Context, c store.Checkup) error {
	run, err := store.Read[store.Runner](ctx, in.Store, c.Runner)
	if err != nil {
		return fmt.Errorf("check %s: runner %s: %w", c.ID, c.Runner, err)
	}
	text := ""
	if run.InstanceID != "" {
		text, err = in.Fleet.Console(ctx, fleet.PlaceOf(run), run.InstanceID)
	}
	if c, err = in.keepCheck(ctx, c.Printed(text, judgeConsole(run, text, err))); err != nil {
		return err
	}
	return in.endCheck(ctx, c)
}

// judgeConsole says what it means that a console was read like that.
func judgeConsole(run store.Runner, text string, err error) store.Finding {
	f := store.Finding{Check: "console", About: run.InstanceID, Result: store.ResultFailed}
	refused, _ := errors.AsType[*fleet.Error](err)
	switch {
	case run.Version == 0:
		f.Evidence, f.Remedy = "The runner's record is gone.", "Name a runner that garo runners --all shows."
	case run.InstanceID == "":
		f.Evidence, f.Remedy = "The runner has no machine.", "garo show "+run.ID+" says what became of it."
	case errors.Is(err, fleet.ErrNotFound):
		f.Evidence, f.Remedy = "EC2 does not know the machine any more.", "Nothing: EC2 forgets a machine within an hour of its end. The error of a machine that did not boot has its last lines."
	case errors.Is(err, fleet.ErrRefused):
		f.Evidence, f.Remedy = refused.Code+": "+refused.Text, "Apply the Terraform module modules/account of this version in the account."
	case err != nil:
		f.Evidence, f.Remedy = "EC2 does not answer: "+err.Error()+".", "Try again."
	case text == "":
		f.Result, f.Evidence, f.Remedy = store.ResultWarn, "EC2 has nothing of it yet.", "Try again: EC2 has it a minute or two after the machine has started, or ended."
	default:
		f.Result, f.Evidence = store.ResultOK, fmt.Sprintf("%d bytes, as EC2 has them now: they may be minutes old.", len(text))
	}
	return f
}
