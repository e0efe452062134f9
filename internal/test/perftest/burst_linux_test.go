package perftest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
)

// burst is a row of the table: so many starts at once, in an account with one credential or
// two, whose EC2 launches so many a second, which are given up after giveUp.
type burst struct {
	starts, credentials, perSecond int
	giveUp                         time.Duration
}

// GitHub registers 165 a minute with one credential, and with two 1,500 in five minutes, since
// they are for one repository. A machine takes 28 s from its launch until it is ready, and
// one that runs a second from its registration.
const (
	registers = time.Minute / 165
	together  = 5 * time.Minute / 1500
	boots     = 28 * time.Second
	listens   = time.Second
)

// registers is the time between two registrations.
func (b burst) registers() time.Duration {
	if b.credentials > 1 {
		return together
	}
	return registers
}

// floor is what the slower of EC2 and GitHub needs until all are ready.
func (b burst) floor() time.Duration {
	n := time.Duration(b.starts)
	return max(n*time.Second/time.Duration(b.perSecond)+boots, n*b.registers()+listens)
}

// most is how many of them can be ready before they are given up.
func (b burst) most() int {
	launched := (b.giveUp - boots) * time.Duration(b.perSecond) / time.Second
	return min(b.starts, int(launched), int((b.giveUp-listens)/b.registers()))
}

// spends reports whether they need more calls than the 5,000 that GitHub grants a credential in an hour:
// one each to register, to confirm and to end, since no job comes here. Then the last ones
// are confirmed by the reaper's list, or too late.
func (b burst) spends() bool { return b.starts*3 > 5000*b.credentials }

// letIn is how long it takes until the API has taken the last of them: http.tf lets in fifty
// a second.
func (b burst) letIn() time.Duration { return time.Duration(b.starts) * time.Second / 50 }

// messages is how many of them there may be: one for the start, one for its turn, one when
// GitHub is to confirm its runner; and where EC2 is faster than GitHub, one more for its
// registration. A few come again, and more where the hour's calls are spent.
func (b burst) messages() int {
	switch {
	case b.perSecond > 2: // a thousand took 4.1 to 4.4, by the seed, and more with two credentials: their leases are two items
		return b.starts * 45 / 10
	case b.spends():
		return b.starts * 35 / 10
	}
	return b.starts * 31 / 10
}

// TestBurstGolden measures in the simulation what many starts at once take, and those who ask
// for something else meanwhile, with what EC2 and GitHub allow. With -update it goes up to two
// thousand, and writes the table of docs/performance.md. That takes minutes with the race
// detector, so that without it a hundred are measured, and held to bounds.
func TestBurstGolden(t *testing.T) {
	text, err := os.ReadFile("../../../terraform/http.tf")
	if err != nil {
		t.Fatal(err)
	}
	const usual, long = 15 * time.Minute, 30 * time.Minute
	bursts := []burst{{100, 1, 2, usual}, {100, 1, 5, usual}, {100, 2, 8, usual}}
	if *update {
		bursts = []burst{
			{100, 1, 2, usual}, {256, 1, 2, usual}, {1000, 1, 2, usual}, {2000, 1, 2, usual}, {2000, 1, 2, long}, {2000, 2, 2, long},
			{256, 1, 5, usual}, {1000, 1, 5, usual}, {1000, 2, 8, usual},
		}
	}
	var b strings.Builder
	b.WriteString("| starts at once | credentials | EC2 launches a second | give_up | ready | the last one after | machines for nothing | messages for each | 5 s later: a share | a next config | another account's start |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	row := func(what string, h sim.Hurried) {
		fmt.Fprintf(&b, "| %s | %.1f s | %.1f s | %d s |\n", what, h.Share.Seconds(), h.Next.Seconds(), int(h.Neighbour.Round(time.Second).Seconds()))
	}
	for i, c := range bursts {
		world := sim.Crowded(text, c.perSecond)
		world.Two = c.credentials == 2
		sim.Run(t, world, func(w *sim.World) {
			out := w.Burst(c.starts, c.giveUp)
			if i == 0 {
				row("none | | | | | | |", out.Quiet)
			}
			row(fmt.Sprintf("%d | %d | %d | %d min | %d | %s | %d | %.1f", c.starts, c.credentials, c.perSecond, int(c.giveUp.Minutes()), out.Ready, out.Last.Round(time.Second), out.Wasted, float64(out.Messages)/float64(c.starts)), out.Behind)
			if out.Messages > c.messages() {
				t.Errorf("%d messages for %+v, want at most %d", out.Messages, c, c.messages())
			}
			if least := c.most() * 95 / 100; out.Ready < least || !c.spends() && out.Ready < c.starts {
				t.Errorf("%d of %+v were ready, want 95 of a hundred of the %d that can be, and all if GitHub's hour is enough", out.Ready, c, c.most())
			}
			if out.Untold > 0 {
				t.Errorf("after a minute %d of %+v have no expected time", out.Untold, c)
			}
			most := c.floor() * 11 / 10
			if c.starts*3 > 5000 { // what is beyond a worker's part of an hour, the reaper confirms within a minute
				most += time.Minute
			}
			if c.spends() {
				most = c.letIn() + c.giveUp
			}
			if out.Last > most {
				t.Errorf("the last of %+v was ready after %s, want %s at most", c, out.Last, most)
			}
			if out.Wasted*100 > out.Launched {
				t.Errorf("%d of %d machines of %+v never had a config, want one of a hundred at most", out.Wasted, out.Launched, c)
			}
			if slow := out.Behind.Next > 2*out.Quiet.Next || out.Behind.Share > 2*out.Quiet.Share || out.Behind.Neighbour > 2*out.Quiet.Neighbour; slow {
				t.Errorf("behind %+v others took %+v, and %+v when it is quiet; want twice that at most", c, out.Behind, out.Quiet)
			}
		})
	}
	t.Log("\n" + b.String())
	if *update {
		golden(t, "burst", b.String())
	}
}
