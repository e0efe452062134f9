package fleettest_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/fleettest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// broken is a fleet that is right but for what a test replaces.
type broken struct {
	*simfleet.World
	launch    func(context.Context, fleet.Place, fleet.Launch) (fleet.Instance, error)
	byToken   func(context.Context, fleet.Place, string, string) (fleet.Instance, error)
	get       func(context.Context, fleet.Place, ...string) (map[string]fleet.Instance, error)
	list      func(context.Context, fleet.Place, string) iter.Seq2[fleet.Instance, error]
	terminate func(context.Context, fleet.Place, ...string) error
	image     func(context.Context, fleet.Place, string) (string, error)
	root      func(context.Context, fleet.Place, string) (store.Root, error)
	spot      func(context.Context, fleet.Place, []string, []string) (map[string]store.MicroUSD, map[string]string, error)
	console   func(context.Context, fleet.Place, string) (string, error)
	vet       func(context.Context, fleet.Place, fleet.Launch) error
	let       []string // how strangers get the role
	subnets   func(context.Context, fleet.Place, ...string) (map[string]fleet.Subnet, error)
	ami       func(context.Context, fleet.Place, string) (fleet.AMI, error)
}

func (b *broken) SpotPrices(ctx context.Context, at fleet.Place, types, subnets []string) (map[string]store.MicroUSD, map[string]string, error) {
	return b.spot(ctx, at, types, subnets)
}

func (b *broken) Launch(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
	return b.launch(ctx, at, l)
}

func (b *broken) ByToken(ctx context.Context, at fleet.Place, runner, token string) (fleet.Instance, error) {
	return b.byToken(ctx, at, runner, token)
}

func (b *broken) Get(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Instance, error) {
	return b.get(ctx, at, ids...)
}

func (b *broken) List(ctx context.Context, at fleet.Place, controlPlane string) iter.Seq2[fleet.Instance, error] {
	return b.list(ctx, at, controlPlane)
}

func (b *broken) Terminate(ctx context.Context, at fleet.Place, ids ...string) error {
	return b.terminate(ctx, at, ids...)
}

func (b *broken) Image(ctx context.Context, at fleet.Place, image string) (string, error) {
	return b.image(ctx, at, image)
}

func (b *broken) RootVolume(ctx context.Context, at fleet.Place, ami string) (store.Root, error) {
	return b.root(ctx, at, ami)
}

func (b *broken) Console(ctx context.Context, at fleet.Place, id string) (string, error) {
	return b.console(ctx, at, id)
}

func (b *broken) Vet(ctx context.Context, at fleet.Place, l fleet.Launch) error {
	return b.vet(ctx, at, l)
}

func (b *broken) TakeOn(context.Context, string) error { return nil }

func (b *broken) Strangers(context.Context, string) ([]string, error) { return b.let, nil }

func (b *broken) Subnets(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Subnet, error) {
	return b.subnets(ctx, at, ids...)
}

func (b *broken) AMI(ctx context.Context, at fleet.Place, id string) (fleet.AMI, error) {
	return b.ami(ctx, at, id)
}

