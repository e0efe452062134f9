package demo

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

type entry struct {
	at   time.Time
	text string
}

func sorted(entries []entry, began time.Time) []string {
	slices.SortStableFunc(entries, func(a, b entry) int { return a.at.Compare(b.at) })
	lines := make([]string, len(entries))
	for i, e := range entries {
		lines[i] = fmt.Sprintf("%6.1fs    %s", e.at.Sub(began).Seconds(), e.text)
	}
	return lines
}

// evidence is everything that was recorded, seen from all sides.
type evidence struct {
	*Demo
	requests map[string]store.Request
	runners  []store.Runner // in the order of their making
	machines []simfleet.Fact
	quota    store.Quota
}

// review prints what came of the story and checks the promises.
func (d *Demo) review(ctx context.Context) error {
	ev := evidence{Demo: d, requests: map[string]store.Request{}, machines: d.system.Fleet.Instances()}
	for i, err := range d.system.Store.List(ctx, store.Filter{}) {
		if err != nil {
			return err
		}
		r := i.(*store.Request)
		ev.requests[r.ID] = *r
	}
	for i, err := range d.system.Store.List(ctx, store.Filter{Kind: store.KindRunner}) {
		if err != nil {
			return err
		}
		ev.runners = append(ev.runners, *i.(*store.Runner))
	}
	slices.Reverse(ev.runners)
	var err error
	if ev.quota, err = store.Read[store.Quota](ctx, d.system.Store, local.BuiltIn); err != nil {
		return err
	}
	ev.timeline()
	if err := ev.table(); err != nil {
		return err
	}
	return ev.promises()
}

// timeline draws each machine's life.
func (ev evidence) timeline() {
	const width = 60
	end := time.Since(ev.began)
	at := func(t time.Time) int {
		if t.IsZero() {
			return width
		}
		return min(width, max(0, int(t.Sub(ev.began)*width/end)))
	}
	fmt.Fprintf(ev.out, "\nMachines over %.0f seconds   . booting   = online   # job   - draining and ending\n", end.Seconds())
	for _, r := range ev.runners {
		bar := []byte(strings.Repeat(" ", width))
		fill := func(from, to time.Time, c byte) {
			for i := at(from); i < min(width, max(at(to), at(from)+1)); i++ {
				bar[i] = c
			}
		}
		fill(r.CreatedAt, later(r.OnlineAt, r.DrainingAt), '.')
		if !r.OnlineAt.IsZero() {
			fill(r.OnlineAt, r.DrainingAt, '=')
		}
		fill(r.DrainingAt, r.EndedAt, '-')
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
		fmt.Fprintf(ev.out, "  %s |%s| %s\n", short(r.ID), bar, r.End.Code)
	}
}

// later returns the first of two times that is set.
func later(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}

// table prints a line for each request and each runner that it had.
func (ev evidence) table() error {
	fmt.Fprintln(ev.out)
	tw := tabwriter.NewWriter(ev.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "REQUEST\tSTATE\tRUNNER\tINSTANCE\tPLACEMENTS TRIED\tLAUNCHED\tBOOTED\tONLINE\tJOBS\tENDED BY")
	for _, s := range ev.all() {
		req := ev.requests[s.id]
		first := true
		for _, r := range ev.runners {
			if r.Request != req.ID && r.ID != req.Runner {
				continue
			}
			name, state := s.name, string(req.State)
			if !first {
				name, state = "", ""
			}
			first = false
			step := func(t time.Time) string {
				if t.IsZero() {
					return "-"
				}
				return fmt.Sprintf("%.2fs", t.Sub(r.CreatedAt).Seconds())
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", name, state, short(r.ID), r.InstanceID, tried(r),
				step(r.LaunchedAt), step(r.Boot.At), step(r.OnlineAt), r.Jobs, r.End.Code)
		}
		if first {
			fmt.Fprintf(tw, "%s\t%s%s\n", s.name, req.State, strings.Repeat("\t-", 8))
		}
	}
	return tw.Flush()
}

// tried tells the placements of a runner in the order of its launches, each
// instance type once.
func tried(r store.Runner) string {
	var out []string
	for _, a := range r.Attempts {
		what := a.Market + " " + a.InstanceType
		if a.Code == "InsufficientInstanceCapacity" {
			what += " (no capacity)"
		}
		if len(out) == 0 || out[len(out)-1] != what {
			out = append(out, what)
		}
	}
	return strings.Join(out, ", ")
}

// promises checks, and prints each with its evidence.
func (ev evidence) promises() error {
	fmt.Fprintln(ev.out)
	broken := 0
	check := func(promise string, found string, faults []string) {
		if len(faults) == 0 {
			fmt.Fprintf(ev.out, "  held    %s: %s\n", promise, found)
			return
		}
		broken++
		fmt.Fprintf(ev.out, "  BROKEN  %s\n", promise)
		for _, f := range faults {
			fmt.Fprintf(ev.out, "          %s\n", f)
		}
	}
	check("One request, at most one usable machine", fmt.Sprintf("%d requests, %d machines, %d with credentials, never two of one request at a time",
		len(ev.requests), len(ev.machines), ev.credentialed()), ev.twoMachines())
	check("Find or launch", "the second run shared the first one's runner, and two jobs ran on it; the repeated key found its record", ev.findOrLaunch())
	check("Nothing outlives its time", "every machine is terminated, GitHub has no registration left, the quota is back at 0", ev.leftOver())
	check("No secret in a record, a message or the log", "searched all of the data directory's records and the log for every config, key and token", ev.secrets())
	check("You can see why", "each request tells its steps, and each machine why it ended", ev.unexplained())
	if broken > 0 {
		return fmt.Errorf("%d promises were broken; the log is %s", broken, ev.log.Name())
	}
	fmt.Fprintf(ev.out, "\nEverything held, in %.0f seconds.\n", time.Since(ev.began).Seconds())
	return nil
}

