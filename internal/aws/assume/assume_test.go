package assume_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestRoleIsTakenOnAsRegistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Worker)
		w.wantKey(t, "ASIA1")
		call := w.aws.roles[0]
		for field, want := range map[string]string{
			"Action":          "AssumeRole",
			"RoleArn":         "arn:aws:iam::111111111111:role/GitHubRunnerAssumeRole",
			"ExternalId":      externalID,
			"RoleSessionName": "garo-prod-worker",
			"SourceIdentity":  "garo-prod",
			"DurationSeconds": "3600",
			"Policy":          assume.Policy(assume.Worker, "prod", "aws", account),
			"host":            "sts.eu-west-1.amazonaws.com", // the control plane's own region
		} {
			if got := call.Get(field); got != want {
				t.Errorf("AssumeRole has %s %q, want %q", field, got, want)
			}
		}
		a, _ := w.accounts.Account(t.Context(), account)
		a.RoleARN = "arn:aws-us-gov:iam::111111111111:role/ci/garo"
		w.accounts.set(a)
		w.wantKey(t, "ASIA2")
		if got := w.aws.roles[1].Get("RoleArn"); got != a.RoleARN {
			t.Errorf("AssumeRole has RoleArn %q, want %q", got, a.RoleARN)
		}
		if got := w.aws.roles[1].Get("Policy"); !strings.Contains(got, "arn:aws-us-gov:ec2:") || strings.Contains(got, "arn:aws:") {
			t.Errorf("the session policy %s is not of the role's partition", got)
		}
	})
}

// A registration that names no role means the usual one, of the partition that its
// regions are in.
func TestUsualRoleIsOfTheRegionsPartition(t *testing.T) {
	for _, p := range awstest.Partitions {
		for _, region := range p.Regions {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(assume.Worker)
				a, _ := w.accounts.Account(t.Context(), account)
				a.RoleARN, a.Regions = "", map[string]store.Region{region: {}}
				w.accounts.set(a)
				w.wantKey(t, "ASIA1")
				if got, want := w.aws.roles[0].Get("RoleArn"), "arn:"+p.Name+":iam::111111111111:role/GitHubRunnerAssumeRole"; got != want {
					t.Errorf("in %s, AssumeRole has RoleArn %q, want %q", region, got, want)
				}
			})
		}
	}
}

func TestSessionIsSharedAndGivenUpTenMinutesBeforeItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Worker)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { w.wantKey(t, "ASIA1") })
		}
		wg.Wait()
		time.Sleep(50*time.Minute - time.Second)
		w.wantKey(t, "ASIA1")
		time.Sleep(2 * time.Second)
		w.wantKey(t, "ASIA2")
		if n, _ := w.aws.called(); n != 2 {
			t.Errorf("%d calls of STS, want 2", n)
		}
	})
}

func TestAnotherRegistrationHasAnotherSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Worker)
		w.wantKey(t, "ASIA1")
		a, _ := w.accounts.Account(t.Context(), account)
		was := a.ExternalID
		a.ExternalID = secret.New("another")
		w.accounts.set(a)
		w.wantKey(t, "ASIA2")
		a.RoleARN = "arn:aws:iam::111111111111:role/other"
		w.accounts.set(a)
		w.wantKey(t, "ASIA3")
		a.MaxRunners++ // nothing of the role's
		w.accounts.set(a)
		w.wantKey(t, "ASIA3")
		a.ExternalID, a.RoleARN = was, ""
		w.accounts.set(a)
		w.wantKey(t, "ASIA1")

		w.accounts.set(store.Account{ID: "222222222222", ExternalID: was})
		if key, err := w.key(t, "222222222222"); key != "ASIA4" || err != nil {
			t.Errorf("Do for another account called with %s, %v; want ASIA4", key, err)
		}
	})
}

