package apitype_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

func TestProblemsAreTold(t *testing.T) {
	seen := map[string]bool{}
	last := 0
	for _, k := range apitype.Problems {
		if seen[k.Code] || k.Title == "" || http.StatusText(k.Status) == "" || k.Status < last {
			t.Errorf("problem %+v: want a code of its own, a title, and a status, in their order", k)
		}
		seen[k.Code], last = true, k.Status
		if got, ok := apitype.ProblemOf(k.Code); !ok || got != k {
			t.Errorf("ProblemOf(%s) = %+v, %t; want %+v", k.Code, got, ok, k)
		}
	}
	if got, ok := apitype.ProblemOf("other"); ok {
		t.Errorf("ProblemOf(other) = %+v, want none", got)
	}
}

func TestSecondsKeepMilliseconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		20 * time.Second: "20", 333*time.Millisecond + 400*time.Microsecond: "0.333", -time.Second: "0", 24 * time.Hour: "86400",
	} {
		b, err := json.Marshal(apitype.InSeconds(d))
		if err != nil || string(b) != want {
			t.Errorf("InSeconds(%v) = %s, %v; want %s", d, b, err, want)
		}
	}
	if got := apitype.Seconds(1.5).Duration(); got != 1500*time.Millisecond {
		t.Errorf("Duration of 1.5 = %v, want 1.5s", got)
	}
}
