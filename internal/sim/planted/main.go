// Command planted shows what the simulation can see. It plants small bugs in the
// code of production, one at a time and in copies that only the compiler reads,
// and tells how many random seeds of internal/sim it takes to catch each. What
// seeds do not catch it gives to the directed tests and to the exhaustive mode,
// and tells that apart. It runs in the root of the repository:
//
//	go run ./internal/sim/planted -seeds 2000
//
// Each bug has one line in its table; the last line sums them up:
//
//	planted 80, caught 75 (93 %), median seeds 12
//
// The exit status is 0 only if random seeds caught as many as they have to.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// config is what the flags say.
type config struct {
	seeds  int
	starts int
	jobs   int
	least  int
	bugs   *regexp.Regexp
	others string
	kinds  *regexp.Regexp
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var c config
	var pattern, kind string
	flags := flag.NewFlagSet("planted", flag.ContinueOnError)
	flags.IntVar(&c.seeds, "seeds", 2000, "how many seeds may be spent on a bug, from each start; 0: ask the other tests alone")
	flags.IntVar(&c.starts, "starts", 3, "from how many starts, to know the median")
	flags.IntVar(&c.jobs, "jobs", 2, "how many bugs are looked for at once")
	flags.IntVar(&c.least, "least", 90, "how many of a hundred bugs random seeds have to catch")
	flags.StringVar(&pattern, "bugs", ".", "a regular expression: the bugs to plant, by name")
	flags.StringVar(&c.others, "others", "missed", "which bugs to give to other kinds of test too: none, missed (by seeds) or all")
	flags.StringVar(&kind, "kinds", ".", "a regular expression: which of these two, directed and exhaustive")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if c.bugs, err = regexp.Compile(pattern); err != nil {
		return err
	}
	if c.kinds, err = regexp.Compile(kind); err != nil {
		return err
	}
	chosen := slices.DeleteFunc(all(), func(b Bug) bool { return !c.bugs.MatchString(b.Name) })
	switch {
	case len(chosen) == 0 || c.seeds < 0 || c.starts < 1 || c.jobs < 1:
		return errors.New("nothing to do: want bugs, seeds, starts and jobs")
	case !slices.Contains([]string{"none", "missed", "all"}, c.others):
		return fmt.Errorf("-others %q: want none, missed or all", c.others)
	}
	dir, err := os.MkdirTemp("", "planted")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	fmt.Println("| bug | what is wrong with it | where | caught by seeds | median | caught by others |")
	fmt.Println("|---|---|---|---|---|---|")
	var mu sync.Mutex // guards caught, failed and the table
	var medians []int
	var failed []error
	var wg sync.WaitGroup
	next := make(chan Bug)
	for range c.jobs {
		wg.Go(func() {
			for b := range next {
				o, err := c.look(ctx, b, dir)
				mu.Lock()
				if err != nil {
					failed = append(failed, err)
				} else {
					fmt.Println(o.row(b))
				}
				if o.median > 0 {
					medians = append(medians, o.median)
				}
				mu.Unlock()
			}
		})
	}
	for _, b := range chosen {
		if ctx.Err() != nil {
			break
		}
		next <- b
	}
	close(next)
	wg.Wait()
	fmt.Println(sum(len(chosen), medians))
	if err := errors.Join(failed...); err != nil {
		return err
	}
	if c.seeds > 0 && 100*len(medians) < c.least*len(chosen) {
		return fmt.Errorf("random seeds have to catch %d of a hundred bugs", c.least)
	}
	return nil
}

// sum is the last line: of so many bugs, those that were caught after so many seeds.
func sum(planted int, medians []int) string {
	return fmt.Sprintf("planted %d, caught %d (%d %%), median seeds %d", planted, len(medians), 100*len(medians)/max(1, planted), median(medians))
}

// median returns the middle of the numbers, the greater of two; 0 of none.
func median(n []int) int {
	if len(n) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(n))[len(n)/2]
}

