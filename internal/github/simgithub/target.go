package simgithub

import (
	"net/http"
	"strconv"
	"strings"
)

// target is what a request is about.
type target struct {
	op   string
	repo string // owner/name or an organization's login, or an id if byID
	org  bool   // repo is an organization
	byID bool
	id   int64 // of a runner, a runner group or an installation
	// version is that of a runner program.
	version string
}

// parse reads a request's method and path. Those of an Enterprise Server, below
// /api/v3, are the same.
func parse(r *http.Request) target {
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/api/v3"), "/")
	if path == "rate_limit" && r.Method == http.MethodGet {
		return target{op: OpRateLimit}
	}
	if rest, ok := strings.CutPrefix(path, "app/installations/"); ok {
		return parseInstallation(r.Method, rest)
	}
	if path == "app/hook/deliveries" && r.Method == http.MethodGet {
		return target{op: OpDeliveries}
	}
	t, call, ok := parseScope(path)
	switch {
	case ok && t.org && strings.HasPrefix(call, "/runner-groups") && r.Method == http.MethodGet:
		return parseGroups(t, strings.TrimPrefix(call, "/runner-groups"))
	case ok && (call == "/runners" || strings.HasPrefix(call, "/runners/")):
		return parseCall(t, r.Method, strings.TrimPrefix(call, "/runners"))
	}
	if ok && !t.org {
		return parseActions(t, r.Method, call)
	}
	return target{op: OpOther}
}

// parseGroups reads what is asked of an organization's runner groups.
func parseGroups(t target, call string) target {
	t.op = OpOther
	if call == "" {
		t.op = OpGroups
		return t
	}
	number, ok := strings.CutSuffix(strings.TrimPrefix(call, "/"), "/repositories")
	if id, err := strconv.ParseInt(number, 10, 64); ok && err == nil {
		t.op, t.id = OpAdmits, id
	}
	return t
}

// parseActions reads what is asked of a repository's workflow runs and jobs.
func parseActions(t target, method, call string) target {
	parts := strings.Split(strings.TrimPrefix(call, "/"), "/")
	t.op = OpOther
	if len(parts) > 1 {
		var err error
		if t.id, err = strconv.ParseInt(parts[1], 10, 64); err != nil {
			return t
		}
		parts[1] = "id"
	}
	if op, ok := map[string]string{
		"GET runs": OpRuns, "GET runs/id": OpRun, "GET runs/id/jobs": OpRunJobs, "GET jobs/id": OpJob, "POST runs/id/cancel": OpCancel,
	}[method+" "+strings.Join(parts, "/")]; ok {
		t.op = op
	}
	return t
}

// parseInstallation reads what comes after app/installations/.
func parseInstallation(method, rest string) target {
	number, call, _ := strings.Cut(rest, "/")
	id, err := strconv.ParseInt(number, 10, 64)
	if err != nil || call != "access_tokens" || method != http.MethodPost {
		return target{op: OpOther}
	}
	return target{op: OpToken, id: id}
}

// parseScope reads the repository or the organization of a path, and returns what comes
// behind /actions.
func parseScope(path string) (t target, call string, ok bool) {
	first, rest, _ := strings.Cut(path, "/")
	t.repo, call, ok = strings.Cut(rest, "/actions")
	named := strings.Count(t.repo, "/")
	switch first {
	case "repos":
		ok = ok && named == 1 && !strings.HasPrefix(t.repo, "/") && !strings.HasSuffix(t.repo, "/")
	case "repositories", "orgs", "organizations":
		t.org, t.byID = first != "repositories", first != "orgs"
		ok = ok && named == 0 && t.repo != ""
	default:
		ok = false
	}
	return t, call, ok
}

// parseCall reads what is asked of a scope's runners.
func parseCall(t target, method, call string) target {
	t.op = OpOther
	version, ends := strings.CutPrefix(call, "/deprecations/")
	id, err := strconv.ParseInt(strings.TrimPrefix(call, "/"), 10, 64)
	switch {
	case call == "" && method == http.MethodGet:
		t.op = OpList
	case call == "/generate-jitconfig" && method == http.MethodPost:
		t.op = OpMint
	case call == "/downloads" && method == http.MethodGet:
		t.op = OpDownloads
	case ends && method == http.MethodGet:
		t.op, t.version = OpEnds, version
	case err == nil && method == http.MethodGet:
		t.op, t.id = OpGet, id
	case err == nil && method == http.MethodDelete:
		t.op, t.id = OpDelete, id
	}
	return t
}
