package memhttp

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestClientSeesTheHandlersAnswer(t *testing.T) {
	c := Client(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Path", r.Method+" "+r.Host+r.RequestURI)
		w.WriteHeader(http.StatusTeapot)
		w.Header().Set("X-Late", "1")
		w.Write(b)
		w.WriteHeader(http.StatusOK)
	}))
	resp, err := c.Post("http://api.test/start?x=1", "text/plain", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusTeapot || string(b) != "body" || resp.Header.Get("X-Path") != "POST api.test/start?x=1" || resp.Header.Get("X-Late") != "" {
		t.Errorf("answer = %d %q %v, want the handler's first status, its body and the headers set before", resp.StatusCode, b, resp.Header)
	}
}

func TestSilentHandlerAnswers200(t *testing.T) {
	resp, err := Client(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).Get("http://api.test/")
	if err != nil || resp.StatusCode != 200 || resp.ContentLength != 0 {
		t.Errorf("Get = %v, %v; want an empty 200", resp, err)
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	resp, err := Client(http.RedirectHandler("http://169.254.169.254/", http.StatusFound)).Get("http://api.test/")
	if err != nil || resp.StatusCode != http.StatusFound {
		t.Errorf("Get = %v, %v; want the redirect itself", resp, err)
	}
}

func TestPanicIsAnError(t *testing.T) {
	if _, err := Client(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("x") })).Get("http://api.test/"); err == nil {
		t.Error("Get of a handler that panics: no error")
	}
}

func TestContextEndsTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Client(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://api.test/", nil)
		if _, err := c.Do(req); err == nil {
			t.Error("Do beyond its deadline: no error")
		}
	})
}
