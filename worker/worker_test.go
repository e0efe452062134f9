package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

func TestStartIsLaunchedAndConfiguredInFiveCalls(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		if failed := w.start(r); failed != 0 {
			t.Fatalf("Handle failed %d messages", failed)
		}
		w.state(r, store.Waiting)
		run, lock := w.runnerOf(r.ID), w.lockOf(r)
		if run.State != store.RunnerLaunched || run.InstanceID != "i-1" || run.Config.N != 1 || run.Config.RunnerID != 1 {
			t.Errorf("runner = %s %s config %+v, want launched i-1 with config 1", run.State, run.InstanceID, run.Config)
		}
		if lock.State != store.LockLaunching || lock.Runner != run.ID {
			t.Errorf("lock = %s of %s, want launching of %s", lock.State, lock.Runner, run.ID)
		}
		config, err := w.keys.Open("k1", run.ID, 1, run.Config.Sealed)
		if err != nil || config.Reveal() != "jit-garo-test-"+run.ID+"-1" {
			t.Errorf("sealed config opens to %q, %v", config.Reveal(), err)
		}
		if run.Claim.By != "" {
			t.Errorf("claim = %+v, want it given back", run.Claim)
		}
		// One after another: get, intent, launch; then instance and mint together, and the config.
		if w.store.gets != 1 || w.store.commits != 3 || len(w.fleet.calls) != 1 || len(w.github.calls) != 1 || len(w.sent) != 0 {
			t.Errorf("calls: %d gets, %d commits, %d launches, %d mints, %d sends; want 1, 3, 1, 1, 0",
				w.store.gets, w.store.commits, len(w.fleet.calls), len(w.github.calls), len(w.sent))
		}
		l := w.fleet.calls[0]
		if l.ClientToken != "garo-"+run.ID+"-0" || l.Tags[fleet.TagControlPlane] != "test" || l.Tags[fleet.TagRunner] != run.ID {
			t.Errorf("launch token %s tags %v", l.ClientToken, l.Tags)
		}
		if !slices.Equal(w.github.labels, []string{r.OwnLabel}) {
			t.Errorf("an ephemeral runner registers %v, want its own label alone", w.github.labels)
		}
	})
}

func TestRepeatedMessagesLaunchOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.start(r, r, r)
		for range 10 {
			w.start(r)
		}
		if len(w.fleet.byToken) != 1 || len(w.fleet.calls) != 1 || len(w.github.calls) != 1 {
			t.Errorf("%d machines by %d launches and %d mints, want 1 each", len(w.fleet.byToken), len(w.fleet.calls), len(w.github.calls))
		}
	})
}

func TestTenMessagesAtOnceLaunchOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		for range 10 {
			go w.start(r)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		if len(w.fleet.byToken) != 1 || w.live() != 1 {
			t.Errorf("%d machines, quota %d; want 1 and 1", len(w.fleet.byToken), w.live())
		}
	})
}

func TestMessagesThatNeedNoWork(t *testing.T) {
	inWorld(t, func(w *world) {
		for name, edit := range map[string]func(store.Request) store.Request{
			"cancelled": func(r store.Request) store.Request { return r.Cancel(time.Now(), w.limits, "x") },
			"due later": func(r store.Request) store.Request {
				return r.Hold(time.Now(), time.Now().Add(3*time.Second), store.WaitBackoff)
			},
		} {
			r := edit(w.request())
			w.commit(&r)
			if failed := w.start(r); failed != 0 || len(w.fleet.calls) != 0 {
				t.Errorf("%s request: %d failed, %d launches; want nothing done", name, failed, len(w.fleet.calls))
			}
		}
		r := w.request()
		r = r.Hold(time.Now(), time.Now().Add(2*time.Second), store.WaitBackoff)
		w.commit(&r)
		w.start(r)
		if len(w.fleet.calls) != 1 {
			t.Error("a request due within two seconds was not taken up")
		}
	})
}

