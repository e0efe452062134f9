package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent/bootstrap"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet/simfleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/local"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// evidence is what the promises are checked from: everything that was recorded,
// and what the simulated EC2 and GitHub know beside it.
type evidence struct {
	limits        store.Limits
	scenes        []*scene
	requests      map[string]store.Request
	runners       []store.Runner // in the order of their making
	machines      []simfleet.Fact
	registrations []string // names that GitHub has
	quota         store.Quota
	endedAt       time.Time

	texts   map[string]string // what people may read, by where it is
	secrets map[string]string // what must not be in it, by what it is
}

// gather collects it.
func (d *Demo) gather(ctx context.Context) (evidence, error) {
	ev := evidence{
		limits: d.limits, scenes: d.scenes, requests: map[string]store.Request{},
		machines: d.system.Fleet.Instances(), endedAt: time.Now(),
		texts: map[string]string{}, secrets: map[string]string{"the operator's token": d.system.Token.Reveal()},
	}
	for i, err := range d.system.Store.List(ctx, store.Filter{Kind: store.KindRequest}) {
		if err != nil {
			return ev, err
		}
		r := i.(*store.Request)
		ev.requests[r.ID] = *r
	}
	for i, err := range d.system.Store.List(ctx, store.Filter{Kind: store.KindRunner}) {
		if err != nil {
			return ev, err
		}
		ev.runners = append(ev.runners, *i.(*store.Runner))
	}
	slices.Reverse(ev.runners)
	for _, r := range d.system.GitHub.Registrations() {
		ev.registrations = append(ev.registrations, r.Name)
	}
	var err error
	if ev.quota, err = store.Read[store.Quota](ctx, d.system.Store, local.BuiltIn); err != nil {
		return ev, err
	}
	if err := d.readTexts(ctx, ev.texts); err != nil {
		return ev, err
	}
	return ev, d.readSecrets(ev)
}

// readTexts reads the log, every record and every message.
func (d *Demo) readTexts(ctx context.Context, texts map[string]string) error {
	log, err := os.ReadFile(d.log.Name())
	if err != nil {
		return err
	}
	texts["the log"] = string(log)
	rows, err := d.system.Store.DB().QueryContext(ctx,
		`SELECT kind || '#' || id, item FROM items UNION ALL SELECT 'message ' || id, body FROM queue`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return err
		}
		texts[name] = text
	}
	return rows.Err()
}

// readSecrets collects everything that only its owner may see.
func (d *Demo) readSecrets(ev evidence) error {
	for _, s := range ev.scenes {
		ev.secrets["the status token of "+s.name] = s.token
	}
	for _, r := range d.system.GitHub.Minted() {
		ev.secrets["the config of "+r.Name] = r.Config.Reveal()
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(d.log.Name()), "keys.json"))
	if err != nil {
		return err
	}
	var keys struct {
		ID   string
		Keys map[string]string
	}
	if err := json.Unmarshal(b, &keys); err != nil {
		return err
	}
	ev.secrets["the id key"] = keys.ID
	for kid, k := range keys.Keys {
		ev.secrets["key "+kid] = k
	}
	for _, m := range ev.machines {
		if m.Planted {
			continue
		}
		doc, err := bootstrap.Parse(d.system.Fleet.UserData(m.ID))
		if err != nil {
			return fmt.Errorf("user data of %s: %w", m.ID, err)
		}
		ev.secrets["the boot token of "+m.ID] = doc.Token.Reveal()
		var saved struct{ Nonce, Session string }
		if disk := d.system.Fleet.Disk(m.ID); len(disk) > 0 {
			if err := json.Unmarshal(disk, &saved); err != nil {
				return fmt.Errorf("disk of %s: %w", m.ID, err)
			}
		}
		ev.secrets["the nonce of "+m.ID], ev.secrets["the session of "+m.ID] = saved.Nonce, saved.Session
	}
	for what, s := range ev.secrets {
		if s == "" {
			delete(ev.secrets, what) // such as the session of a machine that never booted
		}
	}
	return nil
}

// verdict is a promise, what was found when it held, or what broke it.
type verdict struct {
	promise, found string
	faults         []string
}

// promises checks each of them.
func (ev evidence) promises() []verdict {
	armed := 0
	for _, m := range ev.machines {
		if !m.CredentialedAt.IsZero() {
			armed++
		}
	}
	return []verdict{
		{"One request, at most one usable machine", fmt.Sprintf("%d requests, %d machines and %d that no record names, %d with credentials, never two of one request at a time",
			len(ev.requests), len(ev.runners), len(ev.machines)-len(ev.runners), armed), ev.twoMachines()},
		{"Find or launch", "the second run shared the first one's runner, and two jobs ran on it; the repeated key found its record", ev.findOrLaunch()},
		{"Any job: a plain runs-on", "one webhook was lost and two machines were given each other's job: every job ran once, and the cancelled one's machine ran none", ev.anyJob()},
		{"Nothing outlives its time", "every machine is terminated, GitHub has no registration left, the quota is back at 0", ev.leftOver()},
		{"No secret in a record, a message or the log", fmt.Sprintf("searched the log and all %d records for %d keys, tokens and configs",
			len(ev.texts)-1, len(ev.secrets)), ev.leaks()},
		{"You can see why", "each request tells its steps, and each machine why it ended", ev.unexplained()},
	}
}

