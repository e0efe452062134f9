package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// printStatus prints a request for people; with its story, everything.
func printStatus(w io.Writer, s apitype.Status, story bool) error {
	p := paintFor(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("request", "%s", s.ID)
	row("state", "%s", p.state(s.State)+because(s))
	row("for", "%s, %s %s in %s %s", s.Repository, s.Mode, s.Type, s.Account, s.Region)
	if len(s.Labels) > 0 {
		row("labels", "%s", strings.Join(s.Labels, ", "))
	}
	row("runs-on", "%s", strings.Join(s.RunsOn, ", "))
	row("asked", "%s by %s", date(s.CreatedAt), s.Caller)
	if !s.ReadyAt.IsZero() {
		row("took", "%s", s.ReadyAt.Sub(s.CreatedAt).Round(10*time.Millisecond))
	}
	if r := s.Runner; r != nil {
		row("runner", "%s, %s", cmp.Or(r.Name, r.ID), p.state(r.State))
		row("instance", "%s, %s", cmp.Or(r.InstanceID, "none yet"), machine(*r))
		printOptions(row, *r)
		if !r.ExpiresAt.IsZero() {
			row("expires", "%s", date(r.ExpiresAt))
		}
		if r.Stolen != "" {
			row("stolen", "a job of run %s took the runner", r.Stolen)
		}
		if r.End != nil {
			row("ended by", "%s: %s", r.End.Code, r.End.Text)
		}
	}
	if story {
		row("trace", "%s", s.Trace)
	}
	if err := tw.Flush(); err != nil || !story {
		return err
	}
	if err := printSteps(w, s.Steps); err != nil {
		return err
	}
	if err := printAttempts(w, s.Attempts); err != nil {
		return err
	}
	if err := printHistory(w, "request", s.History); err != nil || s.Runner == nil {
		return err
	}
	return printHistory(w, "runner "+s.Runner.ID, s.Runner.History)
}

// printSteps prints what a request waited for.
func printSteps(w io.Writer, steps []apitype.Step) error {
	if len(steps) == 0 { // an API of the version before has none
		return nil
	}
	fmt.Fprintln(w, "\nsteps")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range steps {
		fmt.Fprintln(tw, strings.TrimRight(fmt.Sprintf("  %7.1fs\t%s\t%s", s.AfterS, s.Step, s.Detail), "\t"))
	}
	return tw.Flush()
}

// printRunner prints a runner for people, with its story.
func printRunner(w io.Writer, r apitype.Runner) error {
	p := paintFor(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	when := func(name string, at time.Time) {
		if !at.IsZero() {
			row(name, "%s", date(at))
		}
	}
	row("runner", "%s", r.ID)
	state := p.state(r.State)
	if r.Wait != "" {
		state += ", waits: " + r.Wait
	}
	row("state", "%s", state)
	row("name", "%s", cmp.Or(r.Name, "not registered yet"))
	row("for", "%s, %s in %s %s", r.Repository, r.Mode, r.Account, r.Region)
	row("request", "%s", r.Request)
	if r.RunID != "" {
		row("run", "%s", r.RunID)
	}
	row("labels", "%s", strings.Join(r.Labels, ", "))
	row("instance", "%s, %s", cmp.Or(r.InstanceID, "none yet"), machine(r))
	printOptions(row, r)
	when("launched", r.LaunchedAt)
	when("online", r.OnlineAt)
	when("seen", r.SeenAt)
	if j := r.Job; j != nil {
		text := "began " + date(j.StartedAt)
		if !j.EndedAt.IsZero() {
			text += ", ended " + date(j.EndedAt)
		}
		row("last job", "%s, of run %s", text, cmp.Or(j.RunID, "unknown"))
	}
	row("jobs done", "%d", r.Jobs)
	switch c := r.Cost; {
	case c != nil && c.Seconds > 0:
		row("cost", "%s for %s hours", costText(apitype.UsageRow{USD: c.USD}), hours(c.Seconds))
	case c != nil && c.HourUSD != nil:
		row("cost", "%s so far, at %s an hour", spent(r, time.Now()), money(*c.HourUSD))
	}
	if r.Stolen != "" {
		row("stolen", "a job of run %s took the runner", r.Stolen)
	}
	if r.End != nil {
		row("ended by", "%s: %s", r.End.Code, r.End.Text)
	}
	if r.EndedAt.IsZero() {
		when("expires", r.ExpiresAt)
		when("ends by", r.HardAt)
	}
	when("ended", r.EndedAt)
	if err := tw.Flush(); err != nil {
		return err
	}
	return printHistory(w, "runner "+r.ID, r.History)
}

func machine(r apitype.Runner) string { return r.Market + " " + r.InstanceType + " in " + r.Subnet }

// printOptions prints what a machine is made of, a row for each option.
func printOptions(row func(name, format string, args ...any), r apitype.Runner) {
	for _, name := range slices.Sorted(maps.Keys(r.Options)) {
		row(strings.ReplaceAll(name, "_", " "), "%s", r.Options[name])
	}
}

// printAttempts prints the launches that were tried, if there were any.
func printAttempts(w io.Writer, attempts []apitype.Attempt) error {
	if len(attempts) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nlaunches tried")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, a := range attempts {
		fmt.Fprintf(tw, "  %s\t%s %s in %s\t%s\n", clock(a.At), a.Market, a.InstanceType, a.Subnet, a.Code)
	}
	return tw.Flush()
}

// printHistory prints the steps of a request or of its runner.
func printHistory(w io.Writer, title string, entries []apitype.Entry) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n", title)
	for _, e := range entries {
		line := fmt.Sprintf("  %s  %-9s  %s", clock(e.At), e.State, e.Reason)
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func because(s apitype.Status) string {
	switch {
	case s.Error != nil:
		return ": " + s.Error.Code + ": " + s.Error.Text
	case s.Wait != "":
		if !s.WaitUntil.IsZero() {
			return ", waits: " + s.Wait + ", until " + s.WaitUntil.UTC().Format(time.TimeOnly) + " UTC"
		}
		return ", waits: " + s.Wait
	}
	return ""
}

func date(at time.Time) string  { return at.Local().Format("2006-01-02 15:04:05 MST") }
func clock(at time.Time) string { return at.Local().Format("15:04:05.000") }

// paint colours states on a terminal, and nothing elsewhere.
type paint bool

func paintFor(w io.Writer) paint {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return paint(err == nil && info.Mode()&os.ModeCharDevice != 0)
}

var colours = map[string]int{
	"queued": 36, "ready": 32, "online": 32, "busy": 32, "failed": 31, "expired": 31, "cancelled": 33, "accepted": 36, "waiting": 36, "ok": 32, "warn": 33, "skipped": 36,
}

// state colours a state that has a colour.
func (p paint) state(s string) string {
	if colours[s] == 0 {
		return s
	}
	return p.cell(s)
}

// colour colours a text.
func (p paint) colour(n int, s string) string {
	if !p {
		return s
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", n, s)
}

// cell colours a state, or anything else in the colour that the terminal has
// anyway: of equal lengths, the invisible parts leave columns straight.
func (p paint) cell(s string) string { return p.colour(cmp.Or(colours[s], 39), s) }
