package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// names has the API name a runner program for this architecture in its boot answer.
func names(p apitype.RunnerProgram) func(*http.Response) error {
	return func(res *http.Response) error {
		if !strings.HasSuffix(res.Request.URL.Path, "/boot") || res.StatusCode != http.StatusOK {
			return nil
		}
		var body map[string]any
		if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
			return err
		}
		body["programs"] = map[string]apitype.RunnerProgram{runtime.GOARCH: p, "another": {URL: "https://wrong.test"}}
		b, err := json.Marshal(body)
		res.Body = io.NopCloser(bytes.NewReader(b))
		return err
	}
}

var wanted = apitype.RunnerProgram{Version: "2.336.0", URL: "https://releases.test/runner.tar.gz", SHA256: strings.Repeat("cd", 32)}

func TestRunnerProgramIsInstalledWhileTheAgentReports(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.meddle = names(wanted)
		var got apitype.RunnerProgram
		w.install = func(ctx context.Context, p apitype.RunnerProgram, _ apitype.Outfit) (string, error) {
			got = p
			time.Sleep(90 * time.Second)
			return "", ctx.Err()
		}
		w.boot()
		w.later(80 * time.Second)
		if len(w.configs) != 0 {
			t.Error("the runner program was started before it was there")
		}
		if beats := len(w.of("heartbeat")); beats < 3 {
			t.Errorf("%d heartbeats while it is installed, want one each 20 s", beats)
		}
		w.later(11 * time.Second)
		if got != wanted || len(w.configs) != 1 {
			t.Errorf("installed %+v and started %d times, want %+v and once", got, len(w.configs), wanted)
		}
		w.connect()
		w.job("1", time.Minute)
		w.later(time.Minute)
		if len(w.configs) != 2 {
			t.Errorf("started %d times, want a second time without another installation", len(w.configs))
		}
	})
}

func TestInstallationGoesOnAfterARestart(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.meddle = names(wanted)
		var got []apitype.RunnerProgram
		w.install = func(ctx context.Context, p apitype.RunnerProgram, _ apitype.Outfit) (string, error) {
			got = append(got, p)
			if len(got) > 1 {
				return "", nil
			}
			<-ctx.Done() // Run waits for this
			return "", ctx.Err()
		}
		w.boot()
		w.later(time.Second)
		w.kill()
		w.take()
		w.boot()
		w.later(time.Second)
		if len(got) != 2 || got[1] != wanted || len(w.configs) != 1 {
			t.Errorf("installations %+v and %d starts, want two of %+v and one start", got, len(w.configs), wanted)
		}
	})
}

func TestMachineWithoutARunnerProgramSaysWhyAndEnds(t *testing.T) {
	for name, install := range map[string]func(context.Context, apitype.RunnerProgram, apitype.Outfit) (string, error){
		"BecauseItFails": func(context.Context, apitype.RunnerProgram, apitype.Outfit) (string, error) {
			return "", errors.New("status 404 for " + session)
		},
		"BecauseItTakesTooLong": func(ctx context.Context, _ apitype.RunnerProgram, _ apitype.Outfit) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, store.Ephemeral, func(w *world) {
				w.install = install
				w.boot()
				w.later(installLimit + time.Minute)
				w.wantOff(store.EndAgent)
				w.wantSaid("booting", "draining agent_ended")
				if d := w.events[1].Detail; !strings.HasPrefix(d, "there is no runner program: ") || strings.Contains(d, session) {
					t.Errorf("detail = %q, want the reason without a secret", d)
				}
				if len(w.configs) != 0 {
					t.Error("a runner program was started")
				}
			})
		})
	}
}

func TestDrainDuringTheInstallationStartsNothing(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.install = func(context.Context, apitype.RunnerProgram, apitype.Outfit) (string, error) {
			time.Sleep(time.Minute)
			return "", nil
		}
		w.boot()
		w.notices <- Notice{Kind: NoticeSpot, At: time.Now()}
		synctest.Wait()
		w.later(2 * time.Minute)
		if len(w.configs) != 0 {
			t.Error("a runner program was started")
		}
		w.wantSaid("booting", "draining spot_interruption", "idle")
	})
}

// printing is a runner program that can tell what it printed.
type printing struct {
	*fakeProgram
	text string
}

func (p printing) Output() string { return p.text }

func TestWhatAFailedRunnerProgramPrintedIsReported(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		filler := strings.Repeat("x", 8<<10)
		w.printed = "the beginning\n" + filler + "\nthe config is " + configOf(1) + ", the session " + session + "\nthe end ü\n"
		w.boot()
		w.exit(1)
		w.wantOff(store.EndAgent)
		w.wantSaid("booting", "draining agent_ended")
		d := w.events[1].Detail
		switch {
		case len(d) > maxDetail || len(d) < maxDetail-4:
			t.Errorf("detail of %d bytes, want as much as there is room for", len(d))
		case !strings.HasPrefix(d, "the runner program ended with exit code 1, without a job; it printed: x"):
			t.Errorf("detail begins %.80q", d)
		case !strings.HasSuffix(d, "\nthe config is ***, the session ***\nthe end ü"):
			t.Errorf("detail ends %q, want the last lines without secrets", d[len(d)-80:])
		}
	})
}

func TestJobThatWasCutShortIsReportedAsSuch(t *testing.T) {
	bubble(t, store.Ephemeral, func(w *world) {
		w.boot()
		w.connect()
		w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"}, ProgramEvent{Kind: JobDone, Cut: true})
		w.exit(0)
		w.wantOff("the job is done")
		if d := w.events[len(w.events)-1].Detail; !strings.Contains(d, "before the job's last step") {
			t.Errorf("detail of job_done = %q, want that it was cut short", d)
		}
	})
}

// The clock of the machine is set right, or wrong, while it runs.
func TestClockThatJumpsChangesNoEnd(t *testing.T) {
	for name, jump := range map[string]time.Duration{"Ahead": time.Hour, "Back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			bubble(t, store.Ephemeral, func(w *world) {
				var by time.Duration
				w.now = func() time.Time { return time.Now().Add(by) }
				w.boot()
				w.connect()
				w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
				by = jump
				w.later(5 * time.Minute)
				w.wantOn()
				if got := len(w.of("heartbeat")); got < 13 || got > 17 {
					t.Errorf("%d heartbeats in five minutes, want about 15", got)
				}
				hard := w.start.Add(w.hard)
				for _, at := range w.timers {
					if real := at.Add(-by); at.Before(hard.Add(-time.Minute)) && real.Before(hard.Add(-time.Minute)) {
						t.Errorf("a timer is set to %v, which is %v by a right clock; want %v", at, real, hard)
					}
				}
				w.happen(ProgramEvent{Kind: JobDone})
				w.exit(0)
				w.wantOff("the job is done")
				w.wantSaid("booting", "online", "job_started 1", "job_done")
			})
		})
	}
}
