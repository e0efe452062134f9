package ec2fleet_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// printed is EC2's answer with what a machine printed, in the lines of 76 characters that
// the documentation shows.
func printed(raw string) reply {
	var text strings.Builder
	for i, r := range base64.StdEncoding.EncodeToString([]byte(raw)) {
		if i > 0 && i%76 == 0 {
			text.WriteByte('\n')
		}
		text.WriteRune(r)
	}
	return reply{200, fmt.Sprintf(`<GetConsoleOutputResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>1</requestId>
<instanceId>i-1</instanceId><timestamp>2026-01-02T03:04:05.000Z</timestamp><output>%s</output></GetConsoleOutputResponse>`, text.String()), nil}
}

func TestConsoleIsReadAsItIsNow(t *testing.T) {
	unsupported := ec2Error(400, "UnsupportedOperation", "This instance type does not support retrieving the latest console logs")
	long := strings.Repeat("[    0.000000] Linux version 6.1.0\r\n", 10)
	for name, c := range map[string]struct {
		answers []reply
		want    string
		latest  []string // of the calls
	}{
		"Now":          {[]reply{printed(long)}, strings.ReplaceAll(long, "\r", ""), []string{"true"}},
		"NothingYet":   {[]reply{printed("")}, "", []string{"true"}},
		"KeptEarlier":  {[]reply{unsupported, printed("login:")}, "login:\n", []string{"true", ""}},
		"EscapesLeave": {[]reply{printed("\x1b[1mKernel panic\x1b[0m")}, "Kernel panic\n", []string{"true"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &wire{answers: c.answers}
			got, err := w.fleet().Console(t.Context(), here, "i-1")
			if err != nil || got != c.want {
				t.Errorf("Console = %q, %v; want %q", got, err, c.want)
			}
			if len(w.calls) != len(c.latest) {
				t.Fatalf("%d calls, want %d", len(w.calls), len(c.latest))
			}
			for i, call := range w.calls {
				if call.Get("Action") != "GetConsoleOutput" || call.Get("InstanceId") != "i-1" || call.Get("Latest") != c.latest[i] {
					t.Errorf("call %d is %v, want GetConsoleOutput of i-1 with Latest %q", i+1, call, c.latest[i])
				}
			}
		})
	}
}

func TestConsoleThatCannotBeReadSaysWhy(t *testing.T) {
	w := &wire{answers: []reply{ec2Error(403, "UnauthorizedOperation", "You are not authorized to perform this operation.")}}
	_, err := w.fleet().Console(t.Context(), here, "i-1")
	e := wantError(t, "Console", err, fleet.ErrRefused, "UnauthorizedOperation")
	if !strings.Contains(e.Text, "role") || !strings.Contains(err.Error(), "console of instance i-1 in "+here.String()) {
		t.Errorf("Console = %v, want what was read and what to look at", err)
	}
	w = &wire{answers: []reply{{200, `<GetConsoleOutputResponse><output>*</output></GetConsoleOutputResponse>`, nil}}}
	if got, err := w.fleet().Console(t.Context(), here, "i-1"); err == nil || got != "" {
		t.Errorf("Console of no base64 = %q, %v; want an error", got, err)
	}
}
