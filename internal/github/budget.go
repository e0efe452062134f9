package github

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// Purpose is what calls to GitHub are made for.
type Purpose string

// The purposes.
const (
	Registering Purpose = "registrations"
	Confirming  Purpose = "confirmations" // that a runner is online, or that GitHub tells what it has
	Ending      Purpose = "ends"
	Reading     Purpose = "jobs"    // what becomes of workflow jobs
	Healing     Purpose = "healing" // what can wait for a better hour
)

// leastHourly is how many calls an hour GitHub grants a credential at least: a
// personal access token has 5,000, an App's installation 5,000 to 12,500
// (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api).
// It holds until GitHub tells more in an answer.
const leastHourly = 5000

// Part is what one purpose may spend of the calls an hour that GitHub grants a
// credential.
type Part struct {
	Purpose Purpose
	Calls   string // which ones, for people
	// Share is the part of the hour's calls that may be made with it by the
	// processes whose Config.Share add up to 1; 1: all. Of a smaller part, each
	// process may make its own share, one call at least: a third at once, and two
	// thirds evenly over the hour, so that no hour sees more, wherever it begins.
	Share float64
	// Free is the part of the hour's calls above which Share does not count: while so much
	// is left, as GitHub says, a burst may be confirmed at once; 1: it always counts.
	Free float64
	// Above is the part of the hour's calls that must be left when a call is made, as
	// GitHub itself counts for all processes; 0: none.
	Above float64
}

// Budget divides the calls of an hour, most important first. A call that it does
// not allow is not made, and is ErrLimited.
//
// Registrations come first: without them there is no runner, so they may take all.
// An end follows each runner; a tenth is 500 runners an hour at the least that GitHub
// grants, and what asks more often goes in circles. Confirmations have a tenth too:
// half of it is the workers', a tenth each, and half the reaper's. What is beyond a
// worker's part, the reaper confirms within a minute, by one list for all runners of a
// repository. While a fifth of the hour is left they may have more: a burst of two thousand
// registers with two thousand calls and confirms with as many. Confirmations leave the
// last tenth of the hour to registrations; ends do
// not, since a registration that is left there can be given a job. Reads of workflow jobs
// come before a launch or save one, and leave it that tenth too. What heals has no
// need to be done in an hour that is half spent.
var Budget = []Part{
	{Registering, "register a runner, find its runner group", 1, 1, 0},
	{Confirming, "get a runner, list runners", 0.05, 0.2, 0.1},
	{Ending, "delete a runner, find one by its name", 0.1, 1, 0},
	{Reading, "get a workflow run, its jobs or one job, cancel a run", 1, 1, 0.1},
	{Healing, "downloads, the end of a version, workflow runs of a repository, webhook deliveries, the repositories of a runner group", 1, 1, 0.5},
}

// purpose returns what a call is for, or "" for one that costs GitHub's hour
// nothing, or that is part of another.
func (o op) purpose() Purpose {
	switch o {
	case mint, groups:
		return Registering
	case get, list:
		return Confirming
	case remove, find:
		return Ending
	case getRun, listJobs, getJob, cancel:
		return Reading
	case offers, ends, listRuns, deliveries, admits:
		return Healing
	}
	return ""
}

// hour is what a credential may spend in an hour, and did.
type hour struct {
	share     float64 // of this process
	limit     int     // calls, as GitHub said last
	remaining int     // likewise, until reset
	reset     time.Time
	parts     map[Purpose]*gauge // of those with a share below 1
}

func newHour(share float64) *hour {
	h := &hour{share: share, parts: map[Purpose]*gauge{}}
	h.grant(leastHourly, time.Time{})
	return h
}

// grant makes the hour's calls that many.
func (h *hour) grant(limit int, now time.Time) {
	if limit == h.limit {
		return
	}
	h.limit = limit
	for _, p := range Budget {
		if p.Share == 1 {
			continue
		}
		calls := p.Share * h.share * float64(limit)
		burst := max(1, int(calls/3)) // with room for none, none would ever be made
		regained := rate.Limit(calls * 2 / 3 / 3600)
		if g := h.parts[p.Purpose]; g != nil {
			g.SetLimitAt(now, regained)
			g.SetBurstAt(now, burst)
		} else {
			h.parts[p.Purpose] = &gauge{Limiter: rate.NewLimiter(regained, burst)}
		}
	}
}

// learn takes in what GitHub says of the hour in the headers of an answer.
func (h *hour) learn(now time.Time, header http.Header) {
	if r := header.Get("X-Ratelimit-Resource"); r != "" && r != "core" {
		return
	}
	limit, err1 := strconv.Atoi(header.Get("X-Ratelimit-Limit"))
	left, err2 := strconv.Atoi(header.Get("X-Ratelimit-Remaining"))
	reset, err3 := strconv.ParseInt(header.Get("X-Ratelimit-Reset"), 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || limit <= 0 || left < 0 {
		return
	}
	at := time.Unix(min(reset, now.Add(maxWait).Unix()), 0) // no window is longer
	if at.Before(h.reset) || at.Equal(h.reset) && limit == h.limit && left > h.remaining {
		return // answers overtake each other: an older one tells nothing
	}
	h.grant(limit, now)
	h.remaining, h.reset = left, at
}

// room reports whether a call for a purpose may be made, or when to ask again. It
// spends nothing.
func (h *hour) room(p Purpose, now time.Time) (at time.Time, ok bool) {
	for _, part := range Budget {
		if part.Purpose == p && part.Above > 0 && now.Before(h.reset) && float64(h.remaining) <= part.Above*float64(h.limit) {
			return h.reset, false
		}
	}
	const rounding = 1e-6 // of a call: who comes at the time that it was given gets it
	if g := h.parts[p]; g != nil && g.TokensAt(now) < 1-rounding && !h.free(p, now) {
		return g.promise(1, now), false
	}
	return time.Time{}, true
}

// free reports whether so much of the hour is left that the part of a purpose does not
// count.
func (h *hour) free(p Purpose, now time.Time) bool {
	i := slices.IndexFunc(Budget, func(part Part) bool { return part.Purpose == p })
	return now.Before(h.reset) && float64(h.remaining) > Budget[i].Free*float64(h.limit)
}

// spend makes a call for a purpose count, if need be against what is to come.
func (h *hour) spend(p Purpose, now time.Time) {
	if g := h.parts[p]; g != nil && !h.free(p, now) {
		g.ReserveN(now, 1)
	}
}

// Table returns the budget for documents, in Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| for | calls | of the calls of an hour, the workers together may make, and the reaper too | while GitHub says that are left |\n|---|---|---|---|\n")
	part := func(f float64) string {
		return map[float64]string{1: "all", 0.05: "a twentieth", 0.1: "a tenth", 0.2: "a fifth", 0.5: "half"}[f]
	}
	for _, p := range Budget {
		above := "any"
		if p.Above > 0 {
			above = "more than " + part(p.Above)
		}
		share := part(p.Share)
		if p.Free < 1 {
			share += ", and all while more than " + part(p.Free) + " is left"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", p.Purpose, p.Calls, share, above)
	}
	return b.String()
}
