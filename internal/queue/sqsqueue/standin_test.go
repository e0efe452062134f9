package sqsqueue

import (
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/awshttp"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/queuetest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
)

// TestMain lets all tests of the suite run side by side: they wait for timeouts of
// real queues, and need next to no processor for that.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "64"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// The stand-ins: ElasticMQ, which many use in SQS's place, and ministack.
var standins = []struct {
	name  string
	start func(testing.TB) *awstest.Server
}{
	{"ElasticMQ", awstest.ElasticMQ},
	{"Ministack", awstest.Ministack},
}

// config returns the configuration of a caller of s that has the HTTP client of
// production.
func config(t testing.TB, s *awstest.Server) aws.Config {
	t.Helper()
	cfg := awstest.Config(t, s, "eu-west-2", "123456789012")
	client := awshttp.Client(60 * time.Second)
	t.Cleanup(client.CloseIdleConnections)
	cfg.HTTPClient = client
	return cfg
}

// newQueue makes a queue and its dead letter queue, as Terraform does.
func newQueue(t testing.TB, cfg aws.Config, visibility time.Duration) *Queue {
	t.Helper()
	client := sqs.NewFromConfig(cfg)
	create := func(name string, attributes map[string]string) (url string) {
		out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
		if err != nil {
			t.Fatalf("create queue %s: %v", name, err)
		}
		return *out.QueueUrl
	}
	name := "garo-" + rand.Text()
	dead := create(name+"-dead", nil)
	out, err := client.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &dead, AttributeNames: []types.QueueAttributeName{"QueueArn"}})
	if err != nil {
		t.Fatal(err)
	}
	url := create(name, map[string]string{
		"VisibilityTimeout": fmt.Sprint(int(visibility / time.Second)),
		"RedrivePolicy":     fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"%d"}`, out.Attributes["QueueArn"], queue.MaxReceives),
	})
	return New(cfg, url, dead)
}

func TestContract(t *testing.T) {
	for _, s := range standins {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			// The suite looks at quarters of it: two seconds are what a busy machine may
			// take for a call.
			const visibility = 8 * time.Second
			server := s.start(t)
			queuetest.Run(t, queuetest.Setup{
				Open:       func(t *testing.T) queue.Queue { return newQueue(t, config(t, server), visibility) },
				Visibility: visibility,
			})
		})
	}
}
