package simgithub

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Limit is how many calls are let in. The zero value sets no limit. Asking for
// the limits and for installation tokens counts against none.
type Limit struct {
	Calls  int           // in a window
	Window time.Duration // 0: an hour
	// Secondary answers 429 with retry-after, in place of 403 with no calls
	// remaining until a reset.
	Secondary bool
	// Points is what all calls of one operation may cost in any 60 seconds, at 1 for a
	// GET and 5 for others: GitHub takes 900 at one endpoint
	// (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#about-secondary-rate-limits).
	// 0: they cost nothing.
	Points int
	// Scope is how many registrations there may be in five minutes in a repository or an
	// organization, with all credentials: GitHub takes 1,500
	// (https://docs.github.com/en/actions/reference/limits#existing-system-limits). 0: any.
	Scope int
}

// crowded counts a registration in a scope, and refuses it if there were too many.
func (s *Server) crowded(now time.Time, scope string, h http.Header) (answer, bool) {
	if s.rules.Limit.Scope == 0 {
		return answer{}, false
	}
	if s.arrived == nil {
		s.arrived = map[string][]time.Time{}
	}
	recent := slices.DeleteFunc(s.arrived[scope], func(at time.Time) bool { return now.Sub(at) >= 5*time.Minute })
	s.arrived[scope] = recent
	if len(recent) >= s.rules.Limit.Scope {
		h.Set("Retry-After", "60")
		return refuse(http.StatusTooManyRequests, "You have exceeded a secondary rate limit.", nil), true
	}
	s.arrived[scope] = append(recent, now)
	return answer{}, false
}

// limiter counts the calls that were let in.
type limiter struct {
	used   int                // calls in the current window
	opened time.Time          // when the window began
	spent  map[string][]spend // in the last minute, by operation
}

// window returns the calls that a client may make, how many it has left, and
// when it has all of them again.
func (c *limiter) window(now time.Time, l Limit) (limit, left int, reset time.Time) {
	length := l.Window
	if length == 0 {
		length = time.Hour
	}
	if !now.Before(c.opened.Add(length)) {
		c.opened, c.used = now, 0
	}
	limit = l.Calls
	if limit == 0 {
		limit = c.used + 5000 // what a user has in an hour; never used up
	}
	return limit, max(0, limit-c.used), c.opened.Add(length)
}

// spend is what a call costs in points, and when it was made.
type spend struct {
	at     time.Time
	points int
}

// charge takes the points of a call, or says after how long there will be some.
// What is refused costs nothing.
func (c *limiter) charge(now time.Time, l Limit, op, method string) (wait time.Duration) {
	if l.Points == 0 {
		return 0
	}
	cost := 1
	if method != http.MethodGet {
		cost = 5
	}
	if c.spent == nil {
		c.spent = map[string][]spend{}
	}
	c.spent[op] = slices.DeleteFunc(c.spent[op], func(x spend) bool { return now.Sub(x.at) >= time.Minute })
	sum := cost
	for _, x := range c.spent[op] {
		sum += x.points
	}
	if sum > l.Points {
		return time.Minute // as GitHub says where it names no time
	}
	c.spent[op] = append(c.spent[op], spend{now, cost})
	return 0
}

// admit counts a call, and refuses it if there were too many.
func (c *limiter) admit(now time.Time, l Limit, op, method string, h http.Header) (answer, bool) {
	if wait := c.charge(now, l, op, method); wait > 0 {
		h.Set("Retry-After", strconv.Itoa(int(wait/time.Second)))
		return refuse(http.StatusForbidden, "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.", nil), false
	}
	limit, left, reset := c.window(now, l)
	if left == 0 && l.Secondary {
		h.Set("Retry-After", strconv.Itoa(int((reset.Sub(now)+time.Second-1)/time.Second)))
		return refuse(http.StatusTooManyRequests, "You have exceeded a secondary rate limit.", nil), false
	}
	refused := left == 0
	if !refused {
		c.used++
		left--
	}
	// GitHub gives a reset in whole seconds: no earlier than it is.
	h.Set("X-RateLimit-Limit", strconv.Itoa(limit))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(left))
	h.Set("X-RateLimit-Used", strconv.Itoa(limit-left))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(reset.Add(time.Second-1).Unix(), 10))
	h.Set("X-RateLimit-Resource", "core")
	if refused {
		return refuse(http.StatusForbidden, "API rate limit exceeded for user ID 1.", nil), false
	}
	return answer{}, true
}

// rateLimit tells the limits. It is not counted.
func (c *limiter) rateLimit(now time.Time, l Limit) answer {
	limit, left, reset := c.window(now, l)
	bucket := map[string]int64{
		"limit":     int64(limit),
		"remaining": int64(left),
		"used":      int64(limit - left),
		"reset":     reset.Add(time.Second - 1).Unix(),
	}
	return answer{http.StatusOK, map[string]any{
		"rate": bucket,
		"resources": map[string]any{
			"core":                        bucket,
			"search":                      bucket,
			"actions_runner_registration": bucket,
		},
	}}
}
