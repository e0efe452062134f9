package simgithub

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

func TestEachCredentialHasLimitsOfItsOwn(t *testing.T) {
	w := open(t, Config{Rules: Rules{Others: []secret.Text{secret.New("other")}, Limit: Limit{Calls: 1}}})
	path := "/repositories/101/actions/runners"
	for _, c := range []struct {
		token string
		want  int
	}{{token, http.StatusOK}, {token, http.StatusForbidden}, {"other", http.StatusOK}, {"other", http.StatusForbidden}, {"third", http.StatusUnauthorized}} {
		if got := w.as(c.token, "GET", path, ""); got.status != c.want {
			t.Errorf("a call by %q = %d, want %d", c.token, got.status, c.want)
		}
	}
}

func TestRegistrationsOfAScopeAreLimitedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, Config{})
		header := http.Header{}
		s := w.Server
		s.rules.Limit.Scope = 2
		for _, c := range []struct {
			scope string
			after time.Duration
			full  bool
		}{{"a", 0, false}, {"a", time.Minute, false}, {"a", time.Minute, true}, {"b", 0, false}, {"a", 3 * time.Minute, false}, {"a", 0, true}} {
			time.Sleep(c.after)
			if _, full := s.crowded(time.Now(), c.scope, header); full != c.full {
				t.Errorf("a registration in %s is refused: %t, want %t", c.scope, full, c.full)
			}
		}
	})
}
