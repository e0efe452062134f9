package store_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// granted is a lease, and when it was leased.
type granted struct {
	store.Lease
	at time.Time
}

// leaseAll has many ask for leases as often as they may, for so long, and returns what they
// got. gap is the time between two that ask.
func leaseAll(p *store.Points, from time.Time, long time.Duration, gap func() time.Duration) (all []granted) {
	for now := from; now.Before(from.Add(long)); now = now.Add(gap()) {
		d, l := p.Lease(now, lim, store.LeaseWish{Scope: "7", Waited: true, Launches: len(all)%2 == 0, Runs: len(all)%3 == 0})
		if d.Wait.For == "" {
			all = append(all, granted{l, now})
		}
		*p = *d.Changes[0].Item.(*store.Points)
	}
	return all
}

// TestRegistrationsOfAnyMinuteStayBelowGitHubs has leases used as early or as late as is
// worst for a minute, wherever it begins: 180 registrations are what GitHub allows.
func TestRegistrationsOfAnyMinuteStayBelowGitHubs(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	p := &store.Points{Credential: "c"}
	var all []granted
	for round := range 5 { // with pauses between them, in which points gather
		from := at(time.Duration(round) * 10 * time.Minute)
		all = append(all, leaseAll(p, from, 4*time.Minute, func() time.Duration { return time.Duration(dice.IntN(500)) * time.Millisecond })...)
	}
	type span struct{ first, last time.Time } // when it may be used
	var spans []span
	const step = 50 * time.Millisecond
	for _, g := range all {
		first, last := g.at, g.At
		for g.Soon(first) {
			first = first.Add(step)
		}
		for g.Usable(last.Add(step)) {
			last = last.Add(step)
		}
		spans = append(spans, span{first, last})
	}
	most := 0
	for _, begin := range spans {
		n := 0
		for _, s := range spans {
			if !s.last.Before(begin.last) && s.first.Before(begin.last.Add(time.Minute)) {
				n++
			}
		}
		most = max(most, n)
	}
	if most > 180 || most < 165 {
		t.Errorf("%d registrations in the worst minute, want most of the 180 that GitHub allows, and no more", most)
	}
	if n := len(all); n < 5*4*162 {
		t.Errorf("%d leases in 20 minutes of asking, want some 162 a minute", n)
	}
}

func TestLeaseIsAtMostAMinuteAhead(t *testing.T) {
	p := store.Points{Credential: "c"}
	for n := range 1000 {
		d, l := p.Lease(t0, lim, store.LeaseWish{Scope: fmt.Sprint(n % 300)})
		if d.Wait.For == "" && l.At.After(t0.Add(lim.LeaseAhead)) {
			t.Fatalf("lease %d is %s ahead, want %s at most", n, l.At.Sub(t0), lim.LeaseAhead)
		}
		p = *d.Changes[0].Item.(*store.Points)
	}
}

// TestSingleStartIsNotBehindAThousand has one scope lease all that it may: others still get
// five each, a newcomer does not go before those who wait, and one who has waited does.
func TestSingleStartIsNotBehindAThousand(t *testing.T) {
	p := store.Points{Credential: "c"}
	ask := func(w store.LeaseWish) (store.Wait, store.Lease) {
		d, l := p.Lease(t0, lim, w)
		p = *d.Changes[0].Item.(*store.Points)
		return d.Wait, l
	}
	big := 0
	var told []time.Time
	for range 1000 {
		if wait, _ := ask(store.LeaseWish{Scope: "big"}); wait.For == "" {
			big++
		} else {
			told = append(told, wait.Until)
		}
	}
	if big < 120 || big > 125 {
		t.Errorf("a big scope leased %d at once, want three quarters of a minute's 162", big)
	}
	if !slices.IsSortedFunc(told, time.Time.Compare) || len(slices.Compact(slices.Clone(told))) != len(told) {
		t.Errorf("those who were refused got %v, want one time after another", told)
	}
	if first, last := told[0].Sub(t0), told[len(told)-1].Sub(t0); first > time.Second || last < 5*time.Minute || last > 6*time.Minute {
		t.Errorf("they may come in %s to %s, want from now on, at the pace of registrations", first, last)
	}
	for n := range 5 {
		if wait, l := ask(store.LeaseWish{Scope: "small"}); wait.For != "" || l.At.Sub(t0) > lim.LeaseAhead {
			t.Errorf("lease %d of a small scope: waits %+v, %s ahead", n, wait, l.At.Sub(t0))
		}
	}
	if wait, _ := ask(store.LeaseWish{Scope: "small"}); wait.For != store.WaitGitHub {
		t.Errorf("the sixth lease of a small scope: %+v, want it to wait", wait)
	}
	if wait, l := ask(store.LeaseWish{Scope: "big", Waited: true}); wait.For != "" || l.At.Sub(t0) > lim.LeaseAhead {
		t.Errorf("one who has waited: %+v, %s ahead; want a lease", wait, l.At.Sub(t0))
	}
}

