//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

var update = flag.Bool("update", false, "write the golden files")

// profile makes an instance profile in the runner account. There is no client of IAM here.
func (w *world) profile(name string) {
	w.Helper()
	creds, err := w.aws.Config(w.T, home, w.runners).Credentials.Retrieve(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	form := url.Values{"Action": {"CreateInstanceProfile"}, "Version": {"2010-05-08"}, "InstanceProfileName": {name}}
	req, err := http.NewRequestWithContext(w.Context(), "POST", w.aws.URL, strings.NewReader(form.Encode()))
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+creds.AccessKeyID+"/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=none")
	res, err := w.http.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		w.Fatalf("CreateInstanceProfile: %s", body)
	}
}

// variety gives the registration what the workflows of this test need: images of both
// architectures and for GPUs, their instance types, a root volume, tags and a role.
func variety(w *world, registration map[string]any) {
	const arm, gpu = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64", "/images/gpu"
	amd, err := ssm.NewFromConfig(w.aws.Config(w.T, home, w.runners)).GetParameter(w.Context(), &ssm.GetParameterInput{Name: new(publicImage)})
	if err != nil {
		w.Fatal(err)
	}
	w.put(w.runners, gpu, *amd.Parameter.Value)
	w.profile("jobs")
	for _, name := range []string{home, away} {
		region := registration["regions"].(map[string]any)[name].(map[string]any)
		region["images"] = []string{publicImage, arm, gpu}
		region["root_volume"] = map[string]any{"size_gb": 30, "type": "gp3"}
	}
	registration["regions"].(map[string]any)[away].(map[string]any)["instance_profile"] = "jobs"
	maps.Copy(registration, map[string]any{
		"instance_types":         []string{"m7i.large", "c7g.xlarge", "g6.xlarge", "c7i.metal-24xl"},
		"default_instance_types": []string{"m7i.large"}, "spot_fallback": false,
		"instance_requirements": map[string]any{"vcpus": map[string]int{"min": 2, "max": 8}, "arch": []string{"x86_64", "arm64"}, "exclude": []string{"t*"}},
		"max_root_volume_gb":    200, "tags": map[string]string{"team": "build"}, "request_tags": []string{"job"},
	})
}

// made is what differs from one run to the next in a call.
var made = []string{"ClientToken", "UserData", "ImageId", "SubnetId", "SecurityGroupId.1", "Version", "Action"}

var id = regexp.MustCompile(`^[a-z2-7]{26}$`)

// golden compares what a workflow asks for, and the call that launches its machine, with
// a file.
func golden(t *testing.T, name string, body apitype.Start, params url.Values) {
	t.Helper()
	call := map[string]string{}
	for k, v := range params {
		if !slices.Contains(made, k) && !id.MatchString(v[0]) {
			call[k] = v[0]
		}
	}
	got, err := json.MarshalIndent(map[string]any{"start": body, "launch": call}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("testdata", "workflows", name+".golden.json")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the workflow and its launch are\n%s\nand %s is\n%s", name, got, path, want)
	}
}

// Nine workflows as people have them, each by what it asks for: the registration allows
// it, and its machine is launched as that says.
func TestWorkflowsGetTheirMachinesGolden(t *testing.T) {
	w := newWorld(t, options{edit: variety})
	w.poll()
	for n, c := range []struct {
		name string
		body apitype.Start
	}{
		{"containers", apitype.Start{Labels: []string{"docker"}}},
		{"sudo-and-apt", apitype.Start{Mode: "ephemeral", Timeout: 1800}},
		{"gpu", apitype.Start{Mode: "ephemeral", Type: "ondemand", InstanceTypes: []string{"g6.xlarge"}, ImageID: "/images/gpu", RootVolumeGB: 120}},
		{"arm64", apitype.Start{InstanceTypes: []string{"c7g.xlarge"}, ImageID: "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"}},
		{"metal-with-tags", apitype.Start{Mode: "ephemeral", Type: "ondemand", InstanceTypes: []string{"c7i.metal-24xl"}, Tags: map[string]string{"job": "kvm"}, GiveUp: 2700}},
		{"100-gigabytes", apitype.Start{Mode: "ephemeral", RootVolumeGB: 100}},
		{"another-region", apitype.Start{Mode: "ephemeral", Regions: []string{away, home}}},
		{"four-cores-of-arm64", apitype.Start{Mode: "ephemeral", CPU: 4, Memory: 16, Arch: "arm64", RootVolumeGB: 60, Tags: map[string]string{"job": "build"}}},
		{"role", apitype.Start{Region: away, Labels: []string{"deploy"}}},
	} {
		s := w.ask(fmt.Sprint(n+1), c.body) // as GitHub has it, a number
		w.configured(s)
		calls, _ := w.launches()
		golden(t, c.name, c.body, calls[len(calls)-1].Params)
		if got := w.status(s); got.Runner == nil || !strings.Contains(got.Runner.Options["root_volume"], "GiB, gp3") || !strings.Contains(got.Runner.Options["tags"], "team=build") {
			t.Errorf("%s: the status shows %+v, want the options of its machine", c.name, got.Runner)
		}
	}
}
