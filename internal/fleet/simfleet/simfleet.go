// Package simfleet simulates EC2 and the machines in it, in two layers that can
// be used apart.
//
// A World is EC2's side: what it does with client tokens, throttling, capacity,
// spot interruptions and the slow view of its own state. It starts no goroutine
// and waits for nothing but its Disk, so that anyone who calls it decides when
// things happen. The same calls at the same times, with the same Random, have
// the same answers.
//
// A Fleet is a World whose machines run: each one that comes up runs the real
// agent against the real API, over a simulated disk, a simulated power switch
// and a runner program that only pretends its jobs. With a Disk, a Fleet that is
// opened again continues as machines do after a reboot.
//
// Neither promises to find an answer lost, late or twice: that is for anyone who
// wraps the calls.
package simfleet

import (
	"crypto/rand"
	"io"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/diskmap"
)

// SpotNotice is how long before the end EC2 announces it to a spot machine
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html).
const SpotNotice = 2 * time.Minute

// visible is how long EC2 shows a terminated instance: about an hour
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/terminating-instances.html).
const visible = time.Hour

// bound is how long a client token stays bound after the end of its instance, or
// after the last call that failed with it: EC2 says at least 24 hours
// (https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html).
const bound = 24 * time.Hour

// Rate is a token bucket. The zero value lets everything through.
type Rate struct {
	Burst     int
	PerSecond float64
}

// EC2Rate is what EC2 grants RunInstances in one account and region
// (https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html).
var EC2Rate = Rate{Burst: 5, PerSecond: 2}

// Placement says where a machine may go. An empty field stands for any.
type Placement struct {
	Market       string
	InstanceType string
	Subnet       string
}

// The operations that a Fault is asked about.
const (
	OpImage     = "image"
	OpRoot      = "root"
	OpTypes     = "types"
	OpSpot      = "spot_prices"
	OpLaunch    = "launch"
	OpByToken   = "by_token"
	OpGet       = "get"
	OpList      = "list" // once for every page
	OpConsole   = "console"
	OpTerminate = "terminate"
	OpTakeOn    = "take_on"
	OpStrangers = "strangers"
	OpVet       = "vet"
	OpAMI       = "ami"
	OpSubnets   = "subnets"
)

// WorldConfig is what a World is made of. The zero value is a world that never
// fails, forgets everything at its end, and takes no time for anything.
type WorldConfig struct {
	// Disk keeps the instances, the client tokens and the machines' disks; nil:
	// they are gone with the process. The World does not close it.
	Disk *diskmap.Map

	// Pending is the time from a launch until the instance runs; Stopping is the
	// time that it then spends shutting down.
	Pending, Stopping time.Duration
	// Lag is by how much List, Get, ByToken and Terminate are behind the truth.
	// SetLag changes it.
	Lag time.Duration
	// PageSize is how many instances a page of List has; 0: 1000, as in EC2.
	PageSize int
	// Launches throttles Launch in every place: EC2Rate, or zero for no limit.
	Launches Rate
	// Zones gives the availability zones of subnets. A subnet that is not in it
	// is a zone of its own. Client tokens of one place and zone are one scope.
	Zones map[string]string
	// Image resolves the path of an SSM parameter; nil: every path exists, and
	// has an image of its own.
	Image func(at fleet.Place, path string) (string, error)
	// Subnet describes a subnet, and says whether there is one; nil: each has a way out and
	// free addresses.
	Subnet func(at fleet.Place, id string) (_ fleet.Subnet, ok bool)
	// Fault is asked before each operation has any effect, and makes it fail with
	// the error that it returns; of l, it gets what Launch or Vet got, else nothing. An
	// ErrCapacity binds the client token, as EC2's own does. It may be called
	// concurrently. nil: nothing fails.
	Fault func(op string, at fleet.Place, l fleet.Launch) error
	// NeverBoots says which machines run and do nothing. It is asked once for
	// each that is launched, the first one being 1, and calls nothing of the World;
	// nil: all boot.
	NeverBoots func(n int) bool
	// Dies says which machines EC2 ends as soon as they would run, and why: code and
	// message, as in "Client.InternalError: Client error on launch". It is asked as
	// NeverBoots is; empty, and nil: it lives.
	Dies func(n int, l fleet.Launch) (reason string)
	// Architecture says what an image is made for, x86_64 or arm64; empty, and nil:
	// it suits any instance type.
	Architecture func(image string) string

	Now    func() time.Time // nil: time.Now
	Random io.Reader        // nil: crypto/rand.Reader; read by one call at a time
}

// World is EC2: a fleet.Fleet, the machines' side of it (PowerOff, SetTimer, Disk
// and what else a machine does to itself) and facts for people and tests. It is
// safe for concurrent use. Make it with OpenWorld.
type World struct {
	*ledger
	supply supply        // used with the ledger's lock
	lag    time.Duration // so is this

	// changed is called with the id of an instance that was made or whose end or
	// notice has moved, without the lock. Set before the first call; nil: none.
	changed func(id string)
}

// OpenWorld returns a World that continues from what its Disk has.
func OpenWorld(cfg WorldConfig) (*World, error) {
	if cfg.PageSize == 0 {
		cfg.PageSize = 1000 // the most that DescribeInstances gives
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	l, err := openLedger(cfg)
	if err != nil {
		return nil, err
	}
	return &World{ledger: l, supply: newSupply(cfg), lag: cfg.Lag}, nil
}

func (w *World) notify(id string) {
	if w.changed != nil {
		w.changed(id)
	}
}

// SetCapacity says whether a placement has capacity. Every launch that an empty
// placement fits fails with InsufficientInstanceCapacity, until SetCapacity gives
// back what it took: the same p.
func (w *World) SetCapacity(p Placement, has bool) {
	w.hold()
	defer w.release()
	if has {
		delete(w.supply.without, p)
	} else {
		w.supply.without[p] = true
	}
}

// Deregister makes an image one that EC2 does not launch any more.
func (w *World) Deregister(image string) {
	w.hold()
	defer w.release()
	w.supply.gone[image] = true
}

// SetLag changes by how much the view of instances is behind the truth.
func (w *World) SetLag(lag time.Duration) {
	w.hold()
	defer w.release()
	w.lag = lag
}
