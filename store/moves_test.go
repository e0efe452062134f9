package store_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var updateStates = flag.Bool("update", false, "write the pictures of states in docs/architecture.md again")

// The moves of each item. The property test holds every commit against them, and the
// pictures in docs/architecture.md are drawn from them.
var (
	requestMoves = map[store.RequestState][]store.RequestState{
		store.Accepted: {store.Waiting, store.Ready, store.Failed, store.Expired, store.Cancelled},
		store.Waiting:  {store.Accepted, store.Ready, store.Failed, store.Expired, store.Cancelled},
	}
	runnerMoves = map[store.RunnerState][]store.RunnerState{
		store.RunnerNew:      {store.RunnerLaunched, store.RunnerFailed, store.RunnerDraining, store.RunnerEnded},
		store.RunnerLaunched: {store.RunnerBooting, store.RunnerDraining, store.RunnerEnded},
		store.RunnerBooting:  {store.RunnerOnline, store.RunnerBusy, store.RunnerDraining, store.RunnerEnded},
		store.RunnerOnline:   {store.RunnerBusy, store.RunnerDraining, store.RunnerEnded},
		store.RunnerBusy:     {store.RunnerOnline, store.RunnerDraining, store.RunnerEnded},
		store.RunnerDraining: {store.RunnerEnding, store.RunnerEnded},
		store.RunnerEnding:   {store.RunnerEnded},
	}
	lockMoves = map[store.LockState][]store.LockState{
		store.LockEmpty:     {store.LockLaunching},
		store.LockLaunching: {store.LockLive, store.LockDraining, store.LockEmpty},
		store.LockLive:      {store.LockDraining, store.LockEmpty},
		store.LockDraining:  {store.LockLaunching, store.LockEmpty},
	}
)

// picture draws moves for Mermaid, which GitHub renders: from each state in their order.
func picture[S ~string](first S, states []S, moves map[S][]S) string {
	var b strings.Builder
	fmt.Fprintf(&b, "```mermaid\nstateDiagram-v2\n    [*] --> %s\n", first)
	for _, from := range states {
		for _, to := range moves[from] {
			fmt.Fprintf(&b, "    %s --> %s\n", from, to)
		}
		if len(moves[from]) == 0 {
			fmt.Fprintf(&b, "    %s --> [*]\n", from)
		}
	}
	return b.String() + "```\n"
}

func TestGoldenPicturesOfStates(t *testing.T) {
	const document = "../docs/architecture.md"
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- states: written by make golden -->\n", "<!-- end of states -->\n"
	before, rest, found := strings.Cut(string(text), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s: no %q and %q", document, begin, end)
	}
	want := before + begin +
		"\nA request:\n\n" + picture(store.Accepted, store.RequestStates, requestMoves) +
		"\nA runner:\n\n" + picture(store.RunnerNew, store.RunnerStates, runnerMoves) +
		"\nA lock:\n\n" + picture(store.LockEmpty, []store.LockState{store.LockEmpty, store.LockLaunching, store.LockLive, store.LockDraining}, lockMoves) +
		"\n" + end + after
	if *updateStates {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("the pictures in %s are not those of the tables: run make golden", document)
	}
}
