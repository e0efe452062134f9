package ec2proxy

import (
	"encoding/base64"
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// params makes parameters of names and values in turn.
func params(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

func TestTokenStandsForItsCall(t *testing.T) {
	used := scope{"111122223333", "eu-west-2", "eu-west-2a", "t1"}
	print := fingerprint(params("ImageId", "ami-1", "ClientToken", "t1"))
	with := func(change func(*scope)) scope { s := used; change(&s); return s }
	for _, c := range []struct {
		name  string
		until time.Time // of the binding
		s     scope
		print string
		want  string // found, free, or the error's code
	}{
		{"SameCall", time.Time{}, used, print, "found"},
		{"SameCallInAnotherOrder", time.Time{}, used, fingerprint(params("ClientToken", "t1", "ImageId", "ami-1")), "found"},
		{"OtherParameter", time.Time{}, used, fingerprint(params("ImageId", "ami-2", "ClientToken", "t1")), "IdempotentParameterMismatch"},
		{"OneParameterMore", time.Time{}, used, fingerprint(params("ImageId", "ami-1", "ClientToken", "t1", "KeyName", "k")), "IdempotentParameterMismatch"},
		{"JustStillBound", noon.Add(1), used, print, "found"},
		{"JustStillBoundToOtherParameters", noon.Add(1), used, "x", "IdempotentParameterMismatch"},
		{"ADayAfterItsEnd", noon, used, "x", "free"},
		{"OtherZone", time.Time{}, with(func(s *scope) { s.zone = "eu-west-2b" }), "x", "free"},
		{"OtherRegion", time.Time{}, with(func(s *scope) { s.region = "eu-west-1" }), "x", "free"},
		{"OtherAccount", time.Time{}, with(func(s *scope) { s.account = "444455556666" }), "x", "free"},
		{"OtherCase", time.Time{}, with(func(s *scope) { s.token = "T1" }), "x", "free"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, r := tokens{used: {print: print, until: c.until}}.find(c.s, c.print, noon)
			got := "free"
			if r != nil {
				got = r.code
			} else if b != nil {
				got = "found"
			}
			if got != c.want {
				t.Errorf("find = %s, want %s", got, c.want)
			}
		})
	}
}

func TestTokenIsFreeADayAfterTheFirstTermination(t *testing.T) {
	all := tokens{scope{token: "a"}: {instance: "i-1"}, scope{token: "b"}: {instance: "i-2"}}
	all.terminated("i-1", noon)
	all.terminated("i-1", noon.Add(time.Hour))
	if got := all[scope{token: "a"}].until; !got.Equal(noon.Add(24 * time.Hour)) {
		t.Errorf("until = %v, want a day after noon", got)
	}
	if got := all[scope{token: "b"}].until; !got.IsZero() {
		t.Errorf("until of another instance's token = %v, want none", got)
	}
}

func TestLaunchIsRefusedByItsParameters(t *testing.T) {
	one := []string{"MinCount", "1", "MaxCount", "1"}
	data := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for _, c := range []struct {
		name string
		with []string
		want string // the code; empty: none
	}{
		{"TokenOf64", []string{"ClientToken", strings.Repeat("a", 64)}, ""},
		{"TokenOf65", []string{"ClientToken", strings.Repeat("a", 65)}, "InvalidParameterValue"},
		{"TokenThatIsNotASCII", []string{"ClientToken", "tökén"}, "InvalidParameterValue"},
		{"TokenOfSeveral", []string{"ClientToken", "a", "MaxCount", "2"}, "NotImplemented"},
		{"SpotThatStops", []string{"InstanceMarketOptions.MarketType", "spot", "InstanceInitiatedShutdownBehavior", "stop"}, "InvalidParameterCombination"},
		{"SpotThatTerminates", []string{"InstanceMarketOptions.MarketType", "spot", "InstanceInitiatedShutdownBehavior", "terminate"}, ""},
		{"OnDemandThatStops", []string{"InstanceInitiatedShutdownBehavior", "stop"}, ""},
		{"UserDataOf16KiB", []string{"UserData", data(16 << 10)}, ""},
		{"UserDataOfAByteMore", []string{"UserData", data(16<<10 + 1)}, "InvalidParameterValue"},
		{"UserDataInTheClear", []string{"UserData", "#!/bin/sh"}, "InvalidParameterValue"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if r := acceptable(params(append(slices.Clone(one), c.with...)...)); r != nil {
				got = r.code
			}
			if got != c.want {
				t.Errorf("acceptable = %q, want %q", got, c.want)
			}
		})
	}
}

