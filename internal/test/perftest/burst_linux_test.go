package perftest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim"
)

// TestBurstGolden measures in the simulation what many starts at once take, and those
// who ask for something else meanwhile.
func TestBurstGolden(t *testing.T) {
	text, err := os.ReadFile("../../../terraform/http.tf")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("| starts at once | the last one is ready after | messages for each | 5 s later: a share | a next config | another account's start |\n|---|---|---|---|---|---|\n")
	row := func(what, last, messages string, h sim.Hurried) {
		fmt.Fprintf(&b, "| %s | %s | %s | %.1f s | %.1f s | %d s |\n", what, last, messages, h.Share.Seconds(), h.Next.Seconds(), int(h.Neighbour.Round(time.Second).Seconds()))
	}
	for i, n := range []int{100, 256, 1000} {
		sim.Run(t, sim.Crowded(text), func(w *sim.World) {
			out := w.Burst(n)
			if i == 0 {
				row("none", "", "", out.Quiet)
			}
			row(fmt.Sprint(n), out.Last.Round(time.Second).String(), fmt.Sprintf("%.1f", float64(out.Messages)/float64(n)), out.Behind)
			// One for the start, one for its turn, one when GitHub is to confirm its runner.
			if out.Messages > 3*n {
				t.Errorf("%d messages for %d starts, want at most three each", out.Messages, n)
			}
		})
	}
	golden(t, "burst", b.String())
}
