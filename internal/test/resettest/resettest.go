// Package resettest serves HTTP on connections that die: it answers one request on
// each, and resets one that is used again, as a gateway does that forgot it while
// the client's function was frozen. What a client must repeat then, and what it must
// not, is for the client's tests to say.
package resettest

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
)

// Request is one that a Server answered.
type Request struct {
	Header http.Header
	Body   string
}

// Server is such a server. Its methods may be called at the same time.
type Server struct {
	// Answer is what it writes for a request: a whole HTTP response.
	Answer string
	// Whole: it reads all of a request on a used connection before it resets that. If
	// not, its first byte.
	Whole bool

	mu       sync.Mutex
	answered []Request
	resets   int
}

// Start serves until the test ends.
func (s *Server) Start(t *testing.T) (url string) {
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

func (s *Server) serve(conn *net.TCPConn) {
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 16)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	body, _ := io.ReadAll(req.Body)
	s.mu.Lock()
	s.answered = append(s.answered, Request{Header: req.Header, Body: string(body)})
	s.mu.Unlock()
	_, _ = io.WriteString(conn, s.Answer)
	if _, err := in.Peek(1); err != nil {
		return // it was not used again
	}
	if s.Whole {
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

// Seen returns the requests that were answered, in order, and how many connections
// were reset.
func (s *Server) Seen() (answered []Request, resets int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.answered...), s.resets
}
