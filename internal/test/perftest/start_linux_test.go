package perftest

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/runtimeapi"
)

// What the functions are compared with.
const (
	constant = "./testdata/constant"
	clients  = "./testdata/clients"
	launcher = "./testdata/launcher"
)

// roots are the certificates that a Linux system trusts.
var roots = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"}

// encrypted returns what starts servers as AWS has them, TLS 1.3 with a chain of RSA
// certificates of 2048 bits, and the variable that makes a program trust them beside
// all that the system does.
func encrypted(t testing.TB) (serve func(http.Handler) *httptest.Server, env string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var chain tls.Certificate
	var parent *x509.Certificate
	var signer *rsa.PrivateKey
	var bundle []byte
	for i, name := range []string{"root", "intermediate", "127.0.0.1"} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		must(err)
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i) + 1), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			BasicConstraintsValid: true, IsCA: name != "127.0.0.1",
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		}
		if !c.IsCA {
			c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		if parent == nil {
			parent, signer = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
		must(err)
		if name == "root" {
			bundle = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		} else {
			chain.Certificate = append([][]byte{der}, chain.Certificate...)
		}
		parent, err = x509.ParseCertificate(der)
		must(err)
		signer, chain.PrivateKey = key, key
	}
	for _, path := range roots {
		if system, err := os.ReadFile(path); err == nil {
			bundle = append(system, bundle...)
			break
		}
	}
	path := filepath.Join(t.TempDir(), "roots.pem")
	must(os.WriteFile(path, bundle, 0o600))
	return func(h http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(h)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{chain}}
		s.StartTLS()
		return s
	}, "SSL_CERT_FILE=" + path
}

// sample is what one fresh process took.
type sample struct {
	init, first time.Duration // until it asked for an event, and to answer that
	initCPU     time.Duration
	firstCPU    time.Duration
	warm        []time.Duration // to answer each of the next
	warmCPU     time.Duration   // of all those
	rss         int64           // after the first answer
}

// answer is the time from the start of the process to its first answer.
func (s sample) answer() time.Duration { return s.init + s.first }

// cpu is the processor time until the first answer.
func (s sample) cpu() time.Duration { return s.initCPU + s.firstCPU }