func TestEndedSessionIsRenewedOnce(t *testing.T) {
	for _, code := range []string{"RequestExpired", "ExpiredToken", "ExpiredTokenException", "AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException"} {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(assume.Worker)
				var used []string
				call := func(bad ...string) error {
					used = nil
					return w.Do(t.Context(), account, func(p aws.CredentialsProvider) error {
						creds, err := p.Retrieve(t.Context())
						used = append(used, creds.AccessKeyID)
						if slices.Contains(bad, creds.AccessKeyID) {
							return apiError(code)
						}
						return err
					})
				}
				if err := call("ASIA1"); err != nil || !slices.Equal(used, []string{"ASIA1", "ASIA2"}) {
					t.Errorf("Do called with %v and returned %v, want ASIA1, ASIA2 and nil", used, err)
				}
				if err := call(); err != nil || !slices.Equal(used, []string{"ASIA2"}) {
					t.Errorf("Do called with %v and returned %v, want ASIA2 alone", used, err)
				}
				if err := call("ASIA2", "ASIA3"); err == nil || !slices.Equal(used, []string{"ASIA2", "ASIA3"}) {
					t.Errorf("Do called with %v and returned %v, want two tries and the error", used, err)
				}
			})
		})
	}
}

func TestEndedSessionOfManyIsRenewedByOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Reaper)
		w.wantKey(t, "ASIA1")
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				err := w.Do(t.Context(), account, func(p aws.CredentialsProvider) error {
					creds, err := p.Retrieve(t.Context())
					time.Sleep(10 * time.Millisecond)
					if creds.AccessKeyID == "ASIA1" {
						return apiError("RequestExpired")
					}
					return err
				})
				if err != nil {
					t.Errorf("Do = %v", err)
				}
			})
		}
		wg.Wait()
		if n, _ := w.aws.called(); n != 2 {
			t.Errorf("%d calls of STS, want 2", n)
		}
	})
}

func TestLateRefusalOfAnOldSessionSparesTheNewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Reaper)
		w.wantKey(t, "ASIA1")
		slow := func(d time.Duration) error {
			return w.Do(t.Context(), account, func(p aws.CredentialsProvider) error {
				creds, err := p.Retrieve(t.Context())
				if creds.AccessKeyID == "ASIA1" {
					time.Sleep(d)
					return apiError("RequestExpired")
				}
				return err
			})
		}
		var wg sync.WaitGroup
		for _, d := range []time.Duration{time.Second, time.Minute} {
			wg.Go(func() {
				if err := slow(d); err != nil {
					t.Errorf("Do = %v", err)
				}
			})
		}
		wg.Wait()
		if n, _ := w.aws.called(); n != 2 {
			t.Errorf("%d calls of STS, want 2", n)
		}
	})
}

func TestOtherErrorsComeBackAsTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Worker)
		for _, want := range []error{apiError("UnauthorizedOperation"), apiError("InternalError"), errors.New("no answer")} {
			n := 0
			if got := w.Do(t.Context(), account, func(aws.CredentialsProvider) error { n++; return want }); got != want || n != 1 {
				t.Errorf("Do = %v after %d calls, want %v after one", got, n, want)
			}
		}
		if n, _ := w.aws.called(); n != 1 {
			t.Errorf("%d calls of STS, want 1", n)
		}
	})
}

