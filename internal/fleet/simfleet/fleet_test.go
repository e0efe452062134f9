package simfleet_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/fleettest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestFleetIsAFleet(t *testing.T) {
	fleettest.RunBubbled(t, func(t *testing.T) fleettest.Subject {
		f := openFleet(t, simfleet.Config{
			World: simfleet.WorldConfig{
				Pending:  5 * time.Second,
				Stopping: 10 * time.Second,
				Lag:      20 * time.Second,
				PageSize: 3,
				Zones:    map[string]string{"subnet-c": "subnet-a"},

				Architecture: func(string) string { return "arm64" },
			},
			HTTP:     newControl().client(),
			Broker:   newBroker(),
			BootTime: 30 * time.Second,
		})
		t.Cleanup(f.Close)
		return subject(t, f, f.World, func() { time.Sleep(time.Minute) })
	})
}

func TestMachineRunsItsJobAndPowersOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, b := newControl(), newBroker()
		f := openFleet(t, simfleet.Config{
			World:    simfleet.WorldConfig{Pending: 10 * time.Second, Stopping: 5 * time.Second},
			HTTP:     c.client(),
			Broker:   b,
			BootTime: 30 * time.Second,
		})
		defer f.Close()
		launched := time.Now()
		id := mustLaunch(t, f, bootable(t, "r1", 7200)).ID

		time.Sleep(40*time.Second - 1)
		synctest.Wait()
		if n := c.callCount(); n != 0 {
			t.Errorf("%d calls before the machine has booted, want none", n)
		}
		time.Sleep(10 * time.Second)
		if i := factOf(t, f, id); i.State != fleet.Running || i.CredentialedAt.Sub(launched).Round(time.Second) != 40*time.Second {
			t.Errorf("machine = %s, credentialed after %v; want running, after 40s", i.State, i.CredentialedAt.Sub(launched))
		}
		if n := b.sessions("config r1"); n != 1 {
			t.Errorf("%d sessions of its config, want 1", n)
		}
		b.jobs <- simfleet.Job{ID: "j1", RunID: "77", Duration: 5 * time.Minute}
		time.Sleep(5*time.Minute + 10*time.Second)
		synctest.Wait()

		i := factOf(t, f, id)
		if !i.State.Over() || i.PowerOff == "" || i.Reason != "Client.InstanceInitiatedShutdown: Instance initiated shutdown" {
			t.Errorf("machine after its job = %s, %q, %q; want it to have powered itself off", i.State, i.PowerOff, i.Reason)
		}
		if !slices.Equal(b.done, []string{"j1"}) || b.sessions("config r1") != 0 {
			t.Errorf("done = %v with %d sessions open, want j1 and none", b.done, b.sessions("config r1"))
		}
		heard, beats := c.heard("r1")
		for _, want := range []string{"boot", "online", "job_started 77", "job_done"} {
			if !slices.Contains(heard, want) {
				t.Errorf("the API heard %q, want %q among it", heard, want)
			}
		}
		if beats < 14 || beats > 17 {
			t.Errorf("%d heartbeats in five minutes, want one each 20 s", beats)
		}
		calls := c.callCount()
		time.Sleep(time.Hour)
		if n := c.callCount(); n != calls {
			t.Errorf("%d calls after the end, want none", n-calls)
		}
	})
}

