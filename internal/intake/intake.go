// Package intake is the one way to a recorded request. Whatever door a wish comes
// through, it is completed with the account's defaults, held against the account's
// registration, and recorded under an id that the same wish gets again.
//
// It promises that nothing is recorded which the registration does not allow, and that
// a wish that comes twice has one record. Who may ask is for the door to say.
//
// A door calls, in this order: Place; Complete; Allowed, and continues only if that is
// nil; Accept; Open.Admit, in which it commits and sends the decision; and Replayed if the
// commit fails, or Admit refuses: the wish may have its record.
package intake

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Intake is what the doors share. It is safe for concurrent use.
type Intake struct {
	Accounts store.Accounts
	Keys     *keys.Ring
	Limits   store.Limits
	Open     *Gauge
}

// Wish is what a caller asks for. What is empty or zero is the account's choice.
type Wish struct {
	Caller string
	Origin store.Origin // of a workflow's job
	// Job is the workflow job that is to get a machine, whose labels are then Labels. Its
	// zero value: the wish is for a runner with an own label.
	Job      store.WorkflowJob
	Account  string
	Region   string
	Regions  []string // of an ephemeral request, in the order to try; Region is empty then
	Type     string
	Mode     string
	Labels   []string // as store.ParseLabels returns them
	Machine  store.Machine
	TimeoutS int
	GiveUp   time.Duration
	// Key tells the wishes of one job apart, and those of callers without a job.
	Key   string
	Trace string
}

// Refusal is an error that a caller may read: why its wish is not granted.
type Refusal struct {
	// Invalid: it has to ask otherwise. Full: it may ask again after that time. Else it
	// may not have what it asks for.
	Invalid bool
	Full    time.Duration
	Reason  string // a few words for the audit
	Field   string // of the wish, by its name in the API; empty: none is to blame
	Text    string // a sentence that says what to do
}

func (r *Refusal) Error() string { return strings.TrimSpace(r.Field + ": " + r.Text) }

// NotServed is the refusal for an account that does not serve the repository, and for
// one that is not registered at all: callers cannot tell them apart.
func NotServed() *Refusal {
	return &Refusal{
		Reason: "account does not serve the repository", Field: "account_id",
		Text: "No such account is registered for this repository. Ask its owner to register it.",
	}
}

// ErrMismatch is the error of a wish whose id has a record of another wish.
var ErrMismatch = errors.New("the same key was used for another wish")

// Place finds the account to launch into, and the repository to launch for as serves
// returns it: the named account, or the only one that serves it. An error that is no
// Refusal is an outage.
func (in Intake) Place(ctx context.Context, account string, serves func(store.Account) (store.Repository, bool)) (a store.Account, repo store.Repository, err error) {
	ids := []string{account}
	if account == "" {
		if ids, err = in.Accounts.List(ctx); err != nil {
			return a, repo, fmt.Errorf("list accounts: %w", err)
		}
	}
	found := 0
	var faulty error // one account whose registration cannot be used
	for _, id := range ids {
		candidate, err := in.Accounts.Account(ctx, id)
		switch {
		case errors.Is(err, store.ErrNoAccount), err == nil && candidate.Closed:
			continue
		case errors.Is(err, store.ErrUnusable) && account == "":
			faulty = fmt.Errorf("account %s: %w", id, err) // it stops nobody who has another
			continue
		case err != nil:
			return a, repo, fmt.Errorf("account %s: %w", id, err)
		}
		if r, ok := serves(candidate); ok {
			a, repo = candidate, r
			found++
		}
	}
	switch {
	case found == 1:
		return a, repo, nil
	case found == 0 && faulty != nil:
		return a, repo, faulty
	case found == 0:
		return a, repo, NotServed()
	}
	return a, repo, &Refusal{Invalid: true, Field: "account_id", Text: fmt.Sprintf("Name one: %d accounts are registered for this repository.", found)}
}

// Named finds the repository of exactly that name in a registration.
func Named(a store.Account, name string) (store.Repository, bool) {
	i := slices.IndexFunc(a.Repositories, func(n store.Named) bool { return n.Name == name })
	if i < 0 {
		return store.Repository{}, false
	}
	owner, _, _ := strings.Cut(name, "/")
	repo := store.Repository{Server: a.Server, ID: a.Repositories[i].ID, Name: name, Owner: owner}
	if j := slices.IndexFunc(a.Owners, func(n store.Named) bool { return n.Name == owner }); j >= 0 {
		repo.OwnerID = a.Owners[j].ID
	} else if a.Scope.Kind == store.OrganizationScope && a.Scope.Name == owner {
		repo.OwnerID = a.Scope.ID
	}
	return repo, true
}

