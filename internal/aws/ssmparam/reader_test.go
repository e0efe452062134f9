package ssmparam_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/ssmparam"
)

// reader is a Reader over the world's SSM that repeats no call.
func (w *world) reader() *ssmparam.Reader {
	client := ssm.NewFromConfig(w.aws(), func(o *ssm.Options) { o.RetryMaxAttempts = 1 })
	return ssmparam.NewReader(client.GetParameter, time.Now, w.logger())
}

func wantText(t *testing.T, r *ssmparam.Reader, fresh bool, want string) {
	t.Helper()
	if got, err := r.Get(t.Context(), "/pat", fresh); err != nil || !got.Equal(want) {
		t.Errorf("Get(fresh %v) = %q, %v; want %q", fresh, got.Reveal(), err, want)
	}
}

// wantFailure checks for one of the Reader's errors; nil stands for an outage.
func wantFailure(t *testing.T, r *ssmparam.Reader, fresh bool, want error) {
	t.Helper()
	got, err := r.Get(t.Context(), "/pat", fresh)
	if err == nil || !got.Empty() {
		t.Errorf("Get(fresh %v) = %q, %v; want an error alone", fresh, got.Reveal(), err)
		return
	}
	for _, known := range []error{ssmparam.ErrNoParameter, ssmparam.ErrDenied} {
		if errors.Is(err, known) != (known == want) {
			t.Errorf("Get(fresh %v) = %v: is it %q? want %v", fresh, err, known, known == want)
		}
	}
	if !strings.Contains(err.Error(), "/pat") {
		t.Errorf("Get(fresh %v) = %v, want an error that names the parameter", fresh, err)
	}
}

func TestParameterIsReadOnceForManyAndKeptForFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reader()
		w.ssm.put("/pat", "first")
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { wantText(t, r, false, "first") })
		}
		wg.Wait()
		w.wantCalls(t, 1, 0)
		w.ssm.put("/pat", "second")
		time.Sleep(5*time.Minute - time.Second)
		wantText(t, r, false, "first")
		w.wantCalls(t, 0, 0)
		time.Sleep(time.Second)
		wantText(t, r, false, "second")
		w.wantCalls(t, 1, 0)
	})
}

func TestFreshReadsPastWhatIsKeptAndRenewsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reader()
		w.ssm.put("/pat", "first")
		wantText(t, r, false, "first")
		w.ssm.put("/pat", "second")
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { wantText(t, r, true, "second") })
		}
		wg.Wait()
		wantText(t, r, false, "second")
		if gets, _ := w.ssm.called(); gets != 2 && gets != 3 { // 3: some came when the second read had begun
			t.Errorf("%d reads for 1 caller and then 50 at once who want it fresh, want 2 or 3", gets)
		}
	})
}

func TestParameterServesForAnHourWhileSSMDoesNotAnswer(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
	}{{400, "ThrottlingException"}, {500, "InternalServerError"}, {503, "ServiceUnavailable"}, {400, "SomethingNew"}} {
		t.Run(c.code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				r := w.reader()
				w.ssm.put("/pat", "first")
				wantText(t, r, false, "first")
				w.ssm.fail(c.status, c.code)
				wantFailure(t, r, true, nil) // fresh means fresh
				w.wantCalls(t, 2, 0)

				time.Sleep(6 * time.Minute)
				for range 20 {
					wantText(t, r, false, "first")
				}
				w.wantCalls(t, 1, 0) // SSM is left in peace for a while
				time.Sleep(10 * time.Second)
				wantText(t, r, false, "first")
				w.wantCalls(t, 1, 0)

				time.Sleep(time.Hour)
				wantFailure(t, r, false, nil)
				w.ssm.fail(0, "")
				wantText(t, r, false, "first")
				if got := strings.Count(w.log.String(), "level=WARN"); got != 2 {
					t.Errorf("logged:\n%swant a line for each of the two tries", w.log)
				}
				if strings.Contains(w.log.String(), "first") {
					t.Errorf("the log has the parameter's content:\n%s", w.log)
				}
			})
		})
	}
}

func TestOutageOfSSMIsNoMissingParameter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reader()
		w.ssm.put("/pat", "first")
		w.ssm.fail(400, "ThrottlingException")
		wantFailure(t, r, false, nil)
		w.ssm.fail(0, "")
		wantText(t, r, false, "first") // at once
	})
}

func TestWithdrawnParameterServesNobody(t *testing.T) {
	for _, c := range []struct {
		name     string
		withdraw func(*fakeSSM)
		want     error
	}{
		{"Gone", func(f *fakeSSM) { f.remove("/pat") }, ssmparam.ErrNoParameter},
		{"Denied", func(f *fakeSSM) { f.fail(400, "AccessDeniedException") }, ssmparam.ErrDenied},
		{"KeyIsGone", func(f *fakeSSM) { f.fail(400, "InvalidKeyId") }, ssmparam.ErrDenied},
		{"NameCannotBe", func(f *fakeSSM) { f.fail(400, "ValidationException") }, ssmparam.ErrDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				r := w.reader()
				w.ssm.put("/pat", "first")
				wantText(t, r, false, "first")
				c.withdraw(w.ssm)
				time.Sleep(5 * time.Minute)
				for range 10 {
					wantFailure(t, r, false, c.want)
				}
				w.wantCalls(t, 2, 0) // it stands for a while
				w.ssm.fail(500, "InternalServerError")
				time.Sleep(10 * time.Second)
				wantFailure(t, r, false, nil) // what was withdrawn does not come back
				w.ssm.fail(0, "")
				w.ssm.put("/pat", "second")
				wantText(t, r, false, "second")
			})
		})
	}
}

func TestGetFuncWithoutCredentialsEndsWhatWasKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ssm.put("/pat", "first")
		client := ssm.NewFromConfig(w.aws())
		allowed := true
		r := ssmparam.NewReader(func(ctx context.Context, in *ssm.GetParameterInput, opts ...func(*ssm.Options)) (*ssm.GetParameterOutput, error) {
			if !allowed {
				return nil, ssmparam.ErrDenied
			}
			return client.GetParameter(ctx, in, opts...)
		}, time.Now, w.logger())
		wantText(t, r, false, "first")
		allowed = false
		time.Sleep(5 * time.Minute)
		wantFailure(t, r, false, ssmparam.ErrDenied)
	})
}

func TestCallerWithoutTimeLeavesOthersUnharmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.reader()
		w.ssm.put("/pat", "first")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := r.Get(ctx, "/pat", false); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Get = %v, want that its time is up", err)
			}
		})
		synctest.Wait()
		wg.Go(func() { wantText(t, r, false, "first") })
		wg.Wait()
	})
}
