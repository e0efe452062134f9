package accounts

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/awshttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/settings"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/startup"
)

func TestCallOfEC2MayTakeLongerThanOthers(t *testing.T) {
	cfg := aws.Config{HTTPClient: awshttp.Client(3 * time.Second)}
	if got := forEC2(cfg).HTTPClient.(*http.Client).Timeout; got <= cfg.HTTPClient.(*http.Client).Timeout {
		t.Errorf("a call of EC2 may take %v, want more than others", got)
	}
}

func TestGitHubIsGivenUpBeforeTheWorkerIs(t *testing.T) {
	if got := httpForGitHub().Timeout; got < 10*time.Second || got > 20*time.Second {
		t.Errorf("an exchange with GitHub may take %v, want what GitHub itself takes", got)
	}
}

func TestAddressOfGitHubThatIsNoneIsAnError(t *testing.T) {
	for name, value := range map[string]string{"AWS_REGION": "eu-west-2", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"} {
		t.Setenv(name, value)
	}
	b, err := startup.Open(io.Discard, settings.Common{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(b, Config{GitHubURL: "://"}); err == nil || !strings.Contains(err.Error(), "GitHub base URL") {
		t.Errorf("Open = %v, want an error that says what is wrong", err)
	}
}
