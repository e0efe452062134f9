package sim

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/promise"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// none is the answer of a call that has none.
type none = struct{}

// tappedStore is the store as the parts see it.
type tappedStore struct{ w *World }

var _ store.Store = tappedStore{}

func (s tappedStore) Get(ctx context.Context, refs ...store.Ref) ([]store.Item, error) {
	kinds, ids := map[string]bool{}, make([]string, len(refs))
	for i, r := range refs {
		kinds[string(r.Kind)], ids[i] = true, r.ID
	}
	e := &kernel.Effect{Op: kernel.Get, To: kernel.ToStore, What: strings.Join(slices.Sorted(maps.Keys(kinds)), " "), On: strings.Join(ids, " ")}
	return kernel.Do(ctx, s.w.Kernel, e, func(ctx context.Context) ([]store.Item, error) { return s.w.Store().Get(ctx, refs...) })
}

// Commit implements store.Store. When the answer is lost, the caller's items are
// as they were, whatever the outcome.
func (s tappedStore) Commit(ctx context.Context, changes ...store.Change) error {
	e := &kernel.Effect{Op: kernel.Commit, To: kernel.ToStore}
	versions := make([]int64, len(changes))
	var what, on []string
	for i, c := range changes {
		versions[i] = c.Item.Base().Version
		if c.CheckOnly {
			continue
		}
		what, on = append(what, word(c.Item)), append(on, c.Item.Ref().ID)
	}
	slices.Sort(what)
	e.What, e.On = strings.Join(slices.Compact(what), ", "), strings.Join(on, " ")
	made := changes
	e.Fated = func() {
		if e.Fate == kernel.Twice || e.Fate == kernel.FailLate { // the caller continues with its items
			made = clone(changes)
		}
	}
	_, err := kernel.Do(ctx, s.w.Kernel, e, func(ctx context.Context) (none, error) {
		changed, err := s.w.Commit(e, made, func() error { return s.w.table.commit(ctx, made) })
		s.w.Changed(e, changed)
		if e.Fate == kernel.Twice {
			made = changes // the second time
		}
		return none{}, err
	})
	if err != nil {
		for i, c := range changes {
			c.Item.Base().Version = versions[i]
		}
	}
	return err
}

// word tells what is written, without ids.
func word(i store.Item) string {
	state := ""
	switch i := i.(type) {
	case *store.Request:
		state = string(i.State)
	case *store.Lock:
		state = string(i.State)
	case *store.Runner:
		state = string(i.State)
		if i.Config.N > 0 {
			state += fmt.Sprintf(" config %d", i.Config.N)
		}
	}
	return strings.TrimSpace(string(i.Ref().Kind) + " " + state)
}

func (s tappedStore) Due(ctx context.Context, before time.Time) iter.Seq2[store.Ref, error] {
	return tappedSeq(ctx, s.w, &kernel.Effect{Op: kernel.Due, To: kernel.ToStore}, func(ctx context.Context) iter.Seq2[store.Ref, error] {
		return s.w.table.due(ctx, before)
	})
}

func (s tappedStore) List(ctx context.Context, f store.Filter) iter.Seq2[store.Item, error] {
	return tappedSeq(ctx, s.w, &kernel.Effect{Op: kernel.List, To: kernel.ToStore, What: string(f.Kind)}, func(ctx context.Context) iter.Seq2[store.Item, error] {
		return s.w.Store().List(ctx, f)
	})
}

// CountOpen implements store.Store.
func (s tappedStore) CountOpen(ctx context.Context, repo store.Repository, most int) (int, error) {
	return kernel.Do(ctx, s.w.Kernel, &kernel.Effect{Op: kernel.Count, To: kernel.ToStore, What: "open requests", On: repo.Key()}, func(ctx context.Context) (int, error) {
		return s.w.Store().CountOpen(ctx, repo, most)
	})
}

// tappedSeq yields what list yields, all of which is read when the iteration begins.
func tappedSeq[T any](ctx context.Context, w *World, e *kernel.Effect, list func(context.Context) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		all, err := kernel.Do(ctx, w.Kernel, e, func(ctx context.Context) (all []T, err error) {
			for v, err := range list(ctx) {
				if err != nil {
					return all, err
				}
				all = append(all, v)
			}
			return all, nil
		})
		for _, v := range all {
			if !yield(v, nil) {
				return
			}
		}
		if err != nil {
			yield(zero, err)
		}
	}
}

