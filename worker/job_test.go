package worker_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

func TestAJobGetsAMachineThatRegistersItsLabels(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offers()
		r := w.queues(21)
		w.start(r)
		w.state(r, store.Waiting)
		if got := w.runnerOf(r.ID); got.For != r.ID || got.Config.N != 1 || !slices.Equal(w.github.labels, []string{"garo"}) {
			t.Errorf("runner for %q, config %d, labels %q; want it for %s, registered with garo alone", got.For, got.Config.N, w.github.labels, r.ID)
		}
		w.online(r)
		w.state(r, store.Waiting) // online is not ready
		if n := w.handle(w.begins(21, w.runnerOf(r.ID), github.StatusInProgress)); n != 0 {
			t.Errorf("%d messages failed", n)
		}
		w.state(r, store.Ready)
		if run := w.runnerOf(r.ID); run.Took.Job != "21" || run.Took.Request != r.ID {
			t.Errorf("took %+v, want job 21", run.Took)
		}
		if len(w.sent) != 0 {
			t.Errorf("sends %v, want nothing more", w.sent)
		}
	})
}

// GitHub gives A's job to the machine for B, and has A's own machine idle.
func TestWhoLosesAMachineTakesTheOneThatIsSpare(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offers()
		a, b := w.queues(21), w.queues(22)
		w.start(a, b)
		w.online(a)
		w.online(b)
		mine, theirs := w.runnerOf(a.ID), w.runnerOf(b.ID)
		w.handle(w.begins(21, theirs, github.StatusInProgress))
		w.state(a, store.Ready)
		w.follow(10)
		b = w.requestNow(b.ID)
		if b.State != store.Waiting || b.Runner != mine.ID {
			t.Fatalf("B is %s on %q, want it waiting on A's machine %s\n%v", b.State, b.Runner, mine.ID, b.History)
		}
		if got := get[store.Runner](w, mine.ID); got.For != b.ID {
			t.Errorf("A's machine is for %q, want B", got.For)
		}
		if n := len(w.fleet.calls); n != 2 {
			t.Errorf("%d launches, want 2: the machine is there", n)
		}
		w.handle(w.begins(22, mine, github.StatusInProgress))
		w.state(b, store.Ready)
		if s := get[store.Spares](w, a.Pool()); len(s.Runners) != 0 {
			t.Errorf("the hint has %q, want nobody", s.Runners)
		}
	})
}

// Without the hint, or with one that is wrong, a machine is launched.
func TestAWrongHintCostsAMachineAndNoMore(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offers()
		a := w.queues(21)
		w.start(a)
		hint := store.Spares{Pool: a.Pool()}
		hint.With(time.Now(), w.limits, w.runnerOf(a.ID).ID) // which is A's
		hint.With(time.Now(), w.limits, "nobody")
		w.commit(&hint)
		b := w.queues(22)
		w.start(b)
		if w.runnerOf(b.ID).For != b.ID || w.runnerOf(a.ID).For != a.ID || len(w.fleet.calls) != 2 {
			t.Errorf("machines for %q and %q, %d launches; want each its own", w.runnerOf(a.ID).For, w.runnerOf(b.ID).For, len(w.fleet.calls))
		}
	})
}

func TestNothingIsLaunchedForAJobThatIsNotQueued(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*github.Job)
		state  store.RequestState
		wait   string
	}{
		"cancelled":             {func(j *github.Job) { j.Status, j.Conclusion = "completed", "cancelled" }, store.Cancelled, ""},
		"on another runner":     {func(j *github.Job) { j.Status, j.RunnerName, j.RunnerID = "in_progress", "hers", 4 }, store.Cancelled, ""},
		"by a name of ours":     {func(j *github.Job) { j.Status, j.RunnerName, j.RunnerID = "in_progress", "garo-test-abc-1", 4 }, store.Cancelled, ""},
		"nobody knows where":    {func(j *github.Job) { j.Status = "in_progress" }, store.Accepted, store.WaitGitHubDown},
		"waiting":               {func(j *github.Job) { j.Status = "waiting" }, store.Accepted, store.WaitHeld},
		"pending":               {func(j *github.Job) { j.Status = "pending" }, store.Accepted, store.WaitHeld},
		"of an earlier attempt": {func(j *github.Job) { j.Attempt, j.Status, j.Conclusion = 0, "completed", "failure" }, store.Cancelled, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.offers()
				r := w.queues(21)
				w.github.at(21, c.change)
				w.start(r)
				w.state(r, c.state)
				if got := w.requestNow(r.ID); got.Wait != c.wait || len(w.fleet.calls) != 0 {
					t.Errorf("waits for %q, %d launches; want %q and none", got.Wait, len(w.fleet.calls), c.wait)
				}
			})
		})
	}
}

