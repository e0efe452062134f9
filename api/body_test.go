package api_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestBodiesThatAreNotOneObjectAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		body   string
		status int
		code   string
		field  string
	}{
		"empty":                    {"", 400, apitype.CodeMalformed, ""},
		"spaces":                   {"   ", 400, apitype.CodeMalformed, ""},
		"no JSON":                  {"region=eu-west-2", 400, apitype.CodeMalformed, ""},
		"cut off":                  {`{"region":"eu-`, 400, apitype.CodeMalformed, ""},
		"two values":               {`{} {}`, 400, apitype.CodeMalformed, ""},
		"trailing bracket":         {`{}]`, 400, apitype.CodeMalformed, ""},
		"trailing comma":           {`{"region":"eu-west-2",}`, 400, apitype.CodeMalformed, ""},
		"comment":                  {`{/**/}`, 400, apitype.CodeMalformed, ""},
		"list":                     {`[]`, 400, apitype.CodeMalformed, ""},
		"string":                   {`"{}"`, 400, apitype.CodeMalformed, ""},
		"null":                     {`null`, 400, apitype.CodeMalformed, ""},
		"byte order mark":          {"\ufeff{}", 400, apitype.CodeMalformed, ""},
		"bytes that are no UTF-8":  {"{\"region\":\"\xff\xfe\"}", 400, apitype.CodeMalformed, ""},
		"NaN":                      {`{"timeout":NaN}`, 400, apitype.CodeMalformed, ""},
		"duplicate":                {`{"region":"eu-west-2","region":"us-east-1"}`, 400, apitype.CodeMalformed, "region"},
		"duplicate, escaped":       {`{"region":"eu-west-2","\u0072egion":"us-east-1"}`, 400, apitype.CodeMalformed, "region"},
		"duplicate inside":         {`{"labels":[{"a":1,"a":2}]}`, 400, apitype.CodeMalformed, "a"},
		"duplicate far inside":     {`{"labels":[[[{"b":{"a":1,"a":2}}]]]}`, 400, apitype.CodeMalformed, "a"},
		"deep":                     {`{"labels":` + strings.Repeat("[", 9) + strings.Repeat("]", 9) + `}`, 400, apitype.CodeMalformed, ""},
		"very deep":                {`{"labels":` + strings.Repeat("[", 8000) + strings.Repeat("]", 8000) + `}`, 400, apitype.CodeMalformed, ""},
		"deep objects":             {strings.Repeat(`{"labels":`, 1000) + "1" + strings.Repeat("}", 1000), 400, apitype.CodeMalformed, ""},
		"unknown":                  {`{"colour":"red"}`, 422, apitype.CodeUnknownField, "colour"},
		"role_arn":                 {`{"role_arn":"arn:aws:iam::1:role/x"}`, 422, apitype.CodeUnknownField, "role_arn"},
		"external_id":              {`{"external_id":"x"}`, 422, apitype.CodeUnknownField, "external_id"},
		"github":                   {`{"github":{"parameter":"/x"}}`, 422, apitype.CodeUnknownField, "github"},
		"in another case":          {`{"Region":"eu-west-2"}`, 422, apitype.CodeUnknownField, "Region"},
		"twin in case":             {`{"region":"eu-west-2","REGION":"us-east-1"}`, 422, apitype.CodeUnknownField, "REGION"},
		"long s for s":             {`{"ſubnets":[]}`, 422, apitype.CodeUnknownField, ""},
		"empty name":               {`{"":1}`, 422, apitype.CodeUnknownField, ""},
		"name with a line break":   {`{"a\nb":1}`, 422, apitype.CodeUnknownField, ""},
		"null field":               {`{"region":null}`, 422, apitype.CodeInvalidField, "region"},
		"null list":                {`{"labels":null}`, 422, apitype.CodeInvalidField, "labels"},
		"null in a list":           {`{"region":"eu-west-2","labels":["a",null]}`, 422, apitype.CodeInvalidField, "labels"},
		"number for text":          {`{"region":2}`, 422, apitype.CodeInvalidField, "region"},
		"text for number":          {`{"timeout":"60"}`, 422, apitype.CodeInvalidField, "timeout"},
		"truth for text":           {`{"type":true}`, 422, apitype.CodeInvalidField, "type"},
		"text for list":            {`{"labels":"a"}`, 422, apitype.CodeInvalidField, "labels"},
		"object in a list":         {`{"labels":[{}]}`, 422, apitype.CodeInvalidField, "labels"},
		"fraction":                 {`{"timeout":1.5}`, 422, apitype.CodeInvalidField, "timeout"},
		"number beyond any":        {`{"timeout":1e999}`, 422, apitype.CodeInvalidField, "timeout"},
		"number beyond 64 bits":    {`{"timeout":9223372036854775808}`, 422, apitype.CodeInvalidField, "timeout"},
		"object for text":          {`{"region":{}}`, 422, apitype.CodeInvalidField, "region"},
		"too large":                {`{"idempotency_key":"` + strings.Repeat("a", 17<<10) + `"}`, 413, apitype.CodeTooLarge, ""},
		"too large by what is not": {`{}` + strings.Repeat(" ", 17<<10), 413, apitype.CodeTooLarge, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.raw("POST", "/start", workflowToken, tc.body)
			if p := a.problem(t); a.status != tc.status || p.Code != tc.code || p.Field != tc.field {
				t.Errorf("start with %.80q = %d %s %q, want %d %s %q", tc.body, a.status, p.Code, p.Field, tc.status, tc.code, tc.field)
			}
			if len(w.sent) != 0 || w.calls["commit"] != 0 {
				t.Error("something was recorded or sent")
			}
		})
	}
}

