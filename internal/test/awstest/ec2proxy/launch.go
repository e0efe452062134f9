package ec2proxy

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// maxUserData is the most bytes of user data before base64.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html
const maxUserData = 16 << 10

var (
	instanceID    = regexp.MustCompile(`<instanceId>(i-[0-9a-f]+)</instanceId>`)
	instanceState = regexp.MustCompile(`(?s)<instanceState>.*?</instanceState>`)
	stateName     = regexp.MustCompile(`(?s)<instanceState>.*?<name>([a-z-]+)</name>`)
	architecture  = regexp.MustCompile(`<architecture>([a-z0-9_]+)</architecture>`)
	zoneName      = regexp.MustCompile(`<availabilityZone>([a-z0-9-]+)</availabilityZone>`)
)

// acceptable refuses what EC2 refuses by the parameters alone, and moto takes.
func acceptable(params url.Values) *refusal {
	switch {
	case !token64(params.Get("ClientToken")):
		return refuse("InvalidParameterValue", "Client token must be at most 64 ASCII characters")
	case params.Get("ClientToken") != "" && (params.Get("MinCount") != "1" || params.Get("MaxCount") != "1"):
		return &refusal{"NotImplemented", "ec2proxy knows client tokens of one instance alone: MinCount and MaxCount must be 1", http.StatusNotImplemented}
	case params.Get("InstanceMarketOptions.MarketType") == "spot" && params.Get("InstanceInitiatedShutdownBehavior") == "stop":
		return refuse("InvalidParameterCombination", "instance_initiated_shutdown_behavior=stop is not supported for spot instances.")
	case params.Has("NetworkInterface.1.DeviceIndex") && (params.Has("SubnetId") || params.Has("SecurityGroupId.1")):
		return refuse("InvalidParameterCombination", "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request")
	case params.Get("UserData") != "":
		data, err := base64.StdEncoding.DecodeString(params.Get("UserData"))
		if err != nil {
			return refuse("InvalidParameterValue", "Invalid BASE64 encoding of user data")
		}
		if len(data) > maxUserData {
			return refuse("InvalidParameterValue", "User data is limited to %d bytes", maxUserData)
		}
	}
	return nil
}

// runInstances launches once per client token. before is a refusal by a rule; late
// leaves the launch for later.
func (p *Proxy) runInstances(ctx context.Context, c *Call, before *refusal, late bool) (answer, error) {
	if r := acceptable(c.Params); r != nil {
		return answer{}, r
	}
	token := c.Params.Get("ClientToken")
	if token == "" || c.Params.Get("DryRun") == "true" {
		if before != nil {
			return answer{}, before
		}
		return p.launch(ctx, c)
	}
	zone, err := p.zone(ctx, c)
	if err != nil {
		return answer{}, err
	}
	s := scope{c.Account, c.Region, zone, token}
	b, err := p.hold(ctx, s, fingerprint(c.Params))
	if err != nil {
		return answer{}, err
	}
	return p.bound(ctx, c, s, b, before, late)
}

