package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// region examines whether machines can be launched in a region of an account.
func (d *Doctor) region(ctx context.Context, at fleet.Place) []store.Finding {
	a, err := d.Accounts.Account(ctx, at.Account)
	if err != nil {
		return []store.Finding{skipped(RegionCheck, "", "The registration cannot be read.")}
	}
	r, has := a.Regions[at.Region]
	registered := judgeRegion(has, len(r.Subnets), d.Vouches(at.Region))
	if !has {
		return []store.Finding{registered}
	}
	found := append([]store.Finding{registered}, d.sweep(ctx, at)...)
	if err := d.Fleet.TakeOn(ctx, at.Account); err != nil {
		return append(found, skipped(DryRun, "", roleless))
	}
	found = append(found, d.subnets(ctx, at, r)...)
	ami := ""
	for n, image := range r.Images {
		id, finding := d.image(ctx, at, image, a.DefaultInstanceTypes)
		if found = append(found, finding); n == 0 {
			ami = id
		}
	}
	if ami == "" {
		return append(found, skipped(DryRun, "", "There is no image to launch."))
	}
	return append(found, d.dryRuns(ctx, at, a, ami)...)
}

func judgeRegion(has bool, subnets int, vouches bool) store.Finding {
	switch {
	case !has:
		return failed(RegionCheck, "", "The registration does not have this region.", "Add the region to the registration, or name one that it has.")
	case !vouches:
		return failed(RegionCheck, "", "This version of GARO has no certificate of AWS for the region: no machine boots there.", "Use another region, or a version of GARO that knows this one.")
	case subnets == 0:
		return failed(RegionCheck, "", "The registration has no subnet in this region.", "Complete the registration.")
	}
	return ok(RegionCheck, "", plural(subnets, "subnet")+", and AWS's certificate is known.")
}

func (d *Doctor) subnets(ctx context.Context, at fleet.Place, r store.Region) []store.Finding {
	known, err := d.Fleet.Subnets(ctx, at, r.Subnets...)
	var found []store.Finding
	for _, id := range r.Subnets {
		s, has := known[id]
		found = append(found, judgeSubnet(id, s, has, r.AssociatePublicIP, err))
	}
	return found
}

// fewAddresses is below how many free addresses a subnet is nearly full: a burst of EC2's
// own pace takes as many in ten seconds.
const fewAddresses = 20

func judgeSubnet(id string, s fleet.Subnet, has bool, public *bool, err error) store.Finding {
	gets := s.Public
	if public != nil {
		gets = *public
	}
	about := strings.TrimSpace(id + " " + s.Zone)
	switch {
	case err != nil:
		return refusedOr(Subnet, id, err)
	case !has:
		return failed(Subnet, id, "EC2 does not show it in this region of the account.", remedyFor("InvalidSubnetID"))
	case s.Out == "":
		return failed(Subnet, about, "It has no default route: machines in it reach neither the API nor GitHub.", "Give its route table a default route to a NAT gateway or an internet gateway, or name another subnet.")
	case strings.HasPrefix(s.Out, "igw-") && !gets:
		return failed(Subnet, about, "Its way out is the internet gateway "+s.Out+", and machines get no public address.", "Set associate_public_ip in the registration, or name a subnet behind a NAT gateway.")
	case s.Free == 0:
		return failed(Subnet, about, "It has no free address.", remedyFor("InsufficientFreeAddressesInSubnet"))
	case s.Free < fewAddresses:
		return warn(Subnet, about, fmt.Sprintf("It has %d free addresses.", s.Free), remedyFor("InsufficientFreeAddressesInSubnet"))
	}
	return ok(Subnet, about, fmt.Sprintf("%d free addresses, out by %s.", s.Free, s.Out))
}