func TestWrongTypesAreToldTheRightOne(t *testing.T) {
	w := newWorld(t)
	for body, want := range map[string]string{
		`{"timeout":60.0}`:                      "a whole number below 2^63, without a point or an exponent",
		`{"timeout":2355170423488598595600384}`: "a whole number below 2^63, without a point or an exponent",
		`{"timeout":"60"}`:                      "a whole number below 2^63, without a point or an exponent",
		`{"region":2}`:                          "a string",
		`{"labels":"a"}`:                        "a list",
		`{"labels":[{}]}`:                       "a string",
		`{"tags":[]}`:                           "an object",
	} {
		a := w.raw("POST", "/start", workflowToken, body)
		if p := a.problem(t); a.status != http.StatusUnprocessableEntity || p.Detail != "It has the wrong type. Want "+want+"." {
			t.Errorf("start with %s = %d %q, want 422 that wants %s", body, a.status, p.Detail, want)
		}
	}
}

func TestBodiesOfOtherMediaTypesAreRefused(t *testing.T) {
	w := newWorld(t)
	for _, media := range []string{
		"", "text/plain", "application/x-www-form-urlencoded", "application/json-patch+json", "application/json; charset=utf-16",
		"application/json, text/plain", "application/JSON; charset", "multipart/form-data; boundary=x",
	} {
		if a := w.raw("POST", "/start", workflowToken, "{}", "Content-Type", media); a.status != http.StatusUnsupportedMediaType {
			t.Errorf("start with %q = %d %s, want 415", media, a.status, a.body)
		}
	}
	if a := w.raw("POST", "/start", workflowToken, "{}", "Content-Encoding", "gzip"); a.status != http.StatusUnsupportedMediaType {
		t.Errorf("compressed start = %d, want 415", a.status)
	}
	for _, media := range []string{"application/json", "application/json; charset=UTF-8"} {
		if a := w.raw("POST", "/start", workflowToken, "{}", "Content-Type", media); a.status != http.StatusAccepted {
			t.Errorf("start with %q = %d %s, want 202", media, a.status, a.body)
		}
	}
}

