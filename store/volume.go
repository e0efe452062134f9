package store

import (
	"fmt"
	"strconv"
	"strings"
)

// Volume is a root volume as a registration wants it. What is zero is the image's choice,
// or EC2's for the type. It is encrypted, and deleted with its machine.
type Volume struct {
	// SizeGB is in GiB, as EC2 counts. An image with a larger one has its own.
	SizeGB int    `json:"size_gb,omitempty"`
	Type   string `json:"type,omitempty"` // gp3, gp2, io1 or io2
	IOPS   int    `json:"iops,omitempty"`
	// Throughput and InitializationRate are in MiB a second: of the volume, and of its
	// filling from the image's snapshot.
	Throughput         int `json:"throughput,omitempty"`
	InitializationRate int `json:"initialization_rate,omitempty"`
}

// Root is an image's root volume.
type Root struct {
	Device string // such as /dev/xvda
	SizeGB int    // the least that a volume of it may have
	Arch   string // of the image, in EC2's word, such as X86; empty: it suits any
}

// String returns what v asks for; empty: nothing.
func (v Volume) String() string {
	var parts []string
	add := func(n int, unit string) {
		if n > 0 {
			parts = append(parts, strconv.Itoa(n)+unit)
		}
	}
	add(v.SizeGB, " GiB")
	if v.Type != "" {
		parts = append(parts, v.Type)
	}
	add(v.IOPS, " IOPS")
	add(v.Throughput, " MiB/s")
	add(v.InitializationRate, " MiB/s initialization")
	return strings.Join(parts, ", ")
}

// MaxVolumeGB is the largest volume of any type, in GiB
// (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_EbsBlockDevice.html).
const MaxVolumeGB = 65_536

// span is from the least to the most. The zero value holds zero alone.
type span struct{ min, max int }

// holds reports whether n was not said, or is in the span.
func (s span) holds(n int) bool { return n == 0 || s.min <= n && n <= s.max }

func (s span) String() string {
	if s == (span{}) {
		return "none with this type"
	}
	return fmt.Sprintf("%d to %d", s.min, s.max)
}

// kind is what EC2 lets a type of root volume have, by the same page: GiB, IOPS, and MiB a
// second.
type kind struct{ size, iops, throughput span }

// kinds are the types that a root volume can have; "" leaves the type to the image.
var kinds = map[string]kind{
	"":    {size: span{1, MaxVolumeGB}},
	"gp3": {span{1, MaxVolumeGB}, span{3000, 80_000}, span{125, 2000}},
	"gp2": {size: span{1, 16_384}},
	"io1": {size: span{4, 16_384}, iops: span{100, 64_000}},
	"io2": {size: span{4, MaxVolumeGB}, iops: span{100, 256_000}},
}

// rates are those at which EC2 fills a volume, in MiB a second.
var rates = span{100, 300}

// check returns every fault of a root volume, whose name in the registration is name.
func (v Volume) check(name string) []error {
	k, known := kinds[v.Type]
	if !known {
		return []error{fmt.Errorf("%s.type: %q: want gp3, gp2, io1 or io2", name, v.Type)}
	}
	var errs []error
	for _, f := range []struct {
		name string
		n    int
		may  span
	}{
		{"size_gb", v.SizeGB, k.size}, {"iops", v.IOPS, k.iops}, {"throughput", v.Throughput, k.throughput}, {"initialization_rate", v.InitializationRate, rates},
	} {
		if !f.may.holds(f.n) {
			errs = append(errs, fmt.Errorf("%s.%s: %d: want %v", name, f.name, f.n, f.may))
		}
	}
	if strings.HasPrefix(v.Type, "io") && v.IOPS == 0 {
		errs = append(errs, fmt.Errorf("%s.iops: type %s needs them: want %v", name, v.Type, k.iops))
	}
	return errs
}
