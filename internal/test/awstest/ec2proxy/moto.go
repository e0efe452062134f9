package ec2proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// forward lets moto answer a call, with these parameters.
func (p *Proxy) forward(ctx context.Context, c *Call, params url.Values) (answer, error) {
	body, kind := c.Body, "application/x-amz-json-1.1"
	if c.target == "" {
		body, kind = params.Encode(), "application/x-www-form-urlencoded; charset=utf-8"
	}
	return p.send(ctx, c.accessKey, c.Region, c.Service, kind, c.target, body)
}

// ask makes a call of its own with the credentials of c.
func (p *Proxy) ask(ctx context.Context, c *Call, service string, params url.Values) (answer, error) {
	return p.send(ctx, c.accessKey, c.Region, service, "application/x-www-form-urlencoded; charset=utf-8", "", params.Encode())
}

func (p *Proxy) send(ctx context.Context, accessKey, region, service, kind, target, body string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, "POST", p.upstream+"/", strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", kind)
	if target != "" {
		req.Header.Set("X-Amz-Target", target)
	}
	// moto looks at the names in a signature alone.
	req.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/20260101/%s/%s/aws4_request, SignedHeaders=host, Signature=none", accessKey, region, service))
	resp, err := p.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	if resp.StatusCode >= 500 && !bytes.Contains(b, []byte("<Code>")) {
		return answer{}, fmt.Errorf("moto cannot do this: %s", strings.TrimSpace(string(b[:min(len(b), 500)])))
	}
	header := http.Header{}
	for _, name := range []string{"Content-Type", "X-Amzn-Requestid", "X-Amzn-Errortype"} {
		if v := resp.Header.Values(name); v != nil {
			header[name] = v
		}
	}
	return answer{resp.StatusCode, header, b}, nil
}

var identity = regexp.MustCompile(`(?s)<Arn>([^<]+)</Arn>.*<Account>(\d{12})</Account>|<Account>(\d{12})</Account>.*<Arn>([^<]+)</Arn>`)

// caller returns whose credentials a call has.
func (p *Proxy) caller(ctx context.Context, c *Call) (caller, error) {
	p.mu.Lock()
	who, ok := p.callers[c.accessKey]
	p.mu.Unlock()
	if ok {
		return who, nil
	}
	a, err := p.ask(ctx, c, "sts", url.Values{"Action": {"GetCallerIdentity"}, "Version": {"2011-06-15"}})
	if err != nil {
		return caller{}, err
	}
	m := identity.FindSubmatch(a.body)
	if m == nil {
		return caller{}, fmt.Errorf("moto knows nobody by these credentials: %s", a.body)
	}
	who = caller{account: string(m[2]) + string(m[3]), arn: string(m[1]) + string(m[4])}
	p.mu.Lock()
	p.callers[c.accessKey] = who
	p.mu.Unlock()
	return who, nil
}
