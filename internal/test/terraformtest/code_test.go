package terraformtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/alphagov/github-actions-runner-orchestration/api"
	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/settings"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
)

// same fails the test for what is in one list alone.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("%s: Terraform has %s, and the code does not", what, g)
		}
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("%s: the code has %s, and Terraform does not", what, w)
		}
	}
}

var functions = []settings.Function{settings.FunctionAPI, settings.FunctionWorker, settings.FunctionReaper}

// Each function gets the variables that its code requires, no other, and in a form
// that the code takes.
func TestEnvironmentIsWhatTheCodeRequires(t *testing.T) {
	r := controlPlane(t)
	for _, f := range functions {
		env := into[[]struct{ Variables map[string]string }](t, r.at(t, `aws_lambda_function.this["`+string(f)+`"]`, "environment"))[0].Variables
		var want []string
		for _, v := range settings.Variables {
			if slices.Contains(v.Readers, f) {
				want = append(want, v.Name)
			}
		}
		same(t, "environment of the "+string(f), slices.Collect(maps.Keys(env)), want)

		environ := make([]string, 0, len(env))
		for name, value := range env {
			environ = append(environ, name+"="+value)
		}
		var err error
		switch f {
		case settings.FunctionAPI:
			_, err = settings.ReadAPI(environ)
		case settings.FunctionWorker:
			_, err = settings.ReadWorker(environ)
		case settings.FunctionReaper:
			_, err = settings.ReadReaper(environ)
		}
		if err != nil {
			t.Errorf("the %s refuses its environment: %v", f, err)
		}
	}
}

// The parameters are where the code looks for them, and each function may read
// those that it reads.
func TestParametersAreThoseOfTheCode(t *testing.T) {
	r := controlPlane(t)
	var got []string
	for _, address := range r.ofType("aws_ssm_parameter") {
		name := r.at(t, address, "name").(string)
		if kind := r.at(t, address, "type"); kind != "SecureString" {
			t.Errorf("%s is a %v, want a SecureString", name, kind)
		}
		name = strings.TrimPrefix(name, "/garo/")
		if strings.HasPrefix(name, "accounts/") {
			name = "accounts/<account id>"
		}
		if strings.HasPrefix(name, "setup/") {
			name = "setup/<name>/<part>"
		}
		if !slices.Contains(got, name) {
			got = append(got, name)
		}
	}
	var want []string
	for _, p := range settings.Parameters {
		if strings.HasPrefix(p.Name, "/") {
			continue // the runner account's
		}
		if p.Name != "webhook" { // `garo app create` writes that: no state has an App's secret
			want = append(want, p.Name)
		}
		read := call{action: "ssm:GetParameter", resource: parameter + "/" + strings.ReplaceAll(p.Name, "<account id>", "222222222222")}
		if all, ok := strings.CutSuffix(read.resource, "/<part>"); ok { // they are read together
			read = call{action: "ssm:GetParametersByPath", resource: strings.ReplaceAll(all, "<name>", "build")}
		}
		for _, f := range functions {
			may := policyAt(t, r, `aws_iam_role_policy.function["`+string(f)+`"]`, "policy").allows(read)
			if reads := slices.Contains(p.Readers, f); may != reads {
				t.Errorf("%s: the %s reads it = %t, and may = %t", p.Name, f, reads, may)
			}
		}
	}
	same(t, "parameters", got, want)
}

func TestTableIsAsTheStoreDemands(t *testing.T) {
	type index struct {
		Name       string
		Hash       string   `json:"hash_key"`
		Range      string   `json:"range_key"`
		Include    []string `json:"non_key_attributes"`
		Projection string   `json:"projection_type"`
	}
	r, want := controlPlane(t), dynamostore.Schema()
	const table = "aws_dynamodb_table.this"
	if got := r.at(t, table, "hash_key"); got != want.Key {
		t.Errorf("partition key = %v, want %s", got, want.Key)
	}
	if got, ok := r[table]["range_key"]; ok {
		t.Errorf("sort key = %v, want none", got)
	}
	ttl := into[[]struct {
		Name    string `json:"attribute_name"`
		Enabled bool
	}](t, r.at(t, table, "ttl"))
	if len(ttl) != 1 || ttl[0].Name != want.TTL || !ttl[0].Enabled {
		t.Errorf("ttl = %+v, want %s", ttl, want.TTL)
	}

	attributes := []string{want.Key}
	var indexes []string
	for _, i := range want.Indexes {
		projection := "KEYS_ONLY"
		if len(i.Include) > 0 {
			projection = "INCLUDE"
		}
		indexes = append(indexes, fmt.Sprint(i.Name, i.Hash, i.Range, i.Include, projection))
		for _, a := range []string{i.Hash, i.Range} {
			if !slices.Contains(attributes, a) {
				attributes = append(attributes, a)
			}
		}
	}
	var got []string
	for _, i := range into[[]index](t, r.at(t, table, "global_secondary_index")) {
		got = append(got, fmt.Sprint(i.Name, i.Hash, i.Range, i.Include, i.Projection))
	}
	same(t, "indexes", got, indexes)

	var declared []string
	for _, a := range into[[]struct{ Name, Type string }](t, r.at(t, table, "attribute")) {
		declared = append(declared, a.Name)
		if a.Type != "S" {
			t.Errorf("attribute %s is of type %s, want S", a.Name, a.Type)
		}
	}
	same(t, "key attributes", declared, attributes)
}

