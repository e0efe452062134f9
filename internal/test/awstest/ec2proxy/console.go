package ec2proxy

import (
	"encoding/base64"
	"encoding/xml"
	"net/http"
)

// Print makes an instance print on its console, of which moto knows nothing.
func (p *Proxy) Print(id, raw string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.printed[id] += raw
}

// getConsoleOutput answers the newest 64 KB of what an instance printed
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html).
func (p *Proxy) getConsoleOutput(c *Call) (answer, error) {
	id := c.Params.Get("InstanceId")
	p.mu.Lock()
	_, launched := p.launched[id]
	raw := p.printed[id]
	p.mu.Unlock()
	switch {
	case !wellFormed.MatchString(id):
		return answer{}, refuse("InvalidInstanceID.Malformed", `Invalid id: "%s"`, id)
	case !launched || !p.sees(id):
		return answer{}, refuse("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
	}
	body, err := xml.Marshal(struct {
		XMLName   xml.Name `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ GetConsoleOutputResponse"`
		RequestID string   `xml:"requestId"`
		ID        string   `xml:"instanceId"`
		Output    string   `xml:"output"`
	}{RequestID: requestID, ID: id, Output: base64.StdEncoding.EncodeToString([]byte(raw[max(0, len(raw)-64<<10):]))})
	return answer{status: http.StatusOK, header: http.Header{"Content-Type": {"text/xml;charset=UTF-8"}}, body: body}, err
}
