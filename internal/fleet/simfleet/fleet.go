package simfleet

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// Config is what a Fleet is made of.
type Config struct {
	// World is where the machines are. Machines wait in real time, so that its Now
	// must pass as that does.
	World WorldConfig

	// HTTP is the machines' network: the way to the API.
	HTTP *http.Client
	// Broker is the GitHub that the runner programs connect to.
	Broker Broker
	// BootTime is the time from the power coming on until the agent runs.
	BootTime time.Duration
	// Sign is AWS's signature of what it says of a machine; nil: AWS says nothing.
	Sign func(identity.Document) string
	// Metadata is asked before a machine's metadata service says that. While it fails, so
	// does the service; nil: it never does.
	Metadata func() error
	// Install is agent.Config.Install of each machine, by its instance's id; nil: nothing
	// is needed.
	Install func(ctx context.Context, instance string, o apitype.Outfit) (did string, err error)
	// Plain says of which machines the agent is of the version before outfits: it knows
	// none, and says so; nil: of none.
	Plain func(instance string) bool
	Log   *slog.Logger // nil: none
}

// Fleet is a World whose machines run the real agent. It is safe for concurrent
// use. Make it with Open, and Close it.
type Fleet struct {
	*World

	http     *http.Client
	broker   Broker
	bootTime time.Duration
	sign     func(identity.Document) string
	metadata func() error
	install  func(context.Context, string, apitype.Outfit) (string, error)
	plain    func(string) bool
	log      *slog.Logger
	openedAt time.Time
	seed     []byte // of all machines' randomness

	on  context.Context // ends when the host loses its power
	off context.CancelFunc
	wg  sync.WaitGroup // of the machines

	mu     sync.Mutex
	closed bool
	wake   map[string]chan struct{} // by id of the machines that are plugged in
}

// Open returns a Fleet that continues from what its Disk has: machines that have
// not ended meanwhile boot again, in the order of their launches, with the disks
// that they had.
func Open(cfg Config) (*Fleet, error) {
	w, err := OpenWorld(cfg.World)
	if err != nil {
		return nil, err
	}
	seed, err := w.random(32)
	if err != nil {
		return nil, fmt.Errorf("open the simulated fleet: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f := &Fleet{
		World:    w,
		http:     cfg.HTTP,
		broker:   cfg.Broker,
		bootTime: cfg.BootTime,
		sign:     cfg.Sign,
		metadata: cfg.Metadata,
		install:  cfg.Install,
		plain:    cfg.Plain,
		log:      cfg.Log,
		openedAt: w.now(),
		seed:     seed,
		wake:     map[string]chan struct{}{},
	}
	f.on, f.off = context.WithCancel(context.Background())
	w.changed = f.changed
	for _, i := range w.Instances() {
		f.changed(i.ID)
	}
	return f, nil
}

// Close cuts the power of the host: every machine stops where it is, without
// ending, and continues when its Disk is opened again. It returns when nothing
// runs any more. Calls of the Fleet still change the World, where nothing runs.
func (f *Fleet) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.off()
	f.wg.Wait()
}

// changed plugs in the machine of an instance, or lets it see what has changed.
func (f *Fleet) changed(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	wake := f.wake[id]
	if wake == nil {
		wake = make(chan struct{}, 1)
		f.wake[id] = wake
		f.wg.Go(func() { f.run(id, wake) })
	}
	select {
	case wake <- struct{}{}:
	default: // it is to look already
	}
}

// run is the life of one machine, from its launch to its end or that of the
// host. It alone starts and stops what the machine runs.
func (f *Fleet) run(id string, wake <-chan struct{}) {
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.wake, id)
	}()
	var on *machine
	defer func() {
		if on != nil {
			on.stop()
		}
	}()
	for {
		i, ok := f.Instance(id)
		if !ok || off(i.State) {
			return
		}
		bootsAt := f.bootsAt(i)
		now, next := f.now(), i.EndsAt
		switch {
		case on != nil:
			on.announce(i)
		case i.NeverBoots:
		case !now.Before(bootsAt):
			on = f.boot(id)
			continue // it may have been told something meanwhile
		case next.IsZero() || bootsAt.Before(next):
			next = bootsAt
		}
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(next.Sub(now))
		}
		select {
		case <-f.on.Done():
			return
		case <-wake:
		case <-due:
		}
	}
}

// off reports whether a machine in a state has lost its power.
func off(s fleet.State) bool {
	return s == fleet.ShuttingDown || s == fleet.Stopped || s.Over()
}

// bootsAt is when the agent of a machine begins to run.
func (f *Fleet) bootsAt(i Fact) time.Time {
	on := i.RunsAt
	if on.Before(f.openedAt) {
		on = f.openedAt // the host was off
	}
	return on.Add(f.bootTime)
}
