package ssmparam

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// Script returns the set-up script at a path below <prefix>/setup: the values of the
// parameters right below it, joined in the order of their names, in base64. One
// parameter has at most 8 KB, and none may have {{
// (https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html).
// It is kept for five minutes. One that is elsewhere, is not there, may not be read or is
// too long is none, which a line of the log tells: what waits for it cannot have it
// later either. An error is an outage. The script is the caller's not to change.
func (p *Parameters) Script(ctx context.Context, path string) ([]byte, error) {
	if !strings.HasPrefix(path, p.prefix+"/setup/") {
		p.log.Error("set-up script cannot be used", "path", path, "error", "want a path below "+p.prefix+"/setup")
		return nil, nil
	}
	b, err := p.scripts.Get(ctx, path, false, func(ctx context.Context, _ []byte) ([]byte, time.Time, error) {
		b, err := p.script(ctx, path)
		if final := final(err); final != nil {
			p.log.Error("set-up script cannot be used", "path", path, "error", final)
			return nil, p.now().Add(againIn), nil
		}
		if err != nil {
			return nil, time.Time{}, err
		}
		script, err := base64.StdEncoding.DecodeString(string(b)) // which skips the ends of lines
		if err != nil || len(script) == 0 || len(script) > store.MaxLongScript {
			p.log.Error("set-up script cannot be used", "path", path, "bytes", len(script), "most", store.MaxLongScript, "error", err)
			return nil, p.now().Add(againIn), nil
		}
		return script, p.now().Add(keepFor), nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the parameters below %s: %w", path, err)
	}
	return b, nil
}

func (p *Parameters) script(ctx context.Context, path string) ([]byte, error) {
	in := &ssm.GetParametersByPathInput{Path: &path, WithDecryption: new(true), MaxResults: new(int32(10))} // 10 is SSM's most
	var parts []types.Parameter
	for size := 0; size <= 2*store.MaxLongScript; { // which base64 and its line ends never fill
		out, err := p.list(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, found := range out.Parameters {
			if found.Name != nil && found.Value != nil {
				parts = append(parts, found)
				size += len(*found.Value)
			}
		}
		if out.NextToken == nil || *out.NextToken == "" {
			break
		}
		in.NextToken = out.NextToken
	}
	slices.SortFunc(parts, func(a, b types.Parameter) int { return strings.Compare(*a.Name, *b.Name) })
	var b bytes.Buffer
	for _, part := range parts {
		b.WriteString(*part.Value)
	}
	return b.Bytes(), nil
}
