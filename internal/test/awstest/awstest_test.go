package awstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// aloneFor makes this binary start a stand-in, say where it is, and wait.
const aloneFor = "GARO_TEST_STANDIN"

func TestMain(m *testing.M) {
	if name := os.Getenv(aloneFor); name != "" {
		s, err := byName(name).start()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(s.child.cmd.Process.Pid)
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var all = []*standin{motoServer, ministackServer, dynamoDBLocal, elasticMQ}

func byName(name string) *standin {
	for _, s := range all {
		if s.name == name {
			return s
		}
	}
	panic("no stand-in " + name)
}

func TestMotoKeepsAccountsApartAndIsNewForTheNextTest(t *testing.T) {
	run := func(c *ec2.Client) error {
		_, err := c.RunInstances(t.Context(), &ec2.RunInstancesInput{
			ImageId: new("ami-12345678"), MinCount: new(int32(1)), MaxCount: new(int32(1)), InstanceType: types.InstanceTypeC7gLarge,
		})
		return err
	}
	count := func(c *ec2.Client) int {
		out, err := c.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
		if err != nil {
			t.Fatal(err)
		}
		return len(out.Reservations)
	}
	for _, name := range []string{"First", "Second"} {
		t.Run(name, func(t *testing.T) {
			s := Moto(t)
			one := ec2.NewFromConfig(Config(t, s, "eu-west-2", "111122223333"))
			other := ec2.NewFromConfig(Config(t, s, "eu-west-2", "444455556666"))
			elsewhere := ec2.NewFromConfig(Config(t, s, "eu-west-1", "111122223333"))
			if err := run(one); err != nil {
				t.Fatal(err)
			}
			if a, b, c := count(one), count(other), count(elsewhere); a != 1 || b != 0 || c != 0 {
				t.Errorf("instances here, in the other account and in the other region = %d, %d, %d; want 1, 0, 0", a, b, c)
			}
			who, err := sts.NewFromConfig(Config(t, s, "eu-west-2", "444455556666")).GetCallerIdentity(t.Context(), nil)
			if err != nil || *who.Account != "444455556666" {
				t.Errorf("GetCallerIdentity = %+v, %v; want account 444455556666", who, err)
			}
		})
	}
}

func TestInstallingGoesWrongPlainly(t *testing.T) {
	sum := func(text string) string { // of sha256sum's
		return map[string]string{
			"one": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
			"two": "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3",
		}[text]
	}
	lib := fstest.MapFS{"a.jar": {Data: []byte("one")}, "b.jar": {Data: []byte("two")}}
	for _, c := range []struct{ name, sums, want string }{
		{"AllAsListed", sum("one") + "  a.jar\n" + sum("two") + "  b.jar\n", ""},
		{"OtherContent", sum("two") + "  a.jar\n" + sum("two") + "  b.jar\n", "a.jar: SHA-256"},
		{"FileThatIsNotListed", sum("one") + "  a.jar\n", "b.jar: SHA-256"},
		{"FileThatDidNotCome", sum("one") + "  a.jar\n" + sum("two") + "  b.jar\n" + sum("two") + "  c.jar\n", "c.jar"},
		{"LineWithoutHash", "a.jar\n", "want a hash and a name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := verify(lib, c.sums)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("verify = %v, want %q", err, c.want)
			}
		})
	}
	t.Run("InstallerThatFailsShowsItsWords", func(t *testing.T) {
		err := run(t.Context(), t.TempDir(), "sh", "-c", "echo no route to the registry; exit 1")
		if _, damaged := errors.AsType[*damagedError](err); err == nil || damaged || !strings.Contains(err.Error(), "no route to the registry") {
			t.Errorf("run = %v, want its output, and not damage", err)
		}
	})
	t.Run("OtherBytesThanTheLockedOnesAreDamage", func(t *testing.T) {
		err := run(t.Context(), t.TempDir(), "sh", "-c", "echo ERROR: THESE PACKAGES DO NOT MATCH THE HASHES; exit 1")
		if _, damaged := errors.AsType[*damagedError](err); !damaged {
			t.Errorf("run = %v, want damage", err)
		}
	})
	t.Run("InterruptedInstallationIsDoneAgain", func(t *testing.T) {
		t.Setenv("GARO_STANDINS", t.TempDir())
		runs := 0
		s := &standin{name: "moto-5.2.5"}
		failed := errors.New("cut short")
		install := func(err error) {
			s.install = func(_ context.Context, dir string) error {
				runs++
				if _, serr := os.Stat(filepath.Join(dir, "half")); serr == nil {
					t.Error("what a failed installation left is still there")
				}
				return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o644), err)
			}
		}
		install(failed)
		if _, err := s.ensure(); !errors.Is(err, failed) {
			t.Errorf("ensure = %v, want the installer's error", err)
		}
		install(nil)
		first, err := s.ensure()
		if err != nil {
			t.Fatalf("ensure: %v", err)
		}
		if again, err := s.ensure(); err != nil || again != first || runs != 2 {
			t.Errorf("ensure = %s, %v after %d installations; want %s after 2", again, err, runs, first)
		}
		if _, err := os.Stat(filepath.Join(first, "serve.py")); err != nil {
			t.Errorf("the program that serves: %v", err)
		}
	})
	t.Run("ManyAtOnceInstallOnce", func(t *testing.T) {
		t.Setenv("GARO_STANDINS", t.TempDir())
		var runs atomic.Int32
		install := func(context.Context, string) error {
			runs.Add(1)
			time.Sleep(50 * time.Millisecond)
			return nil
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := (&standin{name: "moto-5.2.5", install: install}).ensure(); err != nil {
					t.Errorf("ensure: %v", err)
				}
			})
		}
		wg.Wait()
		if n := runs.Load(); n != 1 {
			t.Errorf("%d installations, want one", n)
		}
	})
	t.Run("ProgramThatEndsAtOnceIsReportedWithItsLog", func(t *testing.T) {
		c, err := spawn(t.TempDir(), []string{"sh", "-c", "echo port is taken; exit 3"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.await("/"); err == nil || !strings.Contains(err.Error(), "status 3") || string(c.tail(0)) != "port is taken" {
			t.Errorf("await = %v with log %q, want status 3 and its words", err, c.tail(0))
		}
	})
}

// stopped is a testing.TB that notes how a test was ended.
type stopped struct {
	testing.TB
	how string
}

func (s *stopped) Fatal(args ...any) { s.how = "failed: " + fmt.Sprint(args...); panic(s) }
func (s *stopped) Skip(args ...any)  { s.how = "left out: " + fmt.Sprint(args...); panic(s) }

func TestWhatIsMissingIsLeftOutButFailsInCI(t *testing.T) {
	const missing = "no-such-program-anywhere"
	for _, c := range []struct {
		ci   string
		end  func(t testing.TB)
		want string
	}{
		{"", func(t testing.TB) { Need(t, missing) }, "left out: "},
		{"true", func(t testing.TB) { Need(t, missing) }, "failed: "},
		{"true", func(t testing.TB) { Need(t, "sh") }, ""},
		{"", func(t testing.TB) { absent(t, fmt.Errorf("install: %w", &damagedError{"x"})) }, "failed: install: x"},
		{"", func(t testing.TB) { absent(t, errors.New("no registry")) }, "left out: no registry"},
	} {
		t.Setenv("CI", c.ci)
		s := &stopped{TB: t}
		func() {
			defer func() { _ = recover() }()
			c.end(s)
		}()
		if !strings.HasPrefix(s.how, c.want) || c.want == "" && s.how != "" {
			t.Errorf("with CI=%q the test ended as %q, want %q", c.ci, s.how, c.want)
		}
		if strings.HasSuffix(c.want, ": ") && !strings.Contains(s.how, missing) {
			t.Errorf("reason = %q, want the program in it", s.how)
		}
	}
}
