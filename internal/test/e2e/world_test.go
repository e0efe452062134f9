//go:build linux

package e2e

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/pricelist/simprices"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc/oidctest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/queue/sqsqueue"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/ec2proxy"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/runtimeapi"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore/dynamostoretest"
)

const (
	controlPlane = "e2e"
	home         = "eu-west-2" // the control plane's region, and the runner account's default
	away         = "eu-west-1" // another region that the runner account offers
	shop         = "acme/shop"

	// publicImage is a parameter of Amazon's that every account and region has.
	publicImage = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
	// someImage is an AMI that no test launches.
	someImage = "ami-0123456789abcdef0"

	// patience is for a computer that does much else: nothing here takes twenty
	// seconds, and that only where a claim has to lapse.
	patience = 2 * time.Minute
)

// options are what tests want otherwise.
type options struct {
	workers       int                                         // that run at once; 0: one
	workerTimeout time.Duration                               // 0: production's
	redeliver     time.Duration                               // until a message that failed comes again; 0: at once
	registration  map[string]any                              // fields that replace those of the account's registration
	edit          func(w *world, registration map[string]any) // changes the registration further; nil: nothing
	externalID    string                                      // that the role's trust policy demands; empty: the registered one
	aws           func(http.Handler) http.Handler             // around EC2, STS and SSM; nil: nothing
	undelayed     bool                                        // messages of the functions are visible at once, whatever delay they are sent with
	hold          chan struct{}                               // each job runs until it can receive; nil: it is done at once
	webhook       string                                      // the secret of the App's webhook; empty: there is no App
}

// world is a control plane, what is around it, and a runner account.
type world struct {
	*testing.T
	opt              options
	control, runners string // the two accounts
	aws              *ec2proxy.Proxy
	externalID       string
	github           *simgithub.Server
	githubURL        string
	issuer           *oidctest.Issuer
	issuerURL        string
	gate             *httptest.Server
	url              string // of the API
	http             *http.Client
	table            string
	dynamo           *dynamodb.Client
	store            *dynamostore.Store
	queue            *sqsqueue.Queue
	sqs              *sqs.Client
	queueURL         string
	traces           runtimeapi.Traces // of the messages that the functions send

	api, reaper *runtimeapi.Function
	workers     []*runtimeapi.Function
	log         log

	// lasting is for what outlives the test's own context: it ends after all that
	// runs here has been stopped.
	lasting  context.Context
	machines []*machine
	subnets  map[string][]string // two of each region
	reaping  sync.RWMutex        // see tick

	mu         sync.Mutex
	secrets    map[string]string // what must be found nowhere, and what it is
	bootTokens []string          // these may be in user data alone
	clients    map[string]*ec2.Client
	crashes    []error    // how invocations of the worker failed
	batches    [][]string // the bodies of each batch of messages
}

// groupID is GitHub's id of the runner group garo of the organization.
const groupID = 7

// worlds counts them: each has accounts of its own, since all share one moto.
var worlds atomic.Int64

// signingKey is the key of all issuers: one takes a moment to make.
var signingKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newWorld(t *testing.T, opt options) *world {
	t.Helper()
	t.Parallel()
	n := worlds.Add(1) - 1
	w := &world{
		T: t, opt: opt, control: fmt.Sprint(111111111111 + n), runners: fmt.Sprint(222222222222 + n),
		table: "garo-" + rand.Text(), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10}},
		subnets: map[string][]string{}, secrets: map[string]string{}, clients: map[string]*ec2.Client{},
	}
	var cancel context.CancelFunc
	w.lasting, cancel = context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(cancel)
	t.Cleanup(w.http.CloseIdleConnections)
	programs := map[string]string{}
	for _, name := range []string{"garo-api", "garo-worker", "garo-reaper"} {
		programs[name] = program(t, name)
	}

	tables, queues := awstest.DynamoDB(t), awstest.ElasticMQ(t)
	w.startAWS()
	cfg := awstest.Config(t, tables, home, w.control)
	w.dynamo, w.store = dynamodb.NewFromConfig(cfg), dynamostore.New(cfg, w.table, nil)
	if err := dynamostoretest.Create(t.Context(), cfg, w.table); err != nil {
		t.Fatal(err)
	}
	w.makeQueue(awstest.Config(t, queues, home, w.control))
	sending := w.sending(queues.URL)
	t.Cleanup(w.check) // when the functions and the machines are stopped
	w.serve()
	w.register()
	prices := httptest.NewServer(simprices.Handler())
	t.Cleanup(prices.Close)

	creds, err := w.aws.Config(t, home, w.control).Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.hide("the functions' own credential", creds.SecretAccessKey)
	function := func(name string, timeout time.Duration) *runtimeapi.Function {
		return runtimeapi.New(t, runtimeapi.Config{
			Program: programs["garo-"+name], Name: controlPlane + "-" + name, Region: home, Account: w.control, Timeout: timeout, Log: &w.log,
			Recursion: recursionAllowed(t, name),
			Env: []string{
				"AWS_ACCESS_KEY_ID=" + creds.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + creds.SecretAccessKey, "AWS_SESSION_TOKEN=" + creds.SessionToken,
				"AWS_ENDPOINT_URL_EC2=" + w.aws.URL, "AWS_ENDPOINT_URL_STS=" + w.aws.URL, "AWS_ENDPOINT_URL_SSM=" + w.aws.URL,
				"AWS_ENDPOINT_URL_DYNAMODB=" + tables.URL, "AWS_ENDPOINT_URL_SQS=" + sending,
				"GARO_CONTROL_PLANE=" + controlPlane, "GARO_TABLE=" + w.table, "GARO_QUEUE_URL=" + w.queueURL, "GARO_URL=" + w.url,
				"GARO_OIDC_ISSUERS=" + w.issuerURL, "GARO_GITHUB_URL=" + w.githubURL, "GARO_PRICES_URL=" + prices.URL,
			},
		})
	}
	w.api, w.reaper = function("api", 10*time.Second), function("reaper", 50*time.Second)
	if opt.workerTimeout == 0 {
		opt.workerTimeout = 30 * time.Second
	}
	for range max(1, opt.workers) {
		w.workers = append(w.workers, function("worker", opt.workerTimeout))
	}
	t.Cleanup(w.gate.Close) // which waits for its calls, before the functions go
	t.Cleanup(func() {
		for _, m := range w.machines {
			m.stop()
		}
	})
	return w
}

