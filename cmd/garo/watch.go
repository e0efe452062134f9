package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

// watchEvery is how often watch asks, as the page does: three calls, of which the API
// takes five a second.
const watchEvery = 2 * time.Second

func watchCommand() *cobra.Command {
	var t target
	var query client.Query
	c := &cobra.Command{
		Use:   "watch",
		Short: "Watch what waits and what runs, until you stop it",
		Long: `watch shows the machines that are not over and the requests that wait for one, and
shows them again every two seconds, in place. In a pipe it prints a line for each
change instead. Ctrl-C ends it.`,
		Example: `  garo watch --repo acme/shop
  garo watch | grep failed`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if t.json {
				return usage("watch is for people: garo runners --json and garo list --json are for programs")
			}
			cl, err := t.client(cmd.Context())
			if err != nil {
				return err
			}
			return watch(cmd.Context(), cl, query, t.address(), viewOf(cmd.OutOrStdout()))
		},
	}
	t.flags(c)
	f := c.Flags()
	f.StringVar(&query.Repository, "repo", "", "only of this repository: owner/name, or its numeric id")
	f.StringVar(&query.Account, "account-id", "", "only in this AWS account")
	f.StringVar(&query.Region, "region", "", "only in this AWS region")
	t.complete(c, "repo", t.repositories)
	return c
}

// scene is what there is at one time.
type scene struct {
	at       time.Time
	address  string
	requests []apitype.Status // that wait, the oldest first
	runners  []apitype.Runner // that are not over, the newest first
	more     bool             // there are more of either
	trouble  error            // why the rest is as it was before; nil: it is as it is
}

// view shows one scene after another.
type view interface {
	show(s scene) error
	close()
}

// viewOf returns the view that w is good for.
func viewOf(w io.Writer) view {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return &lines{w: w, states: map[string]string{}}
	}
	return &screen{w: f}
}

// watch shows scenes until ctx ends. An API that does not answer is asked again.
func watch(ctx context.Context, cl *client.Client, q client.Query, address string, v view) error {
	defer v.close()
	var last scene
	for {
		s, err := look(ctx, cl, q)
		switch {
		case ctx.Err() != nil:
			return errInterrupted
		case errors.Is(err, client.ErrNoAnswer), errors.Is(err, client.ErrUnavailable):
			s = last
			s.trouble = err
		case err != nil:
			return told(err)
		}
		s.at, s.address = time.Now(), address
		if err := v.show(s); err != nil {
			return err
		}
		last = s
		if sleep.For(ctx, watchEvery) != nil {
			return errInterrupted
		}
	}
}

