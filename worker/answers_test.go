package worker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// failed checks that a request failed for a reason, in EC2's words, and for good.
func (w *world) failed(r store.Request, code string, says ...string) {
	w.Helper()
	got := w.requestNow(r.ID)
	if got.State != store.Failed || got.Error == nil || got.Error.Code != code {
		w.Fatalf("request is %s with %v, want failed with %s\n%v", got.State, got.Error, code, got.History)
	}
	for _, want := range says {
		if !strings.Contains(got.Error.Text, want) {
			w.Errorf("the error says %q, want %q in it", got.Error.Text, want)
		}
	}
}

func TestCodeThatNobodyKnowsIsAskedFiveTimesAndTold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fleet.answer = func(int, fleet.Launch, func()) error {
			return &fleet.Error{Kind: fleet.ErrUnknown, Case: fleet.ErrUnfamiliar, Code: "FrobnicatorOutOfTune", Text: "The frobnicator is out of tune."}
		}
		r := w.request()
		began := time.Now()
		w.start(r)
		w.follow(100)
		if n := len(w.fleet.calls); n != 5 {
			t.Errorf("%d calls of RunInstances, want 5", n)
		}
		if took := w.requestNow(r.ID).EndedAt.Sub(began); took > time.Minute {
			t.Errorf("the request failed after %v, want within a minute", took)
		}
		w.failed(r, store.EndNoLaunch, "The frobnicator is out of tune.", "FrobnicatorOutOfTune", "5 times")
		if !w.alarmed(store.AlarmLaunchRefused) {
			t.Error("no alarm, want launch_refused")
		}
	})
}

func TestThrottledCallDoesNotBeginTheCountAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		strange := 0
		w.fleet.answer = func(n int, _ fleet.Launch, _ func()) error {
			if n%2 == 0 {
				return &fleet.Error{Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded", Text: "Request limit exceeded."}
			}
			strange++
			return &fleet.Error{Kind: fleet.ErrUnknown, Case: fleet.ErrUnfamiliar, Code: "FrobnicatorOutOfTune", Text: "The frobnicator is out of tune."}
		}
		r := w.request()
		w.start(r)
		w.follow(100)
		if strange != 5 {
			t.Errorf("EC2 gave the answer that nobody knows %d times, want 5", strange)
		}
		w.failed(r, store.EndNoLaunch, "The frobnicator is out of tune.", "FrobnicatorOutOfTune", "5 times")
	})
}

func TestUnfamiliarCodeThatPassesIsForgotten(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fleet.answer = func(n int, _ fleet.Launch, _ func()) error {
			if n < 5 {
				return &fleet.Error{Kind: fleet.ErrUnknown, Case: fleet.ErrUnfamiliar, Code: "FrobnicatorOutOfTune", Text: "It is."}
			}
			return nil
		}
		r := w.request()
		w.start(r)
		w.follow(100)
		if run := w.runnerOf(r.ID); run.InstanceID == "" || run.Said != (store.Said{}) || w.alarmed(store.AlarmLaunchRefused) {
			t.Errorf("runner has instance %q and remembers %+v, want an instance, nothing, and no alarm", run.InstanceID, run.Said)
		}
	})
}

func TestOutageOfEC2IsWaitedForPatiently(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		began := time.Now()
		w.fleet.answer = func(int, fleet.Launch, func()) error {
			if time.Since(began) < 4*time.Minute {
				return &fleet.Error{Kind: fleet.ErrUnknown, Code: "InternalError", Text: "An internal error has occurred."}
			}
			return nil
		}
		w.start(r)
		w.follow(200)
		run := w.runnerOf(r.ID)
		if run.InstanceID == "" || w.alarmed(store.AlarmLaunchRefused) {
			t.Errorf("runner is %s without an instance, want that EC2 is asked until it is well", run.State)
		}
		if n := len(w.fleet.calls); n > 30 {
			t.Errorf("%d calls in four minutes, want at most 30: the pauses grow", n)
		}
		if run.LaunchedAt.Sub(began) > 4*time.Minute+30*time.Second {
			t.Errorf("launched after %v, want soon after the outage", run.LaunchedAt.Sub(began))
		}
	})
}

func TestRefusalIsToldInEC2sWordsAfterOneCall(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fleet.answer = func(int, fleet.Launch, func()) error {
			return &fleet.Error{Kind: fleet.ErrRefused, Code: "InvalidSecurityGroupId.Malformed", Text: `Invalid id: "sgx". Change the registration's security groups.`}
		}
		r := w.request()
		w.start(r)
		w.follow(10)
		w.failed(r, store.EndLaunchDenied, `Invalid id: "sgx"`, "InvalidSecurityGroupId.Malformed")
		if n := len(w.fleet.calls); n != 1 || !w.alarmed(store.AlarmLaunchRefused) {
			t.Errorf("%d calls, alarm %v; want one call and the alarm", n, w.alarmed(store.AlarmLaunchRefused))
		}
	})
}

