// Package memhttp connects an HTTP client to a handler in the same process: no
// socket, no goroutine, and so no real time. It promises what a client sees of a
// well-behaved server: a whole answer, or an error when the context ends first or
// the handler panics.
package memhttp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
)

// Client returns a client whose every request goes to h, whatever its host is.
// Redirects are answers, as GARO's clients want them.
func Client(h http.Handler) *http.Client {
	return &http.Client{
		Transport:     Transport{h},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Transport is the http.RoundTripper of Client. It is safe for concurrent use if
// the handler is.
type Transport struct{ Handler http.Handler }

// RoundTrip calls the handler, on the caller's goroutine.
func (t Transport) RoundTrip(req *http.Request) (_ *http.Response, err error) {
	if err := req.Context().Err(); err != nil {
		return nil, context.Cause(req.Context())
	}
	in := req.Clone(req.Context())
	in.RequestURI = req.URL.RequestURI()
	if in.Host == "" {
		in.Host = req.URL.Host
	}
	in.RemoteAddr = "127.0.0.1:0"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	w := &recorder{header: http.Header{}}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the handler of %s %s panicked: %v", req.Method, req.URL.Path, p)
		}
	}()
	t.Handler.ServeHTTP(w, in)
	if err := req.Context().Err(); err != nil {
		return nil, context.Cause(req.Context())
	}
	w.WriteHeader(http.StatusOK)
	return &http.Response{
		Status:     fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)),
		StatusCode: w.status,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        w.sent,
		Body:          io.NopCloser(bytes.NewReader(w.body.Bytes())),
		ContentLength: int64(w.body.Len()),
		Request:       req,
	}, nil
}

// recorder is an http.ResponseWriter that keeps what was written.
type recorder struct {
	header, sent http.Header
	status       int
	body         bytes.Buffer
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // 1xx only announces
		w.status, w.sent = status, w.header.Clone()
	}
}

func (w *recorder) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}
