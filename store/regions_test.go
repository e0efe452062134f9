package store_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// abroad is a stage whose runner is being launched for a request in several regions.
func abroad(t *testing.T, regions ...string) stage {
	t.Helper()
	s := launching(t, store.Ephemeral)
	s.req.Regions, s.req.Region = regions, regions[0]
	return s
}

func TestRequestGoesToItsNextRegionWhenOneIsFull(t *testing.T) {
	for name, c := range map[string]struct {
		regions []string
		at      int // the region that it is tried in
		why     string
		passed  time.Duration
		region  string
		tries   int
		wait    string
	}{
		"NextRegion":       {[]string{"eu-west-2", "eu-west-1"}, 0, store.EndNoCapacity, time.Minute, "eu-west-1", 0, ""},
		"VCPULimit":        {[]string{"eu-west-2", "eu-west-1"}, 0, store.EndVCPULimit, time.Minute, "eu-west-1", 0, ""},
		"Third":            {[]string{"eu-west-2", "eu-west-1", "us-east-1"}, 1, store.EndNoCapacity, time.Minute, "us-east-1", 0, ""},
		"AfterTheLast":     {[]string{"eu-west-2", "eu-west-1"}, 1, store.EndNoCapacity, time.Minute, "eu-west-2", 1, store.WaitBackoff},
		"OneRegion":        {nil, 0, store.EndNoCapacity, time.Minute, "eu-west-2", 1, store.WaitBackoff},
		"NoHelpElsewhere":  {[]string{"eu-west-2", "eu-west-1"}, 0, store.EndNoBoot, time.Minute, "eu-west-2", 1, store.WaitBackoff},
		"OtherFromTheLast": {[]string{"eu-west-2", "eu-west-1"}, 1, store.EndNoBoot, time.Minute, "eu-west-2", 1, store.WaitBackoff},
	} {
		t.Run(name, func(t *testing.T) {
			s := launching(t, store.Ephemeral)
			if s.req.Regions = c.regions; len(c.regions) > 0 {
				s.req.Region = c.regions[c.at]
			}
			now := at(c.passed)
			d := s.c().Abandon(now, lim, "InsufficientInstanceCapacity", store.Said{}, store.NewEnd(c.why))
			r := d.Request
			if r.State != store.Accepted || r.Region != c.region || r.Tries != c.tries || r.Wait != c.wait || r.Runner != "" {
				t.Fatalf("request is %s in %s after %d tries, waits for %q; want accepted in %s, %d and %q", r.State, r.Region, r.Tries, r.Wait, c.region, c.tries, c.wait)
			}
			last := r.History[len(r.History)-1]
			if c.wait == "" && (!r.DueAt.Equal(now) || len(d.Sends) != 1 || r.Sends != 1 || !strings.Contains(last.Reason, "next: "+c.region)) {
				t.Errorf("request is due at %v, %d messages, %d sends, %q; want it sent now, and the story to say where", r.DueAt, len(d.Sends), r.Sends, last.Reason)
			}
			if len(r.Attempts) == 0 {
				t.Error("what was tried in the region is forgotten")
			}
			same(t, "regions", r.Regions, c.regions)
		})
	}
}

// Each try goes through all regions, and there are no more tries for that.
func TestRegionsAreTriedInEachTry(t *testing.T) {
	s := abroad(t, "eu-west-2", "eu-west-1")
	var went []string
	for now := t0; s.req.State != store.Failed; {
		went = append(went, s.req.Region)
		s.take(s.c().Abandon(now, lim, "InsufficientInstanceCapacity", store.Said{}, store.NewEnd(store.EndNoCapacity)))
		if s.req.State != store.Accepted {
			break
		}
		if now = s.req.DueAt; len(went) > 20 {
			t.Fatal("it is tried without end")
		}
		s.run, s.lock = store.Runner{}, store.Lock{}
		s.take(s.c().Begin(now, lim, intent()))
		s.run.Version = 1
		if s.run.Region != s.req.Region {
			t.Fatalf("the runner is in %s, and its request in %s", s.run.Region, s.req.Region)
		}
	}
	want := slices.Repeat([]string{"eu-west-2", "eu-west-1"}, len(lim.Waits)+1)
	if !slices.Equal(went, want) || s.req.Error.Code != store.EndNoCapacity {
		t.Errorf("it was tried in %q and ended with %v, want %q and no_capacity", went, s.req.Error, want)
	}
}

