package perftest

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/pricelist/simprices"
	"github.com/alphagov/github-actions-runner-orchestration/internal/github/simgithub"
	"github.com/alphagov/github-actions-runner-orchestration/internal/lambda/lambdatest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/oidc/oidctest"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// The services that functions call, in the order of the tables.
const (
	dynamoDB = "DynamoDB"
	sqs      = "SQS"
	ec2      = "EC2"
	sts      = "STS"
	ssm      = "SSM"
	github   = "GitHub"
	issuer   = "issuer"      // of ID tokens
	opens    = "connections" // opened ahead of their use, by a request that asks for nothing
)

var services = []string{dynamoDB, sqs, ec2, sts, ssm, github, issuer, opens}

// call is one HTTP request that left a function.
type call struct {
	service, action string
	began, ended    time.Time // when it arrived here, and when it was answered
}

// wire is all that the functions reach: an HTTP server for each service. It keeps
// count of the calls, and can make each take a fixed time. The table is DynamoDB
// Local where rules of DynamoDB matter, and lambdatest's where they do not; queue,
// EC2 and parameters answer what they are asked, and GitHub is simgithub.
type wire struct {
	t     testing.TB
	table http.Handler // nil: a table that takes everything and keeps nothing
	rest  *lambdatest.AWS
	hub   http.Handler
	jobs  *simgithub.Server // what hub serves, as runner programs see it
	ids   *oidctest.Issuer

	mu       sync.Mutex
	latency  time.Duration
	calls    []call
	messages []string // that were sent, oldest first
	userData [][]byte // of the machines that were launched
}

const (
	account = "123456789012"
	token   = "ghp_perftest"
	apiURL  = "https://garo.test"
)

// newWire returns what the functions reach, and their environment. serve starts a
// server; table is where DynamoDB Local is, or empty.
func newWire(t testing.TB, table string, serve func(http.Handler) *httptest.Server) (*wire, []string) {
	t.Helper()
	w := &wire{t: t, rest: lambdatest.New(t)}
	if table != "" {
		to, err := url.Parse(table)
		if err != nil {
			t.Fatal(err)
		}
		w.table = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	}
	hub, err := simgithub.New(simgithub.Config{Rules: simgithub.Rules{Token: secret.New(token)}, Errorf: t.Errorf})
	if err != nil {
		t.Fatal(err)
	}
	w.hub, w.jobs = hub.Handler(), hub
	env := []string{
		"AWS_ACCESS_KEY_ID=AKIDTEST", "AWS_SECRET_ACCESS_KEY=secret",
		"GARO_TABLE=garo-perf", "GARO_CONTROL_PLANE=perf", "GARO_URL=" + apiURL,
	}
	prices := serve(simprices.Handler())
	t.Cleanup(prices.Close)
	env = append(env, "GARO_PRICES_URL="+prices.URL)
	for _, service := range services {
		server := serve(w.count(service))
		t.Cleanup(server.Close)
		switch service {
		case dynamoDB, ec2, sts, ssm:
			env = append(env, "AWS_ENDPOINT_URL_"+strings.ToUpper(service)+"="+server.URL)
		case sqs:
			env = append(env, "AWS_ENDPOINT_URL_SQS="+server.URL, "GARO_QUEUE_URL="+server.URL+"/"+account+"/garo")
		case github:
			env = append(env, "GARO_GITHUB_URL="+server.URL+"/api/v3")
		case issuer:
			if w.ids, err = oidctest.New(oidctest.Config{URL: server.URL}); err != nil {
				t.Fatal(err)
			}
			env = append(env, "GARO_OIDC_ISSUERS="+server.URL)
		}
	}
	w.rest.Put("/garo/keys", `{"id": "`+strings.Repeat("i", 32)+`", "current": "k1", "keys": {"k1": "`+strings.Repeat("k", 32)+`"}}`)
	w.rest.Put("/garo/operators", "{}")
	w.rest.Put("/garo/accounts/"+account, w.registration())
	w.rest.Put("/github/runner/pat", token)
	w.rest.Put("/images/runner", "ami-0123456789abcdef0")
	return w, env
}