func TestPolicyAllows(t *testing.T) {
	const run = "ec2:RunInstances"
	for _, c := range []struct {
		name, policy, action string
		want                 bool
	}{
		{"NamedAction", `{"Statement":[{"Effect":"Allow","Action":"ec2:RunInstances","Resource":"*"}]}`, run, true},
		{"OneOfAList", `{"Statement":[{"Effect":"Allow","Action":["ec2:Describe*","ec2:RunInstances"]}]}`, run, true},
		{"InAnotherCase", `{"Statement":[{"Effect":"Allow","Action":"EC2:runinstances"}]}`, run, true},
		{"Wildcard", `{"Statement":[{"Effect":"Allow","Action":"ec2:*Instances"}]}`, run, true},
		{"OneCharacter", `{"Statement":[{"Effect":"Allow","Action":"ec2:RunInstance?"}]}`, run, true},
		{"OtherAction", `{"Statement":[{"Effect":"Allow","Action":"ec2:Run"}]}`, run, false},
		{"OtherService", `{"Statement":[{"Effect":"Allow","Action":"ssm:*"}]}`, run, false},
		{"DenialWins", `{"Statement":[{"Effect":"Allow","Action":"*"},{"Effect":"Deny","Action":"ec2:Run*"}]}`, run, false},
		{"DenialUnderAConditionIsPassedOver", `{"Statement":[{"Effect":"Allow","Action":"*"},{"Effect":"Deny","Action":"ec2:Run*","Condition":{"Bool":{"x":"y"}}}]}`, run, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := parsePolicy(c.policy)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.allows(c.action); got != c.want {
				t.Errorf("allows(%s) = %v, want %v", c.action, got, c.want)
			}
		})
	}
	for _, text := range []string{"", "{}", `{"Statement":[{"Effect":"allow","Action":"*"}]}`, `{"Statement":[{"Effect":"Allow"}]}`, `{"Statement":[{"Effect":"Allow","NotAction":"ec2:*"}]}`} {
		if p, err := parsePolicy(text); err == nil {
			t.Errorf("parsePolicy(%s) = %+v, want an error", text, p)
		}
	}
}

