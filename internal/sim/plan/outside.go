package plan

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sim/setting"
)

// ec2 returns what EC2 fails with on its own: placements have no capacity for a
// minute and more.
func (p *plan) ec2() func(string, fleet.Launch) error {
	heals := p.heals()
	rate := oneOf(p.dice, []uint64{0, 0, 100, 400, 800}, "rate of no capacity")
	if p.theme() == starved {
		rate = oneOf(p.dice, []uint64{300, 600, 900}, "rate of no capacity")
	}
	strange := p.window(80, oneOf(p.dice, []time.Duration{20 * time.Second, 2 * time.Minute, 6 * time.Minute}, "unfamiliar for"), "unfamiliar")
	unpriced := p.window(200, 10*time.Minute, "prices refused")
	return func(op string, l fleet.Launch) error {
		if op == simfleet.OpSpot && unpriced.has(time.Now()) && p.happens(noPrices, "window") {
			return &fleet.Error{Kind: fleet.ErrRefused, Code: "UnauthorizedOperation", Text: "You are not authorized."}
		}
		if op != simfleet.OpLaunch {
			return nil
		}
		p.mu.Lock()
		p.launches = append(p.launches, l)
		p.mu.Unlock()
		if strange.has(time.Now()) && p.happens(unfamiliar, "window") {
			return &fleet.Error{Kind: fleet.ErrUnknown, Case: fleet.ErrUnfamiliar, Code: "FluxCapacitorDrained", Text: "The flux capacitor is drained."}
		}
		minute := time.Since(setting.Epoch) / time.Minute
		where := fmt.Sprintf("%s %s in %s, minute %d", l.Market, l.InstanceType, l.Subnet, minute)
		if rate == 0 || !time.Now().Before(heals) || p.draw(where)%1000 >= rate || !p.happens(noCapacity, where) {
			return nil
		}
		code := oneOf(p.dice, []string{"InsufficientInstanceCapacity", "InsufficientInstanceCapacity", "InsufficientFreeAddressesInSubnet",
			"Unsupported", "MaxSpotInstanceCountExceeded", "VcpuLimitExceeded"}, where, "code")
		return &fleet.Error{Kind: fleet.ErrCapacity, Code: code, Text: "no capacity for " + where}
	}
}

// reasons are why EC2 ends machines as they begin.
var reasons = []string{
	"Client.InternalError: Client error on launch", "Client.InvalidSnapshot.NotFound: The specified snapshot was not found.",
	"Client.VolumeLimitExceeded: Volume limit exceeded", "Server.InternalError: Internal error on launch",
	"Server.SpotInstanceTermination: Spot instance termination",
}

// dies says which machines EC2 ends as soon as they would run.
func (p *plan) dies() func(n int, l fleet.Launch) string {
	heals, some := p.heals(), p.chance(150, "EC2 ends machines")
	return func(n int, _ fleet.Launch) string {
		name := strconv.Itoa(n)
		if !some || !time.Now().Before(heals) || !p.chance(300, "EC2 ends machine", name) || !p.happens(endedByEC2, name) {
			return ""
		}
		return oneOf(p.dice, reasons, "reason of", name)
	}
}