func TestFieldsThatCannotBeMeantAreRefused(t *testing.T) {
	many := func(n int, s string) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = s + strings.Repeat("x", i)
		}
		return out
	}
	twins := []string{
		"ｅu-west-2",           // full width
		"eu-wеst-2",           // a Cyrillic е
		"eu-west-\u06f2",      // an Arabic digit
		"eu-west\u20112",      // a hyphen that does not break
		"eu-west-2\u200b",     // no width
		"\u202eeu-west-2",     // right to left
		"eu-west-2\x00",       // end of a C string
		"eu-west-2\n",         // a line break, which $ would let pass
		"eu-west-2\r\nX-A: 1", // a header
		"eu-west-2\x1b[2J",    // a terminal's command
		"\U000e0065u-west-2",  // a tag character
		"eu-west-2\u0301",     // a combining accent
	}
	cases := map[string][]apitype.Start{
		"repo": {
			{Repo: "demo"}, {Repo: "/demo"}, {Repo: "alphagov/"}, {Repo: "a/b/c"}, {Repo: "alphagov/demo "}, {Repo: "../x"},
			{Repo: "alphagov/dеmo"}, {Repo: "alphagov/demo\n"}, {Repo: "alphagov/" + strings.Repeat("a", 101)}, {Repo: "https://github.com/a/b"},
		},
		"account_id": {{AccountID: "12345678901"}, {AccountID: "1234567890123"}, {AccountID: "12345678901２"}, {AccountID: "123456789012\n"}, {AccountID: "../../x/y/z/"}},
		"region":     {{Region: "EU-WEST-2"}, {Region: "eu"}, {Region: "-2"}, {Region: "eu-west-2/x"}, {Region: strings.Repeat("a", 100) + "-1"}},
		"regions": {
			{Regions: []string{"EU-WEST-2"}}, {Regions: []string{""}}, {Regions: []string{"eu-west-1", "eu-west-1"}}, {Region: "eu-west-2", Regions: []string{"eu-west-1"}, Mode: "ephemeral"},
			{Regions: []string{"eu-west-1", "eu-west-2", "eu-west-3", "us-east-1", "us-east-2", "us-west-1", "us-west-2", "eu-north-1", "eu-south-1"}, Mode: "ephemeral"},
			{Regions: []string{"eu-west-2", "eu-west-1"}, Mode: "shared"}, {Regions: []string{"eu-west-2", "eu-west-1"}}, // the account's first mode is shared
		},
		"type": {{Type: "SPOT"}, {Type: "reserved"}, {Type: "spot "}, {Type: "ѕpot"}},
		"mode": {{Mode: "Shared"}, {Mode: "none"}, {Mode: "ephemeral\u200b"}},
		"labels": {
			{Labels: []string{""}}, {Labels: []string{"a b"}}, {Labels: []string{"a,b"}}, {Labels: []string{"a/b"}}, {Labels: []string{"a", "b\n"}},
			{Labels: []string{"\u212aernel"}}, // the Kelvin sign, which is a k in lower case
			{Labels: []string{"ﬁle"}}, {Labels: []string{"gаro"}}, {Labels: []string{"garo-x"}}, {Labels: []string{"GARO-x"}},
			{Labels: []string{strings.Repeat("a", 65)}}, {Labels: many(17, "a")}, {Labels: []string{"$(id)"}}, {Labels: []string{"`id`"}}, {Labels: []string{"a';b"}},
		},
		"instance_types": {
			{InstanceTypes: []string{"m7i"}}, {InstanceTypes: []string{"M7I.large"}}, {InstanceTypes: []string{""}}, {InstanceTypes: []string{"m7i.large", "m7i.large"}},
			{InstanceTypes: many(25, "m7i.l")}, {InstanceTypes: []string{"m7i.large\n"}}, {InstanceTypes: []string{"m7i..large"}},
		},
		"image_id":        {{ImageID: "ami"}, {ImageID: "AMI-1"}, {ImageID: "ami-1;x"}, {ImageID: "resolve:ssm:/x"}, {ImageID: "/x y"}, {ImageID: "/" + strings.Repeat("a", 256)}},
		"subnets":         {{Subnets: []string{"a1"}}, {Subnets: []string{"subnet-"}}, {Subnets: []string{"subnet-A"}}, {Subnets: []string{"subnet-a1", "subnet-a1"}}, {Subnets: many(17, "subnet-a")}},
		"security_groups": {{SecurityGroups: []string{"1"}}, {SecurityGroups: []string{"sg-1 "}}, {SecurityGroups: []string{"sg-1", "sg-1"}}, {SecurityGroups: many(17, "sg-a")}},
		"root_volume_gb":  {{RootVolumeGB: -1}, {RootVolumeGB: 65537}},
		"cpu":             {{CPU: -1}, {CPU: 2049}, {CPU: 4, InstanceTypes: []string{"m7i.large"}}},
		"memory":          {{Memory: -1}, {Memory: 32769}, {Memory: 4, InstanceTypes: []string{"m7i.large"}}},
		"gpu":             {{GPU: -1}, {GPU: 17}, {GPU: 1, InstanceTypes: []string{"m7i.large"}}},
		"arch":            {{Arch: "x64"}, {Arch: "ARM64"}, {Arch: "arm64", InstanceTypes: []string{"m7g.large"}}},
		"tags": {
			{Tags: map[string]string{"": "x"}}, {Tags: map[string]string{"garo:runner": "x"}}, {Tags: map[string]string{"Garo:x": "x"}}, {Tags: map[string]string{"Name": "x"}},
			{Tags: map[string]string{"AWS:x": "x"}}, {Tags: map[string]string{"a": "b\n"}}, {Tags: map[string]string{"\u202ea": "b"}}, {Tags: map[string]string{"a": strings.Repeat("b", 257)}},
			{Tags: map[string]string{strings.Repeat("a", 129): "b"}},
		},
		"timeout":         {{Timeout: -1}, {Timeout: 86401}, {Timeout: 1 << 62}},
		"give_up":         {{GiveUp: -1}, {GiveUp: 86401}, {GiveUp: -1 << 62}},
		"idempotency_key": {{IdempotencyKey: "a b"}, {IdempotencyKey: "é"}, {IdempotencyKey: "a\n"}, {IdempotencyKey: strings.Repeat("a", 129)}, {IdempotencyKey: "\x7f"}},
	}
	for _, twin := range twins {
		cases["region"] = append(cases["region"], apitype.Start{Region: twin})
		cases["labels"] = append(cases["labels"], apitype.Start{Labels: []string{twin}})
		cases["idempotency_key"] = append(cases["idempotency_key"], apitype.Start{IdempotencyKey: twin})
		cases["image_id"] = append(cases["image_id"], apitype.Start{ImageID: "/" + twin})
	}
	w := newWorld(t)
	for field, bodies := range cases {
		for _, body := range bodies {
			a := w.raw("POST", "/start", workflowToken, body)
			if p := a.problem(t); a.status != http.StatusUnprocessableEntity || p.Code != apitype.CodeInvalidField || p.Field != field || p.Detail == "" {
				t.Errorf("start with %+v = %d %s %q, want 422 of %s", body, a.status, p.Code, p.Field, field)
			}
		}
	}
	if len(w.sent) != 0 || w.calls["commit"] != 0 {
		t.Error("something was recorded or sent")
	}
}

