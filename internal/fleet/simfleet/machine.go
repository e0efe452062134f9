package simfleet

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

var errOff = errors.New("the machine is off")

// machine is a machine while its power is on: one boot.
type machine struct {
	f       *Fleet
	id      string
	on      context.Context // ends when its power does
	off     context.CancelFunc
	wg      sync.WaitGroup // of all that runs on it
	notices chan agent.Notice
	told    bool   // of the interruption; for announce alone
	signed  string // by AWS; for identity alone

	mu      sync.Mutex
	program *program // the newest
}

var _ agent.Machine = (*machine)(nil)

// boot switches a machine on. It does as the script in its user data: it sets
// the power-off timer and runs the agent. A machine with other user data does
// nothing.
func (f *Fleet) boot(id string) *machine {
	m := &machine{f: f, id: id, notices: make(chan agent.Notice, 1)}
	m.on, m.off = context.WithCancel(f.on)
	log := f.log.With("instance", id)
	doc, err := bootstrap.Parse(f.UserData(id))
	if err != nil {
		log.Warn("machine does nothing: its user data is not ours", "error", err)
		return m
	}
	if err := m.SetTimer(f.now().Add(time.Duration(doc.HardS) * time.Second)); err != nil {
		log.Warn("machine does nothing: it cannot set its timer", "error", err)
		return m
	}
	client := *f.http
	plain := f.plain != nil && f.plain(id)
	client.Transport = network{m, client.Transport, plain}
	cfg := agent.Config{
		Document:   doc,
		InstanceID: id,
		Machine:    m,
		HTTP:       &client,
		Random:     f.random(id),
		Now:        f.now,
		Log:        log,
	}
	if f.sign != nil {
		cfg.Identity = m.identity
	}
	if f.install != nil && !plain {
		cfg.Install = func(ctx context.Context, _ apitype.RunnerProgram, o apitype.Outfit) (string, error) {
			return f.install(ctx, id, o)
		}
	}
	a := agent.New(cfg)
	m.wg.Go(func() { _ = a.Run(m.on) }) // it ends with the machine, off or without power
	return m
}

// identity is what the metadata service says of the machine. AWS signs that once for each
// time that its power comes on.
func (m *machine) identity(context.Context) (string, error) {
	if m.f.metadata != nil {
		if err := m.f.metadata(); err != nil {
			return "", err
		}
	}
	i, ok := m.f.Instance(m.id)
	if !ok {
		return "", errOff
	}
	if m.signed == "" {
		m.signed = m.f.sign(i.Document())
	}
	return m.signed, nil
}

// stop cuts the power, and returns when nothing runs on the machine any more.
func (m *machine) stop() {
	m.off()
	m.wg.Wait()
}

// announce tells the machine of an interruption, once.
func (m *machine) announce(i Fact) {
	if !m.told && !i.NoticeAt.IsZero() {
		m.told = true
		m.notices <- agent.Notice{Kind: agent.NoticeSpot, At: i.EndsAt} // it has room for the one
	}
}

// Load implements agent.Machine.
func (m *machine) Load() ([]byte, error) { return m.f.Disk(m.id), nil }

// Save implements agent.Machine.
func (m *machine) Save(data []byte) error {
	if m.on.Err() != nil {
		return errOff
	}
	return m.f.SaveDisk(m.id, data)
}

// SetTimer implements agent.Machine.
func (m *machine) SetTimer(at time.Time) error {
	if m.on.Err() != nil {
		return errOff
	}
	return m.f.World.SetTimer(m.id, at)
}

// PowerOff implements agent.Machine.
func (m *machine) PowerOff(reason string) {
	if m.on.Err() != nil {
		return
	}
	if err := m.f.World.PowerOff(m.id, reason); err != nil {
		m.f.log.Warn("machine stays on", "instance", m.id, "error", err)
	}
}

// Notices implements agent.Machine.
func (m *machine) Notices() <-chan agent.Notice { return m.notices }

// Start implements agent.Machine. The program lives as long as the machine does:
// it does not end with ctx.
func (m *machine) Start(_ context.Context, config secret.Text, _ map[string]string, asks bool) (agent.Program, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.on.Err() != nil:
		return nil, errOff
	case m.program.running():
		return nil, errors.New("a runner program runs already")
	}
	p := newProgram(asks)
	m.program = p
	m.wg.Go(func() {
		_ = sleep.For(m.on, startTime) // a program whose machine is off connects to nothing
		p.run(m.on, m.f.broker, config.Reveal())
	})
	return p, nil
}

// Running implements agent.Machine. An agent is only ever started again with its
// machine, and nothing outlives a reboot.
func (m *machine) Running() agent.Program { return nil }

// Clean implements agent.Machine. A pretended job leaves nothing behind.
func (m *machine) Clean() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.program.running() {
		return errors.New("the runner program still runs")
	}
	return nil
}

// network is what a machine's calls go through. Those of the agent end with the
// power; network sees which machine gets a config.
type network struct {
	m  *machine
	to http.RoundTripper // nil: http.DefaultTransport

	plain bool // the agent is of the version before outfits
}

// RoundTrip implements http.RoundTripper.
func (n network) RoundTrip(req *http.Request) (*http.Response, error) {
	to := n.to
	if to == nil {
		to = http.DefaultTransport
	}
	if n.plain {
		req = req.Clone(req.Context())
		req.Header.Del(apitype.OptionsHeader)
	}
	res, err := to.RoundTrip(req)
	if err != nil || res.StatusCode != http.StatusOK || !strings.HasSuffix(req.URL.Path, "/boot") {
		return res, err
	}
	// Only a boot that is answered with a config is 200.
	if err := n.m.f.SetCredentialed(n.m.id); err != nil {
		_ = res.Body.Close() // the machine has ended, and never saw the answer
		return nil, err
	}
	return res, nil
}

// random returns the source of randomness of a machine, until the Fleet is
// closed: it depends on nothing that other machines draw.
func (f *Fleet) random(id string) *source {
	return &source{r: rand.NewChaCha8(sha256.Sum256(slices.Concat(f.seed, []byte(id))))}
}

// source is a random source that is safe for concurrent use.
type source struct {
	mu sync.Mutex
	r  *rand.ChaCha8
}

// Read implements io.Reader; it never fails.
func (s *source) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r.Read(b)
}
