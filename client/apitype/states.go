package apitype

// The states of a request. The last four are final.
const (
	Accepted  = "accepted" // recorded; Status.Wait says what it waits for
	Waiting   = "waiting"  // a runner is named, and not online yet
	Ready     = "ready"    // its runner was online
	Failed    = "failed"   // no runner, and Status.Error says why
	Expired   = "expired"  // no runner before give_up_at
	Cancelled = "cancelled"
)

// The states of a runner, in the order of its life. The last two are final.
const (
	RunnerNew      = "new"      // intended
	RunnerLaunched = "launched" // there is an instance
	RunnerBooting  = "booting"  // the machine has its config
	RunnerOnline   = "online"   // GitHub can give it a job
	RunnerBusy     = "busy"     // it runs a job
	RunnerDraining = "draining" // nothing new comes to it
	RunnerEnding   = "ending"   // it is being terminated
	RunnerEnded    = "ended"
	RunnerFailed   = "failed" // it never came to an instance
)

// The markets of Start.Type, and the modes of Start.Mode.
const (
	Spot      = "spot"
	OnDemand  = "ondemand"
	Shared    = "shared"    // any number of requests of one repository, one job after another
	Ephemeral = "ephemeral" // one request, one job
)