func TestWhatSTSAnswers(t *testing.T) {
	denied := "User: arn:aws:sts::999999999999:assumed-role/garo/x is not authorized to perform: sts:AssumeRole"
	for _, c := range []struct {
		name          string
		status        int
		code, message string
		kind          error
		says          string
	}{
		{"WrongExternalIDOrNoRole", 403, "AccessDenied", denied, fleet.ErrRefused, "registered external id"},
		{"NotAllowedToSaySo", 400, "ValidationError", "Value '" + externalID + "' at 'externalId' failed to satisfy constraint", fleet.ErrRefused, "malformed"},
		{"RegionIsOff", 403, "RegionDisabledException", "STS is not activated in this region for account:111111111111.", fleet.ErrRefused, "switched off"},
		{"PolicyIsTooLarge", 400, "PackedPolicyTooLarge", "Packed policy consumes 127% of allotted space", fleet.ErrRefused, "session policy"},
		{"PolicyIsMalformed", 400, "MalformedPolicyDocument", "Syntax errors in policy.", fleet.ErrRefused, "session policy"},
		{"Throttled", 400, "Throttling", "Rate exceeded", fleet.ErrThrottled, "now"},
		{"Away", 503, "ServiceUnavailable", "Service is unavailable", fleet.ErrUnknown, "now"},
		{"Broken", 500, "InternalFailure", "", fleet.ErrUnknown, "now"},
		{"OwnCredentialsEnded", 403, "ExpiredToken", "The security token included in the request is expired", fleet.ErrUnknown, "now"},
		{"SomethingNew", 400, "SomethingNew", "", fleet.ErrUnknown, "now"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(assume.Worker)
				w.aws.sts = func() *http.Response { return stsError(c.status, c.code, c.message) }
				for range 5 {
					_, err := w.key(t, account)
					e, ok := errors.AsType[*fleet.Error](err)
					if !ok || e.Kind != c.kind || e.Code != c.code {
						t.Fatalf("Do = %v, want %v with code %s", err, c.kind, c.code)
					}
					if got, want := errors.Is(err, fleet.ErrUnfamiliar), c.code == "SomethingNew"; got != want {
						t.Errorf("Do = %v is unfamiliar: %v, want %v", err, got, want)
					}
					for _, want := range []string{account, "role/GitHubRunnerAssumeRole", c.says} {
						if !strings.Contains(e.Text, want) {
							t.Errorf("the text %q does not have %q", e.Text, want)
						}
					}
				}
				want := 5
				if c.kind == fleet.ErrRefused {
					want = 1 // a refusal stands for a while
				}
				if n, _ := w.aws.called(); n != want {
					t.Errorf("%d calls of STS, want %d", n, want)
				}
				w.aws.sts = nil
				time.Sleep(10 * time.Second)
				if _, err := w.key(t, account); err != nil {
					t.Errorf("Do once STS is well = %v", err)
				}
			})
		})
	}
}

func TestSTSThatDoesNotAnswerIsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Worker)
		for _, body := range []string{"", "<html>", "<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>"} {
			w.aws.sts = func() *http.Response { return answer(200, body) }
			_, err := w.key(t, account)
			if _, ok := errors.AsType[*fleet.Error](err); ok || err == nil {
				t.Errorf("Do after the answer %q = %v, want an outage", body, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := w.Do(ctx, account, func(aws.CredentialsProvider) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do = %v, want that the time is up", err)
		}
	})
}

func TestRegistrationThatCannotBeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Worker)
		for _, arn := range []string{"arn:aws:iam::222222222222:role/x", "arn:aws:iam::111111111111:user/x", "arn:aws:sts::111111111111:role/x", "arn:x"} {
			w.accounts.set(store.Account{ID: account, RoleARN: arn, ExternalID: secret.New(externalID)})
			_, err := w.key(t, account)
			if e, ok := errors.AsType[*fleet.Error](err); !ok || e.Kind != fleet.ErrRefused || !strings.Contains(e.Text, arn) {
				t.Errorf("Do with role_arn %s = %v, want a refusal that names it", arn, err)
			}
		}
		if _, err := w.key(t, "333333333333"); !errors.Is(err, store.ErrNoAccount) {
			t.Errorf("Do for an account that is not registered = %v, want so", err)
		}
		w.accounts.err = errors.New("away")
		if _, err := w.key(t, account); !errors.Is(err, w.accounts.err) {
			t.Errorf("Do = %v, want %v", err, w.accounts.err)
		}
		if n, _ := w.aws.called(); n != 0 {
			t.Errorf("%d calls of STS, want none", n)
		}
	})
}

func (w *world) wantCredential(t *testing.T, fresh bool, want string) {
	t.Helper()
	if got, err := w.Credential(t.Context(), account, "/github/runner/pat", fresh); err != nil || !got.Equal(want) {
		t.Errorf("Credential(fresh %v) = %q, %v; want %q", fresh, got.Reveal(), err, want)
	}
}

