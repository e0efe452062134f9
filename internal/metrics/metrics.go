// Package metrics counts what becomes of requests and machines, for graphs.
//
// It promises that a fact is counted once: by the commit that makes it one, when the
// store has said that it is committed. A decision that is made again since somebody
// was faster, or since nobody knows whether it was committed, counts what it then
// still changes. So an answer that is lost can leave a fact out, and nothing counts
// one twice. What stands at a time is measured by the reaper, once a run.
//
// There are at most ten metrics, each with the control plane's name for its only
// dimension, since CloudWatch asks for money for each name and each value of a
// dimension (ADR 0040).
package metrics

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Name is that of a metric, as CloudWatch shows it.
type Name string

// The metrics.
const (
	Accepted     Name = "Accepted"
	Ready        Name = "Ready"
	Failed       Name = "Failed"
	TimeToReady  Name = "TimeToReady"
	LaunchErrors Name = "LaunchErrors"
	Live         Name = "Live"
	Orphans      Name = "Orphans"
	GitHubLeft   Name = "GitHubLeft"
	OldestWait   Name = "OldestWait"
	Brake        Name = "Brake"
)

// Kind says how two values of a metric become one.
type Kind int

// The kinds.
const (
	Count Kind = iota // they add up
	Each              // each is kept
	Most              // the larger one
	Least             // the smaller one
	Last              // the later one
)

// Metric describes a metric.
type Metric struct {
	Name Name
	Unit string // of CloudWatch (https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html)
	Kind Kind
	Help string // what it says, for people
}

// All has every metric.
var All = []Metric{
	{Accepted, "Count", Count, "Requests that were recorded: calls of POST /start, and workflow jobs."},
	{Ready, "Count", Count, "Requests whose runner came online."},
	{Failed, "Count", Count, "Requests that failed or expired without a runner."},
	{TimeToReady, "Seconds", Each, "How long the requests that became ready took, from their record on."},
	{LaunchErrors, "Count", Count, "Launches that EC2 refused, for want of capacity or for another reason."},
	{Live, "Count", Last, "Runners whose records are not over."},
	{Orphans, "Count", Last, "Machines without a record that the sweeps saw last."},
	{GitHubLeft, "Percent", Least, "How much of its calls of the hour the credential has left that has least."},
	{OldestWait, "Seconds", Most, "How long the oldest request has waited for its launch, of those that were looked at."},
	{Brake, "Count", Last, "Regions in which the brake of the sweep is on."},
}

// Figures are values of metrics: one of each, but for those of kind Each.
type Figures map[Name][]float64

// add adds a value of a metric.
func (f Figures) add(name Name, value float64) {
	i := slices.IndexFunc(All, func(m Metric) bool { return m.Name == name })
	had := f[name]
	if len(had) > 0 {
		switch All[i].Kind {
		case Count:
			value, had = value+had[0], nil
		case Most:
			value, had = max(value, had[0]), nil
		case Least:
			value, had = min(value, had[0]), nil
		case Last:
			had = nil
		}
	}
	f[name] = append(had[:len(had):len(had)], value)
}

// Of returns what a commit of these changes made happen. It is pure.
func Of(changes []store.Change) Figures {
	f := Figures{}
	for _, c := range changes {
		if c.CheckOnly {
			continue
		}
		switch is := c.Item.(type) {
		case *store.Request:
			if was, ok := c.Was.(*store.Request); ok {
				f.request(*was, *is)
			}
		case *store.Runner:
			if was, ok := c.Was.(*store.Runner); ok {
				f.runner(*was, *is)
			}
		}
	}
	return f
}

// request counts what became of a request. One whose job began before it had a record is
// recorded as ready, and one of a workflow job that gets no machine as failed: that is
// no failure.
func (f Figures) request(was, is store.Request) {
	made := was.Version == 0
	if made && (is.State == store.Accepted || is.State == store.Ready) {
		f.add(Accepted, 1)
	}
	switch {
	case made && is.State == store.Ready:
		f.add(Ready, 1)
	case made || was.State.Final(): // what is still learnt of one that is over
	case is.State == store.Ready:
		f.add(Ready, 1)
		f.add(TimeToReady, is.ReadyAt.Sub(is.CreatedAt).Seconds())
	case is.State == store.Failed || is.State == store.Expired:
		f.add(Failed, 1)
	}
	if was.InLine() || is.InLine() {
		f.add(OldestWait, max(0, is.UpdatedAt.Sub(is.CreatedAt)).Seconds())
	}
}

// runner counts the launches that were tried for a runner.
func (f Figures) runner(was, is store.Runner) {
	for _, a := range is.Attempts[min(len(was.Attempts), len(is.Attempts)):] {
		if !a.Launched() {
			f.add(LaunchErrors, 1)
		}
	}
}

// Counted returns s, and tells to what each commit made happen, after it.
func Counted(s store.Store, to func(Figures)) store.Store { return counted{s, to} }

type counted struct {
	store.Store
	to func(Figures)
}

// Commit implements store.Store.
func (c counted) Commit(ctx context.Context, changes ...store.Change) error {
	if err := c.Store.Commit(ctx, changes...); err != nil {
		return err
	}
	if f := Of(changes); len(f) > 0 {
		c.to(f)
	}
	return nil
}

// Tally gathers figures. Its zero value is empty. It is safe for concurrent use.
type Tally struct {
	mu      sync.Mutex
	figures Figures
}

// Add adds figures to those that are gathered.
func (t *Tally) Add(f Figures) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.figures == nil {
		t.figures = Figures{}
	}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		for _, v := range f[name] {
			t.figures.add(name, v)
		}
	}
}

// Take returns what was gathered since the last Take; nil: nothing.
func (t *Tally) Take() Figures {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.figures
	t.figures = nil
	return f
}
