package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/local/memhttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/gateway"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/kernel"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
)

// door is the way to the API: an http.RoundTripper for those of one part. Each
// call is an invocation of the API, on the caller's goroutine.
type door struct {
	world *World
	part  string
}

// RoundTrip implements http.RoundTripper.
func (d door) RoundTrip(req *http.Request) (*http.Response, error) {
	w := d.world
	body, err := takeBody(req)
	if err != nil {
		return nil, err
	}
	if w.gateway.Refuses(req) {
		return gateway.TooMany(req), nil
	}
	what, on := describe(req, body)
	return kernel.Do(req.Context(), w.Kernel, &kernel.Effect{Part: d.part, To: kernel.ToAPI, Op: kernel.Call, What: what, On: on}, func(ctx context.Context) (*http.Response, error) {
		asked := time.Now()
		w.Asks(req, what, on, body)
		inv := w.Invoke(kernel.API, what)
		ctx, cancel := inv.Context(ctx, setting.APITime) // the API continues when its caller has gone
		defer cancel()
		req := req.WithContext(ctx)
		req.Body = io.NopCloser(bytes.NewReader(body))
		res, err := memhttp.Transport{Handler: w.handler()}.RoundTrip(req)
		inv.Return()
		if inv.Dead() {
			return nil, errors.New("connection reset")
		}
		if err == nil {
			w.Tells(asked, what, on, body, res.StatusCode)
		}
		if err == nil && d.part == kernel.Client {
			err = w.overhear("the answer to "+what, res)
		}
		return res, err
	})
}

// overhear keeps what callers are shown.
func (w *World) overhear(where string, res *http.Response) error {
	b, err := io.ReadAll(res.Body)
	res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(b))
	w.Said(where, b)
	return err
}

// takeBody reads the body of a request, so that it can be sent twice.
func takeBody(req *http.Request) ([]byte, error) {
	if req.Body == nil {
		return nil, nil
	}
	defer req.Body.Close()
	return io.ReadAll(req.Body)
}

// describe says what a call of the API is, and which record it is about.
func describe(req *http.Request, body []byte) (what, on string) {
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	what = req.Method + " " + parts[0]
	if len(parts) > 1 {
		on = parts[1]
	}
	if len(parts) == 3 {
		what = parts[2]
	}
	if what != "events" {
		return what, on
	}
	var e struct{ Event string }
	if json.Unmarshal(body, &e) == nil {
		what = "event " + e.Event
	}
	return what, on
}
