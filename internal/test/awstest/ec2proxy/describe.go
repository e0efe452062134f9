package ec2proxy

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// version is EC2's API.
	version = "2016-11-15"
	// visible is about how long EC2 shows an instance after its end.
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/terminating-instances.html
	visible = time.Hour
)

// wellFormed is an instance id of today's form or the old one.
var wellFormed = regexp.MustCompile(`^i-([0-9a-f]{8}|[0-9a-f]{17})$`)

// mimicked are the filters of DescribeInstances that moto has too; those that it
// has not are ours, or refused.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
var mimicked = []string{
	"architecture", "availability-zone", "dns-name", "image-id", "instance-id", "instance-state-name", "instance-type",
	"instance.group-id", "instance.group-name", "ip-address", "key-name", "owner-id", "private-dns-name", "private-ip-address",
	"state-reason-code", "subnet-id", "tag-key", "tag-value", "vpc-id",
}

// reservation is what filters and views need of one, and all of it.
type reservation struct {
	Inner     string `xml:",innerxml"`
	Instances []struct {
		ID        string `xml:"instanceId"`
		Token     string `xml:"clientToken"`
		Lifecycle string `xml:"instanceLifecycle"` // empty: on demand
		Profile   string `xml:"iamInstanceProfile>arn"`
	} `xml:"instancesSet>item"`
}

// filter is one of ours.
type filter struct {
	name   string
	values []string
}

func (f filter) passes(r reservation) bool {
	return slices.ContainsFunc(f.values, func(pattern string) bool {
		for _, i := range r.Instances {
			got := map[string]string{"client-token": i.Token, "instance-lifecycle": i.Lifecycle, "iam-instance-profile.arn": i.Profile}[f.name]
			if got != "" && like(pattern, got) {
				return true
			}
		}
		return false
	})
}

// split takes the filters that moto lacks out of the parameters, and paging, which
// has to come behind them.
func split(params url.Values) (rest url.Values, ours []filter, refused *refusal) {
	rest = url.Values{}
	at := 0 // of the last filter that stays
	for name, values := range params {
		if !strings.HasPrefix(name, "Filter.") && name != "MaxResults" && name != "NextToken" {
			rest[name] = values
		}
	}
	for n := 1; params.Has(fmt.Sprintf("Filter.%d.Name", n)); n++ {
		f := filter{name: params.Get(fmt.Sprintf("Filter.%d.Name", n))}
		for v := 1; params.Has(fmt.Sprintf("Filter.%d.Value.%d", n, v)); v++ {
			f.values = append(f.values, params.Get(fmt.Sprintf("Filter.%d.Value.%d", n, v)))
		}
		switch {
		case len(f.values) > 200: // https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
			return nil, nil, refuse("FilterLimitExceeded", "The maximum number of filter values specified on a single call is 200")
		case f.name == "client-token" || f.name == "instance-lifecycle" || f.name == "iam-instance-profile.arn":
			ours = append(ours, f)
		case slices.Contains(mimicked, f.name) || strings.HasPrefix(f.name, "tag:"):
			at++
			rest.Set(fmt.Sprintf("Filter.%d.Name", at), f.name)
			for v, value := range f.values {
				rest.Set(fmt.Sprintf("Filter.%d.Value.%d", at, v+1), value)
			}
		default:
			return nil, nil, refuse("InvalidParameterValue", "The filter '%s' is invalid, or ec2proxy does not know it", f.name)
		}
	}
	return rest, ours, nil
}

// page returns the reservations of one page, and the token of the next one; empty:
// there is none.
func page(all []reservation, params url.Values) ([]reservation, string, *refusal) {
	start, size := 0, len(all)
	if text := params.Get("MaxResults"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 5 || n > 1000 {
			return nil, "", refuse("InvalidParameterValue", "Value ( %s ) for parameter maxResults is invalid. Expecting a value between 5 and 1000.", text)
		}
		if params.Has("InstanceId.1") {
			return nil, "", refuse("InvalidParameterCombination", "The parameter instancesSet cannot be used with the parameter maxResults")
		}
		size = n
	}
	if token := params.Get("NextToken"); token != "" {
		last, err := base64.StdEncoding.DecodeString(token)
		i := slices.IndexFunc(all, func(r reservation) bool { return r.Instances[0].ID == string(last) })
		if err != nil || i < 0 {
			return nil, "", refuse("InvalidParameterValue", "Invalid value '%s' for nextToken", token)
		}
		start = i + 1
	}
	end := min(start+size, len(all))
	if end == len(all) {
		return all[start:end], "", nil
	}
	return all[start:end], base64.StdEncoding.EncodeToString([]byte(all[end-1].Instances[0].ID)), nil
}