func TestSessionIsAsSTSGivesIt(t *testing.T) {
	const role, id = "arn:aws:iam::444455556666:role/garo", "the-external-id"
	table := map[string]Role{role: {ExternalID: id, SourceIdentity: "garo-*"}}
	chainedCaller := caller{"111122223333", "arn:aws:sts::111122223333:assumed-role/worker/x"}
	user := caller{"111122223333", "arn:aws:iam::111122223333:user/x"}
	for _, c := range []struct {
		name  string
		who   caller
		roles map[string]Role
		was   string // source identity of the caller's session
		with  []string
		want  string // the code; empty: none
	}{
		{"AsItShould", chainedCaller, table, "", []string{"ExternalId", id, "SourceIdentity", "garo-prod", "DurationSeconds", "3600"}, ""},
		{"WrongExternalID", chainedCaller, table, "", []string{"ExternalId", "another"}, "AccessDenied"},
		{"NoExternalID", chainedCaller, table, "", nil, "AccessDenied"},
		{"RoleThatIsNotThere", chainedCaller, map[string]Role{}, "", []string{"ExternalId", id}, "AccessDenied"},
		{"WithoutATableAnyRole", chainedCaller, nil, "", nil, ""},
		{"ChainedForMoreThanAnHour", chainedCaller, table, "", []string{"ExternalId", id, "DurationSeconds", "3601"}, "ValidationError"},
		{"UserForMoreThanTheRolesHour", user, table, "", []string{"ExternalId", id, "DurationSeconds", "3601"}, "ValidationError"},
		{"LessThanAQuarter", user, table, "", []string{"ExternalId", id, "DurationSeconds", "899"}, "ValidationError"},
		{"DurationThatIsNone", user, table, "", []string{"ExternalId", id, "DurationSeconds", "1h"}, "ValidationError"},
		{"SourceIdentityThatMayNotBeSet", user, table, "", []string{"ExternalId", id, "SourceIdentity", "mallory"}, "AccessDenied"},
		{"SourceIdentityThatIsNone", user, table, "", []string{"ExternalId", id, "SourceIdentity", "a b"}, "ValidationError"},
		{"SourceIdentityStays", chainedCaller, table, "garo-prod", []string{"ExternalId", id}, ""},
		{"SourceIdentityCannotChange", chainedCaller, table, "garo-prod", []string{"ExternalId", id, "SourceIdentity", "garo-test"}, "AccessDenied"},
		{"PolicyOf2049", user, table, "", []string{"ExternalId", id, "Policy", strings.Repeat(" ", 2049)}, "ValidationError"},
		{"PolicyThatIsNone", user, table, "", []string{"ExternalId", id, "Policy", "{"}, "MalformedPolicyDocument"},
		{"NameThatIsNone", user, table, "", []string{"ExternalId", id, "RoleSessionName", "a/b"}, "ValidationError"},
		{"RoleThatIsNone", user, table, "", []string{"ExternalId", id, "RoleArn", "garo"}, "ValidationError"},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := &Call{At: noon, Session: Session{SourceIdentity: c.was}, Params: params(append([]string{"RoleArn", role, "RoleSessionName", "garo-prod-worker"}, c.with...)...)}
			s, r := New("", Config{Roles: c.roles}).session(call, c.who)
			got := ""
			if r != nil {
				got = r.code
			}
			if got != c.want {
				t.Fatalf("session = %v, want %q", r, c.want)
			}
			if c.want != "" {
				return
			}
			if s.Account != "444455556666" || !s.Expires.Equal(noon.Add(time.Hour)) {
				t.Errorf("session = %+v, want account 444455556666 for an hour", s)
			}
			if c.was != "" && s.SourceIdentity != c.was {
				t.Errorf("source identity = %q, want %q", s.SourceIdentity, c.was)
			}
		})
	}
}

