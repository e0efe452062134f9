package oidc_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc"
)

func TestClaimsAreReadToTheLetter(t *testing.T) {
	inWorld(t, func(w *world) {
		commit, file := strings.Repeat("a", 40), "acme/shared/.github/workflows/deploy.yml@refs/tags/v1"
		got := w.verify(w.with(map[string]any{
			"jti": "id-1", "repository": "Acme_corp/shop.js-2", "repository_owner": "Acme_corp", "repository_owner_id": "18446744073709551615",
			"repository_visibility": "internal", "enterprise": "octocat-inc", "enterprise_id": "77",
			"run_id": "22259804324", "run_number": "42", "run_attempt": "3", "check_run_id": "90000001",
			"actor": "dependabot[bot]", "actor_id": "49699333", "event_name": "pull_request",
			"ref": "refs/pull/7/merge", "ref_type": "branch", "base_ref": "main", "head_ref": "feature/ü",
			"workflow": "Build \u202eand\n test", "workflow_ref": "w@r", "workflow_sha": commit, "job_workflow_ref": file, "job_workflow_sha": commit[1:],
			"environment": "production", "runner_environment": "self-hosted",
			"repo_property_team": "platform", "repo_property_regions": "eu,us", "repo_property_critical": "true", "repo_property_empty": "",
		}))
		want := oidc.Claims{
			Issuer: github, ID: "id-1", IssuedAt: time.Now().UTC(), Expires: time.Now().UTC().Add(5 * time.Minute),
			Repository: "Acme_corp/shop.js-2", RepositoryID: "1001", Owner: "Acme_corp", OwnerID: "18446744073709551615", Visibility: "internal",
			Enterprise: "octocat-inc", EnterpriseID: "77",
			RunID: "22259804324", RunNumber: "42", RunAttempt: "3", CheckRunID: "90000001",
			Actor: "dependabot[bot]", ActorID: "49699333", Event: "pull_request",
			Ref: "refs/pull/7/merge", RefType: "branch", BaseRef: "main", HeadRef: "feature/ü",
			Workflow: "Build \u202eand\n test", WorkflowRef: "w@r", WorkflowSHA: commit, JobWorkflowRef: file, JobWorkflowSHA: commit[1:],
			Environment: "production", RunnerEnvironment: "self-hosted",
			Properties: map[string]string{"team": "platform", "regions": "eu,us", "critical": "true", "empty": ""},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			w.Errorf("Claims (-want +got):\n%s", diff)
		}
	})
}

// Each claim that must be there, alone left out or wrong.
func TestRequiredClaimIsNamed(t *testing.T) {
	for _, name := range []string{
		"jti", "repository", "repository_id", "repository_owner", "repository_owner_id", "repository_visibility",
		"run_id", "run_attempt", "actor", "actor_id", "event_name", "runner_environment",
	} {
		refusedWarm(t, "claim "+name+" is missing", func(w *world) map[string]string {
			return map[string]string{
				"Missing " + name: w.with(map[string]any{name: removed{}}),
				"Empty " + name:   w.with(map[string]any{name: ""}),
				"Capital " + name: w.with(map[string]any{name: removed{}, strings.ToUpper(name): "1"}),
			}
		})
	}
	for _, name := range []string{"exp", "iat"} {
		refusedCold(t, "claim "+name+" is missing", func(w *world) map[string]string {
			return map[string]string{name: w.with(map[string]any{name: removed{}})}
		})
	}
}

func TestClaimOfTheWrongTypeIsNamed(t *testing.T) {
	for _, name := range []string{
		"jti", "repository", "repository_id", "repository_owner", "repository_owner_id", "repository_visibility", "enterprise", "enterprise_id",
		"run_id", "run_number", "run_attempt", "check_run_id", "actor", "actor_id", "event_name", "ref", "ref_type", "base_ref", "head_ref",
		"workflow", "workflow_ref", "workflow_sha", "job_workflow_ref", "job_workflow_sha", "environment", "runner_environment",
	} {
		refusedWarm(t, "claim "+name+" is not text", func(w *world) map[string]string {
			return map[string]string{
				"Number": w.with(map[string]any{name: 1001}),
				"Null":   w.with(map[string]any{name: nil}),
				"Bool":   w.with(map[string]any{name: true}),
				"Array":  w.with(map[string]any{name: []string{"1001"}}),
				"Object": w.with(map[string]any{name: map[string]string{"id": "1001"}}),
			}
		})
		refusedWarm(t, "claim "+name+" is longer than 1024 bytes", func(w *world) map[string]string {
			return map[string]string{"Long": w.with(map[string]any{name: strings.Repeat("1", 1025)})}
		})
	}
}

