package store

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/form"
)

// MachineOptions is what a registration says of all machines of its account. The zero
// value leaves each choice to EC2 and the image.
type MachineOptions struct {
	// InstanceRequirements are the rules by which instance types are chosen that nobody
	// names. nil: they are named.
	InstanceRequirements *Requirements `json:"instance_requirements,omitempty"`
	// MaxRootVolumeGB is the most GiB that a request may ask for. Zero: requests
	// may not say.
	MaxRootVolumeGB int `json:"max_root_volume_gb,omitempty"`
	// Tags are on each instance, its volumes and its network interface, beside GARO's own.
	Tags map[string]string `json:"tags,omitempty"`
	// RequestTags are the keys that a request may give a value; one that Tags has, too,
	// has its value there unless the request says otherwise.
	RequestTags []string `json:"request_tags,omitempty"`
	// SpotMaxPrice is the most that a spot machine may cost, in US dollars an hour. Empty:
	// the on-demand price, which is EC2's own bound.
	SpotMaxPrice string `json:"spot_max_price,omitempty"`
	// CPUCredits is how a burstable type pays for bursts: Standard or Unlimited. Empty:
	// as the AWS account has it. Other types have no credits, and are launched without.
	CPUCredits string `json:"cpu_credits,omitempty"`
	// Tenancy is Dedicated, or empty for shared hardware.
	Tenancy string `json:"tenancy,omitempty"`
	// HopLimit is over how many network hops the metadata service answers: 2 lets containers
	// reach it, for JobsRole. Zero: 1.
	HopLimit int `json:"hop_limit,omitempty"`
	// BootLimitS is how many seconds a machine has from its launch to its first call, and
	// BootLimitsS the same by instance type. Zero or absent: Limits.BootLimit, and six
	// times that for bare metal.
	BootLimitS  int            `json:"boot_limit,omitempty"`
	BootLimitsS map[string]int `json:"boot_limits,omitempty"`
	// FallbackRegions are tried, in order, for an ephemeral request that names none, when
	// every placement of its own region is without capacity.
	FallbackRegions []string `json:"fallback_regions,omitempty"`
}

// Region is what an account offers in one region.
type Region struct {
	Subnets        []string `json:"subnets"`
	SecurityGroups []string `json:"security_groups"`
	// Images are allowed: an AMI id, or the path of an SSM parameter that holds
	// one. The first is the default.
	Images []string `json:"images"`
	// InstanceProfile is given to every machine. Empty: none, and the machine
	// has no AWS rights.
	InstanceProfile string `json:"instance_profile,omitempty"`
	RootVolume      Volume `json:"root_volume,omitzero"`
	// AssociatePublicIP is whether machines get a public IPv4 address. nil: as the subnet
	// says.
	AssociatePublicIP *bool `json:"associate_public_ip,omitempty"`
	// CapacityReservation is the id of a reservation or the ARN of a group of them, for
	// on-demand machines, or "open" or "none", as EC2 has these. Empty: as EC2 does.
	CapacityReservation string `json:"capacity_reservation,omitempty"`
}

// The words of MachineOptions, which are EC2's
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html).
const (
	Standard  = "standard"
	Unlimited = "unlimited"
	Dedicated = "dedicated"
)

// LaunchOptions is what of that is frozen in a launch. The zero value adds nothing to the
// call, as in records of versions before it.
type LaunchOptions struct {
	// RootDevice is what the image calls its root volume. Empty: the volume is as the
	// image has it, and RootVolume is zero.
	RootDevice          string `json:"root_device,omitempty"`
	RootVolume          Volume `json:"root_volume,omitzero"`
	TagInterface        bool   `json:"tag_interface,omitempty"` // the network interface has the tags as well
	SpotMaxPrice        string `json:"spot_max_price,omitempty"`
	CPUCredits          string `json:"cpu_credits,omitempty"`
	Tenancy             string `json:"tenancy,omitempty"`
	CapacityReservation string `json:"capacity_reservation,omitempty"`
	HopLimit            int    `json:"hop_limit,omitempty"` // of the metadata service; zero: 1
	// PublicIP is whether the machine gets a public IPv4 address. nil: as its subnet says.
	PublicIP *bool `json:"public_ip,omitempty"`
}

// On returns the options with the root volume on an image's. The image's size is the
// least: EC2 makes no volume that is smaller than its snapshot.
func (o LaunchOptions) On(root Root) LaunchOptions {
	o.RootDevice = root.Device
	if o.RootVolume.SizeGB > 0 {
		o.RootVolume.SizeGB = max(o.RootVolume.SizeGB, root.SizeGB)
	}
	return o
}

// Options returns what a launch for r is to have, and all tags of it that are not GARO's
// own. Its root volume is not on an image's yet: see LaunchOptions.On.
func (a Account) Options(r Request) (LaunchOptions, map[string]string) {
	region := a.Regions[r.Region]
	o := LaunchOptions{
		RootVolume: region.RootVolume, SpotMaxPrice: a.SpotMaxPrice, CPUCredits: a.CPUCredits, Tenancy: a.Tenancy,
		CapacityReservation: region.CapacityReservation, PublicIP: region.AssociatePublicIP, HopLimit: a.HopLimit,
	}
	if r.Machine.RootVolumeGB > 0 {
		o.RootVolume.SizeGB = r.Machine.RootVolumeGB
	}
	tags := map[string]string{}
	maps.Copy(tags, a.Tags)
	maps.Copy(tags, r.Machine.Tags)
	o.TagInterface = len(tags) > 0
	return o, tags
}

