// Package fleet is the contract of what launches and ends machines: EC2, or a
// simulation of it. It promises what EC2 promises and no more: a launch is
// idempotent by its client token, its outcome can stay unknown, and what List
// and Get show lags behind.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Place names an account and a region: the scope of a client token.
type Place struct {
	Account string
	Region  string
}

func (p Place) String() string { return p.Account + "/" + p.Region }

// PlaceOf returns where a runner's machine is.
func PlaceOf(r store.Runner) Place { return Place{Account: r.Account, Region: r.Region} }

// Launch is one RunInstances call for one machine. A repeated call with the same
// ClientToken must be the same in every field.
type Launch struct {
	ClientToken     string // at most 64 ASCII characters
	Market          string // store.Spot or store.OnDemand
	InstanceType    string
	Subnet          string
	Image           string // an AMI id
	SecurityGroups  []string
	InstanceProfile string            // empty: none
	Tags            map[string]string // set by the launch itself, on instance and volume
	UserData        []byte            // as the machine reads it; at most 16 KiB
	// Options are what a registration adds. Of them the call has what goes with its market
	// and instance type: no credits for a type without, no reservation for a spot machine.
	Options store.LaunchOptions `json:",omitzero"`
}

// State is what EC2 says of an instance.
type State string

// The states of an instance.
const (
	Pending      State = "pending"
	Running      State = "running"
	ShuttingDown State = "shutting-down"
	Terminated   State = "terminated"
	Stopping     State = "stopping"
	Stopped      State = "stopped"
)

// Over reports whether the machine no longer runs anything and never will.
func (s State) Over() bool { return s == Terminated }

// Instance is a machine as EC2 shows it.
type Instance struct {
	ID           string
	State        State
	ClientToken  string
	LaunchedAt   time.Time
	Market       string
	InstanceType string
	Subnet       string
	Tags         map[string]string
	Reason       string // why it ended, in EC2's words; empty: not ended
	ReasonCode   string // EC2's code for that, such as Client.InternalError; empty: EC2 gives none
}

// The tags that every launch sets. A machine is ours only if TagControlPlane
// has the name of this control plane.
const (
	TagControlPlane = "garo:control-plane"
	TagRunner       = "garo:runner"
	TagRequest      = "garo:request"
	TagRepository   = "garo:repository"
)

// The kinds of failure that callers branch on, by errors.Is. The text for people
// and EC2's code are in the *Error.
var (
	// ErrCapacity: EC2 definitely launched nothing, since this placement has no
	// capacity now. Another placement may have.
	ErrCapacity = errors.New("no capacity")
	// ErrUnknown: EC2 may or may not have launched; also after throttling and
	// any error that is not understood. Only the same call again can tell.
	ErrUnknown = errors.New("outcome unknown")
	// ErrThrottled is an ErrUnknown that says to slow down.
	ErrThrottled = errors.New("throttled")
	// ErrMismatch: the token is bound to a call with other parameters.
	ErrMismatch = errors.New("client token is bound to another launch")
	// ErrGone: the token is bound to an instance that is already terminated.
	ErrGone = errors.New("the launched instance is terminated")
	// ErrRefused: EC2 or STS will refuse this call until a person changes something.
	ErrRefused = errors.New("refused")
	// ErrNotFound: there is no such instance; or not yet, or no longer.
	ErrNotFound = errors.New("instance not found")
)

// The cases of a kind that callers branch on as well, by errors.Is.
var (
	// ErrUnfamiliar is an ErrUnknown by a code that EC2's documentation does not
	// have: the same call may tell, but if it has the same code again, a person has
	// to look.
	ErrUnfamiliar = errors.New("unfamiliar answer")
	// ErrUnsuited is an ErrRefused of this placement: another one may do.
	ErrUnsuited = errors.New("placement refused")
	// ErrImage is an ErrRefused since the image does not exist, or no longer.
	ErrImage = errors.New("image refused")
)

// Error is a failed call.
type Error struct {
	Kind error  // one of the kinds above
	Case error  // one of the cases of that kind; nil: none of them
	Code string // EC2's or STS's error code, such as InsufficientInstanceCapacity
	Text string // a sentence for an operator; never an encoded authorization message
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Code, e.Text) }

// Is matches the kind and the case; a throttled call's outcome is unknown too.
func (e *Error) Is(target error) bool {
	return e.Kind == target || e.Case != nil && e.Case == target || e.Kind == ErrThrottled && target == ErrUnknown
}

// Fleet launches and ends machines. It is safe for concurrent use. Every method
// makes as few calls as it can, and retries nothing on its own.
type Fleet interface {
	// Image resolves an AMI id or the path of an SSM parameter to an AMI id. What a
	// path names may be minutes old; but after an ErrImage of Launch, the path is
	// read again before it names that image again.
	Image(ctx context.Context, at Place, image string) (string, error)

	// RootVolume returns the root volume of an AMI, and its architecture. That never changes, and may be remembered.
	// An image that EC2 does not know is ErrImage, as at Launch.
	RootVolume(ctx context.Context, at Place, ami string) (store.Root, error)

	// Types returns the instance types of a region that rules may let in: all that do, and
	// maybe others. What EC2 offers changes in weeks, and may be remembered for an hour.
	Types(ctx context.Context, at Place, rules store.Requirements) ([]store.InstanceType, error)

	// Launch starts one machine, once per client token. Any error that is not a
	// *Error, a context's included, is an ErrUnknown.
	Launch(ctx context.Context, at Place, l Launch) (Instance, error)

	// ByToken finds the instance of a client token that carries runner's tag, in
	// any state. It fails with ErrNotFound.
	ByToken(ctx context.Context, at Place, runner, token string) (Instance, error)

	// Get returns those of the instances that EC2 knows, by id, in any state.
	// That one is not in the answer says little: the view lags.
	Get(ctx context.Context, at Place, ids ...string) (map[string]Instance, error)

	// List yields the instances of a control plane, in any state, page by page.
	// After an error the list is incomplete: nothing follows from absence.
	List(ctx context.Context, at Place, controlPlane string) iter.Seq2[Instance, error]

	// SpotPrices returns what an hour of a spot machine costs now, by store.SpotKey of each
	// of the instance types (none: of all that there are) and each zone that one of the
	// subnets is in, and the zones, by subnet. What EC2 does not offer has no price, and a subnet that it does not know no
	// zone.
	SpotPrices(ctx context.Context, at Place, types, subnets []string) (hour map[string]store.MicroUSD, zones map[string]string, err error)

	// Console returns the end of what an instance printed on its console, as Printed has
	// it. EC2 has it for the machine's life and about an hour longer, on types that are
	// not Nitro only minutes after it was printed. Empty: it has nothing, or not yet.
	// One that EC2 does not know is ErrNotFound.
	Console(ctx context.Context, at Place, id string) (string, error)

	// Terminate ends instances, from 1 to MaxTerminate, in one call. Ending one that
	// is already ended is no error; one that EC2 does not know is ErrNotFound, and one
	// that is protected is ErrRefused.
	//
	// After any error but for one id alone, nothing is known of any of them: for the
	// sake of one that it does not know EC2 ends none, and for the sake of one that is
	// protected none in that one's zone
	// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_TerminateInstances.html).
	// Calls for each alone then tell.
	Terminate(ctx context.Context, at Place, ids ...string) error
}

// MaxTerminate is how many instances one Terminate ends: EC2 takes 1,000 ids, and
// recommends smaller groups
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_TerminateInstances.html).
const MaxTerminate = 100