// tappedFleet is EC2 as worker and reaper see it.
type tappedFleet struct{ w *World }

var _ fleet.Fleet = tappedFleet{}

// elsewhere adds to what a call is about the region, unless it is the first one: calls of two
// regions that go out side by side are kept apart.
func elsewhere(on string, at fleet.Place) string {
	if at.Region == setting.Region {
		return on
	}
	return strings.TrimSpace(on + " in " + at.Region)
}

func (f tappedFleet) Image(ctx context.Context, at fleet.Place, image string) (string, error) {
	return atEC2(ctx, f.w, at, &kernel.Effect{Op: kernel.Image, On: elsewhere(image, at)}, func(ctx context.Context) (string, error) {
		return f.w.Fleet.Image(ctx, at, image)
	})
}

func (f tappedFleet) RootVolume(ctx context.Context, at fleet.Place, ami string) (store.Root, error) {
	return atEC2(ctx, f.w, at, &kernel.Effect{Op: kernel.Root, On: elsewhere(ami, at)}, func(ctx context.Context) (store.Root, error) {
		return f.w.Fleet.RootVolume(ctx, at, ami)
	})
}

func (f tappedFleet) Types(ctx context.Context, at fleet.Place, rules store.Requirements) ([]store.InstanceType, error) {
	return atEC2(ctx, f.w, at, &kernel.Effect{Op: kernel.Types, On: elsewhere("", at)}, func(ctx context.Context) ([]store.InstanceType, error) {
		return f.w.Fleet.Types(ctx, at, rules)
	})
}

func (f tappedFleet) Launch(ctx context.Context, at fleet.Place, l fleet.Launch) (fleet.Instance, error) {
	answered := f.w.Launching(kernel.By(ctx), l)
	instance, err := atEC2(ctx, f.w, at, &kernel.Effect{Op: kernel.Launch, On: l.ClientToken}, func(ctx context.Context) (fleet.Instance, error) {
		return f.w.Fleet.Launch(ctx, at, l)
	})
	answered(err)
	return instance, err
}

func (f tappedFleet) ByToken(ctx context.Context, at fleet.Place, runner, token string) (fleet.Instance, error) {
	in, err := atEC2(ctx, f.w, at, &kernel.Effect{Op: kernel.ByToken, On: token}, func(ctx context.Context) (fleet.Instance, error) {
		return f.w.Fleet.ByToken(ctx, at, runner, token)
	})
	if errors.Is(err, fleet.ErrNotFound) {
		f.w.Missed(token)
	}
	return in, err
}

func (f tappedFleet) Get(ctx context.Context, at fleet.Place, ids ...string) (map[string]fleet.Instance, error) {
	found, err := atEC2(ctx, f.w, at, &kernel.Effect{Op: kernel.Get, What: "instances", On: strings.Join(ids, " ")}, func(ctx context.Context) (map[string]fleet.Instance, error) {
		return f.w.Fleet.Get(ctx, at, ids...)
	})
	for _, id := range ids {
		if _, ok := found[id]; err == nil && !ok {
			f.w.Missed(id)
		}
	}
	return found, err
}

func (f tappedFleet) List(ctx context.Context, at fleet.Place, controlPlane string) iter.Seq2[fleet.Instance, error] {
	return tappedSeq(ctx, f.w, &kernel.Effect{To: kernel.ToEC2, Op: kernel.List, What: "instances", On: elsewhere("", at)}, func(ctx context.Context) iter.Seq2[fleet.Instance, error] {
		if err := f.w.takeOn(ctx, at.Account); err != nil {
			return failing[fleet.Instance](err)
		}
		return f.w.Fleet.List(ctx, at, controlPlane)
	})
}

// SpotPrices is no effect: nothing is decided by it.
func (f tappedFleet) SpotPrices(ctx context.Context, at fleet.Place, types, subnets []string) (map[string]store.MicroUSD, map[string]string, error) {
	return f.w.Fleet.SpotPrices(ctx, at, types, subnets)
}

func (f tappedFleet) Console(ctx context.Context, at fleet.Place, id string) (string, error) {
	return atEC2(ctx, f.w, at, &kernel.Effect{Op: kernel.Console, On: id}, func(ctx context.Context) (string, error) {
		return f.w.Fleet.Console(ctx, at, id)
	})
}

