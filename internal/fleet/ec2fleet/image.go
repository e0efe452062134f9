package ec2fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/ssmparam"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
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
