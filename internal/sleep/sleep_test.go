package sleep_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

func TestTimePassesUnlessTheContextEndsFirst(t *testing.T) {
	enough := errors.New("enough")
	for name, c := range map[string]struct {
		d, cut, want time.Duration // cut: when the context ends
		err          error
	}{
		"Whole":            {d: time.Minute, cut: time.Hour, want: time.Minute},
		"CutShort":         {d: time.Hour, cut: time.Minute, want: time.Minute, err: enough},
		"NoTime":           {d: 0, cut: time.Minute},
		"LessThanNoTime":   {d: -time.Second, cut: time.Minute},
		"NoTimeAndTooLate": {d: 0, cut: 0, err: enough},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), c.cut, enough)
				defer cancel()
				began := time.Now()
				if err := sleep.For(ctx, c.d); !errors.Is(err, c.err) || time.Since(began) != c.want {
					t.Errorf("For = %v after %v, want %v after %v", err, time.Since(began), c.err, c.want)
				}
			})
		})
	}
}
