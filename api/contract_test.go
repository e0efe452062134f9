package api_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

type contract struct {
	doc    *openapi3.T
	router routers.Router
}

var loadContract = sync.OnceValues(func() (contract, error) {
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		return contract{}, err
	}
	router, err := gorillamux.NewRouter(doc)
	return contract{doc, router}, err
})

func mustContract(t *testing.T) contract {
	t.Helper()
	c, err := loadContract()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	return c
}

func TestContractHasEveryKindOfEvent(t *testing.T) {
	var got []string
	for _, word := range mustContract(t).doc.Components.Schemas["Event"].Value.Properties["event"].Value.Enum {
		got = append(got, word.(string))
	}
	if !slices.Equal(got, store.EventKinds) {
		t.Errorf("openapi.yaml has the events %q, want %q", got, store.EventKinds)
	}
}

// The contract leaves other words to later agents, and so has no enum of them.
func TestContractNamesTheReasonsOfMachines(t *testing.T) {
	text := mustContract(t).doc.Components.Schemas["Event"].Value.Properties["reason"].Value.Description
	for _, reason := range store.SaidReasons {
		if !slices.Contains(strings.FieldsFunc(text, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }), reason) {
			t.Errorf("openapi.yaml does not name the reason %s of an event: it says %q", reason, text)
		}
	}
}

// checkContract fails the test when an answer is not as openapi.yaml says, or is
// a good one to a request that it does not allow.
func checkContract(t *testing.T, r *http.Request, rec *httptest.ResponseRecorder) {
	t.Helper()
	c := mustContract(t)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	route, params, err := c.router.FindRoute(r)
	if err != nil || path.Clean(r.URL.Path) != r.URL.Path { // no path of the contract has dots to follow
		if rec.Code != http.StatusNotFound && rec.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s %s = %d; want 404 or 405, it is not in the contract", r.Method, r.URL.Path, rec.Code)
		}
		return
	}
	in := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
	}
	if rec.Code/100 == 2 {
		if err := openapi3filter.ValidateRequest(t.Context(), in); err != nil {
			t.Errorf("%s %s %s = %d; the contract does not allow the request: %v", r.Method, r.URL, body, rec.Code, err)
		}
	}
	media := rec.Header().Get("Content-Type")
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: rec.Code, Header: rec.Header(),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: media == "application/gzip" || media == "application/yaml" || strings.HasPrefix(media, "text/")},
	}
	out.SetBodyBytes(rec.Body.Bytes())
	if err := openapi3filter.ValidateResponse(t.Context(), out); err != nil {
		t.Errorf("%s %s = %d %v %s; not as the contract says: %v", r.Method, r.URL, rec.Code, rec.Header(), rec.Body, err)
	}
}

func TestContractIsValidOpenAPI(t *testing.T) {
	c := mustContract(t)
	if err := c.doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	if !c.doc.IsOpenAPI31OrLater() {
		t.Errorf("openapi = %s, want 3.1", c.doc.OpenAPI)
	}
}

func TestContractNamesWhatAnOutfitHas(t *testing.T) {
	var packages []string
	outfit := mustContract(t).doc.Components.Schemas["Outfit"].Value.Properties
	for _, word := range outfit["packages"].Value.Items.Value.Enum {
		packages = append(packages, word.(string))
	}
	if !slices.Equal(packages, store.Packages) {
		t.Errorf("openapi.yaml has the packages %q, want %q", packages, store.Packages)
	}
	for _, part := range apitype.OutfitParts {
		if outfit[part] == nil {
			t.Errorf("openapi.yaml has no part %s of an outfit", part)
		}
	}
}

func TestContractHasEveryRouteAndNoOther(t *testing.T) {
	var want []string
	for path, item := range mustContract(t).doc.Paths.Map() {
		for method := range item.Operations() {
			want = append(want, method+" "+path)
		}
	}
	got := api.Patterns()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("routes = %q\ncontract = %q", got, want)
	}
}

func TestContractHasEveryProblemCode(t *testing.T) {
	var want, got []string
	for _, k := range apitype.Problems {
		want = append(want, k.Code)
		if http.StatusText(k.Status) == "" || k.Title == "" {
			t.Errorf("problem %s has status %d and title %q", k.Code, k.Status, k.Title)
		}
	}
	for _, v := range mustContract(t).doc.Components.Schemas["Problem"].Value.Properties["code"].Value.Enum {
		got = append(got, v.(string))
	}
	if !slices.Equal(got, want) {
		t.Errorf("codes of the contract = %q\nwant %q", got, want)
	}
}

