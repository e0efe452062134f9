package simfleet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

var _ fleet.Fleet = (*World)(nil)

// begin fails if ctx has ended or a fault is due.
func (w *World) begin(ctx context.Context, op string, at fleet.Place, l fleet.Launch) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s in %s: %w", op, at, err)
	}
	if w.cfg.Fault == nil {
		return nil
	}
	return w.cfg.Fault(op, at, l)
}

// Image implements fleet.Fleet.
func (w *World) Image(ctx context.Context, at fleet.Place, image string) (string, error) {
	if err := w.begin(ctx, OpImage, at, fleet.Launch{}); err != nil {
		return "", err
	}
	switch {
	case strings.HasPrefix(image, "ami-"):
		return image, nil
	case !strings.HasPrefix(image, "/"):
		return "", &fleet.Error{Kind: fleet.ErrRefused, Code: "ValidationException", Text: "an image is an AMI id or the path of an SSM parameter"}
	case w.cfg.Image != nil:
		return w.cfg.Image(at, image)
	}
	return fmt.Sprintf("ami-%x", sha256.Sum256([]byte(image)))[:len("ami-")+17], nil
}

// simRoot is the root volume of every image: as those of Amazon Linux have it.
var simRoot = store.Root{Device: "/dev/xvda", SizeGB: 8}

// RootVolume implements fleet.Fleet.
func (w *World) RootVolume(ctx context.Context, at fleet.Place, ami string) (store.Root, error) {
	if err := w.begin(ctx, OpRoot, at, fleet.Launch{Image: ami}); err != nil {
		return store.Root{}, err
	}
	w.hold()
	defer w.release()
	if w.supply.gone[ami] {
		return store.Root{}, w.supply.unsuited(fleet.Launch{Image: ami})
	}
	root := simRoot
	if w.cfg.Architecture != nil {
		root.Arch = w.cfg.Architecture(ami)
	}
	return root, nil
}

// Launch implements fleet.Fleet.
func (w *World) Launch(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
	if !w.admit(at) {
		return fleet.Instance{}, throttled(at)
	}
	fault := w.begin(ctx, OpLaunch, at, l)
	if fault != nil && !errors.Is(fault, fleet.ErrCapacity) {
		return fleet.Instance{}, fault
	}
	if err := acceptable(l); err != nil {
		return fleet.Instance{}, err
	}
	i, err := w.launch(at, l, fault)
	if err == nil {
		w.notify(i.ID)
	}
	return i, err
}

func throttled(at fleet.Place) error {
	return &fleet.Error{Kind: fleet.ErrThrottled, Code: "RequestLimitExceeded", Text: "too many calls of RunInstances in " + at.String()}
}

// admit reports whether a place lets one more call of RunInstances in.
func (w *World) admit(at fleet.Place) bool {
	w.hold()
	defer w.release()
	return w.supply.admit(at, w.now())
}

func refuse(code, text string) error {
	return &fleet.Error{Kind: fleet.ErrRefused, Code: code, Text: text}
}

// acceptable refuses what EC2 refuses.
func acceptable(l fleet.Launch) error {
	switch {
	case l.ClientToken == "" || len(l.ClientToken) > 64 || strings.ContainsFunc(l.ClientToken, func(r rune) bool { return r <= ' ' || r > '~' }):
		return refuse("InvalidParameterValue", "a client token has 1 to 64 ASCII characters")
	case l.Market != store.Spot && l.Market != store.OnDemand:
		return refuse("InvalidParameterValue", fmt.Sprintf("market %q is neither spot nor ondemand", l.Market))
	case l.InstanceType == "" || l.Subnet == "":
		return refuse("MissingParameter", "a launch names an instance type and a subnet")
	case !strings.HasPrefix(l.Image, "ami-"):
		return refuse("InvalidAMIID.Malformed", fmt.Sprintf("image %q is no AMI id", l.Image))
	case len(l.UserData) > bootstrap.MaxUserData:
		return refuse("InvalidParameterValue", fmt.Sprintf("user data of %d bytes, at most %d", len(l.UserData), bootstrap.MaxUserData))
	}
	if err := acceptableOptions(l); err != nil {
		return err
	}
	return acceptableTags(l.Tags)
}

// acceptableOptions refuses what EC2 refuses of the details of a call.
func acceptableOptions(l fleet.Launch) error {
	v := l.Options.RootVolume
	switch {
	case l.Options.RootDevice == "" && v != store.Volume{}:
		return refuse("MissingParameter", "a block device mapping names its device")
	case l.Options.RootDevice != "" && v.SizeGB > 0 && v.SizeGB < simRoot.SizeGB:
		return refuse("InvalidBlockDeviceMapping", fmt.Sprintf("Volume of size %dGB is smaller than snapshot, expect size >= %dGB", v.SizeGB, simRoot.SizeGB))
	}
	return nil
}

// acceptableTags holds tags to EC2's restrictions
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions).
func acceptableTags(tags map[string]string) error {
	if len(tags) > 50 {
		return refuse("TagLimitExceeded", fmt.Sprintf("%d tags, at most 50", len(tags)))
	}
	for k, v := range tags {
		if k == "" || len(k) > 128 || len(v) > 256 || strings.HasPrefix(k, "aws:") {
			return refuse("InvalidParameterValue", "a tag has a key of 1 to 128 characters, not in aws:, and a value of at most 256")
		}
	}
	return nil
}

