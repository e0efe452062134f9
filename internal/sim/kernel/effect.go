package kernel

import (
	"fmt"
	"strings"
	"time"
)

// The parts of a world, as effects name those who make calls.
const (
	API     = "api"
	Worker  = "worker"
	Reaper  = "reaper"
	Machine = "machine" // an agent
	Client  = "client"  // a caller
	GitHub  = "github"  // what GitHub delivers
	Source  = "source"  // what hands the queue's messages to workers, as Lambda's event source does
)

// The operations of an effect.
const (
	Get    = "get" // of items; of instances; of a registration
	Commit = "commit"
	Due    = "due"
	List   = "list"
	Count  = "count"

	Send   = "send"
	Delete = "delete" // of a message; of a registration

	Image     = "image"
	Root      = "root"
	Types     = "types"
	Launch    = "launch"
	ByToken   = "by token"
	Console   = "console"
	Terminate = "terminate"

	TakeOn    = "take on"
	Strangers = "strangers"
	Vet       = "vet"
	AMI       = "ami"
	Subnets   = "subnets"

	Mint = "mint"
	Find = "find"

	Call = "call" // of the API
)

// Effect is one call that a part of GARO makes of what is around it: the store,
// the queue, EC2, GitHub or, over the network, the API.
type Effect struct {
	N    int    // counts the effects of the world, from 1
	Of   int    // counts those of its Part, from 1
	Nth  int    // counts those of its Name, from 1
	Part string // who makes it
	By   string // the invocation, such as worker-3; empty: Machine, Client and Source have none
	For  string // of API: the call that it answers, in the words of that call's What
	Op   string
	What string // what it is about, in words that are the same whenever the same happens
	On   string // the ids
	To   string // who is called: one of the To constants
	At   time.Time
	Fate Fate // in a trace
	// Change is what it changed in the records, in a trace, such as
	// "request 1f waiting to ready".
	Change []string

	Fated func() // called once its fate is known, before anything else; nil: nothing
}

// Whom an effect calls.
const (
	ToStore  = "store"
	ToQueue  = "queue"
	ToEC2    = "ec2"
	ToGitHub = "github"
	ToSSM    = "ssm"
	ToAPI    = "api"
)

// Name tells which step it is, in every world in which the same happens.
func (e Effect) Name() string {
	s := e.Part + " "
	if e.For != "" {
		s += e.For + ": "
	}
	return s + e.Op + " " + e.What
}

func (e Effect) String() string {
	s := fmt.Sprintf("%4d %s %-10s %s %s", e.N, e.At.Format("15:04:05.000000"), e.By, e.Name(), e.On)
	if e.Fate != Pass {
		s += " -> " + e.Fate.String()
	}
	if len(e.Change) > 0 {
		s += "  [" + strings.Join(e.Change, ", ") + "]"
	}
	return s
}

// Fate is what becomes of an effect.
type Fate int

// The fates. A kill is the end of the invocation: whatever it still calls is
// refused without effect, and what it logs is lost. Who is no invocation cannot be
// killed: its call fails.
const (
	Pass       Fate = iota
	FailBefore      // no effect, and an error that tells nothing
	FailAfter       // the effect, and an error that tells nothing
	FailLate        // an error that tells nothing, and the effect later; a read has none
	KillBefore      // no effect, and the invocation is dead
	KillAfter       // the effect, and the invocation is dead
	Pause           // the caller stands still for a while, and then continues
	Twice           // the effect twice: what came between repeated the call
	Throttle        // no effect, and an answer that says to come again later
	Refuse          // of EC2 and GitHub: no effect, and an answer that says that it may not be
	Hold            // of a message: it comes much later
)

// Fates lists those that bring harm to a step.
var Fates = []Fate{FailBefore, FailAfter, KillBefore, KillAfter}

func (f Fate) String() string {
	return [...]string{"Pass", "FailBefore", "FailAfter", "FailLate", "KillBefore", "KillAfter",
		"Pause", "Twice", "Throttle", "Refuse", "Hold"}[f]
}
