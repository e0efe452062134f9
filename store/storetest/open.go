package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// open checks how many open requests of a repository are counted.
func open(t *testing.T, s store.Store, repo store.Repository, most, want int) {
	t.Helper()
	eventually(t, func() error {
		got, err := s.CountOpen(t.Context(), repo, most)
		if err != nil || got != want {
			return fmt.Errorf("CountOpen(%s, %d) = %d, %v; want %d", repo.Key(), most, got, err, want)
		}
		return nil
	})
}

// of returns a request of a repository in a state.
func of(id string, repo store.Repository, state store.RequestState) *store.Request {
	r := request(id)
	r.Repository, r.State = repo, state
	return r
}

var openTests = []test{
	{"CountsWhatIsNotFinalOfItsRepository", func(t *testing.T, s store.Store) {
		mine, other := store.Repository{ID: "42"}, store.Repository{ID: "43"}
		for _, state := range store.RequestStates {
			create(t, s, of("a-"+string(state), mine, state), of("b-"+string(state), other, state))
		}
		create(t, s, of("c", other, store.Waiting), runner("x"), lock("k"))
		open(t, s, mine, 10, 2)
		open(t, s, other, 10, 3)
		open(t, s, store.Repository{ID: "44"}, 10, 0)
	}},
	{"FollowsTheStateOfARequest", func(t *testing.T, s store.Store) {
		r := of("a", store.Repository{ID: "42"}, store.Accepted)
		for _, step := range []struct {
			state store.RequestState
			want  int
		}{{store.Accepted, 1}, {store.Waiting, 1}, {store.Accepted, 1}, {store.Ready, 0}} {
			r.State = step.state
			commit(t, s, store.Put(r))
			open(t, s, r.Repository, 10, step.want)
		}
	}},
	{"StopsAtMost", func(t *testing.T, s store.Store) {
		repo := store.Repository{ID: "42"}
		for n := range 7 {
			create(t, s, of(fmt.Sprint(n), repo, store.Accepted))
		}
		open(t, s, repo, 10, 7)
		open(t, s, repo, 7, 7)
		open(t, s, repo, 3, 3)
		open(t, s, repo, 0, 0)
	}},
	{"TellsGitHubServersApart", func(t *testing.T, s store.Store) {
		here, there := store.Repository{ID: "42"}, store.Repository{ID: "42", Server: "ghe.test"}
		create(t, s, of("a", here, store.Accepted), of("b", there, store.Accepted), of("c", there, store.Accepted))
		open(t, s, here, 10, 1)
		open(t, s, there, 10, 2)
	}},
	{"CancelledContextIsAnError", func(t *testing.T, s store.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.CountOpen(ctx, store.Repository{ID: "42"}, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("CountOpen after cancel = %v, want context.Canceled", err)
		}
	}},
}
