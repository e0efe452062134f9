package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

const (
	// lastCall is how long a cancelled step may take to leave nothing behind.
	// GitHub asks a step to end, says so again 7.5 s later, and kills it after
	// 2.5 s more (https://docs.github.com/en/actions/reference/workflow-cancellation);
	// the step at the end of the job does what was left.
	lastCall = 6 * time.Second
	// slack is how much longer than the API the action waits: that the API gave up,
	// with its reasons, is what a job should see.
	slack = 15 * time.Second
	// atOnce is how many requests are made at the same time.
	atOnce = 8
	// pollsASecond is how often a step asks how its requests stand, all together: the
	// API takes 300 calls a second of everybody (terraform/http.tf).
	pollsASecond = 16
	// askAgain is the pause of the waiting while the API does not answer at all. The
	// client has called for half a minute by then.
	askAgain = 5 * time.Second
)

// start asks for runners and, unless told otherwise, waits for them.
func (s *step) start(ctx context.Context) error {
	asks := make([]ask, s.in.count)
	for i := range asks {
		asks[i].N = i + 1
	}
	s.group(s.title(), s.wishes())
	// Whatever becomes of this process, the end of the job knows what was asked.
	if err := s.save(s.record(asks, true)); err != nil {
		return s.fail(problem{"not_recorded", err.Error()})
	}
	api := s.connect(s.in.url)
	heard, cancel := outlast(ctx, lastCall/2) // a call that was made is heard out
	defer cancel()
	var enough atomic.Bool // one will not come, and nobody can use the others
	errs := each(len(asks), atOnce, func(i int) error {
		if ctx.Err() != nil || enough.Load() {
			return errUnasked
		}
		started, err := api.Start(heard, s.record(nil, true).call(asks[i].N))
		if err != nil {
			enough.Store(true)
			return err
		}
		asks[i].ID, asks[i].token, asks[i].runsOn = started.ID, client.NewToken(started.StatusToken.Reveal()), started.RunsOn
		s.mask(asks[i].token)
		s.say("%s is %s, runs-on %s", s.name(i, "request "+started.ID), started.State, strings.Join(started.RunsOn, ", "))
		return nil
	})
	err := errors.Join(s.save(s.record(asks, true)), s.started(asks))
	switch {
	case ctx.Err() != nil:
		return s.cancelled(ctx, api, asks, errs)
	case err != nil:
		s.abandon(ctx, api, asks, errs)
		return s.fail(problem{"not_recorded", err.Error()})
	case errors.Join(errs...) != nil:
		s.abandon(ctx, api, asks, errs)
		return s.fail(problemOf(first(errs)))
	case !s.in.wait:
		return s.done(asks)
	}
	return s.await(ctx, api, asks)
}

// done records that the job has got what it asked for.
func (s *step) done(asks []ask) error {
	if err := s.save(s.record(asks, false)); err != nil {
		return s.fail(problem{"not_recorded", err.Error()})
	}
	return nil
}

// record is what the end of the job is to know of these requests.
func (s *step) record(asks []ask, open bool) record {
	return record{URL: s.in.url, Body: s.in.body, Key: s.in.key, Asks: asks, Open: open}
}

// started sets what is known at once: anyone who cleans up after this step can, from
// now on.
func (s *step) started(asks []ask) error {
	var ids, runsOn []string
	for _, a := range asks {
		if a.ID != "" {
			ids, runsOn = append(ids, a.ID), append(runsOn, a.runsOn...)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	list, err := json.Marshal(runsOn)
	if err != nil {
		return err
	}
	return errors.Join(s.output("id", s.joined(ids)), s.output("runs-on", string(list)))
}

// joined is one value as it is, and those of several requests as a JSON list.
func (s *step) joined(values []string) string {
	if len(values) == 1 && s.in.count == 1 && len(s.in.ids) <= 1 {
		return values[0]
	}
	b, err := json.Marshal(values)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

// title says what the step does, wishes what it asks for.
func (s *step) title() string {
	if s.in.count == 1 {
		return "Asking " + s.in.url + " for a runner"
	}
	return fmt.Sprintf("Asking %s for %d runners", s.in.url, s.in.count)
}

func (s *step) wishes() (lines []string) {
	b := s.in.body
	for _, w := range []struct {
		name   string
		values []string
	}{
		{"account", []string{b.AccountID}}, {"region", []string{b.Region}}, {"regions", b.Regions}, {"type", []string{b.Type}}, {"mode", []string{b.Mode}},
		{"labels", b.Labels}, {"instance types", b.InstanceTypes}, {"needs", needs(b)}, {"image", []string{b.ImageID}}, {"subnets", b.Subnets},
		{"security groups", b.SecurityGroups}, {"root volume", []string{gigabytes(b.RootVolumeGB)}}, {"tags", tagLines(b.Tags)}, {"key", []string{s.in.key}},
	} {
		if v := strings.Join(w.values, ", "); v != "" {
			lines = append(lines, fmt.Sprintf("%-16s %s", w.name, v))
		}
	}
	if b.Timeout != 0 {
		lines = append(lines, fmt.Sprintf("%-16s %s", "needed for", time.Duration(b.Timeout)*time.Second))
	}
	return append(lines, fmt.Sprintf("%-16s %s", "tried for", s.in.give))
}

// needs says what the instance type has to have.
func needs(b apitype.Start) (out []string) {
	for _, n := range []struct {
		n    int
		unit string
	}{{b.CPU, "vCPUs"}, {b.Memory, "GiB of memory"}, {b.GPU, "GPUs"}} {
		if n.n != 0 {
			out = append(out, fmt.Sprintf("%d %s", n.n, n.unit))
		}
	}
	if b.Arch != "" {
		out = append(out, b.Arch)
	}
	return out
}

// gigabytes is a size for people; zero is not said.
func gigabytes(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d GiB", n)
}

func tagLines(tags map[string]string) (lines []string) {
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		lines = append(lines, k+"="+tags[k])
	}
	return lines
}

// name tells requests apart where there are several.
func (s *step) name(i int, of string) string {
	if s.in.count == 1 {
		return of
	}
	return fmt.Sprintf("[%d/%d] %s", i+1, s.in.count, of)
}

// each calls f for 0 to n-1, most at a time, and returns their errors.
func each(n, most int, f func(i int) error) []error {
	errs := make([]error, n)
	slots := make(chan struct{}, most)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = f(i)
			<-slots
		})
	}
	wg.Wait()
	return errs
}

// first returns the first error that says why: of a call that was made.
func first(errs []error) error {
	for _, err := range errs {
		if err != nil && !errors.Is(err, errUnasked) {
			return err
		}
	}
	return nil
}

// outlast returns a context that ends d after ctx does.
func outlast(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return longer, func() { stop(); cancel() }
}
