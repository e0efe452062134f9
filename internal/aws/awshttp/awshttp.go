// Package awshttp makes the HTTP client that every AWS SDK client of GARO uses.
//
// It promises that a call whose answer has come is not lost to the way it was
// sent. The SDK closes a request's body as soon as the answer's headers are there;
// when net/http is still sending it, the connection breaks, and a write that
// succeeded comes back as an error
// (https://github.com/aws/aws-sdk-go-v2/issues/1825,
// https://github.com/aws/aws-sdk-go-v2/issues/2737). So what goes over the wire is
// a copy of the body that nobody closes, and that net/http can send again when it
// finds that an idle connection was dead before anything was written to it.
//
// It promises as well that a connection which died while it was idle costs one
// more connection, and no call: a Lambda function that was frozen wakes up with
// connections that AWS has reset meanwhile. net/http repeats a POST on another
// connection only if the request says that it may be sent twice, so every request
// says so here. That holds for all that GARO asks of AWS: reads; writes to the
// table, which prove what they replace and know their own writing again; messages,
// which a queue may deliver twice anyway; AssumeRole; TerminateInstances; and
// RunInstances, which has a client token. A call that is not so must not go
// through this package.
//
// It also bounds what no service bounds for us: the time of one exchange, and the
// bytes that are held in memory for it.
package awshttp

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"time"
)

const (
	// maxRequest bounds a request's body: TransactWriteItems takes 4 MB of items
	// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html),
	// which JSON at most doubles.
	maxRequest = 8 << 20
	// maxAnswer bounds an answer's body: BatchGetItem answers up to 16 MB of items
	// (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html).
	maxAnswer = 32 << 20

	// dialLimit is for connecting to an endpoint in the same region: a lost first
	// packet is sent again after 1 s, a second one would come after 3 s.
	dialLimit = 3 * time.Second
	// idleLimit is how long a connection is kept for the next call: between two
	// runs of the reaper, and far below the 350 s after which AWS's gateways drop
	// it without a word
	// (https://docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-troubleshooting.html).
	idleLimit = 90 * time.Second
	// idleEach is how many connections are kept for one endpoint: the calls that
	// one invocation makes at the same time, which are the reaper's commits. A new
	// one costs a millisecond of a processor.
	idleEach = 64
	// writeBuffer holds the largest call that must not be lost, RunInstances with
	// 16 KiB of user data, which base64 and escaping make 24 KiB: what fits goes to
	// the kernel in one write. Of a request that is sent in parts, a reset between
	// two of them is an error that net/http does not repeat.
	writeBuffer = 64 << 10
)

// repeatable is the header that makes net/http send a request again when the
// connection was used before and broke before an answer (Request.isReplayable and
// persistConn.shouldRetryRequest in Go 1.26.8). A list without a value is never
// sent, so that the signature is as it was.
const repeatable = "Idempotency-Key"

// Client returns a client for AWS, as the HTTPClient of an aws.Config. One
// exchange, from the connection to the last byte of the answer, takes at most
// timeout; each retry has it in full. Redirects are answers: a signed request goes
// nowhere else. It is safe for concurrent use. Its connections are its own, so a
// process has one Client, or one more for calls that take long by design.
func Client(timeout time.Duration) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: dialLimit}).DialContext
	transport.TLSHandshakeTimeout = dialLimit
	transport.IdleConnTimeout = idleLimit
	transport.MaxIdleConnsPerHost = idleEach
	transport.WriteBufferSize = writeBuffer
	// HTTP/1.1 alone: net/http sends a request that is marked as repeatable again when
	// a connection of HTTP/1.1 is reset, and not when one of HTTP/2 is, with its streams.
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	transport.ForceAttemptHTTP2 = false
	return &http.Client{
		Transport:     Transport{transport},
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Transport sends by Base what it has buffered. It is safe for concurrent use if
// Base is.
type Transport struct {
	Base http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil && req.Body != http.NoBody {
		body, err := read(req.Body)
		if err != nil {
			return nil, err
		}
		req = req.WithContext(req.Context()) // a copy: a RoundTripper leaves its request as it was
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.Body, _ = req.GetBody() // never fails
		if len(body) == 0 {
			req.Body = http.NoBody // any other body of length 0 counts as one of unknown length
		}
		req.ContentLength = int64(len(body))
		req.Header = maps.Clone(req.Header)
		if req.Header == nil {
			req.Header = http.Header{}
		}
		req.Header[repeatable] = []string{}
	}
	answer, err := t.Base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	answer.Body = http.MaxBytesReader(nil, answer.Body, maxAnswer)
	return answer, nil
}

// CloseIdleConnections lets http.Client close what it keeps.
func (t Transport) CloseIdleConnections() {
	if c, ok := t.Base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// read reads a body whole, and closes it.
func read(from io.ReadCloser) ([]byte, error) {
	defer from.Close()
	body, err := io.ReadAll(io.LimitReader(from, maxRequest+1))
	if err != nil {
		return nil, fmt.Errorf("read the request's body: %w", err)
	}
	if len(body) > maxRequest {
		return nil, fmt.Errorf("the request's body has more than %d bytes", maxRequest)
	}
	return body, nil
}
