package repotest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// rule says what some packages may not import, leaving tests aside. A pattern is
// an import path, "./" in front of one of ours, and "/..." behind it takes in all
// that is below. A rule for packages that do not exist binds nothing.
type rule struct {
	from    []string // who is bound
	spared  []string // who is not, though in from
	deep    bool     // not by way of other packages either
	never   []string // what they may not import
	but     []string // what they may, though in never
	because string
}

const awsSDK = "github.com/aws/aws-sdk-go-v2/..."

// adapters are the packages that speak to something outside, or simulate it.
var adapters = []string{
	"./store/dynamostore", "./store/sqlitestore",
	"./internal/fleet/ec2fleet", "./internal/fleet/simfleet",
	"./internal/queue/sqsqueue", "./internal/queue/sqlitequeue",
	"./internal/aws/assume", "./internal/aws/ssmparam", "./internal/fleet/simfleet/diskmap",
	awsSDK, "modernc.org/sqlite/...",
}

// contracts are the packages below which adapters, suites and simulations stand.
var contracts = []string{"store", "internal/fleet", "internal/queue", "internal/github"}

// unsorted returns the packages below a contract that are on neither list, so that no
// rule knows what they are.
func unsorted(all []pkg) []string {
	var problems []string
	for _, p := range all {
		name := short(p.ImportPath)
		below := slices.ContainsFunc(contracts, func(c string) bool { return strings.HasPrefix(name, c+"/") })
		if below && !matches(adapters, p.ImportPath) && !matches(forTests, p.ImportPath) {
			problems = append(problems, name+": put it on the list of adapters, or on that of packages for tests")
		}
	}
	return problems
}

// forTests are the packages that no production program may contain.
var forTests = []string{
	"./store/storetest", "./internal/queue/queuetest", "./internal/fleet/fleettest", "./internal/fleet/simfleet/...",
	"./internal/github/simgithub/...", "./internal/oidc/oidctest", "./internal/form/formtest", "./internal/local/...",
	"./internal/demo", "./internal/lambda/lambdatest", "./internal/aws/pricelist/simprices", "./internal/sim/...", "./store/dynamostore/dynamostoretest",
	"./internal/github/prismtest", "./internal/test/...",
}

var importRules = []rule{
	{
		from: []string{"./..."},
		spared: []string{
			"./internal/lambda/startup", "./internal/lambda/accounts", "./internal/local/...", "./internal/demo", "./cmd/garo",
			"./store/...", "./internal/fleet/...", "./internal/sim/...", "./internal/test/...",
		},
		never:   []string{"./store/...", "./internal/fleet/..."},
		but:     []string{"./store", "./internal/fleet"},
		because: "which store and which fleet there are is said in one place: internal/lambda for AWS, internal/local for one machine",
	},
	{
		from: []string{"./api/..."}, deep: true,
		never:   []string{"./worker/...", "./reaper/...", awsSDK},
		because: "the front door holds no right to launch or to end anything; it speaks to the others through the store and the queue",
	},
	{
		from: []string{"./worker/..."}, deep: true,
		never:   []string{"./api/...", "./reaper/...", awsSDK},
		because: "worker and reaper share rules by way of store, and SDK types stop in the adapters",
	},
	{
		from: []string{"./reaper/..."}, deep: true,
		never:   []string{"./api/...", "./worker/...", awsSDK},
		because: "the reaper must not be able to launch, and SDK types stop in the adapters",
	},
	{
		from:    []string{"./store"},
		never:   []string{"./..."},
		but:     []string{"./internal/secret", "./internal/form"},
		because: "the rules are pure functions on values, and everything else stands on them",
	},
	{
		from:    []string{"./client/..."},
		never:   []string{"./..."},
		but:     []string{"./client/...", "./internal/secret", "./internal/sleep"},
		because: "a caller's program should contain the client and nothing of the control plane",
	},
	{
		from: []string{"./internal/fleet", "./internal/github", "./internal/queue"}, deep: true,
		never:   adapters,
		because: "a contract that knows one of its implementations binds all others to it",
	},
	{
		from: []string{"./cmd/garo-api", "./cmd/garo-worker", "./cmd/garo-reaper", "./cmd/garo-agent"}, deep: true,
		never:   forTests,
		because: "a simulation or a fake must never be what production runs",
	},
	{
		from: []string{"./cmd/garo-api"}, deep: true,
		never:   []string{"github.com/aws/aws-sdk-go-v2/service/ec2/...", "./internal/fleet/ec2fleet", "./internal/aws/assume"},
		because: "what the API's program does not contain, no hole in it can call",
	},
	{
		from:    []string{"./cmd/garo-api"},
		never:   []string{"github.com/aws/aws-sdk-go-v2/service/sts/...", "github.com/aws/aws-sdk-go-v2/credentials/stscreds"},
		because: "the API takes on no role; the SDK's own configuration contains STS, but we do not call it",
	},
	{
		from: []string{"./..."}, deep: true,
		spared: []string{
			"./store/sqlitestore", "./internal/queue/sqlitequeue", "./internal/fleet/simfleet/...",
			"./internal/local/...", "./internal/demo", "./internal/sim/...", "./cmd/garo",
		},
		never:   []string{"modernc.org/sqlite/..."},
		because: "SQLite is for one machine; it is the largest dependency, and no Lambda function needs it",
	},
	{
		from: []string{"./..."}, deep: true,
		spared:  []string{"./internal/local", "./internal/demo", "./cmd/garo", "./internal/test/..."},
		never:   []string{"github.com/prometheus/..."},
		because: "the functions write their metrics into the log; garo local alone is asked for them",
	},
}