// Every call of the API's contract is a route, and nothing else is.
func TestRoutesAreTheContracts(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			want = append(want, method+" "+path)
		}
	}
	r := controlPlane(t)
	var got []string
	for _, address := range r.ofType("aws_apigatewayv2_route") {
		got = append(got, r.at(t, address, "route_key").(string))
	}
	same(t, "routes", got, want)
}

// Every alarm of the code has a filter that finds its line, and an alarm on that.
func TestAlarmsAreThoseOfTheCode(t *testing.T) {
	r := controlPlane(t)
	var want, got []string
	for _, a := range store.Alarms {
		want = append(want, string(a))
	}
	for _, address := range r.ofType("aws_cloudwatch_log_metric_filter") {
		code := strings.TrimSuffix(strings.TrimPrefix(address, `aws_cloudwatch_log_metric_filter.alarm["`), `"]`)
		got = append(got, code)
		if pattern, want := r.at(t, address, "pattern"), `{ $.alarm = "`+code+`" }`; pattern != want {
			t.Errorf("%s looks for %v, want %s", address, pattern, want)
		}
		metric := into[[]struct{ Namespace, Name, Value string }](t, r.at(t, address, "metric_transformation"))[0]
		alarm := `aws_cloudwatch_metric_alarm.this["alarm-` + code + `"]`
		if metric.Value != "1" || r.at(t, alarm, "namespace") != metric.Namespace || r.at(t, alarm, "metric_name") != metric.Name || r.at(t, alarm, "threshold") != 0.0 {
			t.Errorf("%s does not look at the metric %s/%s that %s counts", alarm, metric.Namespace, metric.Name, address)
		}
	}
	same(t, "alarms", got, want)
}

