package promise

import (
	"errors"
	"slices"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// The promises about credentials that GitHub refuses.
const (
	PassedOver Promise = "who was refused with a credential registers with another for ten minutes"
	StandsIn   Promise = "no runner ends for a credential that is refused while another serves"
	Alarmed    Promise = "an alarm says that GitHub refuses a credential"
)

// passFor is for how long a worker passes a refused credential over.
const passFor = 10 * time.Minute

// Minter is who registers a runner: a process of a worker, and when its invocation began.
type Minter struct {
	Process string // empty: another part
	Began   time.Time
}

// tried is a credential in a place, as a process of a worker knows it.
type tried struct{ process, credential, place string }

// refusals is what a world has seen of refused credentials. Processes remember them while
// the table is emptied.
type refusals struct {
	at    map[tried]time.Time // when a registration was refused last
	final map[string]bool     // by runner: all credentials were, when its last registration was; absent: that was not refused
	seen  bool                // GitHub refused one of several
}

func newRefusals() refusals {
	return refusals{at: map[tried]time.Time{}, final: map[string]bool{}}
}

// credentialPromises are about credentials that GitHub refuses.
type credentialPromises struct{ *History }

// sawTried looks at a registration before it is made. What an invocation learns itself is no
// news to its other registrations, which may be on their way.
func (p credentialPromises) sawTried(by Minter, r store.Runner, credential string) {
	for _, name := range p.Registrars() {
		at, ok := p.refusals.at[tried{by.Process, name, placeOf(r)}]
		if ok && by.Process != "" && !at.After(by.Began) && time.Since(at) < passFor {
			p.hold(PassedOver, name != credential || p.allRefused(by.Process, r, by.Began.Add(-passFor)),
				"runner %s is registered with %s, which %s was refused at %s", r.ID, credential, by.Process, at)
		}
	}
}

// allRefused reports whether a process was refused with each of the account's credentials
// since a time.
func (p credentialPromises) allRefused(process string, r store.Runner, since time.Time) bool {
	return !slices.ContainsFunc(p.Registrars(), func(name string) bool {
		return p.refusals.at[tried{process, name, placeOf(r)}].Before(since)
	})
}

// sawAnswer looks at what GitHub answered to a registration.
func (p credentialPromises) sawAnswer(by Minter, r store.Runner, credential string, kind error) {
	delete(p.refusals.final, r.ID)
	if by.Process == "" || r.Account != p.Account.ID || len(p.Registrars()) < 2 || !errors.Is(kind, github.ErrDenied) && !errors.Is(kind, github.ErrNotFound) {
		return
	}
	now := time.Now()
	p.refusals.at[tried{by.Process, credential, placeOf(r)}] = now
	p.refusals.final[r.ID] = p.allRefused(by.Process, r, now.Add(-passFor))
}

// sawDenied looks at a runner that begins to drain. One that the other credential could not
// register until it had to boot, since GitHub asks that one to wait, may say why.
func (p credentialPromises) sawDenied(r store.Runner, l store.Lock) {
	if all, ok := p.refusals.final[r.ID]; ok && r.End.Code == store.EndMintDenied && r.DrainingAt.Before(l.BootBy) {
		p.hold(StandsIn, all, "runner %s ends with %q, and another credential was not refused", r.ID, r.End.Text)
	}
}

// Refused notes that GitHub refuses one of several credentials.
func (p credentialPromises) Refused() { p.note(func() { p.refusals.seen = true }) }

// sawRefusals looks at the alarms of a world that has come to rest.
func (p credentialPromises) sawRefusals(alarms []store.Alarm) {
	if p.refusals.seen {
		p.hold(Alarmed, slices.Contains(alarms, store.AlarmGitHub), "GitHub refused a credential, and the alarms are %q", alarms)
	}
}