func TestOverdueRequestExpires(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		time.Sleep(time.Hour)
		w.start(r)
		w.state(r, store.Expired)
		if len(w.fleet.calls) != 0 {
			t.Error("an overdue request was launched")
		}
	})
}

func TestUnknownRequestFailsItsMessageAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		good := w.request()
		ghost := good
		ghost.ID = w.keys.RequestID("ghost", "", "", "", "")
		if failed := w.start(ghost, good); failed != 1 {
			t.Errorf("%d messages failed, want the unknown one", failed)
		}
		w.state(good, store.Waiting)
		if !w.alarmed(store.AlarmUnknown) {
			t.Error("no alarm for a message of a request that is not recorded")
		}
	})
}

func TestUnreadableMessageLeavesTheOthersUnharmed(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		body, err := queue.Encode(queue.StartOf(r))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(w.Context(), worker.Timeout)
		defer cancel()
		failed := worker.New(w.config).Handle(ctx, []queue.Delivery{{ID: "bad", Body: []byte("{")}, {ID: "good", Body: body}})
		if !slices.Equal(failed, []string{"bad"}) {
			t.Errorf("failed = %v, want the unreadable one", failed)
		}
		w.state(r, store.Waiting)
	})
}

func TestPanicFailsOneMessage(t *testing.T) {
	inWorld(t, func(w *world) {
		bad, good := w.request(), w.request()
		w.fleet.answer = func(_ int, l fleet.Launch, _ func()) error {
			if l.Tags[fleet.TagRequest] == bad.ID {
				panic("boom")
			}
			return nil
		}
		if failed := w.start(bad, good); failed != 1 {
			t.Errorf("%d messages failed, want 1", failed)
		}
		if w.runnerOf(good.ID).Config.N != 1 || !w.alarmed(store.AlarmPanic) {
			t.Error("the other message suffered, or no alarm was raised")
		}
	})
}

func TestStoreOutageFailsTheMessages(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.store.before = func(string) error { return errLost }
		if failed := w.start(r); failed != 1 {
			t.Errorf("%d messages failed, want 1", failed)
		}
	})
}

func TestNoCapacityMovesToTheNextPlacement(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(n int, l fleet.Launch, _ func()) error {
			if l.InstanceType == "t3a.micro" {
				return capacity("InsufficientInstanceCapacity")
			}
			return nil
		}
		w.start(r)
		run := w.runnerOf(r.ID)
		if run.Index != 1 || run.InstanceID == "" || len(run.Attempts) != 2 || run.Attempts[0].Code != "InsufficientInstanceCapacity" || run.Attempts[1].Code != "launched" {
			t.Errorf("runner at index %d with %v, want the second placement launched", run.Index, run.Attempts)
		}
		if a, b := w.fleet.calls[0].ClientToken, w.fleet.calls[1].ClientToken; a == b {
			t.Error("two placements had one client token")
		}
		other := w.request()
		w.handleBy(worker.New(w.config), queue.StartOf(other))
		if n := len(w.fleet.calls); n != 4 {
			t.Errorf("a process without the hint made %d calls in all, want 4", n)
		}
	})
}

func TestEmptyPlacementIsSkippedForThreeMinutes(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fleet.answer = func(n int, l fleet.Launch, _ func()) error {
			if l.InstanceType == "t3a.micro" {
				return capacity("InsufficientInstanceCapacity")
			}
			return nil
		}
		wk := worker.New(w.config)
		w.handleBy(wk, queue.StartOf(w.request()))
		w.handleBy(wk, queue.StartOf(w.request()))
		if n := len(w.fleet.calls); n != 3 {
			t.Errorf("%d calls for two launches, want 3: the hint spares one", n)
		}
		time.Sleep(3 * time.Minute)
		w.handleBy(wk, queue.StartOf(w.request()))
		if n := len(w.fleet.calls); n != 5 {
			t.Errorf("%d calls after the hint has lapsed, want 5", n)
		}
	})
}

