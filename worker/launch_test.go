package worker_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

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

func TestDrainedDuringTheLaunchRecordsTheInstanceAndMintsNothingFurther(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.fleet.answer = func(n int, l fleet.Launch, _ func()) error {
			w.apply(w.caseOf(r).Drain(time.Now(), store.NewEnd(store.EndStopped)))
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
		a.Regions = map[string]store.Region{region: {
			Subnets: []string{"subnet-z"}, SecurityGroups: []string{"sg-9"}, Images: []string{"ami-9"}, RootVolume: store.Volume{SizeGB: 90}, AssociatePublicIP: new(true),
		}}
		a.MachineOptions = store.MachineOptions{Tags: map[string]string{"team": "other"}, SpotMaxPrice: "9", Tenancy: store.Dedicated}
		w.accounts[account] = a
		w.start(r)
		if a, b := w.fleet.calls[0], w.fleet.calls[1]; !reflect.DeepEqual(a, b) {
			t.Errorf("the resumed launch %+v differs from the first, %+v", b, a)
		}
	})
}

func TestSharersWaitForOneLaunch(t *testing.T) {
	inWorld(t, func(w *world) {
		w.commit(&store.Quota{Account: account, Lines: map[string]store.Line{region: lineOf(time.Now().Add(10 * time.Second))}})
		all := []store.Request{w.request(shared), w.request(shared), w.request(shared)}
		w.start(all[0])
		w.start(all[1:]...)
		w.follow(10)
		for _, r := range all {
			if got := w.requestNow(r.ID); got.State != store.Waiting || got.Runner != w.requestNow(all[0].ID).Runner {
				t.Errorf("request is %s with runner %q, want all to wait for one", got.State, got.Runner)
			}
		}
		if q := get[store.Quota](w, account); len(w.fleet.calls) != 1 || time.Until(q.Lines[region].End) > time.Second {
			t.Errorf("%d launches, and the line ends in %v; want one turn for all", len(w.fleet.calls), time.Until(q.Lines[region].End))
		}
	})
}

func TestTableThatIsEmptiedDuringALaunchFailsTheMessage(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fleet.answer = func(int, fleet.Launch, func()) error {
			w.store.Store = storetest.NewMemory()
			return nil
		}
		if failed := w.start(w.request()); failed != 1 || w.alarmed(store.AlarmPanic) {
			t.Errorf("%d messages failed, want 1, and no panic:\n%s", failed, w.log.String())
		}
	})
}

func TestWorkerSurvivesATableThatIsEmptiedAtAnyCall(t *testing.T) {
	for name, next := range map[string]func(w *world) queue.Message{
		"launch": func(w *world) queue.Message { return queue.StartOf(w.request()) },
		"share": func(w *world) queue.Message {
			first := w.request(shared)
			w.start(first)
			w.online(first)
			return queue.StartOf(w.request(shared))
		},
		"resume": func(w *world) queue.Message {
			r := w.request()
			w.fleet.answer = func(n int, _ fleet.Launch, _ func()) error {
				if n == 1 {
					return context.DeadlineExceeded
				}
				return nil
			}
			w.start(r)
			return queue.Message{Kind: queue.Resume, ID: w.requestNow(r.ID).Runner}
		},
	} {
		for at := 1; ; at++ {
			emptied := false
			inWorld(t, func(w *world) {
				m := next(w)
				n := 0
				w.store.before = func(string) error {
					if n++; n == at {
						emptied, w.store.Store = true, storetest.NewMemory()
					}
					return nil
				}
				w.handle(m)
				if w.alarmed(store.AlarmPanic) {
					t.Errorf("%s: a worker panicked when the table was emptied before call %d:\n%s", name, at, w.log.String())
				}
			})
			if !emptied {
				if at <= 2 {
					t.Errorf("%s: a worker makes %d calls of the table, want it to read and to commit", name, at-1)
				}
				break
			}
		}
	}
}

func TestLaunchIsVouchedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.start(r)
		if run := w.runnerOf(r.ID); !run.Launch.Vouched {
			t.Errorf("launch = %+v, want its boot vouched for", run.Launch)
		}
	})
}

func TestRegionWithoutACertificateIsRefusedBeforeAnyLaunch(t *testing.T) {
	inWorld(t, func(w *world) {
		w.config.Identity = identity.Trust{}
		r := w.request()
		w.start(r)
		got := w.requestNow(r.ID)
		if got.State != store.Failed || got.Error == nil || got.Error.Code != store.EndLaunchDenied || got.Error.Retryable ||
			!strings.Contains(got.Error.Text, "no certificate of AWS for the region "+region) || !strings.Contains(got.Error.Text, "Name another region") {
			t.Errorf("request is %s for %+v, want it failed for good with what to do", got.State, got.Error)
		}
		if len(w.fleet.calls) != 0 || !w.alarmed(store.AlarmAccess) {
			t.Errorf("%d launches, alarm %t; want none, and an alarm", len(w.fleet.calls), w.alarmed(store.AlarmAccess))
		}
	})
}