func TestSessionPermits(t *testing.T) {
	p, err := parsePolicy(`{"Statement":[{"Effect":"Allow","Action":["ec2:DescribeInstances","ssm:GetParameter"]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	s := Session{Policy: "x", policy: p, Expires: noon}
	for _, c := range []struct {
		service, action string
		at              time.Time
		want            string
	}{
		{"ec2", "DescribeInstances", noon.Add(-1), ""},
		{"ec2", "RunInstances", noon.Add(-1), "UnauthorizedOperation"},
		{"ec2", "DescribeInstances", noon, "RequestExpired"},
		{"ssm", "GetParameter", noon.Add(-1), ""},
		{"ssm", "PutParameter", noon.Add(-1), "AccessDeniedException"},
		{"ssm", "GetParameter", noon, "ExpiredTokenException"},
		{"sts", "AssumeRole", noon.Add(-1), "AccessDenied"},
		{"sts", "GetCallerIdentity", noon.Add(-1), ""},
		{"sts", "GetCallerIdentity", noon, "ExpiredToken"},
	} {
		got := ""
		if r := s.permits(&Call{Service: c.service, Action: c.action, At: c.at}); r != nil {
			got = r.code
		}
		if got != c.want {
			t.Errorf("%s:%s at %v = %q, want %q", c.service, c.action, c.at, got, c.want)
		}
	}
	if r := (Session{}).permits(&Call{Service: "ec2", Action: "RunInstances", At: noon}); r != nil {
		t.Errorf("credentials of no session: %v, want no refusal", r)
	}
}

func TestRuleMatches(t *testing.T) {
	call := &Call{Action: "RunInstances", Account: "111122223333", Region: "eu-west-2", Params: params("InstanceType", "c7g.large", "UserData", "")}
	for _, c := range []struct {
		name string
		rule Rule
		want bool
	}{
		{"Empty", Rule{}, true},
		{"Action", Rule{Action: "RunInstances"}, true},
		{"OtherAction", Rule{Action: "DescribeInstances"}, false},
		{"OtherAccount", Rule{Account: "444455556666"}, false},
		{"OtherRegion", Rule{Region: "eu-west-1"}, false},
		{"Pattern", Rule{Params: map[string]string{"InstanceType": "c7g.*"}}, true},
		{"OtherPattern", Rule{Params: map[string]string{"InstanceType": "m7g.*"}}, false},
		{"ParameterThatIsAbsent", Rule{Params: map[string]string{"InstanceMarketOptions.MarketType": "*"}}, false},
		{"AbsenceOfOne", Rule{Params: map[string]string{"InstanceMarketOptions.MarketType": ""}}, true},
		{"AbsenceOfOneThatIsThere", Rule{Params: map[string]string{"InstanceType": ""}}, false},
		{"EmptyOneThatIsThere", Rule{Params: map[string]string{"UserData": "*"}}, true},
	} {
		if got := c.rule.matches(call); got != c.want {
			t.Errorf("%s: matches = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestRulesAreUsedInOrderAndUp(t *testing.T) {
	p := New("", Config{})
	p.Add(Rule{Action: "RunInstances", Code: "First", Times: 2})
	remove := p.Add(Rule{Code: "Second"})
	p.Add(Rule{Code: "Third", Times: 1})
	var got []string
	for n := range 6 {
		if n == 4 {
			remove()
		}
		got = append(got, p.rule(&Call{Action: "RunInstances"}).Code)
	}
	if want := []string{"First", "First", "Second", "Second", "Third", ""}; !slices.Equal(got, want) {
		t.Errorf("rules = %q, want %q", got, want)
	}
	for _, bad := range []Rule{{Params: map[string]string{"a": "["}}, {Action: "DescribeInstances", Late: true}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Add(%+v) took it, want a panic", bad)
				}
			}()
			p.Add(bad)
		}()
	}
}

func TestErrorsHaveTheFormOfTheirService(t *testing.T) {
	const id = requestID
	for _, c := range []struct {
		service, code string
		status        int
		body          string
	}{
		{"ec2", "InsufficientInstanceCapacity", 500, `<Response><Errors><Error><Code>InsufficientInstanceCapacity</Code><Message>a &lt; b</Message></Error></Errors><RequestID>` + id + `</RequestID></Response>`},
		{"ec2", "RequestLimitExceeded", 503, `<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>a &lt; b</Message></Error></Errors><RequestID>` + id + `</RequestID></Response>`},
		{"ec2", "MaxSpotInstanceCountExceeded", 400, `<Response><Errors><Error><Code>MaxSpotInstanceCountExceeded</Code><Message>a &lt; b</Message></Error></Errors><RequestID>` + id + `</RequestID></Response>`},
		{"ec2", "UnauthorizedOperation", 403, `<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>a &lt; b</Message></Error></Errors><RequestID>` + id + `</RequestID></Response>`},
		{"sts", "AccessDenied", 403, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>a &lt; b</Message></Error><RequestId>` + id + `</RequestId></ErrorResponse>`},
		{"sts", "InternalFailure", 500, `<ErrorResponse><Error><Type>Receiver</Type><Code>InternalFailure</Code><Message>a &lt; b</Message></Error><RequestId>` + id + `</RequestId></ErrorResponse>`},
		{"ssm", "ThrottlingException", 400, `{"__type":"ThrottlingException","message":"a \u003c b"}`},
	} {
		w := httptest.NewRecorder()
		refuse(c.code, "a < b").write(w, c.service)
		if w.Code != c.status || w.Body.String() != c.body {
			t.Errorf("%s of %s = %d %s, want %d %s", c.code, c.service, w.Code, w.Body, c.status, c.body)
		}
		if got := codeOf(w.Body.Bytes()); got != c.code {
			t.Errorf("codeOf(%s) = %q, want %q", w.Body, got, c.code)
		}
	}
}