// forbidden returns the imports that break a rule.
func forbidden(rules []rule, all []pkg) []string {
	var problems []string
	for _, r := range rules {
		for _, p := range all {
			if !matches(r.from, p.ImportPath) || matches(r.spared, p.ImportPath) {
				continue
			}
			imports := p.Imports
			if r.deep {
				imports = p.Deps
			}
			for _, i := range imports {
				if matches(r.never, i) && !matches(r.but, i) {
					problems = append(problems, fmt.Sprintf("%s imports %s%s: %s", short(p.ImportPath), short(i), way(all, p, i), r.because))
				}
			}
		}
	}
	return problems
}

// way names the package of ours, if any, by which p comes to import target.
func way(all []pkg, p pkg, target string) string {
	if slices.Contains(p.Imports, target) {
		return ""
	}
	for _, q := range all {
		if slices.Contains(p.Deps, q.ImportPath) && slices.Contains(q.Imports, target) {
			return " (by way of " + short(q.ImportPath) + ")"
		}
	}
	return " (by way of others)"
}

func short(importPath string) string { return strings.TrimPrefix(importPath, module+"/") }

func matches(patterns []string, importPath string) bool {
	for _, p := range patterns {
		if ours, ok := strings.CutPrefix(p, "./"); ok {
			p = module + "/" + ours
		}
		below, wild := strings.CutSuffix(p, "/...")
		if importPath == below || wild && strings.HasPrefix(importPath, below+"/") {
			return true
		}
	}
	return false
}

// malformed returns the rules that could never be broken, or would not say why.
func malformed(rules []rule) []string {
	var problems []string
	for i, r := range rules {
		if len(r.from) == 0 || len(r.never) == 0 || r.because == "" {
			problems = append(problems, fmt.Sprintf("import rule %d: want from, never and because", i))
		}
	}
	return problems
}

