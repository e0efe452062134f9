package store_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/storetest"
)

func TestParseRef(t *testing.T) {
	for _, c := range []struct {
		in   string
		want store.Ref
		ok   bool
	}{
		{"request#abc", store.Ref{Kind: store.KindRequest, ID: "abc"}, true},
		{"runner#abc", store.Ref{Kind: store.KindRunner, ID: "abc"}, true},
		{"lock#1/eu-west-2/42/spot/default/a,b", store.Ref{Kind: store.KindLock, ID: "1/eu-west-2/42/spot/default/a,b"}, true},
		{"pulse#k", store.Ref{Kind: store.KindPulse, ID: "k"}, true},
		{"quota#1", store.Ref{Kind: store.KindQuota, ID: "1"}, true},
		{"sweep#1/eu-west-2", store.Ref{Kind: store.KindSweep, ID: "1/eu-west-2"}, true},
		{"overflow#1/29743000", store.Ref{Kind: store.KindOverflow, ID: "1/29743000"}, true},
		{"reaperrun#0", store.Ref{Kind: store.KindReaperRun, ID: "0"}, true},
		{"check#last", store.Ref{Kind: store.KindCheck, ID: store.LastCheck}, true},
		{"request#a#b", store.Ref{Kind: store.KindRequest, ID: "a#b"}, true},
		{"request#", store.Ref{}, false},
		{"request", store.Ref{}, false},
		{"#abc", store.Ref{}, false},
		{"machine#abc", store.Ref{}, false},
		{"Request#abc", store.Ref{}, false},
		{"", store.Ref{}, false},
	} {
		got, err := store.ParseRef(c.in)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("ParseRef(%q) = %+v, %v; want %+v, ok %v", c.in, got, err, c.want, c.ok)
		}
		if c.ok {
			if item, err := store.New(got); err != nil || item.Ref() != got || got.String() != c.in {
				t.Errorf("New(%v) = %v, %v; want an item of that name", got, item, err)
			}
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, seed := range []string{"request#a", "lock#a/b#c", "#", "sweep#", "quota#\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := store.ParseRef(s)
		if err != nil {
			return
		}
		if ref.String() != s || ref.ID == "" {
			t.Errorf("ParseRef(%q).String() = %q, want the same", s, ref.String())
		}
		item, err := store.New(ref)
		if err != nil || item.Ref() != ref || item.Base().Version != 0 {
			t.Errorf("New(%v) = %v, %v; want an absent item of that name", ref, item, err)
		}
	})
}

func TestDecodeRefusesWhatIsNotTheItem(t *testing.T) {
	r := accepted("r1", store.Shared)
	b, err := store.Encode(&r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := store.Decode(r.Ref(), b)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "request", got, &r)
	for _, c := range []struct {
		name string
		ref  store.Ref
		b    string
	}{
		{"another id", store.Ref{Kind: store.KindRequest, ID: "r2"}, string(b)},
		{"an unknown kind", store.Ref{Kind: "machine", ID: "r1"}, string(b)},
		{"no JSON", r.Ref(), "{"},
		{"another type", r.Ref(), `{"id":7}`},
	} {
		if got, err := store.Decode(c.ref, []byte(c.b)); err == nil {
			t.Errorf("Decode of %s = %v, want an error", c.name, got)
		}
	}
}

func TestHistoryKeepsTheFirstTenAndTheLastForty(t *testing.T) {
	r := accepted("r1", store.Shared)
	want := slices.Clone(r.History)
	for n := 1; n <= 120; n++ {
		wait := store.WaitQuota
		if n%2 == 0 {
			wait = store.WaitPaced
		}
		before := slices.Clone(r.History)
		next := store.Case{Request: r}.Hold(at(time.Duration(n)*time.Second), store.Wait{For: wait, Until: t0}).Request
		same(t, "the history before", r.History, before)
		r = next
		want = append(want, store.Entry{At: at(time.Duration(n) * time.Second), State: "accepted", Reason: wait})
		kept := want
		if len(want) > 50 {
			kept = slices.Concat(want[:10], want[len(want)-40:])
		}
		same(t, "history", r.History, kept)
	}
}

func TestHistoriesOfOneOriginDoNotShareMemory(t *testing.T) {
	r := accepted("r1", store.Shared)
	r.History = append(make(store.History, 0, 100), r.History...)
	quota := store.Case{Request: r}.Hold(at(1), store.Wait{For: store.WaitQuota, Until: t0})
	paced := store.Case{Request: r}.Hold(at(2), store.Wait{For: store.WaitPaced, Until: t0})
	if last(quota.Request.History).Reason != store.WaitQuota || last(paced.Request.History).Reason != store.WaitPaced {
		t.Errorf("two histories overwrote each other: %v, %v", quota.Request.History, paced.Request.History)
	}
}

