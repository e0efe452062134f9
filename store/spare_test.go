package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestSettleOfAWorkflowJob(t *testing.T) {
	now := at(6 * time.Minute)
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		edit  func(*store.Runner)
		why   string // the reason for which it is accepted again; "": it waits on
	}{
		{"BootingMayTakeIt", booting, nil, ""},
		{"OnlineIsNotReady", online, nil, ""},
		{"BusyIsNotReady", busy, nil, ""},
		{"TookItsJob", busy, func(r *store.Runner) { r.Took = store.Took{Job: "21", Request: "r1"} }, ""},
		{"TookAnotherJob", busy, func(r *store.Runner) { r.Took = store.Took{Job: "22", Request: "r2"} }, "runner x1 took another job"},
		{"TookAJobOfNoRequest", busy, func(r *store.Runner) { r.Took = store.Took{Job: "22"} }, "runner x1 took another job"},
		{"DrainsRegisteredMayStillTakeIt", online, func(r *store.Runner) { r.State, r.End = store.RunnerDraining, &store.Failure{Code: store.EndSpot} }, ""},
		{"DeregisteredCannot", online, func(r *store.Runner) {
			r.State, r.End, r.DeregisteredAt = store.RunnerDraining, &store.Failure{Code: store.EndSpot}, now
		}, store.EndSpot},
		{"DeregisteredWhileItsAgentIsBusy", busy, func(r *store.Runner) {
			r.State, r.End, r.DeregisteredAt = store.RunnerDraining, &store.Failure{Code: store.EndSpot}, now
		}, ""},
		{"DeregisteredAndUsable", online, func(r *store.Runner) { r.DeregisteredAt = now }, ""},
		{"DrainsWithoutAConfig", launched, func(r *store.Runner) { r.State, r.End = store.RunnerDraining, &store.Failure{Code: store.EndNoBoot} }, store.EndNoBoot},
		{"Ended", busy, func(r *store.Runner) { r.State = store.RunnerEnded }, "runner_ended"},
		{"RecordIsGone", launching, func(r *store.Runner) { *r = store.Runner{ID: "x1"} }, "runner_ended"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := plain("r1", "21")
			run := runnerOf(t, c.stage, r)
			r = waits(r, run)
			if c.edit != nil {
				c.edit(&run)
			}
			d := store.Case{Request: r, Runner: run}.Settle(now, lim)
			if c.why == "" {
				if len(d.Changes) > 0 || d.Sends != nil {
					t.Errorf("Settle changes %s, to %s; want it to wait", told(d.Changes), d.Request.State)
				}
				return
			}
			if got, want := outcomeOf(d), (outcome{changes: "put request", sends: "request r1 due 6m0s"}); got != want {
				t.Errorf("the decision is %+v,\nwant %+v", got, want)
			}
			same(t, "story", last(d.Request.History), store.Entry{At: now, State: "accepted", Reason: c.why})
			if q := d.Request; q.State != store.Accepted || q.Runner != "" || q.LockKey() != "r1/2" || q.Error != nil {
				t.Errorf("accepted again: %s on %q by lock %s (%v); want accepted, nobody, r1/2", q.State, q.Runner, q.LockKey(), q.Error)
			}
		})
	}
}

// There is no limit of tries: a job that is queued is served, however often GitHub gives
// its machines to others.
func TestAJobLosesMachinesWithoutEnd(t *testing.T) {
	lose := func(end string, times int) (pauses []string) {
		r, now := plain("r1", "21"), at(0)
		for n := range times {
			run := runnerOf(t, booting, r)
			run.State, run.End = store.RunnerEnded, &store.Failure{Code: end}
			d := store.Case{Request: waits(r, run), Runner: run}.Settle(now, lim)
			r = d.Request
			if r.State != store.Accepted || r.Launches != n+2 {
				t.Fatalf("loss %d: %s, launch %d; want accepted, %d", n+1, r.State, r.Launches, n+2)
			}
			if sent := d.Sends != nil; sent != r.DueAt.Equal(now) {
				t.Errorf("loss %d: due at %v, sent %v; want what has a pause left to the reaper", n+1, r.DueAt, sent)
			}
			pauses = append(pauses, r.DueAt.Sub(now).String())
			now = r.DueAt
		}
		return pauses
	}
	if got, want := strings.Join(lose("spot_interruption", 20), " "), "0s 0s 0s 30s 1m0s 2m0s 4m0s 8m0s"+strings.Repeat(" 10m0s", 12); got != want {
		t.Errorf("pauses %s,\nwant %s", got, want)
	}
	if got, want := strings.Join(lose(store.EndIdle, 6), " "), "30s 1m0s 2m0s 4m0s 8m0s 10m0s"; got != want {
		t.Errorf("pauses of a job that GitHub holds back %s,\nwant %s", got, want)
	}
}