// Nothing is tried elsewhere once the request's time is up.
func TestNoRegionIsTriedAfterGiveUpAt(t *testing.T) {
	s := abroad(t, "eu-west-2", "eu-west-1")
	d := s.c().Abandon(s.req.GiveUpAt, lim, "", store.Said{}, store.NewEnd(store.EndNoCapacity))
	if r := d.Request; r.Region != "eu-west-2" || !r.State.Final() {
		t.Errorf("request is %s in %s, want it over", r.State, r.Region)
	}
}

func TestFallbackOffersWhatIsNamed(t *testing.T) {
	a := account()
	a.FallbackRegions = []string{"eu-west-1", "eu-west-2", "us-east-1"}
	for name, c := range map[string]struct {
		machine store.Machine
		want    []string
	}{
		"Anything":         {store.Machine{}, []string{"eu-west-2", "eu-west-1"}},
		"ImageOfItsRegion": {store.Machine{Image: "ami-1"}, []string{"eu-west-2"}},
		"Subnets":          {store.Machine{Subnets: []string{"s1"}}, []string{"eu-west-2"}},
		"Types":            {store.Machine{InstanceTypes: []string{"c7i.xlarge"}}, []string{"eu-west-2", "eu-west-1"}},
	} {
		r := accepted("r1", store.Ephemeral)
		r.Machine = c.machine
		if got := a.FallbackFor(r); !slices.Equal(got, c.want) {
			t.Errorf("%s: regions = %q, want %q", name, got, c.want)
		}
	}
	shared := accepted("r1", store.Shared).InRegions([]string{"eu-west-1", "eu-west-2"})
	if shared.Region != "eu-west-1" || shared.Regions != nil {
		t.Errorf("a shared request is in %s of %q, want the first alone", shared.Region, shared.Regions)
	}
}

func TestEachRegionHasToAllowTheRequest(t *testing.T) {
	for name, c := range map[string]struct {
		regions      []string
		machine      store.Machine
		field, value string
	}{
		"Both":         {[]string{"eu-west-1", "eu-west-2"}, store.Machine{}, "", ""},
		"Unknown":      {[]string{"eu-west-2", "us-east-1"}, store.Machine{}, "regions", "us-east-1"},
		"ImageOfOne":   {[]string{"eu-west-2", "eu-west-1"}, store.Machine{Image: "ami-1"}, "image_id", "ami-1"},
		"SubnetsOfOne": {[]string{"eu-west-2", "eu-west-1"}, store.Machine{Subnets: []string{"s1"}}, "subnets", "s1"},
	} {
		r := accepted("r1", store.Ephemeral)
		r.Machine = c.machine
		if field, value, ok := account().Permits(r.InRegions(c.regions)); field != c.field || value != c.value || ok != (c.field == "") {
			t.Errorf("%s: Permits = %q, %q, %v; want %q, %q", name, field, value, ok, c.field, c.value)
		}
	}
}

// A request of the version before is read as one in its region alone, and a new one in
// one region is written as it was.
func TestRequestOfTheVersionBeforeHasOneRegion(t *testing.T) {
	b, err := json.Marshal(accepted("r1", store.Ephemeral))
	if err != nil || strings.Contains(string(b), `"regions"`) {
		t.Errorf("a request in one region is written as %s, %v; want no list of regions", b, err)
	}
	var r store.Request
	if err := json.Unmarshal(b, &r); err != nil || r.Region != "eu-west-2" || r.Regions != nil {
		t.Errorf("it is read in %q, %q, %v; want its region alone", r.Region, r.Regions, err)
	}
}