func TestNoCapacityAnywhereIsTriedAgainThenFailsWithTheList(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(int, fleet.Launch, func()) error { return capacity("InsufficientInstanceCapacity") }
		began := time.Now()
		w.start(r)
		w.state(r, store.Accepted)
		if w.live() != 0 || w.lockOf(r).State != store.LockEmpty {
			t.Errorf("quota %d, lock %s; want both given back", w.live(), w.lockOf(r).State)
		}
		if got := w.requestNow(r.ID); got.Tries != 1 || got.Wait != store.WaitBackoff || got.DueAt.Sub(began) < 30*time.Second {
			t.Errorf("request %+v, want a second try after 30 s", got)
		}
		w.follow(10)
		w.state(r, store.Failed)
		got := w.requestNow(r.ID)
		if len(got.Attempts) != 8 || got.Error.Code != store.EndNoCapacity || !got.Error.Retryable {
			t.Errorf("failed with %d attempts and %v, want 8 (four tries of two placements) and no_capacity", len(got.Attempts), got.Error)
		}
		if took := got.EndedAt.Sub(began); took < 210*time.Second || took > 5*time.Minute {
			t.Errorf("gave up after %v, want the three waits of 3.5 minutes", took)
		}
	})
}

func TestNoCapacityThenTimeoutStaysOnThatIndex(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(n int, l fleet.Launch, launch func()) error {
			switch n {
			case 1:
				return capacity("InsufficientInstanceCapacity")
			case 2:
				launch()
				return errLost
			}
			return nil
		}
		w.start(r)
		w.follow(3)
		run := w.runnerOf(r.ID)
		if run.Index != 1 || run.InstanceID != "i-1" || len(w.fleet.byToken) != 1 || w.fleet.calls[1].ClientToken != w.fleet.calls[2].ClientToken {
			t.Errorf("index %d, instance %s, %d machines; want the same token again and its machine", run.Index, run.InstanceID, len(w.fleet.byToken))
		}
	})
}

func TestSpotCountLimit(t *testing.T) {
	for _, fallback := range []bool{true, false} {
		t.Run(fmt.Sprintf("fallback=%v", fallback), func(t *testing.T) {
			inWorld(t, func(w *world) {
				a := w.accounts[account]
				a.SpotFallback = fallback
				w.accounts[account] = a
				w.fleet.answer = func(n int, l fleet.Launch, _ func()) error {
					if l.Market == store.Spot {
						return capacity("MaxSpotInstanceCountExceeded")
					}
					return nil
				}
				r := w.request()
				w.start(r)
				if fallback {
					if run := w.runnerOf(r.ID); run.Placement().Market != store.OnDemand || len(w.fleet.calls) != 2 {
						t.Errorf("launched %v in %d calls, want on-demand in 2", run.Placement(), len(w.fleet.calls))
					}
					return
				}
				w.follow(10)
				w.state(r, store.Failed)
			})
		})
	}
}

func TestVCPULimitTriesAnotherFamilyThenWaitsUntilGiveUp(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(int, fleet.Launch, func()) error { return capacity("VcpuLimitExceeded") }
		w.start(r)
		if n := len(w.fleet.calls); n != 2 {
			t.Errorf("%d calls, want one a family", n)
		}
		began := time.Now()
		w.follow(30)
		got := w.requestNow(r.ID)
		if got.State != store.Failed || got.Error.Code != store.EndVCPULimit || !strings.Contains(got.Error.Text, "quota") {
			t.Errorf("request %s %v, want failed with a text on the vCPU limit", got.State, got.Error)
		}
		if took := time.Since(began); took < 10*time.Minute {
			t.Errorf("gave up after %v, want nearly give_up (15 min)", took)
		}
	})
}

func TestThrottledCallIsRepeatedWithTheSameTokenAndBytes(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(n int, l fleet.Launch, _ func()) error {
			if n < 4 {
				return &fleet.Error{Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded"}
			}
			return nil
		}
		w.start(r)
		w.follow(5)
		run := w.runnerOf(r.ID)
		if run.InstanceID != "i-1" || run.Index != 0 {
			t.Errorf("runner has %q at index %d, want i-1 at 0", run.InstanceID, run.Index)
		}
		for _, c := range w.fleet.calls[1:] {
			if c.ClientToken != w.fleet.calls[0].ClientToken || string(c.UserData) != string(w.fleet.calls[0].UserData) {
				t.Error("a repeated call differs from the first")
			}
		}
	})
}

