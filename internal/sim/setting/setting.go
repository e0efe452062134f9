// Package setting has what is the same in every simulated world: its names, its
// place, and the times that nothing decides.
package setting

import (
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/worker"
)

// What there is one of in every world.
const (
	ControlPlane = "sim"
	AccountID    = "111122223333"
	NeighbourID  = "444455556666" // another account, in worlds that have one
	Region       = "eu-west-2"
	OtherRegion  = "eu-west-1" // in worlds whose account has two
	Repository   = "acme/shop"
	RepositoryID = "7"
	URL          = "https://garo.sim"
	CheckTag     = "doctor" // of the runner, in what checks ask EC2 about
	GroupID      = 9        // of the runner group that admits the repository
)

// Organization is the owner of the repository, where runners register while the account's
// registration says so.
var Organization = store.Scope{Kind: store.OrganizationScope, ID: "1", Name: "acme", Group: "garo"}

// Here is where machines are launched.
var Here = fleet.Place{Account: AccountID, Region: Region}

const (
	// APITime and ReaperTime are what a call of the API and a run of the reaper
	// may take.
	APITime    = 10 * time.Second
	ReaperTime = 50 * time.Second
	// Visibility hides a message for longer than a worker may take.
	Visibility = worker.Timeout + 15*time.Second
	// Batch is how many messages a worker is given at once.
	Batch = 25
	// KillLate is how long after its deadline Lambda kills an invocation, as
	// others measured it.
	KillLate = 700 * time.Millisecond
	// Pending, Stopping and BootTime are about what EC2 takes for a small Linux machine.
	Pending, Stopping, BootTime = 5 * time.Second, 15 * time.Second, 20 * time.Second
)

// SlowType is an instance type that has SlowBoot seconds to boot.
const (
	SlowType = "m7a.large"
	SlowBoot = 420
)

// Epoch is when every world begins: testing/synctest says so.
var Epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

const (
	// Died is why a machine is off that did not switch itself off.
	Died = "a kernel panic"
	// Thief is what the nonces of thieves begin with. What they bring of AWS follows.
	Thief = "thief-"
)

// What a thief of a boot token may bring as AWS's word for a machine.
const (
	NoWord       = "none"
	SiblingsWord = "sibling" // for another machine of the account
	AccountsWord = "account" // for another account
	RegionsWord  = "region"  // for another region
	ForgedWord   = "forged"  // by a key of his own, whose certificate comes with it
	CopiedWord   = "copied"  // for the machine itself: it opens nothing without its token
)

// Words are all of them.
var Words = []string{NoWord, SiblingsWord, AccountsWord, RegionsWord, ForgedWord, CopiedWord}

// Sibling is the machine that a SiblingsWord is for.
const Sibling = "i-0123456789abcdef0"

// Nonce is that of a thief who brings a word: long enough, and the same each time.
func Nonce(word string) string { return Thief + word + "-" + strings.Repeat("x", 26) }

// WordOf returns which word the thief with a nonce brings. ok is false for a nonce of no thief.
func WordOf(nonce string) (word string, ok bool) {
	rest, ok := strings.CutPrefix(nonce, Thief)
	word, _, _ = strings.Cut(rest, "-")
	return word, ok
}

// RunnerIn returns the id of the runner that a registration's name names.
func RunnerIn(name string) string {
	id, _, _ := strings.Cut(strings.TrimPrefix(name, "garo-"+ControlPlane+"-"), "-")
	return id
}
