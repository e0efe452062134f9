package actiontest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/action"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
)

// step is a step of the action, as GitHub's runner has it between main and post.
type step struct {
	inputs map[string]string
	files  string // where the files for state, outputs and summary are
	log    bytes.Buffer
}

// state returns what main saved so far.
func (s *step) state(t *testing.T) (last string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.files, "GITHUB_STATE"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		last = strings.TrimSuffix(strings.TrimPrefix(line, "garo="), "\n")
	}
	return last
}

// env is what surrounds a stage of the step. The client is that of the world.
func (s *step) env(w *sim.World, state string) action.Env {
	return action.Env{
		Getenv: func(name string) string {
			switch name {
			case "GITHUB_STATE", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY":
				return filepath.Join(s.files, name)
			case "STATE_garo":
				return state
			}
			return s.inputs[name]
		},
		Stdout:  &s.log,
		Connect: func(string, func(client.Token)) *client.Client { return w.Workflow("7001") },
	}
}

// However and whenever a job is cancelled: within a period of the reaper nothing
// waits any more and no machine that has not booted ever will, and within ten
// minutes no machine is left.
func TestJobCancelledAtAnyMomentLeavesNothing(t *testing.T) {
	moments := rand.New(rand.NewPCG(1, 2))
	for n := range 28 {
		// A runner is online after some 27 s: before that, it is nobody's. Eight more
		// moments are around the call that asks for it.
		within := 25 * time.Second
		if n >= 20 {
			within = 300 * time.Millisecond
		}
		after := time.Duration(moments.Int64N(int64(within)))
		how := []string{"asked", "killed"}[n%2]
		mode := []string{"shared", "ephemeral"}[n/2%2]
		t.Run(fmt.Sprintf("%s %s after %s", mode, how, after.Round(time.Millisecond)), func(t *testing.T) {
			sim.Run(t, sim.Config{Seed: uint64(n)}, func(w *sim.World) {
				t := w.T // of the bubble
				s := &step{files: t.TempDir(), inputs: map[string]string{
					"INPUT_URL": "https://garo.sim", "INPUT_MODE": mode, "INPUT_COUNT": "1", "GITHUB_ACTION": "garo",
				}}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- action.Main(ctx, s.env(w, "")) }()
				time.Sleep(after)
				var state string
				if how == "killed" {
					// From here on, nothing that main does has any effect.
					state = s.state(t)
					w.SetFate(func(e kernel.Effect) kernel.Fate {
						if e.Part == kernel.Client {
							return kernel.FailBefore
						}
						return kernel.Pass
					})
				}
				cancel()
				if err := <-ended; !errors.Is(err, action.ErrCancelled) {
					w.Fatalf("Main = %v, want %v; it printed:\n%s", err, action.ErrCancelled, &s.log)
				}
				w.SetFate(nil)
				if how == "asked" {
					state = s.state(t)
				}
				if err := action.Post(t.Context(), s.env(w, state)); err != nil {
					w.Fatalf("Post = %v; it printed:\n%s", err, &s.log)
				}
				time.Sleep(w.Limits.ReaperPeriod)
				quiet := time.Now()
				page, err := w.Client.Requests(t.Context(), client.Query{})
				if err != nil {
					w.Fatal(err)
				}
				for _, r := range page.Requests {
					if r.State != "cancelled" {
						w.Errorf("request %s is %s, want cancelled", r.ID, r.State)
					}
				}
				if len(page.Requests) > 1 {
					w.Errorf("%d requests, want one at most: whatever was asked is found again", len(page.Requests))
				}
				time.Sleep(10*time.Minute - w.Limits.ReaperPeriod)
				for _, m := range w.Fleet.Instances() {
					if !m.State.Over() {
						w.Errorf("machine %s is %s", m.ID, m.State)
					}
					if m.CredentialedAt.After(quiet) {
						w.Errorf("machine %s booted %s after the end", m.ID, m.CredentialedAt.Sub(quiet))
					}
				}
			})
		})
	}
}
