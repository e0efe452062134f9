package ec2fleet_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/alphagov/github-actions-runner-orchestration/internal/aws/assume"
	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/test/awstest/ec2proxy"
)

// A role that asks for no external id is given to strangers, and a dry run of a session
// without the right says so.
func TestOpenRoleIsSeen(t *testing.T) {
	c := startWith(t, ec2proxy.Config{}, ec2proxy.Role{SourceIdentity: "garo-*"})
	f := c.part(assume.Worker, externalID)
	let, err := f.Strangers(t.Context(), here.Account)
	if err != nil || !slices.Equal(let, []string{fleet.WithoutExternalID, fleet.WithAWrongOne}) {
		t.Errorf("Strangers of an open role = %q, %v; want both ways", let, err)
	}
	if err := c.part(assume.Reaper, externalID).Vet(t.Context(), here, launch()); !errors.Is(err, fleet.ErrRefused) {
		t.Errorf("Vet by the reaper = %v, want %v", err, fleet.ErrRefused)
	}
}

func TestWayOutOfASubnetIsThatOfItsTable(t *testing.T) {
	c := start(t, ec2proxy.Config{})
	subnet, same, other := c.subnets(t, here)
	client := c.direct(t, here)
	found, err := client.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{SubnetIds: []string{subnet}})
	if err != nil {
		t.Fatal(err)
	}
	vpc := found.Subnets[0].VpcId
	gateway, err := client.CreateInternetGateway(t.Context(), &ec2.CreateInternetGatewayInput{})
	if err != nil {
		t.Fatal(err)
	}
	out := *gateway.InternetGateway.InternetGatewayId
	if _, err := client.AttachInternetGateway(t.Context(), &ec2.AttachInternetGatewayInput{InternetGatewayId: &out, VpcId: vpc}); err != nil {
		t.Fatal(err)
	}
	table, err := client.CreateRouteTable(t.Context(), &ec2.CreateRouteTableInput{VpcId: vpc})
	if err != nil {
		t.Fatal(err)
	}
	id := table.RouteTable.RouteTableId
	if _, err := client.CreateRoute(t.Context(), &ec2.CreateRouteInput{RouteTableId: id, DestinationCidrBlock: new("0.0.0.0/0"), GatewayId: &out}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.AssociateRouteTable(t.Context(), &ec2.AssociateRouteTableInput{RouteTableId: id, SubnetId: &same}); err != nil {
		t.Fatal(err)
	}
	got, err := c.part(assume.Worker, externalID).Subnets(t.Context(), here, subnet, same, other, "subnet-0none")
	if err != nil || len(got) != 3 || got[same].Out != out || got[subnet].Out != "" || got[other].Out != "" {
		t.Errorf("Subnets = %+v, %v; want the three that there are, and %s as the way out of %s alone", got, err, out, same)
	}
}

// EC2 answers a dry run with an error in any case.
func TestDryRunIsRead(t *testing.T) {
	for name, c := range map[string]struct {
		answer reply
		want   string // in the error; empty: none
	}{
		"Would":      {ec2Error(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set."), ""},
		"Would not":  {ec2Error(403, "UnauthorizedOperation", "You are not authorized to perform this operation. Encoded authorization failure message: abc"), "UnauthorizedOperation: You are not authorized to perform this operation."},
		"Image gone": {ec2Error(400, "InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist"), "InvalidAMIID.NotFound"},
		"Launched":   {reply{200, launched, nil}, "garo:runner=r1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &wire{answers: []reply{c.answer}}
			err := w.fleet().Vet(t.Context(), here, launch())
			if c.want == "" && err != nil || c.want != "" && !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("Vet = %v, want %q", err, c.want)
			}
			if call := w.calls[0]; call.Get("DryRun") != "true" || call.Get("ClientToken") == launch().ClientToken || call.Get("TagSpecification.1.Tag.1.Key") == "" {
				t.Errorf("the call = %v, want that of a launch, dry, without its token", call)
			}
		})
	}
}
