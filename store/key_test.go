package store_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/alphagov/github-actions-runner-orchestration/store"
)

func TestParseLabels(t *testing.T) {
	many := make([]string, store.MaxLabels+1)
	for i := range many {
		many[i] = "l" + strings.Repeat("x", i)
	}
	for _, c := range []struct {
		name string
		in   []string
		want []string // nil: refused
	}{
		{"None", nil, []string{}},
		{"SortedAndOnce", []string{"b", "a", "b"}, []string{"a", "b"}},
		{"TrimmedAndLowered", []string{" Large\t", "LINUX"}, []string{"large", "linux"}},
		{"AllCharacters", []string{"abcdefghijklmnopqrstuvwxyz0123456789._-"}, []string{"abcdefghijklmnopqrstuvwxyz0123456789._-"}},
		{"Of64", []string{strings.Repeat("a", 64)}, []string{strings.Repeat("a", 64)}},
		{"Of65", []string{strings.Repeat("a", 65)}, nil},
		{"Sixteen", many[:16], many[:16]},
		{"Seventeen", many, nil},
		{"SixteenAfterDuplicates", append(slices.Clone(many[:16]), many[0]), many[:16]},
		{"Empty", []string{"a", ""}, nil},
		{"Blank", []string{" "}, nil},
		{"SpaceInside", []string{"a b"}, nil},
		{"Comma", []string{"a,b"}, nil},
		{"Slash", []string{"a/b"}, nil},
		{"Hash", []string{"a#b"}, nil},
		{"NewlineAtTheEnd", []string{"a\n"}, nil},
		{"Shell", []string{"$(id)"}, nil},
		{"NotASCII", []string{"größe"}, nil},
		{"TwinOfK", []string{"\u212A8s"}, nil},
		{"TwinOfI", []string{"\u0130nt"}, nil},
		{"Bidi", []string{"a\u202Eb"}, nil},
		{"ControlCharacter", []string{"a\x00"}, nil},
		{"OwnPrefix", []string{"garo-x"}, nil},
		{"OwnPrefixInCapitals", []string{"GARO-x"}, nil},
		{"AlmostOwnPrefix", []string{"garox"}, []string{"garox"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			given := slices.Clone(c.in)
			got, err := store.ParseLabels(c.in)
			if (err == nil) != (c.want != nil) || !slices.Equal(got, c.want) {
				t.Errorf("ParseLabels(%q) = %q, %v; want %q", c.in, got, err, c.want)
			}
			if !slices.Equal(c.in, given) {
				t.Errorf("ParseLabels changed what it was given to %q", c.in)
			}
		})
	}
}

func FuzzParseLabels(f *testing.F) {
	for _, seed := range []string{"a,b", "A|b|a", " x ", "garo-1", "\u212A", strings.Repeat("a|", 20)} {
		f.Add(seed)
	}
	form := regexp.MustCompile(`\A[a-z0-9._-]{1,64}\z`)
	f.Fuzz(func(t *testing.T, joined string) {
		in := strings.Split(joined, "|")
		got, err := store.ParseLabels(in)
		if err != nil {
			if len(got) != 0 {
				t.Errorf("ParseLabels(%q) = %q beside an error", in, got)
			}
			return
		}
		for i, l := range got {
			if !form.MatchString(l) || strings.HasPrefix(l, "garo-") || i > 0 && got[i-1] >= l {
				t.Errorf("ParseLabels(%q) = %q: %q is not allowed there", in, got, l)
			}
			if !slices.ContainsFunc(in, func(raw string) bool { return strings.EqualFold(strings.Trim(raw, " \t"), l) }) {
				t.Errorf("ParseLabels(%q) = %q: nobody named %q", in, got, l)
			}
		}
		for _, raw := range in {
			if strings.ContainsFunc(raw, func(r rune) bool { return r > 127 }) {
				t.Errorf("ParseLabels(%q) = %q: %q is not ASCII and was not refused", in, got, raw)
			}
		}
		if again, err := store.ParseLabels(got); err != nil || !slices.Equal(again, got) {
			t.Errorf("ParseLabels(%q) = %q, %v; want the same again", got, again, err)
		}
	})
}