// Every registration that the variable accounts makes is one that the code reads,
// and says what was put in.
func TestRegistrationsAreReadByTheCode(t *testing.T) {
	r := controlPlane(t)
	parsed := map[string]store.Account{}
	for _, id := range []string{"222222222222", "333333333333"} {
		b, err := json.Marshal(r.at(t, `aws_ssm_parameter.account["`+id+`"]`, "value"))
		if err != nil {
			t.Fatal(err)
		}
		if parsed[id], err = store.ParseAccount(id, b); err != nil {
			t.Error(err)
		}
	}
	a := parsed["222222222222"]
	if got := a.RoleARN; got != borrowed {
		t.Errorf("role = %s, want %s", got, borrowed)
	}
	if got := a.DefaultInstanceTypes; !slices.Equal(got, []string{"m7i.large"}) {
		t.Errorf("default instance types = %q, want those that are allowed", got)
	}
	if got := fmt.Sprint(a.Markets, a.Modes, a.SpotFallback, a.MaxRunners); got != "[spot ondemand] [shared ephemeral] true 10" {
		t.Errorf("defaults = %s", got)
	}
	if got := a.GitHub; !slices.Equal(got, store.GitHubCredentials{{}}) {
		t.Errorf("github = %+v, want the default one", got)
	}
	if got := a.Allow; !reflect.DeepEqual(got, store.Allow{}) {
		t.Errorf("allow = %+v, want nothing unasked", got)
	}
	if o := a.RunsOn; len(o) != 2 || !slices.Equal(o[0].Labels, []string{"garo"}) || o[1].Pin != "g-linux-" || !slices.Equal(o[1].Only.Events, []string{"push"}) || o[1].Type != store.OnDemand || len(a.WebhookSecrets) != 1 {
		t.Errorf("runs_on = %+v with %d webhook secrets, want what was put in", o, len(a.WebhookSecrets))
	}
	b := parsed["333333333333"]
	got := fmt.Sprintln(b.Repositories, b.Server, b.Scope, b.DefaultRegion, b.InstanceTypes, b.DefaultInstanceTypes, b.Markets, b.SpotFallback, b.Modes,
		b.MaxTimeoutS, b.HardS, b.MaxRunners, []int{b.Pacing.Burst, b.Pacing.IntervalMS}, b.GitHub, b.Allow.PublicRepositories, b.Allow.Events, b.MaxOpenRequests, b.Only.Refs, b.Only.Properties, b.Regions["eu-west-1"].Subnets, b.Regions["eu-west-1"].SecurityGroups, b.Regions["eu-west-1"].Images, b.Regions["eu-west-1"].InstanceProfile)
	want := "[{2 acme/shop}] github.example.org { organization 1 acme garo} eu-west-1 [m7i.large m7a.large] [m7a.large] [ondemand] false [ephemeral] " +
		"1800 7200 3 [2 1000] [{/garo/app 1 2} {/garo/other 3 4} {/garo/pat 0 0}] true [issues] 500 [refs/heads/main] map[tier:gold] [subnet-0c] [sg-0c] [/images/runner] jobs\n"
	if got != want {
		t.Errorf("registration = %s\nwant %s", got, want)
	}
	options := store.MachineOptions{
		MaxRootVolumeGB: 200, Tags: map[string]string{"team": "build"}, RequestTags: []string{"job"}, SpotMaxPrice: "0.25", CPUCredits: "standard", Tenancy: "dedicated",
		InstanceRequirements: &store.Requirements{
			VCPUs: store.Range{Min: 2, Max: 16}, MemoryGB: store.Range{Max: 64}, Arch: []string{store.X86, store.ARM64}, GPU: store.Range{Max: 1}, Exclude: []string{"t*"},
		},
		HopLimit: 2, FallbackRegions: []string{"eu-west-2"}, BootLimitS: 400, BootLimitsS: map[string]int{"m7a.large": 600},
	}
	west := b.Regions["eu-west-1"]
	if !reflect.DeepEqual(b.MachineOptions, options) || west.RootVolume != (store.Volume{SizeGB: 50, Type: "gp3"}) || west.AssociatePublicIP == nil || *west.AssociatePublicIP || west.CapacityReservation != "open" {
		t.Errorf("options of machines = %+v, %+v; want what was put in", b.MachineOptions, west)
	}
	if !reflect.DeepEqual(a.MachineOptions, store.MachineOptions{}) || a.Regions["eu-west-2"].RootVolume != (store.Volume{}) || a.Regions["eu-west-2"].AssociatePublicIP != nil {
		t.Errorf("options of machines = %+v, want nothing unasked", a.MachineOptions)
	}
}

// Operators' hashes are read as the API reads them, and runner programs as machines get them.
func TestValuesAreReadByTheCode(t *testing.T) {
	r := controlPlane(t)
	operators := into[api.Operators](t, r.at(t, "aws_ssm_parameter.operators", "value"))
	if len(operators["ann"]) != len(keys.HashToken("")) {
		t.Errorf("operators = %v, want ann's hash", operators)
	}
	env := into[[]struct{ Variables map[string]string }](t, r.at(t, `aws_lambda_function.this["api"]`, "environment"))[0].Variables
	var programs map[string]apitype.RunnerProgram
	if err := strict([]byte(env["GARO_RUNNER_PROGRAMS"]), &programs); err != nil || programs["arm64"].Version != "2.330.0" {
		t.Errorf("runner programs = %+v, %v", programs, err)
	}
	// What random_password makes of length 48 is long enough for a key.
	if _, err := keys.NewRing(secret.New(strings.Repeat("a", 48)), "k1", map[string]secret.Text{"k1": secret.New(strings.Repeat("a", 48))}); err != nil {
		t.Error(err)
	}
}

// The worker's waits go through the queue that invokes it: Lambda would take that for
// a loop. No other function sends to what invokes it.
func TestOnlyTheWorkerMayBeInvokedByItsOwnMessages(t *testing.T) {
	r := controlPlane(t)
	var got []string
	for _, address := range r.ofType("aws_lambda_function_recursion_config") {
		got = append(got, fmt.Sprint(r.at(t, address, "function_name"), " ", r.at(t, address, "recursive_loop")))
	}
	if want := []string{"garo-worker Allow"}; !slices.Equal(got, want) {
		t.Errorf("recursion is configured as %q, want %q", got, want)
	}
}