// answer is what GitHub says in place of what was asked.
func answer(status int, header ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"message":"no"}`)) // to memory: it does not fail
	})
}

// gateway is what GitHub's own proxy says when nothing behind it answers.
var gateway http.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(http.StatusBadGateway)
	_, _ = w.Write([]byte("<html><body>502 Bad Gateway</body></html>")) // to memory: it does not fail
})

// github returns what GitHub's API refuses on its own: all for a while, in one of
// the two ways in which it limits, and names that it has already.
func (p *plan) github() func(string) simgithub.Fault {
	heals := p.heals()
	limit := p.window(120, oneOf(p.dice, []time.Duration{time.Minute, 5 * time.Minute, 20 * time.Minute}, "limit for"), "limit")
	if limit != (window{}) && !p.happens(limitedByGH, "window") {
		limit = window{}
	}
	taken := p.chance(150, "names taken")
	down := p.window(100, oneOf(p.dice, []time.Duration{time.Minute, 5 * time.Minute, 20 * time.Minute}, "registers nothing for"), "registers nothing")
	n := 0
	return func(op string) (f simgithub.Fault) {
		now := time.Now()
		if limit.has(now) {
			p.again(limitedByGH)
			left := int(limit.to.Sub(now)/time.Second) + 1
			if p.chance(500, "secondary limit") {
				f.Instead = answer(http.StatusTooManyRequests, "Retry-After", strconv.Itoa(min(left, 60)))
			} else {
				f.Instead = answer(http.StatusForbidden, "X-RateLimit-Limit", "5000", "X-RateLimit-Remaining", "0",
					"X-RateLimit-Reset", strconv.FormatInt(now.Unix()+int64(left), 10))
			}
			return f
		}
		if op == simgithub.OpMint && down.has(now) && p.happens(mintsNot, "window") {
			f.Instead = gateway
			return f
		}
		if op != simgithub.OpMint || !taken || !now.Before(heals) {
			return f
		}
		p.mu.Lock()
		n++
		name := strconv.Itoa(n)
		p.mu.Unlock()
		if p.chance(300, "name taken", name) && p.happens(nameTaken, name) {
			f.Instead = simgithub.NameExists("garo-" + name)
		}
		return f
	}
}

// two reports whether the account has two credentials.
func (p *plan) two() bool { return p.chance(250, "two credentials") }

// refuses returns how GitHub refuses one of two credentials: for a while, or from some time
// on for good, since the other one serves.
func (p *plan) refuses() func(credential int) *simgithub.Refusal {
	which, longest := int(p.draw("credential refused")%2), oneOf(p.dice, []time.Duration{20 * time.Second, 3 * time.Minute, time.Hour}, "credential refused for")
	refused := p.window(600, longest, "credential refused")
	if !p.two() || refused == (window{}) || !p.has(oneRefused, "window") {
		return nil
	}
	if p.chance(400, "credential refused for good") {
		refused.to = refused.from.AddDate(1, 0, 0) // worlds end within a day
	}
	how := oneOf(p.dice, []simgithub.Refusal{simgithub.BadCredentials, simgithub.Suspended}, "how a credential is refused")
	return func(credential int) *simgithub.Refusal {
		if credential != which || !refused.has(time.Now()) {
			return nil
		}
		p.again(oneRefused)
		return &how
	}
}

// rules changes how GitHub and EC2 look at things, until the world heals.
func (s *story) rules() (heal func()) {
	s.w.GitHub.Change(func(r *simgithub.Rules) {
		if s.chance(100, "busy lag") && s.happens(busyLate, "") {
			r.BusyLag = s.between(time.Second, time.Minute, "busy lag for")
		}
		r.OmitBusy = s.chance(100, "omit busy") && s.happens(omitsBusy, "")
		r.TooOld = s.chance(20, "too old") && s.happens(tooOld, "")
		r.LosesJobs = s.chance(40, "loses jobs") && s.happens(losesJobs, "")
	})
	if s.chance(150, "EC2 lags") && s.happens(staleEC2, "") {
		least, longest := time.Second, oneOf(s.dice, []time.Duration{10 * time.Second, time.Minute, 6 * time.Minute}, "EC2 lag")
		if longest > time.Minute {
			least = 4 * time.Minute // so that a machine is not shown when it may count as gone for the first time
		}
		s.w.Fleet.SetLag(s.between(least, longest, "EC2 lags by"))
	}
	return func() {
		s.w.NewImage() // with a runner program that GitHub takes
		s.w.GitHub.Change(func(r *simgithub.Rules) { r.BusyLag, r.OmitBusy, r.TooOld, r.LosesJobs = 0, false, false, false })
		s.w.GitHub.Calm()
		s.w.Fleet.SetLag(0)
	}
}