// measure starts a fresh process and has it answer; next makes the events. The
// process answers the first one and warm more.
func measure(b *testing.B, program string, env []string, warm int, next func() []byte) (s sample) {
	b.Helper()
	f := function(b, program, env, io.Discard)
	stats := func() runtimeapi.Stats {
		b.Helper()
		got, err := f.Stats()
		if err != nil {
			b.Fatal(err)
		}
		return got
	}
	invoke := func() {
		b.Helper()
		if _, err := f.Invoke(b.Context(), next()); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Init(b.Context()); err != nil {
		b.Fatal(err)
	}
	began := stats()
	invoke()
	first := stats()
	s = sample{init: began.Init, initCPU: began.CPU, first: first.Invocation, firstCPU: first.CPU - began.CPU, rss: first.RSS}
	for range warm {
		invoke()
		s.warm = append(s.warm, stats().Invocation)
	}
	s.warmCPU = stats().CPU - first.CPU
	f.Kill()
	return s
}

// median returns the middle of what of makes of samples.
func median[T cmp.Ordered](samples []sample, of func(sample) T) T {
	all := sorted(samples, of)
	return all[len(all)/2]
}

// least returns the least of it: what hardly anything else on the machine disturbed.
func least[T cmp.Ordered](samples []sample, of func(sample) T) T { return sorted(samples, of)[0] }

func sorted[T cmp.Ordered](samples []sample, of func(sample) T) []T {
	var all []T
	for _, s := range samples {
		all = append(all, of(s))
	}
	slices.Sort(all)
	return all
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// warmEvents is how many events a process gets after its first: enough for the
// collector of garbage to run as often as it does in a process that lives long.
const warmEvents = 100

// BenchmarkStart starts each function's program, one after another in turn, and
// prints the medians until the first answer and of the next events. What matters are
// the ratios to the program that makes the same calls, and of those the ones of
// processor time: they hardly depend on what else the machine does. Without TLS
// nearly half of what both do alike is left out, so that the rest shows more.
func BenchmarkStart(b *testing.B) {
	serve, trust := encrypted(b)
	b.Run("TLS", func(b *testing.B) { starts(b, serve, trust) })
	b.Run("Plain", func(b *testing.B) { starts(b, plain) })
}

func starts(b *testing.B, serve func(http.Handler) *httptest.Server, more ...string) {
	w, env := newWire(b, "", serve)
	item, err := filepath.Abs("../../../store/dynamostore/testdata/request.json")
	if err != nil {
		b.Fatal(err)
	}
	env = append(env, more...)
	empty := func() []byte { return []byte("{}") }
	post := func() []byte { return w.start(account, "", rand.Text()) }
	message := func() []byte { return batch(b, w.messages[0]) }
	programs := []struct {
		name, main, like string // like: what makes the same calls
		env              []string
		next             func() []byte
	}{
		{"constant", constant, "", nil, empty},
		{"clients", clients, "", []string{"ITEM=" + item}, post},
		{"api", api, "clients", nil, post},
		{"launcher", launcher, "", nil, message},
		{"worker", worker, "launcher", nil, message},
		{"sweeper", launcher, "", []string{"SWEEP=1"}, empty},
		{"reaper", reaper, "sweeper", nil, empty},
	}
	path, calls := map[string]string{}, map[string]string{}
	for _, p := range programs {
		path[p.name] = program(b, p.main)
	}
	w.messages = append(w.messages, `{"v":1,"kind":"resume","id":"abcdefghijklmnopqrstuvwxya"}`) // reads one record, which is not there
	samples := map[string][]sample{}
	for b.Loop() {
		for _, p := range programs {
			w.counted()
			samples[p.name] = append(samples[p.name], measure(b, path[p.name], append(env, p.env...), warmEvents, p.next))
			calls[p.name] = w.counted().actions()
			if p.like != "" && calls[p.name] != calls[p.like] {
				b.Fatalf("%s makes the calls %s, and %s makes %s", p.name, calls[p.name], p.like, calls[p.like])
			}
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "medians of %d processes each; the least of answers; warm: each of %d events\n%-9s %9s %9s %9s %9s %9s %9s %9s %9s %9s", b.N, warmEvents,
		"", "init ms", "first ms", "least ms", "init CPU", "first CPU", "warm ms", "warm CPU", "RSS MB", "size MB")
	for _, p := range programs {
		s := samples[p.name]
		info, err := os.Stat(path[p.name])
		if err != nil {
			b.Fatal(err)
		}
		of := func(of func(s sample) time.Duration) float64 { return ms(median(s, of)) }
		fmt.Fprintf(&out, "\n%-9s %9.1f %9.1f %9.1f %9.1f %9.1f %9.2f %9.2f %9.1f %9.2f", p.name,
			of(func(s sample) time.Duration { return s.init }), of(func(s sample) time.Duration { return s.first }), ms(least(s, sample.answer)),
			of(func(s sample) time.Duration { return s.initCPU }), of(func(s sample) time.Duration { return s.firstCPU }),
			of(func(s sample) time.Duration { return s.warm[warmEvents/2] }), of(func(s sample) time.Duration { return s.warmCPU / warmEvents }),
			float64(median(s, func(s sample) int64 { return s.rss }))/1e6, float64(info.Size())/1e6)
		if like := samples[p.like]; like != nil {
			b.ReportMetric(float64(median(s, sample.cpu))/float64(median(like, sample.cpu)), p.name+"-CPU-ratio")
			b.ReportMetric(float64(median(s, sample.answer))/float64(median(like, sample.answer)), p.name+"-ratio")
			b.ReportMetric(float64(least(s, sample.answer))/float64(least(like, sample.answer)), p.name+"-least-ratio")
			warm := func(s sample) time.Duration { return s.warmCPU }
			b.ReportMetric(float64(median(s, warm))/float64(median(like, warm)), p.name+"-warm-CPU-ratio")
		}
	}
	b.Log(out.String())
}

// maxInit is how many allocations the packages of this module may make before a
// program's main begins. They make at most 59; a regular expression that is compiled
// there makes 37 to 3,300 more, in every cold start, whether an event needs it or not.
const maxInit = 90

func TestFunctionsDoLittleBeforeMain(t *testing.T) {
	const module = "github.com/alphagov/github-actions-runner-orchestration/"
	for _, main := range []string{api, worker, reaper} {
		cmd := exec.CommandContext(t.Context(), program(t, main))
		cmd.Env = []string{"GODEBUG=inittrace=1"} // and nothing that a function needs, so that it ends at once
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
			t.Fatalf("%s = %v, want that it cannot start", main, err)
		}
		total, packages := 0, 0
		for line := range strings.Lines(string(out)) {
			var name string
			var at, took float64
			var bytes, allocs int
			if n, _ := fmt.Sscanf(line, "init %s @%g ms, %g ms clock, %d bytes, %d allocs", &name, &at, &took, &bytes, &allocs); n == 5 && strings.HasPrefix(name, module) {
				total, packages = total+allocs, packages+1
				t.Logf("%s: %s makes %d allocations", filepath.Base(main), strings.TrimPrefix(name, module), allocs)
			}
		}
		if packages == 0 || total > maxInit {
			t.Errorf("%s: %d packages make %d allocations before main, want at most %d", main, packages, total, maxInit)
		}
	}
}