func TestNoCapacityIsToldInEC2sWords(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fleet.answer = func(int, fleet.Launch, func()) error {
			return &fleet.Error{Kind: fleet.ErrCapacity, Code: "VolumeLimitExceeded", Text: "Have the region's quota of volume storage raised."}
		}
		r := w.request()
		w.start(r)
		w.follow(10)
		w.failed(r, store.EndNoCapacity, "quota of volume storage", "VolumeLimitExceeded")
	})
}

// arm refuses the types of the other architecture, as EC2 does for an image of arm64.
func arm(_ int, l fleet.Launch, _ func()) error {
	if family, _, _ := strings.Cut(l.InstanceType, "."); strings.HasSuffix(family, "g") {
		return nil
	}
	return &fleet.Error{
		Kind: fleet.ErrRefused, Case: fleet.ErrUnsuited, Code: "InvalidParameterValue",
		Text: "The architecture 'x86_64' of the specified instance type does not match the architecture 'arm64' of the specified AMI.",
	}
}

// offer sets the account's instance types and subnets.
func (w *world) offer(types, subnets []string) {
	a := w.accounts[account]
	a.InstanceTypes, a.DefaultInstanceTypes, a.SpotFallback = types, types, true
	reg := a.Regions[region]
	reg.Subnets = subnets
	a.Regions[region] = reg
	w.accounts[account] = a
}

func TestTypesOfAnotherArchitectureArePassedOver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offer([]string{"m7a.large", "m7i.large", "m7g.large"}, []string{"subnet-a", "subnet-b"})
		w.fleet.answer = arm
		r := w.request()
		w.start(r)
		run := w.runnerOf(r.ID)
		if run.InstanceID == "" || run.Placement().InstanceType != "m7g.large" {
			t.Fatalf("runner is %s at %s, want the m7g.large launched", run.State, run.Placement())
		}
		if n := len(w.fleet.calls); n != 3 {
			t.Errorf("%d calls, want 3: a refused type is not tried in its other subnets", n)
		}
		if a := run.Attempts[0]; !strings.Contains(a.Text, "architecture 'arm64'") || a.Code != "InvalidParameterValue" {
			t.Errorf("the first attempt is %+v, want EC2's words", a)
		}
		if w.alarmed(store.AlarmLaunchRefused) {
			t.Error("an alarm, want none: a machine came")
		}
	})
}

func TestRefusedTypeIsNotTriedOnDemandEither(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offer([]string{"m7a.large", "m7g.large"}, []string{"subnet-a"})
		w.fleet.answer = func(n int, l fleet.Launch, launch func()) error {
			if l.Market == store.Spot && l.InstanceType == "m7g.large" {
				return capacity("InsufficientInstanceCapacity")
			}
			return arm(n, l, launch)
		}
		r := w.request()
		w.start(r)
		if run := w.runnerOf(r.ID); run.Placement().Market != store.OnDemand || run.Placement().InstanceType != "m7g.large" || len(w.fleet.calls) != 3 {
			t.Errorf("runner is %s at %s after %d calls, want m7g.large on demand after 3", run.State, run.Placement(), len(w.fleet.calls))
		}
	})
}

func TestNoTypeOfTheImagesArchitectureFailsWithEC2sWords(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offer([]string{"m7a.large", "m7i.large"}, []string{"subnet-a", "subnet-b"})
		w.fleet.answer = arm
		r := w.request()
		w.start(r)
		w.follow(10)
		w.failed(r, store.EndLaunchDenied, "does not match the architecture 'arm64'", "InvalidParameterValue")
		if n := len(w.fleet.calls); n != 2 || !w.alarmed(store.AlarmLaunchRefused) {
			t.Errorf("%d calls, alarm %v; want one for each type, and the alarm", n, w.alarmed(store.AlarmLaunchRefused))
		}
	})
}

func TestTypeThatHadNoCapacityIsTriedAgainBesideOnesOfAnotherArchitecture(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offer([]string{"m7g.large", "m7a.large"}, []string{"subnet-a"})
		began := time.Now()
		w.fleet.answer = func(n int, l fleet.Launch, launch func()) error {
			if l.InstanceType == "m7g.large" && time.Since(began) < 20*time.Second {
				return capacity("InsufficientInstanceCapacity")
			}
			return arm(n, l, launch)
		}
		r := w.request()
		w.start(r)
		w.state(r, store.Accepted)
		w.follow(10)
		if run := w.runnerOf(r.ID); run.InstanceID == "" || w.alarmed(store.AlarmLaunchRefused) {
			t.Errorf("runner is %s, want it launched at the second try, without an alarm", run.State)
		}
	})
}