func TestLostAnswerIsAdopted(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(n int, l fleet.Launch, launch func()) error {
			if n == 1 {
				launch()
				return errLost
			}
			return nil
		}
		w.start(r)
		if w.runnerOf(r.ID).Claim.By == "" {
			t.Error("the claim was given back with a call open")
		}
		w.follow(3)
		if len(w.fleet.byToken) != 1 || w.runnerOf(r.ID).InstanceID != "i-1" || w.runnerOf(r.ID).Config.N == 0 {
			t.Errorf("%d machines, runner %+v; want the one machine adopted and configured", len(w.fleet.byToken), w.runnerOf(r.ID))
		}
	})
}

func TestMismatchAdoptsOrAlarms(t *testing.T) {
	for _, exists := range []bool{true, false} {
		t.Run(fmt.Sprintf("exists=%v", exists), func(t *testing.T) {
			inWorld(t, func(w *world) {
				r := w.request()
				w.fleet.answer = func(n int, l fleet.Launch, launch func()) error {
					if exists {
						launch()
					}
					return &fleet.Error{Kind: fleet.ErrMismatch, Code: "IdempotentParameterMismatch"}
				}
				w.start(r)
				w.follow(2)
				run := w.runnerOf(r.ID)
				if exists && (run.InstanceID != "i-1" || run.Config.N == 0) {
					t.Errorf("runner %s has instance %q, want it adopted", run.State, run.InstanceID)
				}
				if !exists && (!w.alarmed(store.AlarmMismatch) || run.Index != 0 || len(w.fleet.byToken) != 0) {
					t.Errorf("alarm %v, index %d; want an alarm and no other token", w.alarmed(store.AlarmMismatch), run.Index)
				}
			})
		})
	}
}

func TestTerminatedTokenDrainsTheRunnerAndAcceptsItsRequestAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(n int, l fleet.Launch, _ func()) error {
			if n == 1 {
				return &fleet.Error{Kind: fleet.ErrGone, Code: "IdempotentInstanceTerminated"}
			}
			return nil
		}
		w.start(r)
		w.state(r, store.Accepted)
		w.follow(1)
		w.state(r, store.Waiting)
		if len(w.fleet.byToken) != 1 || w.live() != 2 {
			t.Errorf("%d machines, quota %d; want 1 new machine, and the old place kept until EC2 says that it ended", len(w.fleet.byToken), w.live())
		}
	})
}

func TestRefusedLaunchFailsAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(int, fleet.Launch, func()) error {
			return &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "The role may not launch. Apply the account module again."}
		}
		w.start(r)
		w.state(r, store.Failed)
		got := w.requestNow(r.ID)
		if got.Error.Code != store.EndLaunchDenied || !strings.Contains(got.Error.Text, "Apply the account module") || got.Error.Retryable {
			t.Errorf("error = %v, want the operator's text", got.Error)
		}
		if !w.alarmed(store.AlarmLaunchRefused) || w.live() != 0 || len(w.fleet.calls) != 1 || len(w.sent) != 0 {
			t.Errorf("alarm %v, quota %d, %d calls, %d sent; want an alarm and no further try", w.alarmed(store.AlarmLaunchRefused), w.live(), len(w.fleet.calls), len(w.sent))
		}
	})
}

func TestRefusedImageFailsTheRequestAndAlarms(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.images = func(string) (string, error) {
			return "", &fleet.Error{Kind: fleet.ErrRefused, Code: "AccessDenied", Text: "The role cannot be assumed: it is deleted, or its external id is another."}
		}
		w.start(r)
		w.state(r, store.Failed)
		if !w.alarmed(store.AlarmAccess) || w.live() != 0 {
			t.Error("no alarm, or a place was taken")
		}
	})
}

