package perftest

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/awshttp"
	"github.com/alphagov/github-actions-runner-orchestration/store"
	"github.com/alphagov/github-actions-runner-orchestration/store/dynamostore"
)

// frozen is a table that keeps what was put before it froze, and from then on takes
// everything and keeps nothing: each run of the reaper finds the same to do.
type frozen struct {
	mu    sync.Mutex
	ice   bool
	items map[string]json.RawMessage // by the attribute item
	due   []string
}

type attributes = map[string]json.RawMessage

// ServeHTTP implements http.Handler, for the calls that the reaper makes.
func (f *frozen) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	var in struct {
		Item, Key    attributes
		IndexName    string
		RequestItems map[string]struct{ Keys []attributes }
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := "{}"
	switch _, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), "."); action {
	case "PutItem":
		if !f.ice {
			b, _ := json.Marshal(in.Item) // as it was read
			f.items[string(in.Item["item"])] = b
			if in.Item["due"] != nil {
				f.due = append(f.due, fmt.Sprintf(`{"item":%s}`, in.Item["item"]))
			}
		}
	case "Query":
		if in.IndexName != "due" {
			break // nobody lists here
		}
		out = fmt.Sprintf(`{"Count":%d,"Items":[%s]}`, len(f.due), strings.Join(f.due, ","))
	case "GetItem":
		if item := f.items[string(in.Key["item"])]; item != nil {
			out = fmt.Sprintf(`{"Item":%s}`, item)
		}
	case "BatchGetItem":
		for table, asked := range in.RequestItems {
			var found []string
			for _, key := range asked.Keys {
				if item := f.items[string(key["item"])]; item != nil {
					found = append(found, string(item))
				}
			}
			out = fmt.Sprintf(`{"Responses":{%q:[%s]}}`, table, strings.Join(found, ","))
		}
	}
	rw.Header().Set("Content-Type", "application/x-amz-json-1.0")
	rw.Header().Set("X-Amz-Crc32", fmt.Sprint(crc32.ChecksumIEEE([]byte(out))))
	_, _ = rw.Write([]byte(out)) // to memory
}

// crowd fills a table with live runners, which need nothing, and as many
// requests that are to be sent again, and freezes it.
func crowd(b *testing.B, f *frozen, n int) {
	b.Helper()
	server := httptest.NewServer(f)
	defer server.Close()
	to := store.NewWriter(dynamostore.New(aws.Config{
		Region: "eu-west-2", BaseEndpoint: &server.URL, HTTPClient: awshttp.Client(time.Minute),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDTEST", "secret", ""),
	}, "garo-perf", nil), "setup", time.Now)
	now := time.Now()
	history := make(store.History, 8)
	for i := range history {
		history[i] = store.Entry{At: now, State: "online", Reason: "GitHub shows it online"}
	}
	for i := range n {
		id, name := fmt.Sprintf("n%c%c", 'a'+i/26, 'a'+i%26)+strings.Repeat("a", 23), store.Repository{ID: "42", Name: "octo/app", OwnerID: "7", Owner: "octo"}
		run := store.Runner{
			ID: id, State: store.RunnerOnline, CreatedAt: now, Lock: id, Request: id, Repository: name, Account: account, Region: "eu-west-2",
			Mode: store.Ephemeral, Labels: []string{"garo-0123456789ab"}, InstanceID: fmt.Sprintf("i-%017x", i),
			Launch: store.Launch{Image: "ami-0123456789abcdef0", SecurityGroups: []string{"sg-1"}, Tags: map[string]string{"Name": "garo octo/app"}, HardS: 21600},
			Config: store.Config{N: 1, Sealed: strings.Repeat("s", 5000), RunnerID: int64(i + 1)}, Boot: store.Boot{At: now}, OnlineAt: now, ListeningAt: now,
			Hard: now.Add(6 * time.Hour), History: history,
		}
		for k := range 6 {
			run.Plan = append(run.Plan, store.Placement{Market: store.Spot, InstanceType: "m7i.large", Subnet: fmt.Sprintf("subnet-0123456789abcde%d", k)})
		}
		run.DueAt = now
		lock := store.Lock{Key: id, State: store.LockLive, Runner: id, Exp: now.Add(time.Hour), ConfirmedAt: now}
		pulse := store.Pulse{Key: id, Runner: id, Seen: now.Add(time.Hour)}
		ready := store.Request{ID: id, State: store.Ready, Repository: name, Account: account, Runner: id, History: history[:3]}
		late := store.Request{
			ID: "z" + id[1:], State: store.Accepted, CreatedAt: now, Repository: name, Account: account, Region: "eu-west-2", Type: store.Spot,
			Mode: store.Ephemeral, GiveUpAt: now.Add(time.Hour), SentAt: now.Add(-10 * time.Minute), Sends: 1, History: history[:1],
		}
		late.DueAt = now.Add(-10 * time.Minute)
		for _, it := range []store.Item{&run, &lock, &pulse, &ready, &late} {
			if err := to.Commit(b.Context(), store.Put(it)); err != nil {
				b.Fatal(err)
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ice = true
}

// BenchmarkReaperMemory starts the reaper with the share of a processor that a function
// of each size has, over 200 runners that live and 200 requests that are sent again in
// each run, and prints the medians of the first run and of the next four.
func BenchmarkReaperMemory(b *testing.B) {
	serve, trust := encrypted(b)
	w, env := newWire(b, "", serve)
	table := &frozen{items: map[string]json.RawMessage{}}
	crowd(b, table, 200)
	w.table = table
	w.latency = 10 * time.Millisecond // as DynamoDB's
	env = append(env, trust)
	whole := program(b, reaper)
	type size struct {
		name, program, env string
	}
	sizes := []size{{"no limit", whole, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=1769"}}
	var how string
	for _, mb := range []int{1024, 512, 256, 128} {
		s := size{fmt.Sprintf("%d MB", mb), "", fmt.Sprintf("AWS_LAMBDA_FUNCTION_MEMORY_SIZE=%d", mb)}
		s.program, how = confined(b, whole, float64(mb)/vCPU)
		sizes = append(sizes, s)
	}
	const warm = 4
	samples := map[string][]sample{}
	for b.Loop() {
		for _, s := range sizes {
			samples[s.name] = append(samples[s.name], measure(b, s.program, append(env, s.env), warm, func() []byte { return []byte("{}") }))
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "medians of %d processes each, %s\n%-9s %9s %9s %9s %9s %9s %9s", b.N, how, "", "init ms", "first ms", "warm ms", "first CPU", "warm CPU", "RSS MB")
	for _, size := range sizes {
		s := samples[size.name]
		of := func(of func(s sample) time.Duration) float64 { return ms(median(s, of)) }
		fmt.Fprintf(&out, "\n%-9s %9.0f %9.0f %9.0f %9.0f %9.0f %9.1f", size.name,
			of(func(s sample) time.Duration { return s.init }), of(func(s sample) time.Duration { return s.first }), of(func(s sample) time.Duration { return s.warm[warm/2] }),
			of(func(s sample) time.Duration { return s.firstCPU }), of(func(s sample) time.Duration { return s.warmCPU / warm }), float64(median(s, func(s sample) int64 { return s.rss }))/1e6)
	}
	b.Log(out.String())
}