func TestSubnetThatIsGoneIsPassedOver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offer([]string{"m7g.large", "m7a.large"}, []string{"subnet-gone", "subnet-b"})
		w.fleet.answer = func(_ int, l fleet.Launch, _ func()) error {
			if l.Subnet == "subnet-gone" {
				return &fleet.Error{Kind: fleet.ErrRefused, Case: fleet.ErrUnsuited, Code: "InvalidSubnetID.NotFound", Text: "The subnet ID 'subnet-gone' does not exist."}
			}
			return nil
		}
		for range 4 { // whichever subnet a plan begins with
			r := w.request()
			w.start(r)
			w.follow(10)
			if run := w.runnerOf(r.ID); run.InstanceID == "" || run.Placement().Subnet != "subnet-b" || run.Placement().InstanceType != "m7g.large" {
				t.Errorf("runner is %s at %s, want the first type in subnet-b", run.State, run.Placement())
			}
		}
	})
}

// images has the account's image named by a parameter, and EC2 knows those of exist
// alone. It returns what the parameter names; a fleet that learned that an image is
// gone reads the parameter again, as ec2fleet does.
func (w *world) images(named *string, exist ...string) {
	a := w.accounts[account]
	reg := a.Regions[region]
	reg.Images = []string{"/images/runner"}
	a.Regions[region] = reg
	kept := *named
	w.fleet.images = func(image string) (string, error) {
		if image != "/images/runner" {
			return image, nil
		}
		return kept, nil
	}
	tokens := map[string]string{}
	w.fleet.answer = func(_ int, l fleet.Launch, _ func()) error {
		if was, used := tokens[l.ClientToken]; used && was != l.Image {
			return &fleet.Error{Kind: fleet.ErrMismatch, Code: "IdempotentParameterMismatch", Text: "Arguments are inconsistent."}
		}
		tokens[l.ClientToken] = l.Image // a launch that failed binds its token too
		if !slices.Contains(exist, l.Image) {
			kept = *named
			return &fleet.Error{Kind: fleet.ErrRefused, Case: fleet.ErrImage, Code: "InvalidAMIID.NotFound", Text: fmt.Sprintf("The image id '[%s]' does not exist.", l.Image)}
		}
		return nil
	}
}

func TestImageThatIsGoneIsResolvedOnceMore(t *testing.T) {
	inWorld(t, func(w *world) {
		named := "ami-old"
		w.images(&named, "ami-new")
		named = "ami-new"
		r := w.request()
		w.start(r)
		run := w.runnerOf(r.ID)
		if run.InstanceID == "" || run.Launch.Image != "ami-new" || len(w.fleet.calls) != 2 {
			t.Fatalf("runner is %s with image %s after %d calls, want ami-new launched by the second", run.State, run.Launch.Image, len(w.fleet.calls))
		}
		a, b := w.fleet.calls[0], w.fleet.calls[1]
		if a.ClientToken == b.ClientToken || a.InstanceType != b.InstanceType || a.Subnet != b.Subnet || a.Market != b.Market {
			t.Errorf("the calls are %+v and %+v, want another token for the same placement", a, b)
		}
		if w.alarmed(store.AlarmLaunchRefused) || len(run.Attempts) != 2 || run.Attempts[0].Code != "InvalidAMIID.NotFound" {
			t.Errorf("alarm %v, attempts %v; want no alarm, and both attempts told", w.alarmed(store.AlarmLaunchRefused), run.Attempts)
		}
	})
}

func TestImageThatIsGoneFailsWithEC2sWords(t *testing.T) {
	for name, c := range map[string]struct {
		next  string // what the parameter names by now
		calls int
	}{
		"ParameterStillNamesIt":     {"ami-old", 1},
		"ParameterNamesAnotherGone": {"ami-older", 2},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				named := "ami-old"
				w.images(&named, "ami-good")
				named = c.next
				r := w.request()
				w.start(r)
				w.follow(10)
				w.failed(r, store.EndLaunchDenied, "["+c.next+"]' does not exist", "InvalidAMIID.NotFound", "/images/runner")
				if n := len(w.fleet.calls); n != c.calls || !w.alarmed(store.AlarmLaunchRefused) {
					t.Errorf("%d calls, alarm %v; want %d and the alarm", n, w.alarmed(store.AlarmLaunchRefused), c.calls)
				}
			})
		})
	}
}

func TestImageThatIsGoneAndCannotBeResolvedNowIsWaitedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		named := "ami-old"
		w.images(&named, "ami-new")
		resolve, down := w.fleet.images, false
		w.fleet.images = func(image string) (string, error) {
			if down {
				return "", errLost
			}
			return resolve(image)
		}
		refuse := w.fleet.answer
		w.fleet.answer = func(n int, l fleet.Launch, launch func()) error {
			down = n == 1
			return refuse(n, l, launch)
		}
		named = "ami-new"
		r := w.request()
		w.start(r)
		down = false
		w.follow(10)
		if run := w.runnerOf(r.ID); run.InstanceID == "" || run.Launch.Image != "ami-new" {
			t.Errorf("runner is %s with image %s, want ami-new launched once the parameter can be read", run.State, run.Launch.Image)
		}
	})
}