// registration is an account's whose image is the longer way to one: the path of a
// parameter.
func (w *wire) registration() string {
	claims, err := w.ids.Claims(apiURL)
	if err != nil {
		w.t.Fatal(err)
	}
	server, err := url.Parse(claims["iss"].(string))
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprintf(`{
		"id": %q, "external_id": "a-made-up-one", "server": %q, "repositories": [{"id": %q, "name": "acme/shop"}],
		"regions": {"eu-west-2": {"subnets": ["subnet-1"], "security_groups": ["sg-1"], "images": ["/images/runner"]}},
		"instance_types": ["c7g.large"], "default_instance_types": ["c7g.large"],
		"markets": ["ondemand"], "modes": ["shared", "ephemeral"], "max_runners": 10, "github": {}
	}`, account, server.Host, claims["repository_id"])
}

// count counts the calls of a service, and answers them after the latency.
func (w *wire) count(service string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c := call{service: service, began: time.Now()}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the function is gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		w.mu.Lock()
		latency := w.latency
		w.mu.Unlock()
		time.Sleep(latency)
		answer := httptest.NewRecorder()
		c.action = w.answer(service, answer, r, body)
		if c.action == "" {
			c.service, c.action = opens, "connection to "+service
		}
		// Counted before the function can continue, so that what comes next is later.
		c.ended = time.Now()
		w.mu.Lock()
		w.calls = append(w.calls, c)
		w.mu.Unlock()
		maps.Copy(rw.Header(), answer.Header())
		rw.WriteHeader(answer.Code)
		_, _ = rw.Write(answer.Body.Bytes()) // the function is there, or is not
	})
}

// answer answers a call and returns what was called; empty: nothing was.
func (w *wire) answer(service string, rw http.ResponseWriter, r *http.Request, body []byte) (action string) {
	if r.URL.Path == "/" && r.Method == http.MethodGet {
		return ""
	}
	_, action, _ = strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	switch service {
	case dynamoDB:
		if w.table == nil {
			answer := httptest.NewRecorder()
			w.rest.ServeHTTP(answer, r)
			rw.Header().Set("X-Amz-Crc32", fmt.Sprint(crc32.ChecksumIEEE(answer.Body.Bytes()))) // the SDK checks it
			rw.WriteHeader(answer.Code)
			_, _ = rw.Write(answer.Body.Bytes()) // to memory
		} else {
			w.table.ServeHTTP(rw, r)
		}
	case sqs:
		w.send(rw, action, body)
	case ec2:
		action = w.machines(rw, body)
	case sts:
		action = "AssumeRole"
		w.rest.ServeHTTP(rw, r)
	case ssm:
		w.rest.ServeHTTP(rw, r)
	case github:
		parts := strings.Split(r.URL.Path, "/")
		what := parts[len(parts)-1]
		if strings.Trim(what, "0123456789") == "" {
			what = strings.TrimSuffix(parts[len(parts)-2], "s") // one of them, by its id
		}
		action = r.Method + " " + what
		w.hub.ServeHTTP(rw, r)
	case issuer:
		action = "GET " + r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		w.ids.ServeHTTP(rw, r)
	}
	return action
}

// send takes a message.
func (w *wire) send(rw http.ResponseWriter, action string, body []byte) {
	if action == "SendMessageBatch" {
		w.sendAll(rw, body)
		return
	}
	var in struct{ MessageBody string }
	if err := json.Unmarshal(body, &in); err != nil || action != "SendMessage" {
		w.t.Errorf("queue: %s %s, %v", action, body, err)
	}
	w.mu.Lock()
	w.messages = append(w.messages, in.MessageBody)
	w.mu.Unlock()
	sum := md5.Sum([]byte(in.MessageBody)) // SQS's own choice
	fmt.Fprintf(rw, `{"MessageId": "m", "MD5OfMessageBody": %q}`, hex.EncodeToString(sum[:]))
}

// sendAll takes a batch of messages.
func (w *wire) sendAll(rw http.ResponseWriter, body []byte) {
	var in struct {
		Entries []struct{ Id, MessageBody string }
	}
	if err := json.Unmarshal(body, &in); err != nil {
		w.t.Errorf("queue: SendMessageBatch %s, %v", body, err)
	}
	var taken []string
	w.mu.Lock()
	for _, e := range in.Entries {
		w.messages = append(w.messages, e.MessageBody)
		sum := md5.Sum([]byte(e.MessageBody))
		taken = append(taken, fmt.Sprintf(`{"Id": %q, "MessageId": "m", "MD5OfMessageBody": %q}`, e.Id, hex.EncodeToString(sum[:])))
	}
	w.mu.Unlock()
	fmt.Fprintf(rw, `{"Successful": [%s]}`, strings.Join(taken, ","))
}

// machines launches, and knows of none that it launched: nobody asks for those here.
func (w *wire) machines(rw http.ResponseWriter, body []byte) (action string) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		w.t.Errorf("EC2: %v", err)
	}
	switch action = form.Get("Action"); action {
	case "RunInstances":
		data, err := base64.StdEncoding.DecodeString(form.Get("UserData"))
		if err != nil {
			w.t.Errorf("user data: %v", err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.userData = append(w.userData, data)
		fmt.Fprintf(rw, `<RunInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><instancesSet><item><instanceId>%s</instanceId>`+
			`<instanceState><code>0</code><name>pending</name></instanceState></item></instancesSet></RunInstancesResponse>`, instance(len(w.userData)))
	case "DescribeInstances":
		fmt.Fprint(rw, `<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><reservationSet/></DescribeInstancesResponse>`)
	case "DescribeSubnets":
		fmt.Fprint(rw, `<DescribeSubnetsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><subnetSet><item><subnetId>subnet-1</subnetId>`+
			`<availabilityZone>eu-west-2a</availabilityZone></item></subnetSet></DescribeSubnetsResponse>`)
	case "DescribeSpotPriceHistory":
		fmt.Fprint(rw, `<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><spotPriceHistorySet/></DescribeSpotPriceHistoryResponse>`)
	default:
		w.t.Errorf("EC2: %s is not known here", action)
		rw.WriteHeader(http.StatusNotImplemented)
	}
	return action
}

// instance is the id of the nth machine.
func instance(n int) string { return fmt.Sprintf("i-%017x", n) }

// setLatency gives every call from now on a time to take.
func (w *wire) setLatency(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latency = d
}

// counted returns the calls since the last time, in the order of their beginnings.
func (w *wire) counted() path {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	slices.SortFunc(calls, func(a, b call) int { return a.began.Compare(b.began) })
	return calls
}

// path is what a function called on the way to an answer, in the order of the
// beginnings.
type path []call

// of returns how many calls there were of some services.
func (p path) of(services ...string) (n int) {
	for _, c := range p {
		if slices.Contains(services, c.service) {
			n++
		}
	}
	return n
}

// actions returns what was called and how often, by name.
func (p path) actions() string {
	times := map[string]int{}
	for _, c := range p {
		times[c.action]++
	}
	var all []string
	for _, action := range slices.Sorted(maps.Keys(times)) {
		all = append(all, fmt.Sprintf("%d %s", times[action], action))
	}
	return strings.Join(all, ", ")
}

// depths returns for each call how many calls, itself included, came one after
// another until it was answered: those that it waited for had been answered when
// it began.
func (p path) depths() []int {
	depths := make([]int, len(p))
	for i, c := range p {
		for j, before := range p[:i] {
			if !before.ended.After(c.began) {
				depths[i] = max(depths[i], depths[j])
			}
		}
		depths[i]++
	}
	return depths
}

// until returns how many calls came one after another until the last of an action
// was answered; of any action, if it is empty.
func (p path) until(action string) (k int) {
	for i, depth := range p.depths() {
		if action == "" || p[i].action == action {
			k = max(k, depth)
		}
	}
	return k
}

// String shows what was called: an arrow leads from calls to those that came after
// them.
func (p path) String() string {
	var rounds []string
	depths := p.depths()
	for k := 1; slices.Contains(depths, k); k++ {
		var together []string
		for i, c := range p {
			if depths[i] == k {
				together = append(together, c.action)
			}
		}
		slices.Sort(together)
		rounds = append(rounds, strings.Join(together, " + "))
	}
	return strings.Join(rounds, " → ")
}