// A machine that only people can make fit is no reason to give the job up, nor to launch one
// machine after another: the next one comes after a pause, and people read why.
func TestMachineThatOnlyPeopleCanChangeHasTheNextOnePause(t *testing.T) {
	for code, starved := range map[string]bool{store.EndSetup: true, store.EndTooOld: false, store.EndLaunchDenied: false, store.EndMintDenied: false} {
		r := plain("r1", "21")
		run := runnerOf(t, booting, r)
		said := "script: exit status 3; it printed: " + strings.Repeat("é", 3000) + "no space left"
		run.State, run.End = store.RunnerEnded, &store.Failure{Code: code, Text: said}
		d := store.Case{Request: waits(r, run), Runner: run}.Settle(at(0), lim)
		q := d.Request
		if q.State != store.Accepted || !q.DueAt.Equal(at(30*time.Second)) || q.Wait != store.WaitBackoff {
			t.Errorf("%s: %s at %v for %q; want accepted after 30 s", code, q.State, q.DueAt, q.Wait)
		}
		if !q.NeedsPeople() || r.NeedsPeople() {
			t.Errorf("%s: needs people: %v, and before: %v; want it then alone", code, q.NeedsPeople(), r.NeedsPeople())
		}
		if q.Starved() != starved {
			t.Errorf("%s: people are to look: %v, want %v", code, q.Starved(), starved)
		}
		if !strings.HasPrefix(q.Lost, code+": script: exit status 3") || !strings.HasSuffix(q.Lost, "no space left") || len(q.Lost) > 1010 || !utf8.ValidString(q.Lost) {
			t.Errorf("%s: kept %d bytes, %.60q to its end; want the beginning and the end of what the machine said", code, len(q.Lost), q.Lost)
		}
		if last(q.History).Reason != q.Lost {
			t.Errorf("%s: the story ends with %.60q, want the same", code, last(q.History).Reason)
		}
	}
}

func TestWhatOnlyPeopleChangeIsTriedAgainForAJob(t *testing.T) {
	r := plain("r1", "21")
	d := store.Case{Request: r}.Fail(at(0), lim, store.Failure{Code: store.EndLaunchDenied, Text: "No."})
	if d.Request.State != store.Accepted || d.Request.Wait != store.WaitBackoff || d.Sends != nil || last(d.Request.History).Reason != "launch_refused: No." {
		t.Errorf("%s, waits for %q, story %q; want accepted after a pause, with the reason", d.Request.State, d.Request.Wait, last(d.Request.History).Reason)
	}
	for _, code := range []string{store.CodeForbidden, store.EndNoAccount} {
		if d := (store.Case{Request: r}).Fail(at(0), lim, store.Failure{Code: code}); d.Request.State != store.Failed {
			t.Errorf("%s: %s, want failed", code, d.Request.State)
		}
	}
}

func TestOrphansDrain(t *testing.T) {
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		now   time.Time
		edit  func(*store.Runner, *store.Request)
		want  string
	}{
		{"WaitedFor", online, at(4 * time.Minute), nil, ""},
		{"LaunchingAndUnwanted", launching, at(time.Second), unwait, store.EndUnwanted},
		{"LaunchedAndUnwanted", launched, at(time.Minute), unwait, store.EndUnwanted},
		{"BootedMayHaveAJobByNow", booting, at(70 * time.Second), unwait, ""},
		{"OnlineForAMoment", online, at(70*time.Second + 89*time.Second), unwait, ""},
		{"OnlineForLong", online, at(70*time.Second + 90*time.Second), unwait, store.EndUnwanted},
		{"Busy", busy, at(time.Hour), unwait, ""},
		{"TookAJob", online, at(4 * time.Minute), func(r *store.Runner, q *store.Request) { unwait(r, q); r.Took.Job = "22" }, ""},
		{"WaitsForAnother", online, at(4 * time.Minute), func(_ *store.Runner, q *store.Request) { q.Runner = "x2" }, store.EndUnwanted},
		{"ItsRequestIsReady", online, at(4 * time.Minute), func(_ *store.Runner, q *store.Request) { q.State, q.Runner = store.Ready, "x2" }, store.EndUnwanted},
		{"ItsRequestIsGone", online, at(4 * time.Minute), func(_ *store.Runner, q *store.Request) { *q = store.Request{ID: q.ID} }, store.EndUnwanted},
		{"GivenToAnotherMeanwhile", online, at(4 * time.Minute), func(r *store.Runner, q *store.Request) { unwait(r, q); r.For = "r2" }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := plain("r1", "21")
			s := c.stage(t, store.Ephemeral)
			run := runnerOf(t, c.stage, q)
			s.lock.Key = run.Lock
			q = waits(q, run)
			if c.edit != nil {
				c.edit(&run, &q)
			}
			s.pulse = store.Pulse{Runner: run.ID, Seen: c.now}
			if got := store.DrainReason(c.now, lim, run, s.lock, s.pulse, q); got != c.want {
				t.Errorf("DrainReason = %q, want %q", got, c.want)
			}
		})
	}
}

