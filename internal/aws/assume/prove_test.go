package assume_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

func TestProofOfARoleUsesNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Worker)
		w.wantKey(t, "ASIA1")
		if err := w.Prove(t.Context(), account); err != nil {
			t.Errorf("Prove = %v, want no error", err)
		}
		w.wantKey(t, "ASIA1")
		w.aws.sts = func() *http.Response { return stsError(403, "AccessDenied", "not with "+externalID) }
		err := w.Prove(t.Context(), account)
		if !errors.Is(err, fleet.ErrRefused) || strings.Contains(err.Error(), externalID) {
			t.Errorf("Prove of a role that refuses = %v, want %v, without the external id", err, fleet.ErrRefused)
		}
	})
}

func TestStrangersAskWithoutTheExternalID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Worker)
		let, err := w.Strangers(t.Context(), account)
		if err != nil || !slices.Equal(let, []string{fleet.WithoutExternalID, fleet.WithAWrongOne}) {
			t.Errorf("Strangers of a role that lets everybody in = %q, %v; want both ways", let, err)
		}
		for n, call := range w.aws.roles {
			if call.Get("ExternalId") == externalID || (n == 0) == call.Has("ExternalId") || call.Get("DurationSeconds") != "900" || call.Get("SourceIdentity") != "garo-prod" {
				t.Errorf("call %d = %v, want none with the external id, and for the shortest time", n, call)
			}
		}
		w.aws.sts = func() *http.Response { return stsError(403, "AccessDenied", "no") }
		if let, err := w.Strangers(t.Context(), account); err != nil || len(let) != 0 {
			t.Errorf("Strangers of a role that is guarded = %q, %v; want none", let, err)
		}
		w.aws.sts = func() *http.Response { return stsError(503, "ServiceUnavailable", "no") }
		if _, err := w.Strangers(t.Context(), account); err == nil {
			t.Error("Strangers while STS is away = nil, want an error: that proves nothing")
		}
	})
}
