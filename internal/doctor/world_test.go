package doctor_test

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/doctor"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	account = "111111111111"
	region  = "eu-west-2"
)

// world is what a doctor examines: everything works until a test breaks it.
type world struct {
	account  store.Account
	accounts error // of reading registrations
	keys     error
	vouches  bool
	strange  []string // how strangers get the role
	fault    func(op string) error
	subnet   fleet.Subnet
	noSubnet bool
	ami      *fleet.AMI // nil: as the simulation has it
	records  []store.Item
	listing  error
	api      http.HandlerFunc
	vets     int // how often EC2 was asked

	github     func(op string, r *http.Request) simgithub.Fault // what GitHub does otherwise; nil: nothing
	token      string                                           // that we have; GitHub knows "good"
	deliveries []github.Delivery
	delivery   error // that ends them
	rates      *github.Rates
	sweep      store.Sweep
	lease      func() (time.Time, bool, error)
	keeps      bool                   // GitHub deletes nothing
	group      string                 // the runner group that the organization has; empty: there is no organization
	admits     simgithub.Organization // the organization instead, with a group that admits selected repositories
}

func newWorld() *world {
	return &world{
		account: store.Account{
			ID: account, MaxRunners: 10, Repositories: []store.Named{{ID: "7", Name: "acme/shop"}}, Markets: []string{store.Spot, store.OnDemand},
			Regions: map[string]store.Region{region: {
				Subnets: []string{"subnet-a", "subnet-b"}, SecurityGroups: []string{"sg-1"}, Images: []string{"ami-1"}, RootVolume: store.Volume{SizeGB: 30},
			}},
			InstanceTypes: []string{"m7i.large", "m6i.large"}, DefaultInstanceTypes: []string{"m7i.large", "m6i.large"},
		},
		token: "good", vouches: true, subnet: fleet.Subnet{Zone: "eu-west-2a", Free: 200, Out: "nat-1"},
		api: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
			fmt.Fprint(w, `{"status":"ok"}`)
		},
	}
}

func (w *world) Account(_ context.Context, id string) (store.Account, error) {
	switch {
	case w.accounts != nil:
		return store.Account{}, w.accounts
	case id != account:
		return store.Account{}, fmt.Errorf("account %s: %w", id, store.ErrNoAccount)
	}
	return w.account, nil
}

func (w *world) List(context.Context) ([]string, error) {
	if w.accounts != nil {
		return nil, w.accounts
	}
	return []string{account}, nil
}

// records are those of the world.
type records struct{ w *world }

func (r records) List(_ context.Context, f store.Filter) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		for _, i := range r.w.records {
			if f.Matches(i) && !yield(i, nil) {
				return
			}
		}
		if r.w.listing != nil {
			yield(nil, r.w.listing)
		}
	}
}

// Get implements doctor.Records.
func (r records) Get(_ context.Context, refs ...store.Ref) ([]store.Item, error) {
	if r.w.listing != nil {
		return nil, r.w.listing
	}
	var items []store.Item
	for range refs {
		items = append(items, &r.w.sweep)
	}
	return items, nil
}

// hub is a simulated GitHub in which some things are as the test says.
type hub struct {
	*github.Client
	w *world
}

func (h hub) Rates(ctx context.Context, in github.Scope) (github.Rates, error) {
	r, err := h.Client.Rates(ctx, in)
	if err == nil && h.w.rates != nil {
		r = *h.w.rates
	}
	return r, err
}

func (h hub) Deliveries(context.Context, string, string) ([]github.Delivery, string, error) {
	return h.w.deliveries, "", h.w.delivery
}

// hub opens a GitHub, and the client that the doctor has.
func (w *world) hub(t *testing.T) (*simgithub.Server, hub) {
	t.Helper()
	server, err := simgithub.New(simgithub.Config{Rules: simgithub.Rules{Token: secret.New("good")}, Fault: w.github})
	if err != nil {
		t.Fatal(err)
	}
	if w.group != "" {
		server.AddGroup("1", "acme", w.group)
	}
	if w.admits.ID != "" {
		server.SetOrganization(w.admits)
	}
	c, err := github.New(github.Config{BaseURL: "http://localhost", HTTP: memhttp.Client(server.Handler()), Token: func(context.Context, github.Access) (secret.Text, error) {
		return secret.New(w.token), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return server, hub{c, w}
}

// ec2 is a simulated EC2 in which some things are as the test says.
type ec2 struct {
	simfleet.Inspected
	w *world
}

func (e ec2) Strangers(ctx context.Context, id string) ([]string, error) {
	let, err := e.Inspected.Strangers(ctx, id)
	return append(let, e.w.strange...), err
}

func (e ec2) AMI(ctx context.Context, at fleet.Place, id string) (fleet.AMI, error) {
	ami, err := e.Inspected.AMI(ctx, at, id)
	if err == nil && e.w.ami != nil {
		ami = *e.w.ami
	}
	return ami, err
}

func (e ec2) Vet(ctx context.Context, at fleet.Place, l fleet.Launch) error {
	e.w.vets++
	return e.Inspected.Vet(ctx, at, l)
}

// examine returns what a doctor finds of all parts. It takes no real time.
func (w *world) examine(t *testing.T, account, region string) (all []store.Finding) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sim, err := simfleet.OpenWorld(simfleet.WorldConfig{
			Fault: func(op string, _ fleet.Place, _ fleet.Launch) error {
				if w.fault == nil {
					return nil
				}
				return w.fault(op)
			},
			Subnet: func(fleet.Place, string) (fleet.Subnet, bool) { return w.subnet, !w.noSubnet },
		})
		if err != nil {
			t.Fatal(err)
		}
		server, client := w.hub(t)
		long := secret.New(strings.Repeat("k", keys.MinLen))
		d := doctor.New(doctor.Config{
			Accounts: w, Fleet: ec2{simfleet.Inspected{World: sim}, w}, GitHub: client, Records: records{w}, Vouches: func(string) bool { return w.vouches },
			Keys: func(context.Context) (*keys.Ring, error) {
				if w.keys != nil {
					return nil, w.keys
				}
				return keys.NewRing(long, "k1", map[string]secret.Text{"k1": long})
			},
			ControlPlane: "test", APIURL: "https://garo.test", HTTP: memhttp.Client(w.api),
		})
		for _, p := range d.Parts(t.Context(), account, region) {
			v := doctor.Visit{Part: p, Check: strings.Repeat("c", keys.IDLen), Try: 1}
			if w.lease != nil {
				v.Lease = func(context.Context, store.Account, string) (time.Time, bool, error) { return w.lease() }
			}
			found := d.Examine(t.Context(), v)
			if len(found) == 0 {
				t.Errorf("nothing is found of %+v", p)
			}
			all = append(all, found...)
		}
		if got := sim.Instances(); len(got) > 0 {
			t.Errorf("%d machines were launched, want none", len(got))
		}
		if got := server.Registrations(); len(got) > 0 && !w.keeps {
			t.Errorf("%d runners are registered, want none", len(got))
		}
	})
	return all
}