// permitsOptions is Permits for what a request says beside names from lists.
func (a Account) permitsOptions(m Machine) (field, what string, ok bool) {
	if m.RootVolumeGB > a.MaxRootVolumeGB {
		return "root_volume_gb", strconv.Itoa(m.RootVolumeGB), false
	}
	for _, k := range slices.Sorted(maps.Keys(m.Tags)) {
		if !slices.Contains(a.RequestTags, k) {
			return "tags", k, false
		}
	}
	return a.permitsRequirements(m)
}

// Describe returns what of the options and tags shows to people, by the name that the
// registration has for it.
func (l Launch) Describe() map[string]string {
	o, out := l.Options, map[string]string{}
	for name, v := range map[string]string{
		"spot_max_price": o.SpotMaxPrice, "cpu_credits": o.CPUCredits, "tenancy": o.Tenancy, "capacity_reservation": o.CapacityReservation,
		"root_volume": o.RootVolume.String(),
	} {
		if v != "" {
			out[name] = v
		}
	}
	if o.PublicIP != nil {
		out["associate_public_ip"] = strconv.FormatBool(*o.PublicIP)
	}
	if o.HopLimit > 1 {
		out["hop_limit"] = strconv.Itoa(o.HopLimit)
	}
	var tags []string
	for _, k := range slices.Sorted(maps.Keys(l.Tags)) {
		if !ownTag(k) {
			tags = append(tags, k+"="+l.Tags[k])
		}
	}
	if len(tags) > 0 {
		out["tags"] = strings.Join(tags, ", ")
	}
	return out
}

var (
	priceForm       = form.Form{{Of: form.Digit, Min: 1, Max: 4}, {Text: ".", Of: form.Digit, Min: 1, Max: 6}}
	wholePriceForm  = form.Form{{Of: form.Digit, Min: 1, Max: 4}}
	reservationForm = form.Form{{Text: "cr-", Of: form.Lower + form.Digit, Min: 1, Max: 40}}
)

// priceOf returns a price in dollars. ok is false unless it is one that EC2 takes: more
// than $0.001 (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_SpotMarketOptions.html).
func priceOf(s string) (dollars float64, ok bool) {
	if !priceForm.Fits(s) && !wholePriceForm.Fits(s) {
		return 0, false
	}
	dollars, err := strconv.ParseFloat(s, 64)
	return dollars, err == nil && dollars > 0.001
}

// checkOptions returns every fault of what a registration says of its machines.
func (a Account) checkOptions() []error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(a.MaxRootVolumeGB >= 0 && a.MaxRootVolumeGB <= MaxVolumeGB, "max_root_volume_gb: %d: want 1 to %d, or nothing", a.MaxRootVolumeGB, MaxVolumeGB)
	if err := CheckTags(a.Tags); err != nil {
		errs = append(errs, fmt.Errorf("tags: %w", err))
	}
	for _, k := range a.RequestTags {
		if err := checkTagKey(k); err != nil {
			errs = append(errs, fmt.Errorf("request_tags: %w", err))
		}
	}
	want(len(a.Tags)+len(a.RequestTags) <= maxTags, "tags, request_tags: want at most %d keys in all", maxTags)
	if _, ok := priceOf(a.SpotMaxPrice); a.SpotMaxPrice != "" {
		want(ok, "spot_max_price: %q: want US dollars an hour, above 0.001, such as 0.25", a.SpotMaxPrice)
	}
	want(slices.Contains([]string{"", Standard, Unlimited}, a.CPUCredits), "cpu_credits: %q: want %s or %s", a.CPUCredits, Standard, Unlimited)
	want(a.Tenancy == "" || a.Tenancy == Dedicated, "tenancy: %q: want %s, or nothing for shared hardware", a.Tenancy, Dedicated)
	want(a.HopLimit >= 0 && a.HopLimit <= 2, "hop_limit: %d: want 1, or 2 for containers", a.HopLimit)
	want(a.HopLimit < 2 || a.JobsRole, "hop_limit: %d: only with jobs_role, since containers then have the machine's role", a.HopLimit)
	errs = append(errs, a.InstanceRequirements.check()...)
	errs = append(errs, a.checkBootLimits()...)
	errs = append(errs, a.checkFallback()...)
	for _, name := range slices.Sorted(maps.Keys(a.Regions)) {
		r := a.Regions[name]
		errs = append(errs, r.RootVolume.check("regions."+name+".root_volume")...)
		want(validReservation(r.CapacityReservation), "regions.%s.capacity_reservation: %q: want cr-…, the ARN of a group of them, open or none", name, r.CapacityReservation)
	}
	return errs
}

// validReservation reports whether s names a capacity reservation, or how EC2 chooses one.
func validReservation(s string) bool {
	return slices.Contains([]string{"", "open", "none"}, s) || reservationForm.Fits(s) ||
		strings.HasPrefix(s, "arn:") && strings.Contains(s, ":resource-groups:") && strings.Contains(s, ":group/") && len(s) <= 200
}
