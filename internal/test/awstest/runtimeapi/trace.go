//go:build linux

package runtimeapi

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxHops is how often Lambda invokes a function in one chain of requests before it
// refuses the next invocation. AWS says about 16
// (https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html).
const maxHops = 16

// traceHeader carries the chain, from a function to SQS too: the AWS SDK copies the
// invocation's into each call (aws-sdk-go-v2 1.47.7, aws/middleware/recursion_detection.go).
const traceHeader = "X-Amzn-Trace-Id"

// lineage is the field of a trace that counts the invocations of each function in
// the chain: name:count, with commas between. AWS documents no more of it than that
// it is there, so the form is ours.
const lineage = "Lineage="

// short names the function in a lineage.
func (f *Function) short() string {
	sum := sha256.Sum256([]byte(f.ARN()))
	return hex.EncodeToString(sum[:4])
}

// field returns a field of a trace, which begins with name.
func field(trace, name string) string {
	for f := range strings.SplitSeq(trace, ";") {
		if value, ok := strings.CutPrefix(f, name); ok {
			return value
		}
	}
	return ""
}

// Hops returns how often the function was invoked in the chain of a trace.
func (f *Function) Hops(trace string) int {
	for of := range strings.SplitSeq(field(trace, lineage), ",") {
		if name, count, _ := strings.Cut(of, ":"); name == f.short() {
			hops, _ := strconv.Atoi(count) // else it is nothing of ours
			return hops
		}
	}
	return 0
}

// follow returns the trace of the next invocation: a new one, or the next link of
// the chain of after. It fails with an *Error where Lambda sees a loop.
func (f *Function) follow(now time.Time, after string) (string, error) {
	hops := f.Hops(after)
	if hops >= maxHops && !f.cfg.Recursion {
		return "", &Error{"RecursiveInvocationException", fmt.Sprintf("%s was invoked %d times in one chain of requests", f.cfg.Name, hops)}
	}
	var counts []string
	for of := range strings.SplitSeq(field(after, lineage), ",") {
		if name, _, _ := strings.Cut(of, ":"); name != "" && name != f.short() {
			counts = append(counts, of)
		}
	}
	counts = append(counts, f.short()+":"+strconv.Itoa(hops+1))
	root := cmp.Or(field(after, "Root="), fmt.Sprintf("1-%08x-%s", now.Unix(), token(12)))
	return "Root=" + root + ";Parent=" + token(8) + ";Sampled=0;" + lineage + strings.Join(counts, ","), nil
}

// Traces is what SQS remembers of the messages that functions send: it delivers the
// trace header of a SendMessage with the message, as its attribute AWSTraceHeader
// (https://docs.aws.amazon.com/xray/latest/devguide/xray-services-sqs.html). The
// zero value remembers none. It is safe for concurrent use.
type Traces struct {
	mu sync.Mutex
	of map[string]string // by the message's id
}

// Of returns the trace of a message, or nothing if it was sent with none.
func (t *Traces) Of(message string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of[message]
}

// Around stands in front of a stand-in of SQS, at its address, for functions to
// send through.
func (t *Traces) Around(address string) (http.Handler, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) },
		ModifyResponse: func(resp *http.Response) error {
			if resp.Request.Header.Get("X-Amz-Target") != "AmazonSQS.SendMessage" || resp.StatusCode != http.StatusOK {
				return nil
			}
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			resp.Body = io.NopCloser(bytes.NewReader(b))
			var sent struct{ MessageId string }
			if err := json.Unmarshal(b, &sent); err != nil || sent.MessageId == "" {
				return fmt.Errorf("answer to SendMessage %.100q: want a MessageId (%v)", b, err)
			}
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.of == nil {
				t.of = map[string]string{}
			}
			t.of[sent.MessageId] = resp.Request.Header.Get(traceHeader)
			return nil
		},
	}, nil
}
