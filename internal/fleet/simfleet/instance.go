package simfleet

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// Why an instance ended, in EC2's words
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html).
const (
	reasonUser     = "Client.UserInitiatedShutdown: User initiated shutdown"
	reasonInstance = "Client.InstanceInitiatedShutdown: Instance initiated shutdown"
	reasonSpot     = "Server.SpotInstanceTermination: Spot instance termination"
)

// instance is one machine: all of it that is kept. What state it is in follows
// from its times.
type instance struct {
	Seq        int // the how-manyeth machine of this world
	ID         string
	At         fleet.Place
	Zone       string
	Launch     fleet.Launch // of a planted one: the tags alone
	Planted    bool
	NeverBoots bool
	LaunchedAt time.Time
	RunsAt     time.Time // when it is no longer pending

	// EndsAt is when it begins to shut down: in the future while a timer or an
	// interruption is ahead, and only ever earlier. Zero: nothing ends it yet.
	EndsAt   time.Time
	Reason   string // why then, in EC2's words
	PowerOff string // why it switches itself off then, in its own words

	Protected      bool      // from termination, by a person
	StoppedAt      time.Time // when a person stopped it, for good; zero: nobody did
	NoticeAt       time.Time // when its interruption was announced; zero: it was not
	CredentialedAt time.Time // when it got its first config; zero: never
	Rooted         bool      // a job has root there: it does not switch itself off

	Edited map[string]string // the tags that it was given since; nil: it has those of its launch
}

// tags are those that i has by now.
func (i *instance) tags() map[string]string {
	if i.Edited != nil {
		return i.Edited
	}
	return i.Launch.Tags
}

// end makes i begin to shut down at a time, or now if that has passed; it
// reports false if something does so earlier already.
func (i *instance) end(now, at time.Time, reason, powerOff string) bool {
	if at.Before(now) {
		at = now
	}
	if !i.EndsAt.IsZero() && !at.Before(i.EndsAt) {
		return false
	}
	i.EndsAt, i.Reason, i.PowerOff = at, reason, powerOff
	return true
}

// clone copies what l refers to.
func clone(l fleet.Launch) fleet.Launch {
	l.SecurityGroups = slices.Clone(l.SecurityGroups)
	l.Tags = maps.Clone(l.Tags)
	l.UserData = bytes.Clone(l.UserData)
	return l
}

// scope is what a client token is unique in.
type scope struct {
	At    fleet.Place
	Zone  string
	Token string
}

func (s scope) key() string { return fmt.Sprintf("%s/%q/%q", s.At, s.Zone, s.Token) }

// binding is what a client token stands for.
type binding struct {
	Scope scope
	Print string    // of the launch
	Until time.Time // of a launch that failed: when the token is free again

	instance *instance // nil: the launch failed
}

// fingerprint is equal for launches that are equal to the byte.
func fingerprint(l fleet.Launch) string {
	if len(l.SecurityGroups) == 0 {
		l.SecurityGroups = nil
	}
	if len(l.Tags) == 0 {
		l.Tags = nil
	}
	if len(l.UserData) == 0 {
		l.UserData = nil
	}
	b, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings and bytes always marshal
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}
