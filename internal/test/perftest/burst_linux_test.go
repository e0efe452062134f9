package perftest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
)

// TestBurstGolden measures in the simulation what many starts at once take, and those who ask
// for something else meanwhile. With -update it goes up to a thousand, and writes the
// table of docs/performance.md. That takes minutes with the race detector, so that
// without it a hundred are measured, and held to bounds.
func TestBurstGolden(t *testing.T) {
	text, err := os.ReadFile("../../../terraform/http.tf")
	if err != nil {
		t.Fatal(err)
	}
	bursts := []int{100}
	if *update {
		bursts = []int{100, 256, 1000}
	}
	var b strings.Builder
	b.WriteString("| starts at once | the last one is ready after | messages for each | 5 s later: a share | a next config | another account's start |\n|---|---|---|---|---|---|\n")
	row := func(what, last, messages string, h sim.Hurried) {
		fmt.Fprintf(&b, "| %s | %s | %s | %.1f s | %.1f s | %d s |\n", what, last, messages, h.Share.Seconds(), h.Next.Seconds(), int(h.Neighbour.Round(time.Second).Seconds()))
	}
	for i, n := range bursts {
		sim.Run(t, sim.Crowded(text), func(w *sim.World) {
			out := w.Burst(n)
			if i == 0 {
				row("none", "", "", out.Quiet)
			}
			row(fmt.Sprint(n), out.Last.Round(time.Second).String(), fmt.Sprintf("%.1f", float64(out.Messages)/float64(n)), out.Behind)
			// One for the start, one for its turn, one when GitHub is to confirm its runner;
			// and room for a tenth that comes again.
			if most := n * 33 / 10; out.Messages > most {
				t.Errorf("%d messages for %d starts, want at most %d", out.Messages, n, most)
			}
			// The bucket has five, and two more come each second; a machine takes 28 s.
			if most := time.Duration(n)*time.Second/2*11/10 + 30*time.Second; out.Last > most {
				t.Errorf("the last of %d starts was ready after %s, want %s at most", n, out.Last, most)
			}
		})
	}
	t.Log("\n" + b.String())
	if *update {
		golden(t, "burst", b.String())
	}
}
