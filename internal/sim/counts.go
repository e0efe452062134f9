package sim

import (
	"context"
	"errors"

	"github.com/alphagov/github-actions-runner-orchestration/internal/metrics"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// countedStore is the store of the parts, whose commits are counted.
func countedStore(w *World) store.Store {
	return answered{w, metrics.Counted(tappedStore{w}, func(f metrics.Figures) {
		w.Counted(f)
		w.Figures.Add(f)
	})}
}

// answered is a store that tells the oracle of the commits whose answer was lost.
type answered struct {
	w *World
	store.Store
}

// Commit implements store.Store.
func (s answered) Commit(ctx context.Context, changes ...store.Change) error {
	err := s.Store.Commit(ctx, changes...)
	if err != nil && !errors.Is(err, store.ErrConflict) {
		s.w.Unanswered()
	}
	return err
}
