package simfleet

import (
	"fmt"
	"regexp"
	"time"

	"golang.org/x/time/rate"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// supply is what EC2 has to launch on: calls, images and capacity. It is used with
// the World's lock.
type supply struct {
	launches     Rate
	architecture func(image string) string // nil: any image suits any type

	without map[Placement]bool // has no capacity
	gone    map[string]bool    // images that are deregistered
	buckets map[fleet.Place]*rate.Limiter
}

func newSupply(cfg WorldConfig) supply {
	return supply{
		launches:     cfg.Launches,
		architecture: cfg.Architecture,
		without:      map[Placement]bool{},
		gone:         map[string]bool{},
		buckets:      map[fleet.Place]*rate.Limiter{},
	}
}

// admit takes a token from the bucket of a place.
func (s *supply) admit(at fleet.Place, now time.Time) bool {
	if s.launches.PerSecond == 0 {
		return true
	}
	b := s.buckets[at]
	if b == nil {
		b = rate.NewLimiter(rate.Limit(s.launches.PerSecond), s.launches.Burst)
		s.buckets[at] = b
	}
	return b.AllowN(now, 1)
}

// short returns why there is nothing to launch on; nil: there is.
func (s *supply) short(l fleet.Launch) error {
	if err := s.unsuited(l); err != nil {
		return err
	}
	if s.full(l) {
		return &fleet.Error{Kind: fleet.ErrCapacity, Code: "InsufficientInstanceCapacity", Text: fmt.Sprintf("no %s capacity for %s in %s", l.Market, l.InstanceType, l.Subnet)}
	}
	return nil
}

// graviton are the instance types of arm64: a1, and those with a g right behind
// the number of their generation
// (https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html).
var graviton = regexp.MustCompile(`^(a1|[a-z]+[0-9]+g)`)

// unsuited returns why EC2 refuses an image, in the words of
// https://github.com/skypilot-org/skypilot/issues/6315 and of EC2's error codes.
func (s *supply) unsuited(l fleet.Launch) error {
	if s.gone[l.Image] {
		return &fleet.Error{Kind: fleet.ErrRefused, Case: fleet.ErrImage, Code: "InvalidAMIID.Unavailable", Text: fmt.Sprintf("The image ID '%s' is no longer available.", l.Image)}
	}
	if s.architecture == nil {
		return nil
	}
	image, kind := s.architecture(l.Image), "x86_64"
	if graviton.MatchString(l.InstanceType) {
		kind = "arm64"
	}
	if image == "" || image == kind {
		return nil
	}
	return &fleet.Error{
		Kind: fleet.ErrRefused, Case: fleet.ErrUnsuited, Code: "InvalidParameterValue",
		Text: fmt.Sprintf("The architecture '%s' of the specified instance type does not match the architecture '%s' of the specified AMI.", kind, image),
	}
}

// full reports whether a launch has no capacity.
func (s *supply) full(l fleet.Launch) bool {
	for _, market := range []string{l.Market, ""} {
		for _, kind := range []string{l.InstanceType, ""} {
			for _, subnet := range []string{l.Subnet, ""} {
				if s.without[Placement{market, kind, subnet}] {
					return true
				}
			}
		}
	}
	return false
}