// faults are fleets that break the contract, and the check that must see it.
var faults = []struct {
	name  string
	check string
	brk   func(b *broken, w *simfleet.World)
}{
	{"nothing", "", func(*broken, *simfleet.World) {}},
	{"consoles are passed on as they are", "ConsoleHasWhatItsInstancePrinted", func(b *broken, w *simfleet.World) {
		b.console = func(ctx context.Context, at fleet.Place, id string) (string, error) {
			text, err := w.Console(ctx, at, id)
			return text + "\x1b[2J", err
		}
	}},
	{"a console that is not there is empty", "ConsoleHasWhatItsInstancePrinted", func(b *broken, w *simfleet.World) {
		b.console = func(ctx context.Context, at fleet.Place, id string) (string, error) {
			text, err := w.Console(ctx, at, id)
			if errors.Is(err, fleet.ErrNotFound) {
				err = nil
			}
			return text, err
		}
	}},
	{"a dry run launches", "VetLaunchesNothing", func(b *broken, w *simfleet.World) {
		b.vet = func(ctx context.Context, at fleet.Place, l fleet.Launch) error {
			l.ClientToken = "t1"
			_, err := w.Launch(ctx, at, l)
			return err
		}
	}},
	{"strangers get the role", "RoleIsGuarded", func(b *broken, _ *simfleet.World) { b.let = []string{fleet.WithAWrongOne} }},
	{"an image has no state", "ImageIsDescribed", func(b *broken, w *simfleet.World) {
		b.ami = func(ctx context.Context, at fleet.Place, id string) (fleet.AMI, error) {
			ami, err := simfleet.Inspected{World: w}.AMI(ctx, at, id)
			ami.State = ""
			return ami, err
		}
	}},
	{"a subnet is left out", "SubnetsAreDescribed", func(b *broken, _ *simfleet.World) {
		b.subnets = func(context.Context, fleet.Place, ...string) (map[string]fleet.Subnet, error) { return nil, nil }
	}},
	{"tokens are ignored", "SameTokenAndBytesAreOneInstance", func(b *broken, w *simfleet.World) {
		n := 0
		b.launch = func(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
			n++
			l.ClientToken += strings.Repeat("x", n)
			return w.Launch(ctx, at, l)
		}
	}},
	{"tokens are looked up before they are taken", "SameTokenAtOnceIsOneInstance", func(b *broken, w *simfleet.World) {
		b.launch = func(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
			if i, err := w.ByToken(ctx, at, l.Tags[fleet.TagRunner], l.ClientToken); err == nil {
				return i, nil
			}
			time.Sleep(100 * time.Millisecond) // so that others look before one takes
			l.Subnet = time.Now().String()
			return w.Launch(ctx, at, l)
		}
	}},
	{"other bytes get the instance of the token", "SameTokenWithOtherBytesIsRefused", func(b *broken, w *simfleet.World) {
		b.launch = func(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
			i, err := w.Launch(ctx, at, l)
			if errors.Is(err, fleet.ErrMismatch) {
				return w.ByToken(ctx, at, l.Tags[fleet.TagRunner], l.ClientToken)
			}
			return i, err
		}
	}},
	{"errors are not typed", "SameTokenWithOtherBytesIsRefused", func(b *broken, w *simfleet.World) {
		b.launch = func(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
			i, err := w.Launch(ctx, at, l)
			if errors.Is(err, fleet.ErrMismatch) {
				err = fleet.ErrMismatch
			}
			return i, err
		}
	}},
	{"tokens are those of the account", "TokenOfAnotherPlaceIsAnotherToken", func(b *broken, w *simfleet.World) {
		b.launch = func(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
			at.Region = "eu-west-2"
			return w.Launch(ctx, at, l)
		}
	}},
	{"tokens know no zone", "TokenOfAnotherZoneIsAnotherToken", func(b *broken, w *simfleet.World) {
		b.launch = func(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
			if l.Subnet == "subnet-b" {
				l.Subnet = "subnet-a"
			}
			return w.Launch(ctx, at, l)
		}
	}},
	{"a lack of capacity is unknown", "NoCapacityLaunchesNothing", func(b *broken, w *simfleet.World) {
		b.launch = func(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
			i, err := w.Launch(ctx, at, l)
			if e, ok := errors.AsType[*fleet.Error](err); ok && e.Kind == fleet.ErrCapacity {
				e.Kind = fleet.ErrUnknown
			}
			return i, err
		}
	}},
	{"a failed launch leaves its token free", "FailedLaunchBindsItsToken", func(b *broken, w *simfleet.World) {
		b.launch = func(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
			i, err := w.Launch(ctx, at, l)
			if errors.Is(err, fleet.ErrMismatch) && len(w.Instances()) == 0 {
				l.ClientToken += "x"
				return w.Launch(ctx, at, l)
			}
			return i, err
		}
	}},
	{"a terminated instance answers for its token", "TokenOfATerminatedInstanceIsGone", func(b *broken, w *simfleet.World) {
		b.launch = func(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
			i, err := w.Launch(ctx, at, l)
			if errors.Is(err, fleet.ErrGone) {
				return w.ByToken(ctx, at, l.Tags[fleet.TagRunner], l.ClientToken)
			}
			return i, err
		}
	}},
	{"the second end fails", "TerminateTwiceIsFine", func(b *broken, w *simfleet.World) {
		b.terminate = func(ctx context.Context, at fleet.Place, ids ...string) error {
			if f, ok := w.Instance(ids[0]); ok && f.State.Over() {
				return &fleet.Error{Kind: fleet.ErrNotFound, Code: "InvalidInstanceID.NotFound", Text: "it is gone"}
			}
			return w.Terminate(ctx, at, ids...)
		}
	}},
	{"ends have no reason", "TerminateTwiceIsFine", func(b *broken, w *simfleet.World) {
		b.get = func(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Instance, error) {
			got, err := w.Get(ctx, at, ids...)
			for id, i := range got {
				i.Reason = ""
				got[id] = i
			}
			return got, err
		}
	}},
	{"the end of the unknown succeeds", "TerminateOfAnUnknownInstanceIsNotFound", func(b *broken, w *simfleet.World) {
		b.terminate = func(ctx context.Context, at fleet.Place, ids ...string) error {
			if err := w.Terminate(ctx, at, ids...); !errors.Is(err, fleet.ErrNotFound) {
				return err
			}
			return nil
		}
	}},
	{"the first of a group alone ends", "TerminateEndsAGroup", func(b *broken, w *simfleet.World) {
		b.terminate = func(ctx context.Context, at fleet.Place, ids ...string) error {
			return w.Terminate(ctx, at, ids[:min(1, len(ids))]...)
		}
	}},
	{"a group ends up to the unknown", "GroupWithAnUnknownInstanceIsLeft", func(b *broken, w *simfleet.World) {
		b.terminate = func(ctx context.Context, at fleet.Place, ids ...string) error {
			if len(ids) == 0 || len(ids) > fleet.MaxTerminate {
				return w.Terminate(ctx, at, ids...)
			}
			for _, id := range ids {
				if err := w.Terminate(ctx, at, id); err != nil {
					return err
				}
			}
			return nil
		}
	}},
	{"a protected group is spared in silence", "GroupWithAProtectedInstanceEndsOneByOne", func(b *broken, w *simfleet.World) {
		b.terminate = func(ctx context.Context, at fleet.Place, ids ...string) error {
			if err := w.Terminate(ctx, at, ids...); len(ids) == 1 || !errors.Is(err, fleet.ErrRefused) {
				return err
			}
			return nil
		}
	}},
	{"root volumes are forgotten", "SameTokenWithOtherBytesIsRefused", func(b *broken, w *simfleet.World) {
		b.launch = func(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
			l.Options = store.LaunchOptions{}
			return w.Launch(ctx, at, l)
		}
	}},
	{"images have no root volume", "RootVolumeOfAnImageIsKnown", func(b *broken, _ *simfleet.World) {
		b.root = func(context.Context, fleet.Place, string) (store.Root, error) { return store.Root{}, nil }
	}},
	{"one unknown id fails all", "GetLeavesOutWhatIsUnknown", func(b *broken, w *simfleet.World) {
		b.get = func(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Instance, error) {
			got, err := w.Get(ctx, at, ids...)
			if len(got) < len(ids) {
				err = &fleet.Error{Kind: fleet.ErrNotFound, Code: "InvalidInstanceID.NotFound", Text: "one of them"}
			}
			return got, err
		}
	}},
	{"tags are shared with the caller", "LaunchShowsWhatWasAskedFor", func(b *broken, w *simfleet.World) {
		tags := map[string]map[string]string{}
		b.get = func(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Instance, error) {
			got, err := w.Get(ctx, at, ids...)
			for id, i := range got {
				if tags[id] == nil {
					tags[id] = i.Tags
				}
				i.Tags = tags[id]
				got[id] = i
			}
			return got, err
		}
	}},
	{"any runner's token will do", "ByTokenFindsInAnyState", func(b *broken, w *simfleet.World) {
		b.byToken = func(ctx context.Context, at fleet.Place, _, token string) (fleet.Instance, error) {
			return w.ByToken(ctx, at, "runner-1", token)
		}
	}},
	{"the first page is all", "ListHasOneControlPlaneOnEveryPage", func(b *broken, w *simfleet.World) {
		b.list = func(ctx context.Context, at fleet.Place, controlPlane string) iter.Seq2[fleet.Instance, error] {
			return func(yield func(fleet.Instance, error) bool) {
				n := 0
				for i, err := range w.List(ctx, at, controlPlane) {
					if n++; n > 3 || !yield(i, err) {
						return
					}
				}
			}
		}
	}},
	{"every control plane is listed", "ListHasOneControlPlaneOnEveryPage", func(b *broken, w *simfleet.World) {
		b.list = func(ctx context.Context, at fleet.Place, controlPlane string) iter.Seq2[fleet.Instance, error] {
			return func(yield func(fleet.Instance, error) bool) {
				for _, name := range []string{controlPlane, controlPlane + "-2"} {
					for i, err := range w.List(ctx, at, name) {
						if !yield(i, err) {
							return
						}
					}
				}
			}
		}
	}},
	{"nobody says why a machine died", "MachineThatEC2EndsSaysWhy", func(b *broken, w *simfleet.World) {
		b.get = func(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Instance, error) {
			got, err := w.Get(ctx, at, ids...)
			for id, i := range got {
				i.ReasonCode = ""
				got[id] = i
			}
			return got, err
		}
	}},
	{"another architecture is a refusal like any other", "OtherArchitectureIsUnsuited", func(b *broken, w *simfleet.World) {
		b.launch = func(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
			i, err := w.Launch(ctx, at, l)
			if e, ok := errors.AsType[*fleet.Error](err); ok {
				return i, &fleet.Error{Kind: e.Kind, Code: e.Code, Text: e.Text}
			}
			return i, err
		}
	}},
	{"contexts are ignored", "EndedContextHasNoEffect", func(b *broken, w *simfleet.World) {
		b.launch = func(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
			return w.Launch(context.WithoutCancel(ctx), at, l)
		}
	}},
	{"images have other names", "ImageIDIsItsOwnAnswer", func(b *broken, w *simfleet.World) {
		b.image = func(ctx context.Context, at fleet.Place, image string) (string, error) { return image + "0", nil }
	}},
	{"all subnets are in one zone", "SpotPricesAreOfTheZonesOfSubnets", func(b *broken, w *simfleet.World) {
		b.spot = func(ctx context.Context, at fleet.Place, types, subnets []string) (map[string]store.MicroUSD, map[string]string, error) {
			hour, zones, err := w.SpotPrices(ctx, at, types, subnets)
			for subnet := range zones {
				zones[subnet] = "subnet-a"
			}
			return hour, zones, err
		}
	}},
	{"what is not known costs nothing", "SpotPricesAreOfTheZonesOfSubnets", func(b *broken, w *simfleet.World) {
		b.spot = func(ctx context.Context, at fleet.Place, types, subnets []string) (map[string]store.MicroUSD, map[string]string, error) {
			hour, zones, err := w.SpotPrices(ctx, at, types, subnets)
			hour[store.SpotKey("x0.none", subnets[0])] = 0
			return hour, zones, err
		}
	}},
}

