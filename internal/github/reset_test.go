package github_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
)

// resetting is a GitHub that answers one DELETE or mint on each connection, and
// resets a connection that is used again once it has read the request.
type resetting struct {
	mu    sync.Mutex
	asked []string
}

func (g *resetting) start(t *testing.T) (url string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { g.serve(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

func (g *resetting) serve(conn *net.TCPConn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for n := 0; ; n++ {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		g.mu.Lock()
		g.asked = append(g.asked, req.Method)
		g.mu.Unlock()
		if n > 0 {
			_ = conn.SetLinger(0) // the close is a reset
			return
		}
		_, _ = fmt.Fprint(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	}
}

// take returns the methods that were asked for since the last call.
func (g *resetting) take() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	asked := g.asked
	g.asked = nil
	return asked
}

func TestDeletionOnAConnectionThatWasResetIsMadeOnAnother(t *testing.T) {
	g := &resetting{}
	hc := &http.Client{Transport: &http.Transport{}}
	defer hc.CloseIdleConnections()
	c := clientAt(t, g.start(t), hc)
	for id := range int64(5) {
		if err := c.Delete(t.Context(), repo, id+1); err != nil {
			t.Fatalf("Delete of runner %d: %v", id+1, err)
		}
	}
	if got := g.take(); len(got) != 9 {
		t.Errorf("GitHub was asked %v, want each DELETE but the first twice", got)
	}
}

func TestMintOnAConnectionThatWasResetIsNotRepeated(t *testing.T) {
	g := &resetting{}
	hc := &http.Client{Transport: &http.Transport{}}
	defer hc.CloseIdleConnections()
	c := clientAt(t, g.start(t), hc)
	if err := c.Delete(t.Context(), repo, 1); err != nil {
		t.Fatal(err)
	}
	g.take()
	minted, err := c.Mint(context.WithoutCancel(t.Context()), repo, "garo-x-1", []string{"garo-own"})
	failed(t, "Mint", err, github.ErrUnknown)
	if got := g.take(); len(got) != 1 || minted.RunnerID != 0 {
		t.Errorf("GitHub was asked %v, want one POST: it may have registered a runner", got)
	}
}
