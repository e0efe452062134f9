package gateway_test

import (
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/gateway"
)

// throttles are those of http.tf.
func throttles(t *testing.T) map[string]gateway.Throttle {
	t.Helper()
	text, err := os.ReadFile("../../../terraform/http.tf")
	if err != nil {
		t.Fatal(err)
	}
	return gateway.Throttles(text)
}

func TestEachRouteHasItsBucket(t *testing.T) {
	all := throttles(t)
	calls := map[string][2]string{
		"POST /start": {"POST", "/start"}, "GET /status/{id}": {"GET", "/status/abc"}, "POST /github/webhook": {"POST", "/github/webhook"},
		"GET /agent/linux/{arch}/{sha256}":        {"GET", "/agent/linux/arm64/aa"},
		"POST /sweeps/{account}/{region}/release": {"POST", "/sweeps/1/eu-west-2/release"}, "GET /": {"GET", "/"},
	}
	for route, call := range calls {
		t.Run(route, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, throttle := gateway.New(all), all[route]
				letIn := func() (n float64) {
					for !g.Refuses(httptest.NewRequest(call[0], call[1], nil)) {
						if n++; n > 2*throttle.Burst {
							t.Fatalf("%v calls are let in at once, want %v", n, throttle.Burst)
						}
					}
					return n
				}
				if n := letIn(); n == 0 || n != throttle.Burst {
					t.Errorf("%v calls are let in at once, want %v", n, throttle.Burst)
				}
				time.Sleep(time.Second)
				if n := letIn(); n != throttle.Rate {
					t.Errorf("%v calls are let in a second later, want %v", n, throttle.Rate)
				}
				if got := g.Refused(); len(got) != 1 || got[route] != 2 {
					t.Errorf("refused %v, want two of %s", got, route)
				}
			})
		})
	}
}

func TestCallOfNoRouteIsNotThrottled(t *testing.T) {
	g := gateway.New(throttles(t))
	for range 1000 {
		if g.Refuses(httptest.NewRequest("GET", "/nowhere/at/all", nil)) {
			t.Fatal("a call of no route is throttled")
		}
	}
}
