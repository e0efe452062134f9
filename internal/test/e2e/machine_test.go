//go:build linux

package e2e

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simjobs"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// machine is what runs on an instance: the agent.
type machine struct {
	w        *world
	region   string
	id       string
	on       context.Context // ends when its power does
	off      context.CancelFunc
	wg       sync.WaitGroup // of all that runs on it
	disk     []byte
	notices  chan agent.Notice // EC2 announces nothing
	document bootstrap.Document
}

var _ agent.Machine = (*machine)(nil)

// userData returns what EC2 kept for an instance.
func (w *world) userData(region, id string) []byte {
	w.Helper()
	out, err := w.ec2(w.runners, region).DescribeInstanceAttribute(w.Context(), &ec2.DescribeInstanceAttributeInput{
		InstanceId: &id, Attribute: types.InstanceAttributeNameUserData,
	})
	if err != nil {
		w.Fatalf("user data of %s: %v", id, err)
	}
	data, err := base64.StdEncoding.DecodeString(*out.UserData.Value)
	if err != nil {
		w.Fatalf("user data of %s: %v", id, err)
	}
	return data
}

// identity is what AWS says of an instance.
func (w *world) identity(region, id string) identity.Document {
	w.Helper()
	for _, i := range w.instances(w.runners, region) {
		if *i.InstanceId == id {
			return identity.Document{AccountID: w.runners, Region: region, InstanceID: id, ImageID: *i.ImageId, InstanceType: string(i.InstanceType)}
		}
	}
	w.Fatalf("EC2 does not show %s", id)
	return identity.Document{}
}

// boot starts an instance. It does as the script in its user data: it fetches the
// agent from the API and checks it, and then runs it.
func (w *world) boot(region, id string) *machine {
	w.Helper()
	document, err := bootstrap.Parse(w.userData(region, id))
	if err != nil {
		w.Fatal(err)
	}
	w.fetchAgent(document)
	m := &machine{w: w, region: region, id: id, document: document, notices: make(chan agent.Notice)}
	m.on, m.off = context.WithCancel(w.lasting)
	w.machines = append(w.machines, m)
	word := simidentity.Own().Sign(w.identity(region, id))
	a := agent.New(agent.Config{
		Document: document, InstanceID: id, Machine: m, HTTP: w.http,
		Identity: func(context.Context) (string, error) { return word, nil },
	})
	m.wg.Go(func() { _ = a.Run(m.on) }) // it ends with the machine, off or without power
	return m
}

// fetchAgent checks that the API serves the agent that a machine was promised.
func (w *world) fetchAgent(d bootstrap.Document) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), "GET", d.API+"/agent/linux/"+runtime.GOARCH+"/"+d.Agent[runtime.GOARCH], nil)
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := w.http.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	z, err := gzip.NewReader(resp.Body)
	if err != nil {
		w.Fatalf("the agent comes with status %d and %v", resp.StatusCode, err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, z); err != nil || hex.EncodeToString(sum.Sum(nil)) != d.Agent[runtime.GOARCH] {
		w.Fatalf("the agent has SHA-256 %x, %v; want %s", sum.Sum(nil), err, d.Agent[runtime.GOARCH])
	}
}

// stop cuts the power, and returns when nothing runs on the machine any more.
func (m *machine) stop() {
	m.off()
	m.wg.Wait()
}

// Load implements agent.Machine.
func (m *machine) Load() ([]byte, error) { return m.disk, nil }

// Save implements agent.Machine.
func (m *machine) Save(b []byte) error {
	m.disk = b
	return nil
}

// SetTimer implements agent.Machine. No test takes as long as a machine may live.
func (m *machine) SetTimer(time.Time) error { return nil }

// PowerOff implements agent.Machine: a machine that powers itself off terminates.
func (m *machine) PowerOff(string) {
	if _, err := m.w.ec2(m.w.runners, m.region).TerminateInstances(m.w.lasting, &ec2.TerminateInstancesInput{InstanceIds: []string{m.id}}); err != nil {
		m.w.Errorf("power off %s: %v", m.id, err)
	}
	m.off()
}

// Notices implements agent.Machine.
func (m *machine) Notices() <-chan agent.Notice { return m.notices }

// Running implements agent.Machine: an agent starts with its machine alone.
func (m *machine) Running() agent.Program { return nil }

// Clean implements agent.Machine. A pretended job leaves nothing behind.
func (m *machine) Clean() error { return nil }

// Start implements agent.Machine.
func (m *machine) Start(_ context.Context, config secret.Text, _ map[string]string, asks bool) (agent.Program, error) {
	p := &runnerProgram{events: make(chan agent.ProgramEvent, 4), asks: asks, answer: make(chan bool, 1)} // one of each kind
	m.wg.Go(func() {
		if err := p.run(m.on, m.w, config.Reveal()); errors.Is(err, simfleet.ErrDeleted) {
			m.w.noReaper()
		} else if err != nil {
			p.code = 1
		}
		close(p.events)
	})
	return p, nil
}

// runnerProgram is one run of a runner program that only pretends.
type runnerProgram struct {
	events chan agent.ProgramEvent
	code   int
	asks   bool      // its job waits to be told whether it may run
	answer chan bool // has room for the one
}

var _ agent.Admitter = (*runnerProgram)(nil)

// Events implements agent.Program.
func (p *runnerProgram) Events() <-chan agent.ProgramEvent { return p.events }

// ExitCode implements agent.Program.
func (p *runnerProgram) ExitCode() int { return p.code }

// Admit implements agent.Admitter.
func (p *runnerProgram) Admit(allowed bool, _ string) error {
	select {
	case p.answer <- allowed:
		return nil
	default:
		return errors.New("the job was delivered before")
	}
}

func (p *runnerProgram) run(ctx context.Context, w *world, config string) error {
	session, err := simjobs.Connect(ctx, w.github, config)
	if err != nil {
		return err
	}
	defer session.Close()
	p.events <- agent.ProgramEvent{Kind: agent.Connected}
	job, err := session.Wait(ctx)
	if err != nil {
		return err
	}
	p.events <- agent.ProgramEvent{Kind: agent.JobStarted, RunID: job.RunID}
	if p.asks {
		p.events <- agent.ProgramEvent{Kind: agent.Asks, Job: job.Asks}
		select {
		case allowed := <-p.answer:
			job.Refused = !allowed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if w.opt.hold != nil && !job.Refused {
		select {
		case <-w.opt.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := session.Done(ctx, job); err != nil {
		return err
	}
	p.events <- agent.ProgramEvent{Kind: agent.JobDone}
	return nil
}
