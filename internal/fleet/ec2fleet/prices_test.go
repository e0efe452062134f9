package ec2fleet_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/fleet"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

const subnetsAnswer = `<DescribeSubnetsResponse><subnetSet><item><subnetId>subnet-1</subnetId><availabilityZone>eu-west-2a</availabilityZone></item>
<item><subnetId>subnet-2</subnetId><availabilityZone>eu-west-2b</availabilityZone></item></subnetSet></DescribeSubnetsResponse>`

func history(next string, prices ...[4]string) reply {
	var body strings.Builder
	body.WriteString("<DescribeSpotPriceHistoryResponse><spotPriceHistorySet>")
	for _, p := range prices {
		body.WriteString("<item><instanceType>" + p[0] + "</instanceType><productDescription>Linux/UNIX</productDescription><availabilityZone>" + p[1] +
			"</availabilityZone><spotPrice>" + p[2] + "</spotPrice><timestamp>2026-01-02T" + p[3] + ".000Z</timestamp></item>")
	}
	return reply{200, body.String() + "</spotPriceHistorySet><nextToken>" + next + "</nextToken></DescribeSpotPriceHistoryResponse>", nil}
}

// The history has the last change before now, and can have later ones: the newest counts.
func TestNewestSpotPriceOfEachZoneCounts(t *testing.T) {
	w := &wire{answers: []reply{
		{200, subnetsAnswer, nil},
		history("more", [4]string{"c7g.large", "eu-west-2a", "0.034500", "03:04:05"}, [4]string{"c7g.large", "eu-west-2a", "0.031200", "01:00:00"}),
		history("", [4]string{"c7g.large", "eu-west-2b", "0.040000", "01:00:00"}, [4]string{"m7g.large", "eu-west-2b", "free", "01:00:00"}),
	}}
	hour, zones, err := w.fleet().SpotPrices(t.Context(), here, []string{"c7g.large", "m7g.large"}, []string{"subnet-1", "subnet-2", "subnet-3"})
	want := map[string]store.MicroUSD{"c7g.large eu-west-2a": 34_500, "c7g.large eu-west-2b": 40_000}
	if err != nil || !maps.Equal(hour, want) {
		t.Errorf("SpotPrices = %v, %v; want %v", hour, err, want)
	}
	if want := map[string]string{"subnet-1": "eu-west-2a", "subnet-2": "eu-west-2b"}; !maps.Equal(zones, want) {
		t.Errorf("the zones are %v, want %v", zones, want)
	}
	if len(w.calls) != 3 {
		t.Fatalf("%d calls, want 3: the subnets and two pages", len(w.calls))
	}
	c := w.calls[1]
	if c.Get("Action") != "DescribeSpotPriceHistory" || c.Get("InstanceType.2") != "m7g.large" || c.Get("ProductDescription.1") != "Linux/UNIX" ||
		c.Get("StartTime") == "" || c.Has("EndTime") || c.Get("Filter.1.Value.2") != "eu-west-2b" {
		t.Errorf("the call is %v, want prices of Linux in the two zones from now on", c)
	}
	if w.calls[2].Get("NextToken") != "more" {
		t.Errorf("the second call is %v, want the next page", w.calls[2])
	}
}

func TestSpotPricesThatEC2RefusesAreAnError(t *testing.T) {
	denied := ec2Error(403, "UnauthorizedOperation", "You are not authorized")
	for name, answers := range map[string][]reply{"Subnets": {denied}, "Prices": {{200, subnetsAnswer, nil}, denied}} {
		t.Run(name, func(t *testing.T) {
			w := &wire{answers: answers}
			hour, zones, err := w.fleet().SpotPrices(t.Context(), here, []string{"c7g.large"}, []string{"subnet-1"})
			if hour != nil || zones != nil {
				t.Errorf("SpotPrices = %v, %v; want neither", hour, zones)
			}
			wantError(t, "SpotPrices", err, fleet.ErrRefused, "UnauthorizedOperation")
		})
	}
}
