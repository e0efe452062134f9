package apitype

import (
	"time"
)

// Admission is the body of POST /runners/{id}/admission: the job that a machine was given,
// in the words of GitHub's runner program.
type Admission struct {
	RepositoryID string `json:"repository_id"`
	Repository   string `json:"repository"` // owner/name
	OwnerID      string `json:"owner_id"`
	RunID        string `json:"run_id"`
	Attempt      int    `json:"attempt"`
}

// Admitted answers it.
type Admitted struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason,omitempty"` // why it is not, for people
}

// Boot is the body of POST /runners/{id}/boot.
type Boot struct {
	Token      string `json:"token"` // T, from the user data
	Nonce      string `json:"nonce"` // 26 random characters or more
	InstanceID string `json:"instance_id"`
	// Identity is AWS's word for the instance: what its metadata service has at
	// /latest/dynamic/instance-identity/rsa2048. Empty: it has none, or the agent is of a
	// version that does not ask for it.
	Identity string `json:"identity,omitempty"`
}

// Booted answers a boot: everything that the machine needs.
type Booted struct {
	Session    string  `json:"session"` // the bearer token of all further calls
	Config     string  `json:"config"`  // for ACTIONS_RUNNER_INPUT_JITCONFIG
	N          int     `json:"n"`       // the config's number
	Mode       string  `json:"mode"`
	HeartbeatS Seconds `json:"heartbeat_s"`
	IdleS      Seconds `json:"idle_s"`
	Lock       string  `json:"lock"` // opaque; sent back in LockHeader, it saves the API a read
	// Programs has the runner program by GOARCH, for images that have none.
	Programs map[string]RunnerProgram `json:"programs,omitempty"`
	// Environment has variables for the runner program, as the account's registration
	// says. They are no secrets.
	Environment map[string]string `json:"environment,omitempty"`
	// Asks: the machine asks by POST /runners/{id}/admission before the first step of each
	// job, and fails the job unless it may run. An agent of before does not ask.
	Asks bool `json:"asks,omitempty"`
	// Outfit is what the machine is to be beyond its image before the runner program starts.
	Outfit Outfit `json:"outfit,omitzero"`
	Orders
}

// RunnerProgram says where GitHub's runner program is.
type RunnerProgram struct {
	Version string `json:"version"` // for people
	URL     string `json:"url"`     // of the .tar.gz that GitHub releases
	SHA256  string `json:"sha256"`  // of that file, in hex
}

// LockHeader may carry Booted.Lock on every later call of the machine.
const LockHeader = "Garo-Lock"

// Orders is part of every answer to a machine.
type Orders struct {
	Order string    `json:"order"`        // go, drain or stop
	Exp   time.Time `json:"exp,omitzero"` // until when requests count on the machine
	HardS Seconds   `json:"hard_s"`       // seconds from now until the hard limit
}

// Event is the body of POST /runners/{id}/events.
type Event struct {
	Event   string `json:"event"`            // what happened, such as booting: openapi.yaml lists the words
	Counter int64  `json:"counter"`          // rises by every event
	RunID   string `json:"run_id,omitempty"` // of job_started
	Reason  string `json:"reason,omitempty"` // of draining
	Detail  string `json:"detail,omitempty"` // for people, at most 4 KiB
}

// Next is the body of POST /runners/{id}/next.
type Next struct {
	N int `json:"n"` // the lowest number of the config that is wanted
}

// NextConfig answers it: a config with order go, none with any other.
type NextConfig struct {
	Config string `json:"config,omitempty"`
	N      int    `json:"n,omitempty"`
	Orders
}
