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
	plant("NeedsAreForgotten", "a request that says what it needs gets what the account has by default",
		edit("worker/types.go", `	if !ok {
		return nil, nil
	}
	offer, err`, `	if !ok || a.ID != "" {
		return nil, nil
	}
	offer, err`)),
	plant("GPUForEverybody", "a request without a GPU gets a machine that has one",
		edit("store/requirements.go", `gpu = Range{0, -1}`, `gpu = Range{}`),
		edit("store/requirements.go", `px, py := price(x.Name), price(y.Name)`, `px, py := -price(x.Name)+MicroUSD(1+x.GPUs), -price(y.Name)+MicroUSD(1+y.GPUs)
		px, py = 9-px, 9-py`)),
	plant("AnyArchitecture", "a request for arm64 gets any machine",
		edit("store/requirements.go", `slices.Contains(t.Arch, arch) && `, `(arch == ARM64 || slices.Contains(t.Arch, arch)) && `)),
	plant("SpecWithoutTheNeeds", "requests for different machines share a runner",
		edit("store/key.go", `	b, err := json.Marshal(m)`, `	m.CPU, m.Arch, m.GPU = 0, "", 0
	b, err := json.Marshal(m)`)),
}