// brokenEnv names the fault of the fleet that TestFleetUnderTest is about, in a
// process of its own.
const brokenEnv = "GARO_TEST_FAULT"

func TestFleetUnderTest(t *testing.T) {
	name := os.Getenv(brokenEnv)
	if name == "" {
		name = "nothing"
	}
	for _, f := range faults {
		if f.name != name {
			continue
		}
		fleettest.Run(t, func(t *testing.T) fleettest.Subject {
			now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			w, err := simfleet.OpenWorld(simfleet.WorldConfig{
				Now:      func() time.Time { return now },
				PageSize: 3,
				Zones:    map[string]string{"subnet-c": "subnet-a"},

				Architecture: func(string) string { return "arm64" },
			})
			if err != nil {
				t.Fatalf("OpenWorld: %v", err)
			}
			in := simfleet.Inspected{World: w}
			b := &broken{World: w, launch: w.Launch, byToken: w.ByToken, get: w.Get, list: w.List, terminate: w.Terminate, image: w.Image, root: w.RootVolume, spot: w.SpotPrices, console: w.Console, vet: in.Vet, subnets: in.Subnets, ami: in.AMI}
			f.brk(b, w)
			return fleettest.Subject{
				Fleet:        b,
				Inspector:    b,
				At:           fleet.Place{Account: "111111111111", Region: "eu-west-2"},
				Launch:       fleet.Launch{InstanceType: "c7g.large", Subnet: "subnet-a", Image: "ami-0123456789abcdef0", SecurityGroups: []string{"sg-1"}},
				Elsewhere:    fleet.Place{Account: "111111111111", Region: "eu-west-1"},
				OtherZone:    "subnet-b",
				SameZone:     "subnet-c",
				PageSize:     3,
				OtherImage:   "ami-0123456789abcdef1",
				OtherProfile: "builder",
				OtherType:    "m7i.large",
				Protect: func(id string) {
					if err := w.Protect(id, true); err != nil {
						t.Error(err)
					}
				},
				Die: func(id, code, message string) {
					if err := w.Die(id, message); err != nil || !strings.HasPrefix(message, code+": ") {
						t.Errorf("Die = %v, with %s and %q", err, code, message)
					}
				},
				SetCapacity: func(has bool) {
					w.SetCapacity(simfleet.Placement{Market: store.OnDemand}, has)
				},
			}
		})
	}
}

func TestTheSuiteSeesEveryFault(t *testing.T) {
	for _, f := range faults[1:] {
		t.Run(f.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestFleetUnderTest$/^"+f.check+"$")
			cmd.Env = append(os.Environ(), brokenEnv+"="+f.name)
			out, err := cmd.CombinedOutput()
			if _, failed := errors.AsType[*exec.ExitError](err); !failed {
				t.Fatalf("the suite on a fleet where %s: %v, want it to fail", f.name, err)
			}
			if want := "--- FAIL: TestFleetUnderTest/" + f.check; !bytes.Contains(out, []byte(want)) {
				t.Errorf("the suite on a fleet where %s says:\n%s\nwant %s", f.name, out, want)
			}
		})
	}
}
