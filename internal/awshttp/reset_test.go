package awshttp_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/awshttp"
)

// resetting is a server that answers one request on each connection and then
// waits. It resets a connection that is used again, as a gateway does that forgot
// it while its function was frozen: after the first bytes of the request, or after
// all of it. It counts the requests that it answered, and keeps their headers.
type resetting struct {
	whole bool // read all of the second request first

	mu       sync.Mutex
	answered int
	resets   int
	headers  []http.Header
	bodies   []string
}

func (s *resetting) start(t *testing.T) (url string) {
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
			wg.Go(func() { s.serve(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

func (s *resetting) serve(conn *net.TCPConn) {
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 16)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	body, _ := io.ReadAll(req.Body)
	s.mu.Lock()
	s.answered++
	s.headers, s.bodies = append(s.headers, req.Header), append(s.bodies, string(body))
	s.mu.Unlock()
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
	if _, err := in.Peek(1); err != nil {
		return // it was not used again
	}
	if s.whole {
		again, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, again.Body)
	}
	s.mu.Lock()
	s.resets++
	s.mu.Unlock()
	_ = conn.SetLinger(0) // the close is a reset
}

func TestCallOnAConnectionThatWasResetIsMadeOnAnother(t *testing.T) {
	for name, whole := range map[string]bool{"after its first bytes": false, "after all of it": true} {
		for _, size := range []int{100, 24 << 10} { // the second: RunInstances with the longest user data
			t.Run(fmt.Sprintf("%s, of %d", name, size), func(t *testing.T) {
				server := &resetting{whole: whole}
				url := server.start(t)
				client := awshttp.Client(patience)
				defer client.CloseIdleConnections()
				want := strings.Repeat("x", size)
				for n := range 10 {
					answer, err := client.Post(url, "application/x-www-form-urlencoded", strings.NewReader(want))
					if err != nil {
						t.Fatalf("call %d with a body of %d bytes: %v", n+1, size, err)
					}
					_, _ = io.Copy(io.Discard, answer.Body)
					_ = answer.Body.Close()
				}
				server.mu.Lock()
				defer server.mu.Unlock()
				if server.answered != 10 || server.resets != 9 {
					t.Errorf("%d answers and %d resets, want 10 and 9: each call but the first meets a dead connection", server.answered, server.resets)
				}
				for i, h := range server.headers {
					if _, sent := h["Idempotency-Key"]; sent || server.bodies[i] != want {
						t.Errorf("call %d has the header %q and %d bytes, want no such header, and %d", i+1, h["Idempotency-Key"], len(server.bodies[i]), size)
					}
				}
			})
		}
	}
}

func TestCallOnAFreshConnectionIsNotRepeated(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	calls := make(chan int)
	go func() {
		n := 0
		for {
			conn, err := l.Accept()
			if err != nil {
				calls <- n
				return
			}
			n++
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}
	}()
	client := awshttp.Client(patience)
	defer client.CloseIdleConnections()
	if _, err := client.Post("http://"+l.Addr().String(), "text/plain", strings.NewReader("x")); err == nil {
		t.Error("Post = nil error, want that the connection was reset")
	}
	_ = l.Close()
	if n := <-calls; n != 1 {
		t.Errorf("%d calls, want 1: a server that resets fresh connections is not asked again here", n)
	}
}

// A server that offers HTTP/2, as AWS's may: net/http repeats nothing on a connection of
// HTTP/2 that is reset.
func TestHTTP2IsNotSpoken(t *testing.T) {
	protocols := make(chan string, 2)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { protocols <- r.Proto }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	client := awshttp.Client(patience)
	defer client.CloseIdleConnections()
	trusted := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	client.Transport.(awshttp.Transport).Base.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}
	for name, c := range map[string]struct {
		client *http.Client
		want   string
	}{
		"ours": {client, "HTTP/1.1"}, "one that may": {server.Client(), "HTTP/2.0"},
	} {
		answer, err := c.client.Post(server.URL, "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = answer.Body.Close()
		if got := <-protocols; got != c.want || answer.Proto != c.want {
			t.Errorf("%s: the call was made by %s and answered by %s, want %s", name, got, answer.Proto, c.want)
		}
	}
}