func TestNothingIsLeasedWhileGitHubAsksToBeLeftAlone(t *testing.T) {
	until := at(10 * time.Minute)
	d := store.Points{Credential: "c"}.Rest(t0, lim, until)
	p := *d.Changes[0].Item.(*store.Points)
	if again := p.Rest(t0, lim, at(time.Minute)); len(again.Changes) != 0 {
		t.Errorf("a shorter rest is written: %v", told(again.Changes))
	}
	d, _ = p.Lease(t0, lim, store.LeaseWish{Scope: "7"})
	if d.Wait.For != store.WaitGitHub || !d.Wait.Until.Equal(until.Add(-lim.LeaseAhead)) {
		t.Errorf("wait %+v, want until a minute before GitHub may be asked again", d.Wait)
	}
	d, l := p.Lease(at(9*time.Minute), lim, store.LeaseWish{Scope: "7"})
	if d.Wait.For != "" || !l.At.Equal(until) {
		t.Errorf("wait %+v, lease for %v; want it for %v", d.Wait, l.At, until)
	}
}

func TestLeaseIsUsableAboutItsTime(t *testing.T) {
	l := store.Lease{Credential: "c", At: at(30 * time.Second)}
	for now, want := range map[time.Duration][2]bool{ // soon, usable
		0: {true, false}, 28 * time.Second: {true, false}, 29 * time.Second: {false, true}, 30 * time.Second: {false, true},
		33 * time.Second: {false, true}, 33*time.Second + 1: {false, false},
	} {
		if got := [2]bool{l.Soon(at(now)), l.Usable(at(now))}; got != want {
			t.Errorf("at %s: soon and usable are %v, want %v", now, got, want)
		}
	}
	if l := (store.Lease{}); l.Soon(t0) || l.Usable(t0) {
		t.Error("no lease is usable")
	}
}

// TestMachineThatRunsHasALeaseInABurst has launches take all leases of a minute: a few next
// configs need not wait for them, and who was launched does.
func TestMachineThatRunsHasALeaseInABurst(t *testing.T) {
	p := store.Points{Credential: "c"}
	ask := func(now time.Time, w store.LeaseWish) store.Lease {
		d, l := p.Lease(now, lim, w)
		p = *d.Changes[0].Item.(*store.Points)
		return l
	}
	for range 200 {
		ask(t0, store.LeaseWish{Scope: "big", Waited: true, Launches: true})
	}
	runs := store.LeaseWish{Scope: "big", Waited: true, Runs: true}
	for n := range 3 {
		if l := ask(t0, runs); !l.At.Equal(t0) {
			t.Errorf("the config of machine %d is leased for %s later, want for now", n, l.At.Sub(t0))
		}
	}
	if l := ask(t0, runs); l.At.Equal(t0) {
		t.Error("a fourth at once is leased for now, want it behind the launches")
	}
	if l := ask(t0, store.LeaseWish{Scope: "big", Waited: true}); l.At.Equal(t0) {
		t.Error("a machine that was launched has a lease of the reserve")
	}
	if l := ask(at(20*time.Second), runs); !l.At.Equal(at(20 * time.Second)) {
		t.Errorf("20 s later one is leased for %s later, want for then", l.At.Sub(at(20*time.Second)))
	}
	if l := ask(at(21*time.Second), runs); l.At.Equal(at(21 * time.Second)) {
		t.Error("a second one 20 s later is leased for then, want one each 19 s")
	}
	p.RestsUntil = at(5 * time.Minute)
	if l := ask(at(4*time.Minute+30*time.Second), runs); l.At.Before(p.RestsUntil) {
		t.Error("a config is leased while GitHub asks to be left alone")
	}
}

