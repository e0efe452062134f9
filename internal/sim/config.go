package sim

import (
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/gateway"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Config is what may differ between worlds. The zero value is a world in which
// everything works.
type Config struct {
	Seed uint64
	// Fate decides what becomes of each effect; nil: all pass. It is called
	// without any lock, on the goroutine of the caller, whom it may keep waiting.
	// SetFate changes it.
	Fate func(kernel.Effect) kernel.Fate
	// Span says how long a FailLate, a Pause or a Hold takes; nil: a minute.
	Span func(kernel.Effect) time.Duration
	// Most is the number of effects at which a world counts as one that does not
	// come to rest; 0: there is none.
	Most int
	// Account changes the registration.
	Account func(*store.Account)
	// Neighbour registers another account, which is like the one of the world.
	Neighbour bool
	// Window is how long messages are gathered for a batch that is not full; 0: not at all.
	Window time.Duration
	// Throttles are what API Gateway lets in, by route, such as "POST /start"; nil: all.
	Throttles map[string]gateway.Throttle
	// Skew is by how much the clock of a part, which is API, Worker or Reaper, is
	// ahead.
	Skew map[string]time.Duration
	// KillLate is how long after its deadline an invocation is killed; 0: 0.7 s.
	KillLate time.Duration
	// IndexLag is by how much the due index is behind the items. SetIndexLag
	// changes it.
	IndexLag time.Duration
	// Rounds says when the reaper runs in the n-th minute, counted from its
	// begin; nil: once, at once.
	Rounds func(n int) []time.Duration
	// Shards is how many runs of the reaper share its work; 0 and 1: there is one.
	Shards int
	// Deliver changes what a worker is given of what the queue delivered; nil: it
	// is given all.
	Deliver func(w *World, ds []queue.Delivery) []queue.Delivery
	// APIs is how many processes the API has, which take turns, as Lambda has one for
	// each call at a time; 0: one.
	APIs int
	// Warm has the reaper run in the environment that an earlier run left, if
	// there is one.
	Warm bool
	// EC2 is asked before each operation of EC2 has any effect; nil: nothing fails.
	EC2 func(op string, l fleet.Launch) error
	// Metadata is asked before the metadata service of a machine answers; nil: it does.
	Metadata func() error
	// SetUp says how long the n-th machine takes to become what its account wants, and
	// whether it does; nil: at once. PlainAgent says of which machines, by the number of
	// their boot, the agent is of the version before it could; nil: of none.
	SetUp      func(n int) (took time.Duration, err error)
	PlainAgent func(n int) bool
	// NeverBoots says which machines run and do nothing, by the number of their
	// launch; nil: all boot.
	NeverBoots func(n int) bool
	// World changes EC2's side further: which machines die, which images there are.
	World func(*simfleet.WorldConfig)
	// GitHub is asked before each call of GitHub's API is looked at; nil: nothing
	// goes wrong.
	GitHub func(op string) simgithub.Fault
	// Prices has the reaper read the prices of machines.
	Prices bool
	// Plain has the account offer machines to workflow jobs that name the label Plain.
	Plain bool
	// Webhook says when GitHub delivers what it tells of a workflow job, by what happened:
	// not at all, or some times, each so long after it. nil: once, in a moment.
	Webhook func(job, event string) []time.Duration
	// Logged says of one that is not delivered at all whether GitHub tried, and wrote down
	// that it could not; nil: it never tried.
	Logged func(job, event string) bool
	// Nameless says whether it leaves out there on which runner a job is; nil: never.
	Nameless func(job, event string) bool
	// ReadLag is how old the answers of GitHub about workflow jobs are; nil: not at all.
	ReadLag func() time.Duration
	// Two gives the account two credentials.
	Two bool
	// Refuses says how GitHub refuses one of the account's credentials, by its place, whatever
	// that asks for; nil, or its answer: not at all.
	Refuses func(credential int) *simgithub.Refusal
	// GitHubLimit is what GitHub lets each credential ask; its zero value: anything. With
	// one, GARO keeps its budget.
	GitHubLimit simgithub.Limit
	// Ghosts are runner programs that do not notice when GitHub forgets them.
	Ghosts bool
	// Limits changes the numbers of production.
	Limits func(*store.Limits)
	// Gate, unless it is nil, holds effects.
	Gate *kernel.Gate
	// Found hears what does not hold, in place of the test, which then does
	// not fail.
	Found func(what string)
}