func TestCredentialIsReadInTheAccountsDefaultRegion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Reaper)
		w.wantCredential(t, false, "canary-pat")
		a, _ := w.accounts.Account(t.Context(), account)
		a.Regions["eu-west-3"] = store.Region{}
		if _, err := w.Credential(t.Context(), account, "/github/runner/pat", false); !errors.Is(err, github.ErrNoParameter) || !strings.Contains(err.Error(), "default_region") {
			t.Errorf("Credential of an account with two regions and no default = %v, want that it has to name one", err)
		}
		a.DefaultRegion = "eu-west-3"
		w.accounts.set(a)
		w.wantCredential(t, false, "canary-pat")
		if want := []string{"ASIA1 eu-west-2", "ASIA1 eu-west-3"}; !slices.Equal(w.aws.keys, want) {
			t.Errorf("the parameter was read by %v, want %v", w.aws.keys, want)
		}
		if strings.Contains(w.log.String(), "canary") {
			t.Errorf("the log has a secret:\n%s", w.log)
		}
	})
}

func TestCredentialIsKeptUntilFreshIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Worker)
		w.wantCredential(t, false, "canary-pat")
		w.aws.parameter["/github/runner/pat"] = "rotated"
		w.wantCredential(t, false, "canary-pat")
		w.wantCredential(t, true, "rotated")
		w.wantCredential(t, false, "rotated")
		if roles, reads := w.aws.called(); roles != 1 || reads != 2 {
			t.Errorf("%d calls of STS and %d of SSM, want 1 and 2", roles, reads)
		}
	})
}

func TestCredentialThatOnlyPeopleCanMend(t *testing.T) {
	for _, c := range []struct {
		name  string
		brk   func(*fakeAWS)
		final bool
	}{
		{"NoParameter", func(f *fakeAWS) { clear(f.parameter) }, true},
		{"Denied", func(f *fakeAWS) { f.ssm = func(string) *http.Response { return ssmError("AccessDeniedException") } }, true},
		{"NoRole", func(f *fakeAWS) {
			f.sts = func() *http.Response { return stsError(403, "AccessDenied", "") }
		}, true},
		{"Throttled", func(f *fakeAWS) { f.ssm = func(string) *http.Response { return ssmError("ThrottlingException") } }, false},
		{"STSThrottled", func(f *fakeAWS) {
			f.sts = func() *http.Response { return stsError(400, "Throttling", "") }
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(assume.Worker)
				c.brk(w.aws)
				got, err := w.Credential(t.Context(), account, "/github/runner/pat", false)
				if err == nil || !got.Empty() || errors.Is(err, github.ErrNoParameter) != c.final {
					t.Errorf("Credential = %q, %v; is it final? want %v", got.Reveal(), err, c.final)
				}
			})
		})
	}
}

func TestRefusedRoleEndsWhatWasReadWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Worker)
		w.wantCredential(t, false, "canary-pat")
		w.aws.sts = func() *http.Response { return stsError(403, "AccessDenied", "") }
		time.Sleep(time.Hour - time.Minute) // the session is over, what was read could still serve
		if got, err := w.Credential(t.Context(), account, "/github/runner/pat", false); !errors.Is(err, github.ErrNoParameter) || !got.Empty() {
			t.Errorf("Credential = %q, %v; want a refusal", got.Reveal(), err)
		}
		w.accounts.accounts = map[string]store.Account{}
		if _, err := w.Credential(t.Context(), account, "/github/runner/pat", false); !errors.Is(err, store.ErrNoAccount) {
			t.Errorf("Credential of an account that was deregistered = %v, want so", err)
		}
	})
}

func TestCredentialSurvivesARevokedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(assume.Worker)
		w.aws.ssm = func(key string) *http.Response {
			if key == "ASIA1" {
				return ssmError("ExpiredTokenException")
			}
			return nil
		}
		w.wantCredential(t, false, "canary-pat")
		if roles, reads := w.aws.called(); roles != 2 || reads != 2 {
			t.Errorf("%d calls of STS and %d of SSM, want 2 and 2", roles, reads)
		}
	})
}