func TestRegistrationThatChangedFailsTheRequest(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"account gone": func(w *world) { delete(w.accounts, account) },
		"region gone":  func(w *world) { a := w.accounts[account]; a.Regions = nil; w.accounts[account] = a },
		"market not allowed": func(w *world) {
			a := w.accounts[account]
			a.Markets = []string{store.OnDemand}
			w.accounts[account] = a
		},
		"instance not allowed": func(w *world) { a := w.accounts[account]; a.InstanceTypes = nil; w.accounts[account] = a },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				r := w.request()
				change(w)
				w.start(r)
				w.state(r, store.Failed)
				if len(w.fleet.calls) != 0 {
					t.Error("it was launched all the same")
				}
			})
		})
	}
}

func TestNamesAreNeverUsedTwice(t *testing.T) {
	for name, answer := range map[string]func(n int, name string) (bool, error){
		"taken": func(n int, _ string) (bool, error) {
			return n > 1, map[bool]error{true: &github.Error{Kind: github.ErrNameTaken, Status: 409}}[n == 1]
		},
		"answer lost": func(n int, _ string) (bool, error) {
			return true, map[bool]error{true: &github.Error{Kind: github.ErrUnknown}}[n == 1]
		},
		"not made": func(n int, _ string) (bool, error) {
			return n > 1, map[bool]error{true: &github.Error{Kind: github.ErrUnknown, Status: 502}}[n == 1]
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.github.answer = answer
				r := w.request()
				w.start(r)
				w.follow(2)
				run := w.runnerOf(r.ID)
				if run.Config.N != 2 || len(w.github.calls) != 2 || w.github.calls[0] == w.github.calls[1] {
					t.Errorf("config %d after %v, want the second name", run.Config.N, w.github.calls)
				}
				if got := run.Unused(); len(got) != 1 || got[0].N != 1 {
					t.Errorf("unused names %v, want the first, for the reaper", got)
				}
				if len(w.fleet.byToken) != 1 {
					t.Errorf("%d machines, want 1", len(w.fleet.byToken))
				}
			})
		})
	}
}

func TestGitHubLimitIsWaitedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		until := time.Now().Add(3 * time.Minute)
		w.github.answer = func(n int, _ string) (bool, error) {
			if time.Now().Before(until) {
				return false, &github.Error{Kind: github.ErrLimited, Status: 403, RetryAt: until}
			}
			return true, nil
		}
		r := w.request()
		if failed := w.start(r); failed != 0 {
			t.Errorf("%d messages failed, want none: waiting is not failing", failed)
		}
		run := w.runnerOf(r.ID)
		if run.Wait != store.WaitGitHub || run.Claim.By != "" || len(w.sent) != 1 || w.sent[0].delay < 3*time.Minute-time.Second {
			t.Errorf("runner waits for %q, claim %v, sent %v; want github_limited, no claim and a delayed resume", run.Wait, run.Claim, w.sent)
		}
		w.follow(1)
		if run := w.runnerOf(r.ID); run.Config.N != 1 || len(w.github.calls) != 2 {
			t.Errorf("config %d after %d mints, want config 1: a refused name was never used", run.Config.N, len(w.github.calls))
		}
	})
}

func TestRefusedRegistrationDrainsAndFails(t *testing.T) {
	inWorld(t, func(w *world) {
		w.github.answer = func(int, string) (bool, error) { return false, &github.Error{Kind: github.ErrDenied, Status: 401} }
		r := w.request()
		w.start(r)
		w.state(r, store.Failed)
		got := w.requestNow(r.ID)
		if run := w.runnerOf(r.ID); run.State != store.RunnerDraining || w.lockOf(r).State != store.LockDraining || !w.alarmed(store.AlarmGitHub) {
			t.Errorf("runner %s, lock %s, want both draining, and an alarm", run.State, w.lockOf(r).State)
		}
		if got.Error.Code != store.EndMintDenied || !strings.Contains(got.Error.Text, "credential") {
			t.Errorf("error %v, want registration_refused", got.Error)
		}
	})
}