// hold returns the binding of a token, which nobody else holds until it is let go.
func (p *Proxy) hold(ctx context.Context, s scope, print string) (*binding, error) {
	for {
		p.mu.Lock()
		b, mismatch := p.tokens.find(s, print, p.cfg.Now())
		if mismatch != nil {
			p.mu.Unlock()
			return nil, mismatch
		}
		if b == nil {
			b = &binding{print: print}
			p.tokens[s] = b
		}
		busy := b.busy
		if busy == nil {
			b.busy = make(chan struct{})
			p.mu.Unlock()
			return b, nil
		}
		p.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// bound does what is left to do for a token, and lets it go.
func (p *Proxy) bound(ctx context.Context, c *Call, s scope, b *binding, before *refusal, late bool) (answer, error) {
	p.mu.Lock()
	next := *b // nobody else changes it meanwhile, but for its end
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		close(b.busy)
		b.instance, b.answer, b.until, b.late, b.busy = next.instance, next.answer, next.until, next.late, nil
		if at := p.terminated[b.instance]; !at.IsZero() {
			b.until = at.Add(bound)
		}
		if late && b.late != nil {
			p.late = append(p.late, s)
		}
	}()
	failed := c.At.Add(bound) // when the token of a launch that failed is free
	switch {
	case next.instance != "":
		return p.repeat(ctx, c, next)
	case before != nil:
		next.until = failed
		return answer{}, before
	case late:
		next.late = c
		return answer{}, nil
	}
	a, err := p.launch(ctx, c)
	next.late, next.until = nil, failed
	if m := instanceID.FindSubmatch(a.body); err == nil && a.status == http.StatusOK && m != nil {
		next.instance, next.answer, next.until = string(m[1]), a.body, time.Time{}
	}
	return a, err
}

// repeat is the answer to a call that has launched already.
func (p *Proxy) repeat(ctx context.Context, c *Call, b binding) (answer, error) {
	now, err := p.ask(ctx, c, "ec2", url.Values{"Action": {"DescribeInstances"}, "Version": {version}, "InstanceId.1": {b.instance}})
	if err != nil {
		return answer{}, err
	}
	state, name := instanceState.Find(now.body), stateName.FindSubmatch(now.body)
	p.mu.Lock()
	_, dead := p.died[b.instance]
	p.mu.Unlock()
	if dead || name == nil || string(name[1]) == "terminated" {
		return answer{}, refuse("IdempotentInstanceTerminated", "The request is associated with an instance that has terminated: %s", b.instance)
	}
	return answer{http.StatusOK, http.Header{"Content-Type": {"text/xml;charset=UTF-8"}}, instanceState.ReplaceAllLiteral(b.answer, state)}, nil
}

// launch lets moto launch, and notes when that was.
func (p *Proxy) launch(ctx context.Context, c *Call) (answer, error) {
	if err := p.mismatch(ctx, c); err != nil {
		return answer{}, err
	}
	a, err := p.forward(ctx, c, c.Params)
	if err != nil {
		return a, err
	}
	if a.status >= 400 && codeOf(a.body) == "NoSuchEntity" { // IAM's word, which moto passes on
		name := c.Params.Get("IamInstanceProfile.Name") + c.Params.Get("IamInstanceProfile.Arn")
		return answer{}, refuse("InvalidParameterValue", "Value (%s) for parameter iamInstanceProfile is invalid. Invalid IAM Instance Profile", name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range instanceID.FindAllSubmatch(a.body, -1) {
		p.launched[string(m[1])] = p.cfg.Now()
	}
	return a, nil
}

// graviton are the instance types of arm64: a1, and those with a g right behind the
// number of their generation.
// https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html
var graviton = regexp.MustCompile(`^(a1|[a-z]+[0-9]+g)`)

// mismatch refuses an image that is made for another architecture than the instance
// type has, which moto launches. An image that moto does not know suits any type.
// The words are those of https://github.com/skypilot-org/skypilot/issues/6315.
func (p *Proxy) mismatch(ctx context.Context, c *Call) error {
	a, err := p.ask(ctx, c, "ec2", url.Values{"Action": {"DescribeImages"}, "Version": {version}, "ImageId.1": {c.Params.Get("ImageId")}})
	if err != nil {
		return err
	}
	m := architecture.FindSubmatch(a.body)
	kind := "x86_64"
	if graviton.MatchString(c.Params.Get("InstanceType")) {
		kind = "arm64"
	}
	if m == nil || string(m[1]) == kind {
		return nil
	}
	return refuse("InvalidParameterValue", "The architecture '%s' of the specified instance type does not match the architecture '%s' of the specified AMI. "+
		"Specify an instance type and an AMI that have matching architectures, and try again.", kind, m[1])
}

// zone is the one that a launch asks for; empty: it leaves that to EC2.
func (p *Proxy) zone(ctx context.Context, c *Call) (string, error) {
	subnet := c.Params.Get("SubnetId") + c.Params.Get("NetworkInterface.1.SubnetId")
	if subnet == "" {
		return c.Params.Get("Placement.AvailabilityZone"), nil
	}
	key := subnetKey{c.Account, c.Region, subnet}
	p.mu.Lock()
	zone, ok := p.zones[key]
	p.mu.Unlock()
	if ok {
		return zone, nil
	}
	a, err := p.ask(ctx, c, "ec2", url.Values{"Action": {"DescribeSubnets"}, "Version": {version}, "SubnetId.1": {subnet}})
	if err != nil {
		return "", err
	}
	m := zoneName.FindSubmatch(a.body)
	if m == nil {
		return subnet, nil // which does not exist: moto will say so
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.zones[key] = string(m[1])
	return string(m[1]), nil
}

// TakeEffect launches what rules with Late have held back.
func (p *Proxy) TakeEffect(ctx context.Context) error {
	p.mu.Lock()
	scopes := p.late
	p.late = nil
	p.mu.Unlock()
	var errs []error
	for _, s := range scopes {
		p.mu.Lock()
		b := p.tokens[s]
		c := b.late
		p.mu.Unlock()
		if c == nil {
			continue // the caller asked again meanwhile
		}
		b, err := p.hold(ctx, s, b.print)
		if err == nil {
			var a answer
			if a, err = p.bound(ctx, c, s, b, nil, false); err == nil && a.status >= 400 {
				err = errors.New(strings.TrimSpace(string(a.body)))
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