// unwait lets nobody wait for a runner.
func unwait(_ *store.Runner, q *store.Request) { q.State, q.Runner = store.Accepted, "" }

func TestASpareRunnerIsGivenToWhomItFits(t *testing.T) {
	now := at(3 * time.Minute)
	for _, c := range []struct {
		name string
		edit func(b *store.Request, q *store.Runner, was *store.Request)
		want bool
	}{
		{"Fits", func(*store.Request, *store.Runner, *store.Request) {}, true},
		{"HasMoreLabels", func(_ *store.Request, q *store.Runner, _ *store.Request) { q.Labels = []string{"garo", "linux"} }, true},
		{"LacksALabel", func(b *store.Request, _ *store.Runner, _ *store.Request) { b.Labels = []string{"garo", "linux"} }, false},
		{"OtherSpec", func(b *store.Request, _ *store.Runner, _ *store.Request) { b.Spec = "0123456789ab" }, false},
		{"OtherMarket", func(b *store.Request, _ *store.Runner, _ *store.Request) { b.Type = store.OnDemand }, false},
		{"OtherRegion", func(b *store.Request, _ *store.Runner, _ *store.Request) { b.Region = "eu-west-1" }, false},
		{"OtherAccount", func(b *store.Request, _ *store.Runner, _ *store.Request) { b.Account = "210987654321" }, false},
		{"OtherRepository", func(b *store.Request, _ *store.Runner, _ *store.Request) { b.Repository.ID = "43" }, false},
		{"OtherServer", func(b *store.Request, _ *store.Runner, _ *store.Request) { b.Repository.Server = "ghe.example" }, false},
		{"WaitedFor", func(_ *store.Request, q *store.Runner, was *store.Request) { *was = waits(*was, *q) }, false},
		{"TookAJob", func(_ *store.Request, q *store.Runner, _ *store.Request) { q.Took.Job = "22" }, false},
		{"Busy", func(_ *store.Request, q *store.Runner, _ *store.Request) { q.State = store.RunnerBusy }, false},
		{"RunsAJob", func(_ *store.Request, q *store.Runner, _ *store.Request) { q.Job.StartedAt = now }, false},
		{"Drains", func(_ *store.Request, q *store.Runner, _ *store.Request) { q.State = store.RunnerDraining }, false},
		{"GivenAwayMeanwhile", func(_ *store.Request, q *store.Runner, _ *store.Request) { q.For = "r3" }, false},
		{"EndsTooSoon", func(_ *store.Request, q *store.Runner, _ *store.Request) { q.Hard = now.Add(time.Minute) }, false},
		{"OfAnOwnLabel", func(b *store.Request, _ *store.Runner, _ *store.Request) { b.Job = store.WorkflowJob{} }, false},
		{"WaitsAlready", func(b *store.Request, _ *store.Runner, _ *store.Request) { b.State = store.Waiting }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, was := plain("r1", "21"), plain("r2", "22")
			q := runnerOf(t, online, was)
			c.edit(&b, &q, &was)
			d, ok := store.GiveSpare(store.Case{Request: b, Runner: q}, now, lim, was)
			if ok != c.want || ok == (len(d.Changes) == 0) {
				t.Fatalf("GiveSpare = %v with %s, want %v", ok, told(d.Changes), c.want)
			}
			if !ok {
				return
			}
			if got := told(d.Changes); got != "put request, put runner" || d.Runner.For != "r1" || d.Request.Runner != "x1" || d.Request.State != store.Waiting || d.Request.LockKey() != b.LockKey() {
				t.Errorf("%s: the runner for %q, the request %s on %q by %s", got, d.Runner.For, d.Request.State, d.Request.Runner, d.Request.LockKey())
			}
			if refs := d.Runner.Around(store.KindRequest, store.KindLock); refs[0].ID != "r1" || refs[1].ID != "r2/1" {
				t.Errorf("around it are %v, want the request that it was given to, and its own lock", refs)
			}
		})
	}
}

