package sim_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
)

func examine(w *sim.World) apitype.Check {
	w.Helper()
	started, err := w.Client.StartCheck(w.Context(), apitype.CheckStart{})
	if err != nil {
		w.Fatal(err)
	}
	c, err := w.Client.WaitCheck(w.Context(), started.ID, nil)
	if err != nil {
		w.Fatal(err)
	}
	w.Check()
	return c
}

func TestCheckOfAWorldThatWorksIsOK(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		c := examine(w)
		for _, f := range c.Findings {
			if f.Result != apitype.ResultOK && !slices.Contains([]string{"clock", "runner_version", "webhook", "reaper"}, f.Check) {
				w.Errorf("%+v, want ok", f)
			}
		}
		if c.State != apitype.CheckDone || len(c.Findings) < 15 || c.EndedAt.Sub(c.CreatedAt) > 30*time.Second {
			w.Errorf("check is %s after %s with %d findings, want it done in half a minute", c.State, c.EndedAt.Sub(c.CreatedAt), len(c.Findings))
		}
		last, err := w.Client.Check(w.Context(), client.LastCheck)
		if err != nil || len(last.Findings) != len(c.Findings) || !last.EndedAt.Equal(c.EndedAt) {
			w.Errorf("the last check = %+v, %v; want the same", last, err)
		}
		if minted, left := w.GitHub.Minted(), w.GitHub.Registrations(); len(minted) != 1 || len(left) != 0 {
			w.Errorf("%d runners were registered and %d are left, want one and none", len(minted), len(left))
		}
	})
}

func TestCheckOfADeadWorkerIsContinued(t *testing.T) {
	t.Parallel()
	for _, op := range []string{kernel.TakeOn, kernel.Mint, kernel.Vet, kernel.Subnets} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			sim.Run(t, sim.Config{}, func(w *sim.World) {
				w.SetFate(func(e kernel.Effect) kernel.Fate {
					if e.Part == kernel.Worker && e.Op == op && e.Nth == 1 {
						return kernel.KillAfter
					}
					return kernel.Pass
				})
				c := examine(w)
				if took := c.EndedAt.Sub(c.CreatedAt); c.State != apitype.CheckDone || took > 2*time.Minute {
					w.Errorf("check is %s after %s, want it done by another worker within two minutes", c.State, took)
				}
				if left := w.GitHub.Registrations(); len(left) != 0 {
					w.Errorf("%d registrations are left, want none", len(left))
				}
			})
		})
	}
}

func TestCheckWhoseMessageIsLostIsSentAgain(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		w.SetFate(func(e kernel.Effect) kernel.Fate {
			if e.Op == kernel.Send && strings.Contains(e.What, "check") && e.Nth == 1 {
				return kernel.FailBefore
			}
			return kernel.Pass
		})
		if c := examine(w); c.State != apitype.CheckDone {
			w.Errorf("check is %s, want it done", c.State)
		}
	})
}

func TestCheckOfAnAccountThatRefusesUsSaysSo(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		w.Distrust()
		got := map[string]string{}
		for _, f := range examine(w).Findings {
			got[f.Check] = f.Result
			if f.Result == apitype.ResultFailed && f.Remedy == "" {
				w.Errorf("%+v has no remedy", f)
			}
		}
		if got["role"] != apitype.ResultFailed || got["external_id"] != apitype.ResultSkipped || got["dry_run"] != apitype.ResultSkipped || got["api"] != apitype.ResultOK {
			w.Errorf("findings = %v, want the role to fail, and nothing that needs it to be looked at", got)
		}
	})
}

func TestConsoleOfAMachineIsReadByAWorker(t *testing.T) {
	t.Parallel()
	sim.Run(t, sim.Config{}, func(w *sim.World) {
		run := w.RunnerOf(w.Ready(w.Start(sim.Ephemeral("a")), 5*time.Minute).ID)
		started, err := w.Client.StartCheck(w.Context(), apitype.CheckStart{RunnerID: run.ID})
		if err != nil {
			w.Fatal(err)
		}
		got, err := w.Client.WaitCheck(w.Context(), started.ID, nil)
		if err != nil || !strings.Contains(got.Console, run.InstanceID) || got.Result != apitype.ResultOK {
			w.Errorf("the check = %+v, %v; want the console of %s", got, err, run.InstanceID)
		}
		w.Check()
	})
}