// The queue's visibility leaves a batch its window, the worker's time and 15 s; the
// timeouts leave each function its place.
func TestTimesFit(t *testing.T) {
	r := controlPlane(t)
	timeout := func(f settings.Function) float64 {
		return r.at(t, `aws_lambda_function.this["`+string(f)+`"]`, "timeout").(float64)
	}
	window := r.at(t, "aws_lambda_event_source_mapping.worker", "maximum_batching_window_in_seconds").(float64)
	if got, least := r.at(t, "aws_sqs_queue.this", "visibility_timeout_seconds").(float64), window+timeout(settings.FunctionWorker)+15; got <= least {
		t.Errorf("visibility = %v s, want more than %v", got, least)
	}
	if got, below := timeout(settings.FunctionReaper), store.DefaultLimits().ReaperPeriod.Seconds(); got >= below {
		t.Errorf("reaper's timeout = %v s, want below its period of %v", got, below)
	}
	if got := timeout(settings.FunctionAPI); got >= 30 {
		t.Errorf("API's timeout = %v s, want below API Gateway's 30", got)
	}
}

// Wherever Terraform says what the name of a region is, or what an ARN looks like, it
// takes those of every partition, and no name of a zone.
func TestPatternsTakeEveryPartition(t *testing.T) {
	patterns := map[string][]string{} // by what they are about
	for _, dir := range dirs(t) {
		files, err := filepath.Glob(filepath.Join(dir, "*.tf"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			for _, m := range regexp.MustCompile(`regex\("(\^[^"]*)", (\w+)?`).FindAllStringSubmatch(text(t, f), -1) {
				switch pattern := strings.ReplaceAll(m[1], `\\`, `\`); {
				case strings.HasPrefix(pattern, "^arn:") && strings.Contains(pattern, ":kms:"):
					patterns["key"] = append(patterns["key"], pattern)
				case strings.HasPrefix(pattern, "^arn:") && strings.Contains(pattern, "policy"):
					patterns["policy"] = append(patterns["policy"], pattern)
				case strings.HasPrefix(pattern, "^arn:") && strings.Contains(pattern, ":acm:"):
					patterns["certificate"] = append(patterns["certificate"], pattern)
				case strings.HasPrefix(pattern, "^arn:"):
					patterns["role"] = append(patterns["role"], pattern)
				case m[2] == "name":
					patterns["region"] = append(patterns["region"], pattern)
				}
			}
		}
	}
	if len(patterns["region"]) == 0 || len(patterns["key"]) < 2 || len(patterns["policy"]) < 2 || len(patterns["role"]) == 0 {
		t.Fatalf("patterns = %q: is the search still right?", patterns)
	}
	for _, p := range awstest.Partitions {
		for _, region := range p.Regions {
			for what, name := range map[string]string{
				"region": region,
				"key":    "arn:" + p.Name + ":kms:" + region + ":111111111111:key/1",
				"policy": "arn:" + p.Name + ":iam::111111111111:policy/boundary",
				"role":   "arn:" + p.Name + ":iam::111111111111:role/garo-worker",

				"certificate": "arn:" + p.Name + ":acm:" + region + ":111111111111:certificate/1",
			} {
				for _, pattern := range patterns[what] {
					if !regexp.MustCompile(pattern).MatchString(name) {
						t.Errorf("%s does not take %s", pattern, name)
					}
				}
			}
			for _, pattern := range patterns["region"] {
				for _, bad := range []string{region + "a", strings.ToUpper(region), strings.TrimRight(region, "0123456789"), region + "\n"} {
					if regexp.MustCompile(pattern).MatchString(bad) {
						t.Errorf("%s takes %q", pattern, bad)
					}
				}
			}
		}
	}
}

// The default VPC may have subnets that somebody added, which lead nowhere or where
// no job belongs.
func TestFirstExampleTakesDefaultSubnetsAlone(t *testing.T) {
	_, subnets, ok := strings.Cut(text(t, filepath.Join(firstExample, "main.tf")), `data "aws_subnets"`)
	subnets, _, _ = strings.Cut(subnets, "\n}\n")
	if filter := regexp.MustCompile(`name\s+= "default-for-az"\s+values = \["true"\]`); !ok || !filter.MatchString(subnets) {
		t.Errorf("the subnets of %s are not filtered by default-for-az: %s", firstExample, subnets)
	}
}

// The description of image_owners says what EC2 compares: no plan can show it.
func TestOwnersOfImagesAreExplained(t *testing.T) {
	_, owners, _ := strings.Cut(text(t, root+"/modules/account/variables.tf"), `variable "image_owners"`)
	owners, _, _ = strings.Cut(owners, "type ")
	for where, said := range map[string]string{"the variable": owners, deployment: text(t, deployment)} {
		for _, word := range []string{"alias", "verified providers", "Canonical"} {
			if !strings.Contains(said, word) {
				t.Errorf("%s does not say %q of image_owners", where, word)
			}
		}
	}
}
