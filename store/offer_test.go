package store_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
	"github.com/alphagov/github-actions-runner-orchestration/store"
)

// offering is an account with offers by label and by pin.
func offering() store.Account {
	a := account()
	a.InstanceTypes = append(a.InstanceTypes, "m7g.large", "a1.large", "g4dn.xlarge")
	a.DefaultRegion = "eu-west-2"
	a.RunsOn = []store.Offer{
		{Labels: []string{"garo", "small"}},
		{Labels: []string{"garo", "arm64"}, Machine: store.Machine{InstanceTypes: []string{"m7g.large", "a1.large"}}},
		{Pin: "g-linux-"},
		{Labels: []string{"gpu"}, Machine: store.Machine{InstanceTypes: []string{"g4dn.xlarge"}}, Only: store.OfferOnly{Repositories: []store.Named{{ID: "43", Name: "alphagov/y"}}}},
		{Labels: []string{"mixed"}, Machine: store.Machine{InstanceTypes: []string{"m7g.large", "c7i.large"}}},
	}
	return a
}

func TestMatchSaysWhichOfferServesAJob(t *testing.T) {
	x := store.Repository{ID: "42", Name: "alphagov/x"}
	for _, c := range []struct {
		name   string
		labels []string
		offer  string // its key; empty: none
		why    string // a part of it; empty: the job does not look like ours
	}{
		{"AllItsLabels", []string{"garo", "small"}, "garo,small", ""},
		{"InAnyCaseAndOrder", []string{"Small", "GARO"}, "garo,small", ""},
		{"AndWhatIsTrueOfItsMachines", []string{"self-hosted", "Linux", "X64", "garo", "small"}, "garo,small", ""},
		{"TheArchitectureMayBeItsLabel", []string{"garo", "ARM64", "linux"}, "arm64,garo", ""},
		{"GPUsAreNoGraviton", []string{"mixed", "linux"}, "mixed", ""},
		{"Pin", []string{"g-linux-77-1-build-0"}, "g-linux-*", ""},
		{"PinInAnotherCase", []string{"G-Linux-77"}, "g-linux-*", ""},

		{"OneLabelIsMissing", []string{"garo"}, "", "runs_on garo,small: the job does not name small"},
		{"OneLabelTooMany", []string{"garo", "small", "fast"}, "", "do not have the label fast"},
		{"FalseArchitecture", []string{"garo", "small", "arm64"}, "", "runs_on garo,small: its machines do not have the label arm64"},
		{"NoArchitectureIsTrueOfBoth", []string{"mixed", "x64"}, "", "do not have the label x64"},
		{"FalseSystem", []string{"gpu", "windows"}, "", "do not have the label windows"},
		{"PinBesideAnother", []string{"g-linux-77", "self-hosted"}, "", "has to stand alone"},
		{"PinItself", []string{"g-linux-"}, "", "the label is the pin itself"},
		{"PinOfNoLabel", []string{"g-linux-7 7"}, "", "use 1 to 64 of a-z"},
		{"PinBesideNoLabel", []string{"g-linux-77", "ä"}, "", "has to stand alone"},
		{"LabelBesideNoLabel", []string{"garo", "small", "ä"}, "", "use 1 to 64 of a-z"},
		{"AnotherRepository", []string{"gpu"}, "", "keeps it for other repositories"},

		{"GitHubsOwn", []string{"ubuntu-latest"}, "", ""},
		{"GeneralLabelsAlone", []string{"self-hosted", "linux", "x64"}, "", ""},
		{"AGroupWithoutLabels", nil, "", ""},
		{"OwnLabelOfARequest", []string{"garo-abc", "small", "garo"}, "", ""},
		{"NotAscii", []string{"ubuntu-ſ"}, "", ""},
	} {
		m := offering().Match(x, c.labels)
		got := ""
		if m.Offer != nil {
			got = m.Offer.Key()
		}
		if got != c.offer || !strings.Contains(m.Why, c.why) || (m.Why == "") != (c.why == "") {
			t.Errorf("%s: Match(%q) = offer %q, why %q; want %q, %q", c.name, c.labels, got, m.Why, c.offer, c.why)
		}
		if m.Offer == nil {
			continue
		}
		for _, l := range c.labels {
			if !slices.Contains(m.Labels, strings.ToLower(l)) {
				t.Errorf("%s: a runner with %q does not get a job that names %q", c.name, m.Labels, l)
			}
		}
		if len(m.Labels) != len(c.labels) {
			t.Errorf("%s: the runner registers %q for %q: more than the job names attracts other jobs", c.name, m.Labels, c.labels)
		}
	}
	if m := offering().Match(store.Repository{ID: "43"}, []string{"gpu"}); m.Offer == nil || m.Offer.Key() != "gpu" {
		t.Errorf("the offer for repository 43 alone does not serve it: %+v", m)
	}
}