// startAWS makes EC2, STS and SSM, with the role that the runner account offers.
func (w *world) startAWS() {
	w.Helper()
	w.externalID = "external-" + rand.Text()
	w.hide("the external id", w.externalID)
	demanded := cmp.Or(w.opt.externalID, w.externalID)
	w.aws = ec2proxy.Start(w.T, ec2proxy.Config{Roles: map[string]ec2proxy.Role{
		"arn:aws:iam::" + w.runners + ":role/GitHubRunnerAssumeRole": {ExternalID: demanded, SourceIdentity: "garo-" + controlPlane},
	}})
	if w.opt.aws != nil {
		around := httptest.NewServer(w.opt.aws(w.aws))
		w.Cleanup(around.Close)
		w.aws.URL = around.URL
	}
	for _, region := range []string{home, away} {
		client := w.ec2(w.runners, region)
		found, err := client.DescribeSubnets(w.Context(), nil)
		if err != nil || len(found.Subnets) < 2 {
			w.Fatalf("subnets in %s = %v, %v; want two", region, found, err)
		}
		w.subnets[region] = []string{*found.Subnets[0].SubnetId, *found.Subnets[1].SubnetId}
	}
}

// ec2 returns a client with an account's own rights.
func (w *world) ec2(account, region string) *ec2.Client {
	w.Helper()
	w.mu.Lock()
	client := w.clients[account+region]
	w.mu.Unlock()
	if client != nil {
		return client
	}
	client = ec2.NewFromConfig(w.aws.Config(w.T, region, account))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clients[account+region] = client
	return client
}

// instances returns all instances of the account in a region.
func (w *world) instances(account, region string) []types.Instance {
	w.Helper()
	out, err := w.ec2(account, region).DescribeInstances(w.lasting, &ec2.DescribeInstancesInput{})
	if err != nil {
		w.Fatal(err)
	}
	var all []types.Instance
	for _, r := range out.Reservations {
		all = append(all, r.Instances...)
	}
	return all
}

