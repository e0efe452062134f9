package action

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

// The commands.
const (
	start  = "start"
	stop   = "stop"
	status = "status"
)

const (
	// maxCount is how many jobs a matrix may have
	// (https://docs.github.com/en/actions/reference/limits).
	maxCount = 256
	// defaultWait is how long the API tries when nobody says.
	defaultWait = 15 * time.Minute
	// longest is how long GitHub keeps a job for which no runner comes, and the
	// most that the API takes for either duration.
	longest = 24 * time.Hour
	// ephemeral is the mode of a runner for one job.
	ephemeral = "ephemeral"
)

// inputs are the action's, checked.
type inputs struct {
	command string
	url     string
	body    apitype.Start // without a key
	wait    bool
	give    time.Duration // how long to wait
	count   int
	key     string
	ids     []string // for stop and status
	force   bool
}

// readInputs reads the inputs as GitHub hands them to an action: in variables. All
// mistakes are reported at once, each with the name of its input.
func readInputs(getenv func(string) string) (inputs, error) {
	r := reader{getenv: getenv}
	in := inputs{
		command: cmp.Or(r.text("command"), start), url: strings.TrimRight(cmp.Or(r.text("url"), getenv("GARO_URL")), "/"),
		body: apitype.Start{
			AccountID: r.text("account-id"), Region: r.text("region"), Regions: r.list("regions"), Type: r.text("type"), Labels: r.list("labels"), Mode: r.text("mode"),
			InstanceTypes: r.list("instance-types"), ImageID: r.text("image-id"), Subnets: r.list("subnets"), SecurityGroups: r.list("security-groups"),
			RootVolumeGB: r.number("root-volume-gb"), Tags: r.pairs("tags"),
			CPU: r.number("cpu"), Memory: r.number("memory"), GPU: r.number("gpu"), Arch: r.text("arch"),
			Timeout: int(r.duration("timeout").Seconds()),
		},
		wait: r.boolean("wait", true), give: cmp.Or(r.duration("wait-timeout"), defaultWait), count: r.count("count"),
		key: cmp.Or(r.text("idempotency-key"), getenv("GITHUB_ACTION")), ids: r.list("id"), force: r.boolean("force", false),
	}
	in.body.GiveUp = int(in.give.Seconds())
	if err := checkURL(in.url); err != nil {
		r.wrong("url", "%v", err)
	}
	switch in.command {
	case start:
		if len(in.ids) > 0 {
			r.wrong("id", "it goes with the commands stop and status")
		}
	case stop, status:
		if len(in.ids) == 0 {
			r.wrong("id", "name the request, as the output id of the step that started it")
		}
	default:
		r.wrong("command", "want start, stop or status")
	}
	if in.count > 1 {
		// Several requests that share one runner would be one runner for all.
		if in.body.Mode != "" && in.body.Mode != ephemeral {
			r.wrong("count", "more than one runner needs mode: ephemeral")
		}
		in.body.Mode = ephemeral
	}
	return in, errors.Join(r.errs...)
}

// checkURL refuses what is no address of an API, and one at which anybody on the
// way could read the job's token.
func checkURL(address string) error {
	if address == "" {
		return errors.New("want the address of the API, here or in the variable GARO_URL")
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("want the address of the API, such as https://garo.example.org")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return errors.New("want https: the job's token goes there")
	}
	return nil
}

// reader reads inputs, and keeps what is wrong with them.
type reader struct {
	getenv func(string) string
	errs   []error
}

func (r *reader) wrong(input, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("input %s: "+format, append([]any{input}, args...)...))
}

func (r *reader) text(input string) string {
	return strings.TrimSpace(r.getenv("INPUT_" + strings.ToUpper(input)))
}

// list takes a JSON list, or values between commas or line ends.
func (r *reader) list(input string) (out []string) {
	v := r.text(input)
	if strings.HasPrefix(v, "[") {
		if json.Unmarshal([]byte(v), &out) != nil {
			r.wrong(input, "want a JSON list of strings, or values with commas or line ends between them")
		}
		return out
	}
	for part := range strings.FieldsFuncSeq(v, func(c rune) bool { return c == ',' || c == '\n' }) {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// duration takes seconds, or 90s, 30m and 1h30m. Zero: it is not said.
func (r *reader) duration(input string) time.Duration {
	v := r.text(input)
	if v == "" {
		return 0
	}
	d, err := time.ParseDuration(v)
	if n, isNumber := strconv.Atoi(v); isNumber == nil && n <= int(longest/time.Second) {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < time.Second || d > longest || d%time.Second != 0 {
		r.wrong(input, "want seconds, or a time such as 90s, 30m or 1h30m, of at most a day")
		return 0
	}
	return d
}

// boolean takes what YAML's core schema calls a boolean, as GitHub's own actions do.
func (r *reader) boolean(input string, otherwise bool) bool {
	switch r.text(input) {
	case "":
		return otherwise
	case "true", "True", "TRUE":
		return true
	case "false", "False", "FALSE":
		return false
	}
	r.wrong(input, "want true or false")
	return otherwise
}

// number takes a whole number above zero. Zero: it is not said.
func (r *reader) number(input string) int {
	v := r.text(input)
	if v == "" {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		r.wrong(input, "want a whole number above zero")
		return 0
	}
	return n
}

// pairs takes a list of KEY=VALUE.
func (r *reader) pairs(input string) map[string]string {
	var out map[string]string
	for _, pair := range r.list(input) {
		key, value, ok := strings.Cut(pair, "=")
		if key = strings.TrimSpace(key); !ok || key == "" {
			r.wrong(input, "want KEY=VALUE, with commas or line ends between them, or a JSON list of such")
			return nil
		}
		if out == nil {
			out = map[string]string{}
		}
		out[key] = strings.TrimSpace(value)
	}
	return out
}

func (r *reader) count(input string) int {
	n, err := strconv.Atoi(cmp.Or(r.text(input), "1"))
	if err != nil || n < 1 || n > maxCount {
		r.wrong(input, "want 1 to %d", maxCount)
		return 1
	}
	return n
}