func TestSpecNamesWhatTheCallerNamed(t *testing.T) {
	full := store.Machine{InstanceTypes: []string{"a", "b"}, Image: "ami-1", Subnets: []string{"s1", "s2"}, SecurityGroups: []string{"g1", "g2"}}
	if got := (store.Machine{InstanceTypes: []string{}}).Spec(); got != "default" {
		t.Errorf("Spec of nothing = %s, want default", got)
	}
	if got := (store.Machine{Image: "ami-1"}).Spec(); got != "58126cd0fdd3" { // as every version makes it: locks are found by it
		t.Errorf("Spec = %s, want what it always was", got)
	}
	if got := full.Spec(); !regexp.MustCompile(`\A[0-9a-f]{12}\z`).MatchString(got) {
		t.Errorf("Spec = %s, want 12 hex digits", got)
	}
	for _, c := range []struct {
		name string
		edit func(*store.Machine)
		same bool
	}{
		{"OtherOrderOfSubnets", func(m *store.Machine) { m.Subnets = []string{"s2", "s1", "s2"} }, true},
		{"OtherOrderOfGroups", func(m *store.Machine) { m.SecurityGroups = []string{"g2", "g1", "g1"} }, true},
		{"OtherOrderOfTypes", func(m *store.Machine) { m.InstanceTypes = []string{"b", "a"} }, false},
		{"OtherType", func(m *store.Machine) { m.InstanceTypes = []string{"a", "c"} }, false},
		{"OtherImage", func(m *store.Machine) { m.Image = "ami-2" }, false},
		{"OtherSubnet", func(m *store.Machine) { m.Subnets = []string{"s1", "s3"} }, false},
		{"OtherGroup", func(m *store.Machine) { m.SecurityGroups = []string{"g1"} }, false},
		{"NoImage", func(m *store.Machine) { m.Image = "" }, false},
		{"RootVolume", func(m *store.Machine) { m.RootVolumeGB = 100 }, false},
		{"CPU", func(m *store.Machine) { m.CPU = 8 }, false},
		{"Memory", func(m *store.Machine) { m.MemoryGB = 8 }, false},
		{"GPU", func(m *store.Machine) { m.GPU = 1 }, false},
		{"Arch", func(m *store.Machine) { m.Arch = store.ARM64 }, false},
		{"Tags", func(m *store.Machine) { m.Tags = map[string]string{"a": "1"} }, false},
		{"SubnetsAsGroups", func(m *store.Machine) { m.Subnets, m.SecurityGroups = m.SecurityGroups, m.Subnets }, false},
	} {
		m := full
		c.edit(&m)
		if got := m.Spec() == full.Spec(); got != c.same {
			t.Errorf("%s: the same spec: %v, want %v", c.name, got, c.same)
		}
	}
	for _, m := range []store.Machine{{InstanceTypes: []string{"x"}}, {Image: "x"}, {Subnets: []string{"x"}}, {SecurityGroups: []string{"x"}}, {RootVolumeGB: 1}, {Tags: map[string]string{"x": ""}}, {CPU: 1}, {MemoryGB: 1}, {GPU: 1}, {Arch: store.X86}} {
		if m.Spec() == "default" {
			t.Errorf("Spec of %+v = default, though it names something", m)
		}
	}
	if full.Spec(); !slices.Equal(full.Subnets, []string{"s1", "s2"}) {
		t.Errorf("Spec changed the machine to %+v", full)
	}
}

func TestLockKey(t *testing.T) {
	r := accepted("r1", store.Shared)
	if got, want := r.LockKey(), "123456789012/eu-west-2/42/spot/default/large,linux"; got != want {
		t.Errorf("LockKey = %s, want %s", got, want)
	}
	r.Mode = store.Ephemeral
	if got := r.LockKey(); got != "r1" {
		t.Errorf("LockKey of an ephemeral request = %s, want its id", got)
	}
}