// image looks at an image, and returns its id; empty: it cannot be launched.
func (d *Doctor) image(ctx context.Context, at fleet.Place, image string, types []string) (string, store.Finding) {
	id, err := d.Fleet.Image(ctx, at, image)
	var ami fleet.AMI
	if err == nil {
		ami, err = d.Fleet.AMI(ctx, at, id)
	}
	finding := judgeImage(d.Now(), image, id, ami, types, err)
	if err != nil {
		id = ""
	}
	return id, finding
}

func judgeImage(now time.Time, image, id string, ami fleet.AMI, types []string, err error) store.Finding {
	about := image
	if id != image && id != "" {
		about += " = " + id
	}
	other := ""
	for _, t := range types {
		if ami.Architecture != "" && ami.Architecture != archOf(t) {
			other = t
			break
		}
	}
	const rename = "Change the registration's images."
	switch {
	case err != nil:
		return refusedOr(Image, about, err)
	case ami.State != "available":
		return failed(Image, about, "Its state is "+ami.State+".", rename)
	case ami.RootDevice == "":
		return failed(Image, about, "It has no root device.", rename)
	case other != "":
		return failed(Image, about, fmt.Sprintf("It is made for %s, and the default instance type %s is not.", ami.Architecture, other), "Name an image of the instance types' architecture, or instance types of the image's.")
	case !ami.DeprecatedAt.IsZero() && ami.DeprecatedAt.Before(now):
		return warn(Image, about, "Its owner deprecated it on "+ami.DeprecatedAt.UTC().Format(time.DateOnly)+".", "Build or choose a newer image: this one may be gone any day.")
	}
	return ok(Image, about, strings.TrimSpace("Available "+ami.Architecture)+", root device "+ami.RootDevice+".")
}

// archOf returns the architecture of an instance type, in EC2's words. Those of arm64 are
// a1, and those with a g right behind the number of their generation
// (https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html).
func archOf(instanceType string) string {
	series := strings.TrimLeft(instanceType, "abcdefghijklmnopqrstuvwxyz")
	generation := strings.TrimLeft(series, "0123456789")
	if strings.HasPrefix(instanceType, "a1") || series != instanceType && generation != series && strings.HasPrefix(generation, "g") {
		return "arm64"
	}
	return "x86_64"
}

const (
	// mostDryRuns bounds the dry runs of a region: they take from the same bucket as
	// launches do, five at once and two a second
	// (https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html).
	mostDryRuns = 8
	// firstTypes is how many instance types are tried.
	firstTypes = 3
	// ec2Pace is the time between two of them.
	ec2Pace = 500 * time.Millisecond
)

// dryRuns asks EC2 for each placement whether it would launch.
func (d *Doctor) dryRuns(ctx context.Context, at fleet.Place, a store.Account, ami string) []store.Finding {
	options, tags := a.Options(store.Request{Region: at.Region})
	if options.RootVolume != (store.Volume{}) {
		root, err := d.Fleet.RootVolume(ctx, at, ami)
		if err != nil {
			return []store.Finding{refusedOr(DryRun, ami, err)}
		}
		options = options.On(root)
	}
	r := a.Regions[at.Region]
	maps.Copy(tags, map[string]string{
		"Name": "garo doctor", fleet.TagControlPlane: d.ControlPlane, fleet.TagRunner: "doctor", fleet.TagRequest: "doctor", fleet.TagRepository: "doctor",
	})
	var found []store.Finding
	for n, p := range placements(a, r) {
		if n > 0 && sleep.For(ctx, cmp.Or(time.Duration(a.Pacing.IntervalMS)*time.Millisecond, ec2Pace)) != nil {
			return append(found, skipped(DryRun, p.String(), "There was no time left."))
		}
		found = append(found, judgeDryRun(p, d.Fleet.Vet(ctx, at, fleet.Launch{
			Market: p.Market, InstanceType: p.InstanceType, Subnet: p.Subnet, Image: ami, SecurityGroups: r.SecurityGroups,
			InstanceProfile: r.InstanceProfile, Tags: tags, UserData: []byte("#!/bin/sh\n"), Options: options,
		})))
	}
	return found
}

