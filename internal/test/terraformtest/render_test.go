package terraformtest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files again")

// root is the control plane's module.
const root = "../../../terraform"

// shown are the attributes that the tests read, by type of resource. All others
// are left out, since a mocked provider makes many of them up.
var shown = map[string][]string{
	"aws_apigatewayv2_route":               {"route_key", "authorization_type"},
	"aws_cloudwatch_log_metric_filter":     {"pattern", "metric_transformation"},
	"aws_cloudwatch_metric_alarm":          {"namespace", "metric_name", "threshold", "comparison_operator", "period", "evaluation_periods", "datapoints_to_alarm", "statistic", "treat_missing_data", "dimensions", "alarm_actions", "insufficient_data_actions"},
	"aws_cloudwatch_query_definition":      {"name", "query_string"},
	"aws_dynamodb_table":                   {"name", "hash_key", "range_key", "attribute", "global_secondary_index", "ttl"},
	"aws_iam_role":                         {"name", "assume_role_policy"},
	"aws_iam_role_policy":                  {"policy"},
	"aws_lambda_event_source_mapping":      {"batch_size", "maximum_batching_window_in_seconds"},
	"aws_kms_grant":                        {"region", "key_id", "grantee_principal", "operations"},
	"aws_lambda_function":                  {"function_name", "timeout", "environment"},
	"aws_lambda_function_recursion_config": {"function_name", "recursive_loop"},
	"aws_sns_topic_policy":                 {"policy"},
	"aws_sqs_queue":                        {"name", "visibility_timeout_seconds", "message_retention_seconds", "redrive_policy"},
	"aws_sqs_queue_policy":                 {"policy"},
	"aws_sqs_queue_redrive_allow_policy":   {"redrive_allow_policy"},
	"aws_scheduler_schedule":               {"name", "schedule_expression", "target"},
	"aws_ssm_parameter":                    {"name", "type", "value"},
}

// rendered is what one run of a module's tests/rendered.tftest.hcl made: values by
// the resource's address.
type rendered map[string]map[string]any

// golden is a file in testdata: where it came from, and what came out, by run.
type golden struct {
	// Sources is the SHA-256 of the module's files that it was made of.
	Sources string              `json:"sources"`
	Runs    map[string]rendered `json:"runs"`
}

// modules are those with a tests/rendered.tftest.hcl, by their golden file.
var modules = map[string]string{
	"control-plane.golden.json": root,
	"account.golden.json":       root + "/modules/account",
}

// sources returns the digest of all that a rendering depends on.
func sources(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"*.tf", "tests/rendered.tftest.hcl"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	names = append(names, filepath.Join(root, "tests/mocks/aws.tfmock.hcl"))
	sum := sha256.New()
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(sum, "%s %d\n%s", filepath.Base(name), len(b), b)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// terraform returns how Terraform is run on a module, and whether it can be: the
// command in TERRAFORM gets the module's folder and `test`, as a wrapper does that
// needs no provider registry. Without one, terraform itself is run in the folder,
// which has to be initialised.
func terraform(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	args := []string{"test", "-json", "-verbose", "-filter=tests/rendered.tftest.hcl"}
	if wrapper := os.Getenv("TERRAFORM"); wrapper != "" {
		return exec.CommandContext(t.Context(), wrapper, append([]string{dir}, args...)...)
	}
	return exec.CommandContext(t.Context(), "terraform", append([]string{"-chdir=" + dir}, args...)...)
}

// render runs Terraform.
func render(t *testing.T, dir string) map[string]rendered {
	t.Helper()
	cmd := terraform(t, dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v (set TERRAFORM to a command that takes DIR test ARGS, or run terraform init there)\n%s", cmd, err, stderr.Bytes())
	}
	runs, err := parse(out)
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return runs
}

// parse reads the lines of terraform test -json -verbose
// (https://developer.hashicorp.com/terraform/internals/machine-readable-ui).
func parse(out []byte) (map[string]rendered, error) {
	runs := map[string]rendered{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 64<<20) // a state has the schemas of all providers in it
	for lines.Scan() {
		var event struct {
			Run   string `json:"@testrun"`
			State *struct {
				Module struct {
					Resources []struct {
						Address, Mode, Type string
						Values              map[string]any
					} `json:"resources"`
				} `json:"root_module"`
			} `json:"test_state"`
		}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return nil, fmt.Errorf("line of terraform test: %w", err)
		}
		if event.State == nil {
			continue
		}
		run := rendered{}
		for _, r := range event.State.Module.Resources {
			values := map[string]any{}
			for _, name := range shown[r.Type] {
				if v := r.Values[name]; v != nil && r.Mode == "managed" {
					values[name] = readable(v)
				}
			}
			if len(values) > 0 {
				run[r.Address] = values
			}
		}
		runs[event.Run] = run
	}
	if len(runs) == 0 {
		return nil, fmt.Errorf("no run left a state")
	}
	return runs, lines.Err()
}