// twoMachines lists requests whose machines held credentials at the same time,
// runners with more than one such machine ever, and requests that came to
// something else than they had to.
func (ev evidence) twoMachines() (faults []string) {
	byRunner := map[string]int{}
	until := func(m simfleet.Fact) time.Time {
		if m.EndedAt.IsZero() {
			return ev.endedAt
		}
		return m.EndedAt
	}
	for i, a := range ev.machines {
		if a.CredentialedAt.IsZero() {
			continue
		}
		if byRunner[a.Tags[fleet.TagRunner]]++; byRunner[a.Tags[fleet.TagRunner]] > 1 {
			faults = append(faults, fmt.Sprintf("runner %s had more than one machine with credentials", a.Tags[fleet.TagRunner]))
		}
		for _, b := range ev.machines[i+1:] {
			if b.CredentialedAt.IsZero() || a.Tags[fleet.TagRequest] != b.Tags[fleet.TagRequest] || ev.requests[a.Tags[fleet.TagRequest]].OfJob() {
				continue // GitHub may have given the first machine for a workflow job to another
			}
			if b.CredentialedAt.Before(until(a)) && a.CredentialedAt.Before(until(b)) {
				faults = append(faults, fmt.Sprintf("request %s had %s and %s at once", a.Tags[fleet.TagRequest], a.ID, b.ID))
			}
		}
	}
	for _, s := range ev.scenes {
		if got := ev.requests[s.id].State; got != s.want {
			faults = append(faults, fmt.Sprintf("request %s is %q, want %s", s.name, got, s.want))
		}
	}
	return faults
}

func (ev evidence) request(name string) store.Request {
	for _, s := range ev.scenes {
		if s.name == name {
			return ev.requests[s.id]
		}
	}
	return store.Request{}
}

func (ev evidence) findOrLaunch() (faults []string) {
	a, b := ev.request("test1"), ev.request("test1b")
	if a.Runner == "" || a.Runner != b.Runner {
		faults = append(faults, fmt.Sprintf("test1 has runner %q and test1b %q", a.Runner, b.Runner))
	}
	for i, r := range ev.runners {
		if r.ID == a.Runner && r.Jobs != 2 {
			faults = append(faults, fmt.Sprintf("runner %s ran %d jobs, want 2", r.ID, r.Jobs))
		}
		for _, next := range ev.runners[i+1:] {
			if next.Lock == r.Lock && (r.DrainingAt.IsZero() && !r.State.Final() || next.CreatedAt.Before(sooner(r.DrainingAt, r.EndedAt))) {
				faults = append(faults, fmt.Sprintf("runners %s and %s of one key could be shared at once", r.ID, next.ID))
			}
		}
	}
	if len(ev.requests) != len(ev.scenes) {
		faults = append(faults, fmt.Sprintf("%d requests are recorded, want %d", len(ev.requests), len(ev.scenes)))
	}
	return faults
}

func (ev evidence) leftOver() (faults []string) {
	for _, m := range ev.machines {
		switch hard := m.LaunchedAt.Add(ev.limits.Hard + ev.limits.ReaperPeriod); {
		case m.EndedAt.IsZero():
			faults = append(faults, fmt.Sprintf("machine %s is %s", m.ID, m.State))
		case m.EndedAt.After(hard):
			faults = append(faults, fmt.Sprintf("machine %s ended at %s, after its hard limit", m.ID, m.EndedAt.Format(time.TimeOnly)))
		}
	}
	for _, r := range ev.runners {
		if !r.State.Final() {
			faults = append(faults, fmt.Sprintf("runner %s is %s", r.ID, r.State))
		}
	}
	for _, name := range ev.registrations {
		faults = append(faults, "GitHub still has "+name)
	}
	if ev.quota.Live != 0 {
		faults = append(faults, fmt.Sprintf("the quota counts %d machines", ev.quota.Live))
	}
	return faults
}

// anyJob lists workflow jobs that did not run once each, on the machine that GitHub chose.
func (ev evidence) anyJob() (faults []string) {
	ran := map[string]int{} // by the id of the request for the job
	for _, r := range ev.runners {
		if r.Took.Request != "" {
			ran[r.Took.Request]++
		}
		if r.OfJob() && r.Jobs > 1 {
			faults = append(faults, fmt.Sprintf("runner %s ran %d jobs, want one at most", r.ID, r.Jobs))
		}
	}
	for name, want := range map[string]int{"plain1": 1, "plain2": 1, "plain3": 0} {
		if got := ran[ev.request(name).ID]; got != want {
			faults = append(faults, fmt.Sprintf("%s ran on %d machines, want %d", name, got, want))
		}
	}
	for name, other := range map[string]string{"plain1": "plain2", "plain2": "plain1"} {
		i := slices.IndexFunc(ev.runners, func(r store.Runner) bool { return r.ID == ev.request(name).Runner })
		if i < 0 || ev.runners[i].Request != ev.request(other).ID {
			faults = append(faults, fmt.Sprintf("%s did not run on the machine of %s", name, other))
		}
	}
	slices.Sort(faults)
	return faults
}

// leaks searches everything that people may read for what they must not see.
func (ev evidence) leaks() (faults []string) {
	for place, text := range ev.texts {
		for what, s := range ev.secrets {
			if strings.Contains(text, s) {
				faults = append(faults, fmt.Sprintf("%s holds %s", place, what))
			}
		}
	}
	slices.Sort(faults)
	return faults
}

func (ev evidence) unexplained() (faults []string) {
	for _, s := range ev.scenes {
		if r := ev.requests[s.id]; len(r.History) < 2 || r.State != store.Ready && r.Error == nil {
			faults = append(faults, fmt.Sprintf("request %s does not say why it is %q", s.name, r.State))
		}
	}
	for _, r := range ev.runners {
		if r.End == nil || r.End.Text == "" {
			faults = append(faults, fmt.Sprintf("runner %s does not say why it ended", r.ID))
		}
	}
	return faults
}