// launch is RunInstances behind throttling and validation. short, if it is not
// nil, is the lack of capacity that a fault asks for. What EC2 refuses once it has
// looked at the parameters binds the token, as a lack of capacity does.
func (w *World) launch(at fleet.Place, l fleet.Launch, short error) (fleet.Instance, error) {
	w.hold()
	defer w.release()
	now := w.now()
	if err := w.prune(now); err != nil {
		return fleet.Instance{}, err
	}
	zone := w.zone(l.Subnet)
	s := scope{at, zone, l.ClientToken}
	print := fingerprint(l)
	if b := w.tokens[s]; b != nil && !w.free(b, now) {
		if i, err := w.again(b, print, now); i.ID != "" || err != nil {
			return i, err
		}
	}
	if short == nil {
		short = w.supply.short(l)
	}
	if short != nil {
		if err := w.bind(binding{Scope: s, Print: print, Until: now.Add(bound)}); err != nil {
			return fleet.Instance{}, err
		}
		return fleet.Instance{}, short
	}
	i, err := w.launched(at, zone, l, now)
	if err != nil {
		return fleet.Instance{}, err
	}
	if err := w.keep(i); err != nil {
		return fleet.Instance{}, err
	}
	return w.show(w.byID[i.ID], now), nil
}

// again is the answer to a launch with a token that is bound. It is empty after a
// launch that failed: that may be tried again.
func (w *World) again(b *binding, print string, now time.Time) (fleet.Instance, error) {
	switch {
	case b.Print != print:
		return fleet.Instance{}, &fleet.Error{Kind: fleet.ErrMismatch, Code: "IdempotentParameterMismatch", Text: "the client token was used for a launch with other parameters"}
	case b.instance == nil:
		return fleet.Instance{}, nil
	case w.state(b.instance, now).Over():
		return fleet.Instance{}, &fleet.Error{Kind: fleet.ErrGone, Code: "IdempotentInstanceTerminated", Text: "the client token is that of instance " + b.instance.ID + ", which is terminated"}
	}
	return w.show(b.instance, now), nil
}

// launched returns a new instance, which nothing knows yet.
func (w *World) launched(at fleet.Place, zone string, l fleet.Launch, now time.Time) (instance, error) {
	id, err := w.id()
	if err != nil {
		return instance{}, err
	}
	n := w.count + 1
	i := instance{
		Seq:        n,
		ID:         id,
		At:         at,
		Zone:       zone,
		Launch:     clone(l),
		NeverBoots: w.cfg.NeverBoots != nil && w.cfg.NeverBoots(n),
		LaunchedAt: now,
		RunsAt:     now.Add(w.cfg.Pending),
	}
	if w.cfg.Dies != nil {
		if reason := w.cfg.Dies(n, clone(l)); reason != "" {
			i.NeverBoots = true
			i.end(now, i.RunsAt, reason, "")
		}
	}
	return i, nil
}

// ByToken implements fleet.Fleet. Of several, in different zones, it finds the
// one that was launched first.
func (w *World) ByToken(ctx context.Context, at fleet.Place, runner, token string) (fleet.Instance, error) {
	if err := w.begin(ctx, OpByToken, at, fleet.Launch{}); err != nil {
		return fleet.Instance{}, err
	}
	w.hold()
	defer w.release()
	seen := w.now().Add(-w.lag)
	for _, i := range w.order {
		if i.At == at && i.Launch.ClientToken == token && i.tags()[fleet.TagRunner] == runner && w.sees(i, seen) {
			return w.show(i, seen), nil
		}
	}
	return fleet.Instance{}, &fleet.Error{Kind: fleet.ErrNotFound, Code: "InvalidInstanceID.NotFound", Text: "no instance of runner " + runner + " with that client token"}
}

// Get implements fleet.Fleet.
func (w *World) Get(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Instance, error) {
	if err := w.begin(ctx, OpGet, at, fleet.Launch{}); err != nil {
		return nil, err
	}
	w.hold()
	defer w.release()
	seen := w.now().Add(-w.lag)
	found := make(map[string]fleet.Instance, len(ids))
	for _, id := range ids {
		if i := w.byID[id]; i != nil && i.At == at && w.sees(i, seen) {
			found[id] = w.show(i, seen)
		}
	}
	return found, nil
}

// List implements fleet.Fleet: in the order of their launches, each page as the
// world is when it is fetched.
func (w *World) List(ctx context.Context, at fleet.Place, controlPlane string) iter.Seq2[fleet.Instance, error] {
	return func(yield func(fleet.Instance, error) bool) {
		for after, more := 0, true; more; {
			var page []fleet.Instance
			var err error
			page, after, more, err = w.page(ctx, at, controlPlane, after)
			if err != nil {
				yield(fleet.Instance{}, err)
				return
			}
			for _, i := range page {
				if !yield(i, nil) {
					return
				}
			}
		}
	}
}

// page returns the instances behind the one of number after, the number of the
// last, and whether there are more.
func (w *World) page(ctx context.Context, at fleet.Place, controlPlane string, after int) (page []fleet.Instance, last int, more bool, err error) {
	if err := w.begin(ctx, OpList, at, fleet.Launch{}); err != nil {
		return nil, 0, false, err
	}
	w.hold()
	defer w.release()
	seen := w.now().Add(-w.lag)
	for _, i := range w.order {
		if i.Seq <= after || i.At != at || i.tags()[fleet.TagControlPlane] != controlPlane || !w.sees(i, seen) {
			continue
		}
		if len(page) == w.cfg.PageSize {
			return page, last, true, nil
		}
		page, last = append(page, w.show(i, seen)), i.Seq
	}
	return page, last, false, nil
}
