package simgithub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestJobGoesToARunnerWithAllItsLabels(t *testing.T) {
	for _, c := range []struct {
		job, runner []string
		want        bool
	}{
		{[]string{"a"}, []string{"a"}, true},
		{[]string{"a"}, []string{"b", "a"}, true},
		{[]string{"a", "b"}, []string{"b", "a", "c"}, true},
		{[]string{"A"}, []string{"a"}, true},
		{[]string{"a"}, []string{"A"}, true},
		{[]string{"a", "b"}, []string{"a"}, false},
		{[]string{"a"}, []string{"ab"}, false},
		{[]string{"self-hosted"}, []string{"a"}, false}, // no label comes unasked
	} {
		t.Run(fmt.Sprintf("%vOn%v", c.job, c.runner), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := open(t, Config{})
				_, x := w.online("r", c.runner...)
				defer x.Close()
				id := w.queue("77", c.job...)
				if !c.want {
					idle(t, x, time.Hour)
					if j := w.job(id); j.State != Queued || j.RunnerID != 0 {
						t.Errorf("job = %+v, want it queued", j)
					}
					return
				}
				j := take(t, x)
				if j.ID != id || j.RunID != "77" || j.Duration != time.Minute || j.State != Running || j.RunnerName != "r" {
					t.Errorf("Wait = %+v, want the job, running", j)
				}
			})
		})
	}
}

func TestJobsStayInTheirRepository(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		_, x := w.online("r", "a")
		defer x.Close()
		if _, err := w.Queue("acme/other", Job{Labels: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
		idle(t, x, time.Hour)
	})
}

func TestOldestJobGoesToOldestRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		first, second := w.queue("1", "a"), w.queue("2", "a")
		onlyB := w.queue("3", "b")
		id2, x2 := w.online("r2", "a")
		defer x2.Close()
		id3, x3 := w.online("r3", "a", "b")
		defer x3.Close()
		id4, x4 := w.online("r4", "a", "b")
		defer x4.Close()
		for job, want := range map[string]int64{first: id2, second: id3, onlyB: id4} {
			if j := w.job(job); j.State != Assigned || j.RunnerID != want {
				t.Errorf("job %s = %+v, want it assigned to %d", j.RunID, j, want)
			}
		}
	})
}

func TestOfflineRunnerGetsNoJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		m := w.mint("r", "a")
		id := w.queue("1", "a")
		if j := w.job(id); j.State != Queued {
			t.Errorf("job = %+v, want it queued while the runner never connected", j)
		}
		x := w.connect(m.Config)
		w.connectFails(m.Config, ErrConflict)
		x.Close()
		x.Close()
		if got := w.Registrations()[0]; got.Online || got.Opened != 1 || got.Refused != 1 {
			t.Errorf("registration = %+v, want it offline after one session and one refusal", got)
		}
		if _, err := x.Wait(t.Context()); err == nil {
			t.Error("Wait on a closed session: no error")
		}
		if err := x.Done(t.Context(), Job{ID: id}); err == nil {
			t.Error("Done on a closed session: no error")
		}
		// It was assigned while the runner was online, and is not taken.
		time.Sleep(time.Minute)
		if j := w.job(id); j.State != Queued || j.Requeued != 1 {
			t.Errorf("job = %+v, want it queued again", j)
		}
	})
}

func (w *world) connectFails(config string, want error) {
	w.t.Helper()
	if _, err := w.Connect(w.t.Context(), config); !errors.Is(err, want) {
		w.t.Errorf("Connect = %v, want %v", err, want)
	}
}

func TestRegistrationIsForOneJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		m := w.mint("r", "a")
		one := "/repos/acme/shop/actions/runners/" + strconv.FormatInt(m.Runner.ID, 10)
		x := w.connect(m.Config)
		var r runner
		if w.call("GET", one, "", 200, &r); r.Status != "online" || r.Busy || r.OS != "Linux" || r.Version == nil {
			t.Errorf("runner = %+v, want it online and idle, with a version", r)
		}
		id, next := w.queue("1", "a"), w.queue("2", "a")
		j := take(t, x)
		if w.call("GET", one, "", 200, &r); !r.Busy {
			t.Errorf("runner = %+v, want it busy", r)
		}
		w.call("DELETE", one, "", 422, nil)
		time.Sleep(2 * time.Minute)
		if err := x.Done(t.Context(), Job{ID: next}); err == nil {
			t.Error("Done of another job: no error")
		}
		if err := x.Done(t.Context(), j); err != nil {
			t.Fatalf("Done: %v", err)
		}
		w.call("GET", one, "", 404, nil)
		if _, err := x.Wait(t.Context()); !errors.Is(err, ErrDeleted) {
			t.Errorf("Wait after the job = %v, want ErrDeleted", err)
		}
		if err := x.Done(t.Context(), j); !errors.Is(err, ErrDeleted) {
			t.Errorf("a second Done = %v, want ErrDeleted", err)
		}
		w.connectFails(m.Config, ErrDeleted)
		if got := w.job(id); got.State != Done || got.EndedAt.Sub(got.StartedAt) != 2*time.Minute {
			t.Errorf("job = %+v, want it done after 2m", got)
		}
		if got := w.job(next); got.State != Queued {
			t.Errorf("the next job = %+v, want it queued", got)
		}
		if got := w.Minted(); len(got) != 1 || got[0].RemovedBy != RemovedByJob || got[0].Online {
			t.Errorf("minted = %+v, want it removed by its job", got)
		}
	})
}

func TestWaitWakesWhenAJobComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		var got [2]Job
		var errs [2]error
		done := make(chan int)
		for i := range 2 {
			_, x := w.online(fmt.Sprintf("r%d", i), "a")
			go func() {
				got[i], errs[i] = x.Wait(t.Context())
				done <- i
			}()
		}
		synctest.Wait()
		time.Sleep(time.Hour)
		w.queue("1", "a")
		if i := <-done; i != 0 || errs[0] != nil || got[0].RunID != "1" {
			t.Errorf("runner %d got %+v, %v; want runner 0 to get job 1", i, got[i], errs[i])
		}
		w.queue("2", "a")
		if i := <-done; i != 1 || errs[1] != nil || got[1].RunID != "2" {
			t.Errorf("runner %d got %+v, %v; want runner 1 to get job 2", i, got[i], errs[i])
		}
	})
}

func TestJobThatIsNotTakenGoesToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		slow, x1 := w.online("r1", "a")
		defer x1.Close()
		_, x2 := w.online("r2", "a")
		defer x2.Close()
		begin := time.Now()
		id := w.queue("1", "a")
		if j := w.job(id); j.RunnerID != slow {
			t.Fatalf("job = %+v, want it assigned to r1", j)
		}
		j, err := x2.Wait(t.Context()) // r1 never asks; nobody else moves the server on
		if err != nil || j.ID != id || j.Requeued != 1 {
			t.Errorf("Wait = %+v, %v; want the job, queued again once", j, err)
		}
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("r2 got the job after %v, want 1m", took)
		}
		// r1 gets one again as soon as it asks.
		other := w.queue("2", "a")
		if j := w.job(other); j.State != Queued {
			t.Errorf("job = %+v, want it queued while r1 does not ask", j)
		}
		if j := take(t, x1); j.ID != other {
			t.Errorf("Wait = %+v, want the other job", j)
		}
	})
}

func TestDeletedRunnersSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		id, x := w.online("r", "a")
		defer x.Close()
		ended := make(chan error)
		go func() {
			_, err := x.Wait(t.Context())
			ended <- err
		}()
		synctest.Wait()
		w.call("DELETE", "/repos/acme/shop/actions/runners/"+strconv.FormatInt(id, 10), "", 204, nil)
		if err := <-ended; !errors.Is(err, ErrDeleted) {
			t.Errorf("Wait = %v, want ErrDeleted", err)
		}
	})
}

func TestCloseEndsAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		_, x := w.online("r", "a")
		ended := make(chan error)
		go func() {
			_, err := x.Wait(t.Context())
			ended <- err
		}()
		synctest.Wait()
		x.Close()
		if err := <-ended; err == nil || errors.Is(err, ErrDeleted) {
			t.Errorf("Wait = %v, want that the session is closed: the registration is there", err)
		}
	})
}

func TestJobAssignedBeforeTheDeleteIsQueuedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		first, x1 := w.online("r1", "a")
		defer x1.Close()
		id := w.queue("1", "a")
		w.call("DELETE", "/repos/acme/shop/actions/runners/"+strconv.FormatInt(first, 10), "", 204, nil)
		if _, err := x1.Wait(t.Context()); !errors.Is(err, ErrDeleted) {
			t.Errorf("Wait of the deleted runner = %v, want ErrDeleted", err)
		}
		_, x2 := w.online("r2", "a")
		defer x2.Close()
		begin := time.Now()
		if j, err := x2.Wait(t.Context()); err != nil || j.ID != id || time.Since(begin) != time.Minute {
			t.Errorf("Wait of another = %+v, %v after %v; want the job after 1m", j, err, time.Since(begin))
		}
	})
}

func TestJobTakenJustBeforeTheDeleteFinishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{Rules: Rules{BusyLag: 5 * time.Second, OmitBusy: true}})
		id, x := w.online("r", "a")
		defer x.Close()
		one := "/repos/acme/shop/actions/runners/" + strconv.FormatInt(id, 10)
		job := w.queue("1", "a")
		j := take(t, x)
		var r runner
		if w.call("GET", one, "", 200, &r); r.Busy {
			t.Errorf("runner = %+v, want it idle to look at", r)
		}
		w.call("DELETE", one, "", 204, nil)
		w.call("GET", one, "", 404, nil)
		time.Sleep(time.Hour)
		if got := w.job(job); got.State != Running {
			t.Errorf("job = %+v, want it running, on a runner that is gone", got)
		}
		if err := x.Done(t.Context(), j); err != nil {
			t.Errorf("Done: %v", err)
		}
		if got := w.Minted()[0]; got.RemovedBy != RemovedByCall || got.Online {
			t.Errorf("minted = %+v, want it removed by the call", got)
		}
		if _, err := x.Wait(t.Context()); !errors.Is(err, ErrDeleted) {
			t.Errorf("Wait after the job = %v, want ErrDeleted", err)
		}

		id, x = w.online("r2", "a")
		defer x.Close()
		w.queue("2", "a")
		take(t, x)
		time.Sleep(5 * time.Second)
		w.call("DELETE", "/repos/acme/shop/actions/runners/"+strconv.FormatInt(id, 10), "", 422, nil)
		var l struct{ Runners []runner }
		if w.call("GET", "/repos/acme/shop/actions/runners", "", 200, &l); len(l.Runners) != 0 {
			t.Errorf("list = %+v, want the busy runner left out", l)
		}
	})
}

func TestJobOfALostProgramIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		m := w.mint("r", "a")
		one := "/repos/acme/shop/actions/runners/" + strconv.FormatInt(m.Runner.ID, 10)
		x := w.connect(m.Config)
		job := w.queue("1", "a")
		take(t, x)
		x.Close()
		time.Sleep(9 * time.Minute)
		w.call("DELETE", one, "", 422, nil)
		x = w.connect(m.Config)
		if j := take(t, x); j.ID != job || j.State != Running {
			t.Errorf("Wait of a new session = %+v, want the job that runs", j)
		}
		x.Close()
		time.Sleep(10 * time.Minute)
		if j := w.job(job); j.State != Lost {
			t.Errorf("job = %+v, want it lost", j)
		}
		// The registration is left, idle, and never gets another job.
		x = w.connect(m.Config)
		w.queue("2", "a")
		idle(t, x, time.Hour)
		x.Close()
		w.call("DELETE", one, "", 204, nil)
	})
}

