package reaper_test

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// ec2 is a fleet that does what EC2 does: an instance that is terminated shuts
// down first, and what is shown may lag.
type ec2 struct {
	mu        sync.Mutex
	instances map[fleet.Place]map[string]fleet.Instance
	hidden    map[string]bool // ids that reads do not show yet
	// fail may fail a call: op is get, list, token or terminate, and id the
	// instance or the client token.
	fail func(op string, at fleet.Place, id string) error
	// calls has each call as "op id", a group's with its ids joined by commas.
	calls []string
	page  int // the instances on a page of a list
	// protected has the instances that EC2 does not terminate, nor any of a group with
	// one of them: here all are in one zone.
	protected map[string]bool
	printed   map[string]string // on the consoles of instances, by id
}

func newEC2() *ec2 {
	return &ec2{
		instances: map[fleet.Place]map[string]fleet.Instance{}, hidden: map[string]bool{},
		fail: func(string, fleet.Place, string) error { return nil }, page: 3, protected: map[string]bool{}, printed: map[string]string{},
	}
}

func (f *ec2) add(at fleet.Place, in fleet.Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.instances[at] == nil {
		f.instances[at] = map[string]fleet.Instance{}
	}
	f.instances[at][in.ID] = in
}

func (f *ec2) set(at fleet.Place, id string, state fleet.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in := f.instances[at][id]
	in.State = state
	f.instances[at][id] = in
}

// kill ends a machine by EC2's doing: state is terminated, or one before that. The
// reasons are those of
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html, whose
// message begins with the code.
func (f *ec2) kill(at fleet.Place, id string, state fleet.State, code, words string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in := f.instances[at][id]
	in.State, in.ReasonCode, in.Reason = state, code, words
	f.instances[at][id] = in
}

// retag edits the tags of a machine by hand; an empty value removes the tag.
func (f *ec2) retag(at fleet.Place, id, tag, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in := f.instances[at][id]
	in.Tags = maps.Clone(in.Tags)
	if in.Tags[tag] = value; value == "" {
		delete(in.Tags, tag)
	}
	f.instances[at][id] = in
}

// settle ends what shuts down.
func (f *ec2) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, there := range f.instances {
		for id, in := range there {
			if in.State == fleet.ShuttingDown {
				in.State = fleet.Terminated
				if in.ReasonCode == "" {
					in.ReasonCode, in.Reason = "Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown"
				}
				there[id] = in
			}
		}
	}
}

// running returns how many instances are not ended nor about to.
func (f *ec2) running() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, there := range f.instances {
		for _, in := range there {
			if in.State != fleet.ShuttingDown && in.State != fleet.Terminated {
				n++
			}
		}
	}
	return n
}

// count returns how many calls of op there were.
func (f *ec2) count(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if strings.HasPrefix(c, op+" ") {
			n++
		}
	}
	return n
}

func (f *ec2) call(op string, at fleet.Place, id string) error {
	f.mu.Lock()
	f.calls = append(f.calls, op+" "+id)
	fail := f.fail
	f.mu.Unlock()
	return fail(op, at, id)
}

func (f *ec2) shown(at fleet.Place) []fleet.Instance {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fleet.Instance
	for _, id := range slices.Sorted(maps.Keys(f.instances[at])) {
		if !f.hidden[id] {
			out = append(out, f.instances[at][id])
		}
	}
	return out
}

func (f *ec2) Get(_ context.Context, at fleet.Place, ids ...string) (map[string]fleet.Instance, error) {
	if err := f.call("get", at, fmt.Sprint(len(ids))); err != nil {
		return nil, err
	}
	out := map[string]fleet.Instance{}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if in, ok := f.instances[at][id]; ok && !f.hidden[id] {
			out[id] = in
		}
	}
	return out, nil
}

func (f *ec2) ByToken(_ context.Context, at fleet.Place, runner, token string) (fleet.Instance, error) {
	if err := f.call("token", at, token); err != nil {
		return fleet.Instance{}, err
	}
	for _, in := range f.shown(at) {
		if in.ClientToken == token && in.Tags[fleet.TagRunner] == runner {
			return in, nil
		}
	}
	return fleet.Instance{}, &fleet.Error{Kind: fleet.ErrNotFound, Code: "NotFound", Text: "no instance has the token"}
}

