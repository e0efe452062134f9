package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// BuiltIn is the account that every local system has.
const BuiltIn = "000000000000"

// builtIn registers a repository of a made-up owner at a GitHub server; empty:
// github.com. Its pacing is that of this machine, unless EC2's is asked for.
func builtIn(server string, ec2Pacing bool) store.Account {
	a := store.Account{
		ID:           BuiltIn,
		Repositories: []store.Named{{ID: "1001", Name: "acme/shop"}},
		Owners:       []store.Named{{ID: "1", Name: "acme"}},
		Server:       server,
		Regions: map[string]store.Region{"eu-west-2": {
			Subnets:        []string{"subnet-a", "subnet-b", "subnet-c"},
			SecurityGroups: []string{"sg-local"},
			Images:         []string{"ami-local"},
		}},
		InstanceTypes:        []string{"t3a.micro", "t3a.small", "m7g.large", "c7g.xlarge"},
		DefaultInstanceTypes: []string{"t3a.micro", "t3a.small"},
		Markets:              []string{store.Spot, store.OnDemand},
		SpotFallback:         true,
		Modes:                []string{store.Shared, store.Ephemeral},
		RunsOn:               []store.Offer{{Labels: []string{"garo"}}, {Pin: "g-linux-"}},
		MaxRunners:           1000,
		Pacing:               store.Pacing{Burst: 100, IntervalMS: 10}, // 100 a second
		MachineOptions: store.MachineOptions{MaxRootVolumeGB: 100, RequestTags: []string{"team"}, InstanceRequirements: &store.Requirements{
			VCPUs: store.Range{Min: 2, Max: 8}, Arch: []string{store.X86, store.ARM64}, GPU: store.Range{Max: 1},
		}},
	}
	if ec2Pacing {
		a.Pacing = store.Pacing{}
	}
	return a
}

// accounts is a store.Accounts over a folder of registrations, <id>.json each,
// beside the built-in one, which such a file replaces.
type accounts struct {
	dir     string
	builtIn store.Account
}

// Account implements store.Accounts. Files are read again each time, so that an
// edit counts at once.
func (a accounts) Account(_ context.Context, id string) (store.Account, error) {
	if !store.ValidAccountID(id) {
		return store.Account{}, fmt.Errorf("account %.20q: %w", id, store.ErrNoAccount)
	}
	path := filepath.Join(a.dir, id+".json")
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && id == BuiltIn:
		return a.builtIn, nil
	case errors.Is(err, fs.ErrNotExist):
		return store.Account{}, fmt.Errorf("account %s: %w", id, store.ErrNoAccount)
	case err != nil:
		return store.Account{}, err // it names the file
	}
	account, err := store.ParseAccount(id, b)
	if err != nil {
		return store.Account{}, fmt.Errorf("%s: %w: %w", path, store.ErrUnusable, err)
	}
	return account, nil
}

// List implements store.Accounts.
func (a accounts) List(context.Context) ([]string, error) {
	ids := []string{BuiltIn}
	entries, err := os.ReadDir(a.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list registrations: %w", err)
	}
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok && store.ValidAccountID(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// check returns what is wrong with the folder: every registration that cannot be
// read, and every file that is none.
func (a accounts) check(ctx context.Context) error {
	var errs []error
	entries, err := os.ReadDir(a.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list registrations: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // an editor's
		}
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !store.ValidAccountID(id) {
			errs = append(errs, fmt.Errorf("%s: want a name of twelve digits, the account's id, and .json", filepath.Join(a.dir, e.Name())))
			continue
		}
		if _, err := a.Account(ctx, id); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
