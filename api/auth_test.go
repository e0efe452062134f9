package api_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
)

func TestOperatorsKnowTheirTokensAlone(t *testing.T) {
	ops := api.Operators{"ann": keys.HashToken("garo_op_a"), "bob": strings.ToUpper(keys.HashToken("garo_op_b")), "eve": "", "mal": keys.HashToken("no_prefix")}
	for token, want := range map[string]string{
		"garo_op_a": "ann", "garo_op_b": "bob", "garo_op_c": "", "garo_op_": "", "": "", "garo_op_A": "", "garo_op_a ": "",
		"no_prefix": "", keys.HashToken("garo_op_a"): "",
	} {
		got, err := ops.Authenticate(t.Context(), token)
		if got.Name != want || (err == nil) != (want != "") || (err != nil && !errors.Is(err, api.ErrToken)) {
			t.Errorf("Authenticate(%q) = %+v, %v; want operator %q", token, got, err, want)
		}
		if err != nil && token != "" && strings.Contains(err.Error(), token) {
			t.Errorf("Authenticate(%q) = %v, which holds the token", token, err)
		}
	}
}

func TestTokensGoToTheOneWhoCanKnowThem(t *testing.T) {
	operators, github := &tokens{callers: map[string]api.Caller{"garo_op_x": {Kind: api.Operator, Name: "ann"}}}, &tokens{callers: map[string]api.Caller{"jwt": workflow, "garo_op_y": workflow}}
	both := api.ByPrefix{Operators: operators, GitHub: github}
	for token, want := range map[string]api.CallerKind{"garo_op_x": api.Operator, "jwt": api.GitHub, "garo_op_y": "", "other": ""} {
		got, err := both.Authenticate(t.Context(), token)
		if got.Kind != want || (want == "" && !errors.Is(err, api.ErrToken)) {
			t.Errorf("Authenticate(%s) = %+v, %v; want %q", token, got, err, want)
		}
	}
	if _, err := (api.ByPrefix{Operators: operators}).Authenticate(t.Context(), "jwt"); !errors.Is(err, api.ErrToken) {
		t.Errorf("Authenticate without GitHub = %v, want %v", err, api.ErrToken)
	}
}

func TestCallsWithoutAGoodTokenAreUnauthenticated(t *testing.T) {
	w := newWorld(t)
	bomb := strings.Repeat("a", 9000)
	w.github.callers[bomb], w.github.callers["a\x01b"], w.github.callers["é"] = workflow, workflow, workflow
	started := w.start(workflowToken, apitype.Start{})
	session, err := w.keys.Session("k1", started.ID, "x")
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]struct {
		method, path string
		body         any
		status       bool // a status token serves
	}{
		"start":    {"POST", "/start", apitype.Start{}, false},
		"status":   {"GET", "/status/" + started.ID, nil, true},
		"stop":     {"POST", "/stop/" + started.ID, nil, true},
		"requests": {"GET", "/requests", nil, false},
		"runners":  {"GET", "/runners", nil, false},
		"runner":   {"GET", "/runners/" + started.ID, nil, false},
		"usage":    {"GET", "/usage", nil, false},
		"find":     {"GET", "/find?q=" + started.ID, nil, false},
		"release":  {"POST", "/sweeps/" + accountID + "/" + region + "/release", nil, false},
		"check":    {"POST", "/checks", apitype.CheckStart{}, false},
		"checked":  {"GET", "/checks/last", nil, false},
		"health":   {"GET", "/health", nil, false},
		"event":    {"POST", "/runners/" + started.ID + "/events", apitype.Event{Event: "heartbeat", Counter: 1}, false},
		"next":     {"POST", "/runners/" + started.ID + "/next", apitype.Next{N: 2}, false},
		"asks":     {"POST", "/runners/" + started.ID + "/admission", apitype.Admission{RepositoryID: "1", Repository: "a/b", OwnerID: "1", RunID: "1", Attempt: 1}, false},
	}
	open := []string{"GET /", "GET /page/{file}", "POST /github/webhook", "POST /runners/{id}/boot", "GET /agent/linux/{arch}/{sha256}", "GET /healthz", "GET /openapi.yaml"} // to who signs, to who has a boot token, and to anyone
	if got, want := len(calls), len(api.Patterns())-len(open); got != want {
		t.Errorf("%d calls are tried, want each of the %d that are not open to anyone", got, want)
	}
	for name, c := range calls {
		for what, header := range map[string]string{
			"none": "", "no scheme": operatorToken, "basic": "Basic " + operatorToken, "empty": "Bearer ", "two spaces": "Bearer  " + operatorToken,
			"unknown operator": "Bearer garo_op_nobody", "unknown": "Bearer a.b.c", "too long": "Bearer " + bomb,
			"control character": "Bearer a\x01b", "not ASCII": "Bearer é", "session": "Bearer " + session.Reveal(), "status": "Bearer " + started.StatusToken.Reveal(),
		} {
			if what == "status" && c.status {
				continue
			}
			a := w.raw(c.method, c.path, "", c.body, "Authorization", header)
			if a.status != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s with %s = %d %s, want 401", name, what, a.status, a.body)
			}
		}
	}
}