func TestIDsAreNumbers(t *testing.T) {
	for _, name := range []string{"repository_id", "repository_owner_id", "enterprise_id", "run_id", "run_number", "run_attempt", "check_run_id", "actor_id"} {
		refusedWarm(t, "claim "+name+" is not of its form", func(w *world) map[string]string {
			rows := map[string]string{}
			for _, id := range []string{
				"0x1", "-1", "+1", " 1", "1 ", "1\n", "1.0", "1e3", "1,001", "1_001", "one", "1/../2", "1 OR 1=1",
				"\u0661\u0662\u0663", "\uff11", "1\u200b", "1\x00", strings.Repeat("1", 21),
			} {
				rows[id] = w.with(map[string]any{name: id})
			}
			return rows
		})
	}
}

func TestRepositoryIsOwnerAndName(t *testing.T) {
	refusedWarm(t, "claim repository is not of its form", func(w *world) map[string]string {
		rows := map[string]string{}
		for _, r := range []string{
			"acme", "acme/", "/shop", "acme/shop/x", "acme//shop", "acme\\shop", "acme/sh op", "acme/shop\n", "ac.me/shop",
			"acme/sh\u043ep", "acme/\u202eshop", "acme/shop?x", "acme/shop#x", "acme/%73hop", "acme/" + strings.Repeat("x", 101),
		} {
			rows[r] = w.with(map[string]any{"repository": r})
		}
		return rows
	})
	refusedWarm(t, "repository and repository_owner do not agree", func(w *world) map[string]string {
		rows := map[string]string{}
		for _, r := range []string{"evil/shop", "acme2/shop", "acm/shop", "ACME/shop"} {
			rows[r] = w.with(map[string]any{"repository": r})
		}
		return rows
	})
	refusedWarm(t, "claim repository_owner is not of its form", func(w *world) map[string]string {
		return map[string]string{"TwoParts": w.with(map[string]any{"repository_owner": "acme/shop"})}
	})
}

func TestPropertyThatIsNotTextIsRefused(t *testing.T) {
	refusedWarm(t, "a claim that begins repo_property_ is not of its form", func(w *world) map[string]string {
		return map[string]string{
			"Array":    w.with(map[string]any{"repo_property_a": []string{"x"}}),
			"Bool":     w.with(map[string]any{"repo_property_a": true}),
			"Null":     w.with(map[string]any{"repo_property_a": nil}),
			"Long":     w.with(map[string]any{"repo_property_a": strings.Repeat("x", 1025)}),
			"Nameless": w.with(map[string]any{"repo_property_": "x"}),
		}
	})
}

// Older servers leave claims out, newer ones add some.
func TestOtherClaimsMayComeAndGo(t *testing.T) {
	inWorld(t, func(w *world) {
		changes := map[string]any{
			"new": map[string]any{"nested": []int{1}}, "newer": nil, "Repository_ID": "1002", "properties": "x",
			"enterprise": removed{}, "check_run_id": removed{}, "run_number": removed{}, "environment": removed{}, "nbf": removed{},
			"ref": "", "ref_type": removed{}, "base_ref": removed{}, "head_ref": removed{},
			"workflow": removed{}, "workflow_ref": removed{}, "workflow_sha": removed{}, "job_workflow_ref": removed{}, "job_workflow_sha": removed{},
		}
		c := w.verify(w.with(changes))
		if c.RepositoryID != "1001" || c.CheckRunID != "" || c.Properties != nil {
			w.Errorf("Claims = %+v, want repository 1001 and no more than was said", c)
		}
	})
}

func TestSubjectDecidesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		const id = "same"
		want := w.verify(w.with(map[string]any{"jti": id}))
		for _, sub := range []any{
			"repo:acme/shop:ref:refs/heads/main", "repo:acme@1/shop@1001:ref:refs/heads/main", "repo:acme/shop:environment:a%3Ab",
			"repo:evil@2/shop@1002:ref:refs/heads/main", "repository_id:1002", "", removed{},
		} {
			if diff := cmp.Diff(want, w.verify(w.with(map[string]any{"jti": id, "sub": sub}))); diff != "" {
				w.Errorf("with sub %v (-want +got):\n%s", sub, diff)
			}
		}
	})
}

func TestTokenIsTakenInItsTimeAlone(t *testing.T) {
	const ok = ""
	for _, c := range []struct {
		name          string
		iat, exp, nbf time.Duration // from now
		want          string
	}{
		{"Fresh", 0, 5 * time.Minute, -10 * time.Minute, ok},
		{"OurClockIsAMinuteFast", -time.Minute, 4 * time.Minute, -11 * time.Minute, ok},
		{"OurClockIsAMinuteSlow", time.Minute, 6 * time.Minute, -9 * time.Minute, ok},
		{"OurClockIsTenMinutesFast", -10 * time.Minute, -5 * time.Minute, -20 * time.Minute, "expired"},
		{"OurClockIsTenMinutesSlow", 10 * time.Minute, 15 * time.Minute, 0, "claim iat is in the future"},
		{"ExpiredAMinuteAgo", -6 * time.Minute, -time.Minute, -16 * time.Minute, ok},
		{"ExpiredLonger", -6 * time.Minute, -61 * time.Second, -16 * time.Minute, "expired"},
		{"MadeAMinuteAhead", time.Minute, 5 * time.Minute, 0, ok},
		{"MadeLater", 61 * time.Second, 5 * time.Minute, 0, "claim iat is in the future"},
		{"ValidAMinuteAhead", 0, 5 * time.Minute, time.Minute, ok},
		{"ValidLater", 0, 5 * time.Minute, 61 * time.Second, "claim nbf is in the future"},
		{"ADayOld", -24 * time.Hour, 5 * time.Minute, -24 * time.Hour, ok},
		{"OlderThanADay", -24*time.Hour - time.Second, 5 * time.Minute, -24 * time.Hour, "older than a day"},
		{"EndlessAndOld", -48 * time.Hour, 100 * 365 * 24 * time.Hour, -48 * time.Hour, "older than a day"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
				token := w.with(map[string]any{"iat": at(c.iat), "exp": at(c.exp), "nbf": at(c.nbf)})
				if c.want == ok {
					w.verify(token)
					return
				}
				w.refused(token, c.want)
				w.fetched(0)
			})
		})
	}
}

func TestTimesAreWholeSeconds(t *testing.T) {
	for _, name := range []string{"exp", "iat", "nbf"} {
		refusedCold(t, "claim "+name+" is not a time in whole seconds", func(w *world) map[string]string {
			rows := map[string]string{}
			good := w.payload(map[string]any{name: "MARK"})
			for _, value := range []string{
				`"946684800"`, `null`, `true`, `[946684800]`, `{}`, `946684800.5`, `9466848e2`, `1e400`, `-1`, `-0.0`,
				`9223372036854775807`, `-9223372036854775808`, `18446744073709551616`, `253402300800`, `"MARK"`,
			} {
				rows[value] = sign(ours, goodHeader, strings.Replace(good, `"MARK"`, value, 1))
			}
			return rows
		})
	}
}

func TestLargestTokenIsTaken(t *testing.T) {
	inWorld(t, func(w *world) {
		fill := 4000
		fill += (8192 - len(w.with(map[string]any{"x": strings.Repeat("x", fill)}))) / 4 * 3 // 3 bytes make 4 characters
		token := w.with(map[string]any{"x": strings.Repeat("x", fill)})
		if len(token) < 8189 || len(token) > 8192 {
			w.Fatalf("the token has %d bytes, want 8189 to 8192", len(token))
		}
		w.verify(token)
	})
}