// outcome is what a search for a bug found.
type outcome struct {
	counts []int    // seeds that it took, from each start that caught it
	median int      // of all starts; 0: most did not catch it
	what   string   // the first violation
	others []string // which other kinds of test caught it
	asked  bool     // the other kinds were asked
}

func (o outcome) row(b Bug) string {
	by, others := "no", "-"
	if o.median > 0 {
		by = fmt.Sprint(o.counts) + " " + o.what
	}
	if o.asked {
		if others = strings.Join(o.others, ", "); others == "" {
			others = "none"
		}
	}
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	return fmt.Sprintf("| %s | %s | %s | %s | %d | %s |", b.Name, cell(b.Breaks), b.Where(), cell(by), o.median, others)
}

// kinds are the tests that are asked about what seeds do not catch.
var kinds = []struct {
	name  string
	flags []string
}{
	{"directed", []string{"-test.skip=^(TestSeeds|TestKeptSeeds|TestExhaustive)"}},
	{"exhaustive", []string{"-test.run=^TestExhaustive"}},
}

// look builds the simulation with the bug, and looks for it.
func (c config) look(ctx context.Context, b Bug, dir string) (o outcome, err error) {
	overlay, err := b.Overlay(".", dir)
	if err != nil {
		return o, err
	}
	binary := filepath.Join(dir, b.Name+".test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-ldflags=-s -w", "-overlay", overlay, "-o", binary, "./internal/sim")
	if out, err := build.CombinedOutput(); err != nil {
		return o, fmt.Errorf("build %s: %w\n%s", b.Name, err, out)
	}
	defer os.Remove(binary)
	missed := 0
	for i := 0; c.seeds > 0 && i < c.starts && 2*missed <= c.starts; i++ {
		start := 1 + i*1_000_000
		failed, out := test(ctx, binary, "-test.run=^TestSeeds$", "-shrink=false", "-seeds", strconv.Itoa(c.seeds), "-start", strconv.Itoa(start))
		if err := ctx.Err(); err != nil {
			return o, err
		}
		if !failed {
			missed++
			continue
		}
		n, what, err := violation(out, start)
		if err != nil {
			return o, fmt.Errorf("%s from %d: %w", b.Name, start, err)
		}
		o.counts = append(o.counts, n)
		if o.what == "" {
			o.what = what
		}
	}
	if len(o.counts) > 0 && 2*missed < c.starts {
		o.median = median(o.counts)
	}
	if o.asked = c.others == "all" || c.others == "missed" && o.median == 0; !o.asked {
		return o, nil
	}
	for _, k := range kinds {
		if !c.kinds.MatchString(k.name) {
			continue
		}
		if failed, _ := test(ctx, binary, k.flags...); failed {
			o.others = append(o.others, k.name)
		}
	}
	return o, ctx.Err()
}

// patience is how long one run may take: a bug can make the simulation hang,
// which counts as caught.
const patience = 20 * time.Minute

// test runs the simulation's tests, and reports whether they failed.
func test(ctx context.Context, binary string, flags ...string) (failed bool, out string) {
	cmd := exec.CommandContext(ctx, binary, append(flags, "-test.timeout="+patience.String(), "-test.failfast")...)
	cmd.Dir = filepath.Join("internal", "sim")
	b, err := cmd.CombinedOutput()
	return err != nil, string(b)
}

var violationLine = regexp.MustCompile(`violation: seed (\d+): (.*)`)

// violation reads from the output of failed seeds how many it took, counted from
// start, and what did not hold. What kills the process names no seed.
func violation(out string, start int) (seeds int, what string, err error) {
	m := violationLine.FindStringSubmatch(out)
	if m == nil {
		return 0, "", fmt.Errorf("the seeds failed and name none:\n%s", out[max(0, len(out)-4000):])
	}
	seed, err := strconv.Atoi(m[1])
	if err != nil || seed < start {
		return 0, "", fmt.Errorf("%q is no seed from %d on", m[1], start)
	}
	return seed - start + 1, m[2], nil
}
