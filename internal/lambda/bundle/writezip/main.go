// Command writezip makes the zip of a Lambda function, as package bundle has it,
// and prints how large the program and the zip are. It fails for a program that is
// larger than that function's may be.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/bundle"
)

// budgets are how many bytes a program may have, by function. What a cold start
// loads and anyone who looks through it grow with them; and a sudden growth means
// that the linker keeps every call of an SDK client, which it does as soon as
// something calls methods by name.
var budgets = map[string]int{"api": 13_000_000, "worker": 16_000_000, "reaper": 16_000_000}

const usage = `usage: writezip PROGRAM AGENT…

PROGRAM is garo-api-linux-ARCH, or that of another function; each AGENT is
garo-agent-linux-ARCH. The zip is written beside PROGRAM, as PROGRAM.zip.`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "writezip:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no program\n%s", usage)
	}
	path := args[0]
	function, _, ok := strings.Cut(strings.TrimPrefix(filepath.Base(path), "garo-"), "-linux-")
	budget := budgets[function]
	if !ok || budget == 0 {
		return fmt.Errorf("%s is no function of ours\n%s", path, usage)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(program) > budget {
		return fmt.Errorf("%s has %d bytes, and may have %d: see what it newly links", path, len(program), budget)
	}
	agents := map[string][]byte{}
	for _, agent := range args[1:] {
		_, arch, ok := strings.Cut(filepath.Base(agent), "garo-agent-linux-")
		if !ok {
			return fmt.Errorf("%s is no agent of ours\n%s", agent, usage)
		}
		if agents[arch], err = os.ReadFile(agent); err != nil {
			return err
		}
	}
	files := bundle.Reaper(program)
	switch function {
	case "api":
		files, err = bundle.API(program, agents)
	case "worker":
		files, err = bundle.Worker(program, agents)
	}
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := files.Write(&b); err != nil {
		return err
	}
	fmt.Printf("%-40s program %10d of %d bytes, zip %10d\n", path+".zip", len(program), budget, b.Len())
	return os.WriteFile(path+".zip", b.Bytes(), 0o644)
}
