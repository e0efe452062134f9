package ec2fleet

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
)

// Console implements fleet.Fleet. It asks for what the console shows now, and of a type
// that cannot tell that, for what EC2 kept when it last looked: those that are not Nitro
// answer UnsupportedOperation, "This instance type does not support retrieving the latest
// console logs" (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-console.html).
func (f *Fleet) Console(ctx context.Context, at fleet.Place, id string) (string, error) {
	out, err := f.console(ctx, at, id, new(true))
	if e, ok := errors.AsType[*fleet.Error](err); ok && e.Code == "UnsupportedOperation" {
		out, err = f.console(ctx, at, id, nil)
	}
	if err != nil {
		return "", fmt.Errorf("read the console of instance %s in %s: %w", id, at, err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(aws.ToString(out.Output)), ""))
	if err != nil {
		return "", fmt.Errorf("read the console of instance %s in %s: EC2's answer is not base64: %w", id, at, err)
	}
	return fleet.Printed(string(raw)), nil
}

func (f *Fleet) console(ctx context.Context, at fleet.Place, id string, latest *bool) (out *ec2.GetConsoleOutputOutput, err error) {
	err = f.do(ctx, at, func(c *client, as func(*ec2.Options)) (err error) {
		out, err = c.console(ctx, &ec2.GetConsoleOutputInput{InstanceId: &id, Latest: latest}, as)
		return err
	})
	return out, err
}