func (ev evidence) credentialed() (n int) {
	for _, m := range ev.machines {
		if !m.CredentialedAt.IsZero() {
			n++
		}
	}
	return n
}

// twoMachines lists requests whose machines held credentials at the same time,
// and runners with more than one such machine ever.
func (ev evidence) twoMachines() (faults []string) {
	byRunner := map[string]int{}
	for i, a := range ev.machines {
		if a.CredentialedAt.IsZero() {
			continue
		}
		if byRunner[a.Tags[fleet.TagRunner]]++; byRunner[a.Tags[fleet.TagRunner]] > 1 {
			faults = append(faults, fmt.Sprintf("runner %s had more than one machine with credentials", a.Tags[fleet.TagRunner]))
		}
		for _, b := range ev.machines[i+1:] {
			if b.CredentialedAt.IsZero() || a.Tags[fleet.TagRequest] != b.Tags[fleet.TagRequest] {
				continue
			}
			if b.CredentialedAt.Before(a.EndedAt) && a.CredentialedAt.Before(b.EndedAt) {
				faults = append(faults, fmt.Sprintf("request %s had %s and %s at once", a.Tags[fleet.TagRequest], a.ID, b.ID))
			}
		}
	}
	for _, s := range ev.all() {
		if got := ev.requests[s.id].State; got != s.want {
			faults = append(faults, fmt.Sprintf("request %s is %s, want %s", s.name, got, s.want))
		}
	}
	return faults
}

func (ev evidence) scene(name string) store.Request {
	for _, s := range ev.all() {
		if s.name == name {
			return ev.requests[s.id]
		}
	}
	return store.Request{}
}

func (ev evidence) findOrLaunch() (faults []string) {
	a, b := ev.scene("test1"), ev.scene("test1b")
	if a.Runner == "" || a.Runner != b.Runner {
		faults = append(faults, fmt.Sprintf("test1 has runner %q and test1b %q", a.Runner, b.Runner))
	}
	for _, r := range ev.runners {
		if r.ID == a.Runner && r.Jobs != 2 {
			faults = append(faults, fmt.Sprintf("runner %s ran %d jobs, want 2", r.ID, r.Jobs))
		}
	}
	if len(ev.requests) != len(ev.all()) {
		faults = append(faults, fmt.Sprintf("%d requests are recorded, want %d", len(ev.requests), len(ev.all())))
	}
	return faults
}

func (ev evidence) leftOver() (faults []string) {
	for _, m := range ev.machines {
		hard := m.LaunchedAt.Add(ev.limits.Hard + ev.limits.ReaperPeriod)
		if m.EndedAt.IsZero() || m.EndedAt.After(hard) {
			faults = append(faults, fmt.Sprintf("machine %s is %s", m.ID, m.State))
		}
	}
	for _, r := range ev.system.GitHub.Registrations() {
		faults = append(faults, "GitHub still has "+r.Name)
	}
	if ev.quota.Live != 0 {
		faults = append(faults, fmt.Sprintf("the quota counts %d machines", ev.quota.Live))
	}
	return faults
}

// secrets searches everything that people may read for what they must not see.
func (ev evidence) secrets() (faults []string) {
	canaries := map[string]string{"the operator's token": ev.system.Token.Reveal()}
	for _, r := range ev.system.GitHub.Minted() {
		canaries["the config of "+r.Name] = r.Config.Reveal()
	}
	places := map[string][]byte{}
	log, err := os.ReadFile(ev.log.Name())
	if err != nil {
		return []string{err.Error()}
	}
	places["the log"] = log
	for _, r := range ev.requests {
		places[r.Ref().String()], err = store.Encode(&r)
		if err != nil {
			return []string{err.Error()}
		}
	}
	for _, r := range ev.runners {
		places[r.Ref().String()], err = store.Encode(&r)
		if err != nil {
			return []string{err.Error()}
		}
	}
	for place, text := range places {
		for what, canary := range canaries {
			if canary != "" && strings.Contains(string(text), canary) {
				faults = append(faults, fmt.Sprintf("%s holds %s", place, what))
			}
		}
	}
	slices.Sort(faults)
	return faults
}

func (ev evidence) unexplained() (faults []string) {
	for _, r := range ev.requests {
		if len(r.History) < 2 || r.State != store.Ready && r.Error == nil {
			faults = append(faults, fmt.Sprintf("request %s does not say why it is %s", r.ID, r.State))
		}
	}
	for _, r := range ev.runners {
		if r.End == nil || r.End.Text == "" {
			faults = append(faults, fmt.Sprintf("runner %s does not say why it ended", r.ID))
		}
	}
	return faults
}