// SpotPrices costs a dollar for everything, in the zone of the subnet's name.
func (f *ec2) SpotPrices(_ context.Context, at fleet.Place, types, subnets []string) (map[string]store.MicroUSD, map[string]string, error) {
	if err := f.call("spot", at, strings.Join(types, ",")); err != nil {
		return nil, nil, err
	}
	hour, zones := map[string]store.MicroUSD{}, map[string]string{}
	for _, s := range subnets {
		zones[s] = "zone of " + s
		for _, t := range types {
			hour[store.SpotKey(t, zones[s])] = 1e6
		}
	}
	return hour, zones, nil
}

// List yields the instances in pages, and asks fail before each of them.
func (f *ec2) List(_ context.Context, at fleet.Place, controlPlane string) iter.Seq2[fleet.Instance, error] {
	return func(yield func(fleet.Instance, error) bool) {
		page := 0
		for part := range slices.Chunk(append(f.shown(at), fleet.Instance{}), f.page) {
			page++
			if err := f.call("list", at, fmt.Sprint(page)); err != nil {
				yield(fleet.Instance{}, err)
				return
			}
			for _, in := range part {
				if in.ID != "" && in.Tags[fleet.TagControlPlane] == controlPlane && !yield(in, nil) {
					return
				}
			}
		}
	}
}

// Console returns what printed has of an instance.
func (f *ec2) Console(_ context.Context, at fleet.Place, id string) (string, error) {
	if err := f.call("console", at, id); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.printed[id], nil
}

// Terminate ends none of a group if one of it is unknown or protected.
func (f *ec2) Terminate(_ context.Context, at fleet.Place, ids ...string) error {
	f.mu.Lock()
	f.calls = append(f.calls, "terminate "+strings.Join(ids, ","))
	fail := f.fail
	f.mu.Unlock()
	for _, id := range ids {
		if err := fail("terminate", at, id); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if _, ok := f.instances[at][id]; !ok {
			return &fleet.Error{Kind: fleet.ErrNotFound, Code: "InvalidInstanceID.NotFound", Text: "no such instance"}
		}
		if f.protected[id] {
			return &fleet.Error{Kind: fleet.ErrRefused, Code: "OperationNotPermitted", Text: "it is protected"}
		}
	}
	for _, id := range ids {
		if in := f.instances[at][id]; in.State != fleet.Terminated {
			in.State = fleet.ShuttingDown
			f.instances[at][id] = in
		}
	}
	return nil
}

// hub is a GitHub that has registrations by repository id. It removes none that
// is busy.
type hub struct {
	mu    sync.Mutex
	repos map[string]map[int64]github.Runner
	next  int64
	// fail may fail a call: op is get, delete, find or list.
	fail    func(op string, repo github.Scope, id int64) error
	latency time.Duration
	ends    map[string]github.Deprecation // by version; of others it knows nothing
	hang    int64                         // the id of a registration about which no call is answered
	calls   []string

	atOnce     map[string]int // calls under way, by account
	mostAtOnce int
}

func newHub() *hub {
	return &hub{
		repos: map[string]map[int64]github.Runner{}, next: 100, atOnce: map[string]int{},
		fail: func(string, github.Scope, int64) error { return nil },
	}
}

func (h *hub) register(repo, name string) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	if h.repos[repo] == nil {
		h.repos[repo] = map[int64]github.Runner{}
	}
	h.repos[repo][h.next] = github.Runner{ID: h.next, Name: name}
	return h.next
}

func (h *hub) busy(repo string, id int64, busy bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.repos[repo][id]
	g.Busy = busy
	h.repos[repo][id] = g
}

// online connects the runner program of a registration, or cuts it off.
func (h *hub) online(repo string, id int64, online bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.repos[repo][id]
	g.Online = online
	h.repos[repo][id] = g
}

