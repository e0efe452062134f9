// Package demo runs a story on a local system, tells it as it happens, and checks
// from the records, the simulated EC2 and the simulated GitHub whether what GARO
// promises held. The limits are those of production divided by 60: a minute
// takes a second.
//
// The story waits for what happens and never for time to pass, so that a machine
// that has other things to do only makes it longer.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// speed divides all limits.
	speed = 60
	// calm divides the two that would take a stall of this machine for the death of
	// a simulated one: a heartbeat is missed after 7.5 s, and its machine lost after 20.
	calm = 6
	// giveUp is how long each request is tried, in seconds: for ever, next to the rest.
	giveUp = 90
	// patience is how long the story may take; it takes 20 s where nothing else runs.
	patience = 3 * time.Minute
	// bootTime is a machine's: some 20 s, divided.
	bootTime = 400 * time.Millisecond
	// jobTime is how long each pretended job takes.
	jobTime = 900 * time.Millisecond

	repository = "acme/shop"
)

// limits are those of the demonstration.
func limits() store.Limits {
	production := store.DefaultLimits()
	l := production.Divided(speed)
	l.Silent, l.Lost = production.Silent/calm, production.Lost/calm
	l.NameRetry = 3 * time.Second // a left-over name is looked at hourly: a minute would be too long here
	return l
}

// Demo is one performance.
type Demo struct {
	system *local.System
	client *client.Client
	limits store.Limits
	out    io.Writer // the narrator's, and after the story the review's
	log    *os.File
	began  time.Time

	deaf atomic.Bool // the next machine never boots

	mu      sync.Mutex
	scenes  []*scene
	planted []string // machines that the story itself made
	said    []entry  // and not printed yet
}

// Run performs the story in a data directory, which it leaves as it is at the
// end, and writes it to out. It fails if a promise did not hold.
func Run(ctx context.Context, out io.Writer, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	d := &Demo{out: out, log: log, limits: limits(), began: time.Now()}
	d.system, err = local.Open(ctx, local.Config{
		Dir: dir, URL: "http://demo.localhost", Limits: d.limits, BootTime: bootTime,
		Empty:      []simfleet.Placement{{Market: store.Spot, InstanceType: "t3a.micro"}},
		GitHubLost: 10 * time.Minute / speed,
		NeverBoots: func(int) bool { return d.deaf.CompareAndSwap(true, false) },
		Log:        slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		return err
	}
	d.client = client.Must(client.New(client.Config{
		URL: "http://demo.localhost", HTTP: d.system.Client(),
		Token: func(context.Context) (client.Token, error) { return d.system.Token, nil },
	}))
	fmt.Fprintf(out, "GARO on this machine: simulated EC2 and GitHub, the real API, worker, reaper and agent.\n"+
		"All limits are divided by %d: the idle limit of 10 minutes is 10 seconds, the boot limit of 5 is 5.\n"+
		"(Only a machine that is silent is given more time, as this one may be busy with something else.)\n"+
		"Spot t3a.micro has no capacity today.\n\n"+
		"What the story does stands at the margin, and what the records then say is indented.\n\n", speed)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var running, telling sync.WaitGroup
	running.Go(func() { d.system.Run(ctx) })
	told, stopTelling := context.WithCancel(ctx)
	defer stopTelling()
	telling.Go(func() { d.narrate(told) })

	err = d.story(ctx)
	stopTelling()
	telling.Wait()
	if err == nil {
		err = d.review(ctx)
	}
	cancel()
	running.Wait()
	return errors.Join(err, d.system.Close())
}
