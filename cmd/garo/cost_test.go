package main

import (
	"bytes"
	"testing"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
)

var someUsage = apitype.Usage{
	By: []string{"repository", "workflow"},
	Rows: []apitype.UsageRow{
		{Repository: "acme/shop", Workflow: "Build", Runners: 3, Seconds: 5400, USD: new(1.2345)},
		{Repository: "acme/shop", Workflow: "=cmd()", Runners: 1, Seconds: 7200, UnpricedSeconds: 3600, USD: new(0.5)},
		{Repository: "acme/web", Workflow: "Deploy", Runners: 1, Seconds: 60, UnpricedSeconds: 60},
	},
	Total: apitype.UsageRow{Runners: 5, Seconds: 12660, UnpricedSeconds: 3660, USD: new(1.7345)},
}

func TestCostTable(t *testing.T) {
	want := `REPOSITORY  WORKFLOW  RUNNERS  HOURS  UNPRICED  COST
acme/shop   Build     3        1.50   -         $1.23
acme/shop   =cmd()    1        2.00   1.00      more than $0.5000
acme/web    Deploy    1        0.02   0.02      unknown
total       -         5        3.52   1.02      more than $1.73
`
	if got := costTable(someUsage).text(0, false); got != want {
		t.Errorf("the table is\n%s\nwant\n%s", got, want)
	}
	for width, want := range map[int]string{
		60: "REPOSITORY  WORKFLOW  HOURS  UNPRICED  COST\n",
		40: "REPOSITORY  WORKFLOW  HOURS  COST\n",
	} {
		if got := costTable(someUsage).text(width, false); !bytes.HasPrefix([]byte(got), []byte(want)) {
			t.Errorf("the table in %d columns is\n%s\nwant it to begin with %s", width, got, want)
		}
	}
}

func TestCostCSV(t *testing.T) {
	var b bytes.Buffer
	if err := costCSV(&b, someUsage); err != nil {
		t.Fatal(err)
	}
	want := `repository,workflow,runners,seconds,unpriced_seconds,usd
acme/shop,Build,3,5400,0,1.234500
acme/shop,'=cmd(),1,7200,3600,0.500000
acme/web,Deploy,1,60,60,
`
	if b.String() != want {
		t.Errorf("the CSV is\n%s\nwant\n%s", b.String(), want)
	}
}
