package ec2fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/ssmparam"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Image implements fleet.Fleet. What a parameter says is kept for five minutes, as
// ssmparam.Reader promises, unless EC2 said meanwhile that there is no such image.
func (f *Fleet) Image(ctx context.Context, at fleet.Place, image string) (string, error) {
	if !strings.HasPrefix(image, "/") {
		return image, nil
	}
	text, err := f.sessions.Parameter(ctx, at, image, false)
	if err == nil && f.disowned(at, strings.TrimSpace(text.Reveal())) {
		text, err = f.sessions.Parameter(ctx, at, image, true)
	}
	refused := func(format string, args ...any) error {
		return &fleet.Error{Kind: fleet.ErrRefused, Code: "ImageParameter", Text: fmt.Sprintf("SSM parameter %s in %s ", image, at) + fmt.Sprintf(format, args...)}
	}
	switch ami := strings.TrimSpace(text.Reveal()); {
	case errors.Is(err, fleet.ErrRefused):
		return "", err
	case errors.Is(err, ssmparam.ErrNoParameter):
		return "", refused("does not exist: make it, or change the registration's images.")
	case errors.Is(err, ssmparam.ErrDenied):
		return "", refused("may not be read: allow the account's role ssm:GetParameter on it.")
	case err != nil: // SSM's errors are not EC2's: what is left of them passes
		return "", judged(err, func(string, int) verdict { return verdict{kind: fleet.ErrUnknown} })
	case !strings.HasPrefix(ami, "ami-"):
		return "", refused("has no AMI id: name one that has nothing else.")
	default:
		return ami, nil
	}
}

// maxRoots bounds the images that are remembered, at a hundred bytes each. An account has
// fewer in use, and one that is forgotten costs a call.
const maxRoots = 1000

// RootVolume implements fleet.Fleet: it asks EC2 once for each image.
func (f *Fleet) RootVolume(ctx context.Context, at fleet.Place, id string) (store.Root, error) {
	f.mu.Lock()
	root, known := f.roots[ami{at, id}]
	f.mu.Unlock()
	if known {
		return root, nil
	}
	var out *ec2.DescribeImagesOutput
	err := f.do(ctx, at, func(c *client, as func(*ec2.Options)) (err error) {
		out, err = c.images(ctx, &ec2.DescribeImagesInput{ImageIds: []string{id}}, as)
		return err
	})
	if err == nil && len(out.Images) == 0 {
		err = noImage(id)
	}
	switch {
	case errors.Is(err, fleet.ErrImage):
		f.disown(at, id)
		fallthrough
	case err != nil:
		return store.Root{}, fmt.Errorf("look at image %s in %s: %w", id, at, err)
	}
	root.Device, root.Arch = aws.ToString(out.Images[0].RootDeviceName), string(out.Images[0].Architecture)
	for _, m := range out.Images[0].BlockDeviceMappings {
		if aws.ToString(m.DeviceName) == root.Device && m.Ebs != nil {
			root.SizeGB = int(aws.ToInt32(m.Ebs.VolumeSize))
		}
	}
	if root.Device == "" || root.SizeGB == 0 {
		return store.Root{}, &fleet.Error{Kind: fleet.ErrRefused, Code: "NoRootVolume", Text: "Image " + id + " in " + at.String() + " has no root volume of EBS, whose size could be set. Use another image, or take root_volume out of the registration."}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.roots) >= maxRoots {
		clear(f.roots)
	}
	f.roots[ami{at, id}] = root
	return root, nil
}

// noImage is what EC2 says of an image that it does not show.
func noImage(id string) error {
	return &fleet.Error{Kind: fleet.ErrRefused, Case: fleet.ErrImage, Code: "InvalidAMIID.NotFound", Text: "EC2 shows no image " + id + ". " + verdicts["InvalidAMIID"].advice}
}

// ami is an image of one place.
type ami struct {
	at fleet.Place
	id string
}

// disown notes that EC2 does not know an image.
func (f *Fleet) disown(at fleet.Place, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone[ami{at, id}] = true
}

// disowned reports, once for each time that it was noted, that EC2 does not know an
// image: the next caller reads again what named it.
func (f *Fleet) disowned(at fleet.Place, id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.gone[ami{at, id}]
	delete(f.gone, ami{at, id})
	return was
}