// A credential that may not see the repository has 404, and so has an outage.
func TestWhatGitHubDoesNotTellEndsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		wait  string
		alarm bool
	}{
		"404":     {&github.Error{Kind: github.ErrNotFound, Op: "run", Status: 404}, store.WaitGitHubDown, true},
		"denied":  {&github.Error{Kind: github.ErrDenied, Op: "run", Status: 401}, store.WaitGitHubDown, true},
		"down":    {&github.Error{Kind: github.ErrUnknown, Op: "run"}, store.WaitGitHubDown, false},
		"limited": {&github.Error{Kind: github.ErrLimited, Op: "run", RetryAt: time.Now().Add(time.Hour)}, store.WaitGitHub, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.offers()
				r := w.queues(21)
				w.github.silent = c.err
				w.start(r)
				if n := w.handle(w.look(21)); n != 0 {
					t.Errorf("%d looks failed, want none: the reaper has it looked at again", n)
				}
				w.state(r, store.Accepted)
				if got := w.requestNow(r.ID); got.Wait != c.wait || w.alarmed(store.AlarmGitHub) != c.alarm || len(w.fleet.calls) != 0 {
					t.Errorf("waits for %q, alarm %v, %d launches; want %q, %v, none", got.Wait, w.alarmed(store.AlarmGitHub), len(w.fleet.calls), c.wait, c.alarm)
				}
			})
		})
	}
}

func TestAForbiddenJobGetsNoMachine(t *testing.T) {
	for name, c := range map[string]struct {
		edit    func(w *world)
		cancels bool
		text    string
	}{
		"fork": {func(w *world) {
			w.github.runs[run] = github.Run{ID: run, Attempt: 1, Event: "pull_request", HeadRepository: 9}
		}, false, "fork"},
		"a fork that is gone": {func(w *world) { w.github.runs[run] = github.Run{ID: run, Attempt: 1, Event: "push"} }, false, "fork"},
		"event": {func(w *world) {
			w.github.runs[run] = github.Run{ID: run, Attempt: 1, Event: "issues", HeadRepository: 7}
		}, false, "issues"},
		"no offer any more": {func(w *world) { w.offers(func(a *store.Account) { a.RunsOn = nil }) }, false, "runs_on"},
		"the branch is called main": {func(w *world) {
			w.offers(func(a *store.Account) { a.Only.Refs = []string{"refs/heads/main"} })
			w.github.runs[run] = github.Run{ID: run, Attempt: 1, Event: "push", HeadRepository: 7, HeadBranch: "main"}
		}, false, "refs"},
		"cancel the run": {func(w *world) {
			w.offers(func(a *store.Account) { a.OnForbidden = store.CancelRun })
			w.github.runs[run] = github.Run{ID: run, Attempt: 1, Event: "issues", HeadRepository: 7}
		}, true, "issues"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.offers()
				r := w.queues(21)
				c.edit(w)
				w.start(r)
				w.state(r, store.Failed)
				if got := w.requestNow(r.ID); got.Error == nil || got.Error.Code != store.CodeForbidden || !strings.Contains(got.Error.Text, c.text) || len(w.fleet.calls) != 0 {
					t.Errorf("%v and %d launches, want forbidden for %s", got.Error, len(w.fleet.calls), c.text)
				}
				if !w.alarmed(store.AlarmJobForbidden) || slices.Equal(w.github.cancelled, []int64{run}) != c.cancels {
					t.Errorf("alarm %v, cancelled %v", w.alarmed(store.AlarmJobForbidden), w.github.cancelled)
				}
			})
		})
	}
}

