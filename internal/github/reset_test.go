package github_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/resettest"
)

// resetting returns a client of a GitHub that answers one call on each connection,
// and resets a connection that is used again once it has read the request.
func resetting(t *testing.T) (*github.Client, *resettest.Server) {
	t.Helper()
	server := &resettest.Server{Answer: "HTTP/1.1 204 No Content\r\n\r\n", Whole: true}
	url := server.Start(t)
	hc := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(hc.CloseIdleConnections) // before the server waits for its connections to end
	return clientAt(t, url, hc), server
}

func TestDeletionOnAConnectionThatWasResetIsMadeOnAnother(t *testing.T) {
	c, server := resetting(t)
	for id := range int64(5) {
		if err := c.Delete(t.Context(), repo, id+1); err != nil {
			t.Fatalf("Delete of runner %d: %v", id+1, err)
		}
	}
	if answered, resets := server.Seen(); len(answered) != 5 || resets != 4 {
		t.Errorf("GitHub answered %d calls and reset %d, want 5 and 4: each DELETE but the first is made twice", len(answered), resets)
	}
}

func TestMintOnAConnectionThatWasResetIsNotRepeated(t *testing.T) {
	c, server := resetting(t)
	if err := c.Delete(t.Context(), repo, 1); err != nil {
		t.Fatal(err)
	}
	minted, err := c.Mint(context.WithoutCancel(t.Context()), repo, "garo-x-1", []string{"garo-own"})
	failed(t, "Mint", err, github.ErrUnknown)
	if answered, resets := server.Seen(); len(answered) != 1 || resets != 1 || minted.RunnerID != 0 {
		t.Errorf("GitHub answered %d calls and reset %d, want the DELETE and one POST: it may have registered a runner", len(answered), resets)
	}
}
