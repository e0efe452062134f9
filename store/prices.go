package store

import (
	"maps"
	"strconv"
	"strings"
	"time"
)

// MicroUSD is an amount of money in millionths of a US dollar. As the price of a machine,
// zero stands for one that nobody knows: EC2 gives none away.
type MicroUSD int64

// maxUSD bounds the price of an hour: the dearest instance type costs some hundred dollars.
const maxUSD = 1_000_000

// ParseUSD reads a price as AWS writes it: "0.0345000000". What is smaller than a millionth
// is rounded. It is false for what is no such number, for nothing, and for more than a
// million dollars: no machine costs that.
func ParseUSD(s string) (MicroUSD, bool) {
	whole, part, _ := strings.Cut(s, ".")
	part += "0000000"
	for _, digits := range []string{whole, part} {
		if strings.Trim(digits, "0123456789") != "" {
			return 0, false
		}
	}
	dollars, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || dollars > maxUSD {
		return 0, false
	}
	micros, err := strconv.ParseInt(part[:6], 10, 64)
	if err != nil {
		return 0, false
	}
	if part[6] >= '5' {
		micros++
	}
	usd := MicroUSD(dollars*1e6 + micros)
	return usd, usd > 0
}

// String returns the amount in dollars, with two decimals or as many as it has.
func (m MicroUSD) String() string {
	sign := ""
	if m < 0 {
		sign, m = "-", -m
	}
	part := strings.TrimRight(strconv.FormatInt(int64(1e6+m%1e6), 10)[1:], "0")
	for len(part) < 2 {
		part += "0"
	}
	return sign + "$" + strconv.FormatInt(int64(m/1e6), 10) + "." + part
}

// Prices is what an hour of a machine costs, as AWS says: on-demand in a region, or as a
// spot machine of an account there. Only the reaper reads them from AWS. A price that was
// not read is not known; one that is old is still the best that is known.
type Prices struct {
	Meta
	Key string `json:"key"` // a region, or <account>/<region>
	// Hour has the on-demand prices by instance type, and the spot ones by instance type
	// and availability zone, with a space between them.
	Hour map[string]MicroUSD `json:"hour,omitempty"`
	// Zones are those of the account's subnets, for spot prices.
	Zones map[string]string `json:"zones,omitempty"`
	// ReadAt is when all of them were read. Zero: never.
	ReadAt time.Time `json:"read_at,omitzero"`
	// NextAt is when they are to be read again.
	NextAt time.Time `json:"next_at,omitzero"`
	// File is how far the list of a region is read.
	File PriceFile `json:"file,omitzero"`
	// Unread is why the last reading failed; empty: it did not.
	Unread string `json:"unread,omitempty"`
}

// PriceFile is one version of the price list of a region, and how much of it is read. The
// list has hundreds of megabytes, so that several runs of the reaper share it.
type PriceFile struct {
	Path   string `json:"path"`   // at AWS's price list; it has the version
	Offset int64  `json:"offset"` // in bytes: what comes before it is read
	Whole  bool   `json:"whole,omitempty"`
}

// Ref implements Item.
func (p *Prices) Ref() Ref { return Ref{KindPrices, p.Key} }

func (p *Prices) name(id string) { p.Key = id }

// PriceRefs names the spot prices of an account in a region, and the on-demand ones of the
// region, in that order.
func PriceRefs(account, region string) [2]Ref {
	return [2]Ref{{KindPrices, SweepKey(account, region)}, {KindPrices, region}}
}

const (
	// spotPeriod is how often spot prices are read: they change a few times a day.
	spotPeriod = time.Hour
	// listPeriod is how often AWS is asked for a new price list.
	listPeriod = 24 * time.Hour
	// pricesAgain is the pause after a reading that failed: what AWS refuses, people
	// change in minutes at best.
	pricesAgain = 15 * time.Minute
	// pricesKeep is how long prices stay that nobody reads any more, since no account is
	// registered for their region: as long as records do, whose cost they may tell.
	pricesKeep = 30 * 24 * time.Hour
)

// Due reports whether the prices are to be read.
func (p *Prices) Due(now time.Time) bool { return !p.NextAt.After(now) }

// ReadSpot keeps the spot prices of all instance types that were asked for, and the zones of
// the subnets.
func (p *Prices) ReadSpot(now time.Time, hour map[string]MicroUSD, zones map[string]string) Decision {
	p.Hour, p.Zones = hour, zones
	return p.read(now, spotPeriod)
}

// ReadList keeps prices of a part of the price list, and how far that is read. What is known
// of other instance types stays.
func (p *Prices) ReadList(now time.Time, hour map[string]MicroUSD, to PriceFile) Decision {
	all := maps.Clone(p.Hour)
	if all == nil {
		all = map[string]MicroUSD{}
	}
	maps.Copy(all, hour)
	if to.Whole && len(all) == 0 {
		return p.Missed(now, "price file "+to.Path+" has no price of a Linux machine: its form may have changed")
	}
	p.Hour, p.File = all, to
	if !to.Whole {
		p.Unread = ""
		return p.write(now)
	}
	return p.read(now, listPeriod)
}

func (p *Prices) read(now time.Time, period time.Duration) Decision {
	p.ReadAt, p.NextAt, p.Unread = now, now.Add(period), ""
	return p.write(now)
}

// Missed keeps why the prices could not be read. What is known stays. A price list starts
// again: the version that was being read may be gone.
func (p *Prices) Missed(now time.Time, why string) Decision {
	p.NextAt, p.Unread, p.File = now.Add(pricesAgain), why, PriceFile{}
	return p.write(now)
}

// write returns the decision to write p, which is the only item of its commit.
func (p *Prices) write(now time.Time) Decision {
	p.expire(now, pricesKeep)
	return Decision{Case: &Case{}, Changes: []Change{Put(p)}}
}

// PriceOf returns what an hour of a machine costs, and the zone that its subnet is in; each
// is its zero value where nobody knows it. spot and list are what PriceRefs names.
func PriceOf(p Placement, spot, list Prices) (hour MicroUSD, zone string) {
	zone = spot.Zones[p.Subnet]
	if p.Market == Spot {
		return spot.Hour[SpotKey(p.InstanceType, zone)], zone
	}
	return list.Hour[p.InstanceType], zone
}

// SpotKey is where Prices.Hour has the spot price of an instance type in a zone.
func SpotKey(instanceType, zone string) string { return instanceType + " " + zone }
