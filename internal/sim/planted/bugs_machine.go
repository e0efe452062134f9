package main

// machineBugs break what is said of a machine, and how one is chosen.
var machineBugs = []Bug{
	plant("ConsoleIsLeftOut", "nobody reads what a machine printed that did not boot",
		edit("store/console.go", `	if code == EndNoBoot {`, `	if code == EndNoBoot && console == "" {`)),
	plant("ConsoleOfAnotherMachine", "the error of each machine of a run has the console of the last one",
		edit("reaper/console.go", `out[run.ID] = said[i]`, `_, out[run.ID] = i, said[len(said)-1]`)),
	plant("ConsoleHoldsTheEndUp", "a machine whose console cannot be read is not ended",
		edit("reaper/boot.go", `*run = q.usable(ctx, c, consoles[run.ID])`, `if !strings.Contains(consoles[run.ID], "could not be read") {
					*run = q.usable(ctx, c, consoles[run.ID])
				}`),
		edit("reaper/boot.go", `import (
	"context"
`, `import (
	"context"
	"strings"
`)),
}
