package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// controlPlane examines what all accounts depend on.
func (d *Doctor) controlPlane(ctx context.Context) []store.Finding {
	kid := ""
	ring, err := d.Keys(ctx)
	if err == nil {
		kid = ring.Current()
	}
	found := []store.Finding{judgeKeys(kid, err)}
	ids, err := d.Accounts.List(ctx)
	found = append(found, judgeRegistrations(ids, err))
	greeting := d.greet(ctx)
	return append(found, judgeAPI(d.APIURL, greeting), judgeClock(greeting), d.waiting(ctx))
}

func judgeKeys(current string, err error) store.Finding {
	if err != nil {
		return failed(Keys, "", "The control plane's keys cannot be read: "+err.Error()+".", "Check the parameter keys below the control plane's path in SSM, and the worker's right to read it.")
	}
	return ok(Keys, "", "Key "+current+" signs.")
}

func judgeRegistrations(ids []string, err error) store.Finding {
	switch {
	case err != nil:
		return failed(Registrations, "", "The registrations cannot be listed: "+err.Error()+".", "Check the parameters below accounts of the control plane's path in SSM, and the worker's right to read them.")
	case len(ids) == 0:
		return warn(Registrations, "", "No account is registered.", "Register one: docs/deploy.md says how.")
	}
	return ok(Registrations, "", fmt.Sprintf("%d registered.", len(ids)))
}

// greeting is how the API answered at its public address.
type greeting struct {
	err    error
	status int
	health string
	// sent and came are our clock around the call, and theirs is what the answer says.
	sent, came, theirs time.Time
}

// greetFor is how long the API may take to answer: a cold start takes a second or two.
const greetFor = 8 * time.Second

// greet calls the API as machines do.
func (d *Doctor) greet(ctx context.Context) greeting {
	ctx, cancel := context.WithTimeout(ctx, greetFor)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(d.APIURL, "/")+"/healthz", nil)
	if err != nil {
		return greeting{err: err}
	}
	g := greeting{sent: d.Now()}
	resp, err := d.HTTP.Do(req)
	if err != nil {
		return greeting{err: err}
	}
	defer resp.Body.Close()
	g.came, g.status = d.Now(), resp.StatusCode
	g.theirs, _ = http.ParseTime(resp.Header.Get("Date"))
	var body struct{ Status string }
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<10)).Decode(&body) == nil { // what is none has no status
		g.health = body.Status
	}
	return g
}

const wayIn = "Machines call this address: check GARO_URL, its DNS name and certificate, and that the API may be reached from outside."

func judgeAPI(address string, g greeting) store.Finding {
	switch cause, named := errors.AsType[*url.Error](g.err); {
	case named:
		return failed(API, address, "No answer: "+cause.Err.Error()+".", wayIn)
	case g.err != nil:
		return failed(API, address, "No answer: "+g.err.Error()+".", wayIn)
	case g.status != http.StatusOK || g.health == "":
		return failed(API, address, fmt.Sprintf("Status %d, and not the answer of GARO's API.", g.status), wayIn)
	}
	return ok(API, address, fmt.Sprintf("It answers in %d ms.", g.came.Sub(g.sent).Milliseconds()))
}

// mostSkew is how far two clocks may be apart: tokens and leases allow for a few seconds, and
// an HTTP date is in whole ones.
const mostSkew = 5 * time.Second

func judgeClock(g greeting) store.Finding {
	if g.err != nil || g.theirs.IsZero() {
		return skipped(Clock, "", "The API's answer tells no time to compare with.")
	}
	var off time.Duration
	switch late := g.theirs.Add(time.Second); { // the date is cut to the second
	case late.Before(g.sent):
		off = g.sent.Sub(late)
	case g.theirs.After(g.came):
		off = g.theirs.Sub(g.came)
	}
	if off > mostSkew {
		return failed(Clock, "", fmt.Sprintf("The worker's clock and that of the API's address are %s apart.", off.Round(time.Second)),
			"Set the clock of the host by NTP: tokens, claims and GitHub's App tokens depend on it.")
	}
	return ok(Clock, "", "It agrees with the time that the API's address tells.")
}