// readable returns JSON in a string as what it is.
func readable(v any) any {
	if s, ok := v.(string); ok && strings.HasPrefix(s, "{") {
		var inner any
		if json.Unmarshal([]byte(s), &inner) == nil {
			return inner
		}
	}
	return v
}

// What the modules make is what testdata says.
func TestGoldenRendering(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		dir := modules[name]
		t.Run(name, func(t *testing.T) {
			path, digest := filepath.Join("testdata", name), sources(t, dir)
			if have := os.Getenv("TERRAFORM") != ""; !have && !*update {
				if got := read(t, name).Sources; got != digest {
					t.Errorf("%s was made of other Terraform files: go test ./internal/test/terraformtest -run Golden -args -update, and read its diff", path)
				}
				return
			}
			if *update {
				if old, err := os.ReadFile(path); err == nil && bytes.Contains(old, []byte(digest)) {
					return
				}
			}
			b, err := json.MarshalIndent(golden{Sources: digest, Runs: render(t, dir)}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, '\n')
			if *update {
				if err := os.WriteFile(path, b, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if old, err := os.ReadFile(path); err != nil || !bytes.Equal(old, b) {
				t.Errorf("%s is not what Terraform makes (%v): go test ./internal/test/terraformtest -run Golden -args -update, and read its diff", path, err)
			}
		})
	}
}

func read(t *testing.T, name string) golden {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatalf("%v (go test ./internal/test/terraformtest -run Golden -args -update writes it)", err)
	}
	var g golden
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// controlPlane returns the rendered control plane, and account the rendered
// account of a run.
func controlPlane(t *testing.T) rendered {
	t.Helper()
	return read(t, "control-plane.golden.json").Runs["rendered"]
}

func account(t *testing.T, run string) rendered {
	t.Helper()
	return read(t, "account.golden.json").Runs[run]
}

// at returns one value of a resource, which has to be there.
func (r rendered) at(t *testing.T, address, attribute string) any {
	t.Helper()
	v, ok := r[address][attribute]
	if !ok {
		t.Fatalf("%s has no %s: is the name still right?", address, attribute)
	}
	return v
}

// ofType yields the addresses of all resources of a type, sorted.
func (r rendered) ofType(kind string) []string {
	var out []string
	for address := range r {
		if strings.HasPrefix(address, kind+".") {
			out = append(out, address)
		}
	}
	slices.Sort(out)
	return out
}

// into decodes a rendered value into a type.
func into[T any](t *testing.T, v any) T {
	t.Helper()
	var out T
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatalf("%v: %v", v, err)
	}
	return out
}

// Terraform's lines are read as they are written, and not taken for what they are not.
func TestParse(t *testing.T) {
	const state = `{"type":"test_state","@testrun":"a","test_state":{"root_module":{"resources":[
		{"address":"aws_iam_role_policy.x","mode":"managed","type":"aws_iam_role_policy","values":{"policy":"{\"Version\":\"1\"}","id":"made-up"}},
		{"address":"data.aws_iam_role_policy.y","mode":"data","type":"aws_iam_role_policy","values":{"policy":"p"}}]}}}`
	runs, err := parse([]byte(`{"type":"version"}` + "\n" + strings.ReplaceAll(state, "\n", "")))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(runs)
	if want := `{"a":{"aws_iam_role_policy.x":{"policy":{"Version":"1"}}}}`; err != nil || string(b) != want {
		t.Errorf("parse = %s, %v, want %s", b, err, want)
	}
	for name, out := range map[string]string{"NoState": `{"type":"version"}`, "NoJSON": "Error: no module"} {
		if _, err := parse([]byte(out)); err == nil {
			t.Errorf("%s: parse = nil, want an error", name)
		}
	}
}

// dirs returns every folder below terraform that is a module.
func dirs(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "versions.tf" {
			out = append(out, filepath.Dir(path))
		}
		return err
	})
	if err != nil || len(out) < 5 {
		t.Fatalf("modules in %s: %v, %v", root, out, err)
	}
	return out
}
