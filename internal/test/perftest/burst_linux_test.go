package perftest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
)

// burst is a row of the table: so many starts at once, in an account whose EC2 launches so
// many a second.
type burst struct{ starts, perSecond int }

// floor is what the slower of EC2 and GitHub, which registers 165 a minute, needs until all
// are ready: a machine takes 28 s from its launch, and one that runs a second from its
// registration.
func (b burst) floor() time.Duration {
	n := time.Duration(b.starts)
	return max(n*time.Second/time.Duration(b.perSecond)+28*time.Second, n*time.Minute/165+time.Second)
}

// TestBurstGolden measures in the simulation what many starts at once take, and those who ask
// for something else meanwhile, with what EC2 and GitHub allow. With -update it goes up to a
// thousand, and writes the table of docs/performance.md. That takes minutes with the race
// detector, so that without it a hundred are measured, and held to bounds.
func TestBurstGolden(t *testing.T) {
	text, err := os.ReadFile("../../../terraform/http.tf")
	if err != nil {
		t.Fatal(err)
	}
	bursts := []burst{{100, 2}, {100, 5}}
	if *update {
		bursts = []burst{{100, 2}, {256, 2}, {1000, 2}, {256, 5}, {1000, 5}}
	}
	var b strings.Builder
	b.WriteString("| starts at once | EC2 launches a second | the last one is ready after | machines for nothing | messages for each | 5 s later: a share | a next config | another account's start |\n|---|---|---|---|---|---|---|---|\n")
	row := func(what, last string, h sim.Hurried) {
		fmt.Fprintf(&b, "| %s | %s | %.1f s | %.1f s | %d s |\n", what, last, h.Share.Seconds(), h.Next.Seconds(), int(h.Neighbour.Round(time.Second).Seconds()))
	}
	for i, c := range bursts {
		sim.Run(t, sim.Crowded(text, c.perSecond), func(w *sim.World) {
			out := w.Burst(c.starts)
			if i == 0 {
				row("none | ", " | | ", out.Quiet)
			}
			row(fmt.Sprintf("%d | %d", c.starts, c.perSecond), fmt.Sprintf("%s | %d | %.1f", out.Last.Round(time.Second), out.Wasted, float64(out.Messages)/float64(c.starts)), out.Behind)
			// One for the start, one for its turn, one when GitHub is to confirm its runner;
			// where EC2 is faster than GitHub, one more for its registration. A few come again.
			most := c.starts * 31 / 10
			if c.perSecond > 2 {
				most = c.starts * 41 / 10
			}
			if out.Messages > most {
				t.Errorf("%d messages for %+v, want at most %d", out.Messages, c, most)
			}
			if most := c.floor() * 11 / 10; out.Last > most {
				t.Errorf("the last of %+v was ready after %s, want %s at most", c, out.Last, most)
			}
			if out.Wasted*100 > out.Launched {
				t.Errorf("%d of %d machines of %+v never had a config, want one of a hundred at most", out.Wasted, out.Launched, c)
			}
		})
	}
	t.Log("\n" + b.String())
	if *update {
		golden(t, "burst", b.String())
	}
}