func (f tappedFleet) Terminate(ctx context.Context, at fleet.Place, ids ...string) error {
	inv := kernel.InvocationOf(ctx)
	_, err := atEC2(ctx, f.w, at, &kernel.Effect{Op: kernel.Terminate, On: strings.Join(ids, " ")}, func(ctx context.Context) (none, error) {
		for _, id := range ids {
			f.w.Terminating(inv.Began, id)
		}
		return none{}, f.w.Fleet.Terminate(ctx, at, ids...)
	})
	if errors.Is(err, fleet.ErrNotFound) && len(ids) == 1 { // of a group, nobody knows which
		f.w.Missed(ids[0])
	}
	return err
}

// tappedGitHub is GitHub's API as worker and reaper see it: the client of
// production, over HTTP without a socket.
type tappedGitHub struct {
	w       *World
	process string // of the worker that calls; empty: another part
}

var _ github.API = tappedGitHub{}

// unanswered is how GitHub's client tells of a call without an answer, also of one for which
// its caller had no time left.
func unanswered[T any](v T, err error) (T, error) {
	for _, without := range []error{kernel.ErrFault, kernel.ErrDead, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, without) {
			return v, &github.Error{Kind: github.ErrUnknown, Op: err.Error()}
		}
	}
	return v, err
}

// began is when the invocation began that makes a call.
func began(ctx context.Context) time.Time {
	if inv := kernel.InvocationOf(ctx); inv != nil {
		return inv.Began
	}
	return time.Time{}
}

func (g tappedGitHub) Mint(ctx context.Context, in github.Scope, name string, labels []string) (github.Minted, error) {
	answered := g.w.Minting(promise.Minter{Process: g.process, Began: began(ctx)}, name, in.Credential)
	minted, err := atGitHub(ctx, g.w, in, &kernel.Effect{Op: kernel.Mint, On: name}, func(ctx context.Context) (github.Minted, error) {
		return g.w.github.Mint(ctx, in, name, labels)
	})
	answered(err)
	return unanswered(minted, err)
}

func (g tappedGitHub) Get(ctx context.Context, in github.Scope, id int64) (github.Runner, error) {
	r, err := unanswered(atGitHub(ctx, g.w, in, &kernel.Effect{Op: kernel.Get, What: "registration", On: fmt.Sprint(id)}, func(ctx context.Context) (github.Runner, error) {
		g.w.Called(in, id)
		return g.w.github.Get(ctx, in, id)
	}))
	g.w.Shows(r, err)
	return r, err
}

func (g tappedGitHub) Delete(ctx context.Context, in github.Scope, id int64) error {
	_, err := unanswered(atGitHub(ctx, g.w, in, &kernel.Effect{Op: kernel.Delete, What: "registration", On: fmt.Sprint(id)}, func(ctx context.Context) (none, error) {
		g.w.Called(in, id)
		g.w.Deleting(id)
		return none{}, g.w.github.Delete(ctx, in, id)
	}))
	return err
}

func (g tappedGitHub) Find(ctx context.Context, in github.Scope, name string) (github.Runner, error) {
	return unanswered(atGitHub(ctx, g.w, in, &kernel.Effect{Op: kernel.Find, What: "registration", On: name}, func(ctx context.Context) (github.Runner, error) {
		return g.w.github.Find(ctx, in, name)
	}))
}

// Deprecation is no effect: nothing is decided by it.
func (g tappedGitHub) Deprecation(ctx context.Context, in github.Scope, version string) (github.Deprecation, error) {
	return g.w.github.Deprecation(ctx, in, version)
}

func (g tappedGitHub) List(ctx context.Context, in github.Scope, prefix string) iter.Seq2[github.Runner, error] {
	list := tappedSeq(ctx, g.w, &kernel.Effect{To: kernel.ToGitHub, Op: kernel.List, What: "registrations", On: in.Name}, func(ctx context.Context) iter.Seq2[github.Runner, error] {
		if err := g.w.credential(ctx, in.Account); err != nil {
			return failing[github.Runner](err)
		}
		return g.w.github.List(ctx, in, prefix)
	})
	return func(yield func(github.Runner, error) bool) {
		for r, err := range list {
			r, err = unanswered(r, err)
			g.w.Shows(r, err)
			if !yield(r, err) {
				return
			}
		}
	}
}
