package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// rewrite meddles with a JSON answer.
func rewrite(change func(map[string]any)) func(*http.Response) error {
	return func(res *http.Response) error {
		var v map[string]any
		if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
			return err
		}
		change(v)
		b, err := json.Marshal(v)
		res.Body = io.NopCloser(bytes.NewReader(b))
		return err
	}
}

func body(text string) func(*http.Response) error {
	return func(res *http.Response) error {
		res.Body = io.NopCloser(strings.NewReader(text))
		return nil
	}
}

func TestAnswerThatIsNoneIsAskedForAgain(t *testing.T) {
	for name, meddle := range map[string]func(*http.Response) error{
		"NotJSON":      body("<html>Sign in to the guest network</html>"),
		"Empty":        body(""),
		"NoOrder":      body("{}"),
		"Endless":      body(`{"order":"` + strings.Repeat("x", 1<<20) + `"}`),
		"Unauthorized": func(res *http.Response) error { res.StatusCode = 401; return nil },
		"Redirect": func(res *http.Response) error {
			res.StatusCode = 307
			res.Header.Set("Location", "http://169.254.169.254/latest/")
			return nil
		},
		"CutShort": func(res *http.Response) error {
			res.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"order":`), failing{}))
			return nil
		},
		"Hanging": func(res *http.Response) error {
			<-res.Request.Context().Done()
			return res.Request.Context().Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, store.Shared, func(w *world) {
				w.boot()
				w.meddle = once(w, meddle)
				w.connect()
				w.later(callTimeout + time.Second)
				w.wantSaid("booting", "online")
				if got := len(w.of("online")); got != 2 {
					t.Errorf("online was said %d times, want twice", got)
				}
				w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
				w.later(time.Second)
				w.wantSaid("booting", "online", "job_started 1")
			})
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestEventThatIsRefusedBlocksNoOther(t *testing.T) {
	for _, status := range []int{400, 413, 415, 422} {
		bubble(t, store.Shared, func(w *world) {
			w.boot()
			w.answers = []int{status}
			w.connect()
			w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
			w.wantSaid("booting", "job_started 1")
		})
	}
}

func TestRetryAfterIsHonouredWithinBounds(t *testing.T) {
	for says, want := range map[string]time.Duration{
		"30":     30 * time.Second,
		"999999": longestPause,
		"-5":     time.Second,
		"soon":   time.Second,
	} {
		bubble(t, store.Shared, func(w *world) {
			w.meddle = once(w, func(res *http.Response) error {
				res.StatusCode = 503
				res.Header.Set("Retry-After", says)
				return nil
			})
			w.boot()
			w.later(2 * time.Minute)
			boots := w.of("boot")
			if pause := boots[1].at - boots[0].at; pause > want || pause < want/2 || want > time.Second && pause != want {
				t.Errorf("pause after Retry-After: %s = %v, want %v", says, pause, want)
			}
		})
	}
}

func TestTooEarlyWithoutRetryAfterWaitsTwoSeconds(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.answers = []int{425}
		w.meddle = once(w, func(res *http.Response) error { res.Header.Del("Retry-After"); return nil })
		w.boot()
		w.later(time.Minute)
		boots := w.of("boot")
		if pause := boots[1].at - boots[0].at; pause != tooEarly {
			t.Errorf("pause after 425 = %v, want %v", pause, tooEarly)
		}
	})
}

func TestNextAnswerThatIsNoneIsAskedForAgain(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"NoConfig":  func(v map[string]any) { delete(v, "config") },
		"OldNumber": func(v map[string]any) { v["n"] = 1 },
		"NoOrder":   func(v map[string]any) { delete(v, "order") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, store.Shared, func(w *world) {
				w.boot()
				w.connect()
				w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"}, ProgramEvent{Kind: JobDone})
				w.meddle = once(w, rewrite(change))
				w.exit(0)
				if len(w.configs) != 1 {
					t.Fatalf("configs started = %q, want the first alone", w.configs)
				}
				w.later(time.Second)
				if len(w.configs) != 2 || len(w.of("next")) != 2 {
					t.Errorf("%d configs and %d calls of next, want 2 and 2", len(w.configs), len(w.of("next")))
				}
			})
		})
	}
}

// A machine whose session the API refuses for as long as it may idle ends once nothing
// runs on it that could have a job.
func TestMachineThatTheAPINoLongerKnowsEndsAfterItsJob(t *testing.T) {
	bubble(t, store.Shared, func(w *world) {
		w.boot()
		w.connect()
		w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
		w.api.answers = slices.Repeat([]int{http.StatusUnauthorized}, 1000)
		w.later(time.Hour)
		w.wantOn()
		w.happen(ProgramEvent{Kind: JobDone})
		w.exit(0)
		w.later(time.Minute)
		w.wantOff("the API no longer knows the machine")
	})
	bubble(t, store.Shared, func(w *world) { // for a moment alone
		w.boot()
		w.connect()
		w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"}, ProgramEvent{Kind: JobDone})
		w.api.answers = slices.Repeat([]int{http.StatusUnauthorized}, 10)
		w.exit(0)
		w.later(9 * time.Minute)
		w.wantOn()
	})
}

// The API refuses a machine that calls too often, or says more than its budget has room
// for: nothing of that is lost, and the machine lives on.
func TestCallThatIsThrottledIsMadeAgainAfterRetryAfter(t *testing.T) {
	for _, call := range []string{"boot", "heartbeat", "job_started", "next"} {
		t.Run(call, func(t *testing.T) {
			bubble(t, store.Shared, func(w *world) {
				throttled := once(w, func(res *http.Response) error {
					res.StatusCode = http.StatusTooManyRequests
					res.Header.Set("Retry-After", "7")
					res.Body = io.NopCloser(strings.NewReader(`{"code":"throttled"}`))
					return nil
				})
				if call == "boot" {
					w.meddle = throttled
				}
				w.boot()
				w.later(10 * time.Second)
				w.connect()
				switch call {
				case "heartbeat":
					w.meddle = throttled
					w.later(30 * time.Second)
				case "job_started":
					w.meddle = throttled
				}
				w.happen(ProgramEvent{Kind: JobStarted, RunID: "1"})
				w.later(15 * time.Second)
				w.happen(ProgramEvent{Kind: JobDone})
				if call == "next" {
					w.later(time.Second)
					w.meddle = throttled
				}
				w.exit(0)
				w.later(time.Minute)
				made := w.of(call)
				i := 0
				if call == "heartbeat" {
					for i = range made[:len(made)-1] {
						if made[i+1].at-made[i].at == 7*time.Second {
							break
						}
					}
				}
				if len(made) < i+2 {
					t.Fatalf("%s was called %d times, want it made again", call, len(made))
				}
				if pause := made[i+1].at - made[i].at; pause != 7*time.Second {
					t.Errorf("pause after a %s that was throttled = %v, want 7s", call, pause)
				}
				w.wantSaid("booting", "online", "job_started 1", "job_done")
			})
		})
	}
}
