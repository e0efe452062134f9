package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary be garo as well: scripts and tests run it as a
// program.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"garo": main})
}

// patience bounds every wait for something that must come: far more than it
// takes, since other tests may have the processors.
const patience = 2 * time.Minute

// TestScript runs what people type, in testdata/script. Beside testscript's own
// commands, scripts have:
//
//	await FILE                wait until the file is there
//	eventually PATTERN CMD    run a command until it succeeds and prints PATTERN
//	json FILE [VAR=.a.0.b]... the file, or stdout, is JSON; set VAR to what is at a path
//	status CODE CMD           run a command, which must end with that exit status
//
// $OTHER is the address of a server that is not GARO, $NOBODY one at which
// nothing listens.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			other := httptest.NewServer(http.NotFoundHandler())
			e.Defer(other.Close)
			nobody := httptest.NewServer(nil)
			nobody.Close()
			e.Setenv("OTHER", other.URL)
			e.Setenv("NOBODY", nobody.URL)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await": awaitFile, "eventually": eventually, "json": readJSON, "status": exitStatus,
		},
	})
}

func awaitFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await FILE")
	}
	path := ts.MkAbs(args[0])
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s did not come", args[0])
		}
	}
}

func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN CMD ARGS...")
	}
	pattern := regexp.MustCompile("(?m)" + args[0])
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%q did not come to print %q; at last: %v", args[1:], args[0], err)
		}
	}
}

func readJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: json FILE [VAR=.a.0.b]...")
	}
	var doc any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &doc); err != nil {
		ts.Fatalf("%s is no JSON: %v", args[0], err)
	}
	for _, a := range args[1:] {
		name, path, ok := strings.Cut(a, "=.")
		if !ok {
			ts.Fatalf("%q: want VAR=.a.0.b", a)
		}
		at := doc
		for key := range strings.SplitSeq(path, ".") {
			switch v := at.(type) {
			case map[string]any:
				at, ok = v[key]
			case []any:
				n, err := strconv.Atoi(key)
				if ok = err == nil && n < len(v); ok {
					at = v[n]
				}
			default:
				ok = false
			}
			if !ok {
				ts.Fatalf("%s has no %s", args[0], path)
			}
		}
		text, err := json.Marshal(at)
		ts.Check(err)
		ts.Setenv(name, strings.Trim(string(text), `"`))
	}
}

func exitStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE CMD ARGS...")
	}
	got := 0
	err := ts.Exec(args[1], args[2:]...)
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%q ended with status %d, want %s", args[1:], got, args[0])
	}
}