// A field that only one of the two knows would go unnoticed as long as no test
// sends it.
func TestContractHasTheFieldsOfTheWireTypes(t *testing.T) {
	schemas := mustContract(t).doc.Components.Schemas
	types := map[string]any{
		"Start": apitype.Start{}, "Started": apitype.Started{}, "Status": apitype.Status{}, "Runner": apitype.Runner{},
		"Attempt": apitype.Attempt{}, "Entry": apitype.Entry{}, "Error": apitype.Error{}, "Stopped": apitype.Stopped{},
		"Page": apitype.Page{}, "Runners": apitype.Runners{}, "Found": apitype.Found{}, "Cost": apitype.Cost{}, "Usage": apitype.Usage{}, "UsageRow": apitype.UsageRow{}, "Step": apitype.Step{}, "Job": apitype.Job{}, "Released": apitype.Released{}, "CheckStart": apitype.CheckStart{}, "Check": apitype.Check{}, "Finding": apitype.Finding{}, "Boot": apitype.Boot{}, "Booted": apitype.Booted{}, "RunnerProgram": apitype.RunnerProgram{},
		"Orders": apitype.Orders{}, "Event": apitype.Event{}, "Next": apitype.Next{}, "NextConfig": apitype.NextConfig{},
		"Health": apitype.Health{}, "ReaperHealth": apitype.ReaperHealth{}, "ReaperRun": apitype.ReaperRun{}, "RaisedAlarm": apitype.RaisedAlarm{}, "Delivered": apitype.Delivered{}, "Admission": apitype.Admission{}, "Admitted": apitype.Admitted{}, "Outfit": apitype.Outfit{}, "Setup": apitype.Setup{}, "JobUser": apitype.JobUser{}, "Hooks": apitype.Hooks{}, "Problem": apitype.Problem{},
	}
	for name, s := range schemas {
		if _, known := types[name]; !known && len(s.Value.Properties) > 0 {
			t.Errorf("the contract has %s, and this test no wire type for it", name)
		}
	}
	for name, v := range types {
		schema := schemas[name]
		if schema == nil {
			t.Errorf("the contract has no %s", name)
			continue
		}
		var got, want, required, always []string
		for field := range schema.Value.Properties {
			got = append(got, field)
		}
		required = slices.Clone(schema.Value.Required)
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			if f.Anonymous {
				continue
			}
			field, option, _ := strings.Cut(f.Tag.Get("json"), ",")
			want = append(want, field)
			if option == "" {
				always = append(always, field)
			}
		}
		for _, s := range [][]string{got, want, required, always} {
			slices.Sort(s)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s of the contract has %q, want %q", name, got, want)
		}
		if !slices.Equal(required, always) {
			t.Errorf("%s of the contract requires %q, want what is always sent: %q", name, required, always)
		}
	}
}

func TestContractHasTheStatesOfTheStore(t *testing.T) {
	schemas := mustContract(t).doc.Components.Schemas
	var requests, runners []any
	for _, s := range store.RequestStates {
		requests = append(requests, string(s))
		if got := client.Final(string(s)); got != s.Final() {
			t.Errorf("client.Final(%s) = %t, want %t", s, got, s.Final())
		}
	}
	for _, s := range store.RunnerStates {
		runners = append(runners, string(s))
	}
	named := []any{apitype.Accepted, apitype.Waiting, apitype.Ready, apitype.Failed, apitype.Expired, apitype.Cancelled}
	if !slices.Equal(named, requests) {
		t.Errorf("the states of apitype = %v, want %v", named, requests)
	}
	named = []any{apitype.RunnerNew, apitype.RunnerLaunched, apitype.RunnerBooting, apitype.RunnerOnline, apitype.RunnerBusy,
		apitype.RunnerDraining, apitype.RunnerEnding, apitype.RunnerEnded, apitype.RunnerFailed}
	if !slices.Equal(named, runners) {
		t.Errorf("the states of runners of apitype = %v, want %v", named, runners)
	}
	if got, want := []string{apitype.Spot, apitype.OnDemand, apitype.Shared, apitype.Ephemeral}, []string{store.Spot, store.OnDemand, store.Shared, store.Ephemeral}; !slices.Equal(got, want) {
		t.Errorf("types and modes of apitype = %v, want %v", got, want)
	}
	if got := schemas["RequestState"].Value.Enum; !slices.Equal(got, requests) {
		t.Errorf("RequestState = %v, want %v", got, requests)
	}
	if got := schemas["RunnerState"].Value.Enum; !slices.Equal(got, runners) {
		t.Errorf("RunnerState = %v, want %v", got, runners)
	}
}
