package awshttp_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/awshttp"
)

// patience is far more than any test here takes.
const patience = 2 * time.Minute

// early is a server that answers a PutItem before it has read it: it sends the
// head of its answer and half of the body, reads the request once the SDK has
// closed it, and then sends the rest. It returns its URL, and what it read of the
// last request.
func early(t *testing.T, closed <-chan struct{}) (url string, read *atomic.Int64) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	read = new(atomic.Int64)
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				in := bufio.NewReaderSize(conn, 16)
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: 2\r\n\r\n{")
				select {
				case <-closed:
				case <-time.After(patience):
				}
				n, _ := io.Copy(io.Discard, req.Body)
				read.Store(n)
				_, _ = io.WriteString(conn, "}")
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return "http://" + l.Addr().String(), read
}

func put(ctx context.Context, url string, client aws.HTTPClient, size int) error {
	api := dynamodb.NewFromConfig(aws.Config{
		Region: "eu-west-2", BaseEndpoint: &url, HTTPClient: client, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	_, err := api.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: new("t"),
		Item:      map[string]types.AttributeValue{"item": &types.AttributeValueMemberS{Value: strings.Repeat("x", size)}},
	})
	return err
}

// telling is a client that tells when the body of its requests is closed.
type telling struct {
	*http.Client
	closed chan<- struct{}
}

func (c telling) Do(r *http.Request) (*http.Response, error) {
	r.Body = &closer{Reader: r.Body, close: sync.OnceFunc(func() { c.closed <- struct{}{} }), inner: r.Body}
	return c.Client.Do(r)
}

func TestWriteThatIsAnsweredEarlySucceeds(t *testing.T) {
	const size = 6 << 20 // more than the buffers of a loopback connection hold
	closed := make(chan struct{}, 2)
	url, read := early(t, closed)
	client := awshttp.Client(patience)
	defer client.CloseIdleConnections()
	if err := put(t.Context(), url, telling{client, closed}, size); err != nil {
		t.Errorf("PutItem = %v, want nil: the server answered 200", err)
	}
	if got := read.Load(); got <= size {
		t.Errorf("the server read %d bytes, want more than the %d of the item", got, size)
	}
	// What the transport is there for: without it the same write is an error.
	bare := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer bare.CloseIdleConnections()
	if err := put(t.Context(), url, telling{bare, closed}, size); err == nil {
		t.Error("PutItem without the transport = nil: the SDK closes bodies early no more, so the transport can go")
	}
}

func TestBodiesArriveWholeAndAtOnceFromMany(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength < 0 {
			http.Error(w, "no length", http.StatusLengthRequired)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("the server read %d bytes: %v", len(body), err)
		}
		_, _ = w.Write(body)
	}))
	defer server.Close()
	client := awshttp.Client(patience)
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for n := range 32 {
		wg.Go(func() {
			want := bytes.Repeat([]byte{byte('a' + n)}, n*4096)
			// No type that net/http knows the length of.
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, io.MultiReader(bytes.NewReader(want)))
			if err != nil {
				t.Error(err)
				return
			}
			answer, err := client.Do(req)
			if err != nil {
				t.Errorf("body of %d bytes: %v", len(want), err)
				return
			}
			defer answer.Body.Close()
			if got, err := io.ReadAll(answer.Body); err != nil || !bytes.Equal(got, want) {
				t.Errorf("body of %d bytes came back as %d, %v", len(want), len(got), err)
			}
		})
	}
	wg.Wait()
}

// roundTripper is a function as a http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// closer calls close when a body is closed.
type closer struct {
	io.Reader
	close func()
	inner io.Closer
}

func (c *closer) Close() error {
	err := c.inner.Close()
	c.close()
	return err
}

func TestBodyCanBeSentAgainAndTheCallersRequestIsLeftAlone(t *testing.T) {
	closed := false
	body := &closer{Reader: strings.NewReader("body"), inner: http.NoBody, close: func() { closed = true }}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://aws", body)
	req.ContentLength = -1
	tr := awshttp.Transport{Base: roundTripper(func(sent *http.Request) (*http.Response, error) {
		if sent.ContentLength != 4 {
			t.Errorf("Content-Length = %d, want 4", sent.ContentLength)
		}
		for range 3 {
			again, err := sent.GetBody()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(again); string(got) != "body" || err != nil {
				t.Errorf("body sent again = %q, %v; want body", got, err)
			}
		}
		_ = sent.Body.Close() // as net/http may, before it has sent all
		if got, err := io.ReadAll(sent.Body); string(got) != "body" || err != nil {
			t.Errorf("body after Close = %q, %v; want body", got, err)
		}
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	})}
	if _, err := tr.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	if !closed || req.Body != body || req.ContentLength != -1 || req.GetBody != nil {
		t.Errorf("body closed: %v; request changed: %+v; want it closed, and the request as it was", closed, req)
	}
}

