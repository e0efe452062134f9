package local_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/diskmap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/sqlitestore"
)

// records is all that a data directory's store has.
type records struct {
	requests map[string]store.Request
	runners  map[string]store.Runner
	locks    map[string]store.Lock // of the runners
	quota    store.Quota
}

func read(t testing.TB, path string) records {
	t.Helper()
	s, err := sqlitestore.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out := records{requests: map[string]store.Request{}, runners: map[string]store.Runner{}, locks: map[string]store.Lock{}}
	for _, kind := range []store.Kind{store.KindRequest, store.KindRunner} {
		for i, err := range s.List(t.Context(), store.Filter{Kind: kind}) {
			if err != nil {
				t.Fatal(err)
			}
			switch i := i.(type) {
			case *store.Request:
				out.requests[i.ID] = *i
			case *store.Runner:
				out.runners[i.ID] = *i
			}
		}
	}
	for _, r := range out.runners {
		if out.locks[r.Lock], err = store.Read[store.Lock](t.Context(), s, r.Lock); err != nil {
			t.Fatal(err)
		}
	}
	if out.quota, err = store.Read[store.Quota](t.Context(), s, local.BuiltIn); err != nil {
		t.Fatal(err)
	}
	return out
}

// open lists the requests and runners that are not over.
func (all records) open() (out []string) {
	for _, q := range all.requests {
		if !q.State.Final() {
			out = append(out, fmt.Sprintf("request %s: %s, due at %s: %+v", q.ID, q.State, q.DueAt, q.History))
		}
	}
	for _, r := range all.runners {
		if !r.State.Final() {
			out = append(out, fmt.Sprintf("runner %s: %s, due at %s: %+v", r.ID, r.State, r.DueAt, r.History))
		}
	}
	return out
}

// examine holds what is in the files of a system that is at rest against what it
// promised.
func examine(t *testing.T, dir string, l *load) records {
	t.Helper()
	all := read(t, filepath.Join(dir, local.StoreFile))
	states, ends, errs := map[store.RequestState]int{}, map[string]int{}, map[string]int{}
	for id := range l.accepted {
		if q := all.requests[id]; q.ID == "" {
			t.Errorf("request %s was accepted, and there is no record of it", id)
		}
	}
	for _, q := range all.requests {
		states[q.State]++
		if !q.State.Final() || q.State != store.Ready && (q.Error == nil || q.Error.Code == "" || q.Error.Text == "") {
			t.Errorf("request %s is %s with error %+v, want it ready, or over with a reason", q.ID, q.State, q.Error)
		}
		if q.Error != nil {
			errs[q.Error.Code]++
		}
		if q.State == store.Ready {
			if r := all.runners[q.Runner]; r.OnlineAt.IsZero() {
				t.Errorf("request %s is ready, and its runner %q was never online", q.ID, q.Runner)
			}
		}
		if was, ok := l.stopped[q.ID]; ok && was != string(q.State) {
			t.Errorf("request %s is %s, and its stop answered %s", q.ID, q.State, was)
		}
	}
	live := 0
	for _, r := range all.runners {
		if r.End == nil || r.End.Text == "" {
			t.Errorf("runner %s is %s, and does not say why", r.ID, r.State)
		} else {
			ends[r.End.Code]++
		}
		if !r.State.Final() {
			live++
		}
	}
	if all.quota.Live != live || live != 0 {
		t.Errorf("the quota counts %d runners, and %d are live; want none", all.quota.Live, live)
	}
	machines := examineMachines(t, dir, all)
	examineLocks(t, all)
	examineLog(t, dir+".log")
	t.Logf("%d requests: %v, errors %v; %d runners: %v; %d machines", len(all.requests), states, errs, len(all.runners), ends, machines)
	return all
}

// examineMachines looks at what the simulated EC2 knows.
func examineMachines(t *testing.T, dir string, all records) int {
	t.Helper()
	disk, err := diskmap.Open(filepath.Join(dir, local.WorldFile))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	world, err := simfleet.OpenWorld(simfleet.WorldConfig{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	machines := world.Instances()
	armed := map[string][]simfleet.Fact{}
	byRunner := map[string]string{}
	for _, m := range machines {
		id := m.Tags[fleet.TagRunner]
		r := all.runners[id]
		if r.ID == "" || r.InstanceID != m.ID {
			t.Errorf("machine %s is of runner %q, whose record names %q", m.ID, id, r.InstanceID)
		}
		if was := byRunner[id]; was != "" {
			t.Errorf("runner %s had machines %s and %s", id, was, m.ID)
		}
		byRunner[id] = m.ID
		if m.EndedAt.IsZero() {
			t.Errorf("machine %s of runner %s (%s) is %s, want it over", m.ID, id, r.State, m.State)
		}
		if m.CredentialedAt.IsZero() {
			continue
		}
		request := m.Tags[fleet.TagRequest]
		for _, other := range armed[request] {
			if m.CredentialedAt.Before(all.powerless(other)) && other.CredentialedAt.Before(all.powerless(m)) {
				t.Errorf("request %s had %s and %s with credentials at once", request, other.ID, m.ID)
			}
		}
		armed[request] = append(armed[request], m)
	}
	for _, r := range all.runners {
		if r.InstanceID != "" && byRunner[r.ID] != r.InstanceID {
			t.Errorf("runner %s names machine %s, which there is not", r.ID, r.InstanceID)
		}
	}
	return len(machines)
}

// powerless returns when a machine with credentials was of no use any more: when it shut
// down, or when GitHub had forgotten its registration.
func (all records) powerless(m simfleet.Fact) time.Time {
	at, gone := m.EndsAt, all.runners[m.Tags[fleet.TagRunner]].DeregisteredAt
	if !gone.IsZero() && gone.Before(at) {
		return gone
	}
	return at
}

// examineLocks checks that no two runners of one key could be shared at once, and
// that no key is left with one.
func examineLocks(t *testing.T, all records) {
	t.Helper()
	byLock := map[string][]store.Runner{}
	over := func(r store.Runner) time.Time {
		if r.DrainingAt.IsZero() {
			return r.EndedAt // it never came to an instance
		}
		return r.DrainingAt
	}
	for _, r := range all.runners {
		for _, other := range byLock[r.Lock] {
			if r.CreatedAt.Before(over(other)) && other.CreatedAt.Before(over(r)) {
				t.Errorf("runners %s and %s of key %s could be shared at once", r.ID, other.ID, r.Lock)
			}
		}
		byLock[r.Lock] = append(byLock[r.Lock], r)
	}
	for key, l := range all.locks {
		if l.State != store.LockEmpty {
			t.Errorf("lock %s is %s, and names runner %q; want it empty", key, l.State, l.Runner)
		}
	}
}

// examineLog looks for alarms: nothing that was done here is a reason for one but
// busy_runner. A kill cuts jobs, which GitHub calls busy for ten minutes more. The
// pauses between two DELETEs grow to eight minutes and the alarm comes after 15, so
// that an end whose DELETEs are late by kills too is reported.
func examineLog(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	seen := map[string]int{}
	for lines.Scan() {
		for word := range strings.FieldsSeq(lines.Text()) {
			if word != "alarm="+string(store.AlarmBusy) && strings.HasPrefix(word, "alarm=") || strings.HasPrefix(word, "panic") {
				if seen[word]++; seen[word] == 1 {
					t.Errorf("the log has %s", fmt.Sprintf("%.1000s", lines.Text()))
				}
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}
