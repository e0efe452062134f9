package simgithub

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The operations that a Fault is asked about, and that Calls counts.
const (
	OpMint      = "mint"
	OpList      = "list" // once for every page
	OpGet       = "get"
	OpDelete    = "delete"
	OpDownloads = "downloads"
	OpEnds      = "deprecations"  // when a version of the runner program ends
	OpGroups    = "runner_groups" // of an organization, once for every page
	OpAdmits    = "admits"        // the repositories of a group, likewise
	OpRateLimit = "rate_limit"
	OpToken     = "token" // of an App's installation

	OpRun        = "run"
	OpRuns       = "runs"     // once for every page
	OpRunJobs    = "run_jobs" // likewise
	OpJob        = "job"
	OpCancel     = "cancel"
	OpDeliveries = "deliveries" // of the App's webhooks, once for every page

	OpOther = "other" // no operation of this server
)

const docs = "https://docs.github.com/rest/actions/self-hosted-runners"

// maxBody bounds a request, in bytes: 100 labels of 256 characters, and more.
const maxBody = 64 << 10

// answer is what goes back: a status and a JSON body, unless that is nil.
type answer struct {
	status int
	body   any
}

// problem is GitHub's body of an error.
type problem struct {
	Message string `json:"message"`
	Docs    string `json:"documentation_url"`
	Status  string `json:"status"`
	Errors  any    `json:"errors,omitempty"` // a text, or a list of texts
}

func refuse(status int, message string, errors any) answer {
	return answer{status, problem{message, docs, strconv.Itoa(status), errors}}
}

// Handler returns the REST API, under / and, as on an Enterprise Server, under
// /api/v3/.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	t := parse(r)
	h := w.Header()
	s.look(func(time.Time) {
		s.calls[t.op]++
		s.total++
		h.Set("X-GitHub-Request-Id", fmt.Sprintf("FAKE:%06X", s.total))
	})
	var fault Fault
	if s.cfg.Fault != nil {
		fault = s.cfg.Fault(t.op, r)
	}
	if fault.Delay > 0 && until(r.Context(), nil, fault.Delay) != nil {
		panic(http.ErrAbortHandler)
	}
	if fault.Instead != nil {
		fault.Instead.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	var a answer
	if err := s.step(func(now time.Time) error {
		a = s.answer(now, t, r, h, body)
		return nil
	}); err != nil {
		a = refuse(http.StatusInternalServerError, "Server Error", nil)
	}
	if fault.Lose {
		panic(http.ErrAbortHandler)
	}
	a.write(w)
}

