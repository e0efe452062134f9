package fleet

import (
	"context"
	"time"
)

// Inspector tells what launches depend on. None of its calls launches, changes or keeps
// anything. It is safe for concurrent use, and retries nothing on its own.
type Inspector interface {
	// TakeOn takes on the role of an account, whatever session of it there is already.
	TakeOn(ctx context.Context, account string) error

	// Strangers asks for that role as somebody would who does not know its external id, and
	// returns how it was given to them all the same. Empty: nobody got it.
	Strangers(ctx context.Context, account string) (let []string, err error)

	// Vet asks EC2 whether it would take a launch. nil: its rights and its parameters would
	// do. That says nothing of capacity, and l needs no client token
	// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html, DryRun).
	Vet(ctx context.Context, at Place, l Launch) error

	// AMI describes an image by its id. One that EC2 does not know is ErrImage.
	AMI(ctx context.Context, at Place, id string) (AMI, error)

	// Subnets describes subnets by their ids. One that EC2 does not know is left out.
	Subnets(ctx context.Context, at Place, ids ...string) (map[string]Subnet, error)
}

// The ways in which strangers may get a role.
const (
	WithoutExternalID = "without an external id"
	WithAWrongOne     = "with a wrong external id"
)

// AMI is an image as EC2 shows it.
type AMI struct {
	State        string    // available, or why it is not
	Architecture string    // arm64, x86_64 and others
	RootDevice   string    // empty: it has none
	DeprecatedAt time.Time // when lists show it no more; zero: never
}

// Subnet is a subnet as EC2 shows it, with the way out of it.
type Subnet struct {
	Zone string
	Free int // addresses that are not in use
	// Out is what its default route leads to, such as igw-… or nat-…. Empty: there is none.
	Out string
	// Public: machines in it get a public address by themselves.
	Public bool
}