func TestDrainedDuringTheLaunchRecordsTheInstanceAndMintsNothingFurther(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(n int, l fleet.Launch, _ func()) error {
			run, lock := w.runnerOf(r.ID), w.lockOf(r)
			run, lock = store.Drain(time.Now(), run, lock, store.NewEnd(store.EndStopped))
			w.commit(&run, &lock)
			return nil
		}
		w.start(r)
		run := w.runnerOf(r.ID)
		if run.State != store.RunnerDraining || run.InstanceID != "i-1" || run.Config.N != 0 {
			t.Errorf("runner %s, instance %q, config %d; want draining with its instance and no config", run.State, run.InstanceID, run.Config.N)
		}
		if len(w.github.calls) > 1 {
			t.Errorf("%d mints, want at most the one that was under way", len(w.github.calls))
		}
	})
}

func TestHeldClaimIsLeftAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(int, fleet.Launch, func()) error {
			w.fleet.answer = nil
			w.start(r) // somebody else gets the message again, meanwhile
			if len(w.fleet.calls) != 1 {
				t.Error("a claimed runner was launched by another worker")
			}
			return nil
		}
		w.start(r)
		if len(w.fleet.calls) != 1 {
			t.Errorf("%d calls, want 1", len(w.fleet.calls))
		}
	})
}

// The worker dies in the middle of RunInstances, and its message comes again.
func TestLapsedClaimResumesTheSameLaunch(t *testing.T) {
	for _, launched := range []bool{true, false} {
		t.Run(fmt.Sprintf("launched=%v", launched), func(t *testing.T) {
			inWorld(t, func(w *world) {
				r := w.request()
				w.fleet.answer = func(n int, l fleet.Launch, launch func()) error {
					if n == 1 {
						if launched {
							launch()
						}
						panic("killed") // nothing after this is recorded
					}
					return nil
				}
				w.start(r)
				w.start(r)
				if len(w.fleet.calls) != 1 {
					t.Fatalf("%d calls while the claim holds, want 1", len(w.fleet.calls))
				}
				time.Sleep(worker.Timeout + 3*time.Second)
				w.start(r)
				run := w.runnerOf(r.ID)
				if run.InstanceID != "i-1" || run.Config.N == 0 || w.fleet.calls[0].ClientToken != w.fleet.calls[1].ClientToken || len(w.fleet.byToken) != 1 {
					t.Errorf("runner %s %q, %d machines; want the one machine resumed", run.State, run.InstanceID, len(w.fleet.byToken))
				}
				if run.Config.N != 2 {
					t.Errorf("config %d, want 2: nobody knows whether the first name was used", run.Config.N)
				}
			})
		})
	}
}

func TestDeployBetweenCrashAndResumeKeepsTheBytes(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(n int, l fleet.Launch, launch func()) error {
			if n == 1 {
				launch()
				panic("killed")
			}
			return nil
		}
		w.start(r)
		time.Sleep(worker.Timeout + 3*time.Second)
		w.config.APIURL = "https://new.test"
		w.config.Agents = map[string]string{"amd64": strings.Repeat("c", 64), "arm64": strings.Repeat("d", 64)}
		a := w.accounts[account]
		a.Regions = map[string]store.Region{region: {Subnets: []string{"subnet-z"}, SecurityGroups: []string{"sg-9"}, Images: []string{"ami-9"}}}
		w.accounts[account] = a
		w.start(r)
		if a, b := w.fleet.calls[0], w.fleet.calls[1]; string(a.UserData) != string(b.UserData) || a.Image != b.Image || a.Subnet != b.Subnet {
			t.Error("the resumed launch differs from the first")
		}
	})
}

