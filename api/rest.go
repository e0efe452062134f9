package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// release lets the next sweep of an account's region end what the brake spares.
func (s *server) release(ctx context.Context, c *call, _ none) (apitype.Released, error) {
	who, err := c.operator(ctx)
	if err != nil {
		return apitype.Released{}, err
	}
	account, region := c.PathValue("account"), c.PathValue("region")
	absent := &problem{code: apitype.CodeNotFound, detail: "There is no sweep of this account and region yet: check both. The first one comes within minutes of the registration."}
	if !form.AWSAccount.Fits(account) || !isRegion(region) {
		return apitype.Released{}, absent
	}
	c.about("sweep", store.SweepKey(account, region))
	c.status = http.StatusAccepted
	return decide(func() (apitype.Released, error) {
		items, err := c.get(ctx, store.Ref{Kind: store.KindSweep, ID: store.SweepKey(account, region)})
		if err != nil {
			return apitype.Released{}, err
		}
		sweep := *items[0].(*store.Sweep)
		if sweep.Version == 0 {
			return apitype.Released{}, absent
		}
		if err := c.apply(ctx, sweep.Release(s.Now(), who.String())); err != nil {
			return apitype.Released{}, err
		}
		return apitype.Released{Account: account, Region: region, BrakeAt: sweep.BrakeAt, ReleasedAt: sweep.ReleasedAt, ReleasedBy: sweep.ReleasedBy}, nil
	})
}

// agent answers the agent's program. Its name is its hash, so it never changes.
func (s *server) agent(_ context.Context, c *call, _ none) (file, error) {
	arch, sum := c.PathValue("arch"), c.PathValue("sha256")
	absent := &problem{code: apitype.CodeNotFound, detail: "There is no such agent: another version of the API is deployed. Power off."}
	if s.Agents == nil || !archForm.Fits(arch) || !form.SHA256.Fits(sum) {
		return file{}, absent
	}
	body, err := fs.ReadFile(s.Agents, arch+"/"+sum+".gz")
	if errors.Is(err, fs.ErrNotExist) {
		return file{}, absent
	}
	if err != nil {
		return file{}, fmt.Errorf("agent %s/%s: %w", arch, sum, err)
	}
	return file{media: "application/gzip", cache: "public, max-age=31536000, immutable", body: body}, nil
}

// health tells that calls arrive. It asks nobody: an outage of the store is no
// reason to replace the API.
func (s *server) health(context.Context, *call, none) (apitype.Health, error) {
	return apitype.Health{Status: "ok"}, nil
}

func (s *server) openapi(context.Context, *call, none) (file, error) {
	return file{media: "application/yaml", body: OpenAPI}, nil
}
