package sim

import (
	"fmt"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Ephemeral is the body of a request for a runner of its own.
func Ephemeral(key string) apitype.Start {
	return apitype.Start{Repo: setting.Repository, Mode: store.Ephemeral, IdempotencyKey: key}
}

// Shared is the body of a request that shares its runner with all that name the
// same labels.
func Shared(key string, labels ...string) apitype.Start {
	return apitype.Start{Repo: setting.Repository, Mode: store.Shared, Labels: labels, IdempotencyKey: key}
}

// Start asks for a runner, until that is answered.
func (w *World) Start(body apitype.Start) apitype.Started {
	w.Helper()
	started, err := w.Client.Start(w.Context(), body)
	if err != nil {
		w.Fatal(err)
	}
	return started
}

// Job queues a job at GitHub that names what runs_on does.
func (w *World) Job(runsOn []string, length time.Duration) string {
	w.Helper()
	id, err := w.GitHub.Queue(setting.RepositoryID, simgithub.Job{RunID: "1", Labels: runsOn, Duration: length})
	if err != nil {
		w.Fatal(err)
	}
	return id
}

// JobOf returns a job.
func (w *World) JobOf(id string) simgithub.Job {
	for _, j := range w.GitHub.Jobs() {
		if j.ID == id {
			return j
		}
	}
	return simgithub.Job{}
}

// Done reports whether a job ran to its end.
func (w *World) Done(job string) bool { return w.JobOf(job).State == simgithub.Done }

// look is how often a test looks at its world: a time that nothing else takes, so
// that nothing else happens just then.
const look = 250*time.Millisecond + 7919

// Until waits until something is so, and fails the test if it is not so in time.
func (w *World) Until(what string, limit time.Duration, is func() bool) time.Duration {
	w.Helper()
	began := time.Now()
	for !is() {
		if time.Since(began) > limit {
			w.Fatalf("%s: not within %s", what, limit)
		}
		time.Sleep(look)
	}
	return time.Since(began)
}

// Ready polls a request until it is ready, and fails the test if it ends otherwise
// or not in time.
func (w *World) Ready(started apitype.Started, limit time.Duration) store.Request {
	w.Helper()
	if r := w.Final(started, limit); r.State != store.Ready {
		w.Fatalf("request %s is %s (%v), want ready\n%v", r.ID, r.State, r.Error, r.History)
	}
	return w.Request(started.ID)
}

// Final polls a request until it is final. It does so more rarely than a caller,
// who would have most calls of a world to himself.
func (w *World) Final(started apitype.Started, limit time.Duration) store.Request {
	w.Helper()
	caller := w.Client.WithToken(client.NewToken(started.StatusToken.Reveal()))
	for began := time.Now(); time.Since(began) < limit; time.Sleep(8*time.Second + look) {
		status, err := caller.Status(w.Context(), started.ID)
		w.must(err)
		if client.Final(status.State) {
			return w.Request(started.ID)
		}
	}
	w.Fatalf("request %s is not final within %s\n%v", started.ID, limit, w.Request(started.ID).History)
	return store.Request{}
}

// Request returns a record as it is.
func (w *World) Request(id string) store.Request { return read[store.Request](w, id) }

// Runner returns a record as it is.
func (w *World) Runner(id string) store.Runner { return read[store.Runner](w, id) }

// RunnerOf returns the runner that a request names.
func (w *World) RunnerOf(request string) store.Runner { return w.Runner(w.Request(request).Runner) }

// Lock returns a record as it is.
func (w *World) Lock(key string) store.Lock { return read[store.Lock](w, key) }

// Pulse returns a record as it is.
func (w *World) Pulse(key string) store.Pulse { return read[store.Pulse](w, key) }

// Quota returns the account's.
func (w *World) Quota() store.Quota { return read[store.Quota](w, setting.AccountID) }

func read[T any, P interface {
	*T
	store.Item
}](w *World, id string) T {
	w.Helper()
	v, err := store.Read[T, P](w.Context(), w.Store(), id)
	w.must(err)
	return v
}

// Send puts a message into the queue, as a duplicate or a late one is. It takes a
// moment, so that several have one order.
func (w *World) Send(m queue.Message, delay time.Duration) {
	w.Helper()
	time.Sleep(time.Microsecond)
	w.must(w.Queue.Send(w.Context(), m, delay))
}

// Forget deletes a registration at GitHub, as one of its owners may.
func (w *World) Forget(id int64) error {
	for _, g := range w.GitHub.Registrations() {
		if g.ID == id && g.OrganizationID != "" {
			return w.github.Delete(w.Context(), github.Scope{Organization: true, ID: g.OrganizationID, Name: setting.Organization.Name}, id)
		}
	}
	return w.github.Delete(w.Context(), github.Scope{ID: setting.RepositoryID, Name: setting.Repository}, id)
}

// NewImage has a new image built: from now on requests get that.
func (w *World) NewImage() { w.images.Add(1) }

// Points returns what the account's credential may still register.
func (w *World) Points() store.Points { return read[store.Points](w, w.Account.CredentialNames()[0]) }

// LeaseOut has other accounts that share the credential lease all registrations that it
// may make in the next minute.
func (w *World) LeaseOut() {
	p := w.Points()
	var last store.Decision
	leased := p.Leased // by this world's own
	for {
		d, _ := p.Lease(time.Now(), w.Limits, store.LeaseWish{Scope: "another", Waited: true})
		if d.Wait.For != "" {
			break
		}
		last = d
		p = *d.Changes[0].Item.(*store.Points)
	}
	if last.Case != nil { // who is faster leases it, and does not mind
		last.Changes[0].Item.(*store.Points).Leased = leased
		_ = store.NewWriter(w.Store(), fmt.Sprint("others-", w.Count("others")), time.Now).Commit(w.Context(), last.Changes...)
	}
}