// Anybody can write a webhook's words who has its secret, and old ones come again.
func TestAWebhookAloneEndsNoRequest(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offers()
		r := w.queues(21)
		w.start(r)
		w.online(r)
		mine := w.runnerOf(r.ID)
		id := store.WorkflowJob{ID: "21", RunID: fmt.Sprint(run)}
		for name, s := range map[string]store.Sighting{
			"elsewhere":                          {Job: id, Status: store.JobInProgress, Runner: "hers", Registration: 77},
			"nameless":                           {Job: id, Status: store.JobInProgress},
			"over":                               {Job: id, Status: store.JobCompleted},
			"a name of ours with another number": {Job: id, Status: store.JobInProgress, Runner: store.GitHubNameFor("test", mine.ID, 1), Registration: 77},
			"a runner without a record":          {Job: id, Status: store.JobInProgress, Runner: "garo-test-abc-1", Registration: 77},
		} {
			w.handle(w.message(s))
			if got := w.requestNow(r.ID); got.State != store.Waiting || w.runnerOf(r.ID).Took.Job != "" {
				t.Errorf("%s: %s, took %q; want it waiting on", name, got.State, w.runnerOf(r.ID).Took.Job)
			}
			time.Sleep(time.Minute) // so that GitHub is asked again
		}
		w.begins(21, mine, github.StatusInProgress) // and its webhook is lost
		w.handle(w.message(store.Sighting{Job: id, Status: store.JobInProgress}))
		w.state(r, store.Ready)
	})
}

// A webhook that says that a job is over can come a moment after GitHub called it queued,
// as when it is cancelled while its machine boots.
func TestAnAnswerThatIsOlderThanTheNewsIsNoAnswer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offers()
		r := w.queues(21)
		wk := worker.New(w.config) // one process, which keeps what GitHub says
		w.handleBy(wk, queue.StartOf(r))
		w.state(r, store.Waiting)
		w.github.at(21, func(j *github.Job) { j.Status, j.Conclusion = github.StatusCompleted, "cancelled" })
		over := store.Sighting{Job: store.WorkflowJob{ID: "21", RunID: fmt.Sprint(run)}, Status: store.JobCompleted}
		w.handleBy(wk, w.message(over))
		if got := w.requestNow(r.ID); got.State != store.Cancelled || got.Error == nil || got.Error.Code != "job_cancelled" {
			t.Errorf("the request is %s for %+v, want it cancelled with its job", got.State, got.Error)
		}
		reads := len(w.github.reads)
		w.handleBy(wk, w.message(over)) // what is known by now answers it
		if got := w.github.reads[reads:]; len(got) != 0 {
			t.Errorf("GitHub is asked again: %q", got)
		}
	})
}

func TestJobsThatNobodyToldOfAreFoundByTheirRun(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offers()
		a := w.queues(21)
		w.start(a)
		w.online(a)
		w.unheard(22)
		w.unheard(23)
		w.github.at(23, func(j *github.Job) { j.Labels = []string{"ubuntu-latest"} })
		w.begins(21, w.runnerOf(a.ID), github.StatusInProgress)
		time.Sleep(2 * time.Minute)
		w.handle(w.look(21))
		w.state(a, store.Ready)
		w.follow(20)
		b := w.requestNow(w.keys.JobRequestID("7", "22"))
		if b.State != store.Waiting || w.runnerOf(b.ID).For != b.ID {
			t.Errorf("the job that nobody told of is %s, want it waiting for its machine", b.State)
		}
		if got := w.requestNow(w.keys.JobRequestID("7", "23")); got.Version != 0 {
			t.Errorf("a job of GitHub's own machines has a request: %s", got.State)
		}
	})
}

