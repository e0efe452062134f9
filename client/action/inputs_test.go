package action

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// given returns the variables of a step with these inputs.
func given(inputs map[string]string) func(string) string {
	return func(name string) string {
		if name == "GITHUB_ACTION" {
			return "__self"
		}
		input, ok := strings.CutPrefix(name, "INPUT_")
		if !ok {
			return ""
		}
		return inputs[strings.ToLower(input)]
	}
}

func TestInputsAreReadAsWritten(t *testing.T) {
	got, err := readInputs(given(map[string]string{
		"url": "https://garo.example.org/", "account-id": "111122223333", "region": "eu-west-2", "regions": "eu-west-2, eu-west-1", "type": "spot", "labels": "build, linux\n arm ,",
		"mode": "ephemeral", "instance-types": `["t3a.micro","m7g.large"]`, "image-id": "ami-1", "subnets": "subnet-a", "security-groups": "sg-1\nsg-2",
		"cpu": "8", "memory": "32", "gpu": "1", "arch": "arm64", "root-volume-gb": "100", "tags": "team=build, cost centre = 4=2\n",
		"timeout": "5400", "wait": "false", "wait-timeout": "10m", "count": "3", "idempotency-key": "mine",
	}))
	want := inputs{
		command: start, url: "https://garo.example.org", count: 3, key: "mine", give: 10 * time.Minute,
		body: apitype.Start{
			AccountID: "111122223333", Region: "eu-west-2", Regions: []string{"eu-west-2", "eu-west-1"}, Type: "spot", Labels: []string{"build", "linux", "arm"}, Mode: "ephemeral",
			InstanceTypes: []string{"t3a.micro", "m7g.large"}, ImageID: "ami-1", Subnets: []string{"subnet-a"}, SecurityGroups: []string{"sg-1", "sg-2"},
			RootVolumeGB: 100, Tags: map[string]string{"team": "build", "cost centre": "4=2"}, CPU: 8, Memory: 32, GPU: 1, Arch: "arm64",
			Timeout: 5400, GiveUp: 600,
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(inputs{}), cmpopts.EquateEmpty()); err != nil || diff != "" {
		t.Errorf("readInputs: %v; (-want +got)\n%s", err, diff)
	}
}

func TestNothingButTheAddressIsNeeded(t *testing.T) {
	for name, getenv := range map[string]func(string) string{
		"input": given(map[string]string{"url": "https://garo.example.org"}),
		"variable": func(name string) string {
			return map[string]string{"GARO_URL": "https://garo.example.org", "GITHUB_ACTION": "__self"}[name]
		},
	} {
		got, err := readInputs(getenv)
		want := inputs{command: start, url: "https://garo.example.org", wait: true, count: 1, key: "__self", give: 15 * time.Minute, body: apitype.Start{GiveUp: 900}}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(inputs{}), cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%s: readInputs: %v; (-want +got)\n%s", name, err, diff)
		}
	}
}

func TestSeveralRunnersAreEphemeral(t *testing.T) {
	in, err := readInputs(given(map[string]string{"url": "https://x", "count": "2"}))
	if err != nil || in.body.Mode != ephemeral {
		t.Errorf("mode = %q, %v; want %s", in.body.Mode, err, ephemeral)
	}
}

func TestMistakesAreNamedAllAtOnce(t *testing.T) {
	for _, tc := range []struct{ input, value, want string }{
		{"url", "", "input url: want the address of the API, here or in the variable GARO_URL"},
		{"url", "garo.example.org", "input url: want the address"},
		{"url", "ftp://x", "input url: want the address"},
		{"url", "https://user@x", "input url: want the address"},
		{"url", "https://x/?a=b", "input url: want the address"},
		{"url", "https://x\nhttps://y", "input url: want the address"},
		{"url", "http://garo.example.org", "input url: want https"},
		{"url", "http://localhost.example.org", "input url: want https"},
		{"command", "begin", "input command: want start, stop or status"},
		{"command", "stop", "input id: name the request"},
		{"id", "x", "input id: it goes with"},
		{"wait", "no", "input wait: want true or false"},
		{"force", "1", "input force: want true or false"},
		{"timeout", "1.5s", "input timeout: want seconds"},
		{"timeout", "0", "input timeout: want seconds"},
		{"timeout", "-5", "input timeout: want seconds"},
		{"timeout", "25h", "input timeout: want seconds"},
		{"timeout", "99999999999999999999", "input timeout: want seconds"},
		{"wait-timeout", "soon", "input wait-timeout: want seconds"},
		{"count", "0", "input count: want 1 to 256"},
		{"count", "257", "input count: want 1 to 256"},
		{"count", "many", "input count: want 1 to 256"},
		{"root-volume-gb", "0", "input root-volume-gb: want a whole number"},
		{"root-volume-gb", "big", "input root-volume-gb: want a whole number"},
		{"tags", "team", "input tags: want KEY=VALUE"},
		{"tags", "=x", "input tags: want KEY=VALUE"},
		{"labels", `["a"`, "input labels: want a JSON list"},
		{"labels", `[1]`, "input labels: want a JSON list"},
	} {
		in := map[string]string{"url": "https://x", tc.input: tc.value}
		if _, err := readInputs(given(in)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %q gives %v, want %q", tc.input, tc.value, err, tc.want)
		}
	}
	_, err := readInputs(given(map[string]string{"wait": "perhaps", "count": "2", "mode": "shared"}))
	for _, want := range []string{"input url", "input wait", "input count: more than one runner needs mode: ephemeral"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("readInputs = %v, want %q among the mistakes", err, want)
		}
	}
}

func TestThisMachineNeedsNoTLS(t *testing.T) {
	for _, address := range []string{"http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:8080", "https://garo.example.org/stage"} {
		if err := checkURL(address); err != nil {
			t.Errorf("checkURL(%s) = %v, want none", address, err)
		}
	}
}

func FuzzInputs(f *testing.F) {
	f.Add("https://x", "a,b", "90s", "3")
	f.Add("http://127.0.0.1", `["a"]`, "7", "1")
	f.Fuzz(func(t *testing.T, url, list, duration, count string) {
		in, err := readInputs(given(map[string]string{"url": url, "labels": list, "timeout": duration, "count": count}))
		if err != nil {
			return
		}
		if in.count < 1 || in.count > maxCount || in.body.Timeout < 0 || in.body.Timeout > int(longest.Seconds()) || checkURL(in.url) != nil {
			t.Errorf("inputs %q %q %q are taken as %+v", url, duration, count, in)
		}
	})
}
