package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// api is a stand-in for the examples: every account is called "yours".
func api() *httptest.Server {
	mux := http.NewServeMux()
	answer := func(pattern, body string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
	}
	answer("POST /start", `{"id": "i4bs", "state": "accepted", "runs_on": ["garo-1"], "status_token": "garo_st_1"}`)
	answer("GET /status/i4bs", `{"id": "i4bs", "state": "ready", "runner": {"name": "garo-prod-r1-1", "state": "online"}}`)
	answer("POST /stop/i4bs", `{"id": "i4bs", "state": "ready", "draining": true}`)
	mux.HandleFunc("GET /status/other", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", apitype.ProblemMedia)
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"code": "not_found", "detail": "There is no such request, or the token may not see it."}`)
	})
	return httptest.NewServer(mux)
}

func Example() {
	server := api()
	defer server.Close()
	c, err := client.New(client.Config{URL: server.URL, Token: client.Static(client.NewToken("garo_op_secret"))})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	started, err := c.Start(ctx, apitype.Start{Repo: "acme/shop", Labels: []string{"build"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("runs-on:", started.RunsOn[0])
	// The token of the request itself opens nothing else.
	c = c.For(started)
	status, err := c.Wait(ctx, started.ID, func(s apitype.Status) { fmt.Println(s.State) })
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("runner:", status.Runner.Name)
	stopped, err := c.Stop(ctx, started.ID, false)
	fmt.Println("ends:", stopped.Draining, err)
	// Output:
	// runs-on: garo-1
	// ready
	// runner: garo-prod-r1-1
	// ends: true <nil>
}

// Errors keep their meaning on their way from the API.
func ExampleCode() {
	server := api()
	defer server.Close()
	c, err := client.New(client.Config{URL: server.URL, Token: client.Static(client.NewToken("garo_op_secret"))})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = c.Status(context.Background(), "other")
	fmt.Println(errors.Is(err, client.ErrNotFound))
	fmt.Println(err)
	// Output:
	// true
	// status of other: not_found: There is no such request, or the token may not see it.
}

// In a job of GitHub Actions there is no secret: the job asks for an ID token.
func ExampleIDTokens() {
	noJob := func(string) string { return "" } // nil in a program: the environment
	tokens := client.IDTokens(client.IDTokenConfig{Audience: "https://garo.example.org", Getenv: noJob})
	c, err := client.New(client.Config{URL: "https://garo.example.org", Token: tokens})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = c.Start(context.Background(), apitype.Start{})
	fmt.Println(errors.Is(err, client.ErrNoIDToken))
	fmt.Println(err)
	// Output:
	// true
	// start: token: this job may not ask GitHub for an ID token: add to the workflow, or to the job
	//
	// permissions:
	//   id-token: write
}
