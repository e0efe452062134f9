package perftest

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
)

const (
	// vCPU is the memory in MB at which a function has one vCPU whole; it has less
	// in proportion.
	// https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
	vCPU = 1769
	// period is how often a share is handed out. Lambda does not say; those who
	// measured it found 20 ms.
	period = 20 * time.Millisecond
)

// confined returns a program that is the given one with a share of a processor. It
// says how, or why it cannot: the program is not confined then.
func confined(b *testing.B, program string, share float64) (path, how string) {
	b.Helper()
	quota := int64(share * float64(period.Microseconds()))
	group, how := "/sys/fs/cgroup/cpu/garo-perftest", "cgroup v1"
	limits := map[string]string{"cpu.cfs_period_us": fmt.Sprint(period.Microseconds()), "cpu.cfs_quota_us": fmt.Sprint(quota)}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		group, how = "/sys/fs/cgroup/garo-perftest", "cgroup v2"
		limits = map[string]string{"cpu.max": fmt.Sprintf("%d %d", quota, period.Microseconds())}
	}
	group += fmt.Sprintf("-%d-%d", os.Getpid(), quota)
	if err := os.Mkdir(group, 0o755); err != nil {
		return program, "not confined: " + err.Error()
	}
	b.Cleanup(func() { // when its programs have ended
		if err := os.Remove(group); err != nil {
			b.Error(err)
		}
	})
	for name, value := range limits {
		if err := os.WriteFile(filepath.Join(group, name), []byte(value), 0o644); err != nil {
			return program, "not confined: " + err.Error()
		}
	}
	path = filepath.Join(b.TempDir(), "bootstrap")
	script := fmt.Sprintf("#!/bin/sh\necho $$ >%s/cgroup.procs && exec %s\n", group, program)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		b.Fatal(err)
	}
	return path, how
}

// BenchmarkMemory starts the API with the share of a processor that a function of
// each size has, and prints the medians: of a fresh process with TLS to everything,
// and of POST /start with an ID token, the first and the next ten.
func BenchmarkMemory(b *testing.B) {
	serve, trust := encrypted(b)
	w, env := newWire(b, "", serve)
	env = append(env, trust)
	bare, bareEnv := newWire(b, "", plain)
	type size struct {
		name    string
		share   float64
		program string
		env     []string
		w       *wire
	}
	whole := program(b, api)
	sizes := []size{{"no TLS", 1, whole, bareEnv, bare}, {"no limit", 1, whole, env, w}}
	var how string
	for _, mb := range []int{1024, 512, 256, 128} {
		s := size{fmt.Sprintf("%d MB", mb), float64(mb) / vCPU, "", env, w}
		s.program, how = confined(b, whole, s.share)
		sizes = append(sizes, s)
	}
	const warm = 10
	samples := map[string][]sample{}
	for b.Loop() {
		for _, s := range sizes {
			samples[s.name] = append(samples[s.name], measure(b, s.program, s.env, warm, func() []byte { return s.w.start(account, "", rand.Text()) }))
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "medians of %d processes each, %s\n%-9s %9s %9s %9s %9s %9s %9s", b.N, how, "", "init ms", "first ms", "warm ms", "init CPU", "first CPU", "warm CPU")
	for _, size := range sizes {
		s := samples[size.name]
		of := func(of func(s sample) time.Duration) float64 { return ms(median(s, of)) }
		fmt.Fprintf(&out, "\n%-9s %9.1f %9.1f %9.1f %9.1f %9.1f %9.2f", size.name,
			of(func(s sample) time.Duration { return s.init }), of(func(s sample) time.Duration { return s.first }), of(func(s sample) time.Duration { return s.warm[warm/2] }),
			of(func(s sample) time.Duration { return s.initCPU }), of(func(s sample) time.Duration { return s.firstCPU }), of(func(s sample) time.Duration { return s.warmCPU / warm }))
	}
	b.Log(out.String())
}

// BenchmarkIDToken is what it takes to believe an ID token, once its key is there.
func BenchmarkIDToken(b *testing.B) {
	w, _ := newWire(b, "", plain)
	token, err := w.ids.Token(apiURL)
	if err != nil {
		b.Fatal(err)
	}
	claims, err := w.ids.Claims(apiURL)
	if err != nil {
		b.Fatal(err)
	}
	v, err := oidc.New(oidc.Config{Issuers: []oidc.Issuer{{URL: claims["iss"].(string)}}, Audience: apiURL, HTTP: http.DefaultClient})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := v.Verify(b.Context(), token); err != nil { // fetches the key
		b.Fatal(err)
	}
	used := cpu(b)
	for b.Loop() {
		if _, err := v.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu(b)-used).Microseconds())/float64(b.N), "cpu-µs/op")
}

// cpu returns the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
