package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) store.Store { return NewMemory() })
}

func TestMemoryExpireDeletesWhatItsTTLAllows(t *testing.T) {
	m := NewMemory()
	passed, now, keeps := request("passed"), request("now"), request("keeps")
	passed.TTL, now.TTL = epoch.Unix()-1, epoch.Unix()
	passed.DueAt = epoch
	create(t, m, passed, now, keeps)
	for _, want := range []int{1, 0} {
		if n, err := m.Expire(t.Context(), epoch); err != nil || n != want {
			t.Errorf("Expire = %d, %v; want %d", n, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Expire(ctx, epoch.Add(time.Hour)); !errors.Is(err, context.Canceled) {
		t.Errorf("Expire after cancel = %v, want context.Canceled", err)
	}
	listed(t, m, store.Filter{}, "now", "keeps")
	version(t, m, passed.Ref(), 0)
	due(t, m, epoch.Add(time.Hour))
	conflict(t, m.Commit(t.Context(), store.Put(passed)), passed.Ref())
}