// A job for which its repository has no room is remembered by the repository: GitHub does
// not tell of it again.
func TestAJobWithoutRoomIsLeftForASweep(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offers(func(a *store.Account) { a.MaxOpenRequests = 1 })
		wk := worker.New(w.config)
		w.unheard(22)
		w.unheard(23)
		before := time.Now()
		if n := w.handleBy(wk, w.look(22), w.look(23)); n != 0 {
			t.Errorf("%d messages failed, want none", n)
		}
		if b := w.requestNow(w.keys.JobRequestID("7", "22")); b.State != store.Accepted {
			t.Errorf("the request of the first job is %q, want it accepted", b.State)
		}
		if b := w.requestNow(w.keys.JobRequestID("7", "23")); b.Version != 0 {
			t.Errorf("the second job has a request, %s, want none: its repository may have one", b.State)
		}
		if got := get[store.Overflow](w, store.OverflowOf(account, before).Key).Repositories; !slices.Equal(got, []string{"7"}) {
			t.Errorf("the overflow of the minute has %q, want the repository", got)
		}
	})
}

// A job can begin on a spare machine before its webhook says that it is queued.
func TestAJobThatBeganBeforeItWasKnown(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offers()
		a := w.queues(21)
		w.start(a)
		w.online(a)
		w.unheard(22)
		w.handle(w.begins(22, w.runnerOf(a.ID), github.StatusInProgress))
		b := w.requestNow(w.keys.JobRequestID("7", "22"))
		if b.State != store.Ready || b.Runner != w.runnerOf(a.ID).ID || !slices.Equal(b.Job.Labels, []string{"garo"}) {
			t.Errorf("job 22 is %s on %q, labels %q; want it ready on A's machine", b.State, b.Runner, b.Job.Labels)
		}
		w.follow(10)
		if a = w.requestNow(a.ID); a.State != store.Waiting || a.Launches != 2 {
			t.Errorf("A is %s at launch %d, want it waiting for a second machine", a.State, a.Launches)
		}
		w.unheard(23) // a job that no offer fits, and that GitHub gave to us all the same
		w.github.at(23, func(j *github.Job) { j.Labels = nil })
		w.online(a)
		w.handle(w.begins(23, w.runnerOf(a.ID), github.StatusInProgress))
		if got := w.runnerOf(a.ID).Took; got.Job != "23" || got.Request != "" {
			t.Errorf("took %+v, want job 23 of no request", got)
		}
	})
}

// GitHub holds legs of a matrix back (max-parallel), or used a registration up.
func TestAMachineThatGitHubGivesNothingDrains(t *testing.T) {
	for name, c := range map[string]struct {
		forgotten bool
		end       string
	}{"held back": {false, store.EndIdle}, "used up": {true, store.EndUnlisted}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.offers()
				r := w.queues(21)
				w.start(r)
				w.online(r)
				id := w.runnerOf(r.ID).ID
				w.github.forgotten[w.runnerOf(r.ID).Config.RunnerID] = c.forgotten
				w.handle(w.look(21))
				if got := get[store.Runner](w, id); got.State != store.RunnerOnline {
					t.Fatalf("at once it is %s, want it online", got.State)
				}
				time.Sleep(2 * time.Minute)
				w.handle(w.look(21))
				if got := get[store.Runner](w, id); got.State != store.RunnerDraining || got.End.Code != c.end || !w.alarmed(store.AlarmJobWaits) {
					t.Errorf("it is %s for %v, alarm %v; want it to drain as %s", got.State, got.End, w.alarmed(store.AlarmJobWaits), c.end)
				}
				w.state(r, store.Waiting) // its registration is there: it may still get the job
			})
		})
	}
}

func TestAMessageOfAnEarlierLaunchIsDone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offers()
		r := w.queues(21)
		old := queue.StartOf(r)
		w.start(r)
		run := w.runnerOf(r.ID)
		w.apply(store.Case{Runner: run, Lock: w.lockOf(r), Quota: get[store.Quota](w, account), Request: w.requestNow(r.ID)}.Died(time.Now(), w.limits, store.Instance{ID: run.InstanceID, State: "terminated"}))
		r = w.requestNow(r.ID)
		if r.State != store.Accepted || r.LockKey() == old.Lock {
			t.Fatalf("%s by %s, want it accepted for another launch", r.State, r.LockKey())
		}
		if n := w.handle(old); n != 0 || len(w.fleet.calls) != 1 {
			t.Errorf("%d failed, %d launches; want the old message to be done", n, len(w.fleet.calls))
		}
		w.start(r)
		w.state(r, store.Waiting)
	})
}