func TestQuotaIsNeverPassed(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.accounts[account]
		a.MaxRunners = 10
		w.accounts[account] = a
		var all []store.Request
		for range 50 {
			r := w.request()
			all = append(all, r)
			go w.start(r)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		waiting, held := 0, 0
		for _, r := range all {
			switch got := w.requestNow(r.ID); {
			case got.State == store.Waiting:
				waiting++
			case got.State == store.Accepted && got.Wait == store.WaitQuota:
				held++
			}
		}
		if len(w.fleet.byToken) != 10 || waiting != 10 || held != 40 || w.live() != 10 {
			t.Errorf("%d machines, %d waiting, %d held, quota %d; want 10, 10, 40, 10", len(w.fleet.byToken), waiting, held, w.live())
		}
	})
}

func TestLaunchesKeepEC2sPace(t *testing.T) {
	inWorld(t, func(w *world) {
		var all []store.Request
		for range 122 {
			all = append(all, w.request())
		}
		done := make(chan int, 10)
		for i := range 10 { // ten concurrent workers
			go func() {
				failed := 0
				for j := i; j < len(all); j += 10 {
					failed += w.start(all[j])
				}
				done <- failed
			}()
		}
		for range 10 {
			if failed := <-done; failed != 0 {
				t.Errorf("%d messages failed, want none", failed)
			}
		}
		w.follow(1000)
		if len(w.fleet.byToken) != 122 || float64(len(w.fleet.calls)) > 1.2*122 {
			t.Errorf("%d machines by %d calls, want 122 by at most 1.2 each", len(w.fleet.byToken), len(w.fleet.calls))
		}
		slices.SortFunc(w.fleet.times, time.Time.Compare)
		for i := range w.fleet.times {
			if i >= 5 && w.fleet.times[i].Sub(w.fleet.times[i-5]) < 500*time.Millisecond {
				t.Fatalf("six calls within %v: the pace is 5 at once, then one each 500 ms", w.fleet.times[i].Sub(w.fleet.times[i-5]))
			}
		}
	})
}

func TestHundredSharersGetOneRunner(t *testing.T) {
	inWorld(t, func(w *world) {
		var all []store.Request
		for range 100 {
			r := w.request(shared)
			all = append(all, r)
			go w.start(r)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		w.follow(200)
		if len(w.fleet.byToken) != 1 {
			t.Fatalf("%d machines, want 1", len(w.fleet.byToken))
		}
		runner := w.requestNow(all[0].ID).Runner
		for _, r := range all {
			if got := w.requestNow(r.ID); got.State != store.Waiting || got.Runner != runner {
				t.Errorf("request is %s with runner %q, want waiting for %s", got.State, got.Runner, runner)
			}
		}
		if l := w.lockOf(all[0]); l.Joined == "" {
			t.Error("the lock does not say that somebody joined")
		}
	})
}

func TestBatchWithOneKeyCostsOneFindOrLaunch(t *testing.T) {
	inWorld(t, func(w *world) {
		var batch []store.Request
		for range 10 {
			batch = append(batch, w.request(shared))
		}
		w.start(batch...)
		if len(w.fleet.calls) != 1 || w.store.gets != 1 || w.store.commits != 3 {
			t.Errorf("%d launches, %d gets, %d commits; want 1, 1 and 3 (one for all ten, instance, config)", len(w.fleet.calls), w.store.gets, w.store.commits)
		}
		w.online(batch[0])
		gets, commits := w.store.gets, w.store.commits
		late := w.request(shared)
		w.start(late)
		w.state(late, store.Ready)
		if w.store.gets-gets != 1 || w.store.commits-commits != 1 {
			t.Errorf("a shared hit took %d gets and %d commits, want 1 and 1", w.store.gets-gets, w.store.commits-commits)
		}
	})
}

func TestIntentsOfABatchShareOneCommit(t *testing.T) {
	inWorld(t, func(w *world) {
		var batch []store.Request
		for range 5 {
			batch = append(batch, w.request())
		}
		w.start(batch...)
		if len(w.fleet.byToken) != 5 || w.live() != 5 {
			t.Errorf("%d machines, quota %d; want 5 and 5", len(w.fleet.byToken), w.live())
		}
		if w.store.commits != 1+2*5 {
			t.Errorf("%d commits, want one for the five intents and two a runner", w.store.commits)
		}
	})
}

func TestSharedRunnerRegistersItsLabels(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request(shared, func(r *store.Request) { r.Labels = []string{"gpu", "test1"} })
		w.start(r)
		if want := []string{r.OwnLabel, "spot", "gpu", "test1"}; !slices.Equal(w.github.labels, want) {
			t.Errorf("labels = %v, want %v", w.github.labels, want)
		}
	})
}

