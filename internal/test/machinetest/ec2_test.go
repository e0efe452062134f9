//go:build linux

package machinetest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/identity"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet/simidentity"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// ec2 launches machines. It shows the truth at once; what EC2 does later or
// forgets is tested elsewhere.
type ec2 struct {
	world *world

	mu        sync.Mutex
	machines  []*machine
	instances []fleet.Instance
	byToken   map[string]*machine
	refuses   bool // to terminate
}

func (e *ec2) refusing() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.refuses
}

func (e *ec2) refuse(refuses bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refuses = refuses
}

var _ fleet.Fleet = (*ec2)(nil)

// Image implements fleet.Fleet.
func (e *ec2) Image(_ context.Context, _ fleet.Place, image string) (string, error) {
	return image, nil
}

// RootVolume implements fleet.Fleet.
func (e *ec2) RootVolume(context.Context, fleet.Place, string) (store.Root, error) {
	return store.Root{Device: "/dev/xvda", SizeGB: 8}, nil
}

// Launch implements fleet.Fleet.
func (e *ec2) Launch(_ context.Context, _ fleet.Place, l fleet.Launch) (fleet.Instance, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := e.byToken[l.ClientToken]; m != nil {
		return e.show(m.n - 1), nil
	}
	dir, err := os.MkdirTemp(built.dir, "machine-")
	if err != nil {
		return fleet.Instance{}, err
	}
	n := len(e.machines) + 1
	m := &machine{
		t: e.world.T, world: e.world, n: n, id: fmt.Sprintf("i-%017x", time.Now().UnixNano()), dir: dir,
		userData: l.UserData, image: e.world.opts.image, ended: make(chan struct{}),
	}
	e.machines, e.byToken[l.ClientToken] = append(e.machines, m), m
	e.instances = append(e.instances, fleet.Instance{
		ID: m.id, ClientToken: l.ClientToken, LaunchedAt: time.Now(), Market: l.Market, InstanceType: l.InstanceType, Subnet: l.Subnet, Tags: l.Tags,
	})
	if err := m.start(); err != nil {
		e.world.Errorf("start machine %d: %v", n, err)
		if m.init == nil || m.init.Process == nil {
			close(m.ended)
		}
	}
	return e.show(n - 1), nil
}

func (e *ec2) show(i int) fleet.Instance {
	shown := e.instances[i]
	shown.State = fleet.Running
	if e.machines[i].over() {
		shown.State, shown.Reason = fleet.Terminated, "Client.InstanceInitiatedShutdown"
	}
	return shown
}

func (e *ec2) shown() []fleet.Instance {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []fleet.Instance
	for i := range e.instances {
		all = append(all, e.show(i))
	}
	return all
}

// ByToken implements fleet.Fleet.
func (e *ec2) ByToken(_ context.Context, _ fleet.Place, _, token string) (fleet.Instance, error) {
	for _, i := range e.shown() {
		if i.ClientToken == token {
			return i, nil
		}
	}
	return fleet.Instance{}, &fleet.Error{Kind: fleet.ErrNotFound, Code: "InvalidInstanceID.NotFound", Text: "no instance has this client token"}
}

// Get implements fleet.Fleet.
func (e *ec2) Get(_ context.Context, _ fleet.Place, ids ...string) (map[string]fleet.Instance, error) {
	found := map[string]fleet.Instance{}
	for _, i := range e.shown() {
		if slices.Contains(ids, i.ID) {
			found[i.ID] = i
		}
	}
	return found, nil
}

// List implements fleet.Fleet.
func (e *ec2) List(context.Context, fleet.Place, string) iter.Seq2[fleet.Instance, error] {
	return func(yield func(fleet.Instance, error) bool) {
		for _, i := range e.shown() {
			if !yield(i, nil) {
				return
			}
		}
	}
}

// Types implements fleet.Fleet.
func (e *ec2) Types(context.Context, fleet.Place, store.Requirements) ([]store.InstanceType, error) {
	return nil, nil
}