func TestCallsWithoutBodyTakeNoneOrAnEmptyObject(t *testing.T) {
	w := newWorld(t)
	id := w.start(workflowToken, apitype.Start{}).ID
	for body, want := range map[string]int{"": 202, "{}": 202, " {} ": 202, "[]": 400, `{"force":true}`: 422, "null": 400} {
		if a := w.raw("POST", "/stop/"+id, workflowToken, body); a.status != want {
			t.Errorf("stop with %q = %d %s, want %d", body, a.status, a.body, want)
		}
	}
}

func TestQueriesAreExact(t *testing.T) {
	w := newWorld(t)
	id := w.start(workflowToken, apitype.Start{}).ID
	for query, want := range map[string]int{
		"?force=false": 202, "?force=true": 202, "?force": 422, "?force=": 422, "?force=1": 422, "?force=true&force=false": 422,
		"?Force=true": 422, "?other=1": 422, "?a;b": 422, "?force=%zz": 422,
	} {
		if a := w.raw("POST", "/stop/"+id+query, workflowToken, nil); a.status != want {
			t.Errorf("stop%s = %d %s, want %d", query, a.status, a.body, want)
		}
	}
	if a := w.raw("GET", "/status/"+id+"?x=1", workflowToken, nil); a.problem(t).Code != apitype.CodeUnknownField {
		t.Errorf("status with a parameter = %s, want %s", a.body, apitype.CodeUnknownField)
	}
}