func TestSilentRunnerIsWaitedForThenReplaced(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.request(shared)
		w.start(first)
		w.online(first)
		time.Sleep(time.Minute) // no heartbeat
		second := w.request(shared)
		w.start(second)
		if got := w.requestNow(second.ID); got.State != store.Accepted || got.Wait != store.WaitRunner {
			t.Fatalf("request is %s waiting for %q, want accepted, runner_silent", got.State, got.Wait)
		}
		w.follow(1)
		w.state(second, store.Waiting)
		if w.runnerOf(first.ID).State != store.RunnerDraining || w.runnerOf(second.ID).ID == w.runnerOf(first.ID).ID {
			t.Errorf("first runner %s; want it draining, with a successor", w.runnerOf(first.ID).State)
		}
	})
}

func TestRunnerWithTooLittleTimeLeftHandsOver(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.request(shared)
		w.start(first)
		w.online(first)
		time.Sleep(5*time.Hour + 30*time.Minute)
		// It is well, and its requests still count on it; but half an hour is left of its six.
		run, lock, pulse := w.runnerOf(first.ID), w.lockOf(first), get[store.Pulse](w, first.LockKey())
		pulse.Seen = time.Now()
		lock.Exp = lock.Hard
		w.commit(&pulse, &lock)
		second := w.request(shared)
		w.start(second)
		w.state(second, store.Waiting)
		if got := w.runnerOf(first.ID); got.State != store.RunnerDraining || got.End.Code != store.EndHandover {
			t.Errorf("old runner %s %v, want it draining for a handover", got.State, got.End)
		}
		if w.runnerOf(second.ID).ID == run.ID {
			t.Error("the request shares a runner that ends before its timeout")
		}
	})
}

func TestNextMintsAFreshConfig(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request(shared)
		w.start(r)
		w.online(r)
		run, ready, wanted, changed := store.NextCall(time.Now(), w.runnerOf(r.ID), w.lockOf(r), 2)
		if ready || !wanted || !changed {
			t.Fatalf("NextCall = ready %v, wanted %v, changed %v", ready, wanted, changed)
		}
		w.commit(&run)
		m := queue.Message{Kind: queue.Next, ID: run.ID, N: 2, Trace: run.Trace}
		w.handle(m, m)
		w.handle(m)
		got := w.runnerOf(r.ID)
		if got.Config.N != 2 || len(w.github.calls) != 2 || w.github.calls[1] != "garo-test-"+run.ID+"-2" {
			t.Errorf("config %d after mints %v, want config 2 by one more mint", got.Config.N, w.github.calls)
		}
	})
}

func TestOwnIntentWhoseAnswerWasLostIsDriven(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		first := true
		w.store.before = func(op string) error { return nil }
		w.config.Store = loseFirst{w.store, &first}
		w.start(r)
		if run := w.runnerOf(r.ID); run.Config.N != 1 || len(w.fleet.calls) != 1 || w.live() != 1 {
			t.Errorf("runner %s with config %d after %d calls, quota %d; want it launched once, at once", run.State, run.Config.N, len(w.fleet.calls), w.live())
		}
	})
}

// loseFirst applies the first commit and loses its answer.
type loseFirst struct {
	store.Store
	first *bool
}

func (l loseFirst) Commit(ctx context.Context, c ...store.Change) error {
	err := l.Store.Commit(ctx, c...)
	if *l.first && err == nil {
		*l.first = false
		return errors.New("answer lost")
	}
	return err
}