func TestHardTimerFiresWithTheAPIAway(t *testing.T) {
	for _, c := range []struct {
		name string
		away time.Duration // after the launch
		hard time.Duration // as the API has it
		want time.Duration // after the boot
	}{
		{"from the start", 0, 2 * time.Hour, 2 * time.Hour},
		{"later", 10 * time.Minute, 2 * time.Hour, 2 * time.Hour},
		{"after it said less", 10 * time.Minute, time.Hour, time.Hour},
		{"after it said more", 10 * time.Minute, 3 * time.Hour, 2 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctl, b := newControl(), newBroker()
				ctl.hard = c.hard
				f := openFleet(t, simfleet.Config{HTTP: ctl.client(), Broker: b, BootTime: 30 * time.Second})
				defer f.Close()
				launched := time.Now()
				b.jobs <- simfleet.Job{ID: "j1", Duration: 24 * time.Hour}
				ctl.setAway(c.away == 0)
				id := mustLaunch(t, f, bootable(t, "r1", 7200)).ID
				time.Sleep(c.away)
				ctl.setAway(true)
				life := c.want + 30*time.Second // it boots for so long
				time.Sleep(life - c.away - time.Second)
				if i := factOf(t, f, id); i.State != fleet.Running || i.CredentialedAt.IsZero() != (c.away == 0) {
					t.Errorf("machine a second before its hard limit = %s, credentialed %v; want running", i.State, i.CredentialedAt)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				i := factOf(t, f, id)
				if !i.State.Over() || i.PowerOff != "timer" || i.EndedAt.Sub(launched).Round(time.Second) != life {
					t.Errorf("machine = %s, %q after %v; want off by its timer after %v", i.State, i.PowerOff, i.EndedAt.Sub(launched), life)
				}
				if n := b.sessions("config r1"); n != 0 {
					t.Errorf("%d sessions open after the end, want 0", n)
				}
			})
		})
	}
}

func TestTimerOfTheStartScriptHoldsWhateverTheAgentWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newControl()
		c.mode, c.hard = store.Shared, 24*time.Hour
		open := func(hardS int) (*simfleet.Fleet, string) {
			f := openFleet(t, simfleet.Config{HTTP: c.client(), Broker: newBroker(), BootTime: 30 * time.Second})
			return f, mustLaunch(t, f, bootable(t, "r1", hardS)).ID
		}
		f, id := open(7200)
		time.Sleep(time.Minute)
		f.Close()
		longer := f.Disk(id) // its agent is to live for two hours

		f, id = open(600)
		defer f.Close()
		if err := f.SaveDisk(id, longer); err != nil {
			t.Fatalf("SaveDisk: %v", err)
		}
		launched := time.Now()
		time.Sleep(time.Hour)
		i := factOf(t, f, id)
		if life := i.EndedAt.Sub(launched); i.PowerOff != "timer" || life != 630*time.Second {
			t.Errorf("machine ended by %q after %v, want its timer after 10m30s", i.PowerOff, life)
		}
	})
}

func TestSpotNoticeIsReportedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, b := newControl(), newBroker()
		f := openFleet(t, simfleet.Config{HTTP: c.client(), Broker: b})
		defer f.Close()
		b.jobs <- simfleet.Job{ID: "j1", Duration: time.Hour}
		id := mustLaunch(t, f, bootable(t, "r1", 7200)).ID
		time.Sleep(time.Minute)
		told := time.Now()
		if err := f.Interrupt(id, simfleet.SpotNotice); err != nil {
			t.Fatalf("Interrupt: %v", err)
		}
		time.Sleep(2 * time.Second)
		if heard, _ := c.heard("r1"); !slices.Contains(heard, "draining spot_interruption") {
			t.Errorf("the API heard %q, want the spot notice", heard)
		}
		if i := factOf(t, f, id); i.State != fleet.Running {
			t.Errorf("machine after the notice = %s, want running: its job may finish", i.State)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		i := factOf(t, f, id)
		if !i.State.Over() || i.Reason != "Server.SpotInstanceTermination: Spot instance termination" || i.EndedAt.Sub(told) != 2*time.Minute {
			t.Errorf("machine = %s, %q, %v after the notice; want reclaimed after two minutes", i.State, i.Reason, i.EndedAt.Sub(told))
		}
		if len(b.done) != 0 || b.sessions("config r1") != 0 {
			t.Errorf("done = %v with %d sessions open, want the job lost", b.done, b.sessions("config r1"))
		}
	})
}

func TestTerminatedMachineIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, b := newControl(), newBroker()
		f := openFleet(t, simfleet.Config{HTTP: c.client(), Broker: b})
		defer f.Close()
		id := mustLaunch(t, f, bootable(t, "r1", 7200)).ID
		time.Sleep(time.Minute)
		if n := b.sessions("config r1"); n != 1 {
			t.Fatalf("%d sessions of its config, want 1", n)
		}
		if err := f.Terminate(t.Context(), here, id); err != nil {
			t.Fatalf("Terminate: %v", err)
		}
		synctest.Wait()
		calls := c.callCount()
		time.Sleep(time.Hour)
		if n := c.callCount() - calls; n != 0 || b.sessions("config r1") != 0 {
			t.Errorf("%d calls and %d sessions after the end, want none", n, b.sessions("config r1"))
		}
	})
}

func TestAnswerToADeadMachineIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newControl()
		f := openFleet(t, simfleet.Config{HTTP: c.client(), Broker: newBroker()})
		defer f.Close()
		c.onBoot = func(instance string) {
			if err := f.Terminate(t.Context(), here, instance); err != nil {
				t.Errorf("Terminate: %v", err)
			}
		}
		id := mustLaunch(t, f, bootable(t, "r1", 7200)).ID
		time.Sleep(time.Minute)
		if heard, _ := c.heard("r1"); !slices.Equal(heard, []string{"boot"}) {
			t.Errorf("the API heard %q, want one boot", heard)
		}
		if i := factOf(t, f, id); !i.CredentialedAt.IsZero() {
			t.Errorf("the machine got its config at %v, after its end", i.CredentialedAt)
		}
	})
}

func TestMachinesThatNeverBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newControl()
		f := openFleet(t, simfleet.Config{
			World: simfleet.WorldConfig{NeverBoots: func(n int) bool { return n == 1 }},
			HTTP:  c.client(), Broker: newBroker(),
		})
		defer f.Close()
		dead := mustLaunch(t, f, bootable(t, "r1", 7200)).ID
		foreign := mustLaunch(t, f, launchOf("foreign")).ID
		planted, err := f.Plant(here, nil)
		if err != nil {
			t.Fatalf("Plant: %v", err)
		}
		alive := mustLaunch(t, f, bootable(t, "r2", 7200)).ID
		interrupted := mustLaunch(t, f, launchOf("interrupted")).ID
		for _, notice := range []time.Duration{simfleet.SpotNotice, time.Minute} { // told twice, with nobody to listen
			if err := f.Interrupt(interrupted, notice); err != nil {
				t.Fatalf("Interrupt: %v", err)
			}
			synctest.Wait()
		}
		time.Sleep(time.Hour)
		if i := factOf(t, f, interrupted); !i.State.Over() {
			t.Errorf("interrupted machine = %s, want terminated", i.State)
		}
		for _, id := range []string{dead, foreign, planted} {
			if i := factOf(t, f, id); i.State != fleet.Running || !i.CredentialedAt.IsZero() {
				t.Errorf("machine %s = %s, credentialed %v; want it running, and no more", id, i.State, i.CredentialedAt)
			}
		}
		if heard, _ := c.heard("r1"); len(heard) != 0 {
			t.Errorf("the API heard %q from a machine that never boots", heard)
		}
		if i := factOf(t, f, alive); i.CredentialedAt.IsZero() {
			t.Error("the last machine did not boot")
		}
		if err := f.Terminate(t.Context(), here, dead); err != nil || !factOf(t, f, dead).State.Over() {
			t.Errorf("Terminate = %v, state %s; want terminated", err, factOf(t, f, dead).State)
		}
	})
}

func TestReopenedFleetGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := openDisk(t)
		c, b := newControl(), newBroker()
		c.mode, c.hard = store.Shared, 2*time.Hour
		cfg := simfleet.Config{
			World: simfleet.WorldConfig{Disk: disk},
			HTTP:  c.client(), Broker: b, BootTime: 30 * time.Second,
		}
		f := openFleet(t, cfg)
		launched := time.Now()
		booted := mustLaunch(t, f, bootable(t, "r1", 7200)).ID
		time.Sleep(time.Minute)
		booting := mustLaunch(t, f, bootable(t, "r2", 7200)).ID
		ended := mustLaunch(t, f, bootable(t, "r3", 7200)).ID
		if err := f.Terminate(t.Context(), here, ended); err != nil {
			t.Fatalf("Terminate: %v", err)
		}
		time.Sleep(10 * time.Second)

		f.Close()
		calls := c.callCount()
		for _, i := range f.Instances() {
			if want := i.ID == ended; i.State.Over() != want {
				t.Errorf("machine %s after the power cut = %s, want ended: %v", i.ID, i.State, want)
			}
		}
		if n := b.sessions("config r1"); n != 0 {
			t.Errorf("%d sessions after the power cut, want 0", n)
		}
		time.Sleep(time.Minute)
		if n := c.callCount(); n != calls {
			t.Errorf("%d calls while the power was off", n-calls)
		}

		f = openFleet(t, cfg)
		defer f.Close()
		if again := mustLaunch(t, f, bootable(t, "r1", 7200)); again.ID != booted {
			t.Errorf("Launch after the reboot = %s, want %s", again.ID, booted)
		}
		time.Sleep(30*time.Second - 1)
		synctest.Wait()
		if n := c.callCount(); n != calls {
			t.Errorf("%d calls before the machines have rebooted", n-calls)
		}
		_, before := c.heard("r1")
		time.Sleep(time.Minute)
		heard, after := c.heard("r1")
		if want := []string{"boot", "booting", "online", "next 2", "online"}; after == before || !slices.Equal(heard, want) {
			t.Errorf("%d heartbeats after the reboot, heard %q; want some, and %q: one boot", after-before, heard, want)
		}
		if n := b.sessions("config r1"); n != 1 {
			t.Errorf("%d sessions after the reboot, want 1", n)
		}
		if heard, _ := c.heard("r2"); !slices.Contains(heard, "boot") {
			t.Errorf("the API heard %q from the machine that was booting, want its boot", heard)
		}
		if heard, _ := c.heard("r3"); len(heard) != 0 {
			t.Errorf("the API heard %q from the machine that had ended", heard)
		}
		if i := factOf(t, f, booting); i.CredentialedAt.IsZero() || i.State != fleet.Running {
			t.Errorf("the machine that was booting = %+v, want it to run with a config", i)
		}
		// No reboot puts off the hard limit.
		c.setAway(true)
		time.Sleep(3 * time.Hour)
		if i := factOf(t, f, booted); !i.State.Over() || i.EndedAt.Sub(launched) > 2*time.Hour+31*time.Second {
			t.Errorf("machine = %s after %v, want it ended by two hours after its first boot", i.State, i.EndedAt.Sub(launched))
		}
	})
}

func TestTimerPassesWhileThePowerIsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := openDisk(t)
		c := newControl()
		cfg := simfleet.Config{World: simfleet.WorldConfig{Disk: disk}, HTTP: c.client(), Broker: newBroker()}
		f := openFleet(t, cfg)
		id := mustLaunch(t, f, bootable(t, "r1", 7200)).ID
		time.Sleep(time.Minute)
		f.Close()
		calls := c.callCount()
		time.Sleep(3 * time.Hour)
		f = openFleet(t, cfg)
		defer f.Close()
		time.Sleep(time.Minute)
		if i := factOf(t, f, id); !i.State.Over() || c.callCount() != calls {
			t.Errorf("machine = %s with %d calls, want it ended without any", i.State, c.callCount()-calls)
		}
	})
}

func TestCallsAfterCloseRunNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newControl()
		var log bytes.Buffer
		f := openFleet(t, simfleet.Config{HTTP: c.client(), Broker: newBroker(), Log: slog.New(slog.NewTextHandler(&log, nil))})
		f.Close()
		f.Close()
		mustLaunch(t, f, bootable(t, "r1", 7200))
		time.Sleep(time.Minute)
		if n := c.callCount(); n != 0 || log.Len() != 0 {
			t.Errorf("%d calls after Close, and the log says %q; want nothing", n, log.String())
		}
	})
}

