package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// api is a stand-in for the examples.
func api() *httptest.Server {
	mux := http.NewServeMux()
	answer := func(pattern, body string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
	}
	answer("POST /start", `{"id": "i4bs", "state": "accepted", "runs_on": ["garo-1"], "status_token": "garo_st_1"}`)
	answer("GET /status/i4bs", `{"id": "i4bs", "state": "ready", "created_at": "2026-03-01T12:00:00Z",
		"history": [{"at": "2026-03-01T12:00:00Z", "state": "accepted"}, {"at": "2026-03-01T12:00:24Z", "state": "ready"}],
		"runner": {"name": "garo-prod-r1-1", "state": "online", "history": [{"at": "2026-03-01T12:00:01Z", "state": "launched", "reason": "instance i-0a3f"}]}}`)
	answer("GET /status/late", `{"id": "late", "state": "failed", "error": {"code": "no_capacity", "text": "No placement had capacity.", "retryable": true}}`)
	answer("POST /stop/i4bs", `{"id": "i4bs", "state": "ready", "draining": true}`)
	mux.HandleFunc("GET /status/other", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", apitype.ProblemMedia)
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"code": "not_found", "detail": "There is no such request, or the token may not see it."}`)
	})
	mux.HandleFunc("GET /requests", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("after") == "" {
			fmt.Fprint(w, `{"requests": [{"id": "third", "state": "failed"}, {"id": "second", "state": "expired"}], "after": "second"}`)
			return
		}
		fmt.Fprint(w, `{"requests": [{"id": "first", "state": "failed"}]}`)
	})
	answer("GET /runners", `{"runners": [{"id": "r1", "state": "busy", "instance_id": "i-0a3f", "cost": {"hour_usd": 0.02}}]}`)
	answer("GET /runners/r1", `{"id": "r1", "state": "busy", "jobs": 1}`)
	answer("GET /find", `{"what": "instance", "requests": [], "runners": [{"id": "r1", "repository": "acme/shop"}]}`)
	answer("GET /usage", `{"from": "2026-03-01", "to": "2026-03-07", "by": ["repository"], "rows": [{"repository": "acme/shop", "runners": 12, "seconds": 36000, "usd": 1.5}, {"repository": "acme/web", "runners": 1, "seconds": 60, "unpriced_seconds": 60}]}`)
	answer("POST /checks", `{"id": "c1", "state": "queued"}`)
	answer("GET /checks/c1", `{"id": "c1", "state": "done", "result": "warn", "findings": [{"check": "keys", "result": "ok", "evidence": "Key k1 signs."}, {"check": "subnet", "about": "subnet-a", "result": "warn", "evidence": "It has 3 addresses left.", "remedy": "Add a subnet."}]}`)
	answer("GET /health", `{"shards": 1, "runs": [{"shard": 0, "failures": 1, "brakes": ["123456789012/eu-west-2"]}]}`)
	return httptest.NewServer(mux)
}

// operator returns a client that calls as an operator, and what ends the stand-in.
func operator() (*client.Client, func()) {
	server := api()
	return client.Must(client.New(client.Config{URL: server.URL, Token: client.Static(client.NewToken("garo_op_secret"))})), server.Close
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

// A configuration that no call can work with is refused at once.
func ExampleNew() {
	_, err := client.New(client.Config{URL: "garo.example.org", Token: client.Static(client.NewToken("garo_op_secret"))})
	fmt.Println(err)
	_, err = client.New(client.Config{URL: "https://garo.example.org"})
	fmt.Println(err)
	// Output:
	// client: Config.URL "garo.example.org": want an address such as https://garo.example.org
	// client: Config.Token is nil: want a source such as Static or IDTokens
}

// A token cannot be printed by accident.
func ExampleNewToken() {
	token := client.NewToken("garo_op_secret")
	fmt.Println(token)
	fmt.Printf("%+v %q\n", struct{ Token client.Token }{token}, token)
	fmt.Println(len(token.Reveal()))
	// Output:
	// ***
	// {Token:***} ***
	// 14
}

// The answer to a start has a token that opens this one request, and prints as *** too.
func ExampleClient_For() {
	c, end := operator()
	defer end()
	started, err := c.Start(context.Background(), apitype.Start{Repo: "acme/shop", Mode: apitype.Ephemeral, Timeout: 1800})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(started.ID, started.StatusToken)
	status, err := c.For(started).Status(context.Background(), started.ID)
	fmt.Println(status.State, err)
	// Output:
	// i4bs ***
	// ready <nil>
}

// A request that ends without a runner says why.
func ExampleClient_Wait() {
	c, end := operator()
	defer end()
	_, err := c.Wait(context.Background(), "late", nil)
	if no, ok := errors.AsType[*client.NotReadyError](err); ok {
		fmt.Println(no.Status.Error.Code, no.Status.Error.Retryable)
	}
	fmt.Println(err)
	// Output:
	// no_capacity true
	// request late ended as failed: no_capacity: No placement had capacity.
}

// The pages of a list follow one another by themselves.
func ExampleClient_AllRequests() {
	c, end := operator()
	defer end()
	for s, err := range c.AllRequests(context.Background(), client.Query{Repository: "acme/shop", Failed: true}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(s.ID, s.State)
	}
	// Output:
	// third failed
	// second expired
	// first failed
}

// What runs now, and what an hour of it costs.
func ExampleClient_AllRunners() {
	c, end := operator()
	defer end()
	for r, err := range c.AllRunners(context.Background(), client.Query{Live: true}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s %s $%.2f\n", r.InstanceID, r.State, *r.Cost.HourUSD)
	}
	// Output:
	// i-0a3f busy $0.02
}

func ExampleClient_Runner() {
	c, end := operator()
	defer end()
	r, err := c.Runner(context.Background(), "r1")
	fmt.Println(r.State == apitype.RunnerBusy, r.Jobs, err)
	// Output:
	// true 1 <nil>
}

// Whose is this instance?
func ExampleClient_Find() {
	c, end := operator()
	defer end()
	found, err := c.Find(context.Background(), "i-0a3f")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(found.What, "of", found.Runners[0].Repository)
	// Output:
	// instance of acme/shop
}

// A price that is not known is no zero.
func ExampleClient_Usage() {
	c, end := operator()
	defer end()
	usage, err := c.Usage(context.Background(), client.UsageQuery{By: []string{"repository"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range usage.Rows {
		cost := "unknown"
		if r.USD != nil {
			cost = fmt.Sprintf("$%.2f", *r.USD)
		}
		fmt.Println(r.Repository, time.Duration(r.Seconds)*time.Second, cost)
	}
	// Output:
	// acme/shop 10h0m0s $1.50
	// acme/web 1m0s unknown
}

// Could a machine be launched, and what is in the way?
func ExampleClient_WaitCheck() {
	c, end := operator()
	defer end()
	started, err := c.StartCheck(context.Background(), apitype.CheckStart{})
	if err != nil {
		fmt.Println(err)
		return
	}
	check, err := c.WaitCheck(context.Background(), started.ID, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range check.Findings {
		if f.Result != apitype.ResultOK {
			fmt.Println(f.Check, f.About, f.Result, f.Evidence, f.Remedy)
		}
	}
	// Output:
	// subnet subnet-a warn It has 3 addresses left. Add a subnet.
}

// A story tells each step once, however often the request is looked at.
func ExampleStory() {
	c, end := operator()
	defer end()
	var story client.Story
	for range 2 {
		status, err := c.Status(context.Background(), "i4bs")
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, step := range story.Next(status) {
			fmt.Println(step.Since, step.Who, step.State)
		}
	}
	// Output:
	// 0s request accepted
	// 1s runner launched
	// 24s request ready
}

// Errors keep their meaning on their way from the API.
func ExampleCode() {
	c, end := operator()
	defer end()
	_, err := c.Status(context.Background(), "other")
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

func ExampleClient_Health() {
	c, end := operator()
	defer end()
	health, err := c.Health(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range health.Runs {
		fmt.Println("shard", r.Shard, "failed", r.Failures, "steps; brakes:", r.Brakes)
	}
	// Output:
	// shard 0 failed 1 steps; brakes: [123456789012/eu-west-2]
}