func TestPuzzlingRunnersHaveGitHubAsked(t *testing.T) {
	for _, c := range []struct {
		name  string
		stage func(*testing.T, string) stage
		now   time.Time
		edit  func(*store.Runner, *store.Request)
		want  string // what is sent
	}{
		{"OnlineForAMoment", online, at(70*time.Second + 2*time.Minute - 1), nil, ""},
		{"OnlineAndIdleForLong", online, at(70*time.Second + 2*time.Minute), nil, "request r1 due 3m10s"},
		{"BusyForAMoment", busy, at(3*time.Minute - 1), nil, ""},
		{"BusyAndNobodySaysWithWhat", busy, at(3 * time.Minute), nil, "request r1 due 3m0s"},
		{"BusyAndNobodyWaits", busy, at(3 * time.Minute), unwait, "request r1 due 3m0s"},
		{"BusyWithWhatItTook", busy, at(3 * time.Minute), func(r *store.Runner, _ *store.Request) { r.Took.Job = "21" }, ""},
		{"Booting", booting, at(3 * time.Minute), nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := plain("r1", "21")
			s := c.stage(t, store.Ephemeral)
			run := runnerOf(t, c.stage, q)
			s.lock.Key = run.Lock
			q = waits(q, run)
			if c.edit != nil {
				c.edit(&run, &q)
			}
			pulse := store.Pulse{Key: run.Lock, Runner: run.ID, Seen: c.now}
			d := store.Case{Request: q, Runner: run, Lock: s.lock, Pulse: pulse}.ReviewRunner(c.now, lim, "")
			if got, want := outcomeOf(d), (outcome{sends: c.want}); got != want {
				t.Errorf("the decision is %+v,\nwant %+v", got, want)
			}
		})
	}
}

// Whatever else is lost, GitHub is asked now and then about a job that waits.
func TestAWaitingJobIsLookedAt(t *testing.T) {
	q := plain("r1", "21")
	run := runnerOf(t, booting, q)
	q = waits(q, run)
	var looks []string
	for m := range 12 {
		d, out := store.Case{Request: q, Runner: run}.ReviewRequest(at(time.Duration(m)*time.Minute), lim)
		if out != store.WaitsOn {
			t.Fatalf("minute %d: %q, want it to wait on", m, out)
		}
		if q = d.Request; d.Sends != nil {
			looks = append(looks, outcomeOf(d).sends)
		}
	}
	if want := []string{"request r1 due 5m0s", "request r1 due 10m0s"}; !slices.Equal(looks, want) {
		t.Errorf("looks %q, want %q", looks, want)
	}
}

func TestHintOfSpareRunners(t *testing.T) {
	s := store.Spares{Pool: "p"}
	for id := range strings.SplitSeq("a b c d e f g h i j k l m n o p q r b", " ") {
		s.With(t0, lim, id)
	}
	if got := strings.Join(s.Runners, ""); got != "defghijklmnopqrb" {
		t.Errorf("the hint is %q, want the sixteen newest, each once", got)
	}
	if d := s.Without(t0, lim, []string{"q", "z"}); strings.Contains(strings.Join(s.Runners, ""), "q") || told(d.Changes) != "put spare" || s.TTL == 0 {
		t.Errorf("the hint is %q with %s, want it without q, to be put and forgotten some day", s.Runners, told(d.Changes))
	}
}

func TestPoolsPartWhatCannotStandIn(t *testing.T) {
	r := plain("r1", "21")
	for name, edit := range map[string]func(*store.Request){
		"account": func(r *store.Request) { r.Account = "1" }, "region": func(r *store.Request) { r.Region = "x" }, "market": func(r *store.Request) { r.Type = "x" },
		"spec": func(r *store.Request) { r.Spec = "x" }, "repository": func(r *store.Request) { r.Repository.ID = "x" },
		"scope": func(r *store.Request) { r.Scope = store.Scope{Kind: store.OrganizationScope, ID: "42"} },
	} {
		o := r
		edit(&o)
		if o.Pool() == r.Pool() {
			t.Errorf("another %s has the same pool", name)
		}
	}
	o := r
	o.ID, o.Labels, o.Job.ID = "r2", []string{"other"}, "22"
	if o.Pool() != r.Pool() {
		t.Error("another job has another pool")
	}
}