// checkFuzz fails when an answer is the API's own fault, or a wrong one.
func checkFuzz(t *testing.T, w *world, a answer) {
	t.Helper()
	if a.status >= 500 {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	if a.status >= 400 {
		a.problem(t)
	}
	if !utf8.Valid(a.body) || !json.Valid(a.body) {
		t.Errorf("answer %q is not JSON", a.body)
	}
	if alarms := w.alarms(); len(alarms) > 0 {
		t.Errorf("alarms %q", alarms)
	}
}

func FuzzStart(f *testing.F) {
	for _, body := range []string{
		`{}`, `{"labels":["a","B"],"type":"spot","timeout":60}`, `{"repo":"alphagov/demo","region":"eu-west-2"}`, `{"labels":[null]}`,
		`{"instance_types":["m7i.large"],"image_id":"ami-1","subnets":["subnet-a1"],"security_groups":["sg-1"]}`, `{"a":1,"a":2}`,
		`{"mode":"ephemeral","idempotency_key":"k","give_up":1}`, `[[[[`, "\xff", `{"timeout":-0}`, `{"timeout":1e2}`, `{"labels":{}}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		w := newWorld(t)
		a := w.raw("POST", "/start", workflowToken, body)
		checkFuzz(t, w, a)
		if a.status == http.StatusAccepted {
			var got apitype.Started
			if err := json.Unmarshal(a.body, &got); err != nil {
				t.Fatal(err)
			}
			r := w.request(got.ID)
			if field, value, ok := registration().Permits(r); !ok {
				t.Errorf("%q was accepted with %s %q", body, field, value)
			}
			for _, l := range r.Labels {
				if strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
					t.Errorf("%q was accepted with label %q", body, l)
				}
			}
		}
	})
}

func FuzzIDs(f *testing.F) {
	for _, id := range []string{"", "a", strings.Repeat("a", 26), strings.Repeat("b", 26), "../../etc", "%2e%2e", "a#b", "é", strings.Repeat("a", 5000)} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		w := newWorld(t)
		escaped := pathEscape(id)
		for _, a := range []answer{
			w.raw("GET", "/status/"+escaped, workflowToken, nil), w.raw("POST", "/stop/"+escaped, operatorToken, nil),
			w.raw("POST", "/runners/"+escaped+"/boot", "", apitype.Boot{Token: "x", Nonce: nonce, InstanceID: instanceID}),
			w.raw("POST", "/runners/"+escaped+"/events", "garo_s_x", apitype.Event{Event: "heartbeat", Counter: 1}, apitype.LockHeader, headerValue(id)),
			w.raw("POST", "/sweeps/"+escaped+"/"+escaped+"/release", operatorToken, nil),
			w.raw("GET", "/agent/linux/"+escaped+"/"+escaped, "", nil),
			w.raw("GET", "/checks/"+escaped, operatorToken, nil),
		} {
			checkFuzz(t, w, a)
			if a.status < 400 {
				t.Errorf("id %q = %d, want nothing to be found", id, a.status)
			}
		}
	})
}

func FuzzTokens(f *testing.F) {
	for _, token := range []string{"", "a", "a.b.c", "garo_op_", "garo_op_x", "garo_st_", "garo_st_k1.1.x", "garo_st_k1.99999999999999999999.x", "garo_s_x", "\x00", strings.Repeat(".", 8000)} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if token == workflowToken || token == otherToken || token == operatorToken {
			return
		}
		w := newWorld(t)
		id := strings.Repeat("a", 26)
		for _, a := range []answer{
			w.raw("POST", "/start", "", apitype.Start{}, "Authorization", "Bearer "+headerValue(token)),
			w.raw("GET", "/status/"+id, "", nil, "Authorization", "Bearer "+headerValue(token)),
			w.raw("POST", "/runners/"+id+"/next", "", apitype.Next{N: 1}, "Authorization", "Bearer "+headerValue(token)),
			w.raw("GET", "/requests", "", nil, "Authorization", headerValue(token)),
		} {
			checkFuzz(t, w, a)
			if a.status != http.StatusUnauthorized && a.status != http.StatusNotFound {
				t.Errorf("token %q = %d, want 401 or 404", token, a.status)
			}
		}
		if w.calls["commit"] != 0 {
			t.Error("something was recorded")
		}
	})
}

// Two lists of labels share a runner only if they are the same set.
func FuzzLabels(f *testing.F) {
	f.Add("a,b", "c", "a", "b,c")
	f.Add("a", "b", "b", "a")
	f.Add("A", " a", "a", "a")
	f.Add("a/b", "", "a", "b")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		w := newWorld(t)
		var got [2]store.Request
		for i, labels := range [][]string{{a, b}, {c, d}} {
			answer := w.raw("POST", "/start", operatorToken, apitype.Start{Repo: "alphagov/demo", Labels: labels})
			checkFuzz(t, w, answer)
			if answer.status != http.StatusAccepted {
				return
			}
			var s apitype.Started
			if err := json.Unmarshal(answer.body, &s); err != nil {
				t.Fatal(err)
			}
			got[i] = w.request(s.ID)
		}
		same := set(a, b) == set(c, d)
		if shared := got[0].LockKey() == got[1].LockKey(); shared != same {
			t.Errorf("labels %q, %q and %q, %q: one runner %t, want %t", a, b, c, d, shared, same)
		}
		if shared := got[0].OwnLabel == got[1].OwnLabel; shared != same {
			t.Errorf("labels %q, %q and %q, %q: one own label %t, want %t", a, b, c, d, shared, same)
		}
	})
}

// set is the set of two accepted labels, in one form.
func set(a, b string) string {
	a, b = strings.ToLower(strings.Trim(a, " \t")), strings.ToLower(strings.Trim(b, " \t"))
	if a > b {
		a, b = b, a
	}
	if a == b {
		return a
	}
	return a + " " + b
}

// pathEscape writes id as one segment of a path, dots and emptiness included.
func pathEscape(id string) string {
	switch id {
	case "", ".", "..":
		return "-" + id
	}
	return url.PathEscape(id)
}

// headerValue drops what no HTTP server lets into a header.
func headerValue(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// Whether a region is allowed is the account's affair; its name is one in every
// partition.
func TestRegionsOfEveryPartitionAreNames(t *testing.T) {
	w := newWorld(t)
	for _, p := range awstest.Partitions {
		for _, region := range p.Regions {
			a := w.raw("POST", "/start", workflowToken, apitype.Start{Region: region, IdempotencyKey: region})
			if a.status == http.StatusAccepted {
				continue // the account's own
			}
			if got := a.problem(t); got.Code != apitype.CodeForbidden || got.Field != "region" {
				t.Errorf("start in %s = %d %s %q, want that the account does not allow the region", region, a.status, got.Code, got.Field)
			}
		}
	}
}
