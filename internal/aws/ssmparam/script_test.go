package ssmparam_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestScriptIsJoinedFromItsParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		want := "#!/bin/sh\n" + strings.Repeat("# é {{.ID}}\n", 1000)
		coded := base64.StdEncoding.EncodeToString([]byte(want))
		for n := range 12 { // more than a page has, and with the ends of lines that base64 makes
			from, to := n*len(coded)/48*4, (n+1)*len(coded)/48*4
			w.ssm.put(fmt.Sprintf("/garo/setup/build/%02d", n), coded[from:to]+"\n")
		}
		w.ssm.put("/garo/setup/build/deeper/00", "another's")
		w.ssm.put("/garo/setup/builder/00", "another's")
		for range 3 {
			if got, err := w.Script(t.Context(), "/garo/setup/build"); err != nil || string(got) != want {
				t.Fatalf("Script = %d bytes, %v; want the %d of its parts in order", len(got), err, len(want))
			}
		}
		w.wantCalls(t, 0, 2)
		w.ssm.put("/garo/setup/build/00", base64.StdEncoding.EncodeToString([]byte("#!/bin/bash\n")))
		time.Sleep(6 * time.Minute)
		if got, err := w.Script(t.Context(), "/garo/setup/build"); err != nil || !strings.HasPrefix(string(got), "#!/bin/bash\n") {
			t.Errorf("Script after five minutes = %.40q, %v; want the new beginning", got, err)
		}
	})
}

func TestScriptThatCannotBeUsedIsNoneAndIsLogged(t *testing.T) {
	for name, c := range map[string]struct {
		path, says string
		spoil      func(w *world)
	}{
		"NotThere":  {path: "/garo/setup/none", says: "bytes=0"},
		"Elsewhere": {path: "/garo/keys", says: "want a path below /garo/setup"},
		"TooLong": {path: "/garo/setup/long", says: "most=65536", spoil: func(w *world) {
			w.ssm.put("/garo/setup/long/0", base64.StdEncoding.EncodeToString(make([]byte, store.MaxLongScript+1)))
		}},
		"InPlain": {path: "/garo/setup/plain", says: "illegal base64 data", spoil: func(w *world) { w.ssm.put("/garo/setup/plain/0", "#!/bin/sh\n") }},
		"Denied":  {path: "/garo/setup/build", says: "AccessDeniedException", spoil: func(w *world) { w.ssm.code, w.ssm.status = "AccessDeniedException", 400 }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				if c.spoil != nil {
					c.spoil(w)
				}
				if got, err := w.Script(t.Context(), c.path); err != nil || len(got) != 0 {
					t.Errorf("Script = %d bytes, %v; want none", len(got), err)
				}
				if !strings.Contains(w.log.String(), "set-up script cannot be used") || !strings.Contains(w.log.String(), c.says) {
					t.Errorf("the log has not %q:\n%s", c.says, w.log)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ssm.code, w.ssm.status = "InternalServerError", 500
		if got, err := w.Script(t.Context(), "/garo/setup/build"); err == nil {
			t.Errorf("Script while SSM is away = %d bytes, want an error: it is asked for again", len(got))
		}
	})
}
