package simgithub

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// runner is GitHub's JSON of a runner.
type runner struct {
	ID        int64   `json:"id"`
	Group     int64   `json:"runner_group_id"`
	Name      string  `json:"name"`
	OS        string  `json:"os"`
	Status    string  `json:"status"`
	Busy      bool    `json:"busy"`
	Labels    []label `json:"labels"`
	Ephemeral bool    `json:"ephemeral"`
	Version   *string `json:"version"` // null until it has connected
}

type label struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
	Type string `json:"type"`
}

func (s registry) show(now time.Time, r *registration) runner {
	out := runner{ID: r.ID, Group: r.Group, Name: r.Name, OS: "unknown", Status: "offline", Busy: r.busy(now, s.rules.BusyLag), Ephemeral: true}
	if r.Seen {
		out.OS, out.Version = "Linux", new(cmp.Or(s.rules.Version, ProgramVersion))
	}
	if r.session != nil {
		out.Status = "online"
	}
	for i, l := range r.Labels {
		out.Labels = append(out.Labels, label{ID: int64(i + 1), Name: l, Type: "custom"})
	}
	return out
}

// mint registers a runner for one job.
func (s registry) mint(now time.Time, in scope, r *http.Request, body []byte) answer {
	q, wrong := parseMint(body)
	if wrong != "" {
		return s.wrong(http.StatusUnprocessableEntity, r, wrong)
	}
	if problems := q.problems(in.org); len(problems) > 0 {
		return refuse(http.StatusUnprocessableEntity, "Validation Failed", problems)
	}
	if f := s.rules.RefuseMint; f != nil {
		return f.answer()
	}
	have, limit := 0, cmp.Or(s.rules.GroupLimit, groupLimit)
	for _, x := range s.runners {
		if !in.has(x) {
			continue
		}
		if strings.EqualFold(x.Name, q.name) {
			return NameExists(q.name).answer()
		}
		if x.Group == q.group {
			have++
		}
	}
	if have >= limit {
		return GroupFull(q.group, limit).answer()
	}
	id := s.id()
	config, err := newConfig(s.cfg.Random, id, q.name, in.name(), q.folder)
	if err != nil {
		return refuse(http.StatusInternalServerError, "Server Error", nil)
	}
	reg := &registration{
		record: record{ID: id, Repository: in.repo.Name, RepositoryID: in.repo.ID, OrganizationID: in.org.ID, Group: q.group, Name: q.name, Labels: q.labels, CreatedAt: now, Digest: digest(config)},
		config: secret.New(config),
	}
	s.runners = append(s.runners, reg)
	s.put(bucketRunners, reg.key(), reg.record)
	return answer{http.StatusCreated, map[string]any{"runner": s.show(now, reg), "encoded_jit_config": config}}
}

// groupLimit is how many runners GitHub lets a group have.
const groupLimit = 10_000

// mintRequest is the body of a call that mints.
type mintRequest struct {
	name, folder string
	group        int64
	labels       []string
}

// problems returns what GitHub refuses in a request that is well formed. Of
// names and labels it says little; this is the narrowest that may be. org is where the
// runner is to be, unless it has no id.
func (q mintRequest) problems(org Organization) (out []string) {
	if q.name == "" || len(q.name) > 64 || strings.Trim(q.name, nameChars) != "" {
		out = append(out, "name: want 1 to 64 of a-z, A-Z, 0-9, dot, dash and underscore")
	}
	g, ok := org.group(q.group)
	switch {
	case org.ID == "" && q.group != defaultGroup:
		out = append(out, "runner_group_id: a repository has group 1 alone")
	case org.ID != "" && (!ok || g.Inherited):
		out = append(out, fmt.Sprintf("runner_group_id: the organization has no group %d of its own", q.group))
	}
	if len(q.labels) < 1 || len(q.labels) > 100 {
		out = append(out, fmt.Sprintf("labels: want 1 to 100, got %d", len(q.labels)))
	}
	for _, l := range q.labels {
		if strings.TrimSpace(l) == "" || len(l) > 256 || strings.ContainsAny(l, ",\n") {
			out = append(out, fmt.Sprintf("labels: %q is none", l))
		}
	}
	return out
}

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
