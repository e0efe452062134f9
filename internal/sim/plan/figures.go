package plan

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/promise"
)

// Figures sums up what became of many worlds. The zero value has none.
type Figures struct {
	Seeds, Effects, Broken int
	Virtual                time.Duration
	Faults                 map[Kind]int
	Worlds                 map[Kind]int // in how many worlds a kind came
	Looked                 map[promise.Promise]int
	Online                 []time.Duration
	Recovered              []time.Duration
	Quiet                  []time.Duration
	Orphan, Duplicate      time.Duration
}

// Add adds one world.
func (f *Figures) Add(o Outcome) {
	if f.Faults == nil {
		f.Faults, f.Worlds, f.Looked = map[Kind]int{}, map[Kind]int{}, map[promise.Promise]int{}
	}
	f.Seeds++
	f.Effects += o.Effects
	f.Virtual += o.Virtual
	if len(o.Broken) > 0 {
		f.Broken++
	}
	for k, n := range o.Faults {
		f.Faults[k] += n
		f.Worlds[k]++
	}
	for p, n := range o.Looked {
		f.Looked[p] += n
	}
	f.Online = append(f.Online, o.Online...)
	f.Recovered = append(f.Recovered, o.Recovered...)
	f.Quiet = append(f.Quiet, o.Quiet)
	f.Orphan, f.Duplicate = max(f.Orphan, o.Orphan), max(f.Duplicate, o.Duplicate)
}

// Total is how many faults there were.
func (f *Figures) Total() (n int) {
	for _, k := range f.Faults {
		n += k
	}
	return n
}

// Print writes all figures; took is how long it took in reality.
func (f *Figures) Print(to io.Writer, took time.Duration) {
	fmt.Fprintf(to, "%d seeds in %s: %.1f a second\n", f.Seeds, took.Round(time.Second), float64(f.Seeds)/took.Seconds())
	fmt.Fprintf(to, "%.0f hours of virtual time, %d effects\n\n", f.Virtual.Hours(), f.Effects)
	fmt.Fprintf(to, "%-38s %10s %10s\n", "fault", "times", "in worlds")
	for _, k := range slices.SortedFunc(maps.Keys(f.Faults), func(a, b Kind) int {
		return cmp.Or(f.Faults[b]-f.Faults[a], cmp.Compare(a, b))
	}) {
		fmt.Fprintf(to, "%-38s %10d %10d\n", k, f.Faults[k], f.Worlds[k])
	}
	fmt.Fprintf(to, "\n%-70s %10s\n", "promise", "looked at")
	for _, p := range slices.Sorted(maps.Keys(f.Looked)) {
		fmt.Fprintf(to, "%-70s %10d\n", p, f.Looked[p])
	}
	fmt.Fprintf(to, "\n%-44s %9s %9s %9s\n", "virtual time", "p50", "p99", "longest")
	for _, row := range []struct {
		what string
		all  []time.Duration
	}{
		{"from accepted to online", f.Online},
		{"from a crash to the record's next commit", f.Recovered},
		{"from the end of all trouble to nothing left", f.Quiet},
	} {
		slices.Sort(row.all)
		fmt.Fprintf(to, "%-44s %9s %9s %9s\n", row.what, at(row.all, 50), at(row.all, 99), at(row.all, 100))
	}
	fmt.Fprintf(to, "%-44s %9s %9s %9s\n", "age of a machine that no record counts on", "", "", f.Orphan.Round(time.Second/10))
	fmt.Fprintf(to, "%-44s %9s %9s %9s\n\n", "time with two machines of one runner", "", "", f.Duplicate.Round(time.Second/10))
}

// at returns the percentile of what is sorted.
func at(all []time.Duration, percent int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	return all[(len(all)-1)*percent/100].Round(time.Second / 10)
}
