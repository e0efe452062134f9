// Package gateway throttles calls of the API as API Gateway does in front of it: by a
// bucket for each route, as terraform/http.tf has them.
package gateway

import (
	"io"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/time/rate"
)

// Throttle is what is let in of a route: calls a second, and at once.
type Throttle struct{ Rate, Burst float64 }

// throttle is a route in Terraform.
var throttle = regexp.MustCompile(`"([A-Z]+ /[^"]*)" += \{ rate = (\d+), burst = (\d+) \}`)

// Throttles returns those that a Terraform file names, by route.
func Throttles(terraform []byte) map[string]Throttle {
	out := map[string]Throttle{}
	for _, m := range throttle.FindAllStringSubmatch(string(terraform), -1) {
		rate, _ := strconv.ParseFloat(m[2], 64) // they are digits
		burst, _ := strconv.ParseFloat(m[3], 64)
		out[m[1]] = Throttle{Rate: rate, Burst: burst}
	}
	return out
}

// Gateway throttles calls. Make it with New. It is safe for concurrent use.
type Gateway struct {
	routes  *http.ServeMux
	buckets map[string]*rate.Limiter // by route

	mu      sync.Mutex
	refused map[string]int
}

// New returns a gateway with full buckets. Routes without a throttle are not limited.
func New(throttles map[string]Throttle) *Gateway {
	g := &Gateway{routes: http.NewServeMux(), buckets: map[string]*rate.Limiter{}, refused: map[string]int{}}
	for route, t := range throttles {
		g.buckets[route] = rate.NewLimiter(rate.Limit(t.Rate), int(t.Burst))
		pattern := route
		if strings.HasSuffix(pattern, "/") { // it is that path alone
			pattern += "{$}"
		}
		g.routes.Handle(pattern, named(route))
	}
	return g
}

// named is a route. Nobody serves it.
type named string

func (named) ServeHTTP(http.ResponseWriter, *http.Request) {}

// Refuses reports whether a call is one too many, and takes its token if it is not.
func (g *Gateway) Refuses(r *http.Request) bool {
	h, _ := g.routes.Handler(r)
	route, ok := h.(named)
	if !ok || g.buckets[string(route)].Allow() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused[string(route)]++
	return true
}

// Refused returns how many calls were too many, by route.
func (g *Gateway) Refused() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.refused)
}

// TooMany returns the answer to a call that is one too many. It does not say when to come
// again. The status is documented
// (https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-throttling.html),
// and the text is believed.
func TooMany(r *http.Request) *http.Response {
	return &http.Response{
		StatusCode: http.StatusTooManyRequests, Status: "429 Too Many Requests", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(`{"message":"Too Many Requests"}`)),
	}
}