// rename takes a registration out of the lists of our prefix.
func (h *hub) rename(repo string, id int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.repos[repo][id]
	g.Name = "renamed-" + g.Name
	h.repos[repo][id] = g
}

// forget removes a registration, as GitHub does after a job, or on its own.
func (h *hub) forget(repo string, id int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.repos[repo], id)
}

// names returns the names that are registered in a repository.
func (h *hub) names(repo string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	names := []string{}
	for _, g := range h.repos[repo] {
		names = append(names, g.Name)
	}
	slices.Sort(names)
	return names
}

func (h *hub) count(op string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, c := range h.calls {
		if strings.HasPrefix(c, op+" ") {
			n++
		}
	}
	return n
}

func refusal(kind error, status int) error {
	return &github.Error{Kind: kind, Op: "call", Status: status, RequestID: "GH:1"}
}

// call takes its time, as calls do, and dies with its context.
func (h *hub) call(ctx context.Context, op string, repo github.Scope, id int64) error {
	h.mu.Lock()
	h.calls = append(h.calls, fmt.Sprintf("%s %s/%d", op, repo.Name, id))
	fail := h.fail
	h.atOnce[repo.Account]++
	h.mostAtOnce = max(h.mostAtOnce, h.atOnce[repo.Account])
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.atOnce[repo.Account]--
	}()
	takes := h.latency
	if id != 0 && id == h.hang {
		takes = 24 * time.Hour
	}
	if takes > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", op, ctx.Err())
		case <-time.After(takes):
		}
	}
	return fail(op, repo, id)
}

func (h *hub) Get(ctx context.Context, repo github.Scope, id int64) (github.Runner, error) {
	if err := h.call(ctx, "get", repo, id); err != nil {
		return github.Runner{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	g, ok := h.repos[repo.Key()][id]
	if !ok {
		return github.Runner{}, refusal(github.ErrNotFound, 404)
	}
	return g, nil
}

func (h *hub) Delete(ctx context.Context, repo github.Scope, id int64) error {
	if err := h.call(ctx, "delete", repo, id); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	g, ok := h.repos[repo.Key()][id]
	switch {
	case !ok:
		return refusal(github.ErrNotFound, 404)
	case g.Busy:
		return refusal(github.ErrBusy, 422)
	}
	delete(h.repos[repo.Key()], id)
	return nil
}

func (h *hub) Find(ctx context.Context, repo github.Scope, name string) (github.Runner, error) {
	if err := h.call(ctx, "find", repo, 0); err != nil {
		return github.Runner{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.repos[repo.Key()] {
		if g.Name == name {
			return g, nil
		}
	}
	return github.Runner{}, refusal(github.ErrNotFound, 404)
}

func (h *hub) List(ctx context.Context, repo github.Scope, prefix string) iter.Seq2[github.Runner, error] {
	return func(yield func(github.Runner, error) bool) {
		if err := h.call(ctx, "list", repo, 0); err != nil {
			yield(github.Runner{}, err)
			return
		}
		h.mu.Lock()
		found := slices.Collect(maps.Values(h.repos[repo.Key()]))
		h.mu.Unlock()
		for _, g := range found {
			if strings.HasPrefix(g.Name, prefix) && !yield(g, nil) {
				return
			}
		}
	}
}

func (h *hub) Deprecation(ctx context.Context, repo github.Scope, version string) (github.Deprecation, error) {
	if err := h.call(ctx, "deprecation", repo, 0); err != nil {
		return github.Deprecation{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	d, ok := h.ends[version]
	if !ok {
		return d, refusal(github.ErrNotFound, 404)
	}
	return d, nil
}

// liar is an ec2 that lists what it was not asked for.
type liar struct{ *ec2 }

func (l liar) List(_ context.Context, at fleet.Place, _ string) iter.Seq2[fleet.Instance, error] {
	return func(yield func(fleet.Instance, error) bool) {
		for _, in := range l.shown(at) {
			if !yield(in, nil) {
				return
			}
		}
	}
}