func TestThousandMachinesAreCheap(t *testing.T) {
	const machines = 1000
	synctest.Test(t, func(t *testing.T) {
		c := newControl()
		f := openFleet(t, simfleet.Config{HTTP: c.client(), Broker: newBroker(), BootTime: 30 * time.Second})
		defer f.Close()
		before := runtime.NumGoroutine()
		for n := range machines {
			mustLaunch(t, f, bootable(t, fmt.Sprint("r", n), 7200))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		each := float64(runtime.NumGoroutine()-before) / machines
		if each > 8 {
			t.Errorf("%.1f goroutines a machine, want a few", each)
		}
		credentialed := 0
		for _, i := range f.Instances() {
			if !i.CredentialedAt.IsZero() {
				credentialed++
			}
		}
		if credentialed != machines {
			t.Errorf("%d machines have a config, want %d", credentialed, machines)
		}
		t.Logf("%.1f goroutines a machine", each)
	})
}

func TestFleetsOfOneRandomLiveTheSameLife(t *testing.T) {
	type story struct {
		Facts  []simfleet.Fact
		Nonces map[string]string
		Events map[string][]string
		Beats  map[string]int
	}
	live := func() (s story) {
		synctest.Test(t, func(t *testing.T) {
			c := newControl()
			f := openFleet(t, simfleet.Config{
				World:    simfleet.WorldConfig{Random: &counting{}, Pending: 5 * time.Second, Stopping: 10 * time.Second},
				HTTP:     c.client(),
				Broker:   newBroker(),
				BootTime: 30 * time.Second,
			})
			defer f.Close()
			for n := range 20 {
				id := mustLaunch(t, f, bootable(t, fmt.Sprint("r", n), 700+n)).ID
				if n%4 == 0 {
					if err := f.Interrupt(id, time.Duration(n)*20*time.Second); err != nil {
						t.Fatalf("Interrupt: %v", err)
					}
				}
			}
			time.Sleep(15 * time.Minute)
			synctest.Wait()
			s = story{f.Instances(), c.nonces, c.events, c.beats}
			for id, said := range s.Events { // in the instant of its end, a machine may or may not get out that its program ended
				if n := len(said); n > 0 && said[n-1] == "draining agent_ended" {
					s.Events[id] = said[:n-1]
				}
			}
		})
		return s
	}
	first := live()
	if diff := cmp.Diff(first, live()); diff != "" {
		t.Errorf("the second time, the machines differ:\n%s", diff)
	}
	if len(first.Nonces) < 15 || first.Nonces["r1"] == first.Nonces["r2"] {
		t.Errorf("nonces = %v, want one of each machine that booted", first.Nonces)
	}
}

func TestDiskThatFailsLeavesTheOutcomeUnknown(t *testing.T) {
	disk := openDisk(t)
	w := openWorld(t, simfleet.WorldConfig{Disk: disk})
	id := mustLaunch(t, w, launchOf("t1")).ID
	if err := disk.Close(); err != nil {
		t.Fatalf("close the disk: %v", err)
	}
	_, err := w.Launch(t.Context(), here, launchOf("t2"))
	if _, typed := errors.AsType[*fleet.Error](err); err == nil || typed {
		t.Errorf("Launch = %v, want an error that is no *fleet.Error", err)
	}
	if err := w.Terminate(t.Context(), here, id); err == nil || factState(t, w, id) != fleet.Running {
		t.Errorf("Terminate = %v, state %s; want an error and no change", err, factState(t, w, id))
	}
}

func factState(t *testing.T, w *simfleet.World, id string) fleet.State {
	t.Helper()
	i, ok := w.Instance(id)
	if !ok {
		t.Fatalf("instance %s is not known", id)
	}
	return i.State
}
