package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// review prints how the story ended and checks the promises.
func (d *Demo) review(ctx context.Context) error {
	ev, err := d.gather(ctx)
	if err != nil {
		return fmt.Errorf("gather the evidence: %w", err)
	}
	ev.timeline(d)
	if err := ev.table(d); err != nil {
		return err
	}
	fmt.Fprintln(d.out)
	broken := 0
	for _, p := range ev.promises() {
		if len(p.faults) == 0 {
			fmt.Fprintln(d.out, folded("  held    "+p.promise+": "+p.found, 10))
			continue
		}
		broken++
		fmt.Fprintf(d.out, "  BROKEN  %s\n", p.promise)
		for _, f := range p.faults {
			fmt.Fprintf(d.out, "          %s\n", f)
		}
	}
	if broken > 0 {
		return fmt.Errorf("%d promises were broken; the log is %s", broken, d.log.Name())
	}
	fmt.Fprintf(d.out, "\nEverything held, in %.0f seconds.\n\n"+
		"What next: make run starts all of this to play with, and prints the address of a page that shows it.\n"+
		"README.md has the calls, docs/jobs.md jobs that just name a label, docs/deploy.md the way to AWS.\n", time.Since(d.began).Seconds())
	return nil
}

// timeline draws each machine's life.
func (ev evidence) timeline(d *Demo) {
	const width = 60
	took := ev.endedAt.Sub(d.began)
	at := func(t time.Time) int {
		if t.IsZero() {
			return width
		}
		return min(width, max(0, int(t.Sub(d.began)*width/took)))
	}
	fmt.Fprintf(d.out, "\nMachines over %.0f seconds   . booting   = online   # job   - draining and ending\n", took.Seconds())
	for _, r := range ev.runners {
		bar := []byte(strings.Repeat(" ", width))
		fill := func(from, to time.Time, c byte) {
			for i := at(from); i < min(width, max(at(to), at(from)+1)); i++ {
				bar[i] = c
			}
		}
		fill(r.CreatedAt, sooner(r.OnlineAt, r.DrainingAt), '.')
		if !r.OnlineAt.IsZero() {
			fill(r.OnlineAt, r.DrainingAt, '=')
		}
		if !r.DrainingAt.IsZero() {
			fill(r.DrainingAt, r.EndedAt, '-')
		}
		var started time.Time
		for _, e := range r.History {
			switch {
			case e.State == string(store.RunnerBusy) && started.IsZero():
				started = e.At
			case e.State != string(store.RunnerBusy) && !started.IsZero():
				fill(started, e.At, '#')
				started = time.Time{}
			}
		}
		fmt.Fprintf(d.out, "  %s |%s| %s\n", short(r.ID), bar, endCode(r))
	}
}

// sooner returns the first of two times, of which the first may not be set.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}

func endCode(r store.Runner) string {
	if r.End == nil {
		return "-"
	}
	return r.End.Code
}

// table prints a line for each machine, with the requests that it was for, and how long
// after the first one's POST it had booted and was online.
func (ev evidence) table(d *Demo) error {
	fmt.Fprintln(d.out)
	tw := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "RUNNER\tREQUESTS\tPLACEMENTS TRIED\tBOOTED\tONLINE\tJOBS\tENDED BY")
	for _, r := range ev.runners {
		var names []string
		for _, s := range ev.scenes {
			req := ev.requests[s.id]
			if r.Request != req.ID && r.ID != req.Runner {
				continue
			}
			if req.State != store.Ready {
				s.name += " (" + string(req.State) + ")"
			}
			names = append(names, s.name)
		}
		step := func(t time.Time) string {
			if t.IsZero() {
				return "-"
			}
			return fmt.Sprintf("%.1fs", t.Sub(ev.requests[r.Request].CreatedAt).Seconds())
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", short(r.ID), strings.Join(names, ", "), tried(r),
			step(r.Boot.At), step(r.OnlineAt), r.Jobs, endCode(r))
	}
	return tw.Flush()
}

// tried tells the placements of a runner in the order of its launches, each
// instance type once.
func tried(r store.Runner) string {
	var out []string
	for _, a := range r.Attempts {
		what := a.InstanceType
		if a.Code == "InsufficientInstanceCapacity" {
			what += " full"
		}
		if !slices.Contains(out, what) {
			out = append(out, what)
		}
	}
	return r.Placement().Market + ": " + strings.Join(out, ", ")
}
