package reaper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const (
	// versionGap is how often GitHub is asked when a version ends. It sets the date
	// about a month ahead, when a newer version is released.
	versionGap = 24 * time.Hour
	// versionWarning is how long before a version's end there is an alarm: time to
	// build an image and to let the machines of the old one end.
	versionWarning = 7 * 24 * time.Hour
)

// versions asks GitHub, once a day for each version of the runner program that the
// lists show on runners of ours, when it ends, and raises an alarm in the last
// week and after. What it knows is kept in s for as long as the version was seen
// within a day. A question that fails is asked again with the next lists, and
// spoils nothing else: the end of a version shows on its own.
func (gh atGitHub) versions(ctx context.Context, account string, lists []*listing, s store.Sweep) store.Sweep {
	now := gh.cfg.Now()
	known := map[string]store.ProgramVersion{}
	for version, v := range s.Versions {
		if now.Sub(v.SeenAt) < recently {
			known[version] = v
		}
	}
	scopes := map[string]github.Scope{}
	for _, l := range lists {
		for _, g := range l.found {
			if _, ours := runnerIn(gh.cfg.ControlPlane, g.Name); !ours || g.Version == "" || l.err != nil {
				continue
			}
			v := known[g.Version]
			v.SeenAt = now
			known[g.Version] = v
			if _, ok := scopes[g.Version]; !ok {
				scopes[g.Version] = l.scope
			}
		}
	}
	for _, version := range slices.Sorted(maps.Keys(scopes)) {
		v, scope := known[version], scopes[version]
		if now.Sub(v.AskedAt) < versionGap {
			continue
		}
		var d github.Deprecation
		var denied error // of this question: it says nothing of others
		err := gh.askGitHub(ctx, scope, callLimit, func(ctx context.Context) (err error) {
			if d, err = gh.cfg.GitHub.Deprecation(ctx, scope, version); errors.Is(err, github.ErrDenied) {
				denied, err = err, nil
			}
			return err
		})
		if err = cmp.Or(err, denied); err != nil && !errors.Is(err, github.ErrNotFound) { // which an Enterprise Server always says
			gh.line(Line{Kind: "version", ID: version, Action: Skip, Reason: err.Error()})
			continue
		}
		v.AskedAt, v.EndsAt = now, d.Ends()
		known[version] = v
		if v.EndsAt.IsZero() || v.EndsAt.Sub(now) > versionWarning {
			continue
		}
		ends := v.EndsAt.UTC().Format(time.RFC3339)
		gh.line(Line{Kind: "version", ID: version, Action: Notice, Reason: fmt.Sprintf("GitHub serves it until %s, and runners of account %s have it", ends, account)})
		gh.alarm(store.AlarmVersionEnds, account+" "+version, "GitHub will refuse a version of the runner program that is in use",
			"account", account, "version", version, "ends", ends, scope.Kind(), scope.Name)
	}
	return s.Knowing(known)
}