func (a answer) write(w http.ResponseWriter) {
	if a.body == nil {
		w.WriteHeader(a.status)
		return
	}
	b, err := json.Marshal(a.body)
	if err != nil {
		panic(err) // all bodies are types of this package
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(a.status)
	_, _ = w.Write(b)
}

// counts returns what a credential's calls are counted by; nil: it is none.
func (s *Server) counts(token string, granted bool) *limiter {
	if granted || s.rules.Token.Equal(token) {
		return &s.limiter
	}
	for _, other := range s.rules.Others {
		if other.Equal(token) {
			if s.others == nil {
				s.others = map[string]*limiter{}
			}
			if s.others[token] == nil {
				s.others[token] = &limiter{}
			}
			return s.others[token]
		}
	}
	return nil
}

// answer lets a request in and does what it asks for.
func (s *Server) answer(now time.Time, t target, r *http.Request, h http.Header, body []byte) answer {
	if wrong := manners(r, t, body); wrong != "" {
		return s.wrong(http.StatusBadRequest, r, wrong)
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if ok && (t.op == OpToken || t.op == OpDeliveries) {
		return asApp{s}.serve(now, t, r, h, token, body)
	}
	g := s.granted(now, token)
	counts := s.counts(token, g != nil)
	if !ok || counts == nil {
		return refuse(http.StatusUnauthorized, "Bad credentials", nil)
	}
	if t.op == OpRateLimit {
		return counts.rateLimit(now, s.rules.Limit)
	}
	if a, ok := counts.admit(now, s.rules.Limit, t.op, r.Method, h); !ok {
		return a
	}
	if t.op == OpOther {
		return s.wrong(http.StatusNotFound, r, "no such operation")
	}
	in, ok := s.scope(t)
	if a, moved := s.names.moved(t, r, g, h); !ok && moved {
		return a
	}
	if !ok || !g.opens(in, t.op) {
		return refuse(http.StatusNotFound, "Not Found", nil)
	}
	return registry{s}.serve(now, in, t, r, h, body)
}

// registry is what a Server answers about the runners of a scope, and about what else it has.
type registry struct{ *Server }

// serve answers a call that may be made of a repository or an organization.
func (s registry) serve(now time.Time, in scope, t target, r *http.Request, h http.Header, body []byte) answer {
	switch t.op {
	case OpRun, OpRuns, OpRunJobs, OpJob, OpCancel:
		return actions(s).serve(now, in.repo, t, r, h)
	case OpGroups:
		return s.listGroups(in.org, r, h)
	case OpAdmits:
		return s.listAdmitted(in.org, t.id, r, h)
	case OpEnds:
		return s.ends(r, t.version)
	case OpMint:
		if a, full := s.crowded(now, in.org.ID+"/"+in.repo.ID, h); full {
			return a
		}
		return s.mint(now, in, r, body)
	case OpList:
		return s.list(now, in, r, h)
	case OpDownloads:
		return downloads()
	}
	return s.serveRunner(now, in, t)
}

// serveRunner answers what is asked of one runner: to show or to delete it.
func (s registry) serveRunner(now time.Time, in scope, t target) answer {
	reg := s.runner(t.id)
	switch {
	case reg == nil || !in.has(reg):
		return refuse(http.StatusNotFound, "Not Found", nil)
	case t.op == OpGet:
		return answer{http.StatusOK, s.show(now, reg)}
	case reg.busy(now, s.rules.BusyLag):
		return refuse(http.StatusUnprocessableEntity, "Bad request - Runner \""+reg.Name+"\" is still running a job", nil)
	}
	s.remove(now, reg, RemovedByCall)
	return answer{http.StatusNoContent, nil}
}

// download is one of the runner programs to be had.
type download struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	URL          string `json:"download_url"`
	File         string `json:"filename"`
	SHA256       string `json:"sha256_checksum"`
}

// ProgramVersion is what runner programs that connect say that they are, unless
// the rules have another.
const ProgramVersion = "2.336.0"

// ends answers when GitHub stops to serve a version. github.com and ghe.com have
// the call; an Enterprise Server, which is asked below /api/v3, has not
// (@octokit/openapi 23.0.2, generated/ghec.json, x-github.githubCloudOnly).
func (s *Server) ends(r *http.Request, version string) answer {
	d, ok := s.rules.Deprecations[version]
	if strings.HasPrefix(r.URL.Path, "/api/v3/") || !ok && version != ProgramVersion {
		return refuse(http.StatusNotFound, "Not Found", nil)
	}
	out := map[string]any{"runner_version": version, "runtime_deprecates_at": nil}
	if !d.Runtime.IsZero() {
		out["runtime_deprecates_at"] = d.Runtime.UTC().Format(time.RFC3339)
	}
	if !d.Registration.IsZero() { // GitHub leaves it out where there is none
		out["registration_deprecates_at"] = d.Registration.UTC().Format(time.RFC3339)
	}
	return answer{http.StatusOK, out}
}

func downloads() answer {
	var out []download
	for _, arch := range []string{"x64", "arm64"} {
		file := "actions-runner-linux-" + arch + "-" + ProgramVersion + ".tar.gz"
		out = append(out, download{
			OS:           "linux",
			Architecture: arch,
			URL:          "https://github.com/actions/runner/releases/download/v" + ProgramVersion + "/" + file,
			File:         file,
			SHA256:       fmt.Sprintf("%x", sha256.Sum256([]byte(file))), // of no real file
		})
	}
	return answer{http.StatusOK, out}
}

// wrong refuses what no correct client asks for, and reports it.
func (s *Server) wrong(status int, r *http.Request, what string) answer {
	s.cfg.Errorf("GitHub got a wrong request: %s %s: %s", r.Method, r.URL.Path, what)
	return refuse(status, "Invalid request: "+what, nil)
}
