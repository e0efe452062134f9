package ec2proxy

import (
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Protect turns on the protection of an instance from termination. moto does not know
// of it: there it would end those that it comes to before the protected one.
func (p *Proxy) Protect(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.protected[id] = true
}

// terminateInstances ends instances as EC2 does: none if one of the ids is unknown, and
// of those in a zone with a protected one none either
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_TerminateInstances.html).
func (p *Proxy) terminateInstances(ctx context.Context, c *Call) (answer, error) {
	if r := p.known(c.Params); r != nil {
		return answer{}, r
	}
	refused, params, err := p.unprotected(ctx, c)
	if err != nil || refused != nil && len(ids(params)) == 0 {
		return answer{}, refusalOr(refused, err)
	}
	a, err := p.forward(ctx, c, params)
	if err != nil || a.status != http.StatusOK || c.Params.Get("DryRun") == "true" {
		return a, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	for _, id := range ids(params) {
		if p.terminated[id].IsZero() {
			p.terminated[id] = now
			p.tokens.terminated(id, now)
		}
	}
	if refused != nil {
		return answer{}, refused
	}
	return a, nil
}

func refusalOr(r *refusal, err error) error {
	if err != nil {
		return err
	}
	return r
}

// unprotected returns the parameters of a call without those instances that share a
// zone with a protected one, and the refusal that is then the answer; nil: there is none.
func (p *Proxy) unprotected(ctx context.Context, c *Call) (*refusal, url.Values, error) {
	p.mu.Lock()
	guarded := ""
	for _, id := range ids(c.Params) {
		if p.protected[id] && guarded == "" {
			guarded = id
		}
	}
	p.mu.Unlock()
	if guarded == "" {
		return nil, c.Params, nil
	}
	zones, err := p.zonesOf(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	closed := map[string]bool{}
	p.mu.Lock()
	for id, zone := range zones {
		closed[zone] = closed[zone] || p.protected[id]
	}
	p.mu.Unlock()
	left := url.Values{}
	for name, values := range c.Params {
		if !strings.HasPrefix(name, "InstanceId.") {
			left[name] = values
		}
	}
	n := 0
	for _, id := range ids(c.Params) {
		if !closed[zones[id]] {
			n++ // they are numbered without a gap
			left.Set(fmt.Sprintf("InstanceId.%d", n), id)
		}
	}
	return refuse("OperationNotPermitted", "The instance '%s' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.", guarded), left, nil
}

// zonesOf returns the zones of a call's instances, by id.
func (p *Proxy) zonesOf(ctx context.Context, c *Call) (map[string]string, error) {
	params := url.Values{"Action": {"DescribeInstances"}, "Version": {version}}
	for n, id := range ids(c.Params) {
		params.Set(fmt.Sprintf("InstanceId.%d", n+1), id)
	}
	a, err := p.ask(ctx, c, "ec2", params)
	if err != nil {
		return nil, err
	}
	var all struct {
		Instances []struct {
			ID   string `xml:"instanceId"`
			Zone string `xml:"placement>availabilityZone"`
		} `xml:"reservationSet>item>instancesSet>item"`
	}
	if err := xml.Unmarshal(a.body, &all); err != nil {
		return nil, fmt.Errorf("read moto's answer: %w", err)
	}
	zones := map[string]string{}
	for _, i := range all.Instances {
		zones[i.ID] = i.Zone
	}
	return zones, nil
}
