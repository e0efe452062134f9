package client_test

import (
	"slices"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

func TestStoryTellsEachStepOnceInOrder(t *testing.T) {
	asked := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	entry := func(after time.Duration, state, reason string) apitype.Entry {
		return apitype.Entry{At: asked.Add(after), State: state, Reason: reason}
	}
	s := apitype.Status{CreatedAt: asked, History: []apitype.Entry{entry(0, "accepted", ""), entry(2*time.Second, "waiting", "launches r")}}
	var story client.Story
	tell := func() (lines []string) {
		for _, step := range story.Next(s) {
			lines = append(lines, step.Since.String()+" "+step.Who+" "+step.State+" "+step.Reason)
		}
		return lines
	}
	if got, want := tell(), []string{"0s request accepted ", "2s request waiting launches r"}; !slices.Equal(got, want) {
		t.Errorf("first = %q, want %q", got, want)
	}
	s.History = append(s.History, entry(9*time.Second, "ready", "online"))
	s.Runner = &apitype.Runner{History: []apitype.Entry{entry(2*time.Second, "new", ""), entry(9*time.Second, "online", ""), entry(12*time.Second, "busy", "")}}
	if got, want := tell(), []string{"2s runner new ", "9s request ready online", "9s runner online ", "12s runner busy "}; !slices.Equal(got, want) {
		t.Errorf("then = %q, want %q", got, want)
	}
	if got := tell(); len(got) != 0 {
		t.Errorf("again = %q, want nothing", got)
	}
}
