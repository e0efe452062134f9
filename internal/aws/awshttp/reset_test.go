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
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/awshttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/resettest"
)

func TestCallOnAConnectionThatWasResetIsMadeOnAnother(t *testing.T) {
	for name, whole := range map[string]bool{"after its first bytes": false, "after all of it": true} {
		for _, size := range []int{100, 24 << 10} { // the second: RunInstances with the longest user data
			t.Run(fmt.Sprintf("%s, of %d", name, size), func(t *testing.T) {
				server := &resettest.Server{Answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Whole: whole}
				url := server.Start(t)
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
				answered, resets := server.Seen()
				if len(answered) != 10 || resets != 9 {
					t.Errorf("%d answers and %d resets, want 10 and 9: each call but the first meets a dead connection", len(answered), resets)
				}
				for i, r := range answered {
					if _, sent := r.Header["Idempotency-Key"]; sent || r.Body != want {
						t.Errorf("call %d has the header %q and %d bytes, want no such header, and %d", i+1, r.Header["Idempotency-Key"], len(r.Body), size)
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