// makeQueue makes the queue and its dead letter queue.
func (w *world) makeQueue(cfg aws.Config) {
	w.Helper()
	w.sqs = sqs.NewFromConfig(cfg)
	create := func(name string, attributes map[string]string) string {
		out, err := w.sqs.CreateQueue(w.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
		if err != nil {
			w.Fatal(err)
		}
		return *out.QueueUrl
	}
	dead := create(w.table+"-dead", nil)
	out, err := w.sqs.GetQueueAttributes(w.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &dead, AttributeNames: []sqstypes.QueueAttributeName{"QueueArn"}})
	if err != nil {
		w.Fatal(err)
	}
	w.queueURL = create(w.table, map[string]string{
		"VisibilityTimeout": "47", // of a deployment
		"RedrivePolicy":     fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"%d"}`, out.Attributes["QueueArn"], queue.MaxReceives),
	})
	w.queue = sqsqueue.New(cfg, w.queueURL, dead)
}

// serve starts what has an address: the API, GitHub and the issuer of ID tokens.
func (w *world) serve() {
	w.Helper()
	listen := func(h http.Handler) *httptest.Server {
		s := httptest.NewServer(h)
		w.Cleanup(s.Close)
		return s
	}
	w.gate = listen(http.HandlerFunc(w.gateway))
	w.url = w.gate.URL

	pat := "github_pat_" + rand.Text()
	w.hide("GitHub's credential", pat)
	var err error
	if w.github, err = simgithub.New(simgithub.Config{
		Repositories:  []github.Repository{{ID: "1001", Name: shop}},
		Organizations: []simgithub.Organization{{ID: "1", Name: "acme", Groups: []simgithub.Group{{ID: groupID, Name: "garo", Repositories: []string{"1001"}}}}},
		Rules:         simgithub.Rules{Token: secret.New(pat)},
		Errorf:        w.Errorf,
	}); err != nil {
		w.Fatal(err)
	}
	w.githubURL = listen(w.github.Handler()).URL
	w.put(w.runners, "/github/runner/pat", pat)

	key, err := signingKey()
	if err != nil {
		w.Fatal(err)
	}
	issuer := listen(http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) { w.issuer.ServeHTTP(res, req) }))
	w.issuerURL = issuer.URL
	if w.issuer, err = oidctest.New(oidctest.Config{URL: issuer.URL, Key: key}); err != nil {
		w.Fatal(err)
	}
}

// put writes an SSM parameter in the region that all of them are in.
func (w *world) put(account, name, value string) {
	w.Helper()
	if _, err := ssm.NewFromConfig(w.aws.Config(w.T, home, account)).PutParameter(w.Context(), &ssm.PutParameterInput{
		Name: &name, Value: &value, Type: ssmtypes.ParameterTypeSecureString,
	}); err != nil {
		w.Fatal(err)
	}
}

// register writes the parameters of the control plane: its keys and the runner
// account's registration.
func (w *world) register() {
	w.Helper()
	idKey, key := "id-key-"+rand.Text()+rand.Text(), "key-"+rand.Text()+rand.Text()
	w.hide("the id key", idKey)
	w.hide("the key", key)
	region := func(name string) map[string]any {
		groups, err := w.ec2(w.runners, name).DescribeSecurityGroups(w.Context(), nil)
		if err != nil || len(groups.SecurityGroups) == 0 {
			w.Fatalf("security groups in %s: %v", name, err)
		}
		return map[string]any{
			"subnets": w.subnets[name], "security_groups": []string{*groups.SecurityGroups[0].GroupId}, "images": []string{publicImage, someImage},
		}
	}
	registration := map[string]any{
		"id": w.runners, "external_id": w.externalID, "server": strings.TrimPrefix(w.issuerURL, "http://"),
		"repositories": []any{map[string]any{"id": "1001", "name": shop}}, "owners": []any{map[string]any{"id": "1", "name": "acme"}},
		"regions": map[string]any{home: region(home), away: region(away)}, "default_region": home,
		"instance_types": []string{"t3a.micro", "t3a.small"}, "default_instance_types": []string{"t3a.micro"},
		"markets": []string{store.Spot, store.OnDemand}, "spot_fallback": true, "modes": []string{store.Shared, store.Ephemeral},
		"max_runners": 50, "github": map[string]any{},
	}
	maps.Copy(registration, w.opt.registration)
	if w.opt.edit != nil {
		w.opt.edit(w, registration)
	}
	for name, doc := range map[string]any{
		"/garo/keys":                  map[string]any{"id": idKey, "current": "k1", "keys": map[string]any{"k1": key}},
		"/garo/accounts/" + w.runners: registration,
	} {
		b, err := json.Marshal(doc)
		if err != nil {
			w.Fatal(err)
		}
		w.put(w.control, name, string(b))
	}
	if w.opt.webhook != "" {
		w.hide("the webhook's secret", w.opt.webhook)
		w.put(w.control, "/garo/webhook", fmt.Sprintf(`{"secrets":[%q]}`, w.opt.webhook))
	}
}

// eventually waits until something is so.
func (w *world) eventually(what string, is func() bool) {
	w.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("after %v it is still not so: %s", patience, what)
		}
	}
}

// runnersKept returns all records of runners, newest first.
func (w *world) runnersKept() []store.Runner {
	w.Helper()
	var all []store.Runner
	for item, err := range w.store.List(w.lasting, store.Filter{Kind: store.KindRunner}) {
		if err != nil {
			w.Fatal(err)
		}
		all = append(all, *item.(*store.Runner))
	}
	return all
}

// request returns the record of a request; with Version 0 there is none.
func (w *world) request(id string) store.Request {
	w.Helper()
	r, err := store.Read[store.Request](w.Context(), w.store, id)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// runner returns the runner of a request; with Version 0 there is none yet.
func (w *world) runner(s apitype.Started) store.Runner {
	w.Helper()
	r := w.request(s.ID)
	if r.Runner == "" {
		return store.Runner{}
	}
	run, err := store.Read[store.Runner](w.Context(), w.store, r.Runner)
	if err != nil {
		w.Fatal(err)
	}
	return run
}

// configured waits until the runner of a request is launched and registered.
func (w *world) configured(s apitype.Started) store.Runner {
	w.Helper()
	var run store.Runner
	w.eventually("request "+s.ID+" has a runner with an instance and a config", func() bool {
		run = w.runner(s)
		return run.InstanceID != "" && run.Config.N > 0
	})
	return run
}