// look asks for what there is: a page of each, which is fifty.
func look(ctx context.Context, cl *client.Client, q client.Query) (s scene, err error) {
	live := q
	live.Live = true
	runners, err := cl.Runners(ctx, live)
	if err != nil {
		return s, err
	}
	s.runners, s.more = runners.Runners, runners.After != ""
	for _, state := range []string{apitype.Accepted, apitype.Waiting} {
		q.State = state
		page, err := cl.Requests(ctx, q)
		if err != nil {
			return s, err
		}
		s.requests = append(s.requests, page.Requests...)
		s.more = s.more || page.After != ""
	}
	slices.SortFunc(s.requests, func(a, b apitype.Status) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return s, nil
}

// counts says how many there are in each state, in the order of a life.
func (s scene) counts() string {
	n := map[string]int{}
	for _, r := range s.requests {
		if r.State == apitype.Accepted {
			n["queued"]++
		}
	}
	for _, r := range s.runners {
		n[r.State]++
	}
	var out []string
	for _, state := range []string{"queued", apitype.RunnerNew, apitype.RunnerLaunched, apitype.RunnerBooting, apitype.RunnerOnline, apitype.RunnerBusy, apitype.RunnerDraining, apitype.RunnerEnding} {
		if n[state] > 0 {
			out = append(out, fmt.Sprintf("%d %s", n[state], state))
		}
	}
	return cmp.Or(strings.Join(out, ", "), "nothing waits, and nothing runs")
}

// screen shows scenes in place, on a terminal.
type screen struct {
	w     *os.File
	begun bool
}

func (v *screen) show(s scene) error {
	width, height, err := term.GetSize(int(v.w.Fd()))
	if err != nil {
		width, height = 80, 24 // what terminals have that do not say
	}
	begin := "\x1b[H"
	if !v.begun {
		begin = "\x1b[?25l\x1b[2J\x1b[H" // no cursor, and a clear screen
	}
	v.begun = true
	frame := s.text(cmp.Or(widthOf(v.w), width), height, paintFor(v.w))
	_, err = io.WriteString(v.w, begin+strings.ReplaceAll(frame, "\n", "\x1b[K\n")+"\x1b[J")
	return err
}

// close gives the cursor back.
func (v *screen) close() {
	if v.begun {
		_, _ = io.WriteString(v.w, "\x1b[?25h")
	}
}

// text returns the scene in a width and a height: what has no room is left out, and said.
func (s scene) text(width, height int, p paint) string {
	head := "garo watch " + s.address + "  " + s.at.Local().Format(time.TimeOnly)
	state := s.counts()
	if s.more {
		state += ", and more"
	}
	if s.trouble != nil {
		state = "no answer, and this is as it was: " + s.trouble.Error()
	}
	runners, waiting := runnerTable(s.runners, s.at), requestTable(s.requests, s.at)
	b := []string{cut(head, width), cut(state, width)}
	room := height - len(b) - 1 // the last line stays free, or the terminal scrolls
	if len(s.requests) > 0 {
		part := tableLines(waiting, width, p)
		if most := max(3, room/2); len(part) > most && len(s.runners) > 0 {
			part = append(part[:most-1], fmt.Sprintf("… %d more wait", len(part)-most+1))
		}
		b = append(append(b, ""), part...)
	}
	if len(s.runners) > 0 {
		b = append(append(b, ""), tableLines(runners, width, p)...)
	}
	if most := max(3, height-1); len(b) > most {
		b = append(b[:most-1], fmt.Sprintf("… %d more lines", len(b)-most+1))
	}
	return strings.Join(b, "\n") + "\n"
}

func tableLines(t table, width int, p paint) []string {
	return strings.Split(strings.TrimSuffix(t.text(width, p), "\n"), "\n")
}

// lines shows scenes as one line for each change, for pipes.
type lines struct {
	w       io.Writer
	states  map[string]string // by what it is and its id
	trouble bool
}

func (v *lines) show(s scene) error {
	var b strings.Builder
	say := func(what, id, state, repository, why string) {
		key := what + " " + id
		if v.states[key] == state+" "+why {
			return
		}
		v.states[key] = state + " " + why
		fmt.Fprintf(&b, "%s  %-7s  %s  %-9s  %s  %s\n", s.at.Local().Format(time.TimeOnly), what, id, state, dash(repository), dash(why))
	}
	there := map[string]bool{}
	for _, r := range s.requests {
		there["request "+r.ID] = true
		say("request", r.ID, r.State, r.Repository, r.Wait)
	}
	for _, r := range slices.Backward(s.runners) {
		there["runner "+r.ID] = true
		say("runner", r.ID, r.State, r.Repository, r.Wait)
	}
	if !s.more && s.trouble == nil {
		for _, key := range slices.Sorted(maps.Keys(v.states)) {
			what, id, _ := strings.Cut(key, " ")
			if !there[key] {
				delete(v.states, key)
				fmt.Fprintf(&b, "%s  %-7s  %s  %-9s  -  -\n", s.at.Local().Format(time.TimeOnly), what, id, map[string]string{"request": "settled", "runner": "over"}[what])
			}
		}
	}
	if down := s.trouble != nil; down != v.trouble {
		v.trouble = down
		state := "answers again"
		if down {
			state = "no answer: " + s.trouble.Error()
		}
		fmt.Fprintf(&b, "%s  api      %s\n", s.at.Local().Format(time.TimeOnly), state)
	}
	_, err := io.WriteString(v.w, b.String())
	return err
}

func (v *lines) close() {}