func TestAJobThatLosesOneMachineAfterAnotherIsAnAlarm(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offers()
		r := w.queues(21)
		for n := range 5 {
			time.Sleep(10 * time.Second) // beyond the account's pace
			w.start(r)
			if got := w.alarmed(store.AlarmJobWaits); got != (n == 4) {
				t.Errorf("alarm at machine %d: %v, want it at the fifth", n+1, got)
			}
			run := w.runnerOf(r.ID)
			w.apply(store.Case{Runner: run, Lock: w.lockOf(r), Quota: get[store.Quota](w, account), Request: w.requestNow(r.ID)}.Died(time.Now(), w.limits, store.Instance{ID: run.InstanceID, State: "terminated"}))
			r = w.requestNow(r.ID)
			time.Sleep(time.Until(r.DueAt))
		}
	})
}

// A machine can run its job and end within the minute for which an answer about its run is
// good enough to launch by, before anybody hears that the job began.
func TestNoMachineIsLaunchedForAJobThatTheOneBeforeRan(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offers()
		wk := worker.New(w.config)
		r := w.queues(21)
		w.handleBy(wk, queue.StartOf(r))
		w.online(r)
		run := w.runnerOf(r.ID)
		w.begins(21, run, github.StatusCompleted) // and its webhook is lost
		time.Sleep(10 * time.Second)
		d, ok := w.caseOf(r).Finish(time.Now(), w.limits, store.Instance{ID: run.InstanceID, State: "terminated"}, "EC2 says so", store.Price{})
		if !ok || d.Request.State != store.Accepted || len(d.Sends) != 1 {
			t.Fatalf("after its machine ended, the request is %s and has %d messages, want it accepted and one", d.Request.State, len(d.Sends))
		}
		w.apply(d)
		w.handleBy(wk, queue.Of(d.Sends[0]))
		if r = w.requestNow(r.ID); r.State != store.Ready || r.Runner != run.ID || len(w.fleet.calls) != 1 {
			t.Errorf("the request is %s on %q after %d launches, want ready on %s after one", r.State, r.Runner, len(w.fleet.calls), run.ID)
		}
	})
}

// A matrix is launched by one worker in so many seconds that what GitHub said at first is
// too old at the end.
func TestReadsOfAMatrixAreFew(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offers()
		wk := worker.New(w.config)
		var all []queue.Message
		for id := range int64(256) {
			all = append(all, queue.StartOf(w.queues(1000+id)))
		}
		for len(all) > 0 {
			w.handleBy(wk, all[:8]...)
			all = all[8:]
		}
		for len(w.sent) > 0 { // messages are gathered for a second
			slices.SortFunc(w.sent, func(a, b sent) int { return cmp.Compare(a.delay, b.delay) })
			first, began := w.sent[0].delay, time.Now()
			n := 0
			var batch []queue.Message
			for ; n < len(w.sent) && w.sent[n].delay <= first+time.Second; n++ {
				batch = append(batch, w.sent[n].Message)
			}
			w.sent = w.sent[n:]
			left := len(w.sent)
			time.Sleep(first + time.Second)
			w.handleBy(wk, batch...)
			for i := range left {
				w.sent[i].delay = max(0, w.sent[i].delay-time.Since(began))
			}
		}
		if n := len(w.fleet.byToken); n != 256 {
			t.Fatalf("%d machines, want 256", n)
		}
		perJob := float64(len(w.github.reads)) / 256
		t.Logf("%d reads: %.3f a job", len(w.github.reads), perJob)
		if perJob > 0.05 {
			t.Errorf("%d reads of GitHub for 256 jobs, %.3f each; want at most 0.05", len(w.github.reads), perJob)
		}
	})
}
