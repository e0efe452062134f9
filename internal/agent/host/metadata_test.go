//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
)

// fakeMetadata is the metadata service, as strict as the real one about tokens.
type fakeMetadata struct {
	*testing.T
	mu     sync.Mutex
	items  map[string]string // by path; 404 for any other
	down   bool
	token  int // the number of the token that is valid
	status int // to answer instead; 0: none
	calls  int
}

func (f *fakeMetadata) RoundTrip(req *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.down {
		return nil, errors.New("no route to host")
	}
	status, text := http.StatusOK, ""
	item, ok := strings.CutPrefix(req.URL.Path, "/latest/meta-data/")
	if !ok {
		item, ok = strings.CutPrefix(req.URL.Path, "/latest/dynamic/")
	}
	switch {
	case req.URL.Path == "/latest/api/token" && req.Method == http.MethodPut && req.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") == "21600":
		f.token++
		text = fmt.Sprintf("token-%d", f.token)
	case !ok || req.Method != http.MethodGet:
		f.Errorf("call %s %s with %v", req.Method, req.URL, req.Header)
		status = http.StatusBadRequest
	case req.Header.Get("X-aws-ec2-metadata-token") != fmt.Sprintf("token-%d", f.token):
		status = http.StatusUnauthorized
	case f.status != 0:
		status = f.status
	case f.items[item] == "":
		status = http.StatusNotFound
	default:
		text = f.items[item]
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text)), Request: req}, nil
}

// change lets something else be so from now on.
func (f *fakeMetadata) change(what func(*fakeMetadata)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	what(f)
}

func fakeIMDS(t *testing.T, items map[string]string) (*fakeMetadata, *metadata) {
	f := &fakeMetadata{T: t, items: items}
	m := newMetadata("http://169.254.169.254/")
	m.http.Transport = f
	return f, m
}

func TestIdentityIsReadWithAToken(t *testing.T) {
	word := strings.Repeat("MIAGCSqGSIb3DQEHAqCAMIACAQExDzANBglghkgBZQMEAgEFADCABgkqhkiG9w0BBwGggCSABIIB\n", 90) // more than any is
	b := newBox(t)
	m := b.open()
	f, imds := fakeIMDS(t, map[string]string{"instance-identity/rsa2048": word})
	m.imds = imds
	if got, err := m.Identity(t.Context()); got != word || err != nil {
		t.Errorf("Identity = %d bytes, %v; want all %d", len(got), err, len(word))
	}
	f.change(func(f *fakeMetadata) { f.token++; f.items["instance-identity/rsa2048"] = "another" })
	if got, err := m.Identity(t.Context()); got != "another" || err != nil {
		t.Errorf("Identity = %q, %v; want what there is now, with a new token", got, err)
	}
	f.change(func(f *fakeMetadata) { delete(f.items, "instance-identity/rsa2048") })
	if got, err := m.Identity(t.Context()); got != "" || !errors.Is(err, errAbsent) {
		t.Errorf("Identity = %q, %v; want that there is none", got, err)
	}
	f.change(func(f *fakeMetadata) { f.down, f.calls = true, 0 })
	if _, err := m.Identity(t.Context()); err == nil || f.calls != 1 {
		t.Errorf("Identity of a service that is away = %v after %d calls, want an error after one", err, f.calls)
	}
}

// What a proxy answered would be the word for another machine.
func TestMetadataIsAskedForPastAnyProxy(t *testing.T) {
	transport, ok := newMetadata("http://169.254.169.254").http.Transport.(*http.Transport)
	if !ok || transport.Proxy != nil {
		t.Error("calls of the metadata service may go through a proxy")
	}
}

func TestInstanceIDIsAskedForOnce(t *testing.T) {
	const id = "i-0123456789abcdef0"
	b := newBox(t)
	m := b.open()
	f, imds := fakeIMDS(t, map[string]string{"instance-id": id})
	m.imds = imds
	for range 2 {
		if got, err := m.InstanceID(t.Context()); got != id || err != nil {
			t.Errorf("InstanceID = %q, %v; want %s", got, err, id)
		}
	}
	if f.calls != 2 {
		t.Errorf("%d calls, want one for the token and one for the id", f.calls)
	}
	m = b.open() // another process, which may be unable to reach the service
	f, m.imds = fakeIMDS(t, nil)
	if got, err := m.InstanceID(t.Context()); got != id || err != nil || f.calls != 0 {
		t.Errorf("InstanceID = %q, %v after %d calls; want %s from the disk", got, err, f.calls, id)
	}
}

func TestInstanceIDIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, imds := fakeIMDS(t, map[string]string{"instance-id": "i-0123456789abcdef0"})
		m := &Machine{cfg: Config{Dir: t.TempDir()}, imds: imds}
		f.down = true
		start := time.Now()
		go func() {
			time.Sleep(10 * time.Second)
			f.change(func(f *fakeMetadata) { f.down = false })
		}()
		if _, err := m.InstanceID(t.Context()); err != nil || time.Since(start) > 12*time.Second {
			t.Errorf("InstanceID = %v after %v, want none after 10 s or little more", err, time.Since(start))
		}
	})
}

func TestInstanceIDIsNotWaitedForForEver(t *testing.T) {
	for name, change := range map[string]func(*fakeMetadata){
		"Down":   func(f *fakeMetadata) { f.down = true },
		"Absent": func(f *fakeMetadata) { delete(f.items, "instance-id") },
		"Broken": func(f *fakeMetadata) { f.status = http.StatusInternalServerError },
		"NoID":   func(f *fakeMetadata) { f.items["instance-id"] = "<html>" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, imds := fakeIMDS(t, map[string]string{"instance-id": "i-0123456789abcdef0"})
				change(f)
				m := &Machine{cfg: Config{Dir: t.TempDir()}, imds: imds}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if id, err := m.InstanceID(ctx); err == nil {
					t.Errorf("InstanceID = %q, want an error", id)
				}
			})
		})
	}
}

func TestMetadataTokenIsReplacedWhenRefused(t *testing.T) {
	f, m := fakeIMDS(t, map[string]string{"x": "y"})
	if _, err := m.get(t.Context(), "meta-data/x"); err != nil {
		t.Fatalf("get: %v", err)
	}
	f.token = 7 // the first token is no longer valid
	if got, err := m.get(t.Context(), "meta-data/x"); string(got) != "y" || err != nil {
		t.Errorf("get = %q, %v; want y", got, err)
	}
	f.status = http.StatusUnauthorized
	if _, err := m.get(t.Context(), "meta-data/x"); !errors.Is(err, errToken) {
		t.Errorf("get = %v, want %v", err, errToken)
	}
	if _, err := m.get(t.Context(), "meta-data/absent"); err == nil {
		t.Error("get succeeded, want an error")
	}
}

func TestNoticesAreDeliveredOnceEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, imds := fakeIMDS(t, map[string]string{})
		m := &Machine{log: slog.New(slog.DiscardHandler), notices: make(chan agent.Notice, 2)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			m.watch(ctx, imds)
			close(done)
		}()
		pass := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		want := func(want ...agent.Notice) {
			t.Helper()
			synctest.Wait()
			var got []agent.Notice
			for len(m.notices) > 0 {
				got = append(got, <-m.notices)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("notices = %v, want %v", got, want)
			}
		}
		at := time.Date(2026, 11, 23, 12, 2, 0, 0, time.UTC)
		pass(time.Minute)
		want()
		f.change(func(f *fakeMetadata) {
			f.items["events/recommendations/rebalance"] = `{"noticeTime": "2026-11-23T12:02:00Z"}`
			f.down = true
		})
		pass(time.Minute)
		want()
		f.change(func(f *fakeMetadata) { f.down = false })
		pass(watchPeriod)
		want(agent.Notice{Kind: agent.NoticeRebalance, At: at})
		f.change(func(f *fakeMetadata) {
			f.items["spot/instance-action"] = `{"action": "terminate", "time": "2026-11-23T12:02:00Z"}`
		})
		pass(watchPeriod)
		want(agent.Notice{Kind: agent.NoticeSpot, At: at})
		pass(time.Minute)
		want()
		cancel()
		<-done
	})
}

func TestNoticeWithoutATimeIsANotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, imds := fakeIMDS(t, map[string]string{"spot/instance-action": "soon"})
		m := &Machine{log: slog.New(slog.DiscardHandler), notices: make(chan agent.Notice, 2)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			m.watch(ctx, imds)
			close(done)
		}()
		if got := <-m.notices; got.Kind != agent.NoticeSpot || !got.At.IsZero() {
			t.Errorf("notice = %+v, want one without a time", got)
		}
		cancel()
		<-done
	})
}
