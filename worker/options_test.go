package worker_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// optioned gives the account what a registration can set.
func (w *world) optioned() {
	a := w.accounts[account]
	r := a.Regions[region]
	r.RootVolume, r.CapacityReservation = store.Volume{SizeGB: 50, Type: "gp3"}, "open"
	a.Regions = map[string]store.Region{region: r}
	a.MachineOptions = store.MachineOptions{
		MaxRootVolumeGB: 200, Tags: map[string]string{"team": "build", fleet.TagRunner: "another"}, RequestTags: []string{"job"}, SpotMaxPrice: "0.25",
	}
	w.accounts[account] = a
}

func TestLaunchHasTheOptionsOfTheRegistrationAndTheRequest(t *testing.T) {
	inWorld(t, func(w *world) {
		w.optioned()
		r := w.request(func(r *store.Request) { r.Machine.RootVolumeGB, r.Machine.Tags = 100, map[string]string{"job": "7"} })
		w.start(r)
		l := w.fleet.calls[0]
		want := store.LaunchOptions{
			RootDevice: "/dev/xvda", RootVolume: store.Volume{SizeGB: 100, Type: "gp3"}, TagInterface: true, SpotMaxPrice: "0.25", CapacityReservation: "open",
		}
		if !reflect.DeepEqual(l.Options, want) {
			t.Errorf("options = %+v, want %+v", l.Options, want)
		}
		if run := w.runnerOf(r.ID); l.Tags["team"] != "build" || l.Tags["job"] != "7" || l.Tags[fleet.TagRunner] != run.ID {
			t.Errorf("tags = %v, want the registration's and the request's, and ours whatever they say", l.Tags)
		}
	})
}

func TestImageIsNotLookedAtForNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fleet.roots = func(string) (store.Root, error) { t.Error("an image was looked at"); return store.Root{}, nil }
		w.start(w.request())
		if l := w.fleet.calls[0]; !reflect.DeepEqual(l.Options, store.LaunchOptions{}) {
			t.Errorf("options = %+v, want none", l.Options)
		}
	})
}

// A launch that a worker of the version before recorded is continued as that would have.
func TestLaunchWithoutOptionsIsContinuedWithoutThem(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.request()
		w.crashed(r)
		w.optioned()
		w.start(r)
		if l := w.fleet.calls[1]; !reflect.DeepEqual(l, w.fleet.calls[0]) || !reflect.DeepEqual(l.Options, store.LaunchOptions{}) {
			t.Errorf("the resumed launch has options %+v, want none", l.Options)
		}
	})
}

func TestImageThatIsGoneIsReadAgainForItsRootVolume(t *testing.T) {
	gone := &fleet.Error{Kind: fleet.ErrRefused, Case: fleet.ErrImage, Code: "InvalidAMIID.NotFound", Text: "It does not exist."}
	for name, c := range map[string]struct {
		image string // in the registration
		lost  int    // how many images in a row are gone
		looks int
		state store.RequestState
	}{
		"Path":      {"/images/runner", 1, 2, store.Waiting},
		"PathTwice": {"/images/runner", 2, 2, store.Failed},
		"AMI":       {"ami-1", 1, 1, store.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.optioned()
				w.accounts[account].Regions[region].Images[0] = c.image
				read, looked := 0, 0
				w.fleet.images = func(string) (string, error) { read++; return fmt.Sprintf("ami-%d", read), nil }
				w.fleet.roots = func(ami string) (store.Root, error) {
					if looked++; looked <= c.lost {
						return store.Root{}, gone
					}
					return store.Root{Device: "/dev/of-" + ami, SizeGB: 60}, nil
				}
				r := w.request()
				w.start(r)
				w.state(r, c.state)
				if looked != c.looks {
					t.Errorf("images were looked at %d times, want %d", looked, c.looks)
				}
				if c.state == store.Waiting {
					if l := w.fleet.calls[0]; l.Image != "ami-2" || l.Options.RootDevice != "/dev/of-ami-2" || l.Options.RootVolume.SizeGB != 60 {
						t.Errorf("launched from %s with %+v, want the newer image, and no less than its size", l.Image, l.Options)
					}
				}
			})
		})
	}
}

// The root volume is that of the image which is tried next.
func TestNextImageBringsItsRootDevice(t *testing.T) {
	inWorld(t, func(w *world) {
		w.optioned()
		w.accounts[account].Regions[region].Images[0] = "/images/runner"
		now := "ami-1"
		w.fleet.images = func(string) (string, error) { return now, nil }
		w.fleet.roots = func(ami string) (store.Root, error) { return store.Root{Device: "/dev/of-" + ami, SizeGB: 8}, nil }
		w.fleet.answer = func(_ int, l fleet.Launch, _ func()) error {
			if l.Image == "ami-1" {
				now = "ami-2"
				return &fleet.Error{Kind: fleet.ErrRefused, Case: fleet.ErrImage, Code: "InvalidAMIID.NotFound", Text: "It does not exist."}
			}
			return nil
		}
		r := w.request()
		w.start(r)
		w.state(r, store.Waiting)
		if l := w.fleet.calls[len(w.fleet.calls)-1]; l.Image != "ami-2" || l.Options.RootDevice != "/dev/of-ami-2" || l.Options.RootVolume.SizeGB != 50 {
			t.Errorf("launched from %s with %+v, want the next image's device", l.Image, l.Options)
		}
	})
}

func TestRoleThatMayNotLookAtImagesFailsTheRequest(t *testing.T) {
	inWorld(t, func(w *world) {
		w.optioned()
		w.fleet.roots = func(string) (store.Root, error) {
			return store.Root{}, &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "You may not."}
		}
		r := w.request()
		w.start(r)
		w.state(r, store.Failed)
		if got := w.requestNow(r.ID).Error; got.Code != store.EndLaunchDenied || !strings.Contains(got.Text, "You may not.") || !w.alarmed(store.AlarmAccess) {
			t.Errorf("error %+v, want launch_denied in EC2's words, and an alarm", got)
		}
	})
}
