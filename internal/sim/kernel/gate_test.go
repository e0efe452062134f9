package kernel

import (
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Two worlds have the same answers in different places of the memory. An answer that told
// where would make each of their states a new one, and nothing would be gone through twice,
// nor to its end.
func TestEqualAnswersReadTheSameInEveryWorld(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for name, answer := range map[string]func() any{
		"Account": func() any {
			return store.Account{
				ID: "111122223333", RunsOn: []store.Offer{{Labels: []string{"plain"}}}, WebhookSecrets: []secret.Text{secret.New("hidden")},
				MachineOptions: store.MachineOptions{InstanceRequirements: &store.Requirements{}},
			}
		},
		"Job":    func() any { return github.Job{ID: 1, Labels: []string{"plain"}, CreatedAt: at} },
		"Jobs":   func() any { return []github.Job{{ID: 1, Labels: []string{"plain"}, CreatedAt: at}} },
		"Run":    func() any { return github.Run{ID: 77} },
		"Spares": func() any { return []store.Item{&store.Spares{Pool: "p", Runners: []string{"r"}}} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if one, other := answered(answer(), nil), answered(answer(), nil); one != other || one == "" {
				t.Errorf("answered = %s, and in another world %s", one, other)
			}
		})
	}
}

// What the explorer writes down must leave what was answered as it is.
func TestPlainLeavesTheItem(t *testing.T) {
	t.Parallel()
	for _, i := range []store.Item{&store.Spares{Pool: "p"}, &store.Quota{Account: "a"}, &store.Request{ID: "r"}} {
		i.Base().Writer = "worker-1"
		if Plain(i); i.Base().Writer != "worker-1" {
			t.Errorf("%s has the writer %q now, want worker-1", i.Ref(), i.Base().Writer)
		}
	}
}
