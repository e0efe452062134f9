// Package awstest runs third-party stand-ins for AWS on this machine, for tests:
// moto, ministack, Amazon's DynamoDB Local and ElasticMQ.
//
// Each is installed once, by version and hash, into a folder of the user's cache
// (garo/standins, or the one that GARO_STANDINS names), from the package
// registries that pip and mvn are set up for. A test binary starts each stand-in
// that it asks for at most once, on a loopback port, and shares it among its
// tests; it ends with the test binary, however that ends. What the stand-in
// logged during a test is shown if the test fails.
//
// Where a stand-in cannot run, for lack of python3, java or mvn or of a registry,
// its tests are left out with a reason; with CI=true they fail.
//
// Schemathesis, a program that tests APIs, is installed in the same way.
package awstest

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/awshttp"
)

// Server is a running stand-in. It is safe for concurrent use.
type Server struct {
	URL string // such as http://127.0.0.1:40123

	standin *standin
	child   *child
	took    time.Duration // from its start until it served

	mu    sync.Mutex
	users int // tests that run and have asked for it
}

// standin is a program that can be started, once.
type standin struct {
	name  string // of its folder in standins
	needs []string
	// install makes dir have all that the program needs, beside the files of its folder.
	install func(ctx context.Context, dir string) error
	// command is the program, installed in dir.
	command func(dir string) []string
	health  string // path that answers with any status once it serves
	reset   string // path of the POST that makes it as new; empty: there is none

	once   sync.Once
	server *Server
	err    error
}

var (
	motoServer = &standin{
		name: "moto-5.2.5", needs: []string{"python3"},
		install: pip, command: python,
		health: "/moto-api/data.json", reset: "/moto-api/reset",
	}
	ministackServer = &standin{
		name: "ministack-1.5.33", needs: []string{"python3"},
		install: pip, command: python,
		health: "/_ministack/health", reset: "/_ministack/reset",
	}
	dynamoDBLocal = &standin{
		name: "dynamodb-3.1.0", needs: []string{"java", "javac", "mvn"},
		install: maven, command: java,
		health: "/",
	}
	elasticMQ = &standin{
		name: "elasticmq-1.7.1", needs: []string{"java", "javac", "mvn"},
		install: maven, command: java,
		health: "/health",
	}
	// schemathesis serves nothing: it is installed alone.
	schemathesis = &standin{name: "schemathesis-4.32.5", needs: []string{"python3"}, install: pip}
)

// Moto returns moto (https://docs.getmoto.org): EC2, STS, SSM and IAM for any
// number of accounts. It is as new when no test of this binary used it any more;
// tests at the same time keep apart by account.
func Moto(t testing.TB) *Server {
	t.Helper()
	return motoServer.use(t)
}

// Ministack returns ministack: DynamoDB and SQS, with the account by access key.
// It is as new when no test of this binary used it any more.
func Ministack(t testing.TB) *Server {
	t.Helper()
	return ministackServer.use(t)
}

// DynamoDB returns Amazon's DynamoDB Local, in memory, with the same tables for
// all accounts and regions. It keeps them until the test binary ends: each test
// takes a name of its own.
// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/DynamoDBLocal.UsageNotes.html
func DynamoDB(t testing.TB) *Server {
	t.Helper()
	return dynamoDBLocal.use(t)
}

// ElasticMQ returns ElasticMQ (https://github.com/softwaremill/elasticmq), an SQS
// with its limits strict. It keeps queues until the test binary ends: each test
// takes a name of its own.
func ElasticMQ(t testing.TB) *Server {
	t.Helper()
	return elasticMQ.use(t)
}

// Schemathesis returns the path of the program of that name (https://schemathesis.io),
// which calls an API in every way that its OpenAPI description allows, and in others.
func Schemathesis(t testing.TB) string {
	t.Helper()
	Need(t, schemathesis.needs...)
	dir, err := schemathesis.ensure()
	if err != nil {
		absent(t, fmt.Errorf("install %s: %w", schemathesis.name, err))
	}
	return filepath.Join(dir, "venv", "bin", "schemathesis")
}

// resetFor is for a stand-in that drops what the tests of a minute made.
const resetFor = time.Minute

// callFor is for a first call, which makes moto load the service that it is for.
const callFor = time.Minute

// use starts s if it does not run yet, for the time of a test.
func (s *standin) use(t testing.TB) *Server {
	t.Helper()
	Need(t, s.needs...)
	s.once.Do(func() { s.server, s.err = s.start() })
	if s.err != nil {
		absent(t, s.err)
	}
	s.server.begin(t)
	return s.server
}

func (s *Server) begin(t testing.TB) {
	s.mu.Lock()
	s.users++
	s.mu.Unlock()
	from := s.child.logged()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s at %s logged meanwhile, at most the last %d bytes:\n%s", s.standin.name, s.URL, shown, s.child.tail(from))
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.users--
		if s.users > 0 || s.standin.reset == "" {
			return
		}
		// Under the lock, so that no test begins on what is about to go.
		ctx, cancel := context.WithTimeout(context.Background(), resetFor)
		defer cancel()
		if err := post(ctx, s.URL+s.standin.reset); err != nil {
			t.Errorf("reset %s: %v", s.standin.name, err)
		}
	})
}

// once leaves no connection, and no goroutine of one, behind a call.
var once = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func post(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, "POST", url, nil)
	if err != nil {
		return err
	}
	resp, err := once.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}

// Config returns the configuration of a caller in an account and a region whose
// calls all go to s. Its credentials are static; with moto they are those of a
// role in the account, since moto knows an account by the access keys that it
// gave out, and they end with the next reset.
func Config(t testing.TB, s *Server, region, account string) aws.Config {
	t.Helper()
	client := awshttp.Client(callFor)
	t.Cleanup(client.CloseIdleConnections)
	cfg := aws.Config{
		Region:       region,
		HTTPClient:   client,
		BaseEndpoint: new(s.URL),
		// ministack takes an access key of 12 digits for the account; the others
		// take any of letters and digits.
		Credentials: credentials.NewStaticCredentialsProvider(account, "secret", ""),
	}
	if s.standin != motoServer {
		return cfg
	}
	out, err := sts.NewFromConfig(cfg).AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn:         new("arn:aws:iam::" + account + ":role/caller"),
		RoleSessionName: new("awstest"),
	})
	if err != nil {
		t.Fatalf("credentials of account %s at moto: %v", account, err)
	}
	c := out.Credentials
	cfg.Credentials = credentials.NewStaticCredentialsProvider(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
	return cfg
}