func TestRequestWithoutBodyIsSentAsItIs(t *testing.T) {
	for _, body := range []io.ReadCloser{nil, http.NoBody} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://aws", nil)
		req.Body = body
		tr := awshttp.Transport{Base: roundTripper(func(sent *http.Request) (*http.Response, error) {
			if sent != req {
				t.Error("the request was copied, want the same one")
			}
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		})}
		if _, err := tr.RoundTrip(req); err != nil {
			t.Error(err)
		}
	}
}

func TestBodyThatCannotBeReadIsNotSent(t *testing.T) {
	broken := errors.New("broken")
	for name, body := range map[string]io.Reader{
		"fails":    io.MultiReader(strings.NewReader("half"), readError{broken}),
		"too long": io.LimitReader(endless{}, 8<<20+1),
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://aws", body)
		tr := awshttp.Transport{Base: roundTripper(func(*http.Request) (*http.Response, error) {
			t.Errorf("%s: it was sent", name)
			return nil, broken
		})}
		if _, err := tr.RoundTrip(req); err == nil {
			t.Errorf("%s: no error", name)
		} else if name == "fails" && !errors.Is(err, broken) {
			t.Errorf("%s: %v, want its cause", name, err)
		}
	}
}

type readError struct{ error }

func (e readError) Read([]byte) (int, error) { return 0, e.error }

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestAnswerBeyondTheBoundIsAnError(t *testing.T) {
	for size, fits := range map[int64]bool{32 << 20: true, 32<<20 + 1: false} {
		tr := awshttp.Transport{Base: roundTripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(io.LimitReader(endless{}, size))}, nil
		})}
		answer, err := tr.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://aws", nil))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, answer.Body); (err == nil) != fits {
			t.Errorf("answer of %d bytes: read %d, %v; want all of it: %v", size, n, err, fits)
		}
	}
}

func TestErrorOfTheBaseIsTheError(t *testing.T) {
	refused := errors.New("refused")
	tr := awshttp.Transport{Base: roundTripper(func(*http.Request) (*http.Response, error) { return nil, refused })}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://aws", strings.NewReader("x"))
	if _, err := tr.RoundTrip(req); !errors.Is(err, refused) {
		t.Errorf("RoundTrip = %v, want %v", err, refused)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	var opened atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	client := awshttp.Client(patience)
	defer client.CloseIdleConnections()
	for range 5 {
		answer, err := client.Post(server.URL, "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
	}
	if got := opened.Load(); got != 1 {
		t.Errorf("5 calls opened %d connections, want 1", got)
	}
	client.CloseIdleConnections()
	if _, err := client.Get(server.URL); err != nil {
		t.Fatal(err)
	}
	if got := opened.Load(); got != 2 {
		t.Errorf("after CloseIdleConnections %d connections were opened, want 2", got)
	}
}

func TestSilentServerEndsTheCallAtTheTimeout(t *testing.T) {
	done := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-done }))
	defer server.Close()
	defer close(done)
	_, err := awshttp.Client(50 * time.Millisecond).Get(server.URL)
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
		t.Errorf("Get = %v, want a timeout", err)
	}
}

func TestRedirectIsAnAnswer(t *testing.T) {
	server := httptest.NewServer(http.RedirectHandler("http://elsewhere.invalid/", http.StatusTemporaryRedirect))
	defer server.Close()
	answer, err := awshttp.Client(patience).Post(server.URL, "text/plain", strings.NewReader("signed"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusTemporaryRedirect {
		t.Errorf("status = %d, want the redirect itself", answer.StatusCode)
	}
}

// BenchmarkPost is what the copy of a body costs.
func BenchmarkPost(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			body := strings.Repeat("x", size)
			tr := awshttp.Transport{Base: roundTripper(func(r *http.Request) (*http.Response, error) {
				_, err := io.Copy(io.Discard, r.Body)
				return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, err
			})}
			b.ReportAllocs()
			for b.Loop() {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://aws", strings.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := tr.RoundTrip(req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