func TestRefusalBindsItsTokenUnlessNothingWasLookedAt(t *testing.T) {
	for code, want := range map[string]bool{
		"InsufficientInstanceCapacity": true, "MaxSpotInstanceCountExceeded": true, "VcpuLimitExceeded": true,
		"RequestLimitExceeded": false, "Unavailable": false, "InternalError": false, "UnauthorizedOperation": false, "AuthFailure": false,
	} {
		if got := refuse(code, "").binds(); got != want {
			t.Errorf("%s binds = %v, want %v", code, got, want)
		}
	}
}

func TestFiltersThatMotoLacksAreTakenOut(t *testing.T) {
	rest, ours, r := split(params(
		"Action", "DescribeInstances", "MaxResults", "5", "NextToken", "x",
		"Filter.1.Name", "client-token", "Filter.1.Value.1", "t1", "Filter.1.Value.2", "t2",
		"Filter.2.Name", "tag:garo:runner", "Filter.2.Value.1", "r1",
		"Filter.3.Name", "instance-lifecycle", "Filter.3.Value.1", "spot",
		"Filter.4.Name", "instance-state-name", "Filter.4.Value.1", "running",
	))
	if r != nil {
		t.Fatal(r)
	}
	want := params("Action", "DescribeInstances", "Filter.1.Name", "tag:garo:runner", "Filter.1.Value.1", "r1", "Filter.2.Name", "instance-state-name", "Filter.2.Value.1", "running")
	if rest.Encode() != want.Encode() {
		t.Errorf("what is left = %v, want %v", rest, want)
	}
	if got := fmt.Sprint(ours); got != "[{client-token [t1 t2]} {instance-lifecycle [spot]}]" {
		t.Errorf("ours = %s", got)
	}
	if _, _, r := split(params("Filter.1.Name", "launch-time", "Filter.1.Value.1", "x")); r == nil || r.code != "InvalidParameterValue" {
		t.Errorf("filter that nobody knows = %v, want InvalidParameterValue", r)
	}
	many := params("Filter.1.Name", "tag:a")
	for v := range 201 {
		many.Set(fmt.Sprintf("Filter.1.Value.%d", v+1), "x")
	}
	if _, _, r := split(many); r == nil || r.code != "FilterLimitExceeded" {
		t.Errorf("201 values = %v, want FilterLimitExceeded", r)
	}
}

func TestPages(t *testing.T) {
	var all []reservation
	for n := range 12 {
		all = append(all, made(fmt.Sprintf("i-%017d", n)))
	}
	var sizes []int
	seen := map[string]bool{}
	for token, more := "", true; more; more = token != "" {
		p := params("MaxResults", "5")
		if token != "" {
			p.Set("NextToken", token)
		}
		got, next, r := page(all, p)
		if r != nil {
			t.Fatal(r)
		}
		for _, r := range got {
			seen[r.Instances[0].ID] = true
		}
		sizes, token = append(sizes, len(got)), next
	}
	if !slices.Equal(sizes, []int{5, 5, 2}) || len(seen) != 12 {
		t.Errorf("pages of %v with %d instances, want 5, 5, 2 with 12", sizes, len(seen))
	}
	if got, next, r := page(all, params()); r != nil || len(got) != 12 || next != "" {
		t.Errorf("without paging = %d, next %q, %v; want all 12", len(got), next, r)
	}
	for name, c := range map[string]struct {
		with url.Values
		code string
	}{
		"TooSmall":    {params("MaxResults", "4"), "InvalidParameterValue"},
		"TooLarge":    {params("MaxResults", "1001"), "InvalidParameterValue"},
		"WithIDs":     {params("MaxResults", "5", "InstanceId.1", "i-12345678"), "InvalidParameterCombination"},
		"UnknownPage": {params("MaxResults", "5", "NextToken", "eA=="), "InvalidParameterValue"},
	} {
		if _, _, r := page(all, c.with); r == nil || r.code != c.code {
			t.Errorf("%s: page = %v, want %s", name, r, c.code)
		}
	}
}

func made(id string) reservation {
	var r reservation
	r.Instances = append(r.Instances, struct {
		ID        string `xml:"instanceId"`
		Token     string `xml:"clientToken"`
		Lifecycle string `xml:"instanceLifecycle"`
		Profile   string `xml:"iamInstanceProfile>arn"`
	}{ID: id})
	return r
}