// ids returns the instances that a call names.
func ids(params url.Values) []string {
	var all []string
	for n := 1; params.Has(fmt.Sprintf("InstanceId.%d", n)); n++ {
		all = append(all, params.Get(fmt.Sprintf("InstanceId.%d", n)))
	}
	return all
}

// known refuses ids that are none, and those of instances that the view does not
// have yet, or no longer.
func (p *Proxy) known(params url.Values) *refusal {
	for _, id := range ids(params) {
		if !wellFormed.MatchString(id) {
			return refuse("InvalidInstanceID.Malformed", `Invalid id: "%s"`, id)
		}
		if !p.sees(id) {
			return refuse("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
		}
	}
	return nil
}

// sees reports whether the view has an instance now, as far as its age goes.
func (p *Proxy) sees(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	launched, terminated := p.launched[id], p.terminated[id]
	return now.Sub(launched) >= p.cfg.Lag && (terminated.IsZero() || now.Sub(terminated) < visible)
}

func (p *Proxy) describeInstances(ctx context.Context, c *Call) (answer, error) {
	if r := p.known(c.Params); r != nil {
		return answer{}, r
	}
	params, filters, r := split(c.Params)
	if r != nil {
		return answer{}, r
	}
	a, err := p.forward(ctx, c, params)
	if err != nil || a.status != http.StatusOK {
		return a, err
	}
	var all struct {
		Reservations []reservation `xml:"reservationSet>item"`
	}
	if err := xml.Unmarshal(a.body, &all); err != nil {
		return answer{}, fmt.Errorf("read moto's answer: %w", err)
	}
	shown := slices.DeleteFunc(all.Reservations, func(r reservation) bool {
		return len(r.Instances) == 0 || !p.sees(r.Instances[0].ID) || slices.ContainsFunc(filters, func(f filter) bool { return !f.passes(r) })
	})
	shown, next, r := page(shown, c.Params)
	if r != nil {
		return answer{}, r
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/%s/"><requestId>%s</requestId><reservationSet>`, version, requestID)
	for _, r := range shown {
		fmt.Fprintf(&b, "<item>%s</item>", p.asDied(r))
	}
	b.WriteString("</reservationSet>")
	if next != "" {
		fmt.Fprintf(&b, "<nextToken>%s</nextToken>", next)
	}
	b.WriteString("</DescribeInstancesResponse>")
	a.body = b.Bytes()
	return a, nil
}

// reason is EC2's for the end of an instance.
type reason struct{ code, message string }

var (
	stateReason = regexp.MustCompile(`(?s)<stateReason>.*?</stateReason>`)
	transition  = regexp.MustCompile(`(?s)<reason>.*?</reason>|<reason/>`)
)

// Die ends an instance by EC2's doing, at once, for a reason as those of
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html. For
// moto it lives on: filters by state do not see its end.
func (p *Proxy) Die(id, code, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	p.died[id], p.terminated[id] = reason{code, message}, now
	p.tokens.terminated(id, now)
}

// asDied returns a reservation of one instance, as dead as that is.
func (p *Proxy) asDied(r reservation) string {
	p.mu.Lock()
	why, dead := p.died[r.Instances[0].ID]
	p.mu.Unlock()
	if !dead {
		return r.Inner
	}
	var code, message bytes.Buffer
	_ = xml.EscapeText(&code, []byte(why.code)) // a buffer takes all
	_ = xml.EscapeText(&message, []byte(why.message))
	inner := transition.ReplaceAllLiteralString(stateReason.ReplaceAllLiteralString(r.Inner, ""), "")
	return instanceState.ReplaceAllLiteralString(inner, fmt.Sprintf(
		"<instanceState><code>48</code><name>terminated</name></instanceState><stateReason><code>%s</code><message>%s</message></stateReason>", &code, &message))
}