func TestImportRulesFindWhatBreaksThem(t *testing.T) {
	// a graph makes packages of ours from "name: import import", and follows imports.
	graph := func(lines ...string) []pkg {
		direct := map[string][]string{}
		var all []pkg
		for _, l := range lines {
			name, imports, _ := strings.Cut(l, ":")
			p := pkg{ImportPath: module + "/" + name}
			for i := range strings.FieldsSeq(imports) {
				if !strings.Contains(i, ".") {
					i = module + "/" + i
				}
				p.Imports = append(p.Imports, i)
			}
			direct[p.ImportPath] = p.Imports
			all = append(all, p)
		}
		var follow func(seen, next []string) []string
		follow = func(seen, next []string) []string {
			for _, i := range next {
				if !slices.Contains(seen, i) {
					seen = follow(append(seen, i), direct[i])
				}
			}
			return seen
		}
		for i := range all {
			all[i].Deps = follow(nil, all[i].Imports)
		}
		return all
	}
	const (
		ec2  = "github.com/aws/aws-sdk-go-v2/service/ec2"
		sts  = "github.com/aws/aws-sdk-go-v2/service/sts"
		aws  = "github.com/aws/aws-sdk-go-v2/aws"
		lite = "modernc.org/sqlite"
	)
	rows := []struct {
		name  string
		graph []pkg
		want  string // in a problem; empty: there must be none
	}{
		{"ApiImportsWorker", graph("api: worker", "worker:"), "api imports worker"},
		{"ApiReachesTheReaper", graph("api: internal/x", "internal/x: reaper", "reaper:"), "api imports reaper (by way of internal/x)"},
		{"ApiImportsTheSDK", graph("api: " + aws), "api imports " + aws},
		{"ApiReachesEC2", graph("api: internal/x", "internal/x: "+ec2), "api imports " + ec2},
		{"ApiReachesSTS", graph("api: internal/x", "internal/x: "+sts), "api imports " + sts},
		{"BelowApiCountsAsApi", graph("api/v2: worker", "worker:"), "api/v2 imports worker"},
		{"WorkerImportsApi", graph("worker: api", "api:"), "worker imports api"},
		{"WorkerImportsReaper", graph("worker: reaper", "reaper:"), "worker imports reaper"},
		{"WorkerReachesTheSDK", graph("worker: internal/fleet/ec2fleet", "internal/fleet/ec2fleet: "+ec2), "worker imports " + ec2},
		{"ReaperImportsWorker", graph("reaper: worker", "worker:"), "reaper imports worker"},
		{"ReaperImportsApi", graph("reaper: api", "api:"), "reaper imports api"},
		{"ReaperImportsTheSDK", graph("reaper: " + aws), "reaper imports " + aws},
		{"StoreImportsKeys", graph("store: internal/secret internal/keys"), "store imports internal/keys"},
		{"ClientImportsStore", graph("client: client/apitype store", "client/apitype:"), "client imports store"},
		{"WireTypesImportStore", graph("client/apitype: store", "store:"), "client/apitype imports store"},
		{"ContractImportsItsAdapter", graph("internal/queue: internal/queue/sqlitequeue", "internal/queue/sqlitequeue:"), "internal/queue imports internal/queue/sqlitequeue"},
		{"FleetReachesEC2", graph("internal/fleet: internal/x", "internal/x: "+ec2), "internal/fleet imports " + ec2},
		{"GitHubImportsAStore", graph("internal/github: store/sqlitestore", "store/sqlitestore:"), "internal/github imports store/sqlitestore"},
		{"ProductionImportsASuite", graph("cmd/garo-api: store/storetest", "store/storetest:"), "cmd/garo-api imports store/storetest"},
		{"ProductionReachesTheSimulation", graph("cmd/garo-worker: worker", "worker: internal/sim", "internal/sim:"), "cmd/garo-worker imports internal/sim"},
		{"ReaperRunsAFakeGitHub", graph("cmd/garo-reaper: internal/github/simgithub", "internal/github/simgithub:"), "cmd/garo-reaper imports internal/github/simgithub"},
		{"AgentRunsLocalMode", graph("cmd/garo-agent: internal/local", "internal/local:"), "cmd/garo-agent imports internal/local"},
		{"ApiProgramContainsEC2", graph("cmd/garo-api: internal/x", "internal/x: "+ec2), "cmd/garo-api imports " + ec2},
		{"ApiProgramCallsSTS", graph("cmd/garo-api: " + sts), "cmd/garo-api imports " + sts},
		{"SQLiteSpreads", graph("internal/keys: store/sqlitestore", "store/sqlitestore: "+lite), "internal/keys imports " + lite},
		{"ProductionContainsSQLite", graph("cmd/garo-worker: internal/queue/sqlitequeue", "internal/queue/sqlitequeue: "+lite), "cmd/garo-worker imports " + lite},

		{"FunctionContainsPrometheus", graph("cmd/garo-api: internal/metrics", "internal/metrics: github.com/prometheus/client_golang/prometheus"), "cmd/garo-api imports github.com/prometheus/client_golang/prometheus"},

		{"AnotherChoosesAStore", graph("internal/keys: store/dynamostore", "store/dynamostore: store"), "internal/keys imports store/dynamostore"},
		{"FunctionChoosesAFleet", graph("cmd/garo-worker: internal/fleet/ec2fleet", "internal/fleet/ec2fleet:"), "cmd/garo-worker imports internal/fleet/ec2fleet"},

		{"WhatIsMeantIsAllowed", graph(
			"api: store internal/queue", "worker: store internal/fleet", "reaper: store internal/fleet", "store: internal/secret",
			"client: client/apitype", "client/apitype: internal/secret", "internal/secret:", "internal/queue:", "internal/fleet:",
			"internal/fleet/ec2fleet: internal/fleet "+ec2+" "+sts, "store/dynamostore: store "+aws, "store/sqlitestore: store "+lite,
			"cmd/garo-api: api internal/lambda/startup "+aws, "internal/lambda/startup: store/dynamostore",
			"cmd/garo-worker: worker internal/lambda/accounts", "internal/lambda/accounts: internal/fleet/ec2fleet",
			"internal/fleet/simfleet: internal/fleet/simfleet/diskmap", "internal/fleet/simfleet/diskmap: "+lite,
			"internal/local: store/sqlitestore internal/fleet/simfleet", "cmd/garo: internal/local",
		), ""},
		{"NameThatOnlyBeginsAlikeIsAnother", graph("apidocs: worker", "worker:"), ""},
	}
	found := func(rules []rule, row int) bool {
		return slices.ContainsFunc(forbidden(rules, rows[row].graph), func(p string) bool { return strings.Contains(p, rows[row].want) })
	}
	for i, c := range rows {
		t.Run(c.name, func(t *testing.T) {
			if c.want == "" {
				report(t, forbidden(importRules, c.graph))
			} else if !found(importRules, i) {
				t.Errorf("forbidden = %q, want %q in one of them", forbidden(importRules, c.graph), c.want)
			}
		})
	}
	for i, r := range importRules {
		without := slices.Delete(slices.Clone(importRules), i, i+1)
		needed := false
		for j, c := range rows {
			needed = needed || c.want != "" && !found(without, j)
		}
		if !needed {
			t.Errorf("import rule %d for %q: no row shows that it finds anything", i, r.from)
		}
	}
	if got := unsorted(graph("store/unlisted: store", "store:", "store/sqlitestore:", "internal/fleet/fleettest:")); len(got) != 1 || !strings.HasPrefix(got[0], "store/unlisted: ") {
		t.Errorf("unsorted = %q, want store/unlisted alone", got)
	}
	if got := malformed([]rule{{from: []string{"./x"}, because: "no reason"}}); len(got) != 1 {
		t.Errorf("malformed = %q, want one problem", got)
	}
}
