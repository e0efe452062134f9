package api

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// unknownParts returns what an account wants of its machines that an agent does not know,
// by what its boot call says that it knows.
func unknownParts(o store.Outfit, known string) []string {
	have := strings.Split(known, ",")
	return slices.DeleteFunc(plainOutfit(o).Parts(), func(part string) bool { return slices.Contains(have, part) })
}

// tooPlain refuses a machine whose agent would leave out what its account wants: it was
// launched by a version before. It powers off, and the request is launched again.
func (c *call) tooPlain(run store.Runner, lacks []string) error {
	c.deny("the agent is of a version before, and knows no " + strings.Join(lacks, ", "))
	c.about("runner", run.ID)
	return gone()
}

// plainOutfit is what an account wants of its machines, without a script that is elsewhere.
func plainOutfit(o store.Outfit) apitype.Outfit {
	out := apitype.Outfit{Packages: o.Packages, InstanceStore: o.InstanceStore, JobsRole: o.JobsRole}
	if s := o.Setup; s.Script != "" || s.Path != "" {
		out.Setup = &apitype.Setup{Script: []byte(s.Script), SHA256: s.SHA256, LimitS: apitype.Seconds(s.Limit())}
		if s.Path == "" {
			out.Setup.SHA256 = fmt.Sprintf("%x", sha256.Sum256(out.Setup.Script))
		}
	}
	if u := o.JobUser; u.Sudo || len(u.Groups) > 0 {
		out.JobUser = &apitype.JobUser{Sudo: u.Sudo, Groups: u.Groups}
	}
	if h := o.Hooks; h != (store.Hooks{}) {
		out.Hooks = &apitype.Hooks{Started: h.Started, Completed: h.Completed}
	}
	return out
}

// outfit is what an account wants of its machines. A script that is not at its path is
// passed on as none: the machine then says what it has instead of which script.
func (s *server) outfit(ctx context.Context, o store.Outfit) (apitype.Outfit, error) {
	out := plainOutfit(o)
	if o.Setup.Path == "" || s.Script == nil {
		return out, nil
	}
	script, err := s.Script(ctx, o.Setup.Path)
	if err != nil {
		return apitype.Outfit{}, outage(fmt.Errorf("set-up script at %s: %w", o.Setup.Path, err))
	}
	out.Setup.Script = script
	return out, nil
}