func TestOperatorsCallsAreClosedToWorkflows(t *testing.T) {
	w := newWorld(t)
	for _, c := range [][2]string{{"POST", "/sweeps/" + accountID + "/" + region + "/release"}, {"GET", "/checks/last"}, {"GET", "/health"}} {
		calls := w.counted(func() {
			if a := w.raw(c[0], c[1], workflowToken, nil); a.status != http.StatusForbidden {
				t.Errorf("%s %s by a workflow = %d, want 403", c[0], c[1], a.status)
			}
		})
		if calls != "" {
			t.Errorf("%s %s called %s, want nothing", c[0], c[1], calls)
		}
	}
}

func TestEveryDecisionIsOneAuditLine(t *testing.T) {
	for name, tc := range map[string]struct {
		call    func(w *world) answer
		allowed bool
		reason  string
		token   string
	}{
		"start": {func(w *world) answer { return w.raw("POST", "/start", workflowToken, apitype.Start{}) }, true, "registered", workflowToken},
		"forbidden start": {func(w *world) answer {
			return w.raw("POST", "/start", workflowToken, apitype.Start{Region: "us-east-1"})
		}, false, "region", workflowToken},
		"unserved start": {func(w *world) answer {
			return w.raw("POST", "/start", workflowToken, apitype.Start{AccountID: "999999999999"})
		}, false, "does not serve", workflowToken},
		"foreign start":   {func(w *world) answer { return w.raw("POST", "/start", workflowToken, apitype.Start{Repo: "a/b"}) }, false, "another repository", workflowToken},
		"unknown token":   {func(w *world) answer { return w.raw("POST", "/start", "a.b.c", apitype.Start{}) }, false, "no such job", "a.b.c"},
		"no token":        {func(w *world) answer { return w.raw("POST", "/start", "", apitype.Start{}) }, false, "no token", ""},
		"absent request":  {func(w *world) answer { return w.raw("GET", "/status/"+strings.Repeat("a", 26), operatorToken, nil) }, false, "absent", operatorToken},
		"requests":        {func(w *world) answer { return w.raw("GET", "/requests", operatorToken, nil) }, true, "operator", operatorToken},
		"workflow's list": {func(w *world) answer { return w.raw("GET", "/requests", workflowToken, nil) }, true, "its repository", workflowToken},
		"absent runner":   {func(w *world) answer { return w.raw("GET", "/runners/"+strings.Repeat("a", 26), workflowToken, nil) }, false, "absent", workflowToken},
		"foreign session": {func(w *world) answer {
			return w.raw("POST", "/runners/"+strings.Repeat("a", 26)+"/next", "garo_s_x", apitype.Next{N: 1})
		}, false, "session", "garo_s_x"},
		"wrong boot token": {func(w *world) answer {
			return w.raw("POST", "/runners/"+strings.Repeat("a", 26)+"/boot", "", apitype.Boot{Token: "x", Nonce: nonce, InstanceID: instanceID})
		}, false, "boot token", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := tc.call(w)
			lines := w.logged("audit")
			if len(lines) != 1 {
				t.Fatalf("%d audit lines, want 1: %s", len(lines), w.log.String())
			}
			l := lines[0]
			if l["allowed"] != tc.allowed || !strings.Contains(l["reason"].(string), tc.reason) || l["status"] != float64(a.status) {
				t.Errorf("audit = %v, want allowed %t for %q, status %d", l, tc.allowed, tc.reason, a.status)
			}
			if got, _ := l["token_sha256"].(string); (tc.token == "") != (got == "") || tc.token != "" && got != keys.HashToken(tc.token) {
				t.Errorf("token_sha256 = %q, want that of %q", got, tc.token)
			}
		})
	}
}
