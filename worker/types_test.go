package worker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// choosing is a world whose account lets requests say what they need, with an image for each
// architecture.
func choosing(t *testing.T, f func(w *world, asked *int)) {
	t.Helper()
	inWorld(t, func(w *world) {
		asked := 0
		a := w.accounts[account]
		a.InstanceRequirements = &store.Requirements{VCPUs: store.Range{Min: 2, Max: 8}, Arch: []string{store.X86, store.ARM64}, GPU: store.Range{Max: 1}, Exclude: []string{"t3a.*"}}
		w.accounts[account] = a
		w.imagesAre("ami-x86", "ami-arm")
		w.fleet.types = func() ([]store.InstanceType, error) { asked++; return simfleet.InstanceTypes, nil }
		w.fleet.roots = func(ami string) (store.Root, error) {
			root := store.Root{Device: "/dev/xvda", SizeGB: 8, Arch: store.X86}
			if ami == "ami-arm" {
				root.Arch = store.ARM64
			}
			return root, nil
		}
		f(w, &asked)
	})
}

// imagesAre gives the account's region other images.
func (w *world) imagesAre(images ...string) {
	a := w.accounts[account]
	r := a.Regions[region]
	r.Images = images
	a.Regions = map[string]store.Region{region: r}
	w.accounts[account] = a
}

func needing(m store.Machine) func(*store.Request) {
	return func(r *store.Request) { r.Machine = m }
}

func TestMachineHasWhatTheRequestNeeds(t *testing.T) {
	for name, c := range map[string]struct {
		m           store.Machine
		kind, image string
	}{
		"FourOfX86":   {store.Machine{CPU: 4}, "m7a.xlarge", "ami-x86"},
		"FourOfARM":   {store.Machine{CPU: 4, Arch: store.ARM64}, "c7g.xlarge", "ami-arm"},
		"ARM":         {store.Machine{Arch: store.ARM64}, "m7g.large", "ami-arm"},
		"GPU":         {store.Machine{GPU: 1}, "g6.xlarge", "ami-x86"},
		"Memory":      {store.Machine{MemoryGB: 32}, "m7a.2xlarge", "ami-x86"},
		"OwnImage":    {store.Machine{CPU: 2, Arch: store.ARM64, Image: "ami-arm"}, "m7g.large", "ami-arm"},
		"NamedAsEver": {store.Machine{}, "", "ami-x86"},
	} {
		t.Run(name, func(t *testing.T) {
			choosing(t, func(w *world, _ *int) {
				r := w.request(needing(c.m))
				w.start(r)
				w.state(r, store.Waiting)
				call := w.fleet.calls[0]
				if c.kind != "" && call.InstanceType != c.kind || call.Image != c.image {
					t.Errorf("it is launched as %s of %s, want %s of %s", call.InstanceType, call.Image, c.kind, c.image)
				}
				run := w.runnerOf(r.ID)
				if c.kind != "" && run.Plan[0].InstanceType != c.kind {
					t.Errorf("the plan begins with %s, want %s: it is frozen", run.Plan[0], c.kind)
				}
			})
		})
	}
}

// The dearer of two types that fit is the smaller one here.
func TestCheapestTypeIsLaunchedFirst(t *testing.T) {
	choosing(t, func(w *world, _ *int) {
		w.commit(&store.Prices{Key: region, Hour: map[string]store.MicroUSD{"m7a.xlarge": 232_000, "m7a.2xlarge": 116_000}})
		r := w.request(needing(store.Machine{CPU: 4}))
		w.start(r)
		if got := w.fleet.calls[0].InstanceType; got != "m7a.2xlarge" {
			t.Errorf("%s is launched, want m7a.2xlarge", got)
		}
	})
}

func TestTypesAreAskedForOnceAnHour(t *testing.T) {
	choosing(t, func(w *world, asked *int) {
		wk := worker.New(w.config)
		for range 3 {
			w.handleBy(wk, queue.StartOf(w.request(needing(store.Machine{CPU: 4}))))
			w.handleBy(wk, queue.StartOf(w.request(needing(store.Machine{CPU: 2, Arch: store.ARM64}))))
			time.Sleep(time.Second)
		}
		if *asked != 1 {
			t.Errorf("EC2 was asked %d times for one region and rule, want once", *asked)
		}
		time.Sleep(time.Hour)
		w.fleet.types = func() ([]store.InstanceType, error) { return nil, context.DeadlineExceeded }
		r := w.request(needing(store.Machine{CPU: 4}))
		w.handleBy(wk, queue.StartOf(r))
		w.state(r, store.Waiting) // what was known serves on
	})
}

func TestRequestThatNothingIsGoodEnoughForIsToldSo(t *testing.T) {
	refused := &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "You are not authorized to perform this operation."}
	for name, c := range map[string]struct {
		types  func() ([]store.InstanceType, error)
		m      store.Machine
		images []string
		code   string // empty: it waits
		text   string
	}{
		"NoType":  {nil, store.Machine{CPU: 8, Arch: store.ARM64}, nil, store.CodeNoType, "instance_requirements"},
		"NoImage": {nil, store.Machine{Arch: store.ARM64}, []string{"ami-x86"}, store.EndLaunchDenied, "None of the images"},
		"Refused": {func() ([]store.InstanceType, error) { return nil, refused }, store.Machine{CPU: 2}, nil, store.EndLaunchDenied, "UnauthorizedOperation"},
		"Silent":  {func() ([]store.InstanceType, error) { return nil, errors.New("no answer") }, store.Machine{CPU: 2}, nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			choosing(t, func(w *world, _ *int) {
				if c.types != nil {
					w.fleet.types = c.types
				}
				if c.images != nil {
					w.imagesAre(c.images...)
				}
				r := w.request(needing(c.m))
				w.start(r)
				got := w.requestNow(r.ID)
				switch {
				case c.code == "" && (got.State != store.Accepted || got.Wait != store.WaitOutage):
					t.Errorf("the request is %s for %s, want it held", got.State, got.Wait)
				case c.code != "" && (got.Error == nil || got.Error.Code != c.code || !strings.Contains(got.Error.Text, c.text)):
					t.Errorf("the request is %s for %v, want %s with %q", got.State, got.Error, c.code, c.text)
				case len(w.fleet.calls) != 0:
					t.Errorf("%d launches, want none", len(w.fleet.calls))
				}
			})
		})
	}
}
