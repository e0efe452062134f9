//go:build linux

package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/agent"
)

// watchPeriod is how often EC2 is asked whether it will reclaim the machine. It
// says so two minutes ahead and recommends to ask every five seconds; with three,
// it is reported within five
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html).
const watchPeriod = 3 * time.Second

// metadata is the instance metadata service, version 2: each call carries a token
// that a PUT gets, which no forged GET can.
type metadata struct {
	base  string
	http  *http.Client
	token string
}

func newMetadata(base string) *metadata {
	return &metadata{
		base: strings.TrimRight(base, "/"),
		http: &http.Client{
			// No proxy: the service is on the link. It answers in milliseconds.
			Transport:     &http.Transport{MaxIdleConns: 1},
			Timeout:       2 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

var (
	errAbsent  = errors.New("there is no such item")
	errToken   = errors.New("the token is not accepted")
	instanceID = regexp.MustCompile(`\Ai-[0-9a-f]{8,17}\z`)
)

// instanceID returns the id of this instance.
func (m *metadata) instanceID(ctx context.Context) (string, error) {
	b, err := m.get(ctx, "meta-data/instance-id")
	if err != nil {
		return "", err
	}
	if !instanceID.Match(b) {
		return "", errors.New("read instance-id: not an instance id")
	}
	return string(b), nil
}

// identity returns AWS's signed word for this instance
// (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-identity-documents.html).
func (m *metadata) identity(ctx context.Context) (string, error) {
	b, err := m.get(ctx, "dynamic/instance-identity/rsa2048")
	return string(b), err
}

// get reads an item. It fails with errAbsent when there is none.
func (m *metadata) get(ctx context.Context, item string) ([]byte, error) {
	var b []byte
	var err error
	for range 2 { // a token that is refused is replaced once
		if m.token == "" {
			token, err := m.call(ctx, http.MethodPut, "/latest/api/token", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			if err != nil {
				return nil, fmt.Errorf("metadata token: %w", err)
			}
			m.token = string(token)
		}
		b, err = m.call(ctx, http.MethodGet, "/latest/"+item, "X-Aws-Ec2-Metadata-Token", m.token)
		if !errors.Is(err, errToken) {
			break
		}
		m.token = ""
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", item, err)
	}
	return b, nil
}

func (m *metadata) call(ctx context.Context, method, path, header, value string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, m.base+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set(header, value)
	res, err := m.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 8<<10)) // items are a line or two, and AWS's word 2 KB
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode == http.StatusNotFound:
		return nil, errAbsent
	case res.StatusCode == http.StatusUnauthorized:
		return nil, errToken
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	return b, nil
}

// watch delivers each kind of announcement once, until ctx ends.
func (m *Machine) watch(ctx context.Context, imds *metadata) {
	defer imds.http.CloseIdleConnections()
	tick := time.NewTicker(watchPeriod)
	defer tick.Stop()
	told := map[string]bool{}
	for {
		for _, c := range []struct{ kind, item, field string }{
			{agent.NoticeSpot, "meta-data/spot/instance-action", "time"},
			{agent.NoticeRebalance, "meta-data/events/recommendations/rebalance", "noticeTime"},
		} {
			if told[c.kind] {
				continue
			}
			b, err := imds.get(ctx, c.item)
			if err != nil {
				if !errors.Is(err, errAbsent) && ctx.Err() == nil {
					m.log.Debug("metadata not read", slog.Any("error", err))
				}
				continue
			}
			told[c.kind] = true
			var says map[string]string
			var at time.Time
			if json.Unmarshal(b, &says) == nil {
				at, _ = time.Parse(time.RFC3339, says[c.field]) // without a time it is an announcement too
			}
			m.notices <- agent.Notice{Kind: c.kind, At: at} // it has room for one of each kind
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