// TestPointsOfBothVersions is about a deploy during a burst: the version before knew neither
// the reserve nor how many were leased, and drops both when it writes.
func TestPointsOfBothVersions(t *testing.T) {
	const before = `{"credential":"c","next_lease":"2026-03-01T12:00:30Z","told_until":"2026-03-01T12:00:01Z","rests_until":"2026-03-01T11:00:00Z","small":{"7":"2026-03-01T12:00:12Z"}}`
	var old store.Points
	if err := json.Unmarshal([]byte(before), &old); err != nil {
		t.Fatal(err)
	}
	d, l := old.Lease(t0, lim, store.LeaseWish{Scope: "7", Waited: true})
	if !l.At.Equal(at(30 * time.Second)) {
		t.Errorf("a lease of the points of the version before is for %s later, want behind its own", l.At.Sub(t0))
	}
	if _, l := old.Lease(t0, lim, store.LeaseWish{Scope: "7", Waited: true, Runs: true}); !l.At.Equal(t0) {
		t.Errorf("a lease for a machine that runs is for %s later, want the reserve full", l.At.Sub(t0))
	}
	written, err := json.Marshal(d.Changes[0].Item)
	if err != nil {
		t.Fatal(err)
	}
	var was, is map[string]any
	if err := errors.Join(json.Unmarshal([]byte(before), &was), json.Unmarshal(written, &is)); err != nil {
		t.Fatal(err)
	}
	for name, v := range was {
		if reflect.TypeOf(is[name]) != reflect.TypeOf(v) {
			t.Errorf("%s is %v, which the version before reads as %T", name, is[name], v)
		}
	}
}

func TestScopesWithoutLeasesAreForgotten(t *testing.T) {
	p := store.Points{Credential: "c"}
	for n := range 500 {
		d, _ := p.Lease(at(time.Duration(n)*time.Second), lim, store.LeaseWish{Scope: fmt.Sprint(n)})
		p = *d.Changes[0].Item.(*store.Points)
	}
	if n := len(p.Small); n > 12 {
		t.Errorf("%d scopes are remembered, want those of the last twelfth of a minute", n)
	}
	if p.TTL != at(499*time.Second).Add(lim.Keep).Unix() {
		t.Errorf("TTL = %d, want it kept as long as records", p.TTL)
	}
}

// TestBeginRefusesARegistrationThatIsFarAhead is about the machine that would wait for it.
func TestBeginRefusesARegistrationThatIsFarAhead(t *testing.T) {
	s := lined(store.Ephemeral, 0, -time.Hour, 0)
	s.quota.Lines = nil
	in := store.Intent{Runner: "r", MaxRunners: 10, Lease: store.Lease{Credential: "c", At: at(lim.LeaseAhead + time.Second)}, Plan: []store.Placement{{}}, Launch: store.Launch{HardS: 3600}}
	s.decides(t, s.c().Begin(t0, lim, in), outcome{wait: store.Wait{For: store.WaitGitHub, Until: at(time.Second)}})
	in.Lease.At = at(lim.LeaseAhead)
	if d := s.c().Begin(t0, lim, in); d.Wait.For != "" || d.Runner.Lease != in.Lease {
		t.Errorf("wait %+v, lease %+v; want the intent, with its lease", d.Wait, d.Runner.Lease)
	}
}

// TestTurnsKeepThePaceOfRegistrations has an account whose EC2 launches ten a second: all
// that are a minute's registrations ahead of GitHub wait in the line, in order.
func TestTurnsKeepThePaceOfRegistrations(t *testing.T) {
	s := lined(store.Ephemeral, 0, -time.Hour, 0)
	s.quota.Lines = nil
	p := store.Account{Pacing: store.Pacing{Burst: 10, IntervalMS: 100}}.Pace(lim)
	var turns []time.Time
	for range 1000 {
		turn, q := s.quota.Turn(t0, s.req, p)
		s.quota = q
		turns = append(turns, turn.At)
	}
	if !slices.IsSortedFunc(turns, func(a, b time.Time) int { return cmp.Compare(a.Unix(), b.Unix()) }) {
		t.Error("turns are out of order")
	}
	if last := turns[99].Sub(t0); last > 11*time.Second {
		t.Errorf("the first hundred are launched in %s, want them at EC2's pace", last)
	}
	registered := 1000 * time.Minute / 162
	if last := turns[999].Sub(t0); last < registered-lim.LeaseAhead || last > registered {
		t.Errorf("the last is launched after %s, and registered after %s; want that at most a minute ahead", last, registered)
	}
}
