package resettest_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/test/resettest"
)

// One connection, used twice: the first request is answered, and the second one
// finds the connection reset.
func TestConnectionIsResetWhenItIsUsedAgain(t *testing.T) {
	for _, whole := range []bool{false, true} {
		t.Run(fmt.Sprintf("Whole=%v", whole), func(t *testing.T) {
			s := &resettest.Server{Answer: "HTTP/1.1 204 No Content\r\n\r\n", Whole: whole}
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.Start(t), "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			const request = "POST / HTTP/1.1\r\nHost: x\r\nX-Kind: a\r\nContent-Length: 4\r\n\r\nbody"
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(in, nil)
			if err != nil || resp.StatusCode != http.StatusNoContent {
				t.Fatalf("the first request has the answer %v, %v; want 204", resp, err)
			}
			_ = resp.Body.Close()
			_, err = io.WriteString(conn, request)
			if err == nil {
				_, err = in.ReadByte()
			}
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("the second request ends with %v, want a reset", err)
			}
			answered, resets := s.Seen()
			if len(answered) != 1 || resets != 1 || answered[0].Body != "body" || answered[0].Header.Get("X-Kind") != "a" {
				t.Errorf("answered %v, and %d resets; want the first request, and one", answered, resets)
			}
		})
	}
}