func TestWrongConfigIsRefused(t *testing.T) {
	w := open(t, Config{})
	other := open(t, Config{Random: zeros{}})
	for name, config := range map[string]string{"Empty": "", "NotBase64": "%%", "NotJSON": "aGVsbG8=", "NoFiles": "e30="} {
		t.Run(name, func(t *testing.T) { w.connectFails(config, ErrUnknownConfig) })
	}
	w.connectFails(other.mint("r", "a").Config, ErrDeleted)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestOldProgramIsRefusedByItsPollsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{Rules: Rules{TooOld: true}})
		_, x := w.online("r", "a")
		defer x.Close()
		job := w.queue("1", "a")
		if !w.Registrations()[0].Online {
			t.Error("the runner is offline, want it online before its first poll")
		}
		if _, err := x.Wait(t.Context()); !errors.Is(err, ErrTooOld) {
			t.Errorf("the first poll = %v, want ErrTooOld", err)
		}
		if j := w.job(job); j.State != Assigned {
			t.Errorf("job = %+v, want it assigned and not taken", j)
		}
		w.Change(func(r *Rules) { r.TooOld = false })
		take(t, x)
		// It polls beside its job, and GitHub may refuse it by then.
		ended := make(chan error)
		go func() { ended <- x.Watch(t.Context()) }()
		synctest.Wait()
		time.Sleep(time.Hour)
		w.Change(func(r *Rules) { r.TooOld = true })
		if err := <-ended; !errors.Is(err, ErrTooOld) {
			t.Errorf("a later poll = %v, want ErrTooOld", err)
		}
	})
}

func TestForgottenRegistrationIsNotFoundByNewPollsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		m := w.mint("r", "a")
		x := w.connect(m.Config)
		ended := make(chan error, 1)
		go func() {
			_, err := x.Wait(t.Context())
			ended <- err
		}()
		synctest.Wait()
		if err := w.Forget(m.Runner.ID); err != nil {
			t.Fatal(err)
		}
		w.call("GET", "/repos/acme/shop/actions/runners/"+strconv.FormatInt(m.Runner.ID, 10), "", 404, nil)
		job := w.queue("1", "a")
		time.Sleep(5 * time.Hour)
		select {
		case err := <-ended:
			t.Errorf("the poll that was open = %v, want it open: the program does not notice", err)
		default:
		}
		if j := w.job(job); j.State != Queued {
			t.Errorf("job = %+v, want it queued", j)
		}
		if _, err := x.Wait(t.Context()); !errors.Is(err, ErrDeleted) {
			t.Errorf("a new poll = %v, want ErrDeleted", err)
		}
		w.connectFails(m.Config, ErrDeleted)
		if got := w.Minted()[0]; got.RemovedBy != RemovedByGitHub {
			t.Errorf("registration = %+v, want GitHub to have removed it", got)
		}
		x.Close()
		if err := <-ended; err == nil {
			t.Error("the open poll of a closed session: no error")
		}
		if err := w.Forget(m.Runner.ID); err == nil {
			t.Error("Forget of a registration that is not there: no error")
		}
	})
}

func TestBusyGhostIsBusyForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{Rules: Rules{StaysBusy: true}})
		lost, x := w.online("lost", "a")
		job := w.queue("1", "a")
		take(t, x)
		x.Close()
		idle, y := w.online("idle", "b")
		defer y.Close()
		if err := w.Haunt(idle); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if j := w.job(job); j.State != Lost {
			t.Fatalf("job = %+v, want it lost", j)
		}
		for _, id := range []int64{lost, idle} {
			one := "/repos/acme/shop/actions/runners/" + strconv.FormatInt(id, 10)
			var r runner
			if w.call("GET", one, "", 200, &r); !r.Busy {
				t.Errorf("runner = %+v, want it busy without a job", r)
			}
			w.call("DELETE", one, "", 422, nil)
		}
		if err := w.Haunt(999); err == nil {
			t.Error("Haunt of a runner that is not there: no error")
		}
	})
}

func TestLostAssignmentUsesTheRegistrationUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{Rules: Rules{LosesJobs: true}})
		id, x := w.online("r1", "a")
		defer x.Close()
		job := w.queue("1", "a")
		idle(t, x, time.Minute)
		w.Change(func(r *Rules) { r.LosesJobs = false })
		idle(t, x, time.Hour)
		if j := w.job(job); j.State != Queued {
			t.Errorf("job = %+v, want it queued", j)
		}
		var r runner
		if w.call("GET", "/repos/acme/shop/actions/runners/"+strconv.FormatInt(id, 10), "", 200, &r); r.Status != "online" || r.Busy {
			t.Errorf("runner = %+v, want it online and idle, though no job ever reaches it", r)
		}
		_, y := w.online("r2", "a")
		defer y.Close()
		if j := take(t, y); j.ID != job {
			t.Errorf("Wait of another runner = %+v, want the job", j)
		}
	})
}

func TestCancelledCallsDoNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		m := w.mint("r", "a")
		x := w.connect(m.Config)
		id := w.queue("1", "a")
		cancel()
		if _, err := x.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait = %v, want context.Canceled", err)
		}
		if j := w.job(id); j.State != Assigned {
			t.Errorf("job = %+v, want it not taken", j)
		}
		j := take(t, x)
		if err := x.Done(ctx, j); !errors.Is(err, context.Canceled) || w.job(id).State != Running {
			t.Errorf("Done = %v and job %+v, want context.Canceled and the job running", err, w.job(id))
		}
		x.Close()
		if _, err := w.Connect(ctx, m.Config); !errors.Is(err, context.Canceled) || w.Registrations()[0].Online {
			t.Errorf("Connect = %v, want context.Canceled and the runner offline", err)
		}
	})
}

func TestAutoJobsServeOwnLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{Rules: Rules{AutoJobs: 5 * time.Minute}})
		_, plain := w.online("plain", "linux")
		defer plain.Close()
		m := w.mint("r", "spot", "garo-abc")
		if n := len(w.Jobs()); n != 0 {
			t.Fatalf("%d jobs before the runner is online, want none", n)
		}
		x := w.connect(m.Config)
		j := take(t, x)
		if !slices.Equal(j.Labels, []string{"garo-abc"}) || j.Duration != 5*time.Minute || j.RunID == "" {
			t.Errorf("job = %+v, want one of 5m for garo-abc alone, of some run", j)
		}
		x.Close()
		x = w.connect(m.Config)
		if again := take(t, x); again.ID != j.ID || len(w.Jobs()) != 1 {
			t.Errorf("jobs = %+v, want still the one", w.Jobs())
		}
		if err := x.Done(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		_, next := w.online("r-2", "spot", "garo-abc")
		defer next.Close()
		if j := take(t, next); !slices.Equal(j.Labels, []string{"garo-abc"}) {
			t.Errorf("job of the next registration = %+v, want one of its own", j)
		}
		idle(t, plain, time.Hour)
	})
}

func TestMemoryIsBounded(t *testing.T) {
	w := open(t, Config{Random: zeros{}})
	now := time.Now()
	err := w.step(func(time.Time) error {
		for range kept + 10 {
			r := &registration{record: record{ID: w.id()}}
			j := &job{Job: Job{ID: strconv.FormatInt(w.id(), 10), State: Running}, by: r}
			r.job = j
			w.runners, w.jobs = append(w.runners, r), append(w.jobs, j)
			w.remove(now, r, RemovedByJob)
			w.end(now, j, Done)
		}
		return nil
	})
	if err != nil || len(w.Minted()) != kept || len(w.Jobs()) != kept {
		t.Errorf("%v: %d registrations and %d jobs are remembered, want %d", err, len(w.Minted()), len(w.Jobs()), kept)
	}
}