// SpotPrices implements fleet.Fleet: nobody knows them.
func (e *ec2) SpotPrices(context.Context, fleet.Place, []string, []string) (map[string]store.MicroUSD, map[string]string, error) {
	return nil, nil, nil
}

// Console implements fleet.Fleet.
func (e *ec2) Console(context.Context, fleet.Place, string) (string, error) { return "", nil }

// Terminate implements fleet.Fleet.
func (e *ec2) Terminate(_ context.Context, _ fleet.Place, ids ...string) error {
	if e.refusing() {
		return &fleet.Error{Kind: fleet.ErrUnknown, Code: "InternalError", Text: "EC2 does not end machines now"}
	}
	var ends []*machine
	for _, id := range ids {
		i := slices.IndexFunc(e.all(), func(m *machine) bool { return m.id == id })
		if i < 0 {
			return &fleet.Error{Kind: fleet.ErrNotFound, Code: "InvalidInstanceID.NotFound", Text: "no such instance"}
		}
		ends = append(ends, e.all()[i])
	}
	for _, m := range ends {
		m.kill()
	}
	return nil
}

func (e *ec2) all() []*machine {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.machines)
}

// close ends all machines, and removes what they were made of once it was reported.
func (e *ec2) close() {
	for _, m := range e.all() {
		m.kill()
	}
}

// document is what the machine was given.
func (m *machine) document() bootstrap.Document {
	d, err := bootstrap.Parse(m.userData)
	if err != nil {
		m.t.Errorf("user data: %v", err)
	}
	return d
}

// word is what AWS says of the machine.
func (m *machine) word() string {
	return simidentity.Own().Sign(identity.Document{AccountID: account, Region: region, InstanceID: m.id, ImageID: "ami-a", InstanceType: "t3a.micro"})
}

// token is T.
func (m *machine) token() string { return m.document().Token.Reveal() }

// runner is the machine's record.
func (m *machine) runner() store.Runner {
	items, err := m.world.store.Get(context.Background(), store.Ref{Kind: store.KindRunner, ID: m.document().Runner})
	if err != nil {
		m.t.Errorf("read runner: %v", err)
		return store.Runner{}
	}
	return *items[0].(*store.Runner)
}

// announce has EC2 announce something to the machine.
func (m *machine) announce(item, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if item == spotItem {
		m.spot = text
	} else {
		m.rebal = text
	}
}

const (
	spotItem      = "spot/instance-action"
	rebalanceItem = "events/recommendations/rebalance"
	metadataToken = "canary-metadata-token"
	// roleCredentials are those of a machine's role.
	roleCredentials = "canary-credentials-of-the-role"
)

// metadata is the instance metadata service, version 2, of whichever machine asks.
func (w *world) metadata(res http.ResponseWriter, req *http.Request) {
	m := w.from(req)
	if m == nil {
		http.Error(res, "who?", http.StatusForbidden)
		return
	}
	const token, data = "/latest/api/token", "/latest/meta-data/"
	if req.URL.Path == token {
		if req.Method != http.MethodPut || req.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") == "" {
			http.Error(res, "", http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(res, metadataToken)
		return
	}
	if req.Header.Get("X-Aws-Ec2-Metadata-Token") != metadataToken {
		http.Error(res, "", http.StatusUnauthorized)
		return
	}
	m.mu.Lock()
	answers := map[string]string{
		data + "instance-id": m.id, data + spotItem: m.spot, data + rebalanceItem: m.rebal, "/latest/user-data": string(m.userData),
		"/latest/dynamic/instance-identity/rsa2048": m.word(),
	}
	m.mu.Unlock()
	if w.opts.role {
		answers[data+"iam/info"], answers[data+"iam/security-credentials/ci"] = "{}", roleCredentials
	}
	if text := answers[req.URL.Path]; text != "" {
		_, _ = io.Copy(res, strings.NewReader(text))
		return
	}
	http.NotFound(res, req)
}