func TestCursorsSortAsTimesDo(t *testing.T) {
	times := []time.Time{t0, at(1), at(500 * time.Millisecond), at(time.Second), at(time.Hour)}
	var cursors []string
	for _, when := range times {
		cursors = append(cursors, store.Cursor(&store.Request{ID: "r", CreatedAt: when.In(time.FixedZone("east", 3600))}))
	}
	if !slices.IsSorted(cursors) || len(slices.Compact(slices.Clone(cursors))) != len(cursors) {
		t.Errorf("cursors of %v = %v, want them sorted, no two alike", times, cursors)
	}
	a, b := store.Cursor(&store.Runner{ID: "a", CreatedAt: t0}), store.Cursor(&store.Runner{ID: "b", CreatedAt: t0})
	if a >= b {
		t.Errorf("cursors of one time = %s, %s; want them in the order of the ids", a, b)
	}
	if got := store.Cursor(&store.Lock{Key: "k"}); got != "" {
		t.Errorf("Cursor of a lock = %q, want none", got)
	}
}

func TestSessionSignsEachCommitDifferently(t *testing.T) {
	m := storetest.NewMemory()
	now := t0.In(time.FixedZone("east", 3600))
	s := store.NewWriter(m, "worker-1", func() time.Time { return now })
	r, l := accepted("r1", store.Shared), store.Lock{Meta: store.Meta{Writer: "somebody", UpdatedAt: at(-time.Hour)}, Key: "k"}
	r.Version = 0
	for n, want := range []string{"worker-1/1", "worker-1/2"} {
		if err := s.Commit(t.Context(), store.Put(&r), store.Check(&l)); err != nil {
			t.Fatal(err)
		}
		got, err := store.Read[store.Request](t.Context(), s, "r1")
		if err != nil || got.Writer != want || !got.UpdatedAt.Equal(t0) || got.UpdatedAt.Location() != time.UTC || got.Version != int64(n+1) {
			t.Errorf("commit %d is signed %q at %v, %v; want %q at %v", n, got.Writer, got.UpdatedAt, err, want, t0)
		}
	}
	if l.Writer != "somebody" || !l.UpdatedAt.Equal(at(-time.Hour)) {
		t.Errorf("a checked item was signed: %q, %v", l.Writer, l.UpdatedAt)
	}
	var wg = make(chan error)
	for n := range 20 {
		go func() { wg <- s.Commit(t.Context(), store.Put(&store.Lock{Key: string(rune('a' + n))})) }()
	}
	writers := map[string]bool{}
	for range 20 {
		if err := <-wg; err != nil {
			t.Error(err)
		}
	}
	for n := range 20 {
		got, err := store.Read[store.Lock](t.Context(), s, string(rune('a'+n)))
		if err != nil || writers[got.Writer] {
			t.Errorf("writer %q is used twice, %v", got.Writer, err)
		}
		writers[got.Writer] = true
	}
}

func TestReadOfAnAbsentItemNamesIt(t *testing.T) {
	m := storetest.NewMemory()
	got, err := store.Read[store.Runner](t.Context(), m, "x1")
	if err != nil || got.ID != "x1" || got.Version != 0 {
		t.Errorf("Read = %+v, %v; want an absent runner x1", got, err)
	}
	broken := storetest.NewFaulty(m, func(string, int) storetest.Fate { return storetest.FailBefore })
	if _, err := store.Read[store.Runner](t.Context(), broken, "x1"); !errors.Is(err, storetest.ErrFault) {
		t.Errorf("Read from a store that fails = %v, want its error", err)
	}
}

func TestConflictErrorNamesWhatWasLost(t *testing.T) {
	var err error = &store.ConflictError{Current: []store.Item{&store.Lock{Key: "k"}, &store.Quota{Account: "1"}}}
	if !errors.Is(err, store.ErrConflict) || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v is not an ErrConflict alone", err)
	}
	if got := err.Error(); !strings.Contains(got, "lock#k") || !strings.Contains(got, "quota#1") {
		t.Errorf("Error() = %q, want both keys in it", got)
	}
}

func TestTextsForLogs(t *testing.T) {
	a := store.Attempt{Placement: store.Placement{Market: "spot", InstanceType: "c7i.large", Subnet: "subnet-a"}, Code: "launched"}
	if got, want := a.String(), "spot c7i.large in subnet-a: launched"; got != want {
		t.Errorf("Attempt = %q, want %q", got, want)
	}
	if got, want := (store.Failure{Code: "c", Text: "t"}).String(), "c: t"; got != want {
		t.Errorf("Failure = %q, want %q", got, want)
	}
}

func TestCodesAreListedOnce(t *testing.T) {
	if len(slices.Compact(slices.Sorted(slices.Values(store.Alarms)))) != len(store.Alarms) || slices.Contains(store.Alarms, "") {
		t.Errorf("Alarms = %v, want each code once", store.Alarms)
	}
	if len(slices.Compact(slices.Sorted(slices.Values(store.Waits)))) != len(store.Waits) || slices.Contains(store.Waits, "") {
		t.Errorf("Waits = %v, want each code once", store.Waits)
	}
}
