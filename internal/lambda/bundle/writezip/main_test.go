package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, dir, name string, size int) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, make([]byte, size), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestZipIsWrittenBesideTheProgram(t *testing.T) {
	for function := range budgets {
		var zips [2][]byte
		for i := range zips { // in two places
			dir := t.TempDir()
			program := write(t, dir, "garo-"+function+"-linux-arm64", 1000)
			if err := run([]string{program, write(t, dir, "garo-agent-linux-amd64", 10), write(t, dir, "garo-agent-linux-arm64", 20)}); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(program + ".zip")
			if err != nil {
				t.Fatal(err)
			}
			zips[i] = b
		}
		if len(zips[0]) == 0 || !bytes.Equal(zips[0], zips[1]) {
			t.Errorf("%s: zips of %d and %d bytes differ, want the same", function, len(zips[0]), len(zips[1]))
		}
	}
}

func TestMistakesAreRefused(t *testing.T) {
	dir := t.TempDir()
	program := write(t, dir, "garo-reaper-linux-arm64", 1)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"Nothing":         {nil, "no program"},
		"NoSuchFunction":  {[]string{write(t, dir, "garo-sweeper-linux-arm64", 1)}, "is no function of ours"},
		"NoProgram":       {[]string{filepath.Join(dir, "garo-api-linux-arm64")}, "no such file"},
		"ProgramTooLarge": {[]string{write(t, dir, "garo-api-linux-amd64", 13_000_001)}, "has 13000001 bytes, and may have 13000000"},
		"NoAgent":         {[]string{program, program}, "is no agent of ours"},
		"AbsentAgent":     {[]string{program, filepath.Join(dir, "garo-agent-linux-arm64")}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(c.args); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("run(%q) = %v, want an error that says %s", c.args, err, c.want)
			}
		})
	}
}