// TestRequestsShareOnlyIfEveryFieldIsEqual draws two requests from few values,
// so that they are often nearly the same.
func TestRequestsShareOnlyIfEveryFieldIsEqual(t *testing.T) {
	labels := rapid.Custom(func(t *rapid.T) []string {
		raw := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "a.b", "a_b", "ab", "-", "default"}), 0, 3).Draw(t, "labels")
		parsed, err := store.ParseLabels(raw)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	})
	draw := rapid.Custom(func(t *rapid.T) store.Request {
		r := store.Request{
			ID:         rapid.SampledFrom([]string{"r1", "r2"}).Draw(t, "id"),
			Account:    rapid.SampledFrom([]string{"1", "12"}).Draw(t, "account"),
			Region:     rapid.SampledFrom([]string{"eu-west-1", "eu-west-2"}).Draw(t, "region"),
			Repository: store.Repository{ID: rapid.SampledFrom([]string{"1", "12", "2"}).Draw(t, "repository")},
			Type:       rapid.SampledFrom([]string{store.Spot, store.OnDemand}).Draw(t, "type"),
			Mode:       rapid.SampledFrom([]string{store.Shared, store.Ephemeral}).Draw(t, "mode"),
			Labels:     labels.Draw(t, "labels"),
		}
		r.Machine.Image = rapid.SampledFrom([]string{"", "ami-1"}).Draw(t, "image")
		return store.Case{Request: r}.Accept(t0, identity(r.ID, lim.GiveUp)).Request
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw.Draw(t, "a"), draw.Draw(t, "b")
		equal := a.Account == b.Account && a.Region == b.Region && a.Repository.ID == b.Repository.ID && a.Type == b.Type &&
			a.Spec == b.Spec && slices.Equal(a.Labels, b.Labels)
		want := a.Mode == store.Shared && b.Mode == store.Shared && equal ||
			a.Mode == store.Ephemeral && b.Mode == store.Ephemeral && a.ID == b.ID
		if got := a.LockKey() == b.LockKey(); got != want {
			t.Errorf("the keys %s and %s are equal: %v, want %v", a.LockKey(), b.LockKey(), got, want)
		}
	})
}

// FuzzLockKeyOfLabels splits two texts into labels: `a,b` and `c` must never
// have the key of `a` and `b,c`.
func FuzzLockKeyOfLabels(f *testing.F) {
	f.Add("a,b|c", "a|b,c")
	f.Add("a|b", "b|a")
	f.Add("a/b", "a|b")
	f.Add("default/a", "a")
	f.Fuzz(func(t *testing.T, one, other string) {
		a, errA := store.ParseLabels(strings.Split(one, "|"))
		b, errB := store.ParseLabels(strings.Split(other, "|"))
		if errA != nil || errB != nil {
			return // refused: such a request has no key
		}
		r, s := accepted("r", store.Shared), accepted("s", store.Shared)
		r.Labels, s.Labels = a, b
		if got, want := r.LockKey() == s.LockKey(), slices.Equal(a, b); got != want {
			t.Errorf("labels %q and %q: the keys are equal: %v, want %v", a, b, got, want)
		}
	})
}

func TestRunnersRegisterNothingThatOthersCouldTake(t *testing.T) {
	shared, ephemeral := accepted("r1", store.Shared), accepted("r1", store.Ephemeral)
	same(t, "labels of a shared runner", shared.RunnerLabels(), []string{"garo-own", "spot", "large", "linux"})
	same(t, "labels of an ephemeral runner", ephemeral.RunnerLabels(), []string{"garo-own"})
	for _, r := range []store.Request{shared, ephemeral} {
		same(t, "runs-on", r.RunsOn(), []string{"garo-own"})
	}
}
