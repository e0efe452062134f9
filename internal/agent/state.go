package agent

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// state is what the agent must still know when its process is started again. It
// holds secrets in the clear: what keeps it is readable by root alone.
type state struct {
	Runner string    `json:"runner"` // whose state it is
	Nonce  string    `json:"nonce"`  // saved before it is first sent: another one would look like a thief
	Hard   time.Time `json:"hard"`   // what the machine's timer is set to
	// Counter is the last counter that may have been used, rounded up.
	Counter int64 `json:"counter"`

	// What the boot call answered. No Session: it has not been answered yet.
	Session    string                `json:"session,omitempty"`
	Lock       string                `json:"lock,omitempty"`
	Mode       string                `json:"mode,omitempty"`
	HeartbeatS apitype.Seconds       `json:"heartbeat_s,omitempty"`
	IdleS      apitype.Seconds       `json:"idle_s,omitempty"`
	Program    apitype.RunnerProgram `json:"program,omitzero"`
	// Environment is for the runner program. An API before it was answered has none.
	Environment map[string]string `json:"environment,omitempty"`
	Outfit      apitype.Outfit    `json:"outfit,omitzero"`
	// Asks: jobs wait to be told whether they may run.
	Asks bool `json:"asks,omitempty"`

	N       int    `json:"n,omitempty"`       // the number of the newest config
	Config  string `json:"config,omitempty"`  // the newest config, until a program was started with it
	Started bool   `json:"started,omitempty"` // a program was started with it, and its end is not dealt with yet
	Job     string `json:"job,omitempty"`     // that program's job: "", jobRuns or jobOver
	RunID   string `json:"run_id,omitempty"`  // that job's run, if it is known

	// Listening: it was reported that the program listens.
	Listening bool `json:"listening,omitempty"`

	Online   bool `json:"online,omitempty"`    // some program has been connected
	Jobless  int  `json:"jobless,omitempty"`   // programs in a row that ended without a job
	Dirty    bool `json:"dirty,omitempty"`     // to be cleaned before the next config is asked for
	Asking   bool `json:"asking,omitempty"`    // the next config is asked for
	Draining bool `json:"draining,omitempty"`  // no further program is started
	SaidIdle bool `json:"said_idle,omitempty"` // while draining
	Spot     bool `json:"spot,omitempty"`      // the interruption was reported

	Outbox []apitype.Event `json:"outbox,omitempty"` // events that are not answered yet, in order
	// End is why the machine powers off once the outbox is empty. Empty: it does not.
	End string `json:"end,omitempty"`
}

// The states of a program's job.
const (
	jobRuns = "runs"
	jobOver = "over"
)

// memory is what the agent knows, and how it keeps that on the machine's disk.
type memory struct {
	cfg Config
	log *slog.Logger

	s       state
	saved   string // the state as it was saved last
	counter int64
	config  string // the newest one that was started, to be kept out of what is said
}

// load takes up what an earlier process left, or begins with a nonce of its own.
func (m *memory) load() error {
	b, err := m.cfg.Machine.Load()
	if err != nil {
		return fmt.Errorf("load state: %w", err)
	}
	if len(b) > 0 {
		var s state
		if json.Unmarshal(b, &s) != nil {
			return fmt.Errorf("load state: %d bytes that are none of ours", len(b))
		}
		if s.Runner == m.cfg.Document.Runner {
			m.s, m.saved, m.counter = s, string(b), s.Counter
			return nil
		}
	}
	nonce := make([]byte, 32) // as many bits as the keys that sign it
	if _, err := io.ReadFull(m.cfg.Random, nonce); err != nil {
		return fmt.Errorf("make a nonce: %w", err)
	}
	m.s = state{
		Runner: m.cfg.Document.Runner,
		Nonce:  base64.RawURLEncoding.EncodeToString(nonce),
		Hard:   m.cfg.Now().Add(time.Duration(m.cfg.Document.HardS) * time.Second),
	}
	return m.write()
}

// write saves the state if it has changed.
func (m *memory) write() error {
	b, err := json.Marshal(m.s)
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	if string(b) == m.saved {
		return nil
	}
	if err := m.cfg.Machine.Save(b); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	m.saved = string(b)
	return nil
}

// save is write for a machine that has booted: it continues without, since only a
// restart of the agent would miss what was not saved, and a job may be running.
func (m *memory) save() {
	if err := m.write(); err != nil {
		m.log.Warn("state not saved", slog.Any("error", err))
	}
}

// reserve is how many counters one save covers, so that heartbeats write nothing
// for twenty minutes.
const reserve = 64

// count returns the next counter. None is ever used twice: the state says which
// may have been used before one is.
func (m *memory) count() int64 {
	m.counter++
	if m.counter > m.s.Counter {
		m.s.Counter = m.counter + reserve - 1
	}
	return m.counter
}

// fraction returns a random number between 0 and 1.
func (m *memory) fraction() float64 {
	var b [8]byte
	if _, err := io.ReadFull(m.cfg.Random, b[:]); err != nil {
		return 0.5 // no jitter is better than no call
	}
	return float64(binary.BigEndian.Uint64(b[:])>>11) / (1 << 53)
}

// defaults fills in what the configuration leaves out.
func (c *Config) defaults() {
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With(slog.String("runner", c.Document.Runner))
}
