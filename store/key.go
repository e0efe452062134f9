package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
)

// The markets that a machine can be bought in: what the API calls type.
const (
	Spot     = "spot"
	OnDemand = "ondemand"
)

// The modes of a request.
const (
	Shared    = "shared"    // any number of requests of one repository, one job after another
	Ephemeral = "ephemeral" // one request, one job
)

// MaxLabels is how many labels a request may name.
const MaxLabels = 16

var labelForm = form.Form{{Of: form.Lower + form.Digit + "..__--", Min: 1, Max: 64}}

// ParseLabels returns labels trimmed, lower-cased, sorted and without
// duplicates: the form that lock keys are made of. Anything that is then not of
// [a-z0-9._-]{1,64}, or that begins like the labels that GARO gives out (garo-),
// is an error that quotes it.
func ParseLabels(labels []string) ([]string, error) {
	out := make([]string, 0, len(labels))
	for _, raw := range labels {
		l := strings.ToLower(strings.Trim(raw, " \t"))
		if !ascii(raw) || !labelForm.Fits(l) { // the Kelvin sign would become a k
			return nil, fmt.Errorf("label %.80q: use 1 to 64 of a-z, 0-9, dot, underscore and hyphen", raw)
		}
		if strings.HasPrefix(l, Ours) {
			return nil, fmt.Errorf("label %q: the prefix garo- is for the labels that GARO gives out", l)
		}
		out = append(out, l)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) > MaxLabels {
		return nil, fmt.Errorf("%d labels: at most %d", len(out), MaxLabels)
	}
	return out, nil
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) < 0
}

// Machine is what a caller may say about the machine. Empty fields leave the
// choice to the account.
type Machine struct {
	InstanceTypes  []string `json:"instance_types,omitempty"`
	Image          string   `json:"image_id,omitempty"`
	Subnets        []string `json:"subnets,omitempty"`
	SecurityGroups []string `json:"security_groups,omitempty"`
	// RootVolumeGB is the size of the root volume, in GiB.
	RootVolumeGB int               `json:"root_volume_gb,omitempty"`
	Tags         map[string]string `json:"tags,omitempty"`
	// What the instance type has to have, in place of InstanceTypes: so many vCPUs, GiB of
	// memory and GPUs at least, and that architecture, X86 or ARM64.
	CPU      int    `json:"cpu,omitempty"`
	MemoryGB int    `json:"memory,omitempty"`
	GPU      int    `json:"gpu,omitempty"`
	Arch     string `json:"arch,omitempty"`
}

// Spec returns the short name of m in a lock key: "default" when nothing is
// named, else 12 hex digits of SHA-256 over the canonical fields. The order of
// instance types counts, since it says which one is tried first.
func (m Machine) Spec() string {
	m.Subnets = slices.Compact(slices.Sorted(slices.Values(m.Subnets)))
	m.SecurityGroups = slices.Compact(slices.Sorted(slices.Values(m.SecurityGroups)))
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	if string(b) == "{}" {
		return "default"
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// LockKey returns the key of the lock that r's runner is found under. Two
// shared requests have one key only if account, region, scope, type, spec and labels
// are all equal: no field can hold the separators. An ephemeral
// request has a key of its own, its id. That of a workflow job has one for each launch:
// a machine that was given up keeps its own lock.
func (r Request) LockKey() string {
	if r.OfJob() {
		return jobLock(r.ID, r.Launches)
	}
	if r.Mode == Ephemeral {
		return r.ID
	}
	return strings.Join([]string{r.Account, r.Region, r.Where().Key(), r.Type, r.Spec, strings.Join(r.Labels, ",")}, "/")
}