// placements returns what is tried: each market in each subnet with the first instance type,
// and the next types in the first subnet.
func placements(a store.Account, r store.Region) (all []store.Placement) {
	types := a.DefaultInstanceTypes[:min(firstTypes, len(a.DefaultInstanceTypes))]
	for n, t := range types {
		for _, m := range a.Markets {
			for i, s := range r.Subnets {
				if n == 0 || i == 0 && m == a.Markets[0] {
					all = append(all, store.Placement{Market: m, InstanceType: t, Subnet: s})
				}
			}
		}
	}
	return all[:min(mostDryRuns, len(all))]
}

func judgeDryRun(p store.Placement, err error) store.Finding {
	if err == nil {
		return ok(DryRun, p.String(), "EC2 would take the launch.")
	}
	return refusedOr(DryRun, p.String(), err)
}

// refusedOr is the finding about what EC2 refuses, or had no answer for.
func refusedOr(check, about string, err error) store.Finding {
	refused, answered := errors.AsType[*fleet.Error](err)
	switch {
	case errors.Is(err, fleet.ErrThrottled):
		return skipped(check, about, "EC2 is asked too often just now.")
	case errors.Is(err, fleet.ErrCapacity):
		return warn(check, about, said(refused), remedyFor(refused.Code))
	case answered && errors.Is(err, fleet.ErrRefused):
		return failed(check, about, said(refused), remedyFor(refused.Code))
	}
	return unread(check, about, err)
}

func said(e *fleet.Error) string { return e.Code + ": " + e.Text }

// remedies says what to do about what EC2 says, by its code or the begin of it.
var remedies = []struct{ code, remedy string }{
	{"AuthFailure.ServiceLinkedRoleCreationNotPermitted", "Create the role once in the account: aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"},
	{"UnauthorizedOperation", "Apply the Terraform module modules/account of this version in the account. If it is, look for a policy of the organisation, or a permissions boundary, that denies it."},
	{"AccessDenied", "Apply the Terraform module modules/account of this version in the account. If it is, look for a policy of the organisation, or a permissions boundary, that denies it."},
	{"AuthFailure", "Check that the region is enabled in the account, and that the account may use the image, the subnet and the security groups."},
	{"InvalidAMIID", "Change the registration's images: an image is of one region, and public or shared with the account."},
	{"ImageParameter", "Change the registration's images, or the parameter that they name."},
	{"InvalidSubnetI", "Change the registration's subnets: a subnet is of one region."},
	{"InvalidGroup", "Change the registration's security_groups: they are of the subnet's VPC."},
	{"InvalidSecurityGroupI", "Change the registration's security_groups: they are of the subnet's VPC."},
	{"InvalidKMSKey", "Allow the account's role, and for spot the role AWSServiceRoleForEC2Spot, to use the key of the image and of the account's EBS encryption."},
	{"Client.InvalidKMSKey", "Allow the account's role, and for spot the role AWSServiceRoleForEC2Spot, to use the key of the image and of the account's EBS encryption."},
	{"InsufficientFreeAddressesInSubnet", "Use a larger subnet, or more of them."},
	{"VcpuLimitExceeded", "Have the account's vCPU quota raised in Service Quotas."},
	{"MaxSpotInstanceCountExceeded", "Have the account's spot quota raised in Service Quotas."},
	{"Unsupported", "Name another instance type, or a subnet in a zone that has this one."},
	{"InvalidParameterValue", "Correct what EC2 names in the registration."},
}

// remedyFor returns what to do about a code of EC2.
func remedyFor(code string) string {
	for _, r := range remedies {
		if strings.HasPrefix(code, r.code) {
			return r.remedy
		}
	}
	return "Do what EC2's words ask for in the registration or the account, and run garo doctor again."
}

func plural(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "ch"):
		return fmt.Sprintf("%d %ses", n, what)
	case strings.HasSuffix(what, "ry"):
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(what, "y"))
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func sortedKeys(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }
