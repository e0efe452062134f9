// Package simprices stands for AWS's price list, in local mode and in tests: the index and a
// file of each region, in AWS's form, with prices that are made up. They grow with the size
// of a machine as AWS's do, and are no offer.
package simprices

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// version is that of every file. They never change.
const version = "20260101000000"

// large is what an hour of a machine of the size large costs, by its family. A family that
// is not in it has no price.
var large = map[string]store.MicroUSD{
	"t3": 94_400, "t3a": 85_000, "t4g": 75_200,
	"c5": 101_000, "c6a": 91_000, "c6g": 80_800, "c6i": 101_000, "c7a": 121_600, "c7g": 86_000, "c7i": 106_000,
	"m5": 111_000, "m6a": 99_900, "m6g": 89_000, "m6i": 111_000, "m7a": 133_700, "m7g": 94_400, "m7i": 116_600,
	"r6g": 118_400, "r7g": 125_600, "r7i": 155_400, "g4dn": 307_500, "g5": 588_500,
}

// sizes are what a size costs, in hundredths of a large one.
var sizes = map[string]store.MicroUSD{
	"nano": 6, "micro": 12, "small": 25, "medium": 50, "large": 100, "xlarge": 200, "2xlarge": 400, "4xlarge": 800, "8xlarge": 1600,
}

// Hour returns the on-demand price of an hour of an instance type, in every region; zero: it
// has none.
func Hour(instanceType string) store.MicroUSD {
	family, size, _ := strings.Cut(instanceType, ".")
	return large[family] * sizes[size] / 100
}

// Types returns all instance types that have a price, sorted.
func Types() (types []string) {
	for family := range large {
		for size := range sizes {
			types = append(types, family+"."+size)
		}
	}
	slices.Sort(types)
	return types
}

// SpotHour returns the spot price in a zone: 35 to 45 hundredths of the on-demand one, by the
// zone's name.
func SpotHour(instanceType, zone string) store.MicroUSD {
	sum := 0
	for _, b := range []byte(zone) {
		sum += int(b)
	}
	return Hour(instanceType) * store.MicroUSD(35+sum%11) / 100
}

// regions are those that the list has. Of another one, no price is known.
var regions = []string{
	"ap-northeast-1", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1", "eu-north-1", "eu-south-2",
	"eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1", "us-east-1", "us-east-2", "us-west-2",
}

// Handler serves the price list.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /offers/v1.0/aws/AmazonEC2/current/region_index.json", func(w http.ResponseWriter, _ *http.Request) {
		var entries []string
		for _, r := range regions {
			entries = append(entries, fmt.Sprintf(`%q: {"regionCode": %q, "currentVersionUrl": "/offers/v1.0/aws/AmazonEC2/%s/%s/index.json"}`, r, r, version, r))
		}
		fmt.Fprintf(w, `{"formatVersion": "v1.0", "publicationDate": "2026-01-01T00:00:00Z", "regions": {%s}}`, strings.Join(entries, ",\n"))
	})
	mux.HandleFunc("GET /offers/v1.0/aws/AmazonEC2/"+version+"/{region}/index.csv", func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(regions, r.PathValue("region")) {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "index.csv", time.Time{}, bytes.NewReader(files()[r.PathValue("region")]))
	})
	return mux
}

// columns are some of those that AWS's files have, in their order.
var columns = []string{
	"SKU", "OfferTermCode", "TermType", "PriceDescription", "Unit", "PricePerUnit", "Currency", "Product Family", "Location Type",
	"Instance Type", "Tenancy", "Operating System", "License Model", "CapacityStatus", "MarketOption", "Pre Installed S/W", "Region Code",
}

// files are those of all regions: a simulation reads them thousands of times.
var files = sync.OnceValue(func() map[string][]byte {
	all := map[string][]byte{}
	for _, r := range regions {
		all[r] = File(r)
	}
	return all
})

// File returns the price file of a region: beside the price that counts, each instance type
// has rows that do not, as in AWS's files.
func File(region string) []byte {
	var b bytes.Buffer
	b.WriteString("\"FormatVersion\",\"v1.0\"\n\"Disclaimer\",\"made up\"\n\"Publication Date\",\"2026-01-01T00:00:00Z\"\n\"Version\",\"" + version + "\"\n\"OfferCode\",\"AmazonEC2\"\n")
	row(&b, columns...)
	for i, t := range Types() {
		sku := fmt.Sprintf("SKU%05d", i)
		for _, r := range []struct {
			term, tenancy, system, capacity string
			percent                         store.MicroUSD
		}{
			{"Reserved", "Shared", "Linux", "Used", 60},
			{"OnDemand", "Dedicated", "Linux", "Used", 110},
			{"OnDemand", "Shared", "Windows", "Used", 190},
			{"OnDemand", "Shared", "Linux", "AllocatedCapacityReservation", 0},
			{"OnDemand", "Shared", "Linux", "Used", 100},
		} {
			micros := Hour(t) * r.percent / 100
			price := fmt.Sprintf("%d.%06d0000", micros/1e6, micros%1e6)
			row(&b, sku, "JRTCKXETXF", r.term, "$"+price+" per "+r.system+", "+t, "Hrs", price, "USD", "Compute Instance", "AWS Region",
				t, r.tenancy, r.system, "No License required", r.capacity, "OnDemand", "NA", region)
		}
	}
	return b.Bytes()
}

func row(b *bytes.Buffer, values ...string) {
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, "%q", v)
	}
	b.WriteByte('\n')
}
