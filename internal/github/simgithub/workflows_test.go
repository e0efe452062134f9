package simgithub

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestRunHasTheStatusOfItsJobs(t *testing.T) {
	job := func(state JobState, held string) Job { return Job{State: state, Back: held != "", Held: held} }
	for name, c := range map[string]struct {
		jobs               []Job
		status, conclusion string
	}{
		"Queued":               {[]Job{job(Queued, "")}, "queued", ""},
		"AssignedLooksQueued":  {[]Job{job(Assigned, "")}, "queued", ""},
		"OneRunsOthersQueued":  {[]Job{job(Queued, ""), job(Running, "")}, "in_progress", ""},
		"OneQueuedOthersWait":  {[]Job{job(Queued, "waiting"), job(Queued, "")}, "queued", ""},
		"AllWait":              {[]Job{job(Queued, "waiting")}, "waiting", ""},
		"OneDoneTheOtherWaits": {[]Job{job(Done, ""), job(Queued, "pending")}, "pending", ""},
		"Done":                 {[]Job{job(Done, ""), job(Done, "")}, "completed", "success"},
		"OneLost":              {[]Job{job(Lost, ""), job(Done, "")}, "completed", "failure"},
		"Cancelled":            {[]Job{job(Cancelled, "")}, "completed", "cancelled"},
	} {
		t.Run(name, func(t *testing.T) {
			status, conclusion := runStatus(c.jobs)
			if said, _ := conclusion.(string); status != c.status || said != c.conclusion {
				t.Errorf("status %s, conclusion %v; want %s, %s", status, conclusion, c.status, c.conclusion)
			}
		})
	}
}

func TestJobThatIsHeldBackGoesToNoRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		_, x := w.online("r", "x")
		id, err := w.Queue(shop, Job{RunID: "1", Labels: []string{"x"}, Duration: time.Minute, Back: true, Held: "waiting"})
		if err != nil {
			t.Fatal(err)
		}
		idle(t, x, time.Hour)
		if err := w.Release(id); err != nil {
			t.Fatal(err)
		}
		if j := take(t, x); j.ID != id {
			t.Errorf("took %+v, want the job that was held back", j)
		}
	})
}

func TestCancelEndsWhatHasNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		_, x := w.online("r", "x")
		running, queued, other := w.queue("1", "x"), w.queue("1", "y"), w.queue("2", "y")
		take(t, x)
		w.call("POST", "/repositories/101/actions/runs/1/cancel", "", 202, nil)
		for id, want := range map[string]JobState{running: Running, queued: Cancelled, other: Queued} {
			if got := w.job(id).State; got != want {
				t.Errorf("job %s is %s, want %s", id, got, want)
			}
		}
		if err := w.CancelJob(running); err == nil {
			t.Error("CancelJob of a job that runs has no error")
		}
	})
}

func TestJobOfADeadRunnerIsNotQueuedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		_, x := w.online("r", "x")
		id := w.queue("1", "x")
		take(t, x)
		x.Close()
		w.online("other", "x")
		time.Sleep(time.Hour)
		var j struct{ Status, Conclusion string }
		w.call("GET", "/repositories/101/actions/jobs/"+id, "", 200, &j)
		if j.Status != "completed" || j.Conclusion != "failure" || w.job(id).Requeued != 0 {
			t.Errorf("job = %+v, requeued %d times; want it failed for good", j, w.job(id).Requeued)
		}
	})
}

func TestTokenOpensWhatItsPermissionSays(t *testing.T) {
	key, public := newKey(t)
	w := open(t, Config{Rules: Rules{App: App{ID: 7, Installation: 9, Key: public}}})
	id := w.queue("1", "x")
	for name, c := range map[string]struct {
		body string
		want map[string]int // by call
	}{
		"Read": {`{"permissions":{"actions":"read"}}`,
			map[string]int{"GET runs": 200, "GET runs/1": 200, "GET runs/1/jobs": 200, "GET jobs/" + id: 200, "GET runners": 404, "POST runs/1/cancel": 404}},
		"Administer": {tokenBody(101), map[string]int{"GET runs": 404, "GET jobs/" + id: 404, "GET runners": 200}},
		"Cancel": {`{"repository_ids":[102],"permissions":{"actions":"write"}}`,
			map[string]int{"POST runs/1/cancel": 404, "GET runs": 404}}, // it is another repository's
	} {
		t.Run(name, func(t *testing.T) {
			var made struct{ Token string }
			got := w.as(prove(t, key, 7, 0, 0), "POST", "/app/installations/9/access_tokens", c.body)
			if err := json.Unmarshal(got.body, &made); err != nil || got.status != 201 {
				t.Fatalf("token = %d %s", got.status, got.body)
			}
			for call, want := range c.want {
				var method, path string
				if _, err := fmt.Sscan(call, &method, &path); err != nil {
					t.Fatal(err)
				}
				if got := w.as(made.Token, method, "/repositories/101/actions/"+path, ""); got.status != want {
					t.Errorf("%s = %d, want %d", call, got.status, want)
				}
			}
		})
	}
	for name, body := range map[string]string{
		"Two":    `{"permissions":{"actions":"read","administration":"write"}}`,
		"Wide":   `{"permissions":{"actions":"write"}}`,
		"Narrow": `{"repository_ids":[101],"permissions":{"actions":"read"}}`,
	} {
		if got := w.as(prove(t, key, 7, 0, 0), "POST", "/app/installations/9/access_tokens", body); got.status != 422 {
			t.Errorf("%s: token = %d, want 422", name, got.status)
		}
	}
	w.reported()
}