// Complete returns the request that a wish stands for, with the account's defaults. It
// has no id yet. The error is a Refusal.
func (in Intake) Complete(a store.Account, repo store.Repository, w Wish) (store.Request, error) {
	region := cmp.Or(w.Region, first(w.Regions), a.OwnRegion())
	if region == "" {
		return store.Request{}, &Refusal{Invalid: true, Field: "region", Text: fmt.Sprintf("Name one: account %s has no default.", a.ID)}
	}
	r := store.Request{
		Caller: w.Caller, Repository: repo, Scope: a.Registers(), Origin: w.Origin, Job: w.Job, Account: a.ID, Region: region,
		Type: cmp.Or(w.Type, first(a.Markets)), Mode: cmp.Or(w.Mode, first(a.Modes)), Labels: w.Labels,
		Machine:  inOrder(w.Machine),
		TimeoutS: cmp.Or(w.TimeoutS, max(1, int(min(in.Limits.Timeout, a.MaxTimeout(in.Limits)).Seconds()))),
	}
	switch {
	case len(w.Regions) > 0 && r.Mode != store.Ephemeral:
		return store.Request{}, &Refusal{Invalid: true, Field: "regions", Text: "Only a request with mode ephemeral is tried in several regions: name one region, or that mode."}
	case len(w.Regions) > 0:
		return r.InRegions(w.Regions), nil
	case w.Region == "":
		return r.InRegions(a.FallbackFor(r)), nil
	}
	return r, nil
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

// Allowed returns why a does not allow r, or nil. It is pure. The event of the job's run
// is in r.Origin; a wish without one is no workflow's.
func Allowed(lim store.Limits, a store.Account, r store.Request) *Refusal {
	if !a.Serves(r.Repository) {
		return NotServed()
	}
	if no := EventAllowed(a, r.Origin.Event); no != nil && r.Origin.Event != "" {
		return no
	}
	if field, value, ok := a.Permits(r); !ok {
		return &Refusal{Reason: field + " not allowed", Field: field, Text: fmt.Sprintf("Account %s does not allow %s %q.", a.ID, field, value)}
	}
	if limit := a.MaxTimeout(lim); r.Timeout() > limit {
		return &Refusal{Reason: "timeout not allowed", Field: "timeout", Text: fmt.Sprintf("Account %s allows at most %d seconds.", a.ID, int(limit.Seconds()))}
	}
	return nil
}

// EventAllowed returns why a does not allow runs of an event, or nil. It is pure.
func EventAllowed(a store.Account, event string) *Refusal {
	ok, field := a.Allow.Event(event)
	if ok {
		return nil
	}
	return &Refusal{
		Reason: "event " + event + " not allowed",
		Text:   fmt.Sprintf("Account %s does not allow runs of the event %s. Its registration can opt in (%s).", a.ID, event, field),
	}
}

// Accept decides the record of a request that is complete and allowed.
func (in Intake) Accept(now time.Time, r store.Request, w Wish) store.Decision {
	return store.Case{Request: r}.Accept(now, in.identity(r, w))
}

// Ignore decides the record of a workflow job that gets no machine, and says why.
func (in Intake) Ignore(now time.Time, r store.Request, w Wish, why string) store.Decision {
	return store.Ignore(now, in.Limits, r, in.identity(r, w), store.Failure{Code: store.CodeNotOffered, Text: why})
}

func (in Intake) identity(r store.Request, w Wish) store.Identity {
	giveUp := cmp.Or(w.GiveUp, in.Limits.GiveUp)
	id := in.Keys.RequestID(r.Repository.Key(), w.Origin.RunID, w.Origin.RunAttempt, w.Origin.CheckRunID, w.Key)
	if r.OfJob() {
		id = in.Keys.JobRequestID(r.Repository.Key(), r.Job.ID)
	}
	return store.Identity{
		ID:    id,
		Trace: w.Trace, BodyHash: meantHash(r, giveUp), SaidHash: saidHash(r.Repository, w), GiveUp: giveUp, OwnLabel: in.Keys.OwnLabel,
	}
}

// Replayed returns the record that a wish has already, after the commit of Accept's
// decision answered err. It is false, and err stays, when that is no such conflict. A
// record of another wish is ErrMismatch.
func Replayed(d store.Decision, err error) (store.Request, bool, error) {
	conflict, ok := errors.AsType[*store.ConflictError](err)
	if !ok {
		return store.Request{}, false, err
	}
	was := store.Case{}.With(conflict.Current...).Request
	switch {
	case was.ID != d.Request.ID || was.Version == 0:
		return store.Request{}, false, err
	case !same(was, d.Request):
		return was, true, ErrMismatch
	}
	return was, true, nil
}

// same reports whether two records are of one wish: its caller said the same, whatever
// the account's defaults have become since, or it means the same, whatever of it was
// said. A record of an older version has no SaidHash. A workflow job has one record,
// whatever its rule has become since.
func same(was, now store.Request) bool {
	return was.OfJob() || was.SaidHash != "" && was.SaidHash == now.SaidHash || was.BodyHash == now.BodyHash
}

// meantHash returns the hash of what is wished for, with all defaults filled in. It is
// as versions before SaidHash make it, which compare nothing else.
func meantHash(r store.Request, giveUp time.Duration) string {
	return hash(struct {
		Account, Region, Repository, Type, Mode string
		Labels                                  []string
		Machine                                 store.Machine
		TimeoutS                                int
		GiveUp                                  time.Duration
		Regions                                 []string `json:",omitempty"`
	}{r.Account, r.Region, r.Repository.Key(), r.Type, r.Mode, r.Labels, r.Machine, r.TimeoutS, giveUp, r.Regions})
}

// saidHash returns the hash of what the caller said itself.
func saidHash(repo store.Repository, w Wish) string {
	w.Machine = inOrder(w.Machine)
	return hash(struct {
		Repository                  string
		Account, Region, Type, Mode string
		Labels                      []string
		Machine                     store.Machine
		TimeoutS                    int
		GiveUp                      time.Duration
		Regions                     []string `json:",omitempty"`
	}{repo.Key(), w.Account, w.Region, w.Type, w.Mode, w.Labels, w.Machine, w.TimeoutS, w.GiveUp, w.Regions})
}

// inOrder is m with the lists sorted whose order means nothing.
func inOrder(m store.Machine) store.Machine {
	m.Subnets, m.SecurityGroups = slices.Sorted(slices.Values(m.Subnets)), slices.Sorted(slices.Values(m.SecurityGroups))
	return m
}

// hash returns the SHA-256 of v's JSON, in hex.
func hash(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