func TestOffersThatCannotBeMeantMakeNoRegistration(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*store.Account)
		want string // in the error; empty: none
	}{
		{"AsItIs", func(*store.Account) {}, ""},
		{"Neither", func(a *store.Account) { a.RunsOn[0] = store.Offer{} }, "runs_on[0]: want labels or a pin"},
		{"Both", func(a *store.Account) { a.RunsOn[0].Pin = "q-" }, "runs_on[0]: want labels or a pin"},
		{"UpperCase", func(a *store.Account) { a.RunsOn[0].Labels = []string{"Garo"} }, "runs_on[0].labels: write each once, in lower case"},
		{"Twice", func(a *store.Account) { a.RunsOn[0].Labels = []string{"q", "q"} }, "write each once"},
		{"OwnLabel", func(a *store.Account) { a.RunsOn[0].Labels = []string{"garo-x"} }, "the prefix garo-"},
		{"NoLabel", func(a *store.Account) { a.RunsOn[0].Labels = []string{"a b"} }, "use 1 to 64"},
		{"GeneralLabelsAlone", func(a *store.Account) { a.RunsOn[0].Labels = []string{"self-hosted", "linux", "x64"} }, "want one that is yours, not only linux, self-hosted, x64"},
		{"GitHubsOwn", func(a *store.Account) { a.RunsOn[0].Labels = []string{"ubuntu-latest"} }, "for GitHub's own machines"},
		{"FalseSystem", func(a *store.Account) { a.RunsOn[0].Labels = []string{"q", "windows"} }, `"windows" is not true of its machines`},
		{"FalseArchitecture", func(a *store.Account) { a.RunsOn[0].Labels = []string{"q", "arm64"} }, `"arm64" is not true of its machines`},
		{"PinOfAnotherForm", func(a *store.Account) { a.RunsOn[2].Pin = "G linux" }, "runs_on[2].pin"},
		{"PinWithoutRoom", func(a *store.Account) { a.RunsOn[2].Pin = strings.Repeat("p", 64) }, "runs_on[2].pin"},
		{"PinOfOwnLabels", func(a *store.Account) { a.RunsOn[2].Pin = "garo-linux-" }, "begins like labels that are not yours alone"},
		{"PinThatBeginsOwnLabels", func(a *store.Account) { a.RunsOn[2].Pin = "gar" }, "begins like labels that are not yours alone"},
		{"PinThatBeginsAGeneralLabel", func(a *store.Account) { a.RunsOn[2].Pin = "self" }, "begins like labels that are not yours alone"},
		{"PinThatBeginsGitHubsOwn", func(a *store.Account) { a.RunsOn[2].Pin = "ubuntu-24-" }, "begins like labels that are not yours alone"},
		{"PinsThatNest", func(a *store.Account) { a.RunsOn = append(a.RunsOn, store.Offer{Pin: "g-linux-big-"}) }, "runs_on[5] and runs_on[2]: the pins"},
		{"PinThatBeginsALabel", func(a *store.Account) { a.RunsOn[2].Pin = "sm" }, `the pin "sm" and the label "small" begin alike`},
		{"PinThatBeginsWithALabel", func(a *store.Account) { a.RunsOn[2].Pin = "gpu-" }, `the pin "gpu-" and the label "gpu" begin alike`},
		{"LabelsThatNest", func(a *store.Account) { a.RunsOn[0].Labels = []string{"gpu", "small"} }, "runs_on[3] and runs_on[0]: a job with the labels of one"},
		{"LabelsThatNestByTheArchitecture", func(a *store.Account) { a.RunsOn[0].Labels = []string{"gpu", "x64"} }, "runs_on[3] and runs_on[0]"},
		{"LabelsThatNestByWhatIsTrue", func(a *store.Account) {
			a.RunsOn[0].Labels, a.RunsOn[3].Labels = []string{"gpu", "x64"}, []string{"gpu", "linux"}
		}, "runs_on[3] and runs_on[0]"},
		{"TheSameLabels", func(a *store.Account) { a.RunsOn[0].Labels = []string{"gpu"} }, "runs_on[3] and runs_on[0]"},
		{"NoSuchRegion", func(a *store.Account) { a.RunsOn[0].Region = "us-east-1" }, `runs_on[0].region: "us-east-1"`},
		{"NoRegion", func(a *store.Account) { a.DefaultRegion = "" }, "runs_on[0].region: want one of the regions"},
		{"NoSuchMarket", func(a *store.Account) { a.RunsOn[0].Type = "reserved" }, `runs_on[0].type: "reserved"`},
		{"NoSuchType", func(a *store.Account) { a.RunsOn[0].InstanceTypes = []string{"p5.48xlarge"} }, `runs_on[0].instance_types: "p5.48xlarge"`},
		{"NoSuchImage", func(a *store.Account) { a.RunsOn[0].Image = "ami-7" }, `runs_on[0].image_id: "ami-7"`},
		{"TooLong", func(a *store.Account) { a.RunsOn[0].TimeoutS = 3*3600 + 1 }, "runs_on[0].timeout: want at most the account's 10800"},
		{"NamesAreNoIDs", func(a *store.Account) { a.RunsOn[3].Only.Repositories[0].ID = "acme/x" }, "runs_on[3].only.repositories"},
		{"NoSuchEvent", func(a *store.Account) { a.RunsOn[0].Only.Events = []string{"psuh"} }, `runs_on[0].only.events: "psuh"`},
		{"SharedMachinesOnly", func(a *store.Account) { a.Modes = []string{store.Shared} }, "modes wants ephemeral"},
		{"NarrowedByWhatNobodyTells", func(a *store.Account) { a.Only.Refs = []string{"refs/heads/main"} }, "no job would get a machine"},
		{"TooMany", func(a *store.Account) {
			a.RunsOn = nil
			for i := range 33 {
				a.RunsOn = append(a.RunsOn, store.Offer{Pin: fmt.Sprintf("p%02d-", i)})
			}
		}, "33 entries: want at most 32"},
		{"ShortSecret", func(a *store.Account) { a.WebhookSecrets = []secret.Text{secret.New("short")} }, "webhook_secrets: want at least 32"},
		{"ThreeSecrets", func(a *store.Account) {
			s := secret.New(strings.Repeat("s", 32))
			a.WebhookSecrets = []secret.Text{s, s, s}
		}, "webhook_secrets: want one, or two"},
	} {
		a := offering()
		c.edit(&a)
		err := parsed(t, a)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: ParseAccount = %v; want %q in it", c.name, err, c.want)
		}
	}
}

