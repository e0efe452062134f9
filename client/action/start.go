package action

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
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

// errWaited ends the waiting for a runner.
var errWaited = errors.New("waited long enough")

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
		asks[i].ID, asks[i].token, asks[i].runsOn = started.ID, client.NewToken(started.StatusToken), started.RunsOn
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

// await shows what happens until all runners are ready, or one never will be.
func (s *step) await(ctx context.Context, api *client.Client, asks []ask) error {
	waiting, cancel := context.WithTimeoutCause(ctx, s.in.give+slack, errWaited)
	defer cancel()
	results := make([]result, len(asks))
	pause := time.Duration(len(asks)) * time.Second / pollsASecond
	errs := each(len(asks), len(asks), func(i int) error {
		// They take turns, all within one pause.
		if err := sleep.For(waiting, pause*time.Duration(i)/time.Duration(len(asks))); err != nil {
			return err
		}
		err := s.follow(waiting, api.WithToken(asks[i].token).WithPause(pause), asks[i].ID, i, &results[i])
		if err == nil && results[i].status.State != ready {
			cancel() // nobody can use the others
		}
		return err
	})
	if err := errors.Join(s.finished(results), s.summarise(results)); err != nil {
		s.say("not all could be written: %v", err) // the outputs of the start are there
	}
	var failed *problem
	for i, r := range results {
		if client.Final(r.status.State) && r.status.State != ready {
			p := notReady(r.status)
			failed = &p
			break
		}
		if err := errs[i]; err != nil && failed == nil && !errors.Is(err, context.Canceled) {
			p := problemOf(err)
			if errors.Is(err, errWaited) {
				p = problem{"wait_timeout", fmt.Sprintf("Request %s is still %s after %s.", asks[i].ID, cmp.Or(r.status.State, "not known"), s.in.give)}
			}
			failed = &p
		}
	}
	switch {
	case ctx.Err() != nil:
		return s.cancelled(ctx, api, asks, nil)
	case failed != nil:
		s.abandon(ctx, api, asks, nil)
		return s.fail(*failed)
	}
	for i, r := range results {
		s.say("%s is ready after %s: %s", s.name(i, "request "+r.status.ID), took(r.status), machine(r.status))
	}
	return s.done(asks)
}

// ready is the state of a request that has its runner.
const ready = "ready"

// follow waits for one request, and rides out an API that is away. r has what was
// seen last, however it ends.
func (s *step) follow(ctx context.Context, api *client.Client, id string, i int, r *result) error {
	var story client.Story
	for {
		st, err := api.Wait(ctx, id, func(st apitype.Status) {
			for _, step := range story.Next(st) {
				r.steps = append(r.steps, step)
				s.say("%s", s.name(i, stepLine(step)))
			}
		})
		if st.ID != "" {
			r.status = st
		}
		e, answered := errors.AsType[*client.Error](err)
		away := errors.Is(err, client.ErrNoAnswer) || answered && e.Retryable()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !away:
			return err
		}
		s.say("          the API does not answer, and is asked again: %v", err)
		if err := sleep.For(ctx, askAgain); err != nil {
			return err
		}
	}
}

// cancelled cancels what the job asked for, since nobody waits for it any longer.
func (s *step) cancelled(ctx context.Context, api *client.Client, asks []ask, errs []error) error {
	s.say("The job was cancelled.")
	s.abandon(ctx, api, asks, errs)
	return ErrCancelled
}

// abandon stops all requests, so that no machine is launched for them, and a
// runner that is nobody else's ends. What it cannot stop is left to Post. errs
// are those of the calls that started them.
func (s *step) abandon(ctx context.Context, api *client.Client, asks []ask, errs []error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCall/2)
	defer cancel()
	left := each(len(asks), atOnce, func(i int) error {
		if asks[i].ID == "" {
			if refused(errs[i]) {
				return nil
			}
			return errs[i]
		}
		return s.end(ctx, api.WithToken(asks[i].token), asks[i])
	})
	var open []ask
	for i, err := range left {
		if err != nil {
			open = append(open, asks[i])
		}
	}
	if err := s.save(s.record(open, len(open) > 0)); err != nil {
		s.say("%v", err) // the record of before says more is open than is: a stop too many does no harm
	}
	if len(open) > 0 {
		s.say("Not everything is cancelled yet: the end of the job does the rest.")
	}
}

// errUnasked says that a request was not made.
var errUnasked = errors.New("not asked for")

// refused reports whether a call that failed so recorded nothing: the API said no,
// or was not asked. An API that did not answer may have recorded the request.
func refused(err error) bool {
	e, answered := errors.AsType[*client.Error](err)
	return answered && !e.Retryable() || errors.Is(err, client.ErrNoIDToken) || errors.Is(err, errUnasked)
}

// end stops one request, and says what becomes of it.
func (s *step) end(ctx context.Context, api *client.Client, a ask) error {
	stopped, err := api.Stop(ctx, a.ID, false)
	if err != nil {
		return err
	}
	s.say("request %s is %s; %s", stopped.ID, stopped.State, whatOfRunner(stopped))
	return nil
}

func whatOfRunner(st apitype.Stopped) string {
	if st.Draining {
		return "its runner ends"
	}
	return "no runner ends for it"
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

// started sets what is known at once: whoever cleans up after this step can, from
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
		{"account", []string{b.AccountID}}, {"region", []string{b.Region}}, {"type", []string{b.Type}}, {"mode", []string{b.Mode}},
		{"labels", b.Labels}, {"instance types", b.InstanceTypes}, {"image", []string{b.ImageID}}, {"subnets", b.Subnets},
		{"security groups", b.SecurityGroups}, {"key", []string{s.in.key}},
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