// A maximum that nobody keeps would be worse than none.
func TestOfferWithAMaximumMakesNoRegistration(t *testing.T) {
	a := offering()
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	b = []byte(strings.Replace(string(b), `"pin":"g-linux-"`, `"pin":"g-linux-","max":5`, 1))
	if _, err := store.ParseAccount(a.ID, b); err == nil || !strings.Contains(err.Error(), `unknown field "max"`) {
		t.Errorf("ParseAccount = %v, want that it does not know max", err)
	}
}

// parsed returns what ParseAccount says of an account.
func parsed(t *testing.T, a store.Account) error {
	t.Helper()
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	fields["external_id"] = "external"
	var secrets []string
	for _, s := range a.WebhookSecrets {
		secrets = append(secrets, s.Reveal()) // JSON has *** for them
	}
	if len(secrets) > 0 {
		fields["webhook_secrets"] = secrets
	}
	if b, err = json.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	_, err = store.ParseAccount(a.ID, b)
	return err
}

// Whatever offers a registration may have, no machine of one takes a job that another one
// serves: GitHub gives a job to any runner that has all of its labels.
func TestNoMachineTakesAJobOfAnotherOffer(t *testing.T) {
	const seeds, jobs = 400, 60
	words := []string{"a", "b", "ab", "self-hosted", "linux", "x64", "arm64"}
	r := rand.New(rand.NewPCG(18, 4))
	some := func(most int) []string {
		var out []string
		for range 1 + r.IntN(most) {
			out = append(out, words[r.IntN(len(words))])
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	registrations, pairs := 0, 0
	for range seeds {
		a := offering()
		a.RunsOn = nil
		for range 1 + r.IntN(3) {
			o := store.Offer{Labels: some(3)}
			if r.IntN(4) == 0 {
				o = store.Offer{Pin: []string{"p-", "a", "pin", "p"}[r.IntN(4)]}
			}
			o.InstanceTypes = [][]string{{"m7g.large"}, {"c7i.large"}, {"m7g.large", "c7i.large"}}[r.IntN(3)]
			a.RunsOn = append(a.RunsOn, o)
		}
		if parsed(t, a) != nil {
			continue
		}
		registrations++
		var served []store.Match
		for range jobs {
			labels := some(5)
			if r.IntN(4) == 0 {
				labels = []string{[]string{"p-1", "pin1", "a1"}[r.IntN(3)]}
			}
			if m := a.Match(store.Repository{ID: "42"}, labels); m.Offer != nil {
				served = append(served, m)
			}
		}
		for _, job := range served {
			for _, machine := range served {
				pairs++
				takes := !slices.ContainsFunc(job.Labels, func(l string) bool { return !slices.Contains(machine.Labels, l) })
				if takes && job.Offer.Key() != machine.Offer.Key() {
					t.Fatalf("a machine %q of %s takes a job %q of %s: %+v", machine.Labels, machine.Offer.Key(), job.Labels, job.Offer.Key(), a.RunsOn)
				}
			}
		}
	}
	if registrations < 50 || pairs < 5000 {
		t.Errorf("%d registrations and %d pairs were looked at, want 50 and 5000", registrations, pairs)
	}
}
